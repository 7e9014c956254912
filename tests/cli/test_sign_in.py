"""Connections a person signs in to, variants, and what checks found, from the command line."""

from __future__ import annotations

import pytest

from rootlink.cli import connections
from tests.cli.conftest import Run
from tests.cli.instance import LINK, Instance


def test_a_connect_shows_the_link_once_and_waits(run: Run, instance: Instance) -> None:
    instance.waits_for_sign_in = True
    instance.connect_says = {"label": "ada@docs", "notes": ["This role can write"], "held": ["docs__new"]}
    done = run("connect", "docs")
    assert done.code == 0, done.err
    assert done.out.count(LINK) == 1
    assert "docs is connected as ada@docs: 1 tool" in done.out
    assert "note: This role can write" in done.out
    assert "1 tool held back" in done.err and "rootlink tools approve docs" in done.err


def test_a_variant_asks_for_its_own_fields(run: Run, instance: Instance) -> None:
    assert run("connect", "docs", "--variant", "legacy", "--secret", "DOCS_TOKEN=-", stdin="t0ken\n").code == 0
    assert instance.requests[-1][2]["variant"] == "legacy"
    assert instance.requests[-1][2]["secrets"] == {"DOCS_TOKEN": "t0ken"}
    refused = run("connect", "docs", "--variant", "nonsense")
    assert (refused.code, "there are: legacy" in refused.err) == (1, True)


def test_a_failed_check_is_said_and_the_exit_code_tells(run: Run, instance: Instance) -> None:
    instance.connect_fails = "Docs does not know this key"
    done = run("connect", "docs")
    assert done.code == 1
    assert "Docs does not know this key" in done.err
    assert run("connect", "docs", "--json").code == 1


def test_connections_tell_as_whom_what_is_held_and_who_is_waited_for(run: Run, instance: Instance) -> None:
    shop = {
        "name": "shop",
        "connector": "postgres",
        "variant": "legacy",
        "kind": "mcp",
        "workspace": "main",
        "state": "connected",
    }
    step = {"step": "install", "state": "running", "detail": "sign in", "link": LINK}
    instance.connections = [
        {**shop, "tools": ["a", "b"], "label": "ro@shop", "notes": ["one", "two"], "held": ["shop__b"], "error": None},
        {**shop, "name": "docs", "variant": None, "state": "connecting", "steps": [step], "tools": []},
    ]
    shown = run("connections")
    row = shown.out.splitlines()[1]
    assert "postgres/legacy" in row and "ro@shop" in row and "one; two" in row
    assert f"docs waits for a sign-in: {LINK}" in shown.err
    assert "rootlink tools approve shop" in shown.err


def test_a_check_says_who_we_are_or_what_is_wrong(run: Run, instance: Instance) -> None:
    instance.verdict = {"ok": True, "label": "octocat", "notes": ["may write"], "error": None}
    assert run("check", "github").out == "github works as octocat\n  note: may write\n"
    instance.verdict = {"ok": False, "label": None, "notes": [], "error": "GitHub does not know this key"}
    done = run("check", "github")
    assert (done.code, done.out) == (1, "")
    assert "GitHub does not know this key" in done.err
    as_json = run("check", "github", "--json")
    assert (as_json.code, as_json.data["ok"]) == (1, False)


def test_a_sign_in_is_shown_and_waited_for(run: Run, instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOOK_EVERY", 0.01)
    instance.activity = [{"id": "act_1", "action": "connection.signed_in", "target": "docs"}]  # an earlier one
    done = run("sign-in", "docs")
    assert done.code == 0, done.err
    assert LINK in done.out and done.out.endswith("docs is signed in\n")
    assert instance.looked == 3


def test_nobody_is_waited_for_for_ever(run: Run, instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SIGN_IN_WITHIN", 0.0)
    done = run("sign-in", "docs")
    assert done.code == 1
    assert "rootlink sign-in docs" in done.err


def test_a_script_gets_the_link_and_goes_on(run: Run, instance: Instance) -> None:
    assert run("sign-in", "docs", "--json").data == {"link": LINK}
