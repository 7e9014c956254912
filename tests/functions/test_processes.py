"""The processes: when they start, what they can do and hold, and that they end with the engine however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import uvloop

from rootlink.engine.functions.host import FunctionHost
from rootlink.engine.functions.isolates import seccomp
from rootlink.errors import Unavailable
from rootlink.wire.mounts import FunctionSpec
from tests.functions.ground import SECRETS, Stage, WayOut, end, open_db, processes


async def test_nothing_starts_before_the_first_deploy(stage: Stage) -> None:
    assert processes() == []
    await stage.deploy("() => 1")
    assert len(processes()) >= 2


async def test_secrets_are_in_no_process_before_a_call_and_in_no_environment_ever(stage: Stage) -> None:
    needles = [value.encode() for value in SECRETS.values()]
    await stage.deploy("() => 1")
    for process in processes():
        assert found(process.pid, needles) == []
    run = await stage.run("(input, ctx) => ctx.API_KEY.length")
    assert run.status == "ok"
    for process in processes():
        assert not any(needle in read(process.pid, "environ") + read(process.pid, "cmdline") for needle in needles)
        assert read(process.pid, "environ") in (b"", b"MALLOC_ARENA_MAX=2\0")


def read(pid: int, name: str) -> bytes:
    """Of /proc; empty where we may not look, which is what a non-dumpable process is about."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def found(pid: int, needles: list[bytes]) -> list[bytes]:
    """Which needles stand in the writable memory of a process."""
    hits = []
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    except OSError:
        return []
    for line in read(pid, "maps").decode().splitlines():
        span, access = line.split()[:2]
        start, end = (int(part, 16) for part in span.split("-"))
        if access.startswith("rw") and end - start < 64 << 20:
            try:
                chunk = os.pread(memory, end - start, start)
            except OSError:
                continue
            hits += [needle for needle in needles if needle in chunk]
    os.close(memory)
    return hits


async def test_a_worker_is_locked_in(stage: Stage) -> None:
    await stage.deploy("() => 1")
    zygote, *workers = processes()
    assert workers
    for worker in workers:
        status = dict(line.split(":", 1) for line in read(worker.pid, "status").decode().splitlines())
        assert status["Seccomp"].strip() == "2"
        assert status["NoNewPrivs"].strip() == "1"
        assert len(list(Path(f"/proc/{worker.pid}/fd").iterdir())) == 5  # three of /dev/null, its socket, its own memory figures
        core = next(line for line in read(worker.pid, "limits").decode().splitlines() if line.startswith("Max core"))
        assert core.split()[4] == "0"
        assert worker.ppid() == zygote.pid


PROBE = """
import os, socket, sys, threading
from rootlink.engine.functions.isolates import seccomp
r, w = os.pipe()
held = os.open("/proc/self/statm", os.O_RDONLY)
seccomp.lock()
def refused(what):
    try:
        what()
    except OSError as error:
        return error.errno == 1
    return False
results = {
    "open": refused(lambda: os.open("/etc/passwd", os.O_RDONLY)),
    "create": refused(lambda: os.open("/tmp/x", os.O_CREAT | os.O_WRONLY)),
    "socket": refused(lambda: socket.socket()),
    "unix": refused(lambda: socket.socket(socket.AF_UNIX)),
    "exec": refused(lambda: os.execv("/bin/true", ["true"])),
    "fork": refused(lambda: os.fork()),
    "kill": refused(lambda: os.kill(os.getppid(), 0)),
    "listdir": refused(lambda: os.listdir("/")),
    "stat": refused(lambda: os.stat("/")),
    "dup": refused(lambda: os.dup(1)),
    "chdir": refused(lambda: os.chdir("/")),
    "ioctl": refused(lambda: __import__("fcntl").ioctl(r, 21531, b"0000")),
    "setuid": refused(lambda: os.setuid(65534)),
}
threads = []
thread = threading.Thread(target=lambda: threads.append(1)); thread.start(); thread.join()
results["threads still start"] = threads == [1]
results["memory figures"] = bool(os.pread(held, 100, 0))
os.write(1, repr([name for name, good in results.items() if not good]).encode())
os._exit(0)
"""


def test_after_the_lock_only_computing_is_left() -> None:
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=30)
    assert run.stdout == "[]"


@pytest.mark.parametrize("architecture", seccomp.ARCHITECTURES.values(), ids=seccomp.ARCHITECTURES.keys())
def test_the_filter_allows_its_list_and_refuses_every_other_number(architecture: seccomp.Architecture) -> None:
    run = interpreter(seccomp.program(architecture))
    allowed = {number for number in range(500) if run(architecture.audit, number, 0) == 0x7FFF0000}
    assert allowed == set(architecture.allowed.values())
    assert run(architecture.audit, architecture.clone, 0x10000) == 0x7FFF0000
    assert run(architecture.audit, architecture.clone, 17) == 0x50001
    assert run(architecture.audit, architecture.clone3, 0) == 0x50000 | 38
    assert run(architecture.audit ^ 1, 0, 0) == 0x80000000
    assert run(architecture.audit, 0x40000000, 0) == 0x80000000


def interpreter(program: bytes):  # type: ignore[no-untyped-def]
    """The five BPF instructions the filter is made of."""
    import struct

    steps = list(struct.iter_unpack("HBBI", program))

    def run(audit: int, number: int, argument: int) -> int:
        data = {0: number, 4: audit, 16: argument}
        accumulator, at = 0, 0
        while True:
            code, yes, no, operand = steps[at]
            at += 1
            if code == 0x06:
                return int(operand)
            if code == 0x20:
                accumulator = data[operand]
            else:
                held = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: accumulator & operand != 0}[code]
                at += yes if held else no

    return run


async def test_close_ends_runs_in_flight_and_leaves_no_process(db: sqlite3.Connection) -> None:
    host = FunctionHost(db, WayOut(), {})
    await host.deploy("main", FunctionSpec(name="f", code="async () => { await new Promise(() => {}) }"))
    calls = [asyncio.create_task(host.invoke("main", "f", None)) for _ in range(3)]
    await asyncio.sleep(0.05)
    await host.close()
    runs = await asyncio.gather(*calls)
    assert {run.status for run in runs} == {"killed"}
    assert {run.error["name"] for run in runs if run.error} == {"EngineStopping"}
    assert processes() == []
    assert len(host.runs("main", "f")) == 3
    with pytest.raises(Unavailable):
        await host.invoke("main", "f", None)


async def test_close_of_a_host_that_never_ran_anything_is_nothing(db: sqlite3.Connection) -> None:
    await FunctionHost(db, WayOut(), {}).close()


async def test_a_stampede_of_first_calls_starts_one_zygote(db: sqlite3.Connection) -> None:
    host = FunctionHost(db, WayOut(), {})
    await host.deploy("main", FunctionSpec(name="f", code="async (n) => n"))
    await host.close()
    again = FunctionHost(db, WayOut(), {})
    try:
        runs = await asyncio.gather(*(again.invoke("main", "f", n) for n in range(200)))
        assert [run.output for run in runs] == list(range(200))
        assert len(processes()) <= 3
    finally:
        await again.close()


ENGINE = """
import asyncio, sqlite3, sys
from rootlink.engine.functions.host import FunctionHost
from rootlink.wire.mounts import FunctionSpec
async def main():
    host = FunctionHost(sqlite3.connect(":memory:", isolation_level=None), None, {})
    for name, code in (("idle", "async () => { await new Promise(() => {}) }"), ("loop", "() => { while (true); }")):
        await host.deploy("main", FunctionSpec(name=name, code=code, timeout_ms=60000))
    calls = [asyncio.create_task(host.invoke("main", name, None)) for name in ("idle", "loop")]
    await asyncio.sleep(0.2)
    print("ready", flush=True)
    await asyncio.gather(*calls)
asyncio.run(main())
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_an_engine_that_is_killed_takes_its_processes_along(sign: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", ENGINE], stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline() == "ready\n"
        below = processes(psutil.Process(engine.pid))
        assert len(below) >= 2
        engine.send_signal(sign)
        engine.wait(10)
    gone, alive = psutil.wait_procs(below, timeout=10)
    assert alive == []
    assert len(gone) == len(below)


async def exercise(host: FunctionHost) -> None:
    code = "async (n) => { await new Promise((done) => setTimeout(done, n)); return n }"
    await host.deploy("main", FunctionSpec(name="f", code=code))
    runs = await asyncio.gather(*(host.invoke("main", "f", n) for n in range(50)))
    assert [run.output for run in runs] == list(range(50))
    await host.deploy("main", FunctionSpec(name="f", code="() => { while (true); }", timeout_ms=200))
    assert (await host.invoke("main", "f", None)).status == "timeout"
    await asyncio.to_thread(end, processes()[1:])
    await host.deploy("main", FunctionSpec(name="f", code="() => 1"))
    assert (await host.invoke("main", "f", None)).output == 1


def test_it_works_the_same_under_uvloop(tmp_path: Path) -> None:
    async def main() -> None:
        db = open_db(tmp_path / "state.db")
        host = FunctionHost(db, WayOut(), SECRETS)
        try:
            await exercise(host)
        finally:
            await host.close()
            db.close()
        assert processes() == []

    uvloop.run(main())


async def test_a_zygote_that_can_not_start_is_unavailable_and_says_where_to_look(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rootlink.engine.functions.processes._PROGRAM", Path("/nonexistent/zygote.py"))
    with pytest.raises(Unavailable, match="the engine's log says why"):
        await stage.deploy("() => 1")
    monkeypatch.undo()
    assert await stage.output("() => 1") == 1


async def test_five_hundred_calls_may_wait_at_once(stage: Stage) -> None:
    await stage.deploy("async (n) => { await new Promise((done) => setTimeout(done, 300)); return n }")
    await stage.host.invoke("main", "f", 0)
    worker = max(processes()[1:], key=lambda process: process.num_threads())
    threads = worker.num_threads()
    begun = time.perf_counter()
    runs = await asyncio.gather(*(stage.host.invoke("main", "f", n) for n in range(500)))
    assert [run.output for run in runs] == list(range(500))
    assert time.perf_counter() - begun < 5
    assert worker.num_threads() <= threads + 4
