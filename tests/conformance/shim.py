"""A reverse proxy that shows one mount of a Rootlink as if it stood alone, for clients that ask for plain names.

It adds the key and hides the names, and nothing else:

    to Rootlink     tools/call, prompts/get, completion/complete of a prompt: `name` → `<mount>__name`; `Mcp-Name` too
    to the client   tools/list, prompts/list: only what begins with `<mount>__`, without it

Everything else passes as bytes: status, headers (Host and Origin too), streams as they come, either side hanging up. What is
changed is said in `_outgoing` and `_incoming`; a message that needs no change is never encoded anew.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

LISTS = {"tools/list": "tools", "prompts/list": "prompts"}
NAMED = ("tools/call", "prompts/get")
MOST = 1 << 24  # bytes of a head or a line
HOP = (b"connection", b"content-length", b"transfer-encoding", b"keep-alive")
_SENTINEL = (b"=?base64?", b"?=")


class HangUp(Exception):
    """One side ended its connection."""


@dataclass
class Head:
    first: bytes
    fields: list[tuple[bytes, bytes]]  # as they came; the values with the blanks around them

    def get(self, name: bytes) -> bytes:
        return next((value.strip().lower() for key, value in self.fields if key.lower() == name), b"")

    def encoded(self, *more: tuple[bytes, bytes]) -> bytes:
        kept = [(key, value) for key, value in self.fields if key.lower() not in HOP]
        added = [(key, b" " + value) for key, value in more]
        return b"\r\n".join([self.first, *(key + b":" + value for key, value in (*kept, *added)), b"", b""])


class Shim:
    """`mount` of the Rootlink at `port`, with `key`."""

    def __init__(self, port: int, key: str, mount: str) -> None:
        self._port, self._key, self._prefix = port, key, f"{mount}__"
        self._open: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its address, without a path."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=MOST)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            await _ended(*self._open)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.ensure_future(self._serve(reader, writer))
        self._open.add(serving)
        serving.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head, body = await _message(reader)
                await self._exchange(head, body, reader, writer)
        except (HangUp, OSError):
            pass
        finally:
            writer.close()

    async def _exchange(self, head: Head, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request on a connection of its own to Rootlink; it is ended when the client hangs up meanwhile. Raises HangUp."""
        method, body = self._outgoing(head, body)
        far, near = await asyncio.open_connection("127.0.0.1", self._port, limit=MOST)
        length = [(b"content-length", str(len(body)).encode())] if body or head.first.startswith(b"POST") else []
        bearer = (b"authorization", f"Bearer {self._key}".encode())
        near.write(head.encoded(*length, bearer, (b"connection", b"close")) + body)
        answering = asyncio.ensure_future(self._answer(far, writer, LISTS.get(method)))
        leaving = asyncio.ensure_future(_gone(reader))
        try:
            await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise HangUp
            answering.result()
        finally:
            near.close()
            await _ended(answering, leaving)

    async def _answer(self, far: asyncio.StreamReader, writer: asyncio.StreamWriter, listed: str | None) -> None:
        head = await _head(far)
        if head.get(b"content-type").startswith(b"text/event-stream"):
            writer.write(head.encoded((b"transfer-encoding", b"chunked")))
            await writer.drain()
            async for line in _lines(_content(head, far)):
                shown = self._event(line, listed)
                writer.write(b"%x\r\n%s\r\n" % (len(shown), shown))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            return
        body = b"".join([part async for part in _content(head, far)])
        shown = self._incoming(body, listed) if listed else body
        empty = not shown and head.first.split()[1] in (b"204", b"304")
        writer.write(head.encoded(*([] if empty else [(b"content-length", str(len(shown)).encode())])) + shown)
        await writer.drain()

    def _event(self, line: bytes, listed: str | None) -> bytes:
        if listed is None or not line.startswith(b"data:"):
            return line
        data = line[5:].strip()
        return b"data: " + self._incoming(data, listed) + b"\n" if data else line

    # names

    def _outgoing(self, head: Head, body: bytes) -> tuple[str, bytes]:
        """The method, and the body with the mount's names; the header with them."""
        try:
            message = msgspec.json.decode(body)
            method, params = message["method"], message.get("params") or {}
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
            return "", body
        if method in NAMED:
            head.fields = [(key, self._header(key, value)) for key, value in head.fields]
        named = params.get("ref") if method == "completion/complete" else params if method in NAMED else None
        if not isinstance(named, dict) or not isinstance(named.get("name"), str):
            return method, body
        named["name"] = self._prefix + named["name"]
        return method, msgspec.json.encode(message)

    def _header(self, key: bytes, value: bytes) -> bytes:
        if key.lower() != b"mcp-name":
            return value
        plain = value.strip()
        before, _, after = value.partition(plain)
        if plain.startswith(_SENTINEL[0]) and plain.endswith(_SENTINEL[1]):
            with contextlib.suppress(ValueError):
                name = self._prefix.encode() + base64.b64decode(plain[9:-2], validate=True)
                return before + _SENTINEL[0] + base64.b64encode(name) + _SENTINEL[1] + after
        return before + self._prefix.encode() + plain + after

    def _incoming(self, body: bytes, listed: str) -> bytes:
        try:
            message = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return body
        entries: list[dict[str, Any]] | None = (message.get("result") or {}).get(listed)
        if entries is None:
            return body
        shown = [entry for entry in entries if entry["name"].startswith(self._prefix)]
        message["result"][listed] = [{**entry, "name": entry["name"].removeprefix(self._prefix)} for entry in shown]
        return msgspec.json.encode(message)


# HTTP/1.1, as far as two well-behaved ends need it


async def _message(reader: asyncio.StreamReader) -> tuple[Head, bytes]:
    head = await _head(reader)
    if not head.get(b"content-length") and not head.get(b"transfer-encoding"):
        return head, b""
    return head, b"".join([part async for part in _content(head, reader)])


async def _head(reader: asyncio.StreamReader) -> Head:
    first, *lines = (await _until(reader, b"\r\n\r\n"))[:-4].split(b"\r\n")
    return Head(first, [(key, value) for key, _, value in (line.partition(b":") for line in lines)])


async def _content(head: Head, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    if head.get(b"transfer-encoding") == b"chunked":
        while size := int(await _until(reader, b"\r\n"), 16):
            yield await _exactly(reader, size)
            await _exactly(reader, 2)
        await _until(reader, b"\r\n")
    elif length := head.get(b"content-length"):
        yield await _exactly(reader, int(length))
    elif head.first.startswith(b"HTTP/") and head.first.split()[1] not in (b"204", b"304"):
        while part := await reader.read(1 << 16):
            yield part


async def _until(reader: asyncio.StreamReader, end: bytes) -> bytes:
    try:
        return await reader.readuntil(end)
    except asyncio.IncompleteReadError:
        raise HangUp from None


async def _exactly(reader: asyncio.StreamReader, size: int) -> bytes:
    try:
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        raise HangUp from None


async def _lines(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    kept = b""
    async for part in parts:
        *lines, kept = (kept + part).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if kept:
        yield kept


async def _gone(reader: asyncio.StreamReader) -> None:
    """Returns when the client hangs up. Looked at again and again: to read would take the first byte of its next request."""
    while not reader.at_eof():
        await asyncio.sleep(0.02)


async def _ended(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
