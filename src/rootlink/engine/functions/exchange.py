"""One fetch: a request, and its answer as far as somebody wants it.

    whole     the body ended soon and is small: it is in the answer of the one operation
    open      its first piece is; the rest stays with the other side until the body of the function reads, piece by piece

Little is read ahead, so an answer that nobody reads costs its connection and `READ_AHEAD` bytes. Sizes in bytes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec
import structlog

from rootlink.egress import urls
from rootlink.errors import EgressBlocked, RootlinkError

if TYPE_CHECKING:
    from aiohttp import ClientResponse

MAX_HEADERS, MAX_HEADER_CHARS = 64, 32 << 10  # of a request
MAX_ANSWER_HEADERS, MAX_ANSWER_HEADER_CHARS = 256, 256 << 10
MAX_ANSWER: Final = 64 << 20
PIECE: Final = 256 << 10  # the most that goes to the isolate at once
READ_AHEAD: Final = 64 << 10
GRACE_SECS: Final = 0.02  # an answer that has not ended so long after its head is open
SLOW_BYTES: Final = 256 << 10  # of base64: more is decoded on a thread

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

log = structlog.get_logger(__name__)

Say = Callable[[int, Mapping[str, Any]], None]
"""Answers an operation: its number, the answer."""


class Scope(Protocol):
    """The part of `outbound.Scope` a function needs. Raises EgressBlocked before any packet leaves."""

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str], data: bytes | None, timeout: float | None, follow: bool
    ) -> AbstractAsyncContextManager[ClientResponse]: ...


class Fetch(msgspec.Struct, frozen=True, tag_field="k", tag="fetch"):
    """`b` is a body of text, `x` one of bytes in base64."""

    i: int
    u: str
    m: str
    h: list[tuple[str, str]]
    r: Literal["follow", "error", "manual"]
    b: str | None = None
    x: str | None = None


class Read(msgspec.Struct, frozen=True, tag_field="k", tag="read"):
    """The next piece of the answer to operation `s`."""

    i: int
    s: int


class BadRequest(Exception):
    """The body asked for something that can't be a request; the message is for its author."""


class Exchange:
    """`run` is awaited by a task that owns the connection. `opens` is asked when the answer is about to be open: it may refuse in
    words. `answered`: the fetch has its answer, whole or open, or its error."""

    def __init__(self, request: Fetch, say: Say, opens: Callable[[], str | None]) -> None:
        self._request, self._say, self._opens = request, say, opens
        self._head: dict[str, Any] = {}
        self._parts: deque[bytes] = deque()
        self._held = self._total = 0
        self._room = asyncio.Event()
        self._reader = 0  # the operation that waits for a piece
        self._error: Mapping[str, Any] | None = None
        self._ended = False
        self.answered = False
        self.finished = False  # nothing more comes of it

    async def run(self, scope: Callable[[], Scope], timeout: float) -> None:
        """Never raises but CancelledError: what goes wrong is an answer."""
        try:
            await self._run(scope(), timeout)
        except RootlinkError as error:
            self._fail({"e": error.message, "n": "EgressBlocked" if isinstance(error, EgressBlocked) else "TypeError"})
        except BadRequest as error:
            self._fail({"e": f"fetch: {error}"})
        except Exception as error:  # noqa: BLE001  whatever the network does is the body's to handle
            log.warning("fetch failed", error=type(error).__name__)
            words = str(error)[:300].encode(errors="replace").decode()
            self._fail({"e": f"fetch failed: {words or type(error).__name__}"})

    def read(self, operation: int) -> None:
        """Answers with the next piece, now or when there is one."""
        if self._reader or not self.answered or self.finished:
            self._say(operation, {"e": "the answer is closed, or is being read already"})
            return
        self._reader = operation
        self._give()

    async def _run(self, scope: Scope, timeout: float) -> None:
        request = self._request
        headers, follow = headers_of(request), request.r == "follow"
        data = await _data(request)
        async with scope.request(request.m, request.u, headers=headers, data=data, timeout=timeout, follow=follow) as response:
            if request.r == "error" and response.status in _REDIRECTS:
                raise BadRequest("the answer is a redirect, and redirect is 'error'")
            self._head = head_of(request, response)
            delay = 0.0 if response.headers.get("Content-Type", "").startswith("text/event-stream") else GRACE_SECS
            overdue = asyncio.get_running_loop().call_later(delay, self._open)
            try:
                async for part in response.content.iter_any():
                    await self._take(part)
            finally:
                overdue.cancel()
        self._end()

    async def _take(self, part: bytes) -> None:
        self._total += len(part)
        if self._total > MAX_ANSWER:
            raise BadRequest(f"the answer is larger than {MAX_ANSWER} bytes")
        self._parts.append(part)
        self._held += len(part)
        if not self.answered and self._held > PIECE:
            self._open()
        self._give()
        while self.answered and self._held >= READ_AHEAD:
            self._room.clear()
            await self._room.wait()

    def _open(self) -> None:
        if self.answered:
            return
        refusal = self._opens()
        if refusal is None:
            self._first({**self._head, "x": _base64(self._cut()), "o": True})
        else:
            self._first({"e": refusal, "n": "LimitError"})
            self.finished = True

    def _end(self) -> None:
        self._ended = True
        if self.answered:
            self._give()
            return
        body = b"".join(self._parts)
        try:
            self._first({**self._head, "t": body.decode()})
        except UnicodeDecodeError:
            self._first({**self._head, "x": _base64(body)})
        self.finished = True

    def _fail(self, error: Mapping[str, Any]) -> None:
        self._error = error
        if self.answered:
            self._give()
        else:
            self._first(error)
            self.finished = True

    def _first(self, answer: Mapping[str, Any]) -> None:
        self.answered = True
        self._say(self._request.i, answer)

    def _give(self) -> None:
        """A piece, the end or the error, to who waits for it."""
        if not self._reader or not (self._held or self._ended or self._error):
            return
        answer: Mapping[str, Any]
        if self._held or self._error is None:
            piece = self._cut()
            self.finished = self._ended and not self._held
            answer = {"x": _base64(piece), "d": self.finished}
        else:
            self.finished, answer = True, self._error
        operation, self._reader = self._reader, 0
        self._say(operation, answer)

    def _cut(self) -> bytes:
        """The next piece out of what is held."""
        pieces, size = [], 0
        while self._parts and size < PIECE:
            part = self._parts.popleft()
            if size + len(part) > PIECE:
                self._parts.appendleft(part[PIECE - size :])
                part = part[: PIECE - size]
            pieces.append(part)
            size += len(part)
        self._held -= size
        self._room.set()
        return b"".join(pieces)


def headers_of(request: Fetch) -> dict[str, str]:
    """Raises BadRequest when there are too many."""
    if len(request.h) > MAX_HEADERS or sum(len(name) + len(value) for name, value in request.h) > MAX_HEADER_CHARS:
        raise BadRequest(f"at most {MAX_HEADERS} headers, of {MAX_HEADER_CHARS} characters together, are allowed")
    return _joined(request.h)


def head_of(request: Fetch, response: ClientResponse) -> dict[str, Any]:
    """Everything of an answer but its body. Bytes of a header are Latin-1, as the Fetch standard has it."""
    headers = [(name.lower(), _latin(value).strip(" \t\r\n")) for name, value in response.headers.items()]
    if len(headers) > MAX_ANSWER_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_ANSWER_HEADER_CHARS:
        raise BadRequest(f"the answer has more than {MAX_ANSWER_HEADERS} headers, or too long ones")
    url = str(response.url)
    asked = urls.read(request.u) if request.r == "follow" else None
    redirected = isinstance(asked, urls.Target) and str(asked.url.with_fragment(None)) != url
    return {"s": response.status, "st": _latin(response.reason or ""), "u": url, "d": redirected, "h": headers}


def _latin(value: str) -> str:
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("latin-1")


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names in lower case, each once, values of the same name joined as HTTP says, without space around."""
    joined: dict[str, str] = {}
    for name, value in pairs:
        key, value = name.lower(), value.strip(" \t\r\n")
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


async def _data(request: Fetch) -> bytes | None:
    if request.x is None:
        return None if request.b is None else request.b.encode()
    return _bytes(request.x) if len(request.x) <= SLOW_BYTES else await asyncio.to_thread(_bytes, request.x)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise BadRequest("the data is not base64") from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
