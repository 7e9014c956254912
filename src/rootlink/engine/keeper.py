"""The engine's side of its keeper: the process outside all doors that starts what the engine may not start itself.

    spawn ─► pipes, a door's listeners, and a process as asyncio shows one (`Process`)          (door/keeper.py is the other side)
    listen, signal
    ◄ exited: the process, and everything below it, is gone

Rules
- Numbers are ours: one is a process's id here, its door's number, and never used again.
- A spawn that nobody waits for any more is killed as soon as it exists; its descriptors are closed.
- The keeper's end is ours: every process is then told as killed, and `gone` is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from rootlink.door.channel import Channel
from rootlink.engine.doors import Opened
from rootlink.errors import RootlinkError, TooLarge, Unavailable, from_code
from rootlink.wire.gate import Listener

log = structlog.get_logger(__name__)
FD = 3  # where an engine behind a door finds its keeper
MOST_TEXTS = 65536
ABANDON_SECS = 5.0
_STDIN, _STDOUT, _STDERR = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Order:
    """What to start. All paths are absolute. `store`: it installs packages, and may write where they are kept."""

    argv: list[str] = field(repr=False)
    env: dict[str, str] = field(repr=False)
    cwd: str
    read: list[str]
    write: list[str]
    ports: list[int]
    store: bool = False


class _Spawn(msgspec.Struct):
    id: int
    argv: list[str]
    env: dict[str, str]
    cwd: str
    read: list[str]
    write: list[str]
    store: bool
    ports: list[int]


class _Listen(msgspec.Struct):
    id: int
    ports: list[int]


class _Signal(msgspec.Struct):
    id: int
    number: int


class _Said(msgspec.Struct, omit_defaults=True):
    """One of the three."""

    spawn: _Spawn | None = None
    listen: _Listen | None = None
    signal: _Signal | None = None


class _Heard(msgspec.Struct):
    """One of `door`, `spawned`, `listening`, `refused`, `exited`, with what goes with it."""

    door: int | None = None
    spawned: int | None = None
    listening: int | None = None
    refused: int | None = None
    exited: int | None = None
    listeners: list[Listener] = []
    code: int | str | None = None
    message: str = ""


class Process(asyncio.SubprocessTransport):
    """What the keeper started, in the shape asyncio gives to its own: tells `protocol` of bytes and ends."""

    def __init__(self, number: int, protocol: asyncio.SubprocessProtocol, tell: Callable[[int, int], None]) -> None:
        super().__init__()
        self._number, self._protocol, self._tell = number, protocol, tell
        self._pipes: dict[int, Any] = {}
        self._code: int | None = None
        self._made = False
        self._closed = False
        self.gone = asyncio.Event()

    def get_pid(self) -> int:
        """Its number here; the process's own is not known inside."""
        return self._number

    def get_returncode(self) -> int | None:
        return self._code

    def get_pipe_transport(self, fd: int) -> Any:
        return self._pipes.get(fd)

    def send_signal(self, number: int) -> None:
        if self._code is None:
            self._tell(self._number, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Its pipes. What still runs is killed."""
        self._closed = True
        self.kill()
        for pipe in self._pipes.values():
            pipe.close()

    async def attach(self, fds: Sequence[int]) -> None:
        """Begin to read and write: from here on the protocol is told. The descriptors are ours. Raises OSError."""
        self._protocol.connection_made(self)
        loop = asyncio.get_running_loop()
        files = [os.fdopen(fd, mode, 0) for fd, mode in zip(fds, ("wb", "rb", "rb"), strict=True)]
        try:
            await loop.connect_write_pipe(lambda: _Pipe(self, _STDIN), files[_STDIN])
            for fd in (_STDOUT, _STDERR):
                await loop.connect_read_pipe(lambda fd=fd: _Pipe(self, fd), files[fd])  # type: ignore[misc]
        except BaseException:
            for file in files[len(self._pipes) :]:
                file.close()
            raise
        self._made = True
        if self._code is not None:
            self._protocol.process_exited()

    def exited(self, code: int) -> None:
        self.gone.set()
        if self._code is None:
            self._code = code
            if self._made:
                self._protocol.process_exited()


class _Pipe(asyncio.Protocol):
    """One of the three, told on to the process's protocol."""

    def __init__(self, process: Process, fd: int) -> None:
        self._process, self._fd = process, fd
        self._to = process._protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._process._pipes[self._fd] = transport

    def data_received(self, data: bytes) -> None:
        self._to.pipe_data_received(self._fd, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._to.pipe_connection_lost(self._fd, exc)

    def pause_writing(self) -> None:
        self._to.pause_writing()

    def resume_writing(self) -> None:
        self._to.resume_writing()


class Keeper:
    """`own(listeners, fds)` gets the engine's own door, once; the descriptors are its. `gone()`: the keeper has ended."""

    def __init__(self, sock: socket.socket, own: Callable[[list[Listener], list[int]], None], gone: Callable[[], None]) -> None:
        sock.set_inheritable(False)
        self._own, self._gone = own, gone
        self._ids = itertools.count(1)
        self._coming: dict[int, asyncio.Future[Opened]] = {}
        self._growing: dict[int, asyncio.Future[Opened]] = {}
        self._processes: dict[int, Process] = {}
        self._link: Channel[_Heard] | None = Channel(sock, _Heard, self._heard, self._lost)

    async def spawn(
        self, order: Order, protocol: asyncio.SubprocessProtocol, opened: Callable[[int, list[Listener], list[int]], None]
    ) -> Process:
        """Returns when it runs and its pipes are connected. `opened(number, listeners, fds)` gets its door before that.

        Raises what the keeper refuses it with, TooLarge, Unavailable; OSError, ValueError for what no command can be given.
        """
        _sayable(order)
        number = next(self._ids)
        ours, theirs = _pipes()
        try:
            self._say(_Said(spawn=_Spawn(number, **_members(order))), theirs)
        except BaseException:
            _close(ours)
            raise
        finally:
            _close(theirs)
        process = self._processes[number] = Process(number, protocol, self.signal)
        try:
            opened(number, *await self._expected(self._coming, number))
        except BaseException as error:
            _close(ours)
            if isinstance(error, RootlinkError):
                self._processes.pop(number, None)
            else:
                await self._abandon(process)
            raise
        attaching = asyncio.get_running_loop().create_task(process.attach(ours))
        try:
            await asyncio.shield(attaching)
        except BaseException:
            await asyncio.wait({attaching})  # uvloop does not close a pipe whose connecting is cancelled
            process.close()
            await self._abandon(process)
            raise
        return process

    async def _abandon(self, process: Process) -> None:
        """Returns when it is gone, whether it had begun or not."""
        process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ABANDON_SECS):
                await process.gone.wait()

    async def listen(self, number: int, ports: Sequence[int]) -> Opened:
        """More listeners for a door. Raises what the keeper refuses it with, Unavailable."""
        while number in self._growing:
            await asyncio.wait({self._growing[number]})
        self._say(_Said(listen=_Listen(number, list(ports))))
        return await self._expected(self._growing, number)

    def signal(self, number: int, sign: int) -> None:
        with contextlib.suppress(Unavailable):
            self._say(_Said(signal=_Signal(number, int(sign))))

    def close(self) -> None:
        """The keeper takes it as the engine's end: it kills what is left."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _say(self, said: _Said, fds: Sequence[int] = ()) -> None:
        if self._link is None:
            raise Unavailable("the engine's keeper has ended; the engine ends with it")
        try:
            self._link.send(said, fds)
        except ValueError:
            raise TooLarge("a command with its environment must be shorter than 4 MiB") from None  # frames.MAX_FRAME

    async def _expected(self, waiting: dict[int, asyncio.Future[Opened]], number: int) -> Opened:
        """What comes for nobody is closed: by `_give`, or here if it had come already."""
        future: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        waiting[number] = future
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                _close(future.result()[1])
            raise
        finally:
            waiting.pop(number, None)

    def _heard(self, heard: _Heard, fds: list[int]) -> None:
        if heard.door is not None:
            self._own(heard.listeners, fds)
        elif heard.spawned is not None:
            self._give(self._coming.get(heard.spawned), heard.listeners, fds)
        elif heard.listening is not None:
            self._give(self._growing.get(heard.listening), heard.listeners, fds)
        else:
            _close(fds)
            if heard.refused is not None:
                self._refuse(heard.refused, from_code(str(heard.code), heard.message))
            elif heard.exited is not None:
                self._exited(heard.exited, heard.code if isinstance(heard.code, int) else -signal.SIGKILL)

    def _give(self, future: asyncio.Future[Opened] | None, listeners: list[Listener], fds: list[int]) -> None:
        if future is None or future.done():
            _close(fds)
        else:
            future.set_result((listeners, fds))

    def _refuse(self, number: int, error: RootlinkError) -> None:
        future = self._coming.get(number) or self._growing.get(number)
        if future is not None and not future.done():
            future.set_exception(error)
        elif future is None:
            self._exited(number, -signal.SIGKILL)  # nobody waits for it any more

    def _exited(self, number: int, code: int) -> None:
        process = self._processes.pop(number, None)
        if process is not None:
            process.exited(code)

    def _lost(self) -> None:
        log.error("keeper_gone")
        self._link = None
        for future in (*self._coming.values(), *self._growing.values()):
            if not future.done():
                future.set_exception(Unavailable("the engine's keeper has ended; the engine ends with it"))
        for number in list(self._processes):
            self._exited(number, -signal.SIGKILL)
        self._gone()


def _sayable(order: Order) -> None:
    """Raises ValueError, TooLarge: the keeper takes a message that breaks its rules as the engine's end."""
    texts = [*order.argv, *order.env, *order.env.values(), order.cwd, *order.read, *order.write]
    if len(texts) > MOST_TEXTS:
        raise TooLarge(f"a command with its environment may have {MOST_TEXTS} arguments, variables and paths")
    if any("\0" in text for text in texts):
        raise ValueError("a value holds a NUL byte")
    for text in texts:
        text.encode()


def _members(order: Order) -> dict[str, Any]:
    return {name: getattr(order, name) for name in Order.__dataclass_fields__}


def _pipes() -> tuple[list[int], list[int]]:
    """(ours, the child's): stdin, stdout, stderr. Raises OSError. Pipes: no descriptors can be passed over them."""
    pairs: list[tuple[int, int]] = []
    try:
        pairs.extend(os.pipe() for _ in range(3))
    except OSError:
        _close([fd for pair in pairs for fd in pair])
        raise
    (child_in, our_in), (our_out, child_out), (our_err, child_err) = pairs
    return [our_in, our_out, our_err], [child_in, child_out, child_err]


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
