"""The processes an engine has its bodies run in: one zygote, which forks, and workers, which run.

A worker is a stream of frames (`isolates/frames.py`) and a pidfd. When the stream ends, for whatever reason, every call in it is
over and the process is killed; the engine goes on. A worker that says what no honest one can is distrusted: its stream is ended.
The event loop takes what it says in slices of `SLICE_SECS`.

All of it ends with the engine, even one killed by force: the zygote sees the end of its control socket, and the kernel kills the
workers when the zygote ends.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final, cast

import msgspec
import structlog

from rootlink.engine.functions.call import Call
from rootlink.engine.functions.definition import Held
from rootlink.engine.functions.isolates.frames import (
    HEADER,
    MAX_EVENTS,
    MAX_FRAME_BACK,
    Ending,
    FromWorker,
    ToWorker,
    WorkerLimits,
    pack,
)
from rootlink.engine.functions.run import Outcome, failed
from rootlink.errors import Unavailable

START_SECS: Final = 30.0  # V8's first load from a cold disk takes seconds
FORK_SECS: Final = 10.0
ACKNOWLEDGE_SECS: Final = 2.0  # for a worker to answer a cancel; then it is taken for hung
DRAIN_SECS: Final = 2.0  # for the calls left in a wedged worker
BLAME_SECS: Final = 5.0
SLICE_SECS: Final = 0.01  # of the event loop, for what one worker says; then others have their turn
MAX_CPU_MICROSECONDS: Final = 10**12  # what a worker says is not believed beyond it
EVENTS_A_CALL: Final = 4096  # operations, their cancels and log lines of one call are fewer (`WorkerLimits`)
EVENTS_AN_ANSWER: Final = 8  # more, for each answer: of a streamed body every piece is asked for
CALLS_AHEAD: Final = 64  # calls that are over for the engine and may still be heard of
MAX_UNSENT: Final = 256 << 20  # bytes on their way to a worker that does not read them
_PROGRAM: Final = Path(__file__).parent / "isolates" / "zygote.py"
_PID: Final = struct.Struct("<I")

log = structlog.get_logger(__name__)

OnEnd = Callable[["Worker", set[int]], None]

LOST = "the isolate's process ended while this run was in it; the run was not repeated, what it did before may have had effect"


class Zygote:
    """Make one with `Zygote.start()`."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process, self._control = process, control
        self._turn = asyncio.Lock()
        self.pid = process.pid

    @classmethod
    async def start(cls) -> Zygote:
        """Raises Unavailable when V8 does not come up."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(_PROGRAM),
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                env={"MALLOC_ARENA_MAX": "2"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        zygote = cls(process, ours)
        try:
            await zygote._receive(START_SECS)
        except BaseException as error:
            words = await zygote.close()
            if not isinstance(error, (OSError, EOFError, TimeoutError)):
                raise
            log.error("zygote did not start", stderr=words[-2000:])
            raise Unavailable("functions can't run now: V8 did not start; the engine's log says why") from error
        return zygote

    async def fork(self, limits: bytes) -> tuple[socket.socket, int]:
        """A new worker: our end of its socket, and its pidfd. Raises OSError, EOFError, TimeoutError when the zygote is gone."""
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            async with self._turn:
                socket.send_fds(self._control, [limits], [theirs.fileno()])
                _, descriptors = await self._receive(FORK_SECS)
            if not descriptors:
                raise EOFError("the worker ended at once")
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours, descriptors[0]

    async def _receive(self, timeout: float) -> tuple[bytes, list[int]]:
        async with asyncio.timeout(timeout):
            await _readable(self._control)
        message, descriptors, _, _ = socket.recv_fds(self._control, 64, 1)
        if not message:
            raise EOFError("the zygote ended")
        return message, descriptors

    async def close(self) -> str:
        """End it. Returns what it wrote to stderr."""
        self._control.close()
        overdue = asyncio.get_running_loop().call_later(ACKNOWLEDGE_SECS, self._process.kill)
        _, words = await self._process.communicate()
        overdue.cancel()
        return words.decode("utf-8", "replace")


async def _readable(sock: socket.socket | int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, wake)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


class Worker(asyncio.Protocol):
    """One worker process and the calls in it.

    `on_end(worker, blamed)` is called once, when it may get no more work; `blamed` are the functions that may be why.
    """

    def __init__(self, pidfd: int, on_end: OnEnd) -> None:
        self._pidfd: int | None = pidfd
        self._exits = select.poll()
        self._exits.register(pidfd, select.POLLIN)
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._loop = asyncio.get_running_loop()
        self._defined: set[int] = set()
        self._calls: dict[int, tuple[Held, Call]] = {}
        self._checks: dict[int, asyncio.Future[str]] = {}
        self._unacknowledged: dict[int, asyncio.TimerHandle] = {}
        self._draining: asyncio.TimerHandle | None = None
        self._stopped: dict[int, float] = {}  # function → when one of its isolates had to be stopped
        self._verdicts: dict[int, Outcome] = {}  # call → its outcome, once the worker has ended it
        self._allowance = 0  # events and frames it may still send
        self._pump: asyncio.Handle | None = None
        self._frames: dict[int, Callable[[int, int, bytes], None]] = {
            FromWorker.DEFINED: self._checked,
            FromWorker.EVENTS: self._events,
            FromWorker.ENDED: self._ended,
            FromWorker.RETIRE: self._retire,
            FromWorker.SPENT: self._spent,
            FromWorker.REPLACE: lambda *_: self.retire(),
        }
        self.retired = False

    @classmethod
    async def fork(cls, zygote: Zygote, limits: WorkerLimits, on_end: OnEnd) -> Worker:
        sock, pidfd = await zygote.fork(msgspec.json.encode(asdict(limits)))
        worker = cls(pidfd, on_end)
        await asyncio.get_running_loop().create_connection(lambda: worker, sock=sock)
        return worker

    # what the pool asks of it

    async def check(self, held: Held) -> str:
        """Compile a source without running it: V8's complaint, empty when there is none. Raises EOFError when the worker ends."""
        answer: asyncio.Future[str] = self._loop.create_future()
        self._checks[held.handle] = answer
        self._allow(EVENTS_A_CALL)
        self._define(held, check=True)
        try:
            return await answer
        finally:
            del self._checks[held.handle]

    def start(self, number: int, held: Held, call: Call, payload: bytes | None) -> None:
        """Begin a call; its outcome comes by itself. `payload` None: a probe."""
        if held.handle not in self._defined:
            self._define(held, check=False)
        self._allow(EVENTS_A_CALL)
        self._calls[number] = held, call
        call.deliver = lambda operation, answer: self._deliver(held.handle, number, operation, answer)
        self._send(ToWorker.PROBE if payload is None else ToWorker.INVOKE, held.handle, number, payload or b"")

    def finish(self, number: int) -> None:
        """The call is over for the engine. A worker without calls that may get no more is ended."""
        self._calls.pop(number, None)
        self._verdicts.pop(number, None)
        if self.retired and not self._calls:
            self.kill()

    def cancel(self, number: int, verdict: Outcome | None = None) -> None:
        """Stop a call; if the worker does not say so soon, it hangs and is killed. `verdict`: its outcome then."""
        if verdict is not None:
            self._verdicts[number] = verdict
        if number in self._calls and number not in self._unacknowledged:
            self._unacknowledged[number] = self._loop.call_later(ACKNOWLEDGE_SECS, self.kill)
            self._send(ToWorker.CANCEL, self._calls[number][0].handle, number)

    def forget(self, handle: int) -> None:
        if handle in self._defined:
            self._defined.discard(handle)
            self._send(ToWorker.FORGET, handle)

    def retire(self) -> None:
        """It gets no more work, and ends with its last call."""
        if not self.retired:
            self._end(set())
        if not self._calls and not self._checks:
            self.kill()

    @property
    def congested(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() > MAX_UNSENT

    @property
    def alive(self) -> bool:
        """Asked of the kernel: the end of its socket may not have been read yet."""
        return self._pidfd is not None and not self._exits.poll(0)

    def give_up(self) -> None:
        """It was found dead: no more work for it, before the end of its stream says so."""
        if not self.retired:
            self._end(self._blamed())

    def kill(self) -> None:
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def abandon(self, name: str, message: str) -> None:
        """End it with every call in it, which fail with these words."""
        self._settle_all(failed(name, message, status="killed"))
        self.kill()

    async def ended(self) -> None:
        """Returns when its process is gone. To be awaited once, from the start on."""
        assert self._pidfd is not None
        await _readable(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = None

    def _settle_all(self, outcome: Outcome) -> None:
        for _, call in self._calls.values():
            call.settle(outcome)

    # frames

    def _define(self, held: Held, *, check: bool) -> None:
        self._defined.add(held.handle)
        self._send(ToWorker.DEFINE, held.handle, 0, msgspec.json.encode(asdict(held.definition(check=check))))

    def _deliver(self, handle: int, number: int, operation: int, answer: bytes) -> None:
        if number in self._calls:
            self._allow(EVENTS_AN_ANSWER)
            self._send(ToWorker.DELIVER, handle, number, b"%d %s" % (operation, answer))

    def _send(self, kind: ToWorker, function: int, call: int = 0, body: bytes = b"") -> None:
        if self._transport is not None:
            self._transport.write(pack(kind, function, call, body))
            if self.congested:
                self._distrust("it does not read")

    def _allow(self, events: int) -> None:
        self._allowance = min(self._allowance + events, EVENTS_A_CALL * (len(self._calls) + CALLS_AHEAD))

    def _checked(self, function: int, call: int, body: bytes) -> None:
        answer = self._checks.get(function)
        if answer is not None and not answer.done():
            answer.set_result(body.decode("utf-8", "replace"))

    def _events(self, function: int, call: int, body: bytes) -> None:
        large = len(body) > MAX_EVENTS
        if large and body.find(b"\n") not in (-1, len(body) - 1):
            raise ValueError("too many events in a frame")
        lines = [body] if large else body.split(b"\n")
        self._allowance -= len(lines)
        for line in lines:
            if not line:
                continue
            space = line.find(b" ")
            found = self._calls.get(int(line[:space]))
            if found is not None and found[0].handle == function:  # a function speaks for its own calls only
                found[1].take(memoryview(line)[space + 1 :])

    def _ended(self, function: int, call: int, body: bytes) -> None:
        acknowledged = self._unacknowledged.pop(call, None)
        if acknowledged is not None:
            acknowledged.cancel()
        ending = Ending(body.decode())
        found = self._calls.get(call)
        known = found is not None and found[0].handle == function
        if ending is Ending.STOPPED and (known or function in self._defined):
            self._stopped[function] = self._loop.time()
        if found is not None and known:
            found[1].settle(self._verdicts.get(call) or outcome_of(ending, found[0]))

    def _spent(self, function: int, call: int, body: bytes) -> None:
        found = self._calls.get(call)
        if found is not None and found[0].handle == function:
            found[1].cpu_ms = min(max(int(body), 0), MAX_CPU_MICROSECONDS) / 1000

    def _retire(self, function: int, call: int, body: bytes) -> None:
        if not self.retired:
            self._end({function} & self._defined)
            self._draining = self._loop.call_later(DRAIN_SECS if self._calls or self._checks else 0, self.kill)

    def _blamed(self) -> set[int]:
        """Whose fault the end of the process may be: an isolate just stopped and not gone yet, else whatever was in flight."""
        since = self._loop.time() - BLAME_SECS
        stopped = {function for function, time in self._stopped.items() if time >= since}
        return stopped or {held.handle for held, _ in self._calls.values()} | set(self._checks)

    def _end(self, blamed: set[int]) -> None:
        self.retired = True
        self._on_end(self, blamed)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._pump is None:
            self._take_frames()

    def _take_frames(self) -> None:
        """Frame by frame; when that takes long the rest follows in the loop's next turn, and nothing is read until then."""
        self._pump = None
        until = time.perf_counter() + SLICE_SECS
        while (transport := self._open) is not None and self._take_frame():
            if time.perf_counter() > until:
                transport.pause_reading()
                self._pump = self._loop.call_soon(self._go_on)
                return

    def _go_on(self) -> None:
        self._take_frames()
        if self._pump is None and self._open is not None:
            self._open.resume_reading()

    @property
    def _open(self) -> asyncio.Transport | None:
        """Its stream, unless that has ended or is distrusted."""
        return None if self._transport is None or self._transport.is_closing() else self._transport

    def _take_frame(self) -> bool:
        """The first frame of the buffer, if it is there whole."""
        buffer = self._buffer
        if len(buffer) < HEADER.size:
            return False
        length, kind, function, call = HEADER.unpack_from(buffer)
        if length > MAX_FRAME_BACK or kind not in self._frames:
            self._distrust(f"frame of kind {kind}, {length} bytes")
            return False
        end = HEADER.size + length
        if len(buffer) < end:
            return False
        with memoryview(buffer) as view:
            body = bytes(view[HEADER.size : end])
        del buffer[:end]
        self._allowance -= 1
        try:
            self._frames[kind](function, call, body)
        except ValueError as error:
            self._distrust(type(error).__name__)
            return False
        if self._allowance < 0:
            self._distrust("more than all its calls together may say")
            return False
        return True

    def _distrust(self, why: str) -> None:
        log.warning("worker spoke nonsense", why=why)
        self._buffer.clear()
        self.kill()
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._pump is not None:
            self._pump.cancel()
        self.kill()
        for timer in (*self._unacknowledged.values(), *([self._draining] if self._draining else [])):
            timer.cancel()
        self.give_up()
        self._settle_all(failed("WorkerLost", LOST, status="killed"))
        for answer in self._checks.values():
            if not answer.done():
                answer.set_exception(EOFError())


def outcome_of(ending: Ending, held: Held) -> Outcome:
    """What an isolate's end means for a call that was in it."""
    name, message = {
        Ending.CANCELLED: ("Cancelled", "the run was cancelled"),
        Ending.STOPPED: ("Cancelled", "the run was cancelled"),
        Ending.CPU: ("CpuLimitError", f"the function used {held.cpu:g} s of CPU without a pause"),
        Ending.HEAP: ("MemoryLimitError", f"the function used more than its {held.memory_mb} MB of memory"),
        Ending.MEMORY: ("MemoryLimitError", "all functions together used too much memory, and this one had grown most"),
        Ending.LARGE: ("LimitError", f"a run of this function sent more than {MAX_FRAME_BACK >> 20} MiB in one piece"),
        Ending.NEIGHBOUR: ("WorkerLost", "another run of this function did not stop when told, and took this one with it"),
        Ending.BROKEN: ("WorkerLost", "the isolate of this run broke down; the run was not repeated"),
    }[ending]
    return failed(name, message, status="timeout" if ending is Ending.CPU else "killed")
