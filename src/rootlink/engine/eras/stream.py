"""Server-sent events to one client.

- Writing never waits for the client: frames queue up to `LIMIT` and `LIMIT_BYTES`; a client that does not read them is dropped.
- What has gathered while a write was under way goes in one write.
- A comment every 15 s keeps proxies from closing a quiet stream.
- The stream watches `receive()`: after a disconnect uvicorn's `send()` returns silently, and a writer that does not watch
  would go on for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from starlette.types import Receive, Send

LIMIT = 1000
LIMIT_BYTES = 32 << 20
PING_SECS = 15.0
PING = b": ping\r\n\r\n"
HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


def event(data: bytes, name: str = "message", id: bytes = b"") -> bytes:
    """One event. JSON holds no raw line break, so one `data` line is enough."""
    numbered = b"id: " + id + b"\r\n" if id else b""
    return b"event: " + name.encode() + b"\r\n" + numbered + b"data: " + data + b"\r\n\r\n"


class EventStream:
    """One client's stream. `push` from anywhere on the loop; `serve` writes until `end`, a disconnect, or overflow."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._held = 0
        self._waiting: asyncio.Future[None] | None = None
        self.open = True

    def push(self, frame: bytes) -> bool:
        """Queue one frame; False when nobody is reading (the stream ended, or the client is too slow and is dropped)."""
        if not self.open:
            return False
        if self._frames and (len(self._frames) >= LIMIT or self._held + len(frame) > LIMIT_BYTES):
            self._frames.clear()
            self.end()
            return False
        self._frames.append(frame)
        self._held += len(frame)
        self._stir()
        return True

    def end(self) -> None:
        """What is queued is still written."""
        self.open = False
        self._stir()

    async def serve(self, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        watcher = asyncio.ensure_future(self._watch(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS + (headers or [])})
            if not self._frames:
                await send(_body(b"", more=True))  # the head waits for the first of the body (http_server.py)
            await self._write(send)
        finally:
            self.open = False
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        more = True
        while more:
            if self.open and not self._frames:
                await self._stirred()
            data, more = self._gathered(), self.open
            await send(_body(data or (PING if more else b""), more=more))

    def _gathered(self) -> bytes:
        data = b"".join(self._frames)
        self._frames.clear()
        self._held = 0
        return data

    async def _stirred(self) -> None:
        """Until something is queued, or the end, or it has been quiet for `PING_SECS`."""
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        quiet = loop.call_later(PING_SECS, self._stir)
        try:
            await self._waiting
        finally:
            quiet.cancel()
            self._waiting = None

    def _stir(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._frames.clear()
        self.end()


def _body(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}
