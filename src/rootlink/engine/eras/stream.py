"""Server-sent events to one client.

- Writing never waits for the client: frames queue up to `LIMIT`, and a client that does not read them is dropped.
- A comment every 15 s keeps proxies from closing a quiet stream.
- The stream watches `receive()`: after a disconnect uvicorn's `send()` returns silently, and a writer that does not watch
  would go on for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Send

LIMIT = 1000
PING_SECS = 15.0
HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


def event(data: bytes, name: str = "message") -> bytes:
    """One event. JSON holds no raw line break, so one `data` line is enough."""
    return b"event: " + name.encode() + b"\r\ndata: " + data + b"\r\n\r\n"


class EventStream:
    """One client's stream. `push` from anywhere on the loop; `serve` writes until `end`, a disconnect, or overflow."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.open = True

    def push(self, frame: bytes) -> bool:
        """Queue one frame; False when nobody is reading (the stream ended, or the client is too slow and is dropped)."""
        if not self.open:
            return False
        if self._frames.qsize() >= LIMIT:
            self.end()
            return False
        self._frames.put_nowait(frame)
        return True

    def end(self) -> None:
        if self.open:
            self.open = False
            self._frames.put_nowait(None)

    async def serve(self, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        watcher = asyncio.ensure_future(self._watch(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS + (headers or [])})
            await self._write(send)
        finally:
            self.open = False
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        while True:
            try:
                async with asyncio.timeout(PING_SECS):
                    frame = await self._frames.get()
            except TimeoutError:
                frame = b": ping\r\n\r\n"
            await send(_body(frame or b"", more=frame is not None))
            if frame is None:
                return

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end()


def _body(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}
