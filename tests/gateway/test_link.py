"""HTTP over a unix socket: what was taken, what was not, and how much is held for a slow reader."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rootlink.gateway import link as links_module
from rootlink.gateway.link import Aborted, Broken, Links, Untaken, request

ASK = request(b"POST", b"/x", [(b"host", b"e")], 5), b"hello"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def path(short: Path) -> str:
    return str(short / "s.sock")


async def _serving(path: str, peer: Peer) -> asyncio.Server:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await peer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the test has seen enough
        finally:
            writer.close()

    return await asyncio.start_unix_server(handle, path)


def answers(*parts: bytes, keep: bool = True) -> Peer:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"hello"):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            if not keep:
                return

    return peer


async def _body(links: Links) -> bytes:
    link = await links.take()
    try:
        await link.ask(*ASK)
        return await link.body(1 << 20)
    finally:
        link.release()


def test_a_request_says_its_length_and_nothing_twice() -> None:
    assert request(b"POST", b"/a?b", [(b"host", b"h")], 2) == b"POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n"
    assert request(b"GET", b"/", []) == b"GET / HTTP/1.1\r\n\r\n"
    assert request(b"POST", b"/", []) == b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        ([OK], b"ok"),
        ([OK[:10], OK[10:30], OK[30:]], b"ok"),
        ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"2\r\nok\r\n", b"3\r\nyes\r\n0\r\n\r\n"], b"okyes"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + OK], b"ok"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
    ],
)
async def test_an_answer_is_read_however_it_comes(path: str, parts: list[bytes], body: bytes) -> None:
    async with await _serving(path, answers(*parts)):
        links = Links(path)
        assert [await _body(links) for _ in range(3)] == [body] * 3
        links.close()


async def test_an_answer_without_a_length_ends_with_the_connection(path: str) -> None:
    async with await _serving(path, answers(b"HTTP/1.1 200 OK\r\n\r\n", b"all of it", keep=False)):
        links = Links(path)
        assert await _body(links) == b"all of it"
        links.close()


async def test_links_are_used_again_and_close_when_nobody_needs_them(path: str) -> None:
    connections = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answers(OK)(reader, writer)

    async with await _serving(path, peer):
        links = Links(path, idle=0.1)
        for _ in range(5):
            await _body(links)
        assert connections == 1
        await asyncio.gather(*(_body(links) for _ in range(5)))
        for _ in range(100):
            if not links._idle:
                break
            await asyncio.sleep(0.02)
        assert links._idle == []


async def test_where_nobody_listens_nothing_is_taken(path: str) -> None:
    with pytest.raises(Untaken):
        await Links(path).take()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.close()
    with pytest.raises(Untaken):
        await Links(path).take()


async def test_what_the_other_side_never_accepted_was_not_taken(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    link = await Links(path).take()
    asked = asyncio.create_task(link.ask(*ASK))
    await asyncio.sleep(0.05)
    listener.close()
    with pytest.raises(Untaken):
        await asyncio.wait_for(asked, 2)
    link.release()


async def test_what_the_other_side_did_not_read_was_not_taken(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listener.settimeout(2)
    link = await Links(path).take()
    asked = asyncio.create_task(link.ask(*ASK))
    await asyncio.sleep(0.05)
    accepted, _ = listener.accept()
    accepted.recv(10)
    accepted.close()
    listener.close()
    with pytest.raises(Untaken):
        await asyncio.wait_for(asked, 2)
    link.release()


async def test_what_the_other_side_read_whole_may_have_run(path: str) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"hello")

    async with await _serving(path, peer):
        with pytest.raises(Broken):
            await _body(Links(path))


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n"]
)
async def test_an_answer_that_is_not_whole_is_broken(path: str, answer: bytes) -> None:
    async with await _serving(path, answers(answer, keep=False)):
        with pytest.raises(Broken):
            await _body(Links(path))


async def test_an_answer_beyond_its_cap_is_broken(path: str) -> None:
    async with await _serving(path, answers(b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n" + b"x" * 3_000_000)):
        with pytest.raises(Broken):
            await _body(Links(path))


async def test_giving_up_wakes_whoever_waits_and_ends_the_connection(path: str) -> None:
    ended = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()

    async with await _serving(path, peer):
        link = await Links(path).take()
        asked = asyncio.create_task(link.ask(*ASK))
        await asyncio.sleep(0.02)
        link.abort()
        with pytest.raises(Aborted):
            await asked
        await asyncio.wait_for(ended.wait(), 2)


async def test_a_slow_reader_holds_up_the_writer_not_our_memory(path: str) -> None:
    sent = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"hello")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    async with await _serving(path, peer):
        link = await Links(path).take()
        await link.ask(*ASK)
        await asyncio.sleep(0.3)
        assert link._size <= links_module.HIGH + links_module.READ
        stuck = sent
        await asyncio.sleep(0.1)
        assert sent == stuck
        while sent == stuck:
            await asyncio.wait_for(link.chunk(), 2)
        link.release()


async def test_a_link_that_still_holds_some_of_its_request_is_not_used_again(path: str) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        await asyncio.Event().wait()  # and reads no more

    server = await _serving(path, peer)
    links = Links(path)
    link = await links.take()
    body = b"x" * 8_000_000
    await link.ask(request(b"POST", b"/x", [], len(body)), body)
    assert await link.body(10) == b"ok"
    assert not link.written
    link.release()
    assert links._idle == []
    assert not link.usable
    server.close()
