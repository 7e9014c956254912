"""uvicorn as gateway and engines use it, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import uvicorn

from rootlink.http_server import SMALL, Corked, ServerProtocol, on_leave

App = Callable[[Any, Any, Any], Any]
ASK = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Wire(asyncio.Transport):
    """Keeps each write apart."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))


@contextlib.asynccontextmanager
async def served(app: App) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to `app`."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=ServerProtocol, ws="none", lifespan="off", log_config=None, proxy_headers=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve([listener]))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await serving


def test_a_small_answer_is_one_write_and_a_large_body_is_not_copied() -> None:
    wire = Wire()
    small = Corked(wire)
    small.write(b"head")
    assert wire.writes == []
    small.write(b"body")
    small.write(b"more")
    assert wire.writes == [b"headbody", b"more"]
    large, body = Corked(wire), b"x" * (SMALL + 1)
    large.write(b"head")
    large.write(body)
    assert wire.writes[2:] == [b"head", body]


def test_a_client_that_waits_to_be_told_to_send_its_body_is_told_at_once() -> None:
    wire = Wire()
    Corked(wire).write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert wire.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]


async def test_an_answer_without_a_body_arrives() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with served(app) as (reader, writer), asyncio.timeout(5):
        writer.write(ASK)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")


async def test_who_leaves_is_told_once_and_only_while_the_request_is_worked_on() -> None:
    left: list[str] = []
    gone, working = asyncio.Event(), asyncio.Event()

    def leave() -> None:
        left.append("left")
        gone.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert on_leave(scope, leave)
        if scope["path"] == "/short":
            on_leave(scope, None)
        else:
            working.set()
            await gone.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async with asyncio.timeout(5):
        async with served(app) as (reader, writer):
            writer.write(ASK.replace(b"/", b"/short", 1))
            await reader.readuntil(b"\r\n\r\n")
        assert left == []
        async with served(app) as (_, writer):
            writer.write(ASK)
            await working.wait()
            writer.close()
            await gone.wait()
    assert left == ["left"]


async def test_who_leaves_after_a_large_body_is_told() -> None:
    """uvicorn stops reading while more than 64 KiB of a body wait to be taken, and a transport that does not read sees no end."""
    gone, reading, working = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reading.set()
        while (await receive()).get("more_body"):
            pass
        on_leave(scope, gone.set)
        working.set()
        await gone.wait()

    async with served(app) as (_, writer), asyncio.timeout(5):
        size = 96 << 10
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
        await reading.wait()
        writer.write(b"x" * size)
        await working.wait()
        writer.close()
        await gone.wait()
