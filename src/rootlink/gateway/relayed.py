"""One request on its way to an engine: which of its headers go along, and what may happen to it meanwhile.

the client leaves (`left`)       its request to the engine ends at once
we end it (`end`)                a shutdown, or the key is revoked; an event stream then ends properly
the engine ends it               `pump` tells how
nobody reads                     after `write_secs` the client's connection is dropped, with what it has buffered
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto

import structlog
from starlette.types import Scope, Send

from rootlink.gateway.answers import Gone, WrongMethod
from rootlink.gateway.budget import Share
from rootlink.gateway.engines import Engine
from rootlink.gateway.eventids import Progress
from rootlink.gateway.guard import Head
from rootlink.gateway.link import Aborted, Broken, Header, Link, request
from rootlink.gateway.protocol import abort_of
from rootlink.gateway.refusals import died, refusals
from rootlink.records import Key
from rootlink.wire.engine import ENGINE_HEADER, KEY_HEADER, PRINCIPAL_HEADER, SCOPES_HEADER, STREAM_HEADER

log = structlog.get_logger(__name__)

AGAIN_SECS = 1.0  # between two tries to go on with a stream
METHODS = {"/mcp": ["DELETE", "GET", "POST"], "/engine": ["DELETE", "GET", "POST", "PUT"]}

HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer trailers transfer-encoding"
    b" upgrade http2-settings".split()
)
_NOT_FORWARDED = HOP | frozenset(
    b"authorization content-length content-encoding cookie expect forwarded origin x-real-ip".split()
)
_NOT_RETURNED = HOP | frozenset((b"date", b"server", b"set-cookie"))
_OURS = (b"x-rootlink-", b"x-forwarded-")
_STOPPING = (ENGINE_HEADER.encode(), b"stopping")
_LISTEN = (b"mcp-method", b"subscriptions/listen")  # the protocol wants this header, and the engine compares it with the body
_CANCELLED = tuple((b"content-type", kind) for kind in (b"text/plain; charset=utf-8", b"text/plain"))  # ours are JSON
_SPOILT = b"\nevent: broken-off\n\n"  # ends half an event as one of a kind nobody listens to: MCP's are all `message`
_STREAM = STREAM_HEADER.encode()
_OF_A_CALL = (_STREAM, b"call")  # the engine: this is the rest of a call's answer
_AGAIN = (_STREAM, b"again")  # to the engine: the client has had the beginning of this stream, from it or from one before it
_LAST_ID = b"last-event-id"


class End(Enum):
    """How a stream ended."""

    WHOLE = auto()
    BETWEEN = auto()  # it broke off between two events, or half of one was made harmless
    WITHIN = auto()  # it broke off in the middle of something, and can't be made whole
    OURS = auto()  # we ended it

    @property
    def may_go_on(self) -> bool:
        return self in (End.WHOLE, End.BETWEEN)


class Relayed:
    """`ask` an engine, then look at `answer`, then `release`."""

    engine: Engine  # the one asked last

    def __init__(self, scope: Scope, head: Head, key: Key, share: Share, write_secs: float) -> None:
        self.key = key
        self.body = b""
        self._share = share
        self._last_words = b""
        self.gone = False
        self.ended = False
        self._link: Link | None = None
        self._head = head
        self._method: str = scope["method"]
        self._path: str = scope["path"]
        self._root = "/mcp" if self._path.startswith("/mcp") else "/engine"
        self._target: bytes = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        self._abort: Callable[[], None] | None = abort_of(scope)
        self._write_secs = write_secs
        self._patience: asyncio.Timeout | None = None
        self._resumed_at = 0.0
        self._again = False
        self._progress: Progress | None = None
        self._generation = 0  # of the engine whose stream `_progress` is about

    @property
    def is_rpc(self) -> bool:
        return self._root == "/mcp" and self._method == "POST"

    @property
    def sets_triggers(self) -> bool:
        return self._method == "PUT" and self._root == "/engine" and self._path.endswith("/triggers")

    @property
    def is_held(self) -> bool:
        """Whether the answer is a stream of notices. That of 2024-11-05 is none: its session lives and dies with it."""
        return self._is_notices and is_events(self.answer.headers) and _OF_A_CALL not in self.answer.headers

    @property
    def _is_notices(self) -> bool:
        if self._root != "/mcp" or self._path.endswith("/sse"):
            return False
        return self._method == "GET" or _LISTEN in self._head.headers

    @property
    def over(self) -> bool:
        return self.gone or self.ended

    @property
    def answer(self) -> Link:
        assert self._link is not None
        return self._link

    @property
    def turned_away(self) -> bool:
        """The engine answered that it did nothing: it stops, or our key is of an earlier spawn."""
        link = self.answer
        return (link.status == 503 and _STOPPING in link.headers) or link.status == 401

    @property
    def broken_off(self) -> bool:
        """The engine stopped while it worked on this. Its HTTP server says so with 500 in plain text, or it does itself with 502,
        which of `/mcp` means nothing else: what servers get wrong is said in JSON-RPC."""
        answer = self.answer
        if answer.status == 500:
            return any(header in answer.headers for header in _CANCELLED)
        return answer.status == 502 and self.is_rpc

    def check_method(self) -> None:
        allowed = METHODS[self._root]
        if self._method not in allowed:
            raise WrongMethod(self._method, allowed)

    # to the engine

    async def ask(self, engine: Engine) -> None:
        """Send the request and wait for the head of the answer. Raises what `Link.ask` does."""
        head = request(self._method.encode("ascii"), self._target, self._headers(engine), len(self.body))
        self.engine = engine
        self._link = await engine.links.take()
        if self.over:
            raise Aborted
        await self._link.ask(head, self.body)

    def settle(self) -> None:
        """An engine answers: the body will not be sent again (rule 2) and is let go of, but for what an error to it would say
        (rule 6). That of a stream of notices is kept (rule 7), and so is one the engine answers before it has read it."""
        if is_events(self.answer.headers) and self.is_rpc:
            self._last_words = refusals(self.body, died()) or b""
        if self.is_held or not self.answer.written:
            return
        self.body = b""
        self._share.hold(min(len(self._last_words), self._share.size))

    def release(self) -> None:
        if self._link is not None:
            self._link.release()
            self._link = None

    # what happens to it

    def left(self) -> None:
        self.gone = True
        self._give_up()

    def end(self) -> None:
        self.ended = True
        self._give_up()

    async def within(self, secs: float, work: Awaitable[object]) -> bool:
        """Whether `work` was done in time; the time is over when the call is."""
        try:
            async with asyncio.timeout(secs) as self._patience:
                await work
        except TimeoutError:
            return False
        finally:
            self._patience = None
        return True

    async def rest(self) -> None:
        """A second, or less when the call is over."""
        await self.within(AGAIN_SECS, asyncio.Event().wait())

    async def pause(self) -> None:
        """Before a stream goes on: an engine that ends it as soon as it is there is not asked in a tight loop."""
        if asyncio.get_running_loop().time() - self._resumed_at < AGAIN_SECS:
            await self.rest()
        self._resumed_at = asyncio.get_running_loop().time()
        self._again = True

    def _give_up(self) -> None:
        if self._link is not None:
            self._link.abort()
        if self._patience is not None:
            self._patience.reschedule(0)

    # to the client

    async def pump(self, send: Send) -> End:
        """The answer's body as it comes, until it ends."""
        events, progress = is_events(self.answer.headers), self._begin()
        try:
            while part := await self.answer.chunk():
                if events:
                    progress.passed(part)
                await self.write(send, part)
        except Aborted:
            if self.gone:
                raise
            return End.OURS if events and progress.between else End.WITHIN
        except Broken:
            if not events:
                return End.WITHIN
            if not progress.between:
                await self.write(send, _SPOILT)
            return End.BETWEEN
        return End.WHOLE

    def _begin(self) -> Progress:
        """Of the stream that begins, or goes on, at `engine`."""
        if self._progress is None:
            said = [value for name, value in self._head.headers if name == _LAST_ID]
            self._progress = Progress(said[0] if said else None)
        elif self._generation != self.engine.generation:
            self._progress = Progress()
        self._progress.begin()
        self._generation = self.engine.generation
        return self._progress

    async def write(self, send: Send, part: bytes) -> None:
        try:
            async with asyncio.timeout(self._write_secs):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        except TimeoutError:
            log.info("slow reader dropped", project=self.key.project)
            self._drop()
            raise Gone from None

    async def finish(self, send: Send, end: End) -> None:
        """The proper end of the answer; or, of one that is not whole, the end of the connection."""
        if end is End.WITHIN:
            self._drop()
            return
        words = self._last_words if end is End.BETWEEN else b""
        await send({"type": "http.response.body", "body": b"event: message\ndata: " + words + b"\n\n" if words else b""})

    def _drop(self) -> None:
        """End the client's connection without a proper end of the answer, so that it can't be taken for whole."""
        self.gone = True
        if self._abort is not None:
            self._abort()

    def _headers(self, engine: Engine) -> list[Header]:
        headers = self._head.headers
        named = connection_names(headers)
        kept = [
            header for header in headers if not (header[0] in _NOT_FORWARDED or header[0].startswith(_OURS) or header[0] in named)
        ]
        if self._again:
            kept = [*self._from_where(engine), *(header for header in kept if header[0] != _LAST_ID)]
        kept += [
            (KEY_HEADER.encode(), engine.key),
            (PRINCIPAL_HEADER.encode(), self.key.id.encode()),
            (SCOPES_HEADER.encode(), ",".join(self.key.scopes).encode()),
        ]
        return kept

    def _from_where(self, engine: Engine) -> list[Header]:
        """Rule 7: ids of events mean something to the very engine that gave them."""
        if self._progress is None or self._progress.last_id is None or self._generation != engine.generation:
            return [_AGAIN]
        return [_AGAIN, (_LAST_ID, self._progress.last_id)]


def returned(headers: list[Header]) -> list[Header]:
    """Of an engine's headers, those its client gets."""
    return [(name, value) for name, value in headers if name not in _NOT_RETURNED and not name.startswith(_OURS)]


def is_events(headers: list[Header]) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


def connection_names(headers: list[Header]) -> frozenset[bytes]:
    """The headers that `Connection` names as meant for one hop; Host is not one of them whatever it says."""
    named: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
    return frozenset(named - {b"host"})
