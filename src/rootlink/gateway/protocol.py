"""uvicorn's httptools protocol, with what an ASGI application cannot see or do.

a target that is not origin-form     refused (httptools drops the authority of an absolute one, so it would pass as a path)
a head that does not end             refused at `MOST_HEAD` bytes and after `HEAD_SECS` (uvicorn waits for ever and keeps it)
what does not parse                  answered with the envelope; never into the middle of another answer
a body nobody reads                  may come for `LINGER_SECS` and `LINGER_BYTES` more after the answer, and is thrown away;
                                     then the end. `linger` says so even to a connection whose client asked for its end
too many connections                 `crowd.py` says which are closed, or that a new one is
abort                                `scope["extensions"]["rootlink.abort"]` drops the connection with what it has buffered
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from rootlink.errors import Invalid, RootlinkError, TooLarge, Unavailable, envelope
from rootlink.gateway.auth import address_of
from rootlink.gateway.crowd import Crowd
from rootlink.gateway.guard import MOST_HEADER_BYTES
from rootlink.http_server import ServerProtocol

MOST_HEAD = MOST_HEADER_BYTES + 16 * 1024  # and the request line, and the punctuation
HEAD_SECS = 10.0
LINGER_SECS = 5.0
LINGER_BYTES = 64 << 20
ABORT, UNREAD, LINGER = "rootlink.abort", "rootlink.unread", "rootlink.linger"


def abort_of(scope: Scope) -> Callable[[], None] | None:
    """How to drop the connection of this request, when the server can."""
    found: Callable[[], None] | None = (scope.get("extensions") or {}).get(ABORT)
    return found


def unread(scope: Scope) -> bool:
    """Whether some of this request's body is still to come."""
    ask = (scope.get("extensions") or {}).get(UNREAD)
    return ask is not None and ask(scope)


def is_whole(scope: Scope) -> bool:
    """Whether all of this request's body is here, so that `receive()` does not wait for it."""
    ask = (scope.get("extensions") or {}).get(UNREAD)
    return ask is not None and not ask(scope)


def linger(scope: Scope) -> None:
    """Before the last of an answer to an `unread` request: take in what still comes, instead of a close that resets."""
    scope["extensions"][LINGER]()


class Refused(Exception):
    """Raised inside the parser's callbacks, which makes it stop."""


class GatewayProtocol(ServerProtocol):
    _refusal: RootlinkError | None = None
    _in_head = True
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _lingering: int | None = None  # bytes that may still come

    def __init__(self, *args: Any, crowd: Crowd | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._crowd = Crowd(1) if crowd is None else crowd
        self.address = "?"

    # connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = address_of({"client": self.client})
        if not self._crowd.come(self):
            self._refusal = Unavailable("The gateway has as many connections as it may; try again")
            self.send_400_response("")
            return
        self._arm(HEAD_SECS, self._head_is_late)

    def data_received(self, data: bytes) -> None:
        if self._lingering is not None:
            self._lingering -= len(data)
            if self._lingering < 0:
                self._abort()
                return
        super().data_received(data)
        if self._in_head and self.parser is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD:
                self._refusal = TooLarge(f"The request's head is larger than {MOST_HEAD} bytes")
                self.send_400_response("")
            elif self._timer is None:
                self._arm(HEAD_SECS, self._head_is_late)
                self._crowd.headless(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._crowd.leave(self)
        super().connection_lost(exc)

    # parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        more: dict[str, Any] = {ABORT: self._abort, UNREAD: self._is_unread, LINGER: self._linger}
        self.scope["extensions"].update(more)

    def on_headers_complete(self) -> None:
        if not self.url.startswith(b"/") or b"#" in self.url:
            self._refusal = Invalid("The request target must be a path, like /v1/projects")
            raise Refused
        self._in_head = False
        self._disarm()
        self._crowd.busy(self)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        late = self.cycle.response_complete
        super().on_message_complete()
        if late:
            self.transport.close()

    # answers

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.cycle.response_complete or self.transport.is_closing():
            return
        self._crowd.idle(self)
        if self.cycle.more_body:
            self._lingering = LINGER_BYTES
            self._arm(LINGER_SECS, self._abort)

    def send_400_response(self, msg: str) -> None:
        self._disarm()
        if not self._may_refuse():
            self._abort()
            return
        if self.cycle is not None:
            self.cycle.disconnected = True  # whoever works on it has nobody to answer any more
        error = self._refusal or Invalid("The request is not well-formed HTTP/1.1")
        body = msgspec.json.encode(envelope(error))
        head = [STATUS_LINE[error.status], b"content-type: application/json\r\nconnection: close\r\n"]
        if isinstance(error, Unavailable):
            head.append(b"retry-after: 1\r\n")
        head.append(b"content-length: ")
        self.transport.write(b"".join([*head, str(len(body)).encode(), b"\r\n\r\n", body]))
        self.transport.close()

    def _may_refuse(self) -> bool:
        """Whether the next answer due is to what does not parse; if it is another's, our bytes would be read as part of that."""
        if self.cycle is None or self.cycle.response_complete:
            return True
        return self.cycle.more_body and not self.cycle.response_started and not self.pipeline

    def _unsupported_upgrade_warning(self) -> None:
        """An Upgrade (h2c, websocket) is passed over, as HTTP allows; it is no event worth a log line."""

    def _head_is_late(self) -> None:
        self._timer = None
        if not self._head_bytes:
            self.transport.close()
            return
        self._refusal = Invalid(f"The request's head did not arrive within {HEAD_SECS:.0f} s")
        self.send_400_response("")

    def _is_unread(self, scope: Scope) -> bool:
        """`self.cycle` is of another request when this one is whole and the next one has begun."""
        return self.cycle.scope is scope and self.cycle.more_body

    def _linger(self) -> None:
        self.cycle.keep_alive = True  # or uvicorn closes at once; `Connection: close` is out already, and it is closed after all

    def shed(self) -> None:
        """`Crowd` has no place for it any more."""
        self._abort()

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _arm(self, secs: float, act: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self.loop.call_later(secs, act)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
