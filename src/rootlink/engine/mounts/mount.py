"""One mounted server: its life, its last known lists, and every question to it.

    starting ──► ready ──lost──► backoff ──► starting …      after too many: failed        stop() from anywhere: stopped
        │                           ▲
        └───────── failed start ────┘                        a spec or secret that cannot work: failed at once

Rules
- One task owns the life (`_live`); whoever wants a change cancels it, changes, and begins a new one, under `_turn`.
- A start has one deadline for everything: connect, handshake, first lists. Installing a package is before it.
- The catalogue is the last one known, in every state. A change is told by kind, and only if something did change.
- A request while the first start is under way waits for it; while the server is down it fails at once, with words.
- A server's hurry costs the server: list_changed is followed at once, then at most every 250 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import structlog
from msgspec import Raw

from rootlink.engine.calls import Call, Client
from rootlink.engine.mounts import listing
from rootlink.engine.mounts.clock import Clock
from rootlink.engine.mounts.era import Refused, Server, Stateless, shake_hands
from rootlink.engine.mounts.link import Link, unheard, unminded
from rootlink.engine.mounts.listing import NOTICES, OF_KIND, Catalogue
from rootlink.engine.mounts.mirrors import without_bad_mirrors
from rootlink.engine.mounts.refusals import BEFORE, Refusals
from rootlink.engine.mounts.restarts import Restarts
from rootlink.engine.mounts.spec import START_SECONDS
from rootlink.engine.rpc import INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from rootlink.errors import EgressBlocked, Forbidden, Invalid, NotFound, RootlinkError, Unavailable, UpstreamFailed
from rootlink.wire.mounts import MountSpec

log = structlog.get_logger(__name__)
State = Literal["starting", "ready", "backoff", "failed", "stopped"]
Say = Callable[[str], None]
Dial = Callable[[MountSpec, Say], Awaitable[Sequence[Link]]]
"""Makes the links to try, best first; not opened yet. Raises RootlinkError."""

CALL_SECONDS = 60.0
REFETCH_SECONDS = 0.25
LOG_LINES = 200
_OTHER_TRANSPORT = (400, 404, 405)  # what a server of the HTTP+SSE transport says to a POST (MCP.md §1)
_ACKNOWLEDGED = "notifications/subscriptions/acknowledged"


def silent(words: str) -> None:
    """Nobody follows the progress."""


class Mount:
    """`changed(ws, kinds)` is called when lists did change behind everybody's back; not for the first start of `start()`."""

    def __init__(
        self,
        ws: str,
        spec: MountSpec,
        connection: str | None,
        *,
        dial: Dial,
        clock: Clock,
        changed: Callable[[str, set[str]], None],
        catalogue: Catalogue | None = None,
    ) -> None:
        self.ws, self.spec, self.connection = ws, spec, connection
        self.name = spec.name
        self.state: State = "starting"
        self.error: str | None = None
        self.catalogue = catalogue or Catalogue()
        self.listeners: list[Callable[[str, Raw], None]] = []  # every other notification of the server's: (method, params)
        self._dial, self._clock, self._changed = dial, clock, changed
        self._turn = asyncio.Lock()
        self._settled = asyncio.Event()
        self._slots: contextlib.AbstractAsyncContextManager[None] = (
            asyncio.Semaphore(spec.concurrency) if spec.concurrency else contextlib.nullcontext()
        )
        self._restarts = Restarts(give_up=spec.transport == "stdio")
        self._link: Link | None = None
        self._lost: asyncio.Future[str] | None = None
        self._life: asyncio.Task[None] | None = None
        self._beginning: asyncio.Task[RootlinkError | None] | None = None
        self._over = False  # stop() was called; nothing begins any more
        self._errands: list[asyncio.Task[None]] = []  # of the link in use
        self._stale: set[str] = set()
        self._told = asyncio.Event()
        self._earlier_logs: list[str] = []

    # asking

    async def request(
        self, method: str, params: dict[str, Any] | None = None, *, timeout: float | None = None, call: Call | None = None
    ) -> Raw:
        """The result's bytes: one JSON object on one line. `timeout` in seconds, 60 unless given, over waiting and answering.

        Raises RpcError for the server's own error; UpstreamFailed, Unavailable, EgressBlocked when it cannot be asked.
        """
        limit = CALL_SECONDS if timeout is None else timeout
        began = asyncio.get_running_loop().time()
        refusals: Refusals | None = None
        try:
            async with asyncio.timeout(limit) as deadline:
                await self._settled.wait()
                async with self._slots:
                    link = self._usable()
                    refusals = link.refusals
                    result = await link.request(method, params, call=call)
        except TimeoutError:
            if not deadline.expired():
                raise
            late = self._late(method, limit)
            raise (late if refusals is None else refusals.explained(late, began)) from None
        except (RpcError, RootlinkError) as error:
            if refusals is None:
                raise
            await refusals.await_late(began)
            raise refusals.explained(error, began) from error.__cause__
        return result if refusals is None else await refusals.judged(result, began)

    async def notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        """Raises UpstreamFailed, Unavailable."""
        await self._usable().notify(method, params)

    def lists(self, client: Client | None) -> Catalogue:
        """The lists as this client sees them; None: as nobody in particular."""
        return self.catalogue

    async def subscribe(self, uri: str, client: Client) -> None:
        """Raises as `request`."""
        raise RpcError(METHOD_NOT_FOUND, "Method not found: resources/subscribe")

    async def unsubscribe(self, uri: str, client: Client) -> None:
        """Raises as `request`."""
        raise RpcError(METHOD_NOT_FOUND, "Method not found: resources/unsubscribe")

    def logs(self) -> list[str]:
        """What the server wrote to stderr, this one's and the one before it; secrets redacted."""
        return [*self._earlier_logs, *(self._link.logs() if self._link else [])][-LOG_LINES:]

    def _usable(self) -> Link:
        if self._link is not None and self.state == "ready":
            return self._link
        raise Unavailable(_WORDS[self.state].format(name=self.name, error=self.error or "no reason known"))

    def _late(self, method: str, limit: float) -> RootlinkError:
        if self.state == "starting":
            return Unavailable(f"{self.name} is still starting after {limit:g} s; try again")
        return UpstreamFailed(f"{self.name} did not answer {method} within {limit:g} s")

    # being mounted and unmounted

    async def start(self, say: Say = silent) -> None:
        """First start, awaited. Raises what went wrong, with nothing left running."""
        async with self._turn:
            failure = await self._begin(say)
            if failure is not None:
                self._to("stopped", failure.message)
                raise failure
            self._life = asyncio.create_task(self._live(None))

    def revive(self) -> None:
        """Start in the background, again and again as the rules say."""
        self._life = asyncio.create_task(self._live_anew())

    async def restart(self) -> None:
        """End it, start it afresh, forgive its past. Raises what went wrong; it is then tried again like after a crash."""
        async with self._turn:
            await self._halt()
            self._restarts.forgive()
            before = self.catalogue
            failure = await self._begin(silent)
            self._life = asyncio.create_task(self._live(failure))
            self._tell(before)
            if failure is not None:
                raise failure

    async def stop(self) -> None:
        """Returns when nothing of it runs any more. What is under way is broken off."""
        self._over = True
        if self._beginning is not None:
            self._beginning.cancel()
        async with self._turn:
            await self._halt()
            self._to("stopped", None)

    async def settled(self) -> None:
        """Returns when it is not starting."""
        await self._settled.wait()

    async def _halt(self) -> None:
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
            self._life = None
        await self._drop_link()

    async def _drop_link(self) -> None:
        errands, self._errands = self._errands, []
        for task in errands:
            task.cancel()
        await asyncio.gather(*errands, return_exceptions=True)
        link = self._link
        if link is not None:
            await link.close()
            self._earlier_logs = link.logs()
            self._link = None

    # the life

    async def _live_anew(self) -> None:
        before = self.catalogue
        failure = await self._begin(silent)
        self._tell(before)
        await self._live(failure)

    async def _live(self, failure: RootlinkError | None) -> None:
        while True:
            failure = failure or await self._until_lost()
            delay = None if _hopeless(failure) else self._restarts.ended(self._clock.now())
            if delay is None:
                log.warning("mount_failed", ws=self.ws, mount=self.name, why=failure.message)
                self._to("failed", failure.message)
                return
            log.info("mount_backoff", ws=self.ws, mount=self.name, seconds=delay, why=failure.message)
            self._to("backoff", failure.message)
            await self._clock.sleep(delay)
            before = self.catalogue
            failure = await self._begin(silent)
            self._tell(before)

    async def _until_lost(self) -> RootlinkError:
        assert self._lost is not None
        assert self._link is not None
        words = await asyncio.shield(self._lost)
        link, said, since = self._link, self._link.last_words(), asyncio.get_running_loop().time() - BEFORE
        await self._drop_link()
        return _explained(link, UpstreamFailed(f"{self.name} {words}{f': {said}' if said else ''}"), since)

    async def _begin(self, say: Say) -> RootlinkError | None:
        """One start. On failure nothing of it runs, and the reason is answered; also when `stop()` broke it off."""
        stopped = Unavailable(f"{self.name} was stopped while it was starting")
        if self._over:
            return stopped
        self._to("starting", None)
        task = self._beginning = asyncio.create_task(self._bring_up(say))
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            return stopped
        finally:
            self._beginning = None

    async def _bring_up(self, say: Say) -> RootlinkError | None:
        try:
            links = await self._dial(self.spec, say)
            say(f"starting {self.name}")
            server, lists = await self._reach(links)
        except RootlinkError as error:
            return error
        except Exception as error:
            log.exception("mount_start", ws=self.ws, mount=self.name)
            return UpstreamFailed(f"{self.name} cannot be started: {type(error).__name__}")
        self._ready(server, lists)
        count = len(self.catalogue.tools)
        say(f"{self.name} has {count} tool{'' if count == 1 else 's'}")
        return None

    async def _reach(self, links: Sequence[Link]) -> tuple[Server, dict[str, list[dict[str, Any]]]]:
        """Make one of `links` the link in use. Raises RootlinkError, with every link closed."""
        limit = self.spec.timeout_secs or START_SECONDS
        end = self._clock.now() + limit
        *others, last = links
        first: UpstreamFailed | None = None
        for link in others:
            try:
                return await self._greet(link, end, limit)
            except Refused as error:
                if error.http not in _OTHER_TRANSPORT:
                    raise
                first = first or error
        try:
            return await self._greet(last, end, limit)
        except UpstreamFailed as error:
            raise first or error from None

    async def _greet(self, link: Link, end: float, limit: float) -> tuple[Server, dict[str, list[dict[str, Any]]]]:
        self._lost = lost = asyncio.get_running_loop().create_future()
        self._link = link
        self._stale.clear()
        self._told.clear()

        def closed(words: str) -> None:
            """Called while the link ends: from now on requests are told so, before the life's task gets its turn."""
            if not lost.done():
                lost.set_result(words)
            if self._link is link and self.state == "ready":
                said = link.last_words()
                failure = UpstreamFailed(f"{self.name} {words}{f': {said}' if said else ''}")
                self._to("backoff", _explained(link, failure, asyncio.get_running_loop().time() - BEFORE).message)

        link.on_closed = closed
        link.on_notification = self._noticed
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(end - self._clock.now(), 0.1)) as deadline:
                await link.open()
                server = await shake_hands(link, self.name)
                lists = await listing.read(self.name, link.request, OF_KIND, server.capabilities)
                await link.attend()
                return server, lists
        except BaseException as error:
            said = link.last_words()
            link.on_closed, link.on_notification = unminded, unheard
            await self._drop_link()
            if isinstance(error, TimeoutError) and deadline.expired():
                error = UpstreamFailed(f"{self.name} was not ready within {limit:g} s{f': {said}' if said else ''}")
            if isinstance(error, RpcError):
                error = UpstreamFailed(f"{self.name} answered with an error: {error.message[:500]}")
            if isinstance(error, UpstreamFailed):
                raise _explained(link, error, began) from None
            raise

    def _ready(self, server: Server, lists: dict[str, list[dict[str, Any]]]) -> None:
        assert self._link is not None
        self._adopt(lists)
        self.catalogue.instructions = server.instructions
        self.catalogue.server_info, self.catalogue.capabilities = server.info, server.capabilities
        self.catalogue.version = server.version
        self._restarts.ready(self._clock.now())
        self._errands = [asyncio.create_task(self._follow_changes(self._link))]
        if self._link.era.stateless:
            self._errands.append(asyncio.create_task(self._listen(self._link)))
        self._to("ready", None)

    def _to(self, state: State, error: str | None) -> None:
        self.state, self.error = state, error
        if state == "starting":
            self._settled.clear()
        else:
            self._settled.set()

    # its lists

    def _adopt(self, lists: dict[str, list[dict[str, Any]]]) -> None:
        """A new catalogue: whoever holds the old one keeps what it saw."""
        if self._link is not None and isinstance(self._link.era, Stateless) and "tools" in lists:
            lists["tools"] = without_bad_mirrors(self.name, lists["tools"])
            self._link.era.learn(lists["tools"])
        held = self.catalogue
        kept = {which: lists.get(which, getattr(held, which)) for which in listing.LISTS}
        self.catalogue = Catalogue(
            **kept,
            instructions=held.instructions,
            server_info=held.server_info,
            capabilities=held.capabilities,
            version=held.version,
        )

    def _tell(self, before: Catalogue) -> None:
        kinds = {kind for kind, lists in OF_KIND.items() if any(getattr(before, w) != getattr(self.catalogue, w) for w in lists)}
        if not kinds:
            return
        try:
            self._changed(self.ws, kinds)
        except Exception:
            log.exception("mount_change", ws=self.ws, mount=self.name)

    def _noticed(self, method: str, params: Raw) -> None:
        kind = NOTICES.get(method)
        if kind is not None:
            self._stale.add(kind)
            self._told.set()
        elif method == _ACKNOWLEDGED:  # what changed before this moment was not told
            self._stale.update(OF_KIND)
            self._told.set()
        else:
            for listener in tuple(self.listeners):
                listener(method, params)

    async def _follow_changes(self, link: Link) -> None:
        while True:
            await self._told.wait()
            self._told.clear()
            kinds, self._stale = self._stale, set()
            try:
                async with asyncio.timeout(START_SECONDS):
                    lists = await listing.read(self.name, link.request, sorted(kinds), self.catalogue.capabilities)
            except (RpcError, RootlinkError, TimeoutError) as error:
                log.warning("list_unread", ws=self.ws, mount=self.name, kinds=sorted(kinds), why=str(error)[:300])
            else:
                before = self.catalogue
                self._adopt(lists)
                self._tell(before)
            await self._clock.sleep(REFETCH_SECONDS)

    async def _listen(self, link: Link) -> None:
        """The stateless era's only way to hear of changes: one long request, asked again when it ends."""
        capabilities = self.catalogue.capabilities
        wanted = {
            f"{kind}ListChanged": True
            for kind in OF_KIND
            if isinstance(capabilities.get(kind), dict) and capabilities[kind].get("listChanged") is True
        }
        delay = 1.0
        while wanted:
            began = self._clock.now()
            try:
                await link.request("subscriptions/listen", {"notifications": wanted})
            except RpcError as error:
                if error.code in (METHOD_NOT_FOUND, INVALID_PARAMS):
                    return
            except RootlinkError as error:
                log.info("listen_ended", ws=self.ws, mount=self.name, why=error.message)
            if self._clock.now() - began > 30.0:
                delay = 1.0
            await self._clock.sleep(delay)
            delay = min(delay * 2, 30.0)


_WORDS: dict[State, str] = {
    "starting": "{name} is starting; try again",
    "ready": "{name} is just being restarted; try again",
    "backoff": "{name} is restarting after a crash: {error}",
    "failed": "{name} is down and is not started again by itself: {error}. Restart it when its cause is gone",
    "stopped": "{name} was stopped",
}


def _explained(link: Link, error: RootlinkError, began: float) -> RootlinkError:
    return error if link.refusals is None else link.refusals.explained(error, began)


def _hopeless(failure: RootlinkError) -> bool:
    """Trying again changes nothing until somebody changes a spec, a secret or a directory. An allowlist may change any moment."""
    return isinstance(failure, Invalid | NotFound | Forbidden) and not isinstance(failure, EgressBlocked)
