"""What the host does for one call: fetch, timers, digests, HMAC. Each is numbered by the isolate and answered once with JSON.

An answer with `e` is an error's message for the body, `n` its name. Where a request may go, for every hop, and what a method or a
header may be is decided by the engine's `outbound`; nothing here parses a URL.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec
import structlog

from rootlink.engine.outbound import read_capped
from rootlink.errors import EgressBlocked, RootlinkError

if TYPE_CHECKING:
    from aiohttp import ClientResponse

MAX_OPERATIONS: Final = 1000
MAX_FETCHES_AT_ONCE: Final = 8
MAX_RESPONSE_BYTES: Final = 4 << 20
MAX_HEADERS, MAX_HEADER_CHARS = 64, 32 << 10
SMALL_BYTES: Final = 256 << 10  # hashed on the event loop; more goes to a thread

_HASHES: Final = {"SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}

log = structlog.get_logger(__name__)


class Scope(Protocol):
    """The part of `outbound.Scope` a function needs. Raises EgressBlocked before any packet leaves."""

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str], data: bytes | None, timeout: float | None, follow: bool
    ) -> AbstractAsyncContextManager[ClientResponse]: ...


class Outbound(Protocol):
    """`connection` is whom a decision is recorded for; `hosts` narrows what it may reach."""

    def scope(self, connection: str, hosts: list[str] | None) -> Scope: ...


class Fetch(msgspec.Struct, frozen=True, tag_field="k", tag="fetch"):
    """`b` is a body of text, `x` one of bytes in base64."""

    i: int
    u: str
    m: str
    h: list[tuple[str, str]]
    r: Literal["follow", "error", "manual"]
    b: str | None = None
    x: str | None = None


class Timer(msgspec.Struct, frozen=True, tag_field="k", tag="timer"):
    i: int
    ms: float


class Digest(msgspec.Struct, frozen=True, tag_field="k", tag="digest"):
    i: int
    a: str
    x: str


class Hmac(msgspec.Struct, frozen=True, tag_field="k", tag="hmac"):
    i: int
    a: str
    key: str
    x: str


class Cancel(msgspec.Struct, frozen=True, tag_field="k", tag="cancel"):
    """The body no longer wants the answer to operation `i`."""

    i: int


Operation = Fetch | Timer | Digest | Hmac | Cancel


Deliver = Callable[[int, bytes], None]
"""Hands an answer's JSON to the isolate: the operation's number, the answer."""


class BadRequest(Exception):
    """The body asked for something that can't be a request; the message is for its author."""


class Operations:
    """Of one call; it owns their tasks and timers until `close`."""

    def __init__(self, scope: Callable[[], Scope], deliver: Deliver, deadline: float) -> None:
        """`deadline` is of the loop's clock."""
        self._scope, self._deliver, self._deadline = scope, deliver, deadline
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._slots = asyncio.Semaphore(MAX_FETCHES_AT_ONCE)
        self._seen = 0

    def take(self, operation: Operation) -> None:
        if isinstance(operation, Cancel):
            self._cancel(operation.i)
            return
        self._seen += 1
        if self._seen > MAX_OPERATIONS or operation.i in self._tasks or operation.i in self._timers:
            self._answer(operation.i, {"e": f"too many host operations: at most {MAX_OPERATIONS} a run", "n": "LimitError"})
        elif isinstance(operation, Timer):
            self._timers[operation.i] = self._loop.call_later(max(operation.ms, 0) / 1000, self._ring, operation.i)
        elif isinstance(operation, Fetch):
            self._start(operation.i, self._fetch(operation))
        elif len(operation.x) <= SMALL_BYTES:
            self._answer(operation.i, compute(operation))
        else:
            self._start(operation.i, asyncio.to_thread(compute, operation))

    async def close(self) -> None:
        """Returns when nothing runs any more."""
        for timer in self._timers.values():
            timer.cancel()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _answer(self, operation: int, value: Mapping[str, Any]) -> None:
        self._deliver(operation, msgspec.json.encode(value))

    def _ring(self, operation: int) -> None:
        del self._timers[operation]
        self._answer(operation, {})

    def _cancel(self, operation: int) -> None:
        timer, task = self._timers.pop(operation, None), self._tasks.get(operation)
        if timer is not None:
            timer.cancel()
        if task is not None:
            task.cancel()

    def _start(self, operation: int, work: Any) -> None:
        task = self._tasks[operation] = self._loop.create_task(self._finish(operation, work))
        task.add_done_callback(lambda _: self._tasks.pop(operation, None))

    async def _finish(self, operation: int, work: Any) -> None:
        self._answer(operation, await work)

    async def _fetch(self, request: Fetch) -> dict[str, Any]:
        async with self._slots:
            left = self._deadline - self._loop.time()
            try:
                return await fetch(self._scope(), request, left)
            except RootlinkError as error:
                return {"e": error.message, "n": "EgressBlocked" if isinstance(error, EgressBlocked) else "TypeError"}
            except BadRequest as error:
                return {"e": f"fetch: {error}"}
            except Exception as error:  # noqa: BLE001  whatever the network does is the body's to handle
                log.warning("fetch failed", error=type(error).__name__)
                return {"e": f"fetch failed: {str(error)[:300] or type(error).__name__}"}


async def fetch(scope: Scope, request: Fetch, timeout: float) -> dict[str, Any]:
    """Make the request and read its whole answer. Raises what `Scope.request` and `read_capped` raise, and BadRequest."""
    if len(request.h) > MAX_HEADERS or sum(len(name) + len(value) for name, value in request.h) > MAX_HEADER_CHARS:
        raise BadRequest(f"at most {MAX_HEADERS} headers, of {MAX_HEADER_CHARS} characters together, are allowed")
    headers, data, follow = _joined(request.h), body_of(request), request.r == "follow"
    async with scope.request(request.m, request.u, headers=headers, data=data, timeout=timeout, follow=follow) as response:
        if request.r == "error" and 300 <= response.status < 400:
            raise BadRequest("the answer is a redirect, and redirect is 'error'")
        body = await read_capped(response, MAX_RESPONSE_BYTES)
    answer = {"s": response.status, "u": str(response.url), "h": list(_joined(response.headers.items()).items())}
    try:
        return {**answer, "t": body.decode()}
    except UnicodeDecodeError:
        return {**answer, "x": base64.b64encode(body).decode()}


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names in lower case, each once, values of the same name joined as HTTP says, without space around."""
    joined: dict[str, str] = {}
    for name, value in pairs:
        key, value = name.lower(), value.strip(" \t\r\n")
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


def body_of(request: Fetch) -> bytes | None:
    if request.x is not None:
        return _bytes(request.x)
    return None if request.b is None else request.b.encode()


def compute(operation: Digest | Hmac) -> dict[str, str]:
    """A digest or an HMAC, in base64 as `x`."""
    name = _HASHES.get(operation.a)
    if name is None:
        return {"e": f"the hash {operation.a[:40]} is not supported", "n": "NotSupportedError"}
    try:
        data = _bytes(operation.x)
        key = _bytes(operation.key) if isinstance(operation, Hmac) else None
    except BadRequest as error:
        return {"e": str(error)}
    digest = hashlib.new(name, data).digest() if key is None else hmac.digest(key, data, name)
    return {"x": base64.b64encode(digest).decode()}


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise BadRequest("the data is not base64") from None
