"""What a session-era server holds for each client alone: a link that declares what this client can do, and what goes with it.

    Mount ──call──► carrying(client) ──► pool.py: the client's own link ──► greeted as this client; log level, subscriptions

Rules
- Whatever goes wrong here is an error of the call; the mount's own link does not notice.
- Lists may depend on what a client can do. They are read where a link of such a client is first opened; if they are not the
  mount's own, such clients see them from then on (`lists`), and everybody is told. Nobody waits for that.
- A session that says that its lists changed is read again by itself: what differs is this session's alone, and goes with it.
  Another client, be it of the same abilities, must not see what this one made appear.
- Subscriptions and the log level are a session's. A link opened in place of one that ended gets them again, and what it
  subscribes to is told as updated, for nobody heard what happened meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import structlog
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Client
from rootlink.engine.mounts import listing
from rootlink.engine.mounts.clock import Clock
from rootlink.engine.mounts.era import declared
from rootlink.engine.mounts.exchange import UPDATED
from rootlink.engine.mounts.handshake import initialize
from rootlink.engine.mounts.link import Link
from rootlink.engine.mounts.listing import NOTICES, OF_KIND, Catalogue, differing, with_lists
from rootlink.engine.mounts.opening import opened
from rootlink.engine.mounts.pool import Own, Pool
from rootlink.engine.mounts.restarts import STABLE
from rootlink.engine.mounts.spec import start_seconds
from rootlink.engine.mounts.watched import below, updated_uri
from rootlink.engine.rpc import RpcError
from rootlink.errors import RootlinkError
from rootlink.wire.mounts import MountSpec

log = structlog.get_logger(__name__)
ERRAND_SECONDS, AFFAIR_SECONDS = 60.0, 5.0
LEARN_AGAIN_SECONDS = 30.0
REOPEN_SECONDS = 0.25
MOST_VARIANTS, MOST_LEARNED = 32, 256
REREAD_SECONDS = 0.25

Dial = Callable[[], Awaitable[Sequence[Link]]]
Changed = Callable[[set[str]], None]
Updated = Callable[[str, Raw, str | None], None]


class Clients:
    """`apart`: calls do go over links of their clients' own; `form`: which of the links dialled is the right one. The mount
    settles both when it is ready. `levels`: log level by client key; whoever makes this fills it."""

    def __init__(
        self,
        name: str,
        spec: Callable[[], MountSpec],
        dial: Dial,
        clock: Clock,
        *,
        base: Callable[[], Catalogue],
        changed: Changed,
        updated: Updated,
        levels: Mapping[str, str],
    ) -> None:
        self._name, self._spec, self._dial, self._clock = name, spec, dial, clock
        self._base, self._changed, self._updated, self._levels = base, changed, updated, levels
        self.apart = False
        self.form = 0
        self._pool = Pool(name, self._open, self._died, clock)
        self._errands: set[asyncio.Task[None]] = set()
        self._uris: dict[str, set[str]] = {}  # client key → what it subscribed to
        self._reopened: dict[str, float] = {}  # client key → when its link was opened again without a call
        self._variants: dict[str, Catalogue | None] = {}  # capabilities → lists; None: as the mount's own
        self._learned: dict[str, float] = {}  # capabilities → when reading them began, since the mount was last ready
        self._ended: dict[str, Client] = {}  # client key → who subscribed to something and has no link any more
        self._curious: dict[str, Client] = {}  # capabilities → who wanted to know lists while the mount was not ready

    def alive(self, client: Client) -> bool:
        """Whether it has a link that was not lost."""
        return self._pool.of(client.key) is not None

    @asynccontextmanager
    async def carrying(self, client: Client, level: str | None = None) -> AsyncIterator[Link]:
        """The link for one call; `level`: what a stateless client's call wants to hear of the log.

        Raises RootlinkError when there is no link to be had.
        """
        async with self._pool.carrying(client) as own:
            if own.affairs:
                await asyncio.wait(own.affairs)
            if level is not None and client.stateless:
                await self._set_level(own, level)
            yield own.link

    async def close(self) -> None:
        """End them all, at the mount's end or restart; what is known of clients stays."""
        errands = [*self._errands]
        for task in errands:
            task.cancel()
        await asyncio.gather(*errands, return_exceptions=True)
        self._ended.update((own.client.key, own.client) for own in self._pool.open_links() if self._uris.get(own.client.key))
        await self._pool.close()
        self._learned.clear()

    def logs(self) -> list[str]:
        return [line for own in self._pool.open_links() for line in own.link.logs()]

    # a client's own affairs

    def level(self, client: Client) -> None:
        """`levels` has a new one for it."""
        own = self._pool.of(client.key)
        if own is not None:
            self._affair(own, lambda: self._set_level(own, self._levels.get(client.key)))

    def told(self, client: Client, method: str, params: Raw) -> None:
        own = self._pool.of(client.key)
        if own is not None:
            self._affair(own, lambda: own.link.notify(method, rpc.value(params) or {}))

    def forget(self, key: str) -> None:
        self._uris.pop(key, None)
        self._ended.pop(key, None)
        self._reopened.pop(key, None)
        self._pool.forget(key)

    async def subscribe(self, uri: str, client: Client) -> None:
        """Raises RpcError, RootlinkError."""
        uris = self._uris.get(client.key, set())
        if uri not in uris:
            async with self.carrying(client) as link:
                self._uris.setdefault(client.key, set()).add(uri)  # before the first update can come
                try:
                    await link.request("resources/subscribe", {"uri": uri})
                except BaseException:
                    self._unwatch(uri, client.key)
                    raise

    async def unsubscribe(self, uri: str, client: Client) -> None:
        """Raises RpcError, RootlinkError."""
        if self._unwatch(uri, client.key):
            own = self._pool.of(client.key)
            if own is not None:
                await own.link.request("resources/unsubscribe", {"uri": uri})

    def _unwatch(self, uri: str, key: str) -> bool:
        """Whether it was watched."""
        uris = self._uris.get(key, set())
        was = uri in uris
        uris.discard(uri)
        if not uris:
            self._uris.pop(key, None)
        return was

    # lists

    def lists(self, client: Client, *, ready: bool) -> Catalogue | None:
        """What this client sees, where it is not the mount's own. Begins to learn it where it is not known, now that the mount is
        `ready`, or once it is."""
        grown = self._pool.lists(client.key)
        if grown is not None:
            return grown
        key = _key(client)
        if not ready and key != _NOTHING and len(self._curious) < MOST_VARIANTS:
            self._curious[key] = client
        elif ready and self.apart and self._unknown(key):
            self._learning(key)
            self._errand(lambda: self._learn_of(client))
        return self._variants.get(key)

    def ready(self, *, apart: bool) -> None:
        """The mount is."""
        self.apart = apart
        curious, self._curious = self._curious, {}
        for client in self._ended.values() if apart else ():
            self._errand(partial(self._open_again, client))
        for client in curious.values():
            self.lists(client, ready=True)

    def base_changed(self) -> None:
        """The mount's own lists are others now: what was compared with them is read again, or forgotten where nobody can."""
        open_links = {_key(own.client): own for own in self._pool.open_links()}
        for key in [key for key in self._variants if key not in open_links]:
            del self._variants[key]
            self._learned.pop(key, None)
        for key, own in open_links.items():
            if key != _NOTHING:
                self._errand(partial(self._learn, own))
        for own in self._pool.open_links():
            if own.lists is not None and not differing(own.lists, self._shown(own)):
                own.lists = None

    def _unknown(self, key: str) -> bool:
        """Whether to read them now: never since the mount was last ready, or in vain a while ago."""
        if key == _NOTHING:
            return False
        began = self._learned.get(key)
        return began is None or (key not in self._variants and self._clock.now() - began >= LEARN_AGAIN_SECONDS)

    def _learning(self, key: str) -> None:
        self._learned.pop(key, None)
        self._learned[key] = self._clock.now()
        while len(self._learned) > MOST_LEARNED:
            del self._learned[next(iter(self._learned))]

    async def _learn_of(self, client: Client) -> None:
        own = self._pool.of(client.key)
        if own is not None:
            await self._learn(own)
            return
        if self._pool.full:  # nobody's link is ended for this
            return
        async with self._pool.carrying(client) as own:
            await self._learn(own)

    async def _learn(self, own: Own) -> None:
        key = _key(own.client)
        self._learning(key)
        if own.lists is not None:  # they say nothing of its kind
            self._variants.pop(key, None)
            return
        before = self._shown(own)
        read = await listing.read(self._name, own.link.request, OF_KIND, own.capabilities)
        found = with_lists(msgspec.structs.replace(self._base(), capabilities=own.capabilities), read)
        self._keep(key, found)
        self._tell(differing(before, self._shown(own)))

    def _keep(self, key: str, found: Catalogue) -> None:
        self._variants.pop(key, None)
        self._variants[key] = found if differing(found, self._base()) else None
        while len(self._variants) > MOST_VARIANTS:
            oldest = next(iter(self._variants))
            del self._variants[oldest]
            self._learned.pop(oldest, None)

    def _shown(self, own: Own) -> Catalogue:
        """What clients like this one see."""
        return self._variants.get(_key(own.client)) or self._base()

    def _tell(self, kinds: set[str]) -> None:
        if kinds:
            self._changed(kinds)

    async def _reread(self, own: Own) -> None:
        """A session said that lists of its changed: at once, then at most every 250 ms."""
        try:
            while own.stale and not own.gone:
                kinds, own.stale = sorted(own.stale), set()
                read = await listing.read(self._name, own.link.request, kinds, own.capabilities)
                before = own.lists or self._shown(own)
                found = with_lists(before, read)
                own.lists = found if differing(found, self._shown(own)) else None
                self._tell(differing(before, own.lists or self._shown(own)))
                await self._clock.sleep(REREAD_SECONDS)
        finally:
            own.reading = False

    # opening

    async def _open(self, own: Own, closed: Callable[[str], None]) -> None:
        links = await self._dial()
        own.link = link = links[self.form]
        link.owner, link.on_closed = own.client, closed
        link.on_notification = lambda method, params: self._noticed(own, method, params)
        link.on_gap = lambda anew: self._gap(own, anew)
        limit = start_seconds(self._spec())
        await opened(link, self._name, limit, limit, lambda: self._greet(own))
        self._ended.pop(own.client.key, None)
        if _key(own.client) not in self._learned and _key(own.client) != _NOTHING:
            self._errand(lambda: self._learn(own))
        if self._uris.get(own.client.key):
            self._errand(lambda: self._watch_again(own, anew=True))

    async def _greet(self, own: Own) -> None:
        server = await initialize(own.link, self._name)
        own.capabilities = server.capabilities
        await self._set_level(own, self._levels.get(own.client.key))
        if not own.client.stateless:
            await own.link.attend()

    async def _set_level(self, own: Own, level: str | None) -> None:
        if level is not None and level != own.level and "logging" in own.capabilities:
            own.level = level
            with contextlib.suppress(RpcError, TimeoutError):
                async with asyncio.timeout(AFFAIR_SECONDS):
                    await own.link.request("logging/setLevel", {"level": level})

    def _died(self, own: Own) -> None:
        """Who subscribed waits for no call to be told of updates; but what ends again and again waits for one."""
        key, now = own.client.key, self._clock.now()
        if self._uris.get(key):
            self._ended[key] = own.client
        if self._uris.get(key) and now - self._reopened.get(key, float("-inf")) >= STABLE:
            self._reopened[key] = now
            self._errand(lambda: self._open_again(own.client))

    async def _open_again(self, client: Client) -> None:
        await self._clock.sleep(REOPEN_SECONDS)
        if client.key in self._ended and self._uris.get(client.key):
            async with self._pool.carrying(client):
                pass

    # what it says

    def _noticed(self, own: Own, method: str, params: Raw) -> None:
        kind, standing = NOTICES.get(method), own.client.standing
        if kind is not None:
            own.stale.add(kind)
            if not own.reading:
                own.reading = True
                self._errand(lambda: self._reread(own))
        elif method == UPDATED:
            uri = updated_uri(params)
            heard = self._uris.get(own.client.key, ())
            if uri is not None and (uri in heard or below(uri, heard)):
                self._updated(uri, params, own.client.key)
        elif standing is not None:
            standing.tell(method, params)

    def _gap(self, own: Own, anew: bool) -> None:
        self._errand(lambda: self._after_gap(own, anew=anew))

    async def _after_gap(self, own: Own, *, anew: bool) -> None:
        if anew:
            level, own.level = own.level, None
            await self._set_level(own, level)
        await self._watch_again(own, anew=anew)

    async def _watch_again(self, own: Own, *, anew: bool) -> None:
        for uri in sorted(self._uris.get(own.client.key, ())):
            if anew:
                with contextlib.suppress(RpcError):
                    await own.link.request("resources/subscribe", {"uri": uri})
            self._updated(uri, rpc.raw({"uri": uri}), own.client.key)

    def _affair(self, own: Own, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """What the client said before its next call comes before that call."""
        task = self._errand(work, AFFAIR_SECONDS)
        own.affairs.add(task)
        task.add_done_callback(own.affairs.discard)

    def _errand(self, work: Callable[[], Coroutine[Any, Any, None]], seconds: float = ERRAND_SECONDS) -> asyncio.Task[None]:
        task = asyncio.create_task(self._run(work, seconds))
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return task

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await work()
        except (RpcError, RootlinkError, TimeoutError) as error:
            log.info("errand_failed", mount=self._name, why=str(error)[:300])
        except Exception:
            log.exception("errand", mount=self._name)


def _key(client: Client) -> str:
    """Equal for clients that a server is told the same abilities of."""
    return msgspec.json.encode(declared(client, stateless=False), order="sorted").decode()


_NOTHING = "{}"
