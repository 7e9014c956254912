from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from rootlink.door import frames
from rootlink.door.channel import BACKLOG, Channel
from rootlink.wire.gate import Close, FromEngine, Hello


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_frame_comes_out_as_it_went_in_however_it_is_cut() -> None:
    data = frames.packed(b'{"a":1}') + frames.packed(b"") + frames.packed(b"x" * 1000)
    for size in (1, 2, 3, 7, 500, len(data)):
        unpacker = frames.Unpacker()
        out = [one for at in range(0, len(data), size) for one in unpacker.feed(data[at : at + size], [])]
        assert out == [(b'{"a":1}', []), (b"", []), (b"x" * 1000, [])]


def test_descriptors_ride_with_their_own_frame() -> None:
    ours, theirs = socket.socketpair()
    before = descriptors()
    pipes = [os.pipe() for _ in range(3)]
    with ours, theirs:
        frames.send(ours, b"one", [pipes[0][0], pipes[1][0]])
        frames.send(ours, b"none")
        frames.send(ours, b"two", [pipes[2][0]])
        ours.shutdown(socket.SHUT_WR)
        unpacker, out = frames.Unpacker(), []
        while True:
            data, fds = frames.receive(theirs)
            out += unpacker.feed(data, fds)
            if not data:
                break
        assert [(payload, len(fds)) for payload, fds in out] == [(b"one", 2), (b"none", 0), (b"two", 1)]
        for fd, pipe in zip([fd for _, fds in out for fd in fds], pipes, strict=True):
            assert os.fstat(fd).st_ino == os.fstat(pipe[0]).st_ino
            assert not os.get_inheritable(fd)
            os.close(fd)
        for pipe in pipes:
            for fd in pipe:
                os.close(fd)
        assert descriptors() == before


def test_a_frame_that_is_too_long_or_lacks_its_descriptors_is_broken() -> None:
    for length, fds in ((frames.MAX_FRAME + 1, 0), (0, 1), (1, frames.MAX_FDS + 1)):
        with pytest.raises(frames.Broken):
            frames.Unpacker().feed(frames.HEAD.pack(length, fds), [])


def test_descriptors_nobody_took_are_closed() -> None:
    before = descriptors()
    reader, writer = os.pipe()
    unpacker = frames.Unpacker()
    unpacker.feed(b"", [reader, writer])
    unpacker.close()
    assert descriptors() == before


async def test_a_channel_says_and_hears_in_order_with_descriptors() -> None:
    ours, theirs = socket.socketpair()
    heard: list[object] = []
    everything = asyncio.Event()

    def take(message: object, fds: list[int]) -> None:
        heard.append((message, len(fds)))
        for fd in fds:
            os.close(fd)
        if len(heard) == 500:
            everything.set()

    say: Channel[FromEngine] = Channel(ours, FromEngine, lambda message, fds: None, lambda: None)
    hear: Channel[FromEngine] = Channel(theirs, FromEngine, take, lambda: None)
    with open(os.devnull) as nothing:
        for n in range(500):
            say.send(Close(n), [nothing.fileno()] * (n % 3))
        async with asyncio.timeout(10):
            await everything.wait()
    assert heard == [(Close(n), n % 3) for n in range(500)]
    say.close()
    hear.close()


async def test_the_other_sides_end_is_told_once_and_ours_is_not() -> None:
    ours, theirs = socket.socketpair()
    ended: list[str] = []
    over = asyncio.Event()
    channel: Channel[FromEngine] = Channel(
        ours, FromEngine, lambda message, fds: None, lambda: (ended.append("x"), over.set())[0]
    )
    theirs.close()
    async with asyncio.timeout(5):
        await over.wait()
    channel.close()
    assert ended == ["x"]


@pytest.mark.parametrize("payload", [b"nonsense", b"{}", b'{"type":"Unknown"}', b"\xff", b"[" * 5000])
async def test_what_is_no_message_ends_the_channel(payload: bytes) -> None:
    ours, theirs = socket.socketpair()
    over = asyncio.Event()
    Channel(ours, FromEngine, lambda message, fds: None, over.set)
    with theirs:
        theirs.sendall(frames.packed(payload))
        async with asyncio.timeout(5):
            await over.wait()


async def test_whoever_does_not_read_is_let_go() -> None:
    ours, theirs = socket.socketpair()
    before = descriptors()
    over = asyncio.Event()
    channel: Channel[FromEngine] = Channel(ours, FromEngine, lambda message, fds: None, over.set)
    with theirs:
        for _ in range(BACKLOG // 60000 + 10):
            channel.send(Hello("p", "k" * 60000))
        assert over.is_set()
        assert descriptors() <= before
