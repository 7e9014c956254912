"""What is found out about a connection and decided about its tools, between the rows and the engine."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from rootlink.errors import Conflict, Invalid, NotFound
from rootlink.provisioner.connected import Connected
from rootlink.records import Connection, NewConnection, new_id
from rootlink.wire.checks import TcpCheck, Verdict
from rootlink.wire.engine import SignedIn
from rootlink.wire.mounts import Desired, FunctionSpec, MountSpec, digest
from rootlink.wire.tools import ToolRules
from tests.provisioner.conftest import Opens
from tests.provisioner.stage import Stage, until
from tests.provisioner.test_grants import SECRET, grant, signed_in, vault
from tests.provisioner.test_reconcile import story, told

CHECK = TcpCheck("there", "db.example", 5432, "nobody answers at {host}")
RULES = ToolRules(access={"one": "read"}, closed=True)


def connecting(stage: Stage, project: str, name: str = "memory") -> Connection:
    """The intent of a connection that is checked, and has rules."""
    id = new_id("con")
    mount = MountSpec(name, "stdio", command="npx", args=["-y", name])
    body = msgspec.json.encode(Desired(id, "main", name, mount=mount, checks=[CHECK], rules=RULES))
    new = NewConnection(id, project, "main", name, name, "mcp", body, [], [], [], "tester", rules=RULES)
    return stage.store.connections.connect(new)


def kept(stage: Stage, row: Connection) -> Connection:
    found = stage.store.connections.by_id(row.id)
    assert found is not None
    return found


async def test_what_the_checks_found_and_the_first_pins_are_in_the_row(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.knobs(project, found={"label": "ro@shop", "notes": ["may write"], "pins": {"one": "f1"}, "held": ["memory__two"]})
    row = connecting(stage, project)
    async with provisioner() as one:
        events = await story(one.reconciler, row.id)
        assert events[-1].done is not None and events[-1].done.label == "ro@shop"
        now = kept(stage, row)
        assert (now.label, now.notes, now.held) == ("ro@shop", ["may write"], ["memory__two"])
        assert now.rules == msgspec.structs.replace(RULES, pins={"one": "f1"})
        again = await story(one.reconciler, row.id)
        assert again[-1].done == events[-1].done


async def test_a_connection_that_is_put_back_is_not_checked_again_and_keeps_its_rules(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.knobs(project, found={"pins": {"one": "f1"}})
    row = connecting(stage, project)
    async with provisioner() as one:
        await story(one.reconciler, row.id)
        line = await one.engines.line(project)
        await line.remove(row.id)  # as if the engine had lost its state
        await one.reconciler.watch()
        await until(lambda: stage.held(project) == [row.id], "it is put back")
        pinned = {"access": {"one": "read"}, "pins": {"one": "f1"}, "closed": True}
        asked = stage.journal(project, "asked")
        assert asked == [["asked", row.id, 1, {"access": {"one": "read"}, "closed": True}], ["asked", row.id, 0, pinned]]


async def test_a_connect_that_a_crash_broke_off_is_still_checked(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = connecting(stage, project)
    async with provisioner() as one:
        await one.reconciler.catch_up()
        await until(lambda: kept(stage, row).state == "connected", "it is connected")
        assert [checks for _, _, checks, _ in stage.journal(project, "asked")] == [1]


async def test_what_the_checks_found_is_not_lost_with_whoever_was_told(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.knobs(project, verdict={"label": "octocat"})
    row = connecting(stage, project)
    async with provisioner() as one:
        line = await one.engines.line(project)
        async for _ in line.apply(msgspec.json.decode(row.desired, type=Desired)):
            """An earlier provisioner's: the engine has it, and nobody was told what came of it."""
        await one.reconciler.catch_up()
        await until(lambda: kept(stage, row).state == "connected", "it is connected")
        assert (kept(stage, row).label, len(stage.journal(project, "asked"))) == ("octocat", 1)


async def test_a_tool_that_is_held_back_later_is_in_the_row_after_a_poll(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = connecting(stage, project)
    async with provisioner() as one:
        await story(one.reconciler, row.id)

        async def seen(held: list[str], pin: str) -> tuple[list[str], dict[str, str]]:
            """What is in the row once a poll has seen this."""
            stage.knobs(project, seen={"held": held, "pins": {"one": pin}})
            async with asyncio.timeout(10):
                while kept(stage, row).held != held:
                    await one.reconciler.watch()
            return kept(stage, row).held, kept(stage, row).rules.pins

        assert await seen(["memory__one"], "f2") == (["memory__one"], {"one": "f2"})
        assert await seen([], "f3") == ([], {"one": "f2"})


async def test_a_decision_reaches_the_running_engine_and_the_next_one(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = connecting(stage, project)
    async with provisioner() as one:
        await story(one.reconciler, row.id)
        stage.store.connections.decide(row.id, "two", mode="off")
        await one.engines.poll()  # nobody told it: the poll finds out
        await until(lambda: stage.journal(project, "rules")[-1][1].get(row.id, {}).get("modes") == {"two": "off"}, "pushed")
        pushed = len(stage.journal(project, "rules"))
        await one.engines.poll()
        assert len(stage.journal(project, "rules")) == pushed  # and once it has it, no more
        await one.engines.restart(project)
        config = stage.journal(project, "config")[-1][1]
        assert config["rules"][row.id]["modes"] == {"two": "off"}
        assert config["seal"] == stage.unsealer.public.hex()


async def test_tools_and_checks_are_asked_of_an_engine_that_is_started_for_it(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = connecting(stage, project)
    async with provisioner() as one:
        await story(one.reconciler, row.id)
        await one.engines.stop(project)
        connected = Connected(stage.store, one.engines)
        assert [view.name for view in await connected.tools(row.id)] == ["memory__one"]
        assert await connected.check(row.id) == Verdict("octocat", ["may write"])
        assert (kept(stage, row).label, kept(stage, row).notes) == ("octocat", ["may write"])
        assert stage.journal(project, "check") == [["check", {"checks": [msgspec.to_builtins(CHECK)]}]]


async def test_a_check_that_fails_changes_nothing_that_is_kept(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.knobs(project, found={"label": "octocat"}, verdict={"error": "GitHub does not know this key", "code": "unauthorized"})
    row = connecting(stage, project)
    async with provisioner() as one:
        await story(one.reconciler, row.id)
        before = kept(stage, row)
        assert (await Connected(stage.store, one.engines).check(row.id)).error == "GitHub does not know this key"
        assert kept(stage, row) == before


async def test_what_cannot_be_asked_says_why(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = connecting(stage, project)
    async with provisioner() as one:
        connected = Connected(stage.store, one.engines)
        with pytest.raises(NotFound):
            await connected.tools("con_000000000000")
        with pytest.raises(Invalid, match="takes no sign-in"):
            await connected.sign_in(row.id)
        stage.store.connections.mark_removing(row.id)
        with pytest.raises(Conflict, match="being removed"):
            await connected.check(row.id)


async def test_a_trial_is_told_to_its_end_even_when_the_engine_is_lost(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = connecting(stage, project)
    async with provisioner() as one:
        connected = Connected(stage.store, one.engines)
        wish = Desired(row.id, "main", "memory", mount=MountSpec("memory", "stdio", command="npx"))
        events = [event async for event in await connected.trial(row.id, wish)]
        assert events[-1].tried is not None and events[-1].tried.would.server == {"name": "memory"}
        stage.knobs(project, trial="die")
        lost: list[Any] = [event async for event in await connected.trial(row.id, wish)]
        assert lost[-1].failed["code"] == "unavailable"


# sign-ins


async def test_a_connect_that_waits_for_a_person_shows_the_link_and_keeps_nobody_waiting(
    stage: Stage, provisioner: Opens
) -> None:
    project = stage.project()
    stage.knobs(project, install="sign-in")
    first = connecting(stage, project, "docs")
    async with provisioner() as one:
        waiting = asyncio.create_task(story(one.reconciler, first.id))
        await until(lambda: kept(stage, first).steps, "the link is in the row")
        (step,) = kept(stage, first).steps
        assert (step["state"], step["link"]) == ("running", "https://login.example/authorize?state=x")
        stage.knobs(project, install="ok")
        second = connecting(stage, project, "memory")
        assert told(await story(one.reconciler, second.id))[-1] == "done"
        assert not waiting.done()
        stage.release(project)
        assert told(await waiting)[-1] == "done"
        assert kept(stage, first).state == "connected"
        assert all("link" not in step for step in kept(stage, first).steps)


async def test_one_that_waits_for_a_person_can_be_taken_away(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    stage.knobs(project, install="sign-in")
    row = connecting(stage, project, "docs")
    async with provisioner() as one:
        waiting = asyncio.create_task(story(one.reconciler, row.id))
        await until(lambda: kept(stage, row).steps, "the link is in the row")
        removing = asyncio.create_task(one.reconciler.remove(row.id))
        await until(lambda: stage.journal(project, "delete"), "the engine is asked to end it")
        stage.release(project)  # a fake engine ends no wait by itself
        await removing
        await waiting
        assert stage.store.connections.all() == [] and stage.held(project) == []


async def test_what_a_browser_brings_back_is_in_the_vault_when_it_is_answered(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = signed_in(stage, project)
    stage.knobs(project, handed=[grant(stage, row, "t0ken")])
    async with provisioner() as one:
        await one.engines.ensure(project)
        assert await one.engines.signed_in(project, SignedIn("state", code="c0de")) == "docs"
        assert vault(stage, project) == {SECRET: (1, "t0ken")}
        assert stage.journal(project, "signed in") == [["signed in", {"state": "state", "code": "c0de"}]]
        assert (await Connected(stage.store, one.engines).sign_in(row.id)).startswith("https://login.example/")


async def test_what_a_stranger_brings_back_starts_no_engine(stage: Stage, provisioner: Opens) -> None:
    """A sign-in under way is in a running engine's memory or nowhere, so an engine that sleeps knows of none."""
    project = stage.project()
    async with provisioner() as one:
        with pytest.raises(NotFound, match="not known"):
            await one.engines.signed_in(project, SignedIn(f"{project}.{'x' * 43}", code="c0de"))
        assert one.engines.projects() == [] and stage.journal(project, "spawn") == []


async def test_a_connection_that_lost_its_sign_in_is_put_back_without_waiting_for_a_person(
    stage: Stage, provisioner: Opens
) -> None:
    project = stage.project()
    row = signed_in(stage, project)
    stage.knobs(project, install="sign-in")
    async with provisioner() as one:
        await one.engines.ensure(project)
        await until(lambda: kept(stage, row).error, "the row says that somebody must sign in")
        assert "rootlink sign-in docs" in str(kept(stage, row).error)
        stage.knobs(project, install="ok")
        other = connecting(stage, project, "memory")
        async with asyncio.timeout(10):
            assert told(await story(one.reconciler, other.id))[-1] == "done"
        await one.engines.signed_in(project, SignedIn("state", code="c0de"))
        await until(lambda: not kept(stage, row).error, "a sign-in has it looked at again")


async def test_why_a_connect_failed_is_in_the_audit_log_in_words(stage: Stage, provisioner: Opens) -> None:
    project = stage.project()
    row = connecting(stage, project)
    stage.knobs(project, install="fail")
    async with provisioner() as one:
        assert told(await story(one.reconciler, row.id))[-1] == "failed upstream_failed"
    lines = stage.store.activity.list(project)
    assert [line.detail for line in lines if line.action == "connection.undone"] == ["memory: no such package"]


def test_an_upgrade_makes_no_connection_anew() -> None:
    """A digest stands in engines' states and outlives the version that took it: these are of one without checks and rules."""
    mount = MountSpec("memory", "stdio", command="npx", args=["-y", "a@1.0.0"], egress=[])
    function = FunctionSpec(name="resend", code="async () => 1", egress=["api.resend.com"])
    kept = Desired("con_1", "main", "memory", mount), Desired("con_2", "main", "resend", function=function)
    assert [digest(desired) for desired in kept] == ["016101859aa51a8478523e6436d4aa28", "ea5d697f497d66efc7eec97a78cb6c36"]
    more = msgspec.structs.replace(kept[0], checks=[CHECK], rules=RULES, inputs={"a": "b"})
    assert digest(more) == digest(kept[0])
