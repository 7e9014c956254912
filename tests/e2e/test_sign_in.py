"""A remote server that a person signs in to, through the real programs: the test opens the link as their browser would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec
import psutil
import pytest

from tests.engine.oauth.authority import Site
from tests.harness.instance import Instance, eventually

pytestmark = pytest.mark.slow
CALL = ("notes__add", {"a": 20, "b": 22})


@pytest.fixture
def site() -> Iterator[Site]:
    with Site().serving() as one:
        yield one


def connect(instance: Instance, site: Site) -> None:
    pasted = instance.project("POST", "/paste", {"text": json.dumps({"mcpServers": {"notes": {"url": site.url}}})}).data
    wish = {"connector": "custom", "name": "notes", "server": pasted["servers"][0]["manifest"], "hosts": site.places}
    begun = instance.project("POST", "/connections", wish).data
    [link] = [step["link"] for step in begun["steps"] if step.get("link")]
    page = sign_in(link)
    assert page.status_code == 200 and "notes is signed in" in page.text
    eventually(lambda: instance.project("GET", "/connections/notes").data["state"] == "connected", what="the connection")


def sign_in(link: str) -> httpx2.Response:
    """As a browser does: the page, agreed to, and back."""
    agreed = httpx2.get(link, follow_redirects=False)
    return httpx2.get(agreed.headers["location"], follow_redirects=False, timeout=60)


def versions(instance: Instance) -> list[int]:
    """Of the one secret that a sign-in left in the vault."""
    return [secret["version"] for secret in instance.project("GET", "/secrets").data]


def works(instance: Instance) -> bool:
    found: dict[str, Any] = instance.call(*CALL)
    return bool(found["structuredContent"] == {"result": 42})


def test_a_person_signs_in_and_the_sign_in_lasts_and_no_token_is_seen(fresh: Instance, site: Site) -> None:
    site.lies.echo = True
    connect(fresh, site)
    assert works(fresh)
    assert versions(fresh) == [1]
    site.expire()
    assert works(fresh)
    eventually(lambda: versions(fresh) == [2], what="the new grant in the vault")
    fresh.project("POST", "/engine/restart")
    site.expire()
    assert works(fresh)
    assert site.asked["refresh_token"] == 2
    seen = [fresh.project("GET", path).body for path in ("/connections", "/secrets", "/engine", "/engine/logs", "/activity")]
    seen.append(fresh.engine("GET", "/mcp-servers").body)
    assert len(site.secrets) >= 7
    for secret in site.secrets:
        assert fresh.secret_is_nowhere(secret) == []
        assert not [body for body in seen if secret.encode() in body]


def test_an_engine_that_is_killed_after_a_renewal_leaves_it_to_the_next(fresh: Instance, site: Site) -> None:
    """A refresh token that is used twice ends the sign-in here: the next engine must have the newest one."""
    connect(fresh, site)
    for turn in range(2):
        site.expire()
        assert works(fresh)
        engine = psutil.Process(fresh.engine_pid())
        engine.kill()
        engine.wait(10)  # a call that reaches it on its deathbed is one that may have run, and is not sent again
        site.expire()
        assert works(fresh)
        assert site.asked["refresh_token"] == 2 * (turn + 1)


def test_a_sign_in_that_was_taken_back_is_told_in_words_and_made_again(fresh: Instance, site: Site) -> None:
    connect(fresh, site)
    site.revoke()
    answer = fresh.engine("POST", f"/tools/{CALL[0]}/call", {"arguments": CALL[1]})
    assert "rootlink sign-in notes" in answer.body.decode()
    link = fresh.project("POST", "/connections/notes/sign-in").data["link"]
    page = sign_in(link)
    assert page.status_code == 200
    assert works(fresh)
    assert sign_in(link).status_code == 404


def test_an_answer_of_another_issuer_undoes_the_connect(fresh: Instance, site: Site) -> None:
    site.lies.iss = "https://evil.example"
    pasted = fresh.project("POST", "/paste", {"text": json.dumps({"mcpServers": {"notes": {"url": site.url}}})}).data
    wish = {"connector": "custom", "name": "notes", "server": pasted["servers"][0]["manifest"], "hosts": site.places}
    begun = fresh.project("POST", "/connections", wish).data
    page = sign_in(next(step["link"] for step in begun["steps"] if step.get("link")))
    assert page.status_code == 403 and "not from the authorization server it was begun at" in page.text
    eventually(lambda: fresh.project("GET", "/connections").data == [], what="the undoing")
    assert not site.asked["authorization_code"]
    assert versions(fresh) == []


async def test_a_client_that_opens_pages_is_sent_to_sign_in(fresh: Instance, site: Site) -> None:
    connect(fresh, site)
    site.revoke()
    envelope = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    }
    able = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}}}
    params: dict[str, Any] = {"name": CALL[0], "arguments": CALL[1], "_meta": {**envelope, **able}}
    asked = _post(fresh, params)
    assert asked["resultType"] == "input_required", asked
    [(name, question)] = asked["inputRequests"].items()
    assert question["params"]["mode"] == "url"
    assert sign_in(question["params"]["url"]).status_code == 200
    again = _post(fresh, {**params, "requestState": asked["requestState"], "inputResponses": {name: {"action": "accept"}}})
    assert again["structuredContent"] == {"result": 42}


def _post(instance: Instance, params: dict[str, Any]) -> Any:
    headers = {
        "authorization": f"Bearer {instance.key}",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": params["name"],
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    answer = httpx2.post(instance.mcp, json=body, headers=headers, timeout=60)
    text = answer.text
    if "event-stream" in answer.headers["content-type"]:
        text = [line[5:] for line in text.splitlines() if line.startswith("data:") and line[5:].strip()][-1]
    return msgspec.json.decode(text.encode())["result"]
