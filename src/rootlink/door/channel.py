"""Frames of structs on a running loop: who speaks with the gate, and the gate itself, use this."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from rootlink.door import foreign, frames

log = structlog.get_logger(__name__)
Heard = TypeVar("Heard")
BACKLOG = 4 << 20  # bytes that may wait for the other side to read


class Channel(Generic[Heard]):
    """One connected unix stream socket, which it owns.

    `heard(message, fds)` is called for each message, in order; the descriptors are its to close. `closed()` is called once, when
    the other side has ended, broke the rules, or does not read what it is sent; not for our own `close()`.

    `most`, `most_fds`: of a message that is heard, until `trust()`.
    """

    def __init__(
        self,
        sock: socket.socket,
        shape: Any,
        heard: Callable[[Heard, list[int]], None],
        closed: Callable[[], None],
        *,
        most: int = frames.MAX_FRAME,
        most_fds: int = frames.MAX_FDS,
    ) -> None:
        sock.setblocking(False)
        self._sock, self._heard, self._closed = sock, heard, closed
        self._decoder: msgspec.json.Decoder[Heard] = msgspec.json.Decoder(shape)
        self._unpacker = frames.Unpacker(foreign.close)
        self._unpacker.most, self._unpacker.most_fds = most, most_fds
        self._waiting: deque[tuple[memoryview, list[int]]] = deque()
        self._backlog = 0
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._read)

    @property
    def congested(self) -> bool:
        """Whether anything waits for the other side."""
        return self._backlog > 0

    def send(self, message: msgspec.Struct, fds: Sequence[int] = ()) -> None:
        """Now, or as soon as the other side reads. The descriptors are duplicated: the caller's stay the caller's."""
        if not self._open:
            return
        data = memoryview(frames.packed(msgspec.json.encode(message), fds))
        self._waiting.append((data, [os.dup(fd) for fd in fds]))
        self._backlog += len(data)
        if len(self._waiting) == 1:
            self._write()
        if self._backlog > BACKLOG:
            log.warning("channel does not read", backlog=self._backlog)
            self._end()

    def trust(self) -> None:
        """From here on the other side may say all there is to say."""
        self._unpacker.most, self._unpacker.most_fds = frames.MAX_FRAME, frames.MAX_FDS

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        foreign.close([self._sock.detach()])  # descriptors may be on their way in it
        self._unpacker.close()
        for _, fds in self._waiting:
            _close(fds)
        self._waiting.clear()
        self._backlog = 0

    def _end(self) -> None:
        if self._open:
            self.close()
            self._closed()

    def _read(self) -> None:
        try:
            data, fds = frames.receive(self._sock)
        except BlockingIOError:
            return
        except OSError:
            self._end()
            return
        try:
            messages = self._unpacker.feed(data, fds)
        except frames.Broken as error:
            log.warning("channel broken", why=str(error))
            self._end()
            return
        for payload, own in messages:
            self._take(payload, own)
        if not data:
            self._end()

    def _take(self, payload: bytes, fds: list[int]) -> None:
        if not self._open:
            foreign.close(fds)
            return
        try:
            message = self._decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            foreign.close(fds)
            log.warning("channel broken", why="a message that can't be read")
            self._end()
            return
        self._heard(message, fds)

    def _write(self) -> None:
        while self._waiting:
            data, fds = self._waiting[0]
            try:
                sent = socket.send_fds(self._sock, [data], fds) if fds else self._sock.send(data)
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._write)
                return
            except OSError:
                self._end()
                return
            _close(fds)
            self._backlog -= sent
            if sent < len(data):
                self._waiting[0] = (data[sent:], [])
            else:
                self._waiting.popleft()
        self._loop.remove_writer(self._sock)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
