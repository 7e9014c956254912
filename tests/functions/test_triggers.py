"""Schedules and webhooks: when they are due, that each due time is run once, and whose they are."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from rootlink.engine.functions.definition import Held
from rootlink.engine.functions.run import Run
from rootlink.engine.functions.schedule import NAMES, Schedule
from rootlink.engine.functions.scheduler import DAY, WRONG_SECS, Scheduler
from rootlink.engine.functions.triggers import Triggers
from rootlink.engine.lease import Lease
from rootlink.errors import Conflict, Forbidden, Invalid, NotFound, RootlinkError, Unavailable
from rootlink.wire.mounts import FunctionSpec
from tests.functions.ground import Stage

MINUTE = 60.0
EVERY_MINUTE = {"expression": "* * * * *"}
HOURLY = {"expression": "0 * * * *"}
BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


# when something is due


@pytest.mark.parametrize(
    ("expression", "zone", "start", "due"),
    [
        ("0 9 * * 1-5", "UTC", "2026-11-20T10:00", ["2026-11-23T09:00:00+00:00", "2026-11-24T09:00:00+00:00"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00", ["2028-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00"]),
        ("@daily", "Asia/Kathmandu", "2026-01-01T12:00", ["2026-01-02T00:00:00+05:45", "2026-01-03T00:00:00+05:45"]),
        # the hour from 2 to 3 is missing: right after it, and once
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]),
        ("0,30 2 * * *", BERLIN, "2026-03-28T12:00", ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"]),
        ("0 0 * * *", "Africa/Cairo", "2026-04-23T12:00", ["2026-04-24T01:00:00+03:00", "2026-04-25T00:00:00+03:00"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]),
        # the hour from 2 to 3 comes twice: the first time only
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]),
        # what goes by minutes and hours follows real time
        ("30 * * * *", BERLIN, "2026-10-25T01:45", ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]),
        ("30 * * * *", BERLIN, "2026-03-29T01:15", ["2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00"]),
    ],
)
def test_what_is_due_is_due_by_the_zones_own_clock(expression: str, zone: str, start: str, due: list[str]) -> None:
    schedule = Schedule(expression, zone)
    assert [schedule.shown(moment) for moment in schedule.several(at(start, zone), 2)] == due


def test_in_the_hour_that_comes_twice_what_ran_is_not_due_again() -> None:
    schedule = Schedule("50 2 * * *", BERLIN)
    second = at("2026-10-25T02:55", BERLIN) + 3600 - 10 * MINUTE  # 2:45, for the second time
    assert schedule.shown(second) == "2026-10-25T02:45:00+01:00"
    due = schedule.after(second)
    assert due is not None and schedule.shown(due) == "2026-10-26T02:50:00+01:00"


@pytest.mark.parametrize(
    "expression", [*NAMES, "*/7 1-5 * * MON#2", "0 0 L * *", "59 23 LW 1-11/2 *", "1,1,1 */5 1-7 * FRI", "* * * * *"]
)
@pytest.mark.parametrize("zone", ["UTC", BERLIN, "America/St_Johns", "Africa/Cairo", "Australia/Lord_Howe", "Pacific/Apia"])
def test_due_times_go_forward_a_minute_at_least(expression: str, zone: str) -> None:
    for start in (at("2026-03-28T00:00"), at("2026-10-24T00:00") + 0.5, at("2026-04-03T12:30") + 59.999):
        times = Schedule(expression, zone).several(start, 50)
        assert len(times) == 50 and times[0] > start
        assert all(later - earlier >= MINUTE for earlier, later in itertools.pairwise(times))
        assert all(moment % MINUTE == 0 for moment in times)


@pytest.mark.parametrize(
    ("expression", "zone", "words"),
    [
        ("0 0 30 2 *", "UTC", "bad day-of-month"),
        ("0 0 */31 2 1#5", "UTC", "is never due"),
        ("* * * * * *", "UTC", "six fields; seconds are not taken"),
        ("* * * *", "UTC", "has 4 fields; it must have five"),
        ("", "UTC", "has 0 fields"),
        ("60 * * * *", "UTC", "bad minute"),
        ("*/0 * * * *", "UTC", "bad minute"),
        ("a b c d e", "UTC", "bad minute"),
        ("5#1/2 * * * *", "UTC", "is not right"),
        ("@reboot", "UTC", "is not known; the names are @hourly"),
        ("* " * 200, "UTC", "longer than 200 characters"),
        ("@daily", "Mars/Olympus", "time zone 'Mars/Olympus' is not known"),
        ("@daily", "../../etc/passwd", "time zone"),
        ("@daily", "/etc/localtime", "time zone"),
        ("@daily", "America", "time zone"),
        ("@daily", "right/UTC", "time zone"),
        ("@daily", "", "time zone"),
    ],
)
def test_what_is_no_schedule_is_refused_in_words(expression: str, zone: str, words: str) -> None:
    with pytest.raises(Invalid, match=words.replace("(", r"\(")):
        Schedule(expression, zone)


# what is set


class Wall:
    """The wall clock: goes as the real one does, from where a test puts it."""

    def __init__(self) -> None:
        self.shift = 0.0
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return time.time() + self.shift

    def put(self, moment: float) -> None:
        self.shift = moment - time.time()

    def put_before(self, secs: float, *, of: float = MINUTE) -> None:
        """So many seconds before a full minute, or hour."""
        now = self()
        self.put(now - now % of + of - secs)


@dataclass
class Set:
    """One life of an engine, as far as triggers go."""

    triggers: Triggers
    scheduler: Scheduler
    lease: Lease
    stage: Stage
    wall: Wall

    async def set(self, name: str = "f", **body: Any) -> dict[str, Any]:
        return await self.triggers.set("main", name, body)

    async def soon(self, **cron: Any) -> float:
        """A schedule of every minute, due in a moment; when."""
        await self.set(cron={**EVERY_MINUTE, **cron})
        due = self.triggers.due
        assert due is not None
        self.wall.put(due - 0.1)
        await self.set()  # any change: the clock is looked at again
        return due

    def cron(self, name: str = "f") -> Any:
        return self.triggers.view("main", name)["cron"]

    def runs(self, name: str = "f") -> list[Run]:
        return self.stage.host.runs("main", name)

    async def url(self, name: str = "f", webhook: Any = True) -> tuple[str, str]:
        """The path of a new webhook, and its token."""
        path = (await self.set(name, webhook=webhook))["webhook"]["path"]
        return path, path.rsplit("/", 1)[1]

    async def until(self, true: Callable[[], Any], within: float = 5.0) -> None:
        deadline = time.monotonic() + within
        while not true():
            assert time.monotonic() < deadline, "it did not become true in time"
            await asyncio.sleep(0.01)

    async def ended(self, count: int = 1, name: str = "f") -> None:
        await self.until(lambda: len(self.runs(name)) >= count and self.cron(name)["last"]["status"] != "running")


@pytest.fixture
def wall() -> Wall:
    return Wall()


Lives = Callable[..., Any]


@pytest.fixture
def lives(stage: Stage, wall: Wall) -> Lives:
    """`async with lives() as one`: one after the other on the same file, as an engine that is started again."""

    @asynccontextmanager
    async def live(*, killed: bool = False, look: float = 60.0, **more: Any) -> AsyncIterator[Set]:
        lease = Lease(time.monotonic)
        triggers = Triggers(stage.db, stage.host, project="prj_1", secret=b"k" * 32, now=wall)
        async with asyncio.TaskGroup() as tasks:
            scheduler = Scheduler(triggers, more.pop("invoke", stage.host.invoke), lease, tasks, **more, look=look)
            keeping = tasks.create_task(scheduler.keep())
            try:
                yield Set(triggers, scheduler, lease, stage, wall)
            finally:
                keeping.cancel()
                if killed:
                    for task in scheduler._runs:
                        task.cancel()
                await scheduler.close()

    return live


@pytest.fixture
async def one(lives: Lives, stage: Stage) -> AsyncIterator[Set]:
    await stage.deploy("async (input, ctx) => input")
    async with lives() as set:
        yield set


async def test_nothing_is_set_until_a_person_sets_it(one: Set) -> None:
    assert one.triggers.view("main", "f") == {"cron": None, "webhook": None}
    assert one.triggers.wake.due is None and one.triggers.wake.hooks == []
    assert not one.scheduler.needed(1e9)
    with pytest.raises(NotFound):
        one.triggers.view("main", "nobody")
    with pytest.raises(NotFound):
        await one.set("nobody", cron=HOURLY)


async def test_a_schedule_shows_its_next_three_times_in_its_own_zone(one: Set) -> None:
    one.wall.put(at("2026-03-28T12:00"))
    shown = await one.set(cron={"expression": "30 2 * * *", "timezone": BERLIN, "input": {"a": 1}})
    assert shown["cron"] == {
        "expression": "30 2 * * *",
        "timezone": BERLIN,
        "input": {"a": 1},
        "next": ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00", "2026-03-31T02:30:00+02:00"],
        "last": None,
        "skipped": {"count": 0, "last": None},
    }
    assert one.triggers.wake.due == at("2026-03-29T03:00", BERLIN)
    assert (await one.set(cron=None))["cron"] is None
    assert one.triggers.wake.due is None


async def test_what_is_left_out_stays_as_it_is(one: Set) -> None:
    await one.set(cron=HOURLY, webhook=True)
    before, live = one.cron(), one.triggers.wake.hooks
    assert len(live) == 1
    assert (await one.set())["cron"] == before
    assert "path" not in (await one.set(webhook=True))["webhook"]
    assert (await one.set(cron=None))["webhook"] is not None
    assert one.triggers.wake.hooks == live
    await one.set(cron=HOURLY)
    assert (await one.set(webhook=False))["cron"] is not None
    assert one.triggers.wake.hooks == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"cron": {"expression": "never"}}, "it must have five"),
        ({"cron": {"expression": "@daily", "timezone": "Nowhere"}}, "time zone"),
        ({"cron": {"expression": "@daily", "input": {"n": "one"}}}, "would refuse this: input.n"),
        ({"cron": {"expression": "@daily", "input": {"n": 1, "t": "x" * 65536}}}, "at most 65536"),
        ({"cron": {"expression": 5}}, "expression"),
        ({"cron": {}}, "expression"),
        ({"cron": {"expression": "@daily", "seconds": 1}}, "seconds"),
        ({"webhook": "later"}, "webhook"),
        ({"webhook": 1}, "webhook"),
        ({"timer": 1}, "timer"),
    ],
)
async def test_what_is_refused_changes_nothing(one: Set, body: dict[str, Any], words: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    await one.stage.deploy("async (input) => input", input_schema=schema)
    await one.set(cron={**HOURLY, "input": {"n": 1}}, webhook=True)
    before, live = one.cron(), one.triggers.wake
    with pytest.raises(Invalid, match=words):
        await one.set(**({"webhook": "rotate"} | body))
    assert one.cron() == before and one.triggers.wake == live


async def test_a_schedule_stays_over_a_redeploy_and_goes_with_its_function(one: Set) -> None:
    await one.set(cron=HOURLY)
    _, token = await one.url()
    await one.stage.deploy("async () => 2")
    assert one.cron() is not None and one.triggers.accepts("main", "f", token)
    assert await one.stage.host.remove("main", "f")
    one.triggers.forget("main", "f")
    assert one.triggers.wake.due is None and one.triggers.wake.hooks == []
    await one.stage.deploy("async () => 3")
    assert one.triggers.view("main", "f") == {"cron": None, "webhook": None}
    assert not one.triggers.accepts("main", "f", token)


async def test_what_a_function_left_behind_is_not_inherited(lives: Lives, stage: Stage) -> None:
    """An engine that was killed between removing a function and its triggers; and a connection's, replaced by somebody else's."""
    await stage.deploy("async () => 1")
    await stage.deploy("async () => 1", "g")
    async with lives() as one:
        await one.set(cron=HOURLY)
        _, token = await one.url()
        await one.set("g", cron=HOURLY)
    await stage.host.remove("main", "f")
    await stage.host.remove("main", "g")
    await stage.host.deploy("main", FunctionSpec("g", "async () => 2"), connection="con_1")
    async with lives() as one:
        await stage.deploy("async () => 2")
        assert not one.triggers.accepts("main", "f", token)
        assert one.triggers.wake.due is None
        for name in ("f", "g"):
            assert one.triggers.view("main", name) == {"cron": None, "webhook": None}


async def test_a_connections_function_keeps_its_triggers_while_it_is_replaced(one: Set) -> None:
    spec = FunctionSpec("c", "async () => 1")
    await one.stage.host.deploy("main", spec, connection="con_1")
    await one.set("c", cron=HOURLY)
    _, token = await one.url("c")
    await one.stage.host.remove("main", "c")
    assert not one.triggers.accepts("main", "c", token) and one.triggers.due is None
    await one.stage.host.deploy("main", spec, connection="con_1")
    assert one.triggers.accepts("main", "c", token) and one.cron("c") is not None


# what runs


async def test_a_due_function_runs_with_its_input_and_its_run_is_shown(one: Set) -> None:
    due = await one.soon(input={"who": "ada"})
    assert one.runs() == []
    await one.ended()
    [run] = one.runs()
    assert (run.trigger, run.status, run.output) == ("cron", "ok", {"who": "ada"})
    last = one.cron()["last"]
    assert (last["run_id"], last["status"], last["error"]) == (run.run_id, "ok", None)
    assert datetime.fromisoformat(last["due"]).timestamp() == due
    assert one.triggers.due == due + MINUTE


async def test_a_due_time_is_run_once_however_often_the_engine_is_started(lives: Lives, stage: Stage, wall: Wall) -> None:
    await stage.deploy("async () => { await new Promise(done => setTimeout(done, 60000)) }", timeout_ms=90_000)
    async with lives(killed=True) as one:
        due = await one.soon()
        await one.until(lambda: (one.cron()["last"] or {}).get("status") == "running")
    wall.put(wall() - 1)  # the clock of a machine that starts again may be a little behind
    async with lives() as one:
        assert one.cron()["last"]["status"] == "killed"
        for moment in (due - 0.05, due, due + 30):
            wall.put(moment)
            await one.set()
            await asyncio.sleep(0.1)
            assert one.cron()["last"]["status"] == "killed" and one.cron()["skipped"]["count"] == 0


@pytest.mark.parametrize(
    ("expression", "down", "made_up"),
    [
        ("0 12 * * *", DAY - 3600, True),
        ("0 12 1 * *", DAY + 3600, False),
        ("0 * * * *", 3 * DAY, True),  # many were missed, the last of them within a day
        ("* * * * *", 10 * MINUTE, True),
    ],
)
async def test_what_was_missed_is_made_up_for_once_within_a_day(
    lives: Lives, stage: Stage, wall: Wall, expression: str, down: float, made_up: bool
) -> None:
    await stage.deploy("async () => 1")
    wall.put(at("2026-06-01T11:59:30"))
    async with lives() as one:
        await one.set(cron={"expression": expression})
    wall.put(at("2026-06-01T12:00:01") + down)
    async with lives() as one:
        if made_up:
            await one.ended()
        await asyncio.sleep(0.1)
        assert len(one.runs()) == made_up
        assert one.triggers.due is not None and one.triggers.due > wall()


async def test_while_a_run_goes_on_the_next_is_skipped_and_counted(one: Set) -> None:
    await one.stage.deploy("async () => { await new Promise(done => setTimeout(done, 1200)) }")
    await one.soon()
    await one.until(lambda: (one.cron()["last"] or {}).get("status") == "running")
    for count in (1, 2):
        one.wall.put_before(0.05)
        await one.set()
        await one.until(lambda count=count: one.cron()["skipped"]["count"] == count)
    assert one.cron()["skipped"]["last"] is not None
    await one.ended()
    assert len(one.runs()) == 1
    one.wall.put_before(0.05)
    await one.set()
    await one.ended(2)
    assert one.cron()["skipped"]["count"] == 2


@pytest.mark.parametrize("code", ["() => { throw new Error('no') }", "() => { for (;;); }"])
async def test_a_run_that_fails_does_not_stop_its_schedule(one: Set, code: str) -> None:
    await one.stage.deploy(code, timeout_ms=200)
    for count in (1, 2):
        await one.soon()
        await one.ended(count)
    assert one.cron()["next"]


async def test_a_function_that_a_person_withheld_is_not_run(lives: Lives, stage: Stage, wall: Wall) -> None:
    await stage.deploy("async () => 1")

    def admit(ws: str, name: str) -> None:
        raise Forbidden(f"{name} is switched off")

    async with lives(admit=admit) as one:
        await one.soon()
        await one.until(lambda: one.cron()["last"] is not None and one.cron()["last"]["status"] == "refused")
        assert one.cron()["last"]["error"] == "f is switched off"
        assert isinstance(await one.scheduler.deliver("main", "f", {}, None), Forbidden)
        assert one.runs() == []


async def test_a_run_holds_the_engine(one: Set) -> None:
    await one.stage.deploy("async () => { await new Promise(done => setTimeout(done, 400)) }")
    await one.soon()
    assert one.scheduler.needed(60)
    await one.until(lambda: one.lease.calls == 1)
    assert not one.lease.agree_to_stop(0)
    await one.set(cron=None)
    assert one.scheduler.needed(0)
    await one.until(lambda: not one.scheduler.needed(60))
    assert one.lease.calls == 0 and one.lease.agree_to_stop(0)


async def test_an_engine_that_stops_begins_no_run(lives: Lives, stage: Stage, wall: Wall) -> None:
    await stage.deploy("async () => 1")
    async with lives() as one:
        one.lease.stopping = True
        await one.soon()
        await asyncio.sleep(0.3)
        assert one.runs() == [] and one.cron()["last"] is None
    async with lives() as one:  # and so it is made up for
        await one.ended()


async def test_nothing_is_run_that_can_not_be_marked_first(lives: Lives, stage: Stage, wall: Wall) -> None:
    await stage.deploy("async () => 1")
    async with lives(look=0.1) as one:
        await one.set(cron=EVERY_MINUTE)
        stage.db.execute("PRAGMA query_only=ON")
        wall.put(wall() + MINUTE)
        before = wall.asked
        await asyncio.sleep(0.6)
        assert one.cron()["last"] is None
        assert wall.asked - before < 60  # nor is it tried all the time
        with pytest.raises(Unavailable):
            await one.set(webhook=True)
        assert one.triggers.wake.hooks == []
        stage.db.execute("PRAGMA query_only=OFF")
        await one.ended()
        assert len(one.runs()) == 1


async def test_of_many_that_are_due_at_once_all_run_and_only_so_many_together(
    lives: Lives, stage: Stage, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rootlink.engine.functions.scheduler.AT_ONCE", 3)
    names = [f"f{number}" for number in range(12)]
    for name in names:
        await stage.deploy("async () => 1", name)
    together, most = 0, 0

    async def invoke(ws: str, name: str, input: Any, **more: Any) -> Run:
        nonlocal together, most
        together, most = together + 1, max(most, together + 1)
        await asyncio.sleep(0.01)
        together -= 1
        return await stage.host.invoke(ws, name, input, **more)

    async with lives(invoke=invoke) as one:
        for name in names:
            await one.set(name, cron=EVERY_MINUTE)
        assert one.triggers.due is not None
        wall.put(one.triggers.due - 0.1)
        await one.set(names[0])
        for name in names:
            await one.ended(name=name)
        assert [one.cron(name)["last"]["status"] for name in names] == ["ok"] * 12
        assert most == 3


async def test_a_schedule_that_went_while_it_waited_for_room_does_not_run_the_next_of_its_name(
    lives: Lives, stage: Stage, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rootlink.engine.functions.scheduler.AT_ONCE", 1)
    await stage.deploy("async () => new Promise(done => setTimeout(done, 500))", "a")
    await stage.deploy("async () => 'old'", "b")
    async with lives() as one:
        for name in ("a", "b"):
            await one.set(name, cron=EVERY_MINUTE)
        assert one.triggers.due is not None
        wall.put(one.triggers.due - 0.1)
        await one.set("a")
        await one.until(lambda: one.cron("b")["last"] is not None)
        await stage.host.remove("main", "b")
        one.triggers.forget("main", "b")
        await stage.deploy("async () => 'new'", "b")
        await one.ended(name="a")
        await one.until(lambda: not one.scheduler._runs)
        assert one.runs("b") == [] and one.cron("b") is None


async def test_many_that_are_due_at_once_do_not_hold_the_loop(lives: Lives, stage: Stage, wall: Wall) -> None:
    await stage.deploy("async () => 1")
    names = ["f", *(f"f{number}" for number in range(300))]
    for name in names[1:]:
        stage.host._hold(Held(0, "main", FunctionSpec(name=name, code=""), "", 1, None, "now"))

    async def invoke(ws: str, name: str, input: Any, **more: Any) -> Run:
        raise Unavailable("not here")

    async with lives(invoke=invoke) as one:
        for name in names:
            await one.set(name, cron=EVERY_MINUTE)
        assert one.triggers.due is not None
        await asyncio.sleep(0)
        wall.put(one.triggers.due + 0.1)
        one.triggers.changed()
        marked = [0]
        while marked[-1] < len(names):
            await asyncio.sleep(0)
            marked.append(sum(1 for found in one.triggers.schedules if found.row.last is not None))
        assert max(later - earlier for earlier, later in itertools.pairwise(marked)) <= 2


async def test_a_schedule_that_is_far_away_costs_nothing(one: Set) -> None:
    await one.set(cron={"expression": "0 0 1 1 *"})
    await asyncio.sleep(0.05)
    before = one.wall.asked
    await asyncio.sleep(0.5)
    assert one.wall.asked == before


# clocks


async def test_a_clock_put_back_fires_nothing_again(lives: Lives, stage: Stage, wall: Wall) -> None:
    await stage.deploy("async () => 1")
    async with lives(look=0.05) as one:
        await one.soon()
        await one.ended()
        due = one.triggers.due
        wall.put(wall() - 30)
        await asyncio.sleep(0.2)
        wall.put_before(0.05)  # the minute that was run comes again
        await asyncio.sleep(0.4)
        assert len(one.runs()) == 1 and one.triggers.due == due


async def test_a_clock_put_forward_is_noticed(lives: Lives, stage: Stage, wall: Wall) -> None:
    await stage.deploy("async () => 1")
    wall.put_before(1800, of=3600)
    async with lives(look=0.05) as one:
        await one.set(cron=HOURLY)
        await asyncio.sleep(0.2)
        assert one.runs() == []
        wall.put(wall() + 1900)
        await one.ended()


async def test_a_time_of_a_clock_that_was_wrong_is_reckoned_again(lives: Lives, stage: Stage, wall: Wall) -> None:
    await stage.deploy("async () => 1")
    right = at("2026-06-01T11:30")
    wall.put(right + 4 * 365 * DAY)
    async with lives(look=0.05) as one:
        await one.set(cron=HOURLY)
        wall.put(right + 4 * 365 * DAY - WRONG_SECS + 60)
        await asyncio.sleep(0.2)
        assert one.triggers.due is not None and one.triggers.due > right + 3 * 365 * DAY
        wall.put(right)
        await one.until(lambda: one.triggers.due == at("2026-06-01T12:00"))
        assert one.runs() == []


# webhooks


async def test_a_url_opens_its_own_function_until_it_is_turned_off_or_replaced(one: Set) -> None:
    await one.stage.deploy("async () => 1", "g")
    path, first = await one.url()
    assert path == f"/hooks/prj_1/main/f/{first}"
    assert one.triggers.accepts("main", "f", first)
    assert not one.triggers.accepts("main", "g", first) and not one.triggers.accepts("other", "f", first)
    _, second = await one.url(webhook="rotate")
    assert one.triggers.accepts("main", "f", second) and not one.triggers.accepts("main", "f", first)
    await one.set(webhook=False)
    assert not one.triggers.accepts("main", "f", second)
    _, third = await one.url()
    assert len({first, second, third}) == 3
    assert one.triggers.accepts("main", "f", third)
    for wrong in (first, second, third[:-1], third + "A", "", "é" * 43, "\ud800"):
        assert not one.triggers.accepts("main", "f", wrong)


async def test_a_function_without_a_webhook_has_no_token_at_all(one: Set) -> None:
    assert not one.triggers.accepts("main", "f", one.triggers.mac("webhook", "main", "f", ""))


async def test_urls_outlive_the_engine_and_no_token_is_at_rest(lives: Lives, stage: Stage, db: sqlite3.Connection) -> None:
    await stage.deploy("async () => 1")
    async with lives() as one:
        _, token = await one.url()
        wake = one.triggers.wake
    async with lives() as one:
        assert one.triggers.accepts("main", "f", token) and one.triggers.wake == wake
    assert token not in "\n".join(db.iterdump())


async def test_a_delivery_that_comes_again_runs_once_whatever_its_headers(one: Set) -> None:
    await one.stage.deploy("async () => crypto.randomUUID()")

    async def deliver(id: str | None, body: str = "{}", **headers: str) -> Run | RootlinkError:
        return await one.scheduler.deliver("main", "f", {"method": "POST", "headers": headers, "body": body}, id)

    first, again = await deliver("webhook-id:1", time="1"), await deliver("webhook-id:1", time="2")
    assert isinstance(first, Run) and isinstance(again, Run)
    assert (again.run_id, again.output, again.replayed) == (first.run_id, first.output, True)
    assert [run.trigger for run in one.runs()] == ["webhook"]
    together = await asyncio.gather(deliver("webhook-id:2"), deliver("webhook-id:2"))
    assert len({run.run_id for run in together if isinstance(run, Run)}) == 1
    assert isinstance(await deliver("webhook-id:1", body="[]"), Conflict)
    none = await asyncio.gather(deliver(None), deliver(None))
    assert len({run.run_id for run in none if isinstance(run, Run)}) == 2
    assert len(one.runs()) == 4


async def test_a_run_goes_on_when_whoever_called_the_url_has_left(one: Set) -> None:
    await one.stage.deploy("async () => { await new Promise(done => setTimeout(done, 300)); return 1 }")
    waiting = asyncio.create_task(one.scheduler.deliver("main", "f", {}, None))
    await one.until(lambda: one.lease.calls == 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert one.lease.calls == 1
    await one.until(lambda: one.lease.calls == 0)
    assert [run.status for run in one.runs()] == ["ok"]
