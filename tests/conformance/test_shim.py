"""What the shim must not do to what the suite sends and is sent."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.conformance.shim import Shim

KEY = "rl_sk_of_the_test"
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
TOOLS = [{"name": "conf__here", "unknown": 1 << 70}, {"name": "other__there"}, {"name": "rootlink__own"}]


@asynccontextmanager
async def before(serve: Callable[[Reader, Writer], Awaitable[None]]) -> AsyncIterator[tuple[Reader, Writer]]:
    """A connection to a shim before a server that does as `serve`."""

    async def serving(reader: Reader, writer: Writer) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serving, "127.0.0.1", 0)
    async with Shim(server.sockets[0].getsockname()[1], KEY, "conf").serving() as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        yield reader, writer
        writer.close()
    server.close()


def posted(message: object, *fields: str) -> bytes:
    body = msgspec.json.encode(message)
    return "\r\n".join(["POST /mcp HTTP/1.1", *fields, f"content-length: {len(body)}", "", ""]).encode() + body


async def heard(reader: Reader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


async def test_what_names_nothing_passes_as_it_came_but_for_the_key() -> None:
    sent = b'{"jsonrpc":"2.0",  "id":1,"method":"resources/read","params":{"uri":"a__b","big":1e400}}'
    answer = b"HTTP/1.1 418 Short and stout\r\nX-Odd:  two blanks \r\nMCP-Session-Id: abc\r\nContent-Length: 2\r\n\r\n{}"
    got: list[tuple[bytes, bytes]] = []

    async def serve(reader: Reader, writer: Writer) -> None:
        got.append(await heard(reader))
        writer.write(answer)

    async with before(serve) as (reader, writer):
        head = b"POST /mcp/ws?x=%20 HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\nMCP-method:\tx/y \r\n"
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(sent) + sent)
        assert await reader.readexactly(len(answer)) == answer.replace(b"Content-Length", b"content-length")
    (through, body), *_ = got
    assert through.startswith(head)
    assert b"authorization: Bearer rl_sk_of_the_test" in through
    assert body == sent


async def test_a_named_tool_is_the_mounts_in_body_and_header() -> None:
    got: list[tuple[bytes, bytes]] = []

    async def serve(reader: Reader, writer: Writer) -> None:
        got.append(await heard(reader))
        writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")

    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "here", "arguments": {"name": "mine"}}}
    async with before(serve) as (reader, writer):
        writer.write(posted(call, "Mcp-Name:   here  ", "Mcp-Method: tools/call"))
        await reader.readuntil(b"\r\n\r\n")
    (head, body), *_ = got
    assert b"\r\nMcp-Name:   conf__here  \r\n" in head
    assert msgspec.json.decode(body)["params"] == {"name": "conf__here", "arguments": {"name": "mine"}}


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_a_list_shows_the_mount_alone_and_every_field_of_it(kind: str) -> None:
    listed = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "result": {"tools": TOOLS}})
    event = b"id: 7\ndata: " + listed + b"\n\n" if kind == "text/event-stream" else listed

    async def serve(reader: Reader, writer: Writer) -> None:
        await heard(reader)
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        writer.write(head + b"".join(b"1\r\n%c\r\n" % byte for byte in event) + b"0\r\n\r\n")

    async with before(serve) as (reader, writer):
        writer.write(posted(LIST))
        text = b""
        while b'"here"' not in text:
            text += await reader.read(1 << 16)
    assert b'"unknown":%d' % (1 << 70) in text
    assert b"there" not in text
    assert b"own" not in text.replace(b"unknown", b"")


async def test_either_side_hears_that_the_other_hung_up() -> None:
    gone = asyncio.Event()

    async def serve(reader: Reader, writer: Writer) -> None:
        await heard(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\n: hi\n\r\n")
        if gone.is_set():
            return
        assert await reader.read() == b""
        gone.set()

    async with before(serve) as (reader, writer):
        writer.write(posted(LIST))
        await reader.readuntil(b": hi\n")
        writer.close()
        await asyncio.wait_for(gone.wait(), 5)
    async with before(serve) as (reader, writer):
        writer.write(posted(LIST))
        assert b": hi\n" in await asyncio.wait_for(reader.read(), 5), "and no end of the chunks"
