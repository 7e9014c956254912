"""What the two links to servers elsewhere share: requests through the engine's one way out, streams read within bounds, an end.

Words never hold a URL or a header: both may carry a secret. What a server says in an error is shortened and redacted.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import structlog
from msgspec import Raw

from rootlink.engine.calls import Call, Client
from rootlink.engine.mounts.era import Era, Refused, Session
from rootlink.engine.mounts.events import Event, Events
from rootlink.engine.mounts.exchange import Asked, Exchange, Heard
from rootlink.engine.mounts.flood import Flood
from rootlink.engine.mounts.lines import LineTooLong
from rootlink.engine.mounts.link import MAY_BE_REPEATED, MESSAGE_CAP, unheard, unminded, unminding
from rootlink.engine.outbound import Scope, read_capped
from rootlink.engine.rpc import UNREADABLE, RpcError
from rootlink.errors import RootlinkError, TooLarge, UpstreamFailed

if TYPE_CHECKING:
    import aiohttp

log = structlog.get_logger(__name__)
BOTH = "application/json, text/event-stream"
JSON = "application/json"
EVENTS = "text/event-stream"
ERROR_CAP = 64 << 10
MOST_REPLIES = 16  # to pings and to what is refused at once, on their way at the same time; more are dropped
REPLY_SECONDS = 10.0
URL_REQUIRED = -32042  # of 2025-11-25: the error names pages to open first
_messages = msgspec.json.Decoder(list[Raw])


class SignInNeeded(Refused):
    """Nobody is signed in to this server, or not for what was asked. The words say what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 401)


class Credential(Protocol):
    """The sign-in that a server's requests are made with (`engine/oauth/`)."""

    async def token(self) -> str | None:
        """To send; None: nothing yet. Raises SignInNeeded, EgressBlocked, UpstreamFailed, Unavailable."""
        ...

    def dressed(self, token: str, method: str, url: str) -> dict[str, str]:
        """The headers that one request is sent with."""
        ...

    def heard(self, url: str, headers: Mapping[str, str]) -> None:
        """Headers of an answer."""
        ...

    async def refused(self, token: str | None, status: int, headers: Iterable[str], *, again: int) -> bool:
        """Whether a request that got 401 or 403, with these `WWW-Authenticate`, is to be made again. `again`: how often it was.
        Raises as `token`."""
        ...

    async def page(self) -> str:
        """Where a person signs in. Raises RootlinkError."""
        ...

    def redact(self, text: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Far:
    """A server elsewhere. `headers` hold credentials."""

    name: str
    url: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    scope: Scope
    redact: Callable[[str], str]
    credential: Credential | None = None


class RemoteLink:
    """Subclasses say how a message travels (`_post`)."""

    refusals = None
    sessioned = False

    def __init__(self, far: Far) -> None:
        self.era: Era = Session()
        self.on_notification: Callable[[str, Raw], None] = unheard
        self.on_closed: Callable[[str], None] = unminded
        self._far = far
        self.on_gap: Callable[[bool], None] = unminding
        self._exchange = Exchange(far.name, lambda method, params: self.on_notification(method, params), self._answer_late)
        self._flood = Flood(asyncio.get_running_loop().time())
        self._tasks: set[asyncio.Task[None]] = set()
        self._replies = 0
        self._ended: str | None = None
        self._closing = False

    @property
    def owner(self) -> Client | None:
        return self._exchange.owner

    @owner.setter
    def owner(self, client: Client | None) -> None:
        self._exchange.owner = client

    def last_words(self) -> str:
        return ""

    def logs(self) -> list[str]:
        return []

    async def close(self) -> None:
        self._closing = True
        self._lost("was disconnected")
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._exchange.questions.ended()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of this link's; `close()` ends it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _lost(self, words: str) -> None:
        if self._ended is not None:
            return
        self._ended = words
        self._exchange.fail(self._unanswered)
        if not self._closing:
            self.on_closed(words)

    def _unanswered(self, method: str) -> UpstreamFailed:
        return UpstreamFailed(f"{self._far.name} {self._ended} before it answered {method}", data=MAY_BE_REPEATED)

    def _raise_if_ended(self, method: str) -> None:
        if self._ended is not None:
            raise self._unanswered(method)

    # what came

    def _receive(self, message: bytes, about: Asked | None = None) -> float:
        """Answers how many seconds not to read for now. `about`: whose answer's stream it came on."""
        what, reply = self._exchange.receive(message, about)
        if reply is not None and self._replies < MOST_REPLIES:
            self._replies += 1
            self._spawn(self._answer(reply))
        return 0.0 if what is Heard.ANSWER else self._noise(len(message))

    def _noise(self, size: int) -> float:
        now = asyncio.get_running_loop().time()
        pause = self._flood.count(now, size)
        if self._flood.over(now):
            self._lost("sent more than 1000 messages a second for too long and was cut off")
        return pause

    async def _answer_late(self, reply: bytes) -> None:
        """The answer to a question. Raises RootlinkError, TimeoutError."""
        async with asyncio.timeout(REPLY_SECONDS):
            await self._reply(reply)

    async def _answer(self, reply: bytes) -> None:
        try:
            await self._answer_late(reply)
        except (RootlinkError, TimeoutError) as error:
            log.info("reply_lost", mount=self._far.name, why=str(error)[:200])
        finally:
            self._replies -= 1

    async def _reply(self, reply: bytes) -> None:
        raise NotImplementedError

    async def _drink(self, response: aiohttp.ClientResponse, events: Events, take: Callable[[Event], Awaitable[bool]]) -> None:
        """Every event of a stream, until it ends or `take` answers False. Raises UpstreamFailed."""
        try:
            async for chunk in response.content.iter_any():
                events.feed(chunk)
                while (event := events.next()) is not None:
                    if not await take(event) or self._ended is not None:
                        return
        except LineTooLong:
            raise UpstreamFailed(f"{self._far.name} sent a message larger than {MESSAGE_CAP >> 20} MiB") from None

    async def _body(self, response: aiohttp.ClientResponse) -> list[bytes]:
        """The messages of a JSON body: one, or several (2025-03-26 has batches). Raises UpstreamFailed."""
        try:
            body = await read_capped(response, MESSAGE_CAP)
        except TooLarge:
            raise UpstreamFailed(f"{self._far.name} sent a message larger than {MESSAGE_CAP >> 20} MiB") from None
        if not body.lstrip().startswith(b"["):
            return [body]
        try:
            return [bytes(message) for message in _messages.decode(body)]
        except UNREADABLE:
            return [body]

    # with the server's credential

    def _sent(
        self, method: str, url: str, *, headers: Mapping[str, str], data: bytes | None = None, follow: bool = False
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """One exchange (`Scope.request`), with the server's credential where it has one."""
        if self._far.credential is None:
            return self._far.scope.request(method, url, headers=headers, data=data, follow=follow)
        return self._signed(self._far.credential, method, url, headers, data, follow)

    @asynccontextmanager
    async def _signed(
        self, credential: Credential, method: str, url: str, headers: Mapping[str, str], data: bytes | None, follow: bool
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Made again where an old token was refused: what got 401 was not accepted."""
        again = 0
        while True:
            token = await credential.token()
            dressed = headers if token is None else merged(headers, credential.dressed(token, method, url))
            async with self._far.scope.request(method, url, headers=dressed, data=data, follow=follow) as response:
                credential.heard(url, response.headers)
                challenges = _challenges(response) if response.status in (401, 403) else None
                if challenges is None or not await credential.refused(token, response.status, challenges, again=again):
                    yield response
                    return
            again += 1

    async def _page_for(self, call: Call | None, needed: SignInNeeded) -> Exception:
        """What a call hears that nobody is signed in for: the page to open, if its client opens pages and its key may manage;
        else the words. Who opens it decides whose account everybody uses: a key that just uses tools never gets it."""
        able = call.client.capabilities.get("elicitation") if call is not None and call.manages else None
        if self._far.credential is None or not (isinstance(able, dict) and "url" in able):
            return needed
        try:
            link = await self._far.credential.page()
        except RootlinkError as error:
            return error
        page = {"mode": "url", "elicitationId": secrets.token_hex(16), "url": link, "message": needed.message}
        return RpcError(URL_REQUIRED, needed.message, {"elicitations": [page]})

    # what was refused

    async def _refused(self, response: aiohttp.ClientResponse) -> tuple[Refused, bytes]:
        """The error for an HTTP status of 400 and above, and the body's beginning."""
        try:
            body = await read_capped(response, ERROR_CAP)
        except RootlinkError:
            body = b""
        words = _STATUS.get(response.status, f"HTTP {response.status}")
        said = "" if response.content_type == "text/html" else " ".join(body.decode("utf-8", "replace").split())
        shown = f": {self._far.redact(said)[:300]}" if said else ""
        return Refused(f"{self._far.name} answered {words}{shown}", response.status), body

    def _strange(self, response: aiohttp.ClientResponse) -> Refused:
        kind = self._far.redact(response.content_type)[:80]
        return Refused(f"{self._far.name} answered with {kind}, which is not MCP; is its endpoint right?", response.status)

    def _settle(self, asked: Asked, error: Exception) -> None:
        if not asked.answer.done():
            asked.answer.set_exception(error)


_STATUS = {
    401: "HTTP 401: it wants a credential, or another one",
    403: "HTTP 403: its credential does not allow this",
    429: "HTTP 429: too many requests",
}


def _challenges(response: aiohttp.ClientResponse) -> list[str]:
    return [value[:4096] for value in response.headers.getall("WWW-Authenticate", [])][:8]


def merged(*parts: Mapping[str, str]) -> dict[str, str]:
    """Headers; of two with one name, whatever their case, the later one."""
    found: dict[str, tuple[str, str]] = {}
    for part in parts:
        found.update({name.lower(): (name, value) for name, value in part.items()})
    return dict(found.values())
