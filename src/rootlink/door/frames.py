"""Frames on a unix stream socket: length, number of descriptors, JSON; the descriptors ride with the frame's first byte.

Standard library only: the keeper (`door/keeper.py`) imports it too.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Callable, Sequence

HEAD = struct.Struct(">IB")
MAX_FRAME = 4 << 20
MAX_FDS = 64
_MOST_AT_ONCE = 253  # SCM_MAX_FD: none is ever dropped by the kernel for want of room here
_ROOM = socket.CMSG_SPACE(_MOST_AT_ONCE * array.array("i").itemsize)


class Broken(Exception):
    """The other side does not keep to this."""


def packed(payload: bytes, fds: Sequence[int] = ()) -> bytes:
    if len(payload) > MAX_FRAME or len(fds) > MAX_FDS:
        raise ValueError(f"a frame has at most {MAX_FRAME} bytes and {MAX_FDS} descriptors")
    return HEAD.pack(len(payload), len(fds)) + payload


def send(sock: socket.socket, payload: bytes, fds: Sequence[int] = ()) -> None:
    """All of it, on a blocking socket. Raises OSError."""
    data = packed(payload, fds)
    sent = socket.send_fds(sock, [data], list(fds)) if fds else sock.send(data)
    if sent < len(data):
        sock.sendall(memoryview(data)[sent:])


def receive(sock: socket.socket, size: int = 65536) -> tuple[bytes, list[int]]:
    """One read: bytes (empty at the end) and descriptors, close-on-exec. Raises OSError."""
    data, ancillary, _, _ = sock.recvmsg(size, _ROOM, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
    fds = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds)


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


class Unpacker:
    """Bytes and descriptors in, whole frames out. Whoever takes a frame owns its descriptors; `shut` closes those nobody took.
    `most`, `most_fds`: of one frame; they may be changed at any time."""

    def __init__(self, shut: Callable[[list[int]], None] = close_all) -> None:
        self._shut = shut
        self._held = bytearray()
        self._fds: list[int] = []
        self.most, self.most_fds = MAX_FRAME, MAX_FDS

    def feed(self, data: bytes, fds: Sequence[int]) -> list[tuple[bytes, list[int]]]:
        """Raises Broken, with every descriptor that was not handed over closed."""
        self._held += data
        self._fds += fds
        if len(self._fds) > max(4 * self.most_fds, _MOST_AT_ONCE * (self.most_fds > 0)):
            self.close()
            raise Broken("more descriptors came than frames")
        frames = []
        while len(self._held) >= HEAD.size:
            length, count = HEAD.unpack_from(self._held)
            if length > self.most or count > self.most_fds:
                self.close()
                raise Broken("a frame is longer than is allowed, or carries too much")
            end = HEAD.size + length
            if len(self._held) < end:
                break
            if len(self._fds) < count:
                self.close()
                raise Broken("a frame came without its descriptors")
            frames.append((bytes(self._held[HEAD.size : end]), self._fds[:count]))
            del self._held[:end], self._fds[:count]
        return frames

    def close(self) -> None:
        held, self._fds = self._fds, []
        self._shut(held)
