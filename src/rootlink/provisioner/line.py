"""One engine, as the provisioner asks it: `wire/engine.py` over its unix socket, one connection a question.

An engine is not trusted to be well: every question has a deadline, an answer a cap, and whatever is wrong with it becomes one
of our own errors. `Unavailable` means that the engine could not be asked (gone, hung, stopping); any other error is its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

import httptools
import msgspec

from rootlink.errors import RootlinkError, Unauthorized, Unavailable, from_code
from rootlink.wire.checks import Check, Verdict
from rootlink.wire.engine import (
    KEY_HEADER,
    Checking,
    Decision,
    EngineStatus,
    Environment,
    Grant,
    InstallEvent,
    SignedIn,
)
from rootlink.wire.mounts import Actual, Desired
from rootlink.wire.tools import ToolView

T = TypeVar("T")
CAP = 32 * 1024 * 1024  # bytes of one answer
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Problem(msgspec.Struct):
    code: str = "internal"
    message: str = ""


class _Envelope(msgspec.Struct):
    ok: bool
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: _Problem | None = None


class _Logs(msgspec.Struct):
    lines: list[str]


class _Stopping(msgspec.Struct):
    stopping: bool


class _Restarted(msgspec.Struct):
    restarted: list[str]


class _Removed(msgspec.Struct):
    removed: bool


class _Link(msgspec.Struct):
    link: str


class _SignedIn(msgspec.Struct):
    connection: str


class _Answer:
    """What httptools tells of one response."""

    def __init__(self) -> None:
        self.status = 0
        self.complete = False
        self.pieces: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> list[bytes]:
        self._parser.feed_data(data)
        pieces, self.pieces = self.pieces, []
        return pieces

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        self.complete = True


class Line:
    """`key` is that of this spawn; an engine of another spawn answers 401, which is how a stranger is told apart."""

    def __init__(self, socket: str, key: str) -> None:
        self._socket, self.key = socket, key

    def same(self, other: Line) -> bool:
        """Whether both go to the same spawn."""
        return (self._socket, self.key) == (other._socket, other.key)

    async def status(self, *, within: float = 2.0) -> EngineStatus:
        return await self._ask("GET", "status", EngineStatus, within=within)

    async def stop(self, *, within: float = 2.0) -> None:
        await self._ask("POST", "stop", msgspec.Raw, within=within)

    async def stop_if_idle(self, idle_secs: float, *, within: float = 2.0) -> bool:
        return (await self._ask("POST", "stop-if-idle", _Stopping, {"idle_secs": idle_secs}, within=within)).stopping

    async def environment(self, environment: Environment, *, within: float = 60.0) -> list[str]:
        """Names of the mounts and functions that restarted."""
        return (await self._ask("PUT", "environment", _Restarted, environment, within=within)).restarted

    async def connections(self, *, within: float = 10.0) -> list[Actual]:
        return await self._ask("GET", "connections", list[Actual], within=within)

    async def remove(self, connection: str, *, within: float = 60.0) -> bool:
        return (await self._ask("DELETE", f"connections/{connection}", _Removed, within=within)).removed

    async def logs(self, *, within: float = 5.0) -> list[str]:
        return (await self._ask("GET", "logs", _Logs, within=within)).lines

    async def decisions(self, *, within: float = 5.0) -> list[Decision]:
        """Each is handed over once."""
        return await self._ask("POST", "decisions", list[Decision], within=within)

    async def tools(self, connection: str, *, within: float = 30.0) -> list[ToolView]:
        return await self._ask("GET", f"connections/{connection}/tools", list[ToolView], within=within)

    async def check(self, connection: str, checks: list[Check], *, within: float = 120.0) -> Verdict:
        return await self._ask("POST", f"connections/{connection}/check", Verdict, Checking(checks), within=within)

    async def sign_in(self, connection: str, *, within: float = 60.0) -> str:
        """The link that a person opens."""
        return (await self._ask("POST", f"connections/{connection}/sign-in", _Link, within=within)).link

    async def signed_in(self, back: SignedIn, *, within: float = 60.0) -> str:
        """The name of the connection whose sign-in this ends."""
        return (await self._ask("POST", "sign-ins", _SignedIn, back, within=within)).connection

    async def grants(self, taken: list[str], *, within: float = 5.0) -> list[Grant]:
        """Those that are not `taken` yet, oldest first; each is handed over until it is named there."""
        return await self._ask("POST", "grants", list[Grant], {"taken": taken}, within=within)

    async def apply(self, desired: Desired, *, silence: float = 300.0) -> AsyncGenerator[InstallEvent, None]:
        """The events of one PUT, as they come. Raises Unavailable when it ends before `done` or `failed`, or falls silent."""
        async with contextlib.aclosing(self._story("PUT", f"connections/{desired.id}", desired, silence)) as events:
            async for event in events:
                yield event

    async def trial(self, desired: Desired, *, silence: float = 300.0) -> AsyncIterator[InstallEvent]:
        """As `apply`, ending with `tried` or `failed`."""
        async with contextlib.aclosing(self._story("POST", "trials", desired, silence)) as events:
            async for event in events:
                yield event

    async def _story(self, method: str, path: str, desired: Desired, silence: float) -> AsyncGenerator[InstallEvent, None]:
        rest, ended = b"", False
        body = msgspec.json.encode(desired)
        async with contextlib.aclosing(self._chunks(method, path, body, silence)) as chunks:
            async for status, chunk in chunks:
                if status != 200:
                    raise _problem(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = _decoded(line, InstallEvent)
                    ended = ended or event.step is None
                    yield event
        if not ended:
            raise Unavailable("the engine ended before it was done")

    async def _ask(self, method: str, path: str, shape: type[T], body: Any = None, *, within: float) -> T:
        content = b"" if body is None else msgspec.json.encode(body)
        pieces: list[bytes] = []
        status = size = 0
        try:
            async with asyncio.timeout(within):
                async for status, chunk in self._chunks(method, path, content, within):  # noqa: B007  used below
                    pieces.append(chunk)
                    size += len(chunk)
                    if size > CAP:
                        raise Unavailable("the engine's answer is longer than is allowed")
        except TimeoutError:
            raise Unavailable(f"the engine did not answer within {within:g} s") from None
        envelope = _decoded(b"".join(pieces), _Envelope)
        if status != 200 or not envelope.ok:
            raise _error(envelope)
        return _decoded(bytes(envelope.data), shape)

    async def _chunks(self, method: str, path: str, body: bytes, silence: float) -> AsyncGenerator[tuple[int, bytes], None]:
        head = (
            f"{method} /internal/{path} HTTP/1.1\r\nhost: engine\r\nconnection: close\r\n{KEY_HEADER}: {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        answer = _Answer()
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
            writer.write(head.encode() + body)
            while not answer.complete:
                data = await asyncio.wait_for(reader.read(65536), silence)
                if not data:
                    raise Unavailable("the engine ended before it had answered")
                for piece in answer.feed(data):
                    yield answer.status, piece
        except TimeoutError:
            raise Unavailable(f"the engine said nothing for {silence:g} s") from None
        except OSError:
            raise Unavailable("the engine can't be reached") from None
        except httptools.HttpParserError:
            raise Unavailable("the engine answered with something that is not HTTP") from None
        finally:
            if writer is not None:
                writer.close()


def _decoded(data: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=shape)
    except UNREADABLE:
        raise Unavailable("the engine's answer can't be read") from None


def _problem(data: bytes) -> RootlinkError:
    return _error(_decoded(data, _Envelope))


def _error(envelope: _Envelope) -> RootlinkError:
    problem = envelope.error or _Problem()
    if problem.code == Unauthorized.code:
        return Unauthorized("the engine does not know this key: it is of another spawn")
    return from_code(problem.code, problem.message or "the engine refused without a reason")
