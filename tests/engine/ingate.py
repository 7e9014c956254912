"""A gate for tests: the doors' socket of `wire/gate.py`, on the test's own loop, that answers as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from rootlink.door.channel import Channel
from rootlink.wire.gate import Answer, Ask, Close, FromEngine, Hello, Listen, Listener, Named, Open, Refusal, Welcome

Serve = Callable[["Held", socket.socket], Awaitable[None]]


@dataclass(eq=False)
class Held:
    """A door as the gate holds it."""

    asked: Open
    sockets: list[tuple[Listener, socket.socket]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def ports(self) -> set[int]:
        return {listener.port for listener, _ in self.sockets if listener.kind == "tcp"}

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        for listener, sock in self.sockets:
            if listener.kind == "dns":
                asyncio.get_running_loop().remove_reader(sock)
            sock.close()


class InGate:
    """`allowed`: host → loopback port of whoever answers in its place. `serve` gets each connection that is accepted."""

    def __init__(self, path: Path, key: str = "key") -> None:
        self.path, self.key = path, key
        self.doors: dict[int, Held] = {}
        self.closed: list[int] = []
        self.asked: list[Ask] = []
        self.hellos: list[Hello] = []
        self.allowed: dict[str, int] = {}
        self.names: dict[str, str] = {}  # address → host
        self.network = "198.18.0"
        self.answer: Callable[[Ask], Answer | None] = self._answer
        self.serve: Serve = self.relay
        self._channel: Channel[FromEngine] | None = None
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def up(self) -> None:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._came)

    def down(self) -> None:
        """As a gate that is killed: everything it held is closed."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._all_gone()
        for task in self._tasks:
            task.cancel()

    async def until(self, holds: Callable[[], object], words: str, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"not within {seconds:g} s: {words}"
            await asyncio.sleep(0.005)

    def door(self, name: str) -> Held:
        return next(held for held in self.doors.values() if held.asked.name == name)

    def refuse(
        self, held: Held, host: str, port: int = 443, reason: str = "not_in_allowlist", message: str | None = None
    ) -> None:
        words = f"egress blocked: host '{host}' is not in this project's outbound allowlist" if message is None else message
        assert self._channel is not None
        self._channel.send(Refusal(held.asked.door, held.asked.name, host, port, reason, words))

    def name(self, host: str, door: int = 0) -> str:
        for address, known in self.names.items():
            if known == host:
                return address
        address = f"{self.network}.{len(self.names) + 1}"
        self.names[address] = host
        assert self._channel is not None
        self._channel.send(Named(door, address, host))
        return address

    def refusal(self, ask: Ask, reason: str, words: str) -> Answer:
        """An answer, told besides as the gate tells every refusal."""
        found = Refusal(ask.door, ask.name, ask.host, ask.port, reason, words)
        assert self._channel is not None
        self._channel.send(found)
        return Answer(ask.n, refusal=found)

    async def relay(self, held: Held, sock: socket.socket) -> None:
        """To whoever stands in for the name."""
        host = self.names.get(sock.getsockname()[0], sock.getsockname()[0])
        if host not in self.allowed:
            self.refuse(held, host, sock.getsockname()[1])
            sock.close()
            return
        reader, writer = await asyncio.open_connection(sock=sock)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.allowed[host])
        with contextlib.suppress(OSError):
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    def _answer(self, ask: Ask) -> Answer | None:
        if ask.host in self.allowed:
            return Answer(ask.n, address=self.name(ask.host, ask.door))
        return Answer(ask.n, failed=f"host '{ask.host}' is not known to DNS")

    def _came(self) -> None:
        assert self._listener is not None
        sock, _ = self._listener.accept()
        self._channel = Channel(sock, FromEngine, self._heard, self._all_gone)

    def _all_gone(self) -> None:
        doors, self.doors = self.doors, {}
        for held in doors.values():
            held.close()

    def _heard(self, message: FromEngine, fds: list[int]) -> None:
        assert self._channel is not None
        match message:
            case Hello():
                self.hellos.append(message)
                if message.key != self.key:
                    self._channel.close()
                    return
                self._channel.send(Welcome())
            case Open():
                self.doors[message.door] = Held(message)
                self._listen(self.doors[message.door], message.listeners, fds)
            case Listen():
                self._listen(self.doors[message.door], message.listeners, fds)
            case Close():
                self.closed.append(message.door)
                self.doors.pop(message.door).close()
            case Ask():
                self.asked.append(message)
                answer = self.answer(message)
                if answer is not None:
                    self._channel.send(answer)

    def _listen(self, held: Held, listeners: list[Listener], fds: list[int]) -> None:
        assert len(listeners) == len(fds)
        for listener, fd in zip(listeners, fds, strict=True):
            if listener.kind == "watch":
                os.close(fd)
                continue
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            held.sockets.append((listener, sock))
            if listener.kind == "dns":
                asyncio.get_running_loop().add_reader(sock, self._resolve, held, sock)
            else:
                held.tasks.append(asyncio.get_running_loop().create_task(self._accept(held, sock)))

    async def _accept(self, held: Held, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            task = loop.create_task(self.serve(held, sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _resolve(self, held: Held, sock: socket.socket) -> None:
        """An address for who is allowed, NXDOMAIN and a refusal for all others."""
        query, peer = sock.recvfrom(4096)
        name, kind, end = _question(query)
        if name in self.allowed:
            address = socket.inet_aton(self.name(name, held.asked.door)) if kind == 1 else b""
            record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04" + address if address else b""
            head = query[:2] + b"\x81\x80\x00\x01" + (b"\x00\x01" if address else b"\x00\x00") + b"\x00\x00\x00\x00"
            sock.sendto(head + query[12:end] + record, peer)
            return
        if kind == 1:
            self.refuse(held, name, 0)
        sock.sendto(query[:2] + b"\x81\x83\x00\x01" + bytes(6) + query[12:end], peer)


def _question(query: bytes) -> tuple[str, int, int]:
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    return ".".join(labels), int.from_bytes(query[at + 1 : at + 3], "big"), at + 5


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def gate(folder: Path) -> AsyncIterator[InGate]:
    one = InGate(folder / "doors.sock")
    one.up()
    try:
        yield one
    finally:
        one.down()
        await asyncio.sleep(0)
