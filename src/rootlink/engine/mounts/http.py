"""A mount's link over Streamable HTTP, both eras: one POST a message, its answer as JSON or as a stream of events.

    session era     `Mcp-Session-Id` from initialize on; a GET stream for what the server says unasked; DELETE at the end
    stateless era   headers repeat method, name and version (era.py); nothing else to hold

Rules
- A session the server forgot (404) is renewed once, behind the scenes; what was asked is asked again, for it was not accepted.
- A request that may have been accepted is never repeated. A stream that broke off after an event id is resumed by that id.
- No GET stream (405) is no fault. One that ends is opened again after 1 to 30 s; what changed in between is asked for.
- Three requests in a row that do not even get through end the link; the supervisor tries again.
- Cancelling: session era says so in a notification; stateless era closes the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import structlog
from msgspec import UNSET, Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Call
from rootlink.engine.mounts.era import Refused
from rootlink.engine.mounts.events import Event, Events
from rootlink.engine.mounts.exchange import Asked
from rootlink.engine.mounts.handshake import initialize
from rootlink.engine.mounts.link import MAY_BE_REPEATED, MESSAGE_CAP
from rootlink.engine.mounts.listing import NOTICES
from rootlink.engine.mounts.remote import BOTH, EVENTS, JSON, Far, RemoteLink, SignInNeeded, merged
from rootlink.errors import RootlinkError, UpstreamFailed

if TYPE_CHECKING:
    import aiohttp

log = structlog.get_logger(__name__)
UNREACHED = 3
RENEW_SECONDS = 30.0
FAREWELL_SECONDS = 2.0
TAIL_SECONDS = 1.0  # for the end of a stream after its answer, so that the connection is used again
SOONEST, SLOWEST = 0.01, 30.0  # seconds between the streams of one answer, or of what is said unasked
_GREETING = ("initialize", "notifications/initialized")
_SESSION = re.compile(r"[\x21-\x7e]{1,1024}\Z")


class _SessionGone(Refused):
    """The server does not know our session (any more)."""


class HttpLink(RemoteLink):
    modern_first = True

    def __init__(self, far: Far) -> None:
        super().__init__(far)
        self._session: str | None = None
        self._renewing = asyncio.Lock()
        self._listened: str | None = None  # the session of the last GET
        self._unheard: str | None = None  # a session made because a GET said 404, until its own GET says otherwise
        self._unreached = 0

    @property
    def sessioned(self) -> bool:  # type: ignore[override]
        return self._session is not None

    async def open(self) -> None:
        self._far.scope.check(self._far.url)

    async def request(self, method: str, params: Mapping[str, Any] | None = None, *, call: Call | None = None) -> Raw:
        self._raise_if_ended(method)
        dressed = self.era.dress(params, call)
        asked = self._exchange.ask(method, dressed, call)
        carrier = self._spawn(self._carry(asked, dressed))
        try:
            return await asked.answer
        except SignInNeeded as needed:
            raise await self._page_for(call, needed) from None
        except asyncio.CancelledError:
            carrier.cancel()
            self._cancelled(asked)
            raise
        finally:
            self._exchange.forget(asked)

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        self._raise_if_ended(method)
        dressed = self.era.dress(params, None)
        held = await self._held(method)
        try:
            await self._tell(rpc.notification(method, dressed), method, dressed, held)
        except _SessionGone:
            await self._tell(rpc.notification(method, dressed), method, dressed, await self._renewed(held))

    async def attend(self) -> None:
        if not self.era.stateless:
            self._spawn(self._hear())

    async def close(self) -> None:
        await super().close()
        held, self._session = self._session, None
        if held is not None:
            with contextlib.suppress(RootlinkError, TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    async with self._sent("DELETE", self._far.url, headers=self._headers(BOTH, held)):
                        pass

    # one request

    async def _carry(self, asked: Asked, params: Mapping[str, Any] | None) -> None:
        """Bring `asked` there and its answer back; whatever happens, whoever waits hears of it."""
        error: Exception
        try:
            held = await self._held(asked.method)
            try:
                await self._post(asked, params, held)
            except _SessionGone:
                await self._again(asked, params, await self._renewed(held))
            words = f"{self._far.name} ended its answer to {asked.method} before the result came"
            error = UpstreamFailed(words, data=MAY_BE_REPEATED)
        except (RootlinkError, rpc.RpcError) as failure:
            error = failure
            if isinstance(failure, UpstreamFailed) and not isinstance(failure, Refused):
                failure.data = failure.data or MAY_BE_REPEATED
        except Exception as failure:
            log.exception("http_request", mount=self._far.name, method=asked.method)
            error = UpstreamFailed(f"{self._far.name} could not be asked: {type(failure).__name__}")
        self._settle(asked, error)
        if self._unreached >= UNREACHED:
            self._lost("cannot be reached")

    async def _again(self, asked: Asked, params: Mapping[str, Any] | None, held: str | None) -> None:
        """Once more, in a new session. One that is forgotten as soon is none, and ends the link."""
        try:
            await self._post(asked, params, held)
        except _SessionGone as error:
            self._settle(asked, error)
            self._lost("forgets each session it gives")

    async def _post(self, asked: Asked, params: Mapping[str, Any] | None, held: str | None) -> None:
        headers = self._headers(BOTH, held, {"Content-Type": JSON}, self.era.headers(asked.method, params))
        answered = False
        try:
            async with self._sent("POST", self._far.url, headers=headers, data=asked.line, follow=True) as response:
                answered = True
                self._unreached = 0
                if asked.method == "initialize":
                    self._session = _session(response)
                await self._consume(response, asked, held)
        except UpstreamFailed as error:
            self._unreached += not answered and not isinstance(error, SignInNeeded)
            raise

    async def _consume(self, response: aiohttp.ClientResponse, asked: Asked, held: str | None) -> None:
        if response.status >= 400:
            await self._refusal(response, asked, held)
        elif response.content_type == EVENTS:
            await self._stream(response, asked, held)
        elif response.content_type == JSON:
            for message in await self._body(response):
                if pause := self._receive(message, asked):
                    await asyncio.sleep(pause)
                if self._ended is not None:
                    return
        elif response.status != 202:
            raise self._strange(response)

    async def _refusal(self, response: aiohttp.ClientResponse, asked: Asked, held: str | None) -> None:
        """An HTTP error is the answer to this request: a JSON-RPC error in its body is the server's word, else its status is."""
        refused, body = await self._refused(response)
        if held is not None and _forgotten(response.status, body):
            raise _SessionGone(refused.message, refused.http)
        error = _error_in(body)
        if error is None or response.status in (401, 403, 429):
            raise refused
        self._settle(asked, error)

    async def _stream(self, response: aiohttp.ClientResponse, asked: Asked, held: str | None) -> None:
        events = Events(MESSAGE_CAP)
        await self._until_it_breaks(response, events, asked)
        while not asked.answer.done() and events.last_id is not None:  # for as long as the caller's deadline lets it
            await asyncio.sleep(1.0 if events.retry is None else max(events.retry, SOONEST))
            headers = self._headers(EVENTS, held, self.era.headers("", None), {"Last-Event-ID": events.last_id})
            async with self._sent("GET", self._far.url, headers=headers, follow=True) as resumed:
                if resumed.status >= 400 or resumed.content_type != EVENTS:
                    return
                await self._until_it_breaks(resumed, events, asked)

    async def _until_it_breaks(self, response: aiohttp.ClientResponse, events: Events, asked: Asked) -> None:
        """Until it ends, or breaks off where an event's id lets it be resumed."""
        import aiohttp

        try:
            await self._until_answered(response, events, asked)
        except aiohttp.ClientError:
            if events.last_id is None:
                raise
        events.rewind()

    async def _until_answered(self, response: aiohttp.ClientResponse, events: Events, asked: Asked) -> None:
        async def take(event: Event) -> bool:
            pause = self._receive(event.data, asked) if event.data.strip() else 0.0
            if pause:
                await asyncio.sleep(pause)
            return not asked.answer.done()

        await self._drink(response, events, take)
        if asked.answer.done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TAIL_SECONDS):
                    await response.content.readany()

    async def _tell(self, message: bytes, method: str, params: Mapping[str, Any] | None, held: str | None) -> None:
        headers = self._headers(BOTH, held, {"Content-Type": JSON}, self.era.headers(method, params) if method else {})
        async with self._sent("POST", self._far.url, headers=headers, data=message, follow=True) as response:
            if response.status < 400:
                return
            refused, body = await self._refused(response)
            if held is not None and _forgotten(response.status, body):
                raise _SessionGone(refused.message, refused.http)
            raise refused

    async def _reply(self, reply: bytes) -> None:
        if not self.era.stateless:
            await self._tell(reply, "", None, self._session)

    def _cancelled(self, asked: Asked) -> None:
        if self.era.stateless or asked.method == "initialize" or self._ended is not None:
            return
        self._spawn(self._say_cancelled(asked.id))

    async def _say_cancelled(self, id: int) -> None:
        with contextlib.suppress(RootlinkError, TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self.notify("notifications/cancelled", {"requestId": id, "reason": "the caller went away"})

    def _headers(self, accept: str, session: str | None, *more: Mapping[str, str]) -> dict[str, str]:
        held = {"Mcp-Session-Id": session} if session is not None else {}
        return merged(self._far.headers, {"Accept": accept}, held, *more)

    # the session

    async def _held(self, method: str) -> str | None:
        """The session to ask in; while it is being renewed all but the greeting wait for the new one."""
        if method not in _GREETING and self._renewing.locked():
            async with self._renewing:
                return self._session
        return self._session

    async def _renewed(self, held: str | None) -> str | None:
        """A new session in place of `held`, one however many ask for it. Raises UpstreamFailed."""
        async with self._renewing:
            if self._ended is not None or self._session not in (held, None):
                return self._session
            era, self._session = self.era, None
            try:
                async with asyncio.timeout(RENEW_SECONDS):
                    await initialize(self, self._far.name)
                    log.info("session_renewed", mount=self._far.name)
            except BaseException as error:
                self.era, self._session = era, held  # who asks next finds it forgotten again, and tries again
                if isinstance(error, rpc.RpcError | TimeoutError):
                    words = f"{self._far.name} forgot its session and gave no new one: {str(error)[:200]}"
                    raise UpstreamFailed(words) from None
                raise
        self._missed(anew=True)
        return self._session

    def _missed(self, *, anew: bool) -> None:
        """What changed while nobody listened was not told: say that everything may have."""
        for method in NOTICES:
            self.on_notification(method, Raw(b"{}"))
        self.on_gap(anew)

    async def _hear(self) -> None:
        """The GET stream, for as long as the server offers one."""
        events = Events(MESSAGE_CAP)
        delay, times = 1.0, 0
        while self._ended is None:
            began = asyncio.get_running_loop().time()
            try:
                if not await self._listen(events, times):
                    return
                times += 1
            except (RootlinkError, rpc.RpcError) as error:
                log.info("stream_ended", mount=self._far.name, why=str(error)[:200])
            if asyncio.get_running_loop().time() - began > SLOWEST:
                delay = 1.0
            await asyncio.sleep(delay if events.retry is None or times == 0 else max(events.retry, 0.1))
            delay = min(delay * 2, SLOWEST)

    async def _listen(self, events: Events, times: int) -> bool:
        """One GET, to its end. False: the server offers no such stream."""
        held = self._session
        if held != self._listened:
            self._listened, events.last_id = held, None
        events.rewind()
        resume = {"Last-Event-ID": events.last_id} if events.last_id is not None else {}
        headers = self._headers(EVENTS, held, self.era.headers("", None), resume)
        async with self._sent("GET", self._far.url, headers=headers, follow=True) as response:
            forgotten = False
            if response.status in (400, 404) and held is not None:
                forgotten = _forgotten(response.status, (await self._refused(response))[1]) and held != self._unheard
                if not forgotten:
                    return False
            elif response.status in (409, 429) or response.status >= 500:
                raise UpstreamFailed(f"{self._far.name} answered HTTP {response.status}")
            elif response.status != 200 or response.content_type != EVENTS:
                return False
            else:
                self._unheard = None
                if times:
                    self._missed(anew=False)
                await self._drink(response, events, self._overheard)
        if forgotten:
            self._unheard = await self._renewed(held)
        return True

    async def _overheard(self, event: Event) -> bool:
        pause = self._receive(event.data) if event.data.strip() else 0.0
        if pause:
            await asyncio.sleep(pause)
        return True


def _session(response: aiohttp.ClientResponse) -> str | None:
    held = response.headers.get("Mcp-Session-Id")
    return held if held is not None and _SESSION.match(held) else None


def _forgotten(status: int, body: bytes) -> bool:
    """404 by the specification; servers made after the TypeScript SDK's examples say 400 and name the session."""
    return status == 404 or (status == 400 and b"session" in body.lower())


def _error_in(body: bytes) -> rpc.RpcError | None:
    try:
        envelope = rpc.read(body)
    except rpc.Malformed:
        return None
    return None if envelope.error is UNSET or bytes(envelope.error) == b"null" else rpc.error(envelope.error)
