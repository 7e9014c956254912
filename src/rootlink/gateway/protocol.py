"""uvicorn's httptools protocol, with what an ASGI application cannot see or do.

a target that is not origin-form     refused (httptools drops the authority of an absolute one, so it would pass as a path)
a head that does not end             refused at `MOST_HEAD` bytes and after `HEAD_SECS` (uvicorn waits for ever and keeps it)
what does not parse                  answered with the envelope; never into the middle of another answer
a body nobody reads                  may come for `LINGER_SECS` more after the answer, so the client can read it; then the end
abort                                `scope["extensions"]["rootlink.abort"]` drops the connection with what it has buffered
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from rootlink.errors import Invalid, RootlinkError, TooLarge, envelope
from rootlink.gateway.guard import MOST_HEADER_BYTES

MOST_HEAD = MOST_HEADER_BYTES + 16 * 1024  # and the request line, and the punctuation
HEAD_SECS = 10.0
LINGER_SECS = 2.0
ABORT = "rootlink.abort"


def abort_of(scope: Scope) -> Callable[[], None] | None:
    """How to drop the connection of this request, when the server can."""
    found: Callable[[], None] | None = (scope.get("extensions") or {}).get(ABORT)
    return found


class Refused(Exception):
    """Raised inside the parser's callbacks, which makes it stop."""


class GatewayProtocol(HttpToolsProtocol):
    _refusal: RootlinkError | None = None
    _in_head = True
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    # connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm(HEAD_SECS, self._head_is_late)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and self.parser is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD:
                self._refusal = TooLarge(f"The request's head is larger than {MOST_HEAD} bytes")
                self.send_400_response("")
            elif self._timer is None:
                self._arm(HEAD_SECS, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    # parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self.scope["extensions"] = {ABORT: self._abort}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        if not self.url.startswith(b"/") or b"#" in self.url:
            self._refusal = Invalid("The request target must be a path, like /v1/projects")
            raise Refused
        self._in_head = False
        self._disarm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        late = self.cycle.response_complete
        super().on_message_complete()
        if late:
            self.transport.close()

    # answers

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
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
        head = [STATUS_LINE[error.status], b"content-type: application/json\r\nconnection: close\r\ncontent-length: "]
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
