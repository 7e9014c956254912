"""How many runs of one function there are at once, and who waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rootlink.engine.functions import turns
from rootlink.engine.functions.host import Run
from rootlink.errors import NotFound, RateLimited, Unavailable
from tests.functions.ground import Answer, Asked, Stage

ASKS = "async (input, ctx) => { await fetch('https://api.example/' + input); return [input, ctx.version] }"


class Door:
    """The network: counts who is in, and lets them out when it is told to."""

    def __init__(self) -> None:
        self.inside, self.most, self.order = 0, 0, list[str]()
        self.opened = asyncio.Event()

    async def __call__(self, asked: Asked) -> Answer:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.order.append(asked.url.rpartition("/")[2])
        await self.opened.wait()
        await asyncio.sleep(0.01)
        self.inside -= 1
        return Answer()


@pytest.fixture
async def door(stage: Stage) -> AsyncIterator[Door]:
    door = Door()
    stage.out.network = door
    yield door
    door.opened.set()


def started(stage: Stage, count: int, name: str = "f") -> list[asyncio.Task[Run]]:
    return [asyncio.create_task(stage.host.invoke("main", name, number)) for number in range(count)]


async def test_no_more_run_at_once_than_allowed_and_the_others_follow_in_their_order(stage: Stage, door: Door) -> None:
    await stage.deploy(ASKS, concurrency=2)
    runs = started(stage, 9)
    await asyncio.sleep(0.3)
    assert door.inside == 2
    door.opened.set()
    assert [run.output for run in await asyncio.gather(*runs)] == [[number, 1] for number in range(9)]
    assert door.most == 2
    assert [int(one) // 2 for one in door.order] == sorted(int(one) // 2 for one in door.order)


async def test_waiting_takes_nothing_of_a_runs_time_and_nothing_from_other_functions(stage: Stage, door: Door) -> None:
    await stage.deploy(ASKS, concurrency=1, timeout_ms=2000)
    await stage.deploy("() => 'free'", "other")
    runs = started(stage, 2)
    await asyncio.sleep(1.2)
    assert (await stage.host.invoke("main", "other", None)).output == "free"
    door.opened.set()
    assert [run.status for run in await asyncio.gather(*runs)] == ["ok", "ok"]
    assert (await runs[1]).duration_ms < 1000


async def test_who_waited_as_long_as_a_run_may_take_is_turned_away(stage: Stage, door: Door) -> None:
    await stage.deploy(ASKS, concurrency=1, timeout_ms=60_000)
    (long,) = started(stage, 1)
    await asyncio.sleep(0.2)
    await stage.deploy(ASKS, concurrency=1, timeout_ms=300)
    with pytest.raises(
        RateLimited, match=r"function 'f' already has 1 runs at once, its `concurrency`, and none ended within 0.3 s"
    ):
        await stage.host.invoke("main", "f", 1)
    door.opened.set()
    assert (await long).output == [0, 1]
    assert (await stage.host.invoke("main", "f", 2)).output == [2, 2]
    assert len(stage.host.runs("main", "f")) == 2


async def test_a_full_line_is_told_at_once(stage: Stage, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_WAITING", 3)
    await stage.deploy(ASKS, concurrency=1)
    runs = started(stage, 4)
    await asyncio.sleep(0.2)
    with pytest.raises(RateLimited, match="3 more wait"):
        await stage.host.invoke("main", "f", 9)
    door.opened.set()
    assert {run.status for run in await asyncio.gather(*runs)} == {"ok"}


async def test_who_leaves_the_line_costs_nobody_a_turn(stage: Stage, door: Door) -> None:
    await stage.deploy(ASKS, concurrency=1)
    runs = started(stage, 5)
    await asyncio.sleep(0.2)
    for leaver in runs[1:4]:
        leaver.cancel()
    await asyncio.gather(*runs[1:4], return_exceptions=True)
    door.opened.set()
    assert [run.output[0] for run in await asyncio.gather(runs[0], runs[4])] == [0, 4]
    assert (await stage.host.invoke("main", "f", 7)).status == "ok"


async def test_who_leaves_when_its_turn_has_come_gives_it_back() -> None:
    line = turns.Turns("f", 1)
    await line.take(1)
    waiting = [asyncio.create_task(line.take(1)) for _ in range(2)]
    await asyncio.sleep(0)
    line.give_back()
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    await asyncio.wait_for(waiting[1], 1)


async def test_a_larger_limit_lets_those_in_who_wait_in_the_new_version(stage: Stage, door: Door) -> None:
    await stage.deploy(ASKS, concurrency=1)
    runs = started(stage, 3)
    await asyncio.sleep(0.2)
    await stage.deploy(ASKS, concurrency=3)
    await asyncio.sleep(0.2)
    assert door.inside == 3
    await stage.deploy(ASKS, concurrency=1)
    late = asyncio.create_task(stage.host.invoke("main", "f", 3))
    await asyncio.sleep(0.2)
    assert door.inside == 3
    door.opened.set()
    assert sorted(run.output for run in await asyncio.gather(*runs)) == [[0, 1], [1, 2], [2, 2]]
    assert (await late).output == [3, 3]


async def test_those_who_wait_for_a_function_that_goes_are_told_so(stage: Stage, door: Door) -> None:
    await stage.deploy(ASKS, concurrency=1)
    runs = started(stage, 2)
    await asyncio.sleep(0.2)
    await stage.host.remove("main", "f")
    with pytest.raises(NotFound):
        await runs[1]
    door.opened.set()
    assert (await runs[0]).status == "ok"


async def test_a_stop_ends_the_waiting(stage: Stage, door: Door) -> None:
    await stage.deploy(ASKS, concurrency=1, timeout_ms=60_000)
    runs = started(stage, 2)
    await asyncio.sleep(0.2)
    await asyncio.wait_for(stage.host.close(), 10)
    assert (await runs[0]).status == "killed"
    with pytest.raises(Unavailable):
        await runs[1]
