"""What an operator decides about the tools of a connection, and checks and sign-ins asked for again."""

from __future__ import annotations

from typing import Any

import pytest

from rootlink.errors import Unavailable
from rootlink.wire.checks import Verdict
from rootlink.wire.tools import ToolView
from tests.gateway.conftest import Instance
from tests.gateway.test_connect import MEMORY, C, P, done

T = f"{C}/memory/tools"


def tool(name: str, *, fingerprint: str = "f1", held: str | None = None) -> ToolView:
    return ToolView(name, f"memory__{name}", name, "", "write", "allow", None, held, [], 10, fingerprint)


@pytest.fixture
async def connected(instance: Instance) -> Instance:
    instance.provisioner.script = [done("memory__read", "memory__send")]
    await instance.data("POST", C, MEMORY)
    instance.provisioner.tools = [tool("read"), tool("send", held="it has changed")]
    return instance


async def _lines(instance: Instance) -> list[tuple[str, str, str]]:
    return [(line["action"], line["target"], line["detail"]) for line in await instance.data("GET", f"{P}/activity")]


async def test_tools_are_shown_as_they_are_judged(connected: Instance) -> None:
    shown = await connected.data("GET", T)
    assert [(one["tool"], one["name"], one["held"]) for one in shown] == [
        ("read", "memory__read", None),
        ("send", "memory__send", "it has changed"),
    ]


async def test_a_decision_is_kept_pushed_and_answered_as_it_then_is(connected: Instance) -> None:
    off = await connected.data("PUT", f"{T}/read", {"mode": "off"})
    assert (off["mode"], off["chosen"]) == ("off", "off")
    assert connected.store.connections.get(connected.project, "memory").rules.modes == {"read": "off"}
    assert f"refresh {connected.project}" in connected.provisioner.calls
    again = await connected.data("PUT", f"{T}/memory__read", {"mode": None})  # by the name that clients call
    assert (again["mode"], again["chosen"]) == ("allow", None)
    assert (await _lines(connected))[:2] == [("tool.mode", "memory/read", "default"), ("tool.mode", "memory/read", "off")]


async def test_a_definition_is_approved_by_the_fingerprint_that_was_seen(connected: Instance) -> None:
    approved = await connected.data("PUT", f"{T}/send", {"approve": "f1"})
    assert approved["held"] is None
    assert connected.store.connections.get(connected.project, "memory").rules.pins == {"send": "f1"}
    assert (await _lines(connected))[0] == ("tool.approve", "memory/send", "f1")


async def test_a_tool_that_is_called_as_another_s_public_name_is_not_taken_for_it(connected: Instance) -> None:
    connected.provisioner.tools = [tool("memory__send"), tool("send")]
    await connected.data("PUT", f"{T}/memory__send", {"mode": "off"})
    assert connected.store.connections.get(connected.project, "memory").rules.modes == {"send": "off"}
    await connected.data("PUT", f"{T}/memory__memory__send", {"mode": "ask"})
    assert connected.store.connections.get(connected.project, "memory").rules.modes == {"send": "off", "memory__send": "ask"}


async def test_a_definition_that_changed_since_it_was_seen_is_not_approved(connected: Instance) -> None:
    connected.provisioner.tools = [tool("send", fingerprint="f2", held="it has changed")]
    status, code, message = await connected.refused("PUT", f"{T}/send", {"approve": "f1"})
    assert (status, code) == (409, "conflict")
    assert "changed since" in message
    assert connected.store.connections.get(connected.project, "memory").rules.pins == {}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (f"{T}/read", {}, 400),
        (f"{T}/read", {"mode": "sometimes"}, 400),
        (f"{T}/nothing", {"mode": "off"}, 404),
        (f"{C}/other/tools/read", {"mode": "off"}, 404),
    ],
)
async def test_what_is_no_decision_is_refused(connected: Instance, path: str, body: Any, status: int) -> None:
    assert (await connected.refused("PUT", path, body))[0] == status
    assert connected.store.connections.get(connected.project, "memory").rules.modes == {}


async def test_project_keys_decide_nothing(connected: Instance) -> None:
    for method, path in (("GET", T), ("PUT", f"{T}/read"), ("POST", f"{C}/memory/check"), ("POST", f"{C}/memory/sign-in")):
        assert (await connected.refused(method, path, {"mode": "off"}, token=connected.key))[:2] == (401, "unauthorized")


async def test_a_check_answers_what_is_wrong_in_words(connected: Instance) -> None:
    connected.provisioner.verdict = Verdict("octocat", ["may write"])
    found = await connected.data("POST", f"{C}/memory/check")
    assert found == {"ok": True, "label": "octocat", "notes": ["may write"], "error": None}
    connected.provisioner.verdict = Verdict(error="GitHub does not know this key", code="unauthorized")
    found = await connected.data("POST", f"{C}/memory/check")
    assert (found["ok"], found["error"]) == (False, "GitHub does not know this key")
    assert (await _lines(connected))[:2] == [
        ("connection.check", "memory", "unauthorized"),
        ("connection.check", "memory", "ok"),
    ]
    connected.provisioner.refusal = Unavailable("the engine does not answer")
    assert (await connected.refused("POST", f"{C}/memory/check"))[:2] == (503, "unavailable")


async def test_a_sign_in_is_a_link(connected: Instance) -> None:
    assert await connected.data("POST", f"{C}/memory/sign-in") == {"link": "https://login.example/authorize?state=x"}
    assert (await _lines(connected))[0] == ("connection.sign_in", "memory", "")
