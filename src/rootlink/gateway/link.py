"""HTTP/1.1 to another program of ours over a unix socket: to an engine (the hot path) and to the provisioner.

Why not a general client: it cannot say what the relay must know, whether a request that failed was *taken*. A unix socket
can say that exactly (Linux, `unix_release_sock`; tried here with asyncio and uvloop). It also costs less: a bare hop through
uvicorn and this took 0.06 ms CPU, through uvicorn and aiohttp 0.12 to 0.18 in the same run, and aiohttp is not imported.

    the peer went away …                                    we see           so
    with bytes of ours unread, or before it accepted us     ECONNRESET       not taken: `Untaken`, safe to send again
    before all was written                                  EPIPE            not taken: `Untaken`
    after it had read the whole request                     end of file      may have run: `Broken`, never sent again

Rule 1: one request at a time on a link; a link whose answer was not read to its end is never used again.
Rule 2: at most `HIGH` bytes and one read of `READ` wait for a slow reader; then the socket is not read.
Rule 3: `abort` may come at any moment, from any callback; whoever waits on the link gets `Aborted`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

READ = 32 * 1024  # bytes; asyncio's own reads are 256 KiB, which with 200 slow readers are 50 MiB
SMALL = 16 * 1024  # bytes of a body below which one write is cheaper than no copy
HIGH = 32 * 1024  # bytes waiting for the reader at which the socket is no longer read
IDLE = 4.0  # seconds a link may wait in the pool; less than the 5 s after which the servers close theirs

Header = tuple[bytes, bytes]

_INBOX = memoryview(bytearray(READ))  # of every link: what is read is parsed, and so copied, before the next one reads


class LinkError(Exception):
    """Root of what can go wrong on a link; never shown to a client as it is."""


class Untaken(LinkError):
    """The other side did not take the request: it may be sent again."""


class Broken(LinkError):
    """The other side went away, or spoke no HTTP, after the request was taken."""


class Aborted(LinkError):
    """`abort` was called on this side."""


class Link(asyncio.BufferedProtocol):
    """One connection. `ask`, then `chunk` until it gives `b""`, then `release` (always, also after an error)."""

    def __init__(self, release: Callable[[Link], None]) -> None:
        self._release = release
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: LinkError | None = None
        self._answered = False  # a first byte of the answer has come
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.complete = False
        self._head = False
        self._framed = False
        self._reusable = False
        self._size = 0
        self._paused = False
        self._chunks: deque[bytes] = deque()

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of asyncio's

    def get_buffer(self, sizehint: int) -> memoryview:
        return _INBOX

    def buffer_updated(self, nbytes: int) -> None:
        self._answered = True
        try:
            self._parser.feed_data(_INBOX[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Broken("the answer is not HTTP"))
            self.abort()
            return
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and self._head and not self._framed:
            self.complete = True
        elif isinstance(exc, OSError) and not self._answered:
            self._fail(Untaken(str(exc)))
        else:
            self._fail(Broken("the connection ended before the answer did"))
        self._transport = None
        self._wake()

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return
        names = {name for name, _ in self.headers}
        self._framed = b"content-length" in names or b"transfer-encoding" in names or self.status in (204, 304)
        self._head = True

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._size += len(body)
        if self._size > HIGH and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.status < 200:
            self.headers = []
            return
        self.complete = True
        self._reusable = self._framed and self._parser.should_keep_alive()  # true in this callback only

    # what the pool and the relay call

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and self._error is None

    @property
    def written(self) -> bool:
        """Whether nothing of the request waits here any more."""
        return self._transport is None or self._transport.get_write_buffer_size() == 0

    async def ask(self, head: bytes, body: bytes = b"") -> None:
        """Send a whole request; returns when the answer's head is here. Raises `Untaken`, `Broken`, `Aborted`."""
        self._reset()
        self._answered = False
        if self._transport is None:
            raise Untaken("the connection is closed")
        if len(body) > SMALL:
            self._transport.write(head)
            self._transport.write(body)  # as it is: a copy of every large body would double what is held
        else:
            self._transport.write(head + body)
        while not self._head:
            await self._wait()

    async def chunk(self) -> bytes:
        """The next bytes of the answer's body; `b""` at its end. Raises `Broken`, `Aborted`."""
        while not self._chunks:
            if self.complete:
                return b""
            await self._wait()
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def body(self, limit: int) -> bytes:
        """The rest of the answer's body; `Broken` beyond `limit` bytes."""
        parts: list[bytes] = []
        left = limit
        while part := await self.chunk():
            parts.append(part)
            left -= len(part)
            if left < 0:
                raise Broken(f"the answer is longer than {limit} bytes")
        return b"".join(parts)

    def abort(self) -> None:
        """Give up at once: the other side sees the connection end."""
        self._fail(Aborted("given up"))
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def release(self) -> None:
        """Done with this answer: back to the pool when it was read to its end, else closed."""
        if self._reusable and not self._chunks and self.usable and self.written:
            self._release(self)
        elif self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: LinkError) -> None:
        if self._error is None and not self.complete:
            self._error = error

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Links:
    """The pool of links to one unix socket."""

    def __init__(self, path: str, *, idle: float = IDLE) -> None:
        self.path = path
        self._idle_secs = idle
        self._idle: list[tuple[float, Link]] = []
        self._closed = False
        self._sweep: asyncio.TimerHandle | None = None

    async def take(self) -> Link:
        """An idle link, or a new one. Raises `Untaken` when nobody listens."""
        while self._idle:
            _, link = self._idle.pop()
            if link.usable:
                return link
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_unix_connection(lambda: Link(self._give), self.path)
        except OSError as error:
            raise Untaken(f"nobody listens on {self.path}: {error.strerror}") from None
        return link

    def close(self) -> None:
        """Idle links are closed now, those in use when they are released."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for _, link in self._idle:
            link.close()
        self._idle.clear()

    def _give(self, link: Link) -> None:
        if self._closed:
            link.close()
            return
        loop = asyncio.get_running_loop()
        self._idle.append((loop.time(), link))
        if self._sweep is None:
            self._sweep = loop.call_later(self._idle_secs, self._expire)

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._idle_secs
        kept = [(since, link) for since, link in self._idle if since > oldest and link.usable]
        gone = [link for since, link in self._idle if since <= oldest]
        self._idle = kept
        for link in gone:
            link.close()
        self._sweep = loop.call_later(self._idle_secs / 2, self._expire) if kept else None


def request(method: bytes, target: bytes, headers: list[Header], length: int = 0) -> bytes:
    """The head of a request with a body of `length` bytes. `headers` hold no framing and no hop-by-hop header; `target` is
    origin-form, already checked."""
    parts = [method, b" ", target, b" HTTP/1.1\r\n"]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    if length or method not in (b"GET", b"DELETE"):
        parts += (b"content-length: ", str(length).encode(), b"\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)
