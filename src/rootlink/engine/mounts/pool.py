"""Links of clients' own to one server: who has which, how many there are, when they end.

    session client      one link; its calls run on it side by side
    stateless client    up to 8 links a key, one call at a time on each, so that what the server asks meanwhile is that call's;
                        the one used last is used first, so that a burst's links grow old

Rules
- Opened when first needed; whoever else wants it waits for the same opening.
- 64 links a mount: the one idle longest makes room, a stateless client's first, who can't count on it; when none is idle the
  call is refused with words.
- 10 idle minutes end a link, but not that of a session client whose standing stream is open.
- A link that ended is forgotten at once; the next call opens another. What was sent on it is not sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from rootlink.engine.calls import Client
from rootlink.engine.mounts.clock import Clock
from rootlink.engine.mounts.link import Link, unheard, unminded, unminding
from rootlink.engine.mounts.listing import Catalogue
from rootlink.errors import RootlinkError, Unavailable

log = structlog.get_logger(__name__)
MOST_LINKS = 64
MOST_OF_ONE = 8
IDLE_SECONDS = 600.0


@dataclass(slots=True, eq=False)
class Own:
    """One link of a client's own. `link` is there once it was opened; `lists`: what this very session shows, where it differs."""

    client: Client
    link: Link = field(init=False)
    busy: int = 0
    used: float = 0.0
    gone: bool = False
    affairs: set[asyncio.Task[None]] = field(default_factory=set)  # what it is just being told, before any other call
    capabilities: dict[str, Any] = field(default_factory=dict)
    level: str | None = None  # of the log, that the server was told
    stale: set[str] = field(default_factory=set)
    reading: bool = False
    lists: Catalogue | None = None


@dataclass(slots=True, eq=False)
class _Held:
    """What one key has. `idle`: a stateless client's links that carry nothing now; the last one is the next one."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_OF_ONE))
    own: Own | None = None
    idle: list[Own] = field(default_factory=list)
    users: int = 0


Open = Callable[[Own, Callable[[str], None]], Coroutine[Any, Any, None]]
"""Opens and greets `own.link`; the second is its `on_closed`. Raises RootlinkError, with nothing left of it."""


class Pool:
    """`died(own)` is called when a link ended by itself."""

    def __init__(self, name: str, open: Open, died: Callable[[Own], None], clock: Clock) -> None:
        self._name, self._open, self._died, self._clock = name, open, died, clock
        self._held: dict[str, _Held] = {}
        self._owns: dict[Own, None] = {}  # in the order they were opened
        self._openings: set[asyncio.Task[None]] = set()
        self._chores: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.Task[None] | None = None

    def of(self, key: str) -> Own | None:
        """The one link of a session client, if it is open."""
        held = self._held.get(key)
        return held.own if held is not None else None

    @property
    def full(self) -> bool:
        return len(self._owns) + len(self._openings) >= MOST_LINKS

    def lists(self, key: str) -> Catalogue | None:
        """What a session of this client's shows, the newest that differs from others of its kind."""
        return next((own.lists for own in reversed(self._owns) if own.client.key == key and own.lists is not None), None)

    def open_links(self) -> list[Own]:
        return [*self._owns]

    @asynccontextmanager
    async def carrying(self, client: Client) -> AsyncIterator[Own]:
        """A link for one call of this client's. Raises what opening it raised, and Unavailable."""
        held = self._held.setdefault(client.key, _Held())
        held.users += 1
        try:
            if client.stateless:
                async with held.turns:
                    own = self._newest(held) or await self._opened(held, client)
                    async with _carried(own, self._clock):
                        try:
                            yield own
                        finally:
                            if not own.gone:
                                held.idle.append(own)
            else:
                own = held.own or await self._single(held, client)
                own.client = own.link.owner = client  # of the same key, perhaps with a newer standing stream
                async with _carried(own, self._clock):
                    yield own
        finally:
            held.users -= 1
            self._tidy(client.key, held)

    def forget(self, key: str) -> None:
        """End what the client has, also what is just being opened for it."""
        held = self._held.pop(key, None)
        if held is not None:
            for own in [own for own in self._owns if own.client.key == key]:
                self._end(own)

    async def close(self) -> None:
        """Returns when nothing of any of them runs."""
        openings = [*self._openings]
        for task in openings:
            task.cancel()
        for own in self.open_links():
            self._end(own)
        self._held.clear()
        if self._reaper is not None:
            self._reaper.cancel()
        await asyncio.gather(*openings, *self._chores, *([self._reaper] if self._reaper else []), return_exceptions=True)

    # opening

    def _newest(self, held: _Held) -> Own | None:
        return held.idle.pop() if held.idle else None

    async def _single(self, held: _Held, client: Client) -> Own:
        async with held.lock:
            if held.own is None:
                held.own = await self._opened(held, client)
            return held.own

    async def _opened(self, held: _Held, client: Client) -> Own:
        if self._held.get(client.key) is not held:  # while it waited for its turn
            raise self._over()
        self._make_room()
        own = Own(client, used=self._clock.now())
        task = asyncio.create_task(self._open(own, lambda words: self._ended(own)))
        self._openings.add(task)
        try:
            await task
        except asyncio.CancelledError:
            if not task.cancelled() and task.done() and task.exception() is None:  # it was ready the moment it was given up
                self._end(own)
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise self._over() from None
        finally:
            self._openings.discard(task)
        if own.gone:
            raise Unavailable(f"{self._name} ended as soon as it was ready; try again")
        self._owns[own] = None
        if self._held.get(client.key) is not held:
            self._end(own)
            raise self._over()
        if self._reaper is None or self._reaper.done():
            self._reaper = asyncio.create_task(self._reap())
        return own

    def _over(self) -> Unavailable:
        return Unavailable(f"{self._name}'s session for this client was ended while it was being opened; try again")

    def _make_room(self) -> None:
        if not self.full:
            return
        idle = [own for own in self._owns if own.busy == 0]
        if not idle:
            raise Unavailable(
                f"{self._name} works for {MOST_LINKS} clients at once already, the most that get a session each; try again later,"
                ' or mount it with session "shared" if it keeps nothing for each client'
            )
        self._end(min(idle, key=lambda own: (not own.client.stateless, own.used)))

    # ending

    def _ended(self, own: Own) -> None:
        """Its link ended by itself."""
        if own.gone:
            return
        known = own in self._owns
        self._end(own)
        if known:
            self._died(own)

    def _end(self, own: Own) -> None:
        own.gone = True
        self._owns.pop(own, None)
        held = self._held.get(own.client.key)
        if held is not None:
            held.own = None if held.own is own else held.own
            held.idle = [other for other in held.idle if other is not own]
            self._tidy(own.client.key, held)
        own.link.on_closed, own.link.on_notification, own.link.on_gap = unminded, unheard, unminding
        self._spawn(self._closed(own.link))

    async def _closed(self, link: Link) -> None:
        try:
            await link.close()
        except RootlinkError as error:
            log.info("link_close", mount=self._name, why=error.message)

    def _tidy(self, key: str, held: _Held) -> None:
        if not held.users and held.own is None and not held.idle and self._held.get(key) is held:
            del self._held[key]

    async def _reap(self) -> None:
        while self._owns:
            now = self._clock.now()
            due = min(own.used for own in self._owns) + IDLE_SECONDS - now
            await self._clock.sleep(min(max(due, IDLE_SECONDS / 20), IDLE_SECONDS))
            for own in self.open_links():
                if own.busy == 0 and self._clock.now() - own.used >= IDLE_SECONDS and not _hears(own.client):
                    self._end(own)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


@asynccontextmanager
async def _carried(own: Own, clock: Clock) -> AsyncIterator[None]:
    own.busy += 1
    try:
        yield
    finally:
        own.busy -= 1
        own.used = clock.now()


def _hears(client: Client) -> bool:
    """Whether its standing stream is open, as far as its era tells (`Standing` may have `open`)."""
    return client.standing is not None and client.standing.open
