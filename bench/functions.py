"""Root Functions in numbers: `python bench/functions.py [--calls N]`.

First what one engine does: a warm call, a call of a function that is new to the engine, a deploy, a first call in a new engine,
32 calls at once, the same after a worker was killed, and the same V8 work inside this process with no process in between.
Latencies in ms (p50, p99), CPU in ms a call over all processes involved.

Then the same function side by side, in rounds that take turns: in our isolates (both modes), and in a deno, a workerd and a node
process of its own each. "new function" is from nothing of that function to its first answer: for a peer, its process's start.
"idle function" is what one more function that is not called costs in memory (USS): for a peer, its process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import peers

from rootlink.engine.functions.host import FunctionHost
from rootlink.engine.functions.isolates import v8
from rootlink.engine.functions.isolates.frames import WorkerLimits
from rootlink.engine.functions.isolates.worker import Prelude
from rootlink.engine.outbound import Outbound
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.mounts import FunctionSpec

HELLO = "async (input, ctx) => ({ hello: input.name, length: ctx.env.TOKEN.length })"
INPUT = {"name": "world"}
CONTEXT = {"env": {"TOKEN": "x" * 40}}
BARS = {"warm call": 0.3, "new function's first call": 2.0, "first call in a new project, spare": 3.0}  # ms, p50
AT_ONCE, RATE_BAR = 32, 4000  # calls, calls a second
IDLE_FUNCTIONS = 200
ROUNDS = 5
KINDS = ("deno", "workerd", "node")
SETTLE_SECS = 0.03  # between cold calls, so that spares are there again: a burst has a row of its own


def cpu() -> float:
    """Seconds of CPU of this process and all below it."""
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def show(name: str, samples: list[float], cpu_secs: float | None = None, note: str = "") -> None:
    """`samples` in seconds."""
    samples = sorted(samples)
    p50, p99 = (samples[min(int(len(samples) * q), len(samples) - 1)] * 1000 for q in (0.5, 0.99))
    bar = BARS.get(name)
    verdict = "" if bar is None else f"  bar {bar:g} ms: {'met' if p50 <= bar else 'MISSED'}"
    burnt = "" if cpu_secs is None else f"{cpu_secs / len(samples) * 1000:8.2f}"
    print(f"{name:34}{p50:9.2f}{p99:9.2f}{burnt:>9}  {len(samples):6}  {note}{verdict}", flush=True)


async def timed(times: int, work: Callable[[int], Awaitable[Any]], pause: float = 0.0) -> list[float]:
    samples = []
    for number in range(times):
        if pause:
            await asyncio.sleep(pause)
        begun = time.perf_counter()
        await work(number)
        samples.append(time.perf_counter() - begun)
    return samples


def new_host(folder: str, name: str = "", limits: WorkerLimits | None = None) -> FunctionHost:
    db = sqlite3.connect(Path(folder) / f"{name or time.monotonic_ns()}.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    return FunctionHost(db, Outbound(EgressPolicy(), lambda *_: None), {"TOKEN": "x" * 40}, limits=limits)


async def call(host: FunctionHost, name: str) -> None:
    run = await host.invoke("main", name, INPUT)
    assert run.output == {"hello": "world", "length": 40}, run


async def engine(calls: int, folder: str) -> None:
    begun = time.perf_counter()
    host = new_host(folder)
    await host.deploy("main", FunctionSpec(name="hello", code=HELLO))
    await call(host, "hello")
    show("first deploy and call of an engine", [time.perf_counter() - begun], note="zygote, V8, worker")

    before = cpu()
    show("warm call", await timed(calls, lambda _: call(host, "hello")), cpu() - before)

    await timed(30, lambda n: host.deploy("main", FunctionSpec(name=f"f{n}", code=HELLO)), SETTLE_SECS)
    show("deploy", await timed(30, lambda n: host.deploy("main", FunctionSpec(name=f"g{n}", code=HELLO)), SETTLE_SECS))
    forgotten(host)
    names = list(host._held)
    show(
        "new function's first call",
        await timed(60, lambda n: call(host, names[n][1]), SETTLE_SECS),
        note="compile in a spare isolate",
    )
    show("deploy, 30 in a burst", await timed(30, lambda n: host.deploy("main", FunctionSpec(name=f"h{n}", code=HELLO))))
    await asyncio.sleep(0.2)

    await at_once(host, calls)
    show("call after its worker was killed", await timed(5, lambda _: after_kill(host), 0.3), note="to the first that works")
    await host.close()


def forgotten(host: FunctionHost) -> None:
    """By its workers, not by the host: as after an eviction."""
    for held in host._held.values():
        for worker in host._pool._watches:
            worker.forget(held.handle)


async def at_once(host: FunctionHost, calls: int) -> None:
    gate = asyncio.Semaphore(32)
    samples: list[float] = []

    async def one() -> None:
        async with gate:
            samples.extend(await timed(1, lambda _: call(host, "hello")))

    before, begun = cpu(), time.perf_counter()
    await asyncio.gather(*(one() for _ in range(calls)))
    took = time.perf_counter() - begun
    show("32 at once", samples, cpu() - before, note=f"{calls / took:.0f} calls/s")


async def after_kill(host: FunctionHost) -> None:
    for worker in host._pool._lanes.values():
        worker.kill()
    while (await host.invoke("main", "hello", INPUT)).status != "ok":
        pass


def in_process(calls: int) -> None:
    """The same prelude, body and payload, with no engine, socket or process in between: what V8 itself costs."""
    answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    prelude = Prelude(WorkerLimits())
    isolate = v8.Isolate(v8.load(), lambda tag, _, text: answers.put(text) if tag else None)
    for script in (
        prelude.script,
        f"{prelude.key}.warm()",
        f"{prelude.key}.lock()",
        f"{prelude.key}.bind([],()=>{{return ({HELLO}\n)}})",
    ):
        isolate.post(script, 0)
    payload = json.dumps(json.dumps({"input": INPUT, "env": {"TOKEN": "x" * 40}, "ctx": {}, "seed": "00" * 32}))
    samples = []
    before = cpu()
    for number in range(1, calls + 1):
        begun = time.perf_counter()
        isolate.post(f"{prelude.key}.run({number},{payload})", 0)
        isolate.post(f"{prelude.key}.drain()", 1)
        answers.get()
        samples.append(time.perf_counter() - begun)
    show("the same V8 work in this process", samples, cpu() - before, note="baseline")
    isolate.close()


class Ours:
    """One function of a host, as a peer of `peers.py`."""

    def __init__(self, host: FunctionHost, name: str) -> None:
        self._host, self._name = host, name

    async def call(self, input: Any) -> Any:
        return (await self._host.invoke("main", self._name, input)).output


Answers = Callable[[Any], Awaitable[Any]]


async def one_by_one(call: Answers, times: int) -> float:
    """Median, ms."""
    return statistics.median(await timed(times, lambda _: call(INPUT))) * 1000


async def many(call: Answers, times: int) -> float:
    """Calls a second, `AT_ONCE` of them under way."""
    left = iter(range(times))

    async def caller() -> None:
        for _ in left:
            await call(INPUT)

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return times / (time.perf_counter() - begun)


async def side_by_side(calls: int, folder: str) -> None:
    host = new_host(folder)
    for isolation in ("reuse", "fresh"):
        await host.deploy("main", FunctionSpec(name=isolation, code=HELLO, isolation=isolation))
    found = {kind: await peers.started(kind, HELLO, CONTEXT) for kind in KINDS}
    ways: dict[str, Answers] = {name: Ours(host, name).call for name in ("reuse", "fresh")}
    ways |= {kind: peer.call for kind, peer in found.items()}
    warm: dict[str, list[float]] = {name: [] for name in ways}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for call in ways.values():
        await one_by_one(call, 50)
    for _ in range(ROUNDS):
        for name, call in ways.items():
            share = calls // ROUNDS // (5 if name == "fresh" else 1)
            warm[name].append(await one_by_one(call, share))
            rates[name].append(await many(call, share))
    fresh = {name: await new_function(host, name) for name in ("reuse", "fresh")}
    idle = {kind: peers.memory(peer.pid) for kind, peer in found.items()}
    for peer in found.values():
        await peer.close()
    await host.close()
    ours = await idle_functions(folder)
    compare("warm call, p50 ms", {name: statistics.median(got) for name, got in warm.items()})
    compare(f"calls a second, {AT_ONCE} at once", {name: statistics.median(got) for name, got in rates.items()}, RATE_BAR)
    compare("new function, p50 ms", fresh | {kind: await new_process(kind) for kind in KINDS})
    compare("an idle function, MiB", {"reuse": ours, "fresh": 0.0} | idle)


async def new_function(host: FunctionHost, isolation: Any) -> float:
    """Deployed, then forgotten by its worker, as after an eviction."""
    names = [f"{isolation}{number}" for number in range(20)]
    for name in names:
        await host.deploy("main", FunctionSpec(name=name, code=HELLO, isolation=isolation))
    forgotten(host)
    await asyncio.sleep(1)
    return statistics.median(await timed(len(names), lambda n: Ours(host, names[n]).call(INPUT), SETTLE_SECS)) * 1000


async def new_process(kind: str) -> float:
    async def one(_: int) -> None:
        peer = await peers.started(kind, HELLO, CONTEXT)
        await peer.call(INPUT)
        spent.append(peer)

    spent: list[peers.Peer] = []
    samples = await timed(5, one)
    for peer in spent:
        await peer.close()
    return statistics.median(samples) * 1000


async def idle_functions(folder: str) -> float:
    """MiB that each of so many functions costs once nobody has called it for a while."""
    host = new_host(folder, limits=WorkerLimits(idle_secs=1.0))
    await host.deploy("main", FunctionSpec(name="hello", code=HELLO))
    await call(host, "hello")
    await asyncio.sleep(4)
    before = below()
    for number in range(IDLE_FUNCTIONS):
        await host.deploy("main", FunctionSpec(name=f"i{number}", code=HELLO))
        await call(host, f"i{number}")
    await asyncio.sleep(4)
    after = below()
    await host.close()
    return max(after - before, 0.0) / IDLE_FUNCTIONS


def below() -> float:
    return sum(peers.memory(process.pid) for process in psutil.Process().children(recursive=True))


def compare(what: str, figures: dict[str, float], bar: float | None = None) -> None:
    """One row; in brackets how many times ours (reuse) it is."""
    ours = figures["reuse"]
    cells = [f"{figure:9.2f}" + (f" ({figure / ours:6.2f})" if ours else " " * 9) for figure in figures.values()]
    verdict = "" if bar is None else f"  bar {bar:g}: {'met' if ours >= bar else 'MISSED'}"
    print(f"{what:30}" + "".join(f"{cell:>20}" for cell in cells) + verdict, flush=True)


async def first_in_a_project(folder: str) -> None:
    """An engine that holds a function since before its start, and has made itself ready."""
    host = new_host(folder, "kept")
    await host.deploy("main", FunctionSpec(name="hello", code=HELLO))
    await host.close()
    samples = []
    for _ in range(10):
        host = new_host(folder, "kept")
        await host.warm()
        await asyncio.sleep(0.2)
        samples += await timed(1, lambda _, host=host: call(host, "hello"))
        await host.close()
    show("first call in a new project, spare", samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=2000)
    calls = parser.parse_args().calls
    print(f"{'':34}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}  {'n':>6}")
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(engine(calls, folder))
        uvloop.run(first_in_a_project(folder))
        in_process(calls)
        peers.installed()
        print(f"\n{'':30}" + "".join(f"{name:>20}" for name in ("ours, reuse", "ours, fresh", *KINDS)))
        uvloop.run(side_by_side(calls, folder))
    load = statistics.fmean(psutil.getloadavg()[:1])
    version = v8.load().mr_v8_version().decode()
    print(f"load average {load:.1f} on {psutil.cpu_count()} cores, Python {sys.version.split()[0]}, V8 {version}")


if __name__ == "__main__":
    main()
