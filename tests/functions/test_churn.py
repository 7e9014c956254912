"""Thousands of isolates, calls and versions come and go: memory, threads and descriptors of every process are what they were."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass

import psutil
import pytest

from rootlink.engine.functions.host import FunctionHost
from rootlink.engine.functions.isolates.frames import WorkerLimits
from tests.functions.ground import Stage, WayOut, processes
from tests.functions.workers import memory, pid_of, settled_threads, the_worker, worker_of

MB = 1 << 20


@dataclass
class Footprint:
    """Of the engine (this process), the zygote and the worker: bytes, threads, open descriptors of each."""

    memory: list[int]
    threads: list[int]
    descriptors: list[int]


async def footprint(stage: Stage) -> Footprint:
    """Once what was freed is given back."""
    worker = psutil.Process(pid_of(worker_of(stage.host)))
    await settled_threads(worker)
    gc.collect()
    three = [psutil.Process(), processes()[0], worker]
    return Footprint(
        [memory(process) for process in three],
        [process.num_threads() for process in three],
        [process.num_fds() for process in three],
    )


def steady(prints: list[Footprint], most: int) -> None:
    """From the second on, the first being warm-up: what each process grew by in all is below `most` bytes."""
    base, last = prints[1], prints[-1]
    grown = [after - before for before, after in zip(base.memory, last.memory, strict=True)]
    assert all(growth < most for growth in grown), (grown, prints)
    assert all(after <= before + 2 for before, after in zip(base.threads, last.threads, strict=True)), prints
    assert all(after <= before + 2 for before, after in zip(base.descriptors, last.descriptors, strict=True)), prints


@pytest.mark.timeout(300)
async def test_five_thousand_isolates_come_and_go(stage: Stage) -> None:
    await stage.deploy("async (n) => { await new Promise((done) => setTimeout(done, 1)); return n }", isolation="fresh")
    worker = pid_of(worker_of(stage.host))
    gate = asyncio.Semaphore(16)

    async def one(number: int) -> None:
        async with gate:
            run = await stage.host.invoke("main", "f", number)
            assert run.output == number, run.error

    prints = []
    for _ in range(5):
        await asyncio.gather(*(one(number) for number in range(1000)))
        prints.append(await footprint(stage))
    assert pid_of(worker_of(stage.host)) == worker
    steady(prints, 12 * MB)  # 3,000 isolates of 1.4 MB each, and of 4 KiB if that were all they leave


@pytest.mark.timeout(300)
async def test_a_thousand_redeploys_of_one_function(stage: Stage) -> None:
    prints = []
    for quarter in range(4):
        for number in range(250):
            await stage.deploy(f"() => {number}")
            if number % 10 == 0:
                assert (await stage.host.invoke("main", "f", None)).output == number
        prints.append(await footprint(stage))
        assert stage.host.get("main", "f").version == 250 * (quarter + 1)
    steady(prints, 8 * MB)
    assert len(worker_of(stage.host)._defined) == 1


async def test_five_hundred_calls_that_wait_cost_little(stage: Stage) -> None:
    await stage.deploy("async (n) => { await new Promise((done) => setTimeout(done, 3000)); return n }", timeout_ms=20_000)
    await stage.deploy("() => 1", "quick")
    await stage.host.invoke("main", "quick", None)
    before = await footprint(stage)
    calls = [asyncio.create_task(stage.host.invoke("main", "f", number)) for number in range(500)]
    await asyncio.sleep(1.5)
    during = await footprint(stage)
    assert (await stage.host.invoke("main", "quick", None)).output == 1
    assert [run.output for run in await asyncio.gather(*calls)] == list(range(500))
    assert [b - a for a, b in zip(before.threads, during.threads, strict=True)] <= [1, 0, 4]
    grown = [b - a for a, b in zip(before.memory, during.memory, strict=True)]
    assert all(growth < 16 * MB for growth in grown), grown
    assert during.descriptors == before.descriptors


class TestIdle:
    @pytest.fixture
    def limits(self) -> WorkerLimits:
        return WorkerLimits(spares=2, isolates=250, idle_secs=1.0)

    async def test_two_hundred_idle_functions_cost_next_to_nothing(self, stage: Stage) -> None:
        await stage.deploy("() => 'base'")
        await asyncio.sleep(0.5)
        base = sum(memory(process) for process in processes())
        for number in range(200):
            await stage.deploy(f"() => {number}", f"f{number}")
            assert (await stage.host.invoke("main", f"f{number}", None)).output == number
        least, until = 1 << 40, time.monotonic() + 20
        while least - base > 200 * (64 << 10) and time.monotonic() < until:
            await asyncio.sleep(0.2)
            least = min(least, sum(memory(process) for process in processes()))
        assert (least - base) / 200 < 64 << 10
        for number in range(0, 200, 20):
            assert (await stage.host.invoke("main", f"f{number}", None)).output == number


async def test_a_host_that_is_warmed_has_a_worker_before_the_first_call(stage: Stage) -> None:
    await asyncio.gather(stage.host._pool.warm(), stage.host._pool.warm())
    await stage.host._pool.warm()
    while len(processes()) < 3:
        await asyncio.sleep(0.01)
    assert len(processes()) == 3  # zygote, worker, spare worker
    await settled_threads(the_worker())
    await stage.deploy("() => 1")
    assert len(processes()) == 3


async def test_the_first_call_after_a_start_finds_an_isolate(stage: Stage) -> None:
    await stage.deploy("async (n) => n")
    again = FunctionHost(stage.db, WayOut(), {})
    try:
        await again._pool.warm()
        await asyncio.sleep(0.5)
        begun = time.perf_counter()
        assert (await again.invoke("main", "f", 7)).output == 7
        assert time.perf_counter() - begun < 0.1  # 2 to 3 ms where nothing else runs; a start of the zygote takes longer
    finally:
        await again.close()


async def test_a_host_that_can_not_be_warmed_says_so_in_its_log_only(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    monkeypatch.setattr("rootlink.engine.functions.processes._PROGRAM", Path("/nonexistent/zygote.py"))
    await stage.host._pool.warm()
    monkeypatch.undo()
    assert await stage.output("() => 1") == 1


async def test_a_closed_host_is_not_warmed(stage: Stage) -> None:
    await stage.host.close()
    await stage.host._pool.warm()
    assert processes() == []
