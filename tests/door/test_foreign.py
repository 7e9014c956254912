"""Descriptors that somebody else holds too: what he does to them holds nobody up."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootlink.door import foreign
from rootlink.wire.gate import Listener

LINGERS = struct.pack("ii", 1, 30)  # seconds
SOON = 5.0


@pytest.fixture
def guarded() -> Iterator[None]:
    with foreign.guarded():
        yield


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").exists()


def stuffed(listener: socket.socket, other: socket.socket) -> int:
    """One end of a connection, lingering, that was sent more than the other, which does not read, takes."""
    other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    other.connect(listener.getsockname())
    one, _ = listener.accept()
    one.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            one.send(bytes(65536))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGERS)
    return one.detach()


def listener_and_copy() -> tuple[socket.socket, socket.socket]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, socket.socket(fileno=os.dup(listener.fileno()))


@pytest.mark.usefixtures("guarded")
def test_an_accept_in_a_socket_that_was_made_blocking_again_is_ended() -> None:
    listener, theirs = listener_and_copy()
    with listener, theirs:
        listener.setblocking(False)
        os.set_blocking(theirs.fileno(), True)
        begun = time.monotonic()
        with pytest.raises(foreign.Stuck):
            foreign.accepted(listener)
        assert time.monotonic() - begun < SOON


@pytest.mark.usefixtures("guarded")
def test_a_socket_that_lingers_is_closed_by_somebody_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as other:
        fd = stuffed(listener, other)
        begun = time.monotonic()
        foreign.close([fd])
        assert time.monotonic() - begun < foreign.PATIENCE_SECS
        while time.monotonic() - begun < SOON and is_open(fd):
            time.sleep(0.01)
        assert not is_open(fd)


def test_what_is_to_be_closed_is_closed_when_the_guard_ends() -> None:
    reading, writing = os.pipe()
    with foreign.guarded():
        foreign.close([reading, writing])
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(writing)


def test_what_was_accepted_does_not_linger_as_its_listener_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGERS)
        with socket.create_connection(listener.getsockname()), foreign.accepted(listener) as sock:
            assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER)
            assert not sock.getblocking()


def test_only_what_it_is_said_to_be_is_taken_and_the_rest_closed() -> None:
    tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one, other = socket.socketpair()
    reading, writing = os.pipe()
    with tcp, udp, one, other:
        for kind, sock in (("tcp", tcp), ("proxy", tcp), ("dns", udp)):
            taken = foreign.taken(Listener(kind), os.dup(sock.fileno()))  # type: ignore[arg-type]
            assert taken is not None and not taken.getblocking()
            taken.close()
        for kind, fd in (
            ("tcp", udp.fileno()),
            ("dns", tcp.fileno()),
            ("tcp", one.fileno()),
            ("watch", udp.fileno()),
            ("dns", reading),
        ):
            copy = os.dup(fd)
            assert foreign.taken(Listener(kind), copy) is None  # type: ignore[arg-type]
            assert not is_open(copy)
        with socket.socket() as connected:
            connected.connect(tcp.getsockname())
            assert foreign.taken(Listener("tcp"), os.dup(connected.fileno())) is None
    os.close(reading)
    os.close(writing)
