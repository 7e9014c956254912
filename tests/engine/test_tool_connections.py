"""Rules of connections: with the connect, while it runs, and from before the engine's last start; in one real engine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rootlink.engine.app import Engine
from rootlink.engine.dispatch import Caller
from rootlink.engine.rpc import RpcError
from rootlink.engine.tools import control
from rootlink.engine.trials import Trials
from rootlink.errors import Conflict, NotFound
from rootlink.redaction import Redactor
from rootlink.wire.engine import EgressPolicy, EngineConfig, Environment, InstallEvent
from rootlink.wire.mounts import Actual, Desired, FunctionSpec, MountSpec
from rootlink.wire.tools import ToolRules

SERVERS = Path(__file__).parents[1] / "fixtures" / "servers"
USER = Caller("main", "user", frozenset({"use", "manage"}))


@asynccontextmanager
async def engine(home: Path, **rules: ToolRules) -> AsyncIterator[Engine]:
    folders = {name: str(home / name) for name in ("state_dir", "files_dir", "store_dir")}
    for folder in folders.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    config = EngineConfig("prj", "key", str(home / "socket"), rules=rules, **folders)
    async with asyncio.TaskGroup() as tasks:
        one = Engine(config, {}, Redactor(), tasks)
        one.installer.restore(config.rules)
        try:
            yield one
        finally:
            await one.close()


def shifting(way: str, steps: Path, id: str = "con_1", **rules: Any) -> Desired:
    spec = MountSpec("notes", "stdio", command=sys.executable, args=[str(SERVERS / "shifting.py"), way, str(steps)])
    return Desired(id, "main", "notes", mount=spec, rules=ToolRules(**rules))


async def connect(one: Engine, desired: Desired) -> Actual:
    events: list[InstallEvent] = []
    await one.installer.apply(desired, events.append)
    assert events[-1].done is not None, events[-1]
    return events[-1].done


def seen(one: Engine) -> set[str]:
    return {tool["name"] for tool in one.dispatch.view("main").tools if tool["name"].startswith("notes__")}


async def refusal(one: Engine, tool: str) -> str:
    with pytest.raises(RpcError) as refused:
        await one.dispatch.handle(USER, "tools/call", {"name": tool, "arguments": {}})
    assert refused.value.data["code"] == "forbidden"
    return refused.value.message


async def until(so: Any) -> None:
    async with asyncio.timeout(20):
        while not so():
            await asyncio.sleep(0.01)


async def test_rules_are_in_force_before_anything_is_listed(tmp_path: Path) -> None:
    async with engine(tmp_path) as one:
        ever: set[str] = set()

        async def look() -> None:
            while True:
                ever.update(seen(one))
                await asyncio.sleep(0)

        looking = asyncio.create_task(look())
        actual = await connect(one, shifting("title", tmp_path / "steps", modes={"read": "off"}, pins={"stay": "0" * 32}))
        looking.cancel()
        assert ever == {"notes__turn", "notes__crash"}
        assert actual.tools == ["notes__turn", "notes__crash"]
        assert (sorted(actual.pins), actual.held) == (["crash", "read", "stay", "turn"], ["notes__stay"])
        assert "switched off" in await refusal(one, "notes__read")
        assert control.CHANGED in await refusal(one, "notes__stay")
        views = {view.tool: view for view in one.installer.tools_of("con_1")}
        assert (views["read"].mode, views["stay"].held) == ("off", control.CHANGED)
        with pytest.raises(NotFound):
            one.installer.tools_of("con_2")
        with pytest.raises(Conflict, match="rootlink tools"):
            one.installer.decide("main", "notes", "read", {"mode": "allow"})


async def test_rules_that_come_with_the_environment_are_in_force_at_once_and_told(tmp_path: Path) -> None:
    async with engine(tmp_path) as one:
        actual = await connect(one, shifting("description", tmp_path / "steps", closed=True))
        assert len(actual.tools) == 4
        await one.dispatch.handle(USER, "tools/call", {"name": "notes__turn", "arguments": {}})
        await until(lambda: one.installer.actual()[0].held == ["notes__read"])
        assert control.CHANGED in await refusal(one, "notes__read")
        told: list[set[str]] = []
        (view,) = [view for view in one.installer.tools_of("con_1") if view.held]
        rules = ToolRules(pins={"read": view.fingerprint}, modes={"stay": "off"}, closed=True)

        def listener(kinds: set[str]) -> bool:
            told.append(kinds)
            return True

        with one.changes.listen("main", listener):
            await one._environment(Environment({}, EgressPolicy(), {"con_1": rules, "con_9": ToolRules()}))
            assert told == [{"tools"}]
            await one._environment(Environment({}, EgressPolicy(), {"con_1": rules}))
            await one._environment(Environment({}, EgressPolicy()))
            assert told == [{"tools"}], "nothing changed"
        assert seen(one) == {"notes__read", "notes__turn", "notes__crash"}
        assert one.installer.actual()[0].held == []


async def test_after_a_restart_what_was_agreed_to_and_the_newest_rules_hold_from_the_first_moment(tmp_path: Path) -> None:
    wish = shifting("restart", tmp_path / "steps")
    async with engine(tmp_path) as one:
        await connect(one, wish)
        assert len(seen(one)) == 4
    async with engine(tmp_path, con_1=ToolRules(modes={"stay": "off"})) as one:
        assert seen(one) == {"notes__read", "notes__turn", "notes__crash"}, "the list of before, and the rules of now"
        assert control.CHANGED in await refusal(one, "notes__read"), "which waited for a server that came up changed"
        await until(lambda: "notes__read" not in seen(one))
        same = await connect(one, wish)
        assert same.held == ["notes__read"], "nothing is agreed to because it was put back"


async def test_what_a_server_says_at_the_handshake_is_agreed_to_kept_held_and_approved(tmp_path: Path) -> None:
    wish = shifting("what it says at the handshake", tmp_path / "steps", closed=True)
    async with engine(tmp_path) as one:
        first = await connect(one, wish)
        assert "@instructions" in first.pins
        assert (first.held, one.dispatch.view("main").instructions) == ([], "notes: Begin with read, 1.")
    async with engine(tmp_path, con_1=ToolRules(closed=True, pins=first.pins)) as one:
        await until(lambda: "Begin" not in one.dispatch.view("main").instructions)
        assert "notes__@instructions is held back" in one.dispatch.view("main").instructions
        (actual,) = one.installer.actual()
        assert actual.held == ["notes__@instructions"]
        assert seen(one) == {"notes__read", "notes__stay", "notes__turn", "notes__crash"}, "none of them changed"
        (view,) = [view for view in one.installer.tools_of("con_1") if view.held]
        assert (view.tool, view.name, view.description) == ("@instructions", actual.held[0], "Begin with read, 2.")
        one.installer.rules({"con_1": ToolRules(closed=True, pins={**first.pins, "@instructions": view.fingerprint})})
        assert one.dispatch.view("main").instructions == "notes: Begin with read, 2."


async def test_what_a_new_version_says_at_the_handshake_is_shown_beside_what_is_said_now(tmp_path: Path) -> None:
    wish = shifting("what it says at the handshake", tmp_path / "steps", closed=True)
    async with engine(tmp_path) as one:
        first = await connect(one, wish)
        events: list[InstallEvent] = []
        await Trials(one.mounts, one.packages, str).run(wish, events.append)
        trial = events[-1].tried
        assert trial is not None
        said = [
            {tool["name"]: tool.get("description") for tool in runs.tools}["@instructions"] for runs in (trial.now, trial.would)
        ]
        assert said == ["Begin with read, 1.", "Begin with read, 2."]
        assert trial.now.pins == first.pins
        assert {view.tool: view.fingerprint for view in trial.views} == trial.would.pins


async def test_a_connection_that_comes_back_changed_is_agreed_to_as_its_rules_say(tmp_path: Path) -> None:
    async with engine(tmp_path) as one:
        first = await connect(one, shifting("title", tmp_path / "a", closed=True))
        again = await connect(one, shifting("restart", tmp_path / "b", closed=True, pins=first.pins))
        assert (again.held, again.pins) == ([], first.pins)
        await one.installer.release("con_1")
        assert seen(one) == set()
        with pytest.raises(NotFound):
            one.installer.tools_of("con_1")


async def test_a_connection_s_function_goes_by_the_catalogue_s_label_and_is_switched_off_by_its_own_name(tmp_path: Path) -> None:
    async with engine(tmp_path) as one:
        spec = FunctionSpec("mail", "async () => 1")
        wish = Desired("con_1", "main", "mail", function=spec, rules=ToolRules(access={"send_email": "write"}))
        actual = await connect(one, wish)
        assert (actual.tools, actual.held, actual.pins) == (["function__mail"], [], {})
        (view,) = one.installer.tools_of("con_1")
        assert (view.tool, view.name, view.access, view.mode) == ("mail", "function__mail", "write", "ask")
        one.installer.rules({"con_1": ToolRules(modes={"mail": "off"})})
        assert "function__mail" not in one.dispatch.view("main").targets
        assert "switched off" in await refusal(one, "function__mail")
        assert one.installer.actual()[0].tools == []
