"""Tools that change after they were agreed to, that a person switched off or wants to be asked about: through a real Rootlink."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import mcp_types as types
import pytest
from mcp import Client, MCPError

from tests.harness.instance import SERVERS, Answer, Instance, closing, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SHIFTING = SERVERS / "shifting.py"
TURNED = (
    "description", "description, a blank more", "title", "schema", "deep in the schema", "schema of the output", "annotations",
    "meta", "rename", "rename to a look-alike", "gone and back", "gone and back renamed",
)  # fmt: skip
STARTED = ("restart", "crash", "second list", "initialised again")
SAME = ("order of keys", "one more")
TURNS = {"gone and back": 2, "gone and back renamed": 2}
MODES = ("legacy", "auto")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    yield from closing(Instance(tmp_path_factory.mktemp("control") / "home", "--allow-private", "127.0.0.0/8"))


def name_of(way: str) -> str:
    return way.replace(",", "").replace(" ", "-")


def mount(rig: Instance, way: str, **members: Any) -> str:
    name = name_of(way)
    rig.mount(name, SHIFTING, way, "${{state}}/steps", **members)
    return name


def views(rig: Instance, name: str) -> dict[str, Any]:
    return {view["tool"]: view for view in rig.engine("GET", f"/mcp-servers/{name}/tools").data}


def held(rig: Instance, name: str) -> dict[str, Any]:
    return {tool: view for tool, view in views(rig, name).items() if view["held"]}


def decide(rig: Instance, name: str, tool: str, **change: Any) -> Answer:
    return rig.engine("PUT", f"/mcp-servers/{name}/tools/{quote(tool, safe='')}", change)


def calls(rig: Instance, name: str) -> list[str]:
    """What the server was called with, as it says itself."""
    said = rig.call(f"{name}__stay")["content"][0]["text"].splitlines()
    return [line.removeprefix("called ") for line in said if line.startswith("called ") and line != "called stay"]


def shift(rig: Instance, way: str, name: str) -> None:
    if way in TURNED or way in SAME:
        for _ in range(TURNS.get(way, 1)):
            rig.call(f"{name}__turn")
    elif way == "crash":
        rig.engine("POST", f"/tools/{name}__crash/call", {})
    else:
        assert rig.engine("POST", f"/mcp-servers/{name}/restart").status == 200


async def attempts(rig: Instance, public: str) -> list[str]:
    """Every way to a tool that is held back: what came of listing it and of calling it, where it was there."""
    through = []
    if public in rig.tools():
        through.append("listed over REST")
    answer = rig.engine("POST", f"/tools/{public}/call", {"arguments": {"id": "1"}})
    if answer.status != 403:
        through.append(f"called over REST: {answer.status}")
    for mode in MODES:
        async with rig.client(mode) as client:
            if public in {tool.name for tool in (await client.list_tools()).tools}:
                through.append(f"listed for {mode}")
            with suppress(MCPError):
                await client.call_tool(public, {"id": "1"})
                through.append(f"called by {mode}")
    return through


@pytest.mark.parametrize("way", [*TURNED, *STARTED])
async def test_a_tool_that_changed_is_not_callable_in_any_way_until_it_is_approved(rig: Instance, way: str) -> None:
    name = mount(rig, way)
    assert f"{name}__read" in rig.tools()
    rig.call(f"{name}__read", {"id": "1"})
    assert calls(rig, name) == ["read"]
    await asyncio.to_thread(shift, rig, way, name)
    found = await asyncio.to_thread(eventually, lambda: held(rig, name), what="a tool held back")
    ((tool, view),) = found.items()
    assert await attempts(rig, view["name"]) == []
    if tool != "read":
        assert f"{name}__read" not in rig.tools()
    assert calls(rig, name) == ["read"], "nothing of it reached the server"
    refused = rig.engine("POST", f"/tools/{view['name']}/call", {})
    assert refused.code == "forbidden"
    assert "is held back" in refused.message
    assert f"rootlink tools approve {name}" in refused.message

    stale = decide(rig, name, tool, approve="0" * 32)
    assert stale.code == "conflict"
    assert decide(rig, name, tool, approve=view["fingerprint"]).data["held"] is None
    assert view["name"] in rig.tools()
    rig.call(view["name"], {"id": "2"})
    assert calls(rig, name) == ["read", tool]


@pytest.mark.parametrize("way", SAME)
async def test_what_is_the_same_and_what_is_new_beside_it_is_not_held(rig: Instance, way: str) -> None:
    name = mount(rig, way)
    async with rig.client("legacy") as client:
        await client.list_tools()
        await asyncio.to_thread(shift, rig, way, name)
        wanted = f"{name}__more" if way == "one more" else f"{name}__read"
        await asyncio.to_thread(eventually, lambda: wanted in rig.tools(), what="the tool")
        assert not await asyncio.to_thread(held, rig, name)
        await client.call_tool(wanted, {"id": "1"})


async def test_what_is_changed_for_one_client_alone_is_held_from_it(rig: Instance) -> None:
    name = mount(rig, "one client", session="client")

    async def no(context: Any, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="decline")

    async with rig.client("legacy", elicitation_callback=no) as victim, rig.client("legacy") as other:
        await victim.call_tool(f"{name}__stay")

        async def gone(client: Client) -> bool:
            return f"{name}__read" not in {tool.name for tool in (await client.list_tools()).tools}

        async with asyncio.timeout(20):
            while not await gone(victim):
                await asyncio.sleep(0.05)
        with pytest.raises(MCPError, match="is held back: its definition changed"):
            await victim.call_tool(f"{name}__read", {"id": "1"})
        assert not await gone(other)
        await other.call_tool(f"{name}__read", {"id": "1"})


async def test_clients_are_told_when_a_tool_is_held_released_or_switched_off(rig: Instance) -> None:
    rig.mount("told", SHIFTING, "description", "${{state}}/steps")
    changes: asyncio.Queue[str] = asyncio.Queue()

    async def heard(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            changes.put_nowait("tools")

    async with rig.client("legacy", message_handler=heard) as client:

        async def told(there: bool) -> None:
            async with asyncio.timeout(20):
                while ("told__read" in {tool.name for tool in (await client.list_tools()).tools}) is not there:
                    await changes.get()

        await told(True)
        await client.call_tool("told__turn")
        await told(False)
        view = await asyncio.to_thread(lambda: held(rig, "told")["read"])
        await asyncio.to_thread(decide, rig, "told", "read", approve=view["fingerprint"])
        await told(True)
        await asyncio.to_thread(decide, rig, "told", "read", mode="off")
        await told(False)
        with pytest.raises(MCPError, match="told__read is switched off; switch it on with: rootlink tools set told__read allow"):
            await client.call_tool("told__read", {"id": "1"})
        await asyncio.to_thread(decide, rig, "told", "read", mode=None)
        await told(True)


@pytest.mark.parametrize("mode", MODES)
async def test_a_person_is_asked_in_both_eras_and_a_no_reaches_no_server(rig: Instance, mode: str) -> None:
    name = f"asks-{mode}"
    rig.mount(name, SHIFTING, "title", "${{state}}/steps")
    assert decide(rig, name, "read", mode="ask").data["mode"] == "ask"
    answers = ["decline", "accept", "accept"]
    asked: list[str] = []

    async def person(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params.message)
        action: Any = answers[len(asked) - 1]
        return types.ElicitResult(action=action, content={"remember": len(asked) == 3} if action == "accept" else None)

    async with rig.client(mode, elicitation_callback=person) as client:
        said = [await client.call_tool(f"{name}__read", {"id": str(n)}) for n in range(5)]
    assert [result.is_error for result in said] == [True, False, False, False, False]
    assert f"{name}__read was not called" in said[0].content[0].text  # type: ignore[union-attr]
    assert len(asked) == 3, "after `remember` nobody is asked"
    assert asked[0] == f'May {name}__read be called? It only reads. Arguments: {{"id":"0"}}'
    assert calls(rig, name) == ["read"] * 4


@pytest.mark.parametrize("mode", MODES)
async def test_a_client_that_can_t_be_asked_is_told_in_the_handshake(rig: Instance, mode: str) -> None:
    name = f"dumb-{mode}"
    rig.mount(name, SHIFTING, "title", "${{state}}/steps")
    decide(rig, name, "read", mode="ask")
    async with rig.client(mode) as client:
        assert f"{name}__read" in (client.instructions or "")
        assert not (await client.call_tool(f"{name}__read", {"id": "1"})).is_error
    rig.engine("DELETE", f"/mcp-servers/{name}")


def test_a_key_that_may_not_manage_decides_nothing_and_a_connection_s_tools_are_decided_elsewhere(rig: Instance) -> None:
    key = rig.project("POST", "/keys", {"name": "user", "scopes": ["use"]}).data["key"]
    rig.mount("mine", SHIFTING, "title", "${{state}}/steps")
    refused = rig.engine("PUT", "/mcp-servers/mine/tools/read", {"mode": "off"}, key=key)
    assert refused.code == "forbidden"
    assert rig.engine("GET", "/mcp-servers/mine/tools", key=key).status == 200
    assert rig.engine("PUT", "/mcp-servers/mine/tools/nothing", {"mode": "off"}).code == "not_found"
    assert rig.engine("PUT", "/mcp-servers/mine/tools/read", {"mode": "never"}).code == "invalid"
    assert rig.engine("PUT", "/mcp-servers/mine/tools/read", {"modus": "off"}).code == "invalid"


def test_functions_can_be_switched_off_too(rig: Instance) -> None:
    code = "async () => 1"
    assert rig.engine("PUT", "/functions", {"name": "one", "code": code}).status == 200
    (view,) = rig.engine("GET", "/mcp-servers/function/tools").data
    assert (view["tool"], view["name"], view["mode"], view["held"]) == ("one", "function__one", "allow", None)
    assert decide(rig, "function", "one", mode="off").data["mode"] == "off"
    assert "function__one" not in rig.tools()
    for path, body in (("/functions/one/invoke", {"input": {}}), ("/tools/function__one/call", {})):
        answer = rig.engine("POST", path, body)
        assert (answer.status, answer.code) == (403, "forbidden")
        assert "function__one is switched off" in answer.message
    assert rig.engine("PUT", "/functions", {"name": "one", "code": code, "description": "x"}).status == 200
    assert "function__one" not in rig.tools(), "a new version is the same function"
    decide(rig, "function", "one", mode=None)
    assert rig.call("function__one")["content"][0]["text"] == "1"


def test_what_is_held_and_what_is_off_is_so_from_the_first_moment_after_a_restart(fresh: Instance) -> None:
    fresh.mount("late", SHIFTING, "description", "${{state}}/steps")
    fresh.mount("swap", SHIFTING, "restart", "${{state}}/steps")
    decide(fresh, "late", "stay", mode="off")
    fresh.call("late__turn")
    eventually(lambda: held(fresh, "late"), what="late__read held back")
    fresh.down()
    fresh.up()
    fresh._key = ""
    shown = fresh.tools()
    assert "late__turn" in shown
    assert not {"late__read", "late__stay"} & set(shown)
    for tool in ("late__read", "late__stay", "swap__read"):  # the last changes with its process, while its call waits for it
        answer = fresh.engine("POST", f"/tools/{tool}/call", {"arguments": {"id": "1"}})
        assert (answer.status, answer.code) == (403, "forbidden"), (tool, answer.body)
    eventually(lambda: "swap__read" not in fresh.tools(), what="the new list")
