"""`isolation: "fresh"`: every call has an isolate that nothing ran in, and that ends with the call."""

from __future__ import annotations

import asyncio
import contextlib
import time

import psutil
import pytest

from rootlink.engine.functions.isolates.frames import WorkerLimits
from tests.functions.ground import Stage, processes
from tests.functions.workers import memory, settled_threads, the_worker

WAIT = "async (ms) => { await new Promise((done) => setTimeout(done, ms)); return ms }"

MARKS = """
    const places = [(0, eval)('this'), Object.prototype, Array.prototype, Function.prototype, Error, JSON, Math, Promise.prototype, Symbol, Intl, URL,
        Object.getPrototypeOf(new URLSearchParams('a=1').entries()), Object.getPrototypeOf('a'.matchAll(/a/g)), TextEncoder.prototype, fetch, crypto];
    const found = places.flatMap((place, at) => (place.marked === undefined ? [] : [at]));
    if ((0, eval)('typeof marked') !== 'undefined') found.push('eval');
    if (RegExp.$1) found.push('last match');
    for (const place of places) try { place.marked = 1 } catch {}
    try { (0, eval)('var marked = 1') } catch {}
    /secret(.)/.exec('secretX');
    return found;
"""


async def test_nothing_of_one_call_is_seen_by_the_next(stage: Stage) -> None:
    await stage.deploy(f"async () => {{ {MARKS} }}", isolation="fresh")
    for _ in range(3):
        run = await stage.host.invoke("main", "f", None)
        assert (run.status, run.output) == ("ok", []), run.error


async def test_two_calls_at_once_share_no_isolate(stage: Stage) -> None:
    """One that never yields does not hold up the other, as it would in an isolate of their own function."""
    body = "async (ms) => { if (ms < 0) while (true); await new Promise((done) => setTimeout(done, ms)); return ms }"
    await stage.deploy(body, isolation="fresh", timeout_ms=900)
    await stage.host.invoke("main", "f", 1)
    looping = asyncio.create_task(stage.host.invoke("main", "f", -1))
    await asyncio.sleep(0.02)
    begun = time.perf_counter()
    assert (await stage.host.invoke("main", "f", 10)).output == 10
    assert time.perf_counter() - begun < 0.6
    waiting = asyncio.create_task(stage.host.invoke("main", "f", 800))
    assert (await looping).status == "timeout"
    assert (await waiting).output == 800


async def test_a_fresh_function_holds_no_isolate_after_deploy_and_after_its_calls(stage: Stage) -> None:
    await stage.deploy("() => 1")
    base = await settled_threads(the_worker())
    for number in range(20):
        await stage.deploy(f"() => {number}", f"g{number}", isolation="fresh")
        assert (await stage.host.invoke("main", f"g{number}", None)).output == number
    assert await settled_threads(the_worker(), base) <= base


async def test_memory_and_threads_are_as_before_after_five_hundred_calls(stage: Stage) -> None:
    await stage.deploy(
        "async () => { const data = new Array(10000).fill(1.5); await null; return data.length }", isolation="fresh"
    )

    async def many(count: int) -> None:
        for _ in range(count // 10):
            runs = await asyncio.gather(*(stage.host.invoke("main", "f", None) for _ in range(10)))
            assert {run.output for run in runs} == {10000}

    await many(100)
    worker = the_worker()
    threads = await settled_threads(worker)
    before = memory(worker)
    await many(500)
    assert the_worker().pid == worker.pid
    assert await settled_threads(worker, threads) <= threads
    assert memory(worker) - before < 12 << 20


async def test_a_hundred_may_wait_at_once(stage: Stage) -> None:
    await stage.deploy(WAIT, isolation="fresh")
    begun = time.perf_counter()
    runs = await asyncio.gather(*(stage.host.invoke("main", "f", 1000) for _ in range(100)))
    assert {run.output for run in runs} == {1000}
    assert time.perf_counter() - begun < 8


class TestFewIsolates:
    @pytest.fixture
    def limits(self) -> WorkerLimits:
        return WorkerLimits(spares=1, isolates=4)

    async def test_calls_wait_for_an_isolate_in_line(self, stage: Stage) -> None:
        await stage.deploy(WAIT, isolation="fresh")
        ended: list[int] = []

        async def one(number: int) -> None:
            run = await stage.host.invoke("main", "f", 20)
            assert run.output == 20
            ended.append(number)

        await asyncio.gather(*(one(number) for number in range(24)))
        assert all(abs(number - place) <= 8 for place, number in enumerate(ended)), ended
        assert the_worker().num_threads() <= 4 + 5

    async def test_one_that_waits_in_line_may_be_given_up(self, stage: Stage) -> None:
        await stage.deploy(WAIT, isolation="fresh", timeout_ms=600)
        calls = [asyncio.create_task(stage.host.invoke("main", "f", 450)) for _ in range(12)]
        await asyncio.sleep(0.05)
        calls[-1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[-1]
        runs = await asyncio.gather(*calls[:-1])
        assert {run.status for run in runs} == {"ok", "timeout"}
        assert (await stage.host.invoke("main", "f", 1)).output == 1

    async def test_homes_make_room_and_are_found_again(self, stage: Stage) -> None:
        for number in range(4):
            await stage.deploy(f"() => {number}", f"home{number}")
        await stage.deploy(WAIT, isolation="fresh")
        for _ in range(3):
            assert (await stage.host.invoke("main", "f", 1)).output == 1
            for number in range(4):
                assert (await stage.host.invoke("main", f"home{number}", None)).output == number


ENDS = {
    "returns": ("() => 1", "ok"),
    "throws": ("() => { throw new Error('no') }", "error"),
    "throws while it is evaluated": "(() => { if (Date.now() > 0) throw new Error('no'); return () => 1 })()",
    "loops": ("() => { while (true); }", "timeout"),
    "waits too long": ("async () => { await new Promise(() => {}) }", "timeout"),
    "leaves a timer": ("() => { setTimeout(() => {}, 60000); return 1 }", "ok"),
    "leaves a promise": ("() => { new Promise(() => {}).then(() => 1); return 1 }", "ok"),
}


@pytest.mark.parametrize("how", ENDS.values(), ids=ENDS.keys())
async def test_however_a_call_ends_its_isolate_ends(stage: Stage, how: tuple[str, str] | str) -> None:
    body, status = (how, "error") if isinstance(how, str) else how
    await stage.deploy(body, isolation="fresh", timeout_ms=200 if status == "timeout" else 5000)
    worker = the_worker()
    base = await settled_threads(worker)
    runs = await asyncio.gather(*(stage.host.invoke("main", "f", None) for _ in range(3)))
    assert {run.status for run in runs} == {status}, runs
    assert worker.is_running()
    assert await settled_threads(worker, base) <= base


async def test_heaps_that_burst_end_and_leave_no_memory_taken(stage: Stage) -> None:
    """V8 keeps the pages for itself: a worker that is left with them is replaced once it is idle."""
    await stage.deploy("() => { const a = []; for (;;) a.push(new Array(1000).fill(1.5)) }", isolation="fresh", timeout_ms=5000)
    runs = await asyncio.gather(*(stage.host.invoke("main", "f", None) for _ in range(3)))
    assert {run.error["name"] for run in runs if run.error is not None} == {"MemoryLimitError"}
    deadline = time.monotonic() + 10
    while await asyncio.to_thread(most_memory) > 150 << 20:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert await stage.output("() => 1") == 1


def most_memory() -> int:
    """Of a worker's, in bytes."""
    sizes = [0]
    for process in processes()[1:]:
        with contextlib.suppress(psutil.NoSuchProcess):
            sizes.append(memory(process))
    return max(sizes)


async def test_a_caller_that_goes_away_ends_the_isolate(stage: Stage) -> None:
    await stage.deploy("async () => { await new Promise(() => {}) }", isolation="fresh")
    worker = the_worker()
    base = await settled_threads(worker)
    calls = [asyncio.create_task(stage.host.invoke("main", "f", None)) for _ in range(10)]
    await asyncio.sleep(0.2)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert await settled_threads(worker, base) <= base


async def test_a_redeploy_lets_the_calls_of_the_old_version_end(stage: Stage) -> None:
    await stage.deploy(WAIT, isolation="fresh")
    old = [asyncio.create_task(stage.host.invoke("main", "f", 300)) for _ in range(10)]
    await asyncio.sleep(0.1)
    await stage.deploy("() => 'new'", isolation="fresh")
    assert (await stage.host.invoke("main", "f", None)).output == "new"
    assert [run.output for run in await asyncio.gather(*old)] == [300] * 10
