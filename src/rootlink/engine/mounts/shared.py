"""What clients hold together on a mount's own link: lists that may change, subscriptions to resources, the log level.

A server's hurry costs the server: list_changed is followed at once, then at most every 250 ms.

The server is told of the first subscriber of a resource, of the last one's going, and of the lowest log level. A link opened in
place of one that ended, or a session in place of one the server forgot, is told all of it again; what is subscribed to is then
reported as updated, for nobody heard what happened meanwhile. In the stateless era `subscriptions/listen` does it (watched.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import structlog
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import LEVELS, Client
from rootlink.engine.mounts.clock import Clock
from rootlink.engine.mounts.exchange import UPDATED
from rootlink.engine.mounts.link import Link
from rootlink.engine.mounts.listing import NOTICES, OF_KIND
from rootlink.engine.mounts.watched import Listening, Watched, updated_uri, without_tag
from rootlink.engine.rpc import INTERNAL_ERROR, METHOD_NOT_FOUND, RpcError
from rootlink.errors import RootlinkError

log = structlog.get_logger(__name__)
TELL_SECONDS, REREAD_SECONDS = 5.0, 30.0
REFETCH_SECONDS = 0.25


class Shared:
    """`updated(uri, params, None)`: a resource changed. `reread(link, kinds)` is to read lists anew, `unread(kinds, why)` is told
    when that failed. `levels`: by client key."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        updated: Callable[[str, Raw, str | None], None],
        reread: Callable[[Link, list[str]], Awaitable[None]],
        unread: Callable[[list[str], str], None],
        levels: Mapping[str, str],
    ) -> None:
        self._name, self._clock, self._levels = name, clock, levels
        self._updated, self._reread, self._unread = updated, reread, unread
        self._stale: set[str] = set()
        self._told = asyncio.Event()
        self._watched, self._turn = Watched(), asyncio.Lock()
        self._link: Link | None = None
        self._capabilities: dict[str, Any] = {}
        self._listening: Listening | None = None
        self._level = ""  # that the server was told
        self._asked = ""  # the lowest that a stateless client's call asked for
        self._tasks: set[asyncio.Task[None]] = set()
        self.telling: asyncio.Task[None] | None = None  # the level being told, which comes before any later call

    # the link in use

    def fresh(self) -> None:
        """Another link begins to be greeted: what it says from now on counts."""
        self._stale.clear()
        self._told.clear()

    def begin(self, link: Link, capabilities: dict[str, Any], told: Callable[[str, Raw], None]) -> None:
        """`link` is ready. `told` gets what a `subscriptions/listen` tells."""
        self._link, self._capabilities, self._level, self._asked = link, capabilities, "", ""
        self._spawn(self._follow(link))
        if link.era.stateless:
            self._listening = Listening(
                self._name, link, capabilities, self._watched, self._clock, told=told, missed=self._unheard
            )
            self._spawn(self._listening.run())
        else:
            self._spawn(self._again(link, anew=True))

    async def end(self) -> None:
        """The link is over; what clients want stays."""
        self._link, self._listening = None, None
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def gap(self, anew: bool) -> None:
        """As `Link.on_gap`."""
        if self._link is not None:
            self._spawn(self._again(self._link, anew=anew))

    def notice(self, method: str, params: Raw) -> bool:
        """Whether this was a notice about lists or a resource."""
        if method in NOTICES:
            self._grow_stale(NOTICES[method])
            return True
        uri = updated_uri(params) if method == UPDATED else None
        if uri is not None and self._watched.covers(uri):  # of another server's resources it has nothing to tell
            self._updated(uri, without_tag(params), None)
        return method == UPDATED

    # what clients want

    async def subscribe(self, link: Link, uri: str, client: Client) -> None:
        """Safe to repeat. Raises RpcError, RootlinkError."""
        if link.era.stateless and not self._watchable():
            raise RpcError(METHOD_NOT_FOUND, "Method not found: this server has no subscriptions to resources")
        async with self._turn:
            if self._watched.full(uri):
                raise RpcError(INTERNAL_ERROR, f"more resources of {self._name} are subscribed to than it can be told of")
            first = uri not in self._watched
            self._watched.add(uri, client.key)  # before the first update can come
            try:
                if first and not link.era.stateless:
                    await link.request("resources/subscribe", {"uri": uri})
            except BaseException:
                self._watched.remove(uri, client.key)
                raise
        if self._listening is not None:
            self._listening.change()
            await self._listening.heard_of(uri)

    async def unsubscribe(self, link: Link, uri: str, client: Client) -> None:
        """Safe to repeat. Raises RpcError, RootlinkError."""
        async with self._turn:
            if self._watched.remove(uri, client.key):
                await self._unwatched(link, uri)

    def forget(self, key: str) -> None:
        for uri in self._watched.forget(key):
            if self._link is not None:
                self._spawn(self._unwatched_in_turn(self._link, uri))

    def level(self) -> None:
        """`levels` changed."""
        if self._link is not None:
            self.telling = self._spawn(self._set_level(self._link))

    def asks(self, level: str) -> None:
        """A stateless client's call wants to hear of this level."""
        if not self._asked or LEVELS.index(level) < LEVELS.index(self._asked):
            self._asked = level
            self.level()

    async def _unwatched_in_turn(self, link: Link, uri: str) -> None:
        async with self._turn:
            if uri not in self._watched:
                await self._unwatched(link, uri)

    async def _unwatched(self, link: Link, uri: str) -> None:
        if self._listening is not None:
            self._listening.change()
            return
        with contextlib.suppress(TimeoutError):  # whoever waits for its turn must not wait for a server that is silent to this
            async with asyncio.timeout(TELL_SECONDS):
                await link.request("resources/unsubscribe", {"uri": uri})

    def _watchable(self) -> bool:
        held = self._capabilities.get("resources")
        return isinstance(held, dict) and held.get("subscribe") is True

    def _unheard(self, lists: bool, uris: set[str]) -> None:
        """For a while nobody heard the server."""
        if lists:
            self._grow_stale(*OF_KIND)
        for uri in sorted(uris):
            self._updated(uri, rpc.raw({"uri": uri}), None)

    def _grow_stale(self, *kinds: str) -> None:
        self._stale.update(kinds)
        self._told.set()

    async def _follow(self, link: Link) -> None:
        while True:
            await self._told.wait()
            self._told.clear()
            kinds, self._stale = sorted(self._stale), set()
            try:
                async with asyncio.timeout(REREAD_SECONDS):
                    await self._reread(link, kinds)
            except (RpcError, RootlinkError, TimeoutError) as error:
                why = "" if isinstance(error, TimeoutError) else error.message
                log.warning("list_unread", mount=self._name, kinds=kinds, why=why[:300])
                self._unread(kinds, why)
            await self._clock.sleep(REFETCH_SECONDS)

    async def _again(self, link: Link, *, anew: bool) -> None:
        """After a time in which nobody heard the server; `anew`: it does not know what it was told before that."""
        uris = set(self._watched.uris())
        if anew:
            self._level = ""
            await self._set_level(link)
            for uri in sorted(uris):
                with contextlib.suppress(RpcError):  # it is not there any more
                    await link.request("resources/subscribe", {"uri": uri})
        self._unheard(False, uris)

    async def _set_level(self, link: Link) -> None:
        """Each session is told only what it wants to hear; a level nobody wants any more costs a few lines."""
        levels = [*self._levels.values(), *([self._asked] if self._asked else [])]
        level = min(levels, key=LEVELS.index, default="")
        if level and level != self._level and not link.era.stateless and "logging" in self._capabilities:
            self._level = level
            with contextlib.suppress(RpcError, TimeoutError):
                async with asyncio.timeout(TELL_SECONDS):
                    await link.request("logging/setLevel", {"level": level})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.telling = None if self.telling is task else self.telling
        error = None if task.cancelled() else task.exception()
        if isinstance(error, RootlinkError):
            log.info("errand_failed", mount=self._name, why=error.message)
        elif error is not None:
            log.error("errand", mount=self._name, exc_info=error)
