"""A secret's plaintext exists in one place: the environment of the child it was meant for."""

from __future__ import annotations

import base64
from urllib.parse import quote

import psutil
import pytest

from tests.harness.instance import SERVERS, Instance, eventually, script

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PLAIN = SERVERS / "plain.py"
CHILD = script("child", PLAIN)
DIES = "import os, sys; sys.exit(os.environ['TOKEN'])"
CANARY = "canary/7f3a9c51+e0b24d68=Zq"


def forms(secret: str) -> list[bytes]:
    raw = secret.encode()
    based = [base64.b64encode(raw), base64.urlsafe_b64encode(raw).rstrip(b"=")]
    return [raw, *based, quote(secret, safe="").encode(), raw.hex().encode()]


def held_by(process: psutil.Process) -> set[str]:
    """Where the canary is seen from outside: the environment, the command line."""
    seen = set()
    try:
        if CANARY in str(process.environ()):
            seen.add("environ")
        if CANARY in str(process.cmdline()):
            seen.add("cmdline")
    except psutil.Error:
        pass
    return seen


def test_a_secret_is_found_nowhere_but_in_its_child(fresh: Instance) -> None:
    fresh.cli("secrets", "set", "CANARY", stdin=CANARY + "\n")
    body = {**CHILD, "env": {"TOKEN": "${CANARY}"}}
    assert fresh.engine("POST", "/mcp-servers", body).status == 201
    code = "async (input, ctx) => { console.log(ctx.env.CANARY); throw new Error('no ' + ctx.env.CANARY) }"
    fresh.engine("PUT", "/functions", {"name": "leak", "code": code})
    answers = [
        fresh.engine("POST", "/functions/leak/invoke", {"input": {}}),
        fresh.engine("GET", "/functions/leak/runs"),
        fresh.engine("GET", "/mcp-servers/child/logs"),
        fresh.engine("GET", "/mcp-servers"),
        fresh.project("GET", "/secrets"),
        fresh.project("GET", "/activity"),
        fresh.project("GET", "/engine"),
        fresh.project("POST", "/secrets", {"name": "bad name", "plaintext": CANARY}),
        fresh.project("POST", "/secrets", {"name": "OTHER", "plaintext": CANARY, "colour": "red"}),
        fresh.project("POST", "/connections", {"connector": "resend", "secrets": {"RESEND_API_KEY": CANARY}}),
        fresh.engine("POST", "/mcp-servers", {**body, "name": "dies", "args": ["-c", DIES]}),
    ]
    for answer in answers:
        assert not any(form in answer.body for form in forms(CANARY)), answer.body
    assert answers[-1].status == 502
    holders = {" ".join(process.cmdline())[-60:]: where for process in fresh.processes() if (where := held_by(process))}
    assert holders, "the control: the child does hold it"
    assert all(str(PLAIN)[-20:] in who and where == {"environ"} for who, where in holders.items()), holders
    assert [found for form in forms(CANARY) for found in fresh.secret_is_nowhere(form.decode())] == []


def test_a_rotated_secret_reaches_the_child_live(fresh: Instance) -> None:
    fresh.cli("secrets", "set", "CANARY", stdin="first\n")
    body = {**CHILD, "env": {"TOKEN": "${CANARY}"}}
    fresh.engine("POST", "/mcp-servers", body)
    assert "first" in str(fresh.call("child__env", {"name": "TOKEN"}))
    fresh.cli("secrets", "set", "CANARY", stdin="second\n")
    eventually(lambda: "second" in str(fresh.call("child__env", {"name": "TOKEN"})), what="the new value")
