"""uvicorn's httptools protocol as gateway and engines serve with it.

an answer is one write       uvicorn writes the head when the application starts its answer, and uvloop sends what is written at
                             once: a system call more here, a wake-up more at the other end, and a reader that has half an answer.
                             ASGI has the head wait for the first of the body, so whoever streams begins with an empty body
a client that goes away      `on_leave` names who is told, without a task that watches `receive()` (a task costs 15 to 25 µs)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SMALL = 16 * 1024  # bytes of a body below which one write is cheaper than no copy
LEAVE = "rootlink.leave"
_INTERIM = b"HTTP/1.1 100 "


def on_leave(scope: Scope, tell: Callable[[], object] | None) -> bool:
    """`tell` is called once if the client goes away while this request is worked on; None: nobody is told any more. False: this
    server can't do that. To be asked when the body is read: whoever left before is told by `receive()`."""
    name = (scope.get("extensions") or {}).get(LEAVE)
    if name is None:
        return False
    name(tell)
    return True


class Corked:
    """The transport one answer is written to: its head waits for the first of its body. Not for answers to HEAD, without one."""

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None  # b"" once it is out

    def write(self, data: bytes) -> None:
        if self._head is None:
            if not data.startswith(_INTERIM):
                self._head = data
                return
        elif self._head:
            head, self._head = self._head, b""
            if len(data) > SMALL:
                self._transport.write(head)
            else:
                data = head + data
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()


class ServerProtocol(HttpToolsProtocol):
    _leave: Callable[[], object] | None = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {LEAVE: self._on_leave}
        self.scope["extensions"] = extensions

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.scope["method"] != "HEAD":
            self.cycle.transport = cast(asyncio.Transport, Corked(self.transport))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    def _on_leave(self, tell: Callable[[], object] | None) -> None:
        self._leave = tell
        if tell is not None:
            self.flow.resume_reading()  # paused by a large body's last piece, the transport would not see the connection end
