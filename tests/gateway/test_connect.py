"""Connect as a saga, with a provisioner that does as the test says."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from rootlink.errors import Unavailable
from rootlink.records import Connection
from rootlink.wire.engine import InstallEvent
from rootlink.wire.mounts import Actual, Desired, Step
from tests.gateway.conftest import ADMIN, Instance, until

P = "/v1/projects/default"
C = f"{P}/connections"
KEY = "re_canary7d1f"
RESEND = {"connector": "resend", "secrets": {"RESEND_API_KEY": KEY}, "inputs": {"DEFAULT_FROM": "Acme <a@acme.example>"}}
MEMORY = {"connector": "memory"}


def done(*tools: str, kind: Any = "mount") -> InstallEvent:
    return InstallEvent(done=Actual("con", "main", "x", kind, "d", "ready", list(tools)))


def failed(code: str = "upstream_failed", message: str = "it said: no such module 'x'") -> InstallEvent:
    return InstallEvent(failed={"code": code, "message": message})


def running(detail: str) -> InstallEvent:
    return InstallEvent(step=Step("install", "running", detail))


async def _events(instance: Instance, body: Any) -> list[tuple[str, Any]]:
    headers = {"authorization": f"Bearer {ADMIN}", "accept": "text/event-stream"}
    async with instance.http.post(instance.url + C, json=body, headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        text = await response.text()
    return [_event(block) for block in text.split("\n\n") if block and not block.startswith(":")]


def _event(block: str) -> tuple[str, Any]:
    event, data = block.split("\n")
    return event.removeprefix("event: "), msgspec.json.decode(data.removeprefix("data: "))


def _vault(instance: Instance) -> dict[str, str]:
    return {
        row.name: instance.unsealer.open(row.ciphertext, project=row.project, name=row.name, version=row.version)
        for row in instance.store.secrets.sealed(instance.project)
    }


def _row(instance: Instance, name: str) -> Connection:
    return instance.store.connections.get(instance.project, name)


async def test_a_connector_without_key_or_hosts_is_connected_in_one_step(instance: Instance) -> None:
    instance.provisioner.script = [running("getting memory"), done("memory__read_graph", "memory__open_nodes")]
    status, answer = await instance.call("POST", C, MEMORY)
    assert status == 201, answer
    shown = answer["data"]
    assert (shown["name"], shown["connector"], shown["kind"], shown["workspace"]) == ("memory", "memory", "mcp", "main")
    assert (shown["state"], shown["error"]) == ("connected", None)
    assert shown["tools"] == ["memory__read_graph", "memory__open_nodes"]
    assert shown["steps"] == [{"step": "install", "state": "done", "detail": "2 tools"}]
    assert await instance.data("GET", f"{C}/memory") == shown
    assert await instance.data("GET", C) == [shown]


async def test_a_function_with_key_and_host_is_sealed_allowed_and_deployed(instance: Instance) -> None:
    instance.provisioner.script = [done("function__resend", kind="function")]
    shown = await instance.data("POST", C, RESEND)
    assert [(step["step"], step["state"]) for step in shown["steps"]] == [
        ("seal", "done"),
        ("egress", "done"),
        ("deploy", "done"),
    ]
    assert _vault(instance) == {"RESEND_API_KEY": KEY}
    rules = await instance.data("GET", f"{P}/egress")
    row = _row(instance, "resend")
    assert [(rule["domain"].partition(":")[0], rule["source"]) for rule in rules] == [("api.resend.com", "connection:resend")]
    desired = msgspec.json.decode(row.desired, type=Desired)
    assert desired.function is not None
    assert desired.function.env is not None
    assert desired.function.env["RESEND_API_KEY"] == "${RESEND_API_KEY}"
    assert KEY not in str(row) + str(shown) + str(await instance.data("GET", f"{P}/activity"))


async def test_the_steps_come_as_they_happen(instance: Instance) -> None:
    installing = asyncio.Event()
    instance.provisioner.script = [
        installing,
        InstallEvent(step=Step("deploy", "running", "compiling")),
        done("function__resend"),
    ]
    headers = {"authorization": f"Bearer {ADMIN}", "accept": "text/event-stream"}
    async with instance.http.post(instance.url + C, json=RESEND, headers=headers) as response:

        async def following() -> tuple[str, Any]:
            return _event((await asyncio.wait_for(response.content.readuntil(b"\n\n"), 3)).decode().strip())

        early = [await following() for _ in range(5)]
        assert not installing.is_set()
        installing.set()
        late = [await following() for _ in range(3)]
        assert await response.content.read() == b""
    assert [(name, data["step"], data["state"]) for name, data in early] == [
        ("step", "seal", "running"),
        ("step", "egress", "running"),
        ("step", "seal", "done"),
        ("step", "egress", "done"),
        ("step", "deploy", "running"),
    ]
    assert [name for name, _ in late] == ["step", "step", "done"]
    assert late[0][1]["detail"] == "compiling"
    assert late[2][1]["state"] == "connected"
    assert [step["state"] for step in late[2][1]["steps"]] == ["done"] * 3


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_failed_install_says_why_and_leaves_nothing(instance: Instance, streamed: bool) -> None:
    await instance.data("POST", f"{P}/secrets", {"name": "RESEND_API_KEY", "plaintext": "re_before"})
    await instance.data("POST", f"{P}/egress", {"domain": "kept.example"})
    instance.provisioner.script = [failed()]
    if streamed:
        name, data = (await _events(instance, RESEND))[-1]
        assert name == "failed"
        assert (data["code"], data["message"]) == ("upstream_failed", "it said: no such module 'x'")
        assert [(step["step"], step["state"]) for step in data["steps"]] == [
            ("seal", "done"),
            ("egress", "done"),
            ("deploy", "failed"),
        ]
    else:
        assert await instance.refused("POST", C, RESEND) == (502, "upstream_failed", "it said: no such module 'x'")
    assert await instance.data("GET", C) == []
    assert _vault(instance) == {"RESEND_API_KEY": "re_before"}
    assert [rule["domain"] for rule in await instance.data("GET", f"{P}/egress")] == ["kept.example"]
    actions = [line["action"] for line in await instance.data("GET", f"{P}/activity")]
    assert "connection.failed" in actions


REFUSED: dict[str, tuple[Any, int, str]] = {
    "an unknown connector": ({"connector": "memry"}, 404, "There is no connector 'memry'; did you mean 'memory'?"),
    "a path for a connector": ({"connector": "../memory"}, 404, "There is no connector '../memory'"),
    "a missing secret": ({**RESEND, "secrets": {}}, 400, "RESEND_API_KEY"),
    "an input of another kind": ({**RESEND, "inputs": {"DEFAULT_FROM": ["canary", 1]}}, 400, "DEFAULT_FROM"),
    "a malformed secret": ({**RESEND, "secrets": {"RESEND_API_KEY": "canary wrong"}}, 400, "RESEND_API_KEY"),
    "an unknown field": ({**RESEND, "inputs": {"NOT_A_FIELD": "canary"}}, 400, "NOT_A_FIELD"),
    "a secret among the inputs": ({**RESEND, "inputs": {"RESEND_API_KEY": "re_canary"}}, 400, "RESEND_API_KEY"),
    "a name with dots": ({**MEMORY, "name": "../x"}, 400, "connection name"),
    "a name with a space": ({**MEMORY, "name": "a b"}, 400, "connection name"),
    "a name like a tool's": ({**MEMORY, "name": "a__b"}, 400, "'__' separates"),
    "a name of ours": ({**MEMORY, "name": "function"}, 400, "reserved"),
    "a workspace with a slash": ({**MEMORY, "workspace": "a/b"}, 400, "workspace name"),
    "a number for a name": ({**MEMORY, "name": 5}, 400, "Field 'name'"),
}


@pytest.mark.parametrize("sentence", REFUSED)
async def test_what_cannot_work_is_refused_before_anything_is_written(instance: Instance, sentence: str) -> None:
    body, status, words = REFUSED[sentence]
    got, _, message = await instance.refused("POST", C, body, accept="text/event-stream")
    assert got == status
    assert words in message
    assert "canary" not in message
    assert await instance.data("GET", C) == []
    assert _vault(instance) == {}
    assert await instance.data("GET", f"{P}/egress") == []
    assert not [call for call in instance.provisioner.calls if call.startswith("reconcile")]


async def test_connecting_the_same_thing_twice_is_a_conflict(instance: Instance) -> None:
    instance.provisioner.script = [done("a")]
    await instance.data("POST", C, MEMORY)
    status, code, message = await instance.refused("POST", C, MEMORY)
    assert (status, code) == (409, "conflict")
    assert "'memory'" in message
    assert (await instance.call("POST", C, {**MEMORY, "name": "memory2"}))[0] == 201
    assert (await instance.call("POST", C, {**MEMORY, "workspace": "lab"}))[0] == 201
    assert len(await instance.data("GET", C)) == 3
    assert (await instance.data("GET", f"{C}/memory?workspace=lab"))["workspace"] == "lab"


async def test_of_ten_that_connect_the_same_thing_at_once_one_wins(instance: Instance) -> None:
    instance.provisioner.script = [done("a")]
    statuses = [status for status, _ in await asyncio.gather(*(instance.call("POST", C, RESEND) for _ in range(10)))]
    assert sorted(statuses) == [201] + [409] * 9
    assert _vault(instance) == {"RESEND_API_KEY": KEY}


async def test_a_second_account_keeps_its_own_key_beside_the_first(instance: Instance) -> None:
    instance.provisioner.script = [done("a")]
    await instance.data("POST", C, RESEND)
    await instance.data("POST", C, {**RESEND, "name": "second-shop", "secrets": {"RESEND_API_KEY": "re_second"}})
    assert _vault(instance) == {"RESEND_API_KEY": KEY, "RESEND_API_KEY__SECOND_SHOP": "re_second"}
    second = msgspec.json.decode(_row(instance, "second-shop").desired, type=Desired)
    assert second.function is not None
    assert (second.function.env or {})["RESEND_API_KEY"] == "${RESEND_API_KEY__SECOND_SHOP}"


async def test_a_name_of_its_own_takes_the_plain_secret_when_it_is_free(instance: Instance) -> None:
    instance.provisioner.script = [done("a")]
    await instance.data("POST", C, {**RESEND, "name": "shop"})
    assert _vault(instance) == {"RESEND_API_KEY": KEY}


async def test_a_key_that_is_in_the_vault_already_is_used(instance: Instance) -> None:
    await instance.data("POST", f"{P}/secrets", {"name": "RESEND_API_KEY", "plaintext": "re_kept"})
    instance.provisioner.script = [done("a")]
    shown = await instance.data("POST", C, {**RESEND, "secrets": {}})
    assert [step["step"] for step in shown["steps"]] == ["egress", "deploy"]
    assert _row(instance, "resend").uses == ["RESEND_API_KEY"]
    assert _vault(instance) == {"RESEND_API_KEY": "re_kept"}


async def test_the_install_goes_on_when_the_client_goes_away(instance: Instance) -> None:
    installing = asyncio.Event()
    instance.provisioner.script = [installing, done("a")]
    for body, accept in ((MEMORY, "text/event-stream"), ({**MEMORY, "name": "other"}, "application/json")):
        asked = asyncio.create_task(instance.call("POST", C, body, accept=accept))
        await until(lambda: bool(instance.provisioner.calls) and instance.provisioner.calls[-1].startswith("reconcile"))
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        instance.provisioner.calls.append("next")
    installing.set()
    await until(lambda: [row.state for row in instance.store.connections.list(instance.project)] == ["connected"] * 2)


async def test_a_provisioner_that_is_away_leaves_nothing_written(instance: Instance) -> None:
    instance.provisioner.socket.unlink()
    links = instance.gateway.plane.provisioner._links
    for _, link in links._idle:
        link.close()
    links._idle.clear()
    assert (await instance.refused("POST", C, RESEND))[:2] == (503, "unavailable")
    assert _vault(instance) == {}
    assert await instance.data("GET", C) == []


async def test_a_provisioner_that_goes_away_before_it_began_leaves_nothing(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def healthy() -> None:
        """It was, a moment ago."""

    monkeypatch.setattr(instance.gateway.plane.provisioner, "health", healthy)
    await test_a_provisioner_that_is_away_leaves_nothing_written(instance)


async def test_a_provisioner_that_goes_away_meanwhile_leaves_the_outcome_to_its_reconciler(instance: Instance) -> None:
    instance.provisioner.script = [running("half way")]  # and the stream ends
    status, code, message = await instance.refused("POST", C, RESEND)
    assert (status, code) == (503, "unavailable")
    assert "finished or undone" in message
    assert (await instance.data("GET", f"{C}/resend"))["state"] == "connecting"


async def test_an_install_that_takes_too_long_is_left_to_the_reconciler(instance: Instance) -> None:
    object.__setattr__(instance.gateway.plane.settings, "install_secs", 0.2)
    instance.provisioner.script = [asyncio.Event()]
    assert (await instance.refused("POST", C, MEMORY))[:2] == (503, "unavailable")


async def test_a_disconnect_undoes_it_all(instance: Instance) -> None:
    instance.provisioner.script = [done("a")]
    await instance.data("POST", C, RESEND)
    gone = await instance.data("DELETE", f"{C}/resend")
    assert (gone["name"], gone["state"]) == ("resend", "removed")
    assert await instance.data("GET", C) == []
    assert _vault(instance) == {}
    assert await instance.data("GET", f"{P}/egress") == []
    assert (await instance.refused("DELETE", f"{C}/resend"))[:2] == (404, "not_found")
    assert (await instance.call("POST", C, RESEND))[0] == 201


async def test_a_disconnect_that_cannot_be_done_now_is_seen_to_be_under_way(instance: Instance) -> None:
    instance.provisioner.script = [done("a")]
    await instance.data("POST", C, MEMORY)
    instance.provisioner.refusal = Unavailable("the engine does not answer")
    assert (await instance.refused("DELETE", f"{C}/memory"))[:2] == (503, "unavailable")
    assert (await instance.data("GET", f"{C}/memory"))["state"] == "removing"
    instance.provisioner.refusal = None
    await instance.data("DELETE", f"{C}/memory")
    assert await instance.data("GET", C) == []


async def test_what_nobody_expected_of_a_connect_is_an_internal_error_on_the_stream_too(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(connection: object) -> None:
        raise KeyError(KEY)

    monkeypatch.setattr(instance.store.connections, "connect", broken)
    name, data = (await _events(instance, RESEND))[-1]
    assert (name, data["code"]) == ("failed", "internal")
    assert data["message"].startswith("Internal error (request id ")
    assert (await instance.refused("POST", C, RESEND))[:2] == (500, "internal")
    logged = capsys.readouterr().out
    assert "KeyError" in logged
    assert KEY not in logged
