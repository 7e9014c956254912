"""The processes an engine has its bodies run in: one zygote, which forks, and workers, which run.

A worker is a stream of frames (`isolates/frames.py`) and a pidfd. When the stream ends, for whatever reason, every call in it is
over and the process is killed; the engine goes on. All of it ends with the engine, even one killed by force: the zygote sees the
end of its control socket, and the kernel kills the workers when the zygote ends.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final, cast

import msgspec
import structlog

from rootlink.engine.functions.call import Call
from rootlink.engine.functions.definition import Held
from rootlink.engine.functions.isolates.frames import HEADER, MAX_FRAME, Ending, FromWorker, ToWorker, WorkerLimits, pack
from rootlink.engine.functions.run import Outcome, failed
from rootlink.errors import Unavailable

START_SECS: Final = 30.0  # V8's first load from a cold disk takes seconds
FORK_SECS: Final = 10.0
ACKNOWLEDGE_SECS: Final = 2.0  # for a worker to answer a cancel; then it is taken for hung
DRAIN_SECS: Final = 2.0  # for the calls left in a wedged worker
BLAME_SECS: Final = 5.0
MAX_CPU_MICROSECONDS: Final = 10**12  # what a worker says is not believed beyond it
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
        self._frames: dict[int, Callable[[int, int, bytes], None]] = {
            FromWorker.DEFINED: self._checked,
            FromWorker.EVENTS: self._events,
            FromWorker.ENDED: self._ended,
            FromWorker.RETIRE: self._retire,
            FromWorker.SPENT: self._spent,
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
        self._define(held, check=True)
        try:
            return await answer
        finally:
            del self._checks[held.handle]

    def start(self, number: int, held: Held, call: Call, payload: bytes | None) -> None:
        """Begin a call; its outcome comes by itself. `payload` None: a probe."""
        if held.handle not in self._defined:
            self._define(held, check=False)
        self._calls[number] = held, call
        call.deliver = lambda operation, answer: self._deliver(held.handle, number, operation, answer)
        self._send(ToWorker.PROBE if payload is None else ToWorker.INVOKE, held.handle, number, payload or b"")

    def finish(self, number: int) -> None:
        """The call is over for the engine. A worker without calls that may get no more is ended."""
        self._calls.pop(number, None)
        if self.retired and not self._calls:
            self.kill()

    def cancel(self, number: int) -> None:
        """Stop a call whose outcome is known; if the worker does not say so soon, it hangs and is killed."""
        if number in self._calls and number not in self._unacknowledged:
            self._unacknowledged[number] = self._loop.call_later(ACKNOWLEDGE_SECS, self.kill)
            self._send(ToWorker.CANCEL, self._calls[number][0].handle, number)

    def forget(self, handle: int) -> None:
        if handle in self._defined:
            self._defined.discard(handle)
            self._send(ToWorker.FORGET, handle)

    @property
    def alive(self) -> bool:
        """Asked of the kernel: the end of its socket may not have been read yet."""
        return self._pidfd is not None and not select.select([self._pidfd], [], [], 0)[0]

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
            self._send(ToWorker.DELIVER, handle, number, b"%d %s" % (operation, answer))

    def _send(self, kind: ToWorker, function: int, call: int = 0, body: bytes = b"") -> None:
        if self._transport is not None:
            self._transport.write(pack(kind, function, call, body))

    def _checked(self, function: int, call: int, body: bytes) -> None:
        answer = self._checks.get(function)
        if answer is not None and not answer.done():
            answer.set_result(body.decode("utf-8", "replace"))

    def _events(self, function: int, call: int, body: bytes) -> None:
        for line in body.splitlines():
            number, _, event = line.partition(b" ")
            found = self._calls.get(int(number))
            if found is not None and found[0].handle == function:  # a function speaks for its own calls only
                found[1].take(event)

    def _ended(self, function: int, call: int, body: bytes) -> None:
        acknowledged = self._unacknowledged.pop(call, None)
        if acknowledged is not None:
            acknowledged.cancel()
        ending = Ending(body.decode())
        if ending is Ending.STOPPED:
            self._stopped[function] = self._loop.time()
        found = self._calls.get(call)
        if found is not None and found[0].handle == function:
            found[1].settle(outcome_of(ending, found[0]))

    def _spent(self, function: int, call: int, body: bytes) -> None:
        found = self._calls.get(call)
        if found is not None and found[0].handle == function:
            found[1].cpu_ms = min(int(body), MAX_CPU_MICROSECONDS) / 1000

    def _retire(self, function: int, call: int, body: bytes) -> None:
        if not self.retired:
            self._end({function} if function else set())
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
        buffer = self._buffer
        buffer += data
        while len(buffer) >= HEADER.size:
            length, kind, function, call = HEADER.unpack_from(buffer)
            end = HEADER.size + length
            if length > MAX_FRAME or kind not in self._frames:
                self._distrust(f"frame of kind {kind}, {length} bytes")
                return
            if len(buffer) < end:
                return
            body = bytes(buffer[HEADER.size : end])
            del buffer[:end]
            try:
                self._frames[kind](function, call, body)
            except ValueError as error:
                self._distrust(type(error).__name__)
                return

    def _distrust(self, why: str) -> None:
        log.warning("worker spoke nonsense", why=why)
        self.kill()
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.kill()
        for timer in (*self._unacknowledged.values(), *([self._draining] if self._draining else [])):
            timer.cancel()
        if not self.retired:
            self._end(self._blamed())
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
        Ending.NEIGHBOUR: ("WorkerLost", "another run of this function did not stop when told, and took this one with it"),
        Ending.BROKEN: ("WorkerLost", "the isolate of this run broke down; the run was not repeated"),
    }[ending]
    return failed(name, message, status="timeout" if ending is Ending.CPU else "killed")
