"""A mount's link over the oldest HTTP transport (2024-11-05): one stream of events down, whose first names where to POST up.

    GET endpoint ──► event: endpoint, data: where to POST      then every message of the server's as `event: message`
    POST there   ──► 202                                       its answer comes down the stream

The place to POST must be of the same origin: our credentials go there. The stream's end is the link's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

import structlog
from msgspec import Raw

from rootlink.egress import urls
from rootlink.egress.policy import Decision
from rootlink.engine import rpc
from rootlink.engine.calls import Call
from rootlink.engine.mounts.events import Event, Events
from rootlink.engine.mounts.exchange import Asked
from rootlink.engine.mounts.link import MESSAGE_CAP
from rootlink.engine.mounts.remote import EVENTS, JSON, Far, RemoteLink, SignInNeeded, merged
from rootlink.errors import RootlinkError, UpstreamFailed

log = structlog.get_logger(__name__)
CANCEL_SECONDS = 2.0


class SseLink(RemoteLink):
    modern_first = False

    def __init__(self, far: Far) -> None:
        super().__init__(far)
        self._place: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        self._far.scope.check(self._far.url)
        self._spawn(self._hear())
        await asyncio.shield(self._place)

    async def request(self, method: str, params: Mapping[str, Any] | None = None, *, call: Call | None = None) -> Raw:
        self._raise_if_ended(method)
        asked = self._exchange.ask(method, self.era.dress(params, call), call)
        carrier = self._spawn(self._carry(asked))
        try:
            return await asked.answer  # which may come, or the stream's end, while the POST still hangs
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
        await self._tell(rpc.notification(method, self.era.dress(params, None)))

    async def attend(self) -> None:
        """Nothing to do: the stream is there from the start."""

    async def close(self) -> None:
        await super().close()
        if not self._place.done():
            self._place.cancel()
        elif not self._place.cancelled():
            self._place.exception()

    async def _carry(self, asked: Asked) -> None:
        try:
            await self._tell(asked.line)
        except RootlinkError as error:
            self._settle(asked, error)
        except Exception as error:
            log.exception("sse_request", mount=self._far.name, method=asked.method)
            self._settle(asked, UpstreamFailed(f"{self._far.name} could not be asked: {type(error).__name__}"))

    async def _tell(self, message: bytes) -> None:
        place = await asyncio.shield(self._place)
        headers = merged(self._far.headers, {"Accept": JSON, "Content-Type": JSON}, self.era.headers("", None))
        async with self._sent("POST", place, headers=headers, data=message) as response:
            if not 200 <= response.status < 300:
                raise (await self._refused(response))[0]

    async def _reply(self, reply: bytes) -> None:
        await self._tell(reply)

    def _cancelled(self, asked: Asked) -> None:
        if asked.method != "initialize" and self._ended is None:
            self._spawn(self._say_cancelled(asked.id))

    async def _say_cancelled(self, id: int) -> None:
        about = {"requestId": id, "reason": "the caller went away"}
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await self.notify("notifications/cancelled", about)
        except (RootlinkError, TimeoutError):
            return

    async def _hear(self) -> None:
        words = "closed its event stream"
        try:
            headers = merged(self._far.headers, {"Accept": EVENTS})
            async with self._sent("GET", self._far.url, headers=headers, follow=True) as response:
                if response.status >= 400:
                    raise (await self._refused(response))[0]
                if response.content_type != EVENTS:
                    raise self._strange(response)
                await self._drink(response, Events(MESSAGE_CAP), self._take)
        except RootlinkError as error:
            words = "lost its event stream"
            if not self._place.done():
                self._place.set_exception(error)
        if not self._place.done():
            self._place.set_exception(UpstreamFailed(f"{self._far.name} {words} before it named where to post"))
        self._lost(words)

    async def _take(self, event: Event) -> bool:
        if event.name == "endpoint":
            self._named(event.data)
            return True
        pause = self._receive(event.data) if event.data.strip() else 0.0
        if pause:
            await asyncio.sleep(pause)
        return True

    def _named(self, data: bytes) -> None:
        if self._place.done():
            return
        place = urljoin(self._far.url, data.decode("utf-8", "replace").strip())
        here, there = urls.read(self._far.url), urls.read(place)
        if isinstance(here, Decision) or isinstance(there, Decision) or here.origin != there.origin:
            raise UpstreamFailed(f"{self._far.name} wants its messages sent to another host; that is refused")
        self._place.set_result(place)
