"""The protocol between engine and worker: a process that ends at any step of it, and one that says what no honest one would.

Ended: the call that was in it fails as `killed`, nothing hangs, the next call works. Lying: the worker is distrusted and ended, and
the engine keeps nothing of what it said.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from rootlink.engine.functions.call import Call
from rootlink.engine.functions.definition import Held
from rootlink.engine.functions.host import Run
from rootlink.engine.functions.isolates.frames import HEADER, MAX_EVENTS, MAX_FRAME_BACK, FromWorker, pack
from rootlink.engine.functions.operations import Deliver, Operations
from rootlink.engine.functions.processes import EVENTS_A_CALL, MAX_CPU_MICROSECONDS, SLICE_SECS, Worker
from rootlink.wire.mounts import FunctionSpec
from tests.functions.ground import Answer, Asked, Stage, end, processes
from tests.functions.workers import pid_of, worker_of

NEXT = "() => 'works'"
Killing = Callable[[Stage], Awaitable[list[Run]]]
"""Brings a worker to a step of the protocol, kills it there, and returns the runs that were in it."""

STEPS: dict[str, Killing] = {}


def step(killing: Killing) -> Killing:
    STEPS[killing.__name__.replace("_", " ")] = killing
    return killing


async def kill(pid: int) -> None:
    await asyncio.to_thread(end, [psutil.Process(pid)])


def hold(stage: Stage) -> int:
    """Stop the worker in use, so that what is sent to it next stays unread."""
    pid = pid_of(worker_of(stage.host))
    os.kill(pid, signal.SIGSTOP)
    return pid


def invoked(stage: Stage, name: str = "f", input: object = None) -> asyncio.Task[Run]:
    return asyncio.create_task(stage.host.invoke("main", name, input))


@step
async def while_it_is_forked(stage: Stage) -> list[Run]:
    zygote = processes()[0].pid
    os.kill(zygote, signal.SIGSTOP)
    await asyncio.to_thread(end, processes()[1:])
    call = invoked(stage, "next")
    await asyncio.sleep(0.1)
    await kill(zygote)
    assert (await call).status in ("ok", "killed")
    return []


@step
async def after_define(stage: Stage) -> list[Run]:
    await stage.deploy(NEXT)
    await asyncio.to_thread(end, processes()[1:])
    await stage.host.invoke("main", "f", None)  # in a worker that the function is new to
    pid = hold(stage)
    deploy = asyncio.create_task(stage.deploy(NEXT))
    await asyncio.sleep(0.05)
    call = invoked(stage, "f")
    await asyncio.sleep(0.05)
    await kill(pid)
    await deploy
    return [await call]


@step
async def while_a_source_is_checked(stage: Stage) -> list[Run]:
    pid = hold(stage)
    deploy = asyncio.create_task(stage.deploy("() => 3"))
    await asyncio.sleep(0.05)
    await kill(pid)
    await deploy  # compiling has no effect, so it is repeated
    assert (await stage.host.invoke("main", "f", None)).output == 3
    return []


@step
async def before_the_first_drain(stage: Stage) -> list[Run]:
    await stage.deploy("async () => { await null; return 1 }")
    pid = hold(stage)
    call = invoked(stage)
    await asyncio.sleep(0.05)
    await kill(pid)
    return [await call]


@step
async def while_the_body_computes(stage: Stage) -> list[Run]:
    await stage.deploy("() => { while (true); }")
    call = invoked(stage)
    await asyncio.sleep(0.1)
    await kill(pid_of(worker_of(stage.host)))
    return [await call]


@step
async def while_an_operation_is_awaited(stage: Stage) -> list[Run]:
    asked, given_up = asyncio.Event(), asyncio.Event()

    async def never(_: Asked) -> Answer:
        asked.set()
        try:
            await asyncio.sleep(60)
        finally:
            given_up.set()
        return Answer()

    stage.out.network = never
    await stage.deploy("async () => { await fetch('https://api.example/') }")
    call = invoked(stage)
    await asked.wait()
    await kill(pid_of(worker_of(stage.host)))
    run = await call
    assert given_up.is_set()
    return [run]


@step
async def while_an_answer_is_delivered(stage: Stage) -> list[Run]:
    asked, go = asyncio.Event(), asyncio.Event()

    async def later(_: Asked) -> Answer:
        asked.set()
        await go.wait()
        return Answer(body=b"x" * (3 << 20))

    stage.out.network = later
    await stage.deploy("async () => (await (await fetch('https://api.example/')).text()).length")
    call = invoked(stage)
    await asked.wait()
    pid = hold(stage)
    go.set()
    await asyncio.sleep(0.1)
    await kill(pid)
    return [await call]


@step
async def while_a_call_is_cancelled(stage: Stage) -> list[Run]:
    await stage.deploy("async () => { await new Promise(() => {}) }")
    cancelled, other = invoked(stage), invoked(stage)
    await asyncio.sleep(0.1)
    pid = hold(stage)
    cancelled.cancel()
    await asyncio.sleep(0.05)
    await kill(pid)
    await asyncio.gather(cancelled, return_exceptions=True)
    assert [run.status for run in stage.host.runs("main", "f")] == ["killed", "killed"]
    return [await other]


@step
async def while_it_stays_silent_about_a_cancel(stage: Stage) -> list[Run]:
    """Nobody kills it but the engine itself."""
    await stage.deploy("async () => { await new Promise(() => {}) }")
    cancelled, other = invoked(stage), invoked(stage)
    await asyncio.sleep(0.1)
    hold(stage)
    cancelled.cancel()
    return [await other]


@step
async def while_it_retires(stage: Stage) -> list[Run]:
    await stage.deploy("async () => { await new Promise(() => {}) }", "other")
    other = invoked(stage, "other")
    await stage.deploy("() => new Array(2 ** 32 - 1).fill(0)", timeout_ms=200)
    worker = worker_of(stage.host)
    call = invoked(stage)
    while not worker.retired:
        await asyncio.sleep(0.02)
    await kill(pid_of(worker))
    assert (await call).status == "timeout"
    return [await other]


@step
async def with_a_fresh_call_in_line(stage: Stage) -> list[Run]:
    await stage.deploy("async () => { await new Promise(() => {}) }", isolation="fresh")
    calls = [invoked(stage) for _ in range(20)]
    await asyncio.sleep(0.03)
    await kill(pid_of(worker_of(stage.host)))
    return list(await asyncio.gather(*calls))


@step
async def when_it_is_the_spare(stage: Stage) -> list[Run]:
    await stage.deploy("async () => { await new Promise((done) => setTimeout(done, 300)); return 1 }")
    call = invoked(stage)
    used = pid_of(worker_of(stage.host))
    while len(processes()) < 3:
        await asyncio.sleep(0.02)
    await asyncio.to_thread(end, [process for process in processes()[1:] if process.pid != used])
    assert (await call).output == 1
    await kill(used)
    return []


@step
async def with_its_zygote(stage: Stage) -> list[Run]:
    await stage.deploy("async () => { await new Promise(() => {}) }")
    call = invoked(stage)
    await asyncio.sleep(0.1)
    zygote, *workers = processes()
    await kill(zygote.pid)
    await asyncio.to_thread(psutil.wait_procs, workers, 10)
    return [await call]


@step
async def with_a_zygote_that_died_before(stage: Stage) -> list[Run]:
    zygote, *workers = processes()
    await kill(zygote.pid)
    await asyncio.to_thread(psutil.wait_procs, workers, 10)
    return []


@pytest.mark.parametrize("killing", STEPS.values(), ids=STEPS.keys())
async def test_a_worker_killed_at_any_step_costs_the_calls_in_it_and_no_more(stage: Stage, killing: Killing) -> None:
    await stage.deploy(NEXT, "next")
    async with asyncio.timeout(20):
        lost = await killing(stage)
        assert all(run.status == "killed" and run.error and run.error["name"] == "WorkerLost" for run in lost), lost
        for _ in range(3):
            run = await stage.host.invoke("main", "next", None)
            assert run.output == "works", run.error


async def test_a_redeploy_costs_none_of_fifty_calls(stage: Stage) -> None:
    code = "async (ms) => {{ await new Promise((done) => setTimeout(done, ms)); return {} }}"
    await stage.deploy(code.format(0))
    calls = []
    for version in range(1, 6):
        calls.append([invoked(stage, "f", 100 + n) for n in range(10)])
        await asyncio.sleep(0)
        await stage.deploy(code.format(version))
    for version, batch in enumerate(calls):
        assert [run.output for run in await asyncio.gather(*batch)] == [version] * 10
    assert (await stage.host.invoke("main", "f", 1)).output == 5


# what a worker may say


class Line(asyncio.Transport):
    """The engine's end of a worker's socket."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.aborted = self.paused = False
        self.unsent = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return self.unsent


@dataclass
class Asks:
    """Operations that a call asked for, as Operations would take them."""

    taken: list[object] = field(default_factory=list)

    def take(self, operation: object, size: int) -> None:
        self.taken.append(operation)

    async def close(self) -> None:
        return None


@dataclass
class Liar:
    """A worker of two functions, 1 and 2, with a call in each: 11 and 22."""

    process: subprocess.Popen[bytes]
    worker: Worker
    line: Line
    calls: dict[int, Call]
    blamed: list[set[int]]
    asks: Asks

    def says(self, *frames: bytes) -> None:
        self.worker.data_received(b"".join(frames))

    async def heard(self) -> None:
        """Returns when all it said was taken, or its stream was ended."""
        while self.line.paused and not self.line.aborted:
            await asyncio.sleep(0)

    @property
    def distrusted(self) -> bool:
        """Its stream is ended, and so is the process."""
        return self.line.aborted and self.process.wait(5) == -signal.SIGKILL


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


@pytest.fixture
async def liar(victim: subprocess.Popen[bytes]) -> AsyncIterator[Liar]:
    blamed: list[set[int]] = []
    pidfd = os.pidfd_open(victim.pid)
    worker, line, asks = Worker(pidfd, lambda _, why: blamed.append(why)), Line(), Asks()
    worker.connection_made(line)

    def operations(_: Deliver) -> Operations:
        return asks  # type: ignore[return-value]

    calls = {11: Call(operations), 22: Call(operations)}
    for handle, (number, call) in enumerate(calls.items(), start=1):
        spec = FunctionSpec(name=f"f{handle}", code=NEXT)
        worker.start(number, Held(handle, "main", spec, NEXT, 1, None, ""), call, b"{}")
    yield Liar(victim, worker, line, calls, blamed, asks)
    worker.connection_lost(None)
    os.close(pidfd)


def event(call: int, json: str) -> bytes:
    return f"{call} {json}\n".encode()


DONE = '{"k":"done","v":1}'
TIMER = '{"k":"timer","i":1,"ms":1}'
LIES = {
    "a kind that is none": pack(9),
    "a kind of the other direction": HEADER.pack(0, 0, 1, 11),
    "a frame without end": HEADER.pack(2**32 - 1, FromWorker.EVENTS, 1, 11),
    "a frame just too large": HEADER.pack(MAX_FRAME_BACK + 1, FromWorker.EVENTS, 1, 11),
    "an event without a call": pack(FromWorker.EVENTS, 1, 0, b"what\n"),
    "a call that is no number": pack(FromWorker.EVENTS, 1, 0, b"eleven {}\n"),
    "a call of a million digits": pack(FromWorker.EVENTS, 1, 0, b"1" * 1_000_000 + b" {}\n"),
    "too many events in a frame": pack(FromWorker.EVENTS, 1, 0, event(99, TIMER) * (MAX_EVENTS // 20)),
    "an ending that is none": pack(FromWorker.ENDED, 1, 11, b"happily"),
    "an ending that is no text": pack(FromWorker.ENDED, 1, 11, b"\xff\xfe"),
    "CPU that is no number": pack(FromWorker.SPENT, 1, 11, b"much"),
    "CPU of a million digits": pack(FromWorker.SPENT, 1, 11, b"9" * 1_000_000),
}
FLOODS = {
    "events of another function's call": pack(FromWorker.EVENTS, 1, 0, event(22, TIMER)),
    "events of no call": pack(FromWorker.EVENTS, 7, 0, event(77, DONE)),
    "events of its own call": pack(FromWorker.EVENTS, 1, 0, event(11, '{"k":"log","l":"log","t":"x","at":0}')),
    "empty events": pack(FromWorker.EVENTS, 1, 0, b"\n"),
    "CPU of another function's call": pack(FromWorker.SPENT, 1, 22, b"1"),
    "endings of no call": pack(FromWorker.ENDED, 1, 77, b"cancelled"),
    "outcomes of checks nobody asked for": pack(FromWorker.DEFINED, 77, 0, b"no"),
}


@pytest.mark.parametrize("said", LIES.values(), ids=LIES.keys())
async def test_a_worker_that_says_what_no_honest_one_does_is_ended(liar: Liar, said: bytes) -> None:
    liar.says(said)
    assert liar.distrusted
    liar.says(pack(FromWorker.EVENTS, 1, 0, event(11, DONE)))  # what is still on its way is not believed
    liar.worker.connection_lost(None)
    assert liar.blamed == [{1, 2}]
    for call in liar.calls.values():
        outcome = await call.outcome
        assert outcome.error is not None
        assert (outcome.status, outcome.error["name"]) == ("killed", "WorkerLost")


@pytest.mark.parametrize("said", FLOODS.values(), ids=FLOODS.keys())
async def test_a_worker_that_floods_is_ended_and_the_engine_goes_on_meanwhile(liar: Liar, said: bytes) -> None:
    flood = said * 4096
    for _ in range(200):
        begun = time.perf_counter()
        liar.says(flood)
        assert time.perf_counter() - begun < SLICE_SECS * 10
        if liar.line.aborted:
            break
        await liar.heard()
    assert liar.distrusted
    assert liar.asks.taken == []
    assert len(liar.calls[11].logs) <= 1001
    assert liar.calls[22].cpu_ms == 0


async def test_a_function_speaks_for_its_own_calls_only(liar: Liar) -> None:
    liar.says(
        pack(FromWorker.EVENTS, 1, 0, event(22, DONE)),
        pack(FromWorker.SPENT, 1, 22, b"5000"),
        pack(FromWorker.ENDED, 1, 22, b"cancelled"),
        pack(FromWorker.RETIRE, 12345),
    )
    assert not liar.calls[22].outcome.done()
    assert liar.calls[22].cpu_ms == 0
    assert liar.blamed == [set()]  # a worker may give itself up, and blame no function that it does not have


async def test_an_honest_call_may_say_all_it_is_allowed_to(liar: Liar) -> None:
    for number in range(1, 1001):
        operation = f'{{"k":"timer","i":{number},"ms":1}}'
        log = '{"k":"log","l":"log","t":"' + "x" * 200 + '","at":0}'
        liar.says(
            pack(FromWorker.EVENTS, 1, 0, event(11, operation) + event(11, log) + event(11, f'{{"k":"cancel","i":{number}}}'))
        )
        await liar.heard()
    liar.says(pack(FromWorker.SPENT, 1, 11, b"7000"), pack(FromWorker.EVENTS, 1, 0, event(11, '{"k":"done","v":[1]}')))
    await liar.heard()
    outcome = await liar.calls[11].outcome
    assert (outcome.status, outcome.output, liar.calls[11].cpu_ms) == ("ok", [1], 7.0)
    assert len(liar.asks.taken) == 2000
    assert len(liar.calls[11].logs) == 1000
    assert not liar.line.aborted


async def test_a_call_may_ask_again_for_every_answer_it_gets(liar: Liar) -> None:
    for _ in range(20_000):  # the pieces of a streamed body
        liar.says(pack(FromWorker.EVENTS, 1, 0, event(11, TIMER)))
        liar.calls[11].deliver(1, b"{}")
        await liar.heard()
    assert len(liar.asks.taken) == 20_000
    assert not liar.line.aborted


@pytest.mark.parametrize(("said", "believed"), [(b"-5", 0.0), (b"1500", 1.5), (b"9" * 30, MAX_CPU_MICROSECONDS / 1000)])
async def test_cpu_is_believed_within_reason(liar: Liar, said: bytes, believed: float) -> None:
    liar.says(pack(FromWorker.SPENT, 1, 11, said))
    assert liar.calls[11].cpu_ms == believed


@pytest.mark.parametrize("size", [1, 7, 21, 1000])
async def test_frames_may_come_in_any_pieces(liar: Liar, size: int) -> None:
    said = (
        pack(FromWorker.SPENT, 2, 22, b"9000")
        + pack(FromWorker.EVENTS, 2, 0, event(22, DONE))
        + pack(FromWorker.SPENT, 1, 11, b"1000")
    )
    for start in range(0, len(said), size):
        liar.says(said[start : start + size])
    assert (await liar.calls[22].outcome).output == 1
    assert (liar.calls[22].cpu_ms, liar.calls[11].cpu_ms) == (9.0, 1.0)


async def test_more_bytes_than_a_call_may_send_end_the_worker(liar: Liar) -> None:
    body = "x" * (MAX_FRAME_BACK - 200)
    large = pack(FromWorker.EVENTS, 1, 0, event(11, f'{{"k":"log","l":"log","t":"{body}","at":0}}'))
    for _ in range(8):
        liar.says(large)
        await liar.heard()
    assert liar.distrusted
    assert liar.calls[11].logs == []


async def test_a_worker_that_does_not_read_is_ended(liar: Liar) -> None:
    liar.line.unsent = 1 << 30
    assert liar.worker.congested
    liar.worker.cancel(11)
    assert liar.distrusted


async def test_calls_that_come_and_go_leave_no_room_for_a_flood(liar: Liar) -> None:
    held = Held(3, "main", FunctionSpec(name="f3", code=NEXT), NEXT, 1, None, "")
    for number in range(1000, 3000):
        liar.worker.start(number, held, Call(), b"{}")
        liar.worker.finish(number)
    flood = pack(FromWorker.EVENTS, 3, 0, event(77, TIMER))
    sent = 0
    while not liar.line.aborted:
        liar.says(flood * 1000)
        sent += 1000
        await liar.heard()
    assert sent < EVENTS_A_CALL * 80
