"""Descriptors that came from somebody who holds them too: what he does to them must not hold us up.

Both share one open file, its flags and its options. So none of these may be trusted to return, though the socket was made
non-blocking here:

    recvmsg, sendmsg    are told not to wait, each time (MSG_DONTWAIT, the caller's to say)
    accept              can't be told: it waits in a socket that was made blocking again meanwhile
    close               of a connected socket with SO_LINGER waits for its other end; also when what is closed is a unix socket
                        in which such a descriptor is on its way

While `guarded()` lasts, descriptors are closed by a thread of its own, and another one sends a signal to whichever thread takes
longer than `PATIENCE_SECS`: an accept then raises `Stuck`. Otherwise all of it is done here and now.

- SIGURG does nothing by default, so one that comes late is harmless. Python installs handlers without SA_RESTART.
- What was accepted is nobody else's, but begins with the listener's options: the one that makes closing wait is reset.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator

from rootlink.wire.gate import Listener

PATIENCE_SECS = 0.2
_LOOK_SECS = 0.1
_NO_LINGER = struct.pack("ii", 0, 0)
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_AF_PACKET = getattr(socket, "AF_PACKET", None)


class Stuck(Exception):
    """A call on a descriptor of somebody's did not return by itself."""


class _Guard:
    """Of the thread that made it, the only one in which Python handles signals."""

    def __init__(self) -> None:
        self.since: float | None = None  # when the call began that this thread is in
        self._closing: float | None = None
        self._thread = threading.get_ident()
        self._to_close: queue.SimpleQueue[list[int]] = queue.SimpleQueue()  # an empty list is the last
        self._ended = threading.Event()
        self._closer = threading.Thread(target=self._close, name="closer", daemon=True)
        self._closer.start()
        self._watch = threading.Thread(target=self._look, name="guard", daemon=True)
        self._watch.start()

    def close(self, fds: list[int]) -> None:
        self._to_close.put(fds)

    def end(self) -> None:
        """What is to be closed is closed."""
        self._to_close.put([])
        self._closer.join()
        self._ended.set()
        self._watch.join()

    def interrupted(self, *_: object) -> None:
        if _late(self.since):
            raise Stuck

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_SECS):
            if _late(self.since):
                signal.pthread_kill(self._thread, signal.SIGURG)
            if _late(self._closing) and self._closer.ident is not None:
                signal.pthread_kill(self._closer.ident, signal.SIGURG)

    def _close(self) -> None:
        while fds := self._to_close.get():
            for fd in fds:
                self._closing = time.monotonic()
                with contextlib.suppress(OSError):  # interrupted: the kernel has let go of it all the same
                    os.close(fd)
                self._closing = None


def _late(since: float | None) -> bool:
    return since is not None and time.monotonic() - since > PATIENCE_SECS


_guard: _Guard | None = None  # signals are one a process, and so is this


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """In the main thread alone."""
    global _guard
    guard = _guard = _Guard()
    before = signal.signal(signal.SIGURG, guard.interrupted)
    try:
        yield
    finally:
        _guard = None
        guard.end()
        signal.signal(signal.SIGURG, before)


def close(fds: Iterable[int]) -> None:
    """All of them, whatever they are. Safe for none."""
    given = list(fds)
    if _guard is not None and given:
        _guard.close(given)
        return
    for fd in given:
        os.close(fd)


def taken(listener: Listener, fd: int) -> socket.socket | None:
    """The listener as a socket that does not block for now. None, and closed, when it is not what it is said to be."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        close([fd])
        return None
    if not _fits(listener, sock):
        close([sock.detach()])
        return None
    sock.setblocking(False)
    return sock


def _fits(listener: Listener, sock: socket.socket) -> bool:
    if listener.kind == "watch":
        return (sock.family, sock.type) == (_AF_PACKET, socket.SOCK_DGRAM)
    if sock.family not in _INTERNET:
        return False
    if listener.kind == "dns":
        return (sock.type, sock.proto) == (socket.SOCK_DGRAM, socket.IPPROTO_UDP)
    if (sock.type, sock.proto) != (socket.SOCK_STREAM, socket.IPPROTO_TCP):
        return False
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def accepted(listener: socket.socket) -> socket.socket:
    """The next connection, which does not block. Raises OSError; Stuck."""
    guard = _guard
    if guard is None:
        sock, _ = listener.accept()
    else:
        guard.since = time.monotonic()
        try:
            sock, _ = listener.accept()
        finally:
            guard.since = None
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    return sock
