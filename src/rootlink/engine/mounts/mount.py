"""One mounted server: its life, its last known lists, and every question to it.

    starting ──► ready ──lost──► starting ──► ready          the first time in a minute; then
    starting ──► ready ──lost──► backoff ──► starting …      after too many: failed        stop() from anywhere: stopped
        │                           ▲
        └───────── failed start ────┘                        a spec or secret that cannot work: failed at once

Rules
- One task owns the life (`_live`); whoever wants a change cancels it, changes, and begins a new one, under `_turn`.
- A start has one deadline for everything: connect, handshake, first lists. Installing a package is before it.
- The catalogue is the last one known, in every state. A change is told by kind, and only if something did change.
- A request while a start is under way waits for it; while the server is down it fails at once, with words. What was sent is not
  sent again.
- A call goes over the mount's own link, or, where a session-era server keeps something for each client, over one of its client's
  own (clients.py); a server of the stateless era is told in each request who asks.
- A call's time stands still while its client is asked something, and begins anew with progress (patience.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Literal

import structlog
from msgspec import Raw

from rootlink.engine.calls import LEVELS, Call, Client
from rootlink.engine.mounts import listing
from rootlink.engine.mounts.clients import Clients
from rootlink.engine.mounts.clock import Clock
from rootlink.engine.mounts.era import STATELESS_VERSIONS, Refused, Stateless
from rootlink.engine.mounts.failures import Start
from rootlink.engine.mounts.handshake import Anew, Server, shake_hands
from rootlink.engine.mounts.latest import Latest
from rootlink.engine.mounts.link import Link
from rootlink.engine.mounts.listing import OF_KIND, Catalogue, Listed, differing, with_lists
from rootlink.engine.mounts.mirrors import without_bad_mirrors
from rootlink.engine.mounts.opening import explained, opened
from rootlink.engine.mounts.patience import Patient
from rootlink.engine.mounts.refusals import BEFORE
from rootlink.engine.mounts.restarts import Restarts
from rootlink.engine.mounts.shared import Shared
from rootlink.engine.mounts.spec import start_seconds
from rootlink.engine.rpc import RpcError
from rootlink.errors import EgressBlocked, Forbidden, Invalid, NotFound, RootlinkError, Unavailable, UpstreamFailed
from rootlink.wire.mounts import MountSpec

log = structlog.get_logger(__name__)
State = Literal["starting", "ready", "backoff", "failed", "stopped"]
Say = Callable[[str], None]
Dial = Callable[[MountSpec, Say], Awaitable[Sequence[Link]]]
"""Makes the links to try, best first; not opened yet. Raises RootlinkError."""

CALL_SECONDS = 60.0
LOG_LINES = 200
_CALL = "tools/call"
_OTHER_TRANSPORT = (400, 404, 405)  # what a server of the HTTP+SSE transport says to a POST (MCP.md §1)


def silent(words: str) -> None:
    """Nobody follows the progress."""


def at_any_time() -> None:
    """The default of `admit`."""


class Mount:
    """`changed(ws, kinds)` is called when lists did change behind everybody's back; not for the first start of `start()`.

    `updated(ws, uri, params, key)`: a resource somebody subscribed to changed; `key`: for this client, None: for all.
    `levels`: the log level of each session that set one, by client key; it is the maker's, who says when it changed (`level`).
    """

    def __init__(
        self,
        ws: str,
        spec: MountSpec,
        connection: str | None,
        *,
        dial: Dial,
        clock: Clock,
        changed: Callable[[str, set[str]], None],
        updated: Callable[[str, str, Raw, str | None], None],
        levels: dict[str, str],
        catalogue: Catalogue | None = None,
    ) -> None:
        self.ws, self.spec, self.connection = ws, spec, connection
        self.name = spec.name
        self.state: State = "starting"
        self.error: str | None = None  # of its state
        self._latest = Latest()
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
        self._restarting: set[asyncio.Task[None]] = set()
        self._over = False  # stop() was called; nothing begins any more
        self._earlier_logs: list[str] = []
        known = catalogue.version if catalogue is not None else ""
        self._stateless = known in STATELESS_VERSIONS if known else None  # its era, when it was last greeted
        self._clients = Clients(
            self.name,
            lambda: self.spec,
            lambda: dial(self.spec, silent),
            clock,
            base=lambda: self.catalogue,
            changed=self._tell_of,
            updated=partial(updated, ws),
            levels=levels,
        )
        told = partial(updated, ws)
        self._shared = Shared(self.name, clock, updated=told, reread=self._reread, unread=self._unread, levels=levels)

    @property
    def shown(self) -> str | None:
        """What is wrong, for whoever looks at it: with its state, or else with the latest call of its tools. Not redacted."""
        return self.error or self._latest.words

    # asking

    async def request(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        call: Call | None = None,
        admit: Callable[[], None] = at_any_time,
    ) -> Raw:
        """The result's bytes: one JSON object on one line. `timeout` in seconds, over waiting and answering; the spec's or
        60 unless given. `admit` is called when it is about to be sent, and keeps it from that by what it raises.

        Raises RpcError for the server's own error; UpstreamFailed, Unavailable, EgressBlocked when it cannot be asked.
        """
        limit = self._seconds() if timeout is None else timeout
        began = asyncio.get_running_loop().time()
        link: Link | None = None
        try:
            async with asyncio.timeout(limit) as deadline:
                patient = Patient(call, deadline, limit) if call is not None else None
                try:
                    async with self._slot(method), self._carrier(call) as link:
                        admit()
                        result = await link.request(method, params, call=patient)
                finally:
                    if patient is not None:
                        patient.over()
        except TimeoutError:
            if not deadline.expired():
                raise
            late = self._late(method, limit) if link is not None or self.state == "starting" else self._unsent(limit)
            if link is not None:
                self._failed(method, params, late, _refused(link, began))
            raise (late if link is None else explained(link, late, began)) from None
        except (RpcError, RootlinkError) as error:
            if link is None:
                raise
            if link.refusals is not None:
                await link.refusals.await_late(began)
            self._failed(method, params, error, _refused(link, began))
            if link.refusals is None:
                raise
            raise link.refusals.explained(error, began) from error.__cause__
        judged = result if link.refusals is None else await link.refusals.judged(result, began)
        if method == _CALL:
            self._latest.answered((params or {}).get("name"), result, partial(_refused, link, began))
        return judged

    def _failed(self, method: str, params: dict[str, Any] | None, error: RpcError | RootlinkError, refused: list[str]) -> None:
        if method == _CALL:
            self._latest.raised((params or {}).get("name"), error, refused)

    def _slot(self, method: str) -> contextlib.AbstractAsyncContextManager[None]:
        """A task is asked about, ended and waited for beside the calls that it outlasts."""
        return contextlib.nullcontext() if method.startswith("tasks/") else self._slots

    @contextlib.asynccontextmanager
    async def _carrier(self, call: Call | None) -> AsyncIterator[Link]:
        """The link that carries a call. One of a client's own works on while the mount's is down."""
        if call is None or not self._clients.alive(call.client):
            await self._settled.wait()
            link = self._usable()
            if call is None or not self._clients.apart:
                if call is not None and call.client.stateless and call.level in LEVELS:
                    self._shared.asks(call.level)
                if self._shared.telling is not None:
                    await asyncio.wait({self._shared.telling})
                yield link
                return
        async with self._clients.carrying(call.client, call.level) as own:
            yield own

    async def notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        """Raises UpstreamFailed, Unavailable."""
        await self._usable().notify(method, params)

    def lists(self, client: Client | None) -> Catalogue:
        """The lists as this client sees them; None: as nobody in particular."""
        if client is None:
            return self.catalogue
        return self._clients.lists(client, ready=self.state == "ready") or self.catalogue

    async def subscribe(self, uri: str, client: Client) -> None:
        """Safe to repeat. Raises as `request`."""
        async with self._in_time("resources/subscribe"):
            if self._clients.apart and not client.stateless:
                await self._clients.subscribe(uri, client)
            else:
                await self._shared.subscribe(self._usable(), uri, client)

    async def unsubscribe(self, uri: str, client: Client) -> None:
        """Safe to repeat. Raises as `request`."""
        async with self._in_time("resources/unsubscribe"):
            if self._clients.apart and not client.stateless:
                await self._clients.unsubscribe(uri, client)
            else:
                await self._shared.unsubscribe(self._usable(), uri, client)

    def level(self, client: Client) -> None:
        """A session client's log level is another one now (`levels`)."""
        self._clients.level(client)
        self._shared.level()

    def told(self, client: Client, method: str, params: Raw) -> None:
        """A session client's own notice, for its own link."""
        self._clients.told(client, method, params)

    def forget_client(self, key: str) -> None:
        self._clients.forget(key)
        self._shared.forget(key)

    def logs(self) -> list[str]:
        """What the server wrote to stderr, this one's and the one before it, and its clients' own; secrets redacted."""
        return [*self._earlier_logs, *(self._link.logs() if self._link else []), *self._clients.logs()][-LOG_LINES:]

    @contextlib.asynccontextmanager
    async def _in_time(self, method: str) -> AsyncIterator[None]:
        """Once it is settled, within the time of a call."""
        try:
            async with asyncio.timeout(self._seconds()) as deadline:
                await self._settled.wait()
                yield
        except TimeoutError:
            if not deadline.expired():
                raise
            raise self._late(method, self._seconds()) from None

    def _seconds(self) -> float:
        return self.spec.timeout_secs or CALL_SECONDS

    def _usable(self) -> Link:
        if self._link is not None and self.state == "ready":
            return self._link
        raise Unavailable(_WORDS[self.state].format(name=self.name, error=self.error or "no reason known"))

    def _late(self, method: str, limit: float) -> RootlinkError:
        if self.state == "starting":
            return Unavailable(f"{self.name} is still starting after {limit:g} s; try again")
        return UpstreamFailed(f"{self.name} did not answer {method} within {limit:g} s")

    def _unsent(self, limit: float) -> Unavailable:
        return Unavailable(f"{self.name} is busy: for {limit:g} s it was not this call's turn, and it was not sent; try again")

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
        """End it, start it afresh, forgive its past. Raises what went wrong; it is then tried again like after a crash. Goes on
        when whoever asked for it does not wait."""
        task = asyncio.create_task(self._restart())
        self._restarting.add(task)
        task.add_done_callback(self._restarting.discard)
        await asyncio.shield(task)

    async def _restart(self) -> None:
        async with self._turn:
            if self._over:
                raise Unavailable(_WORDS["stopped"].format(name=self.name))
            self._to("starting", None)
            await self._halt()
            self._restarts.forgive()
            self._stateless = None
            self._latest.words = None
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
        await asyncio.gather(self._drop_link(), self._clients.close())

    async def _drop_link(self) -> None:
        await self._shared.end()
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
            if delay:
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
        return explained(link, UpstreamFailed(f"{self.name} {words}{f': {said}' if said else ''}"), since)

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
            server, lists = await self._reach_anew(links)
        except RootlinkError as error:
            self._stateless = None
            return error
        except Exception as error:
            log.exception("mount_start", ws=self.ws, mount=self.name)
            return UpstreamFailed(f"{self.name} cannot be started: {type(error).__name__}")
        self._ready(server, lists)
        count = len(self.catalogue.tools)
        say(f"{self.name} has {count} tool{'' if count == 1 else 's'}")
        return None

    async def _reach_anew(self, links: Sequence[Link]) -> tuple[Server, Listed]:
        """Make one of `links` the link in use, or one dialled after them. Raises RootlinkError, with every link closed."""
        limit = start_seconds(self.spec)
        end = self._clock.now() + limit
        try:
            return await self._reach(links, end, limit)
        except Anew as again:
            self._stateless = again.stateless
        try:
            return await self._reach(await self._dial(self.spec, silent), end, limit)
        except Anew as again:
            raise again.error from None

    async def _reach(self, links: Sequence[Link], end: float, limit: float) -> tuple[Server, Listed]:
        """Raises Anew, RootlinkError, with every link closed."""
        *others, last = links
        first: UpstreamFailed | None = None
        for form, link in enumerate(others):
            self._clients.form = form
            try:
                return await self._greet(link, end, limit)
            except Refused as error:
                if error.http not in _OTHER_TRANSPORT:
                    raise
                first = first or error
        self._clients.form = len(others)
        try:
            return await self._greet(last, end, limit)
        except UpstreamFailed as error:
            raise first or error from None

    async def _greet(self, link: Link, end: float, limit: float) -> tuple[Server, Listed]:
        self._lost = lost = asyncio.get_running_loop().create_future()
        self._link = link
        self._shared.fresh()

        def closed(words: str) -> None:
            """Called while the link ends: from now on requests are told so, before the life's task gets its turn."""
            if not lost.done():
                lost.set_result(words)
            if self._link is link and self.state == "ready":
                said = link.last_words()
                failure = UpstreamFailed(f"{self.name} {words}{f': {said}' if said else ''}")
                why = explained(link, failure, asyncio.get_running_loop().time() - BEFORE).message
                self._to("starting" if self._restarts.excuses(self._clock.now()) else "backoff", why)

        start = Start()

        async def greet() -> tuple[Server, Listed]:
            server = await shake_hands(link, self.name, self._known())
            lists = await listing.read(self.name, start.asking(link.request), OF_KIND, server.capabilities)
            await link.attend()
            return server, lists

        link.on_closed, link.on_notification = closed, self._noticed
        link.on_gap = self._shared.gap
        try:
            return await opened(link, self.name, max(end - self._clock.now(), 0.1), limit, greet, start)
        except BaseException:
            await self._drop_link()
            raise

    def _known(self) -> bool | None:
        """Who is to have a process for each client is asked for sessions: the stateless era has none."""
        return False if self._stateless is None and self.spec.session == "client" else self._stateless

    def _ready(self, server: Server, lists: Listed) -> None:
        link = self._link
        assert link is not None
        self._stateless = link.era.stateless
        self._adopt(lists)
        self.catalogue.instructions = server.instructions
        self.catalogue.server_info, self.catalogue.capabilities = server.info, server.capabilities
        self.catalogue.version = server.version
        self._restarts.ready(self._clock.now())
        apart = not link.era.stateless and (self.spec.session or ("client" if link.sessioned else "shared")) == "client"
        self._shared.begin(link, server.capabilities, self._noticed)
        self._to("ready", None)
        self._clients.ready(apart=apart)

    def _to(self, state: State, error: str | None) -> None:
        self.state, self.error = state, error
        if state == "starting":
            self._settled.clear()
        else:
            self._settled.set()

    # its lists

    def _adopt(self, lists: Listed) -> None:
        """A new catalogue: whoever holds the old one keeps what it saw."""
        if self._link is not None and isinstance(self._link.era, Stateless) and "tools" in lists.items:
            lists.items["tools"] = without_bad_mirrors(self.name, lists.items["tools"])
            self._link.era.learn(lists.items["tools"])
        self.catalogue = with_lists(self.catalogue, lists)

    def _tell(self, before: Catalogue) -> None:
        kinds = differing(before, self.catalogue)
        if kinds:
            self._clients.base_changed()
            self._tell_of(kinds)

    def _tell_of(self, kinds: set[str]) -> None:
        try:
            self._changed(self.ws, kinds)
        except Exception:
            log.exception("mount_change", ws=self.ws, mount=self.name)

    def _noticed(self, method: str, params: Raw) -> None:
        if not self._shared.notice(method, params):
            for listener in tuple(self.listeners):
                listener(method, params)

    async def _reread(self, link: Link, kinds: list[str]) -> None:
        """Raises RpcError, RootlinkError."""
        lists = await listing.read(self.name, link.request, kinds, self.catalogue.capabilities)
        before = self.catalogue
        self._adopt(lists)
        self._tell(before)
        if "tools" in kinds and self.state == "ready":
            self.error = None

    def _unread(self, kinds: list[str], why: str) -> None:
        """A list that changed could not be read: the one last known stands, and whoever looks is told of tools."""
        if "tools" in kinds and self.state == "ready":
            failed = f"tools/list failed: {why[:500]}" if why else "tools/list was not answered"
            self.error = f"{self.name} says that its tools changed, but {failed}. Those known before stand"


_WORDS: dict[State, str] = {
    "starting": "{name} is starting; try again",
    "ready": "{name} is just being restarted; try again",
    "backoff": "{name} is restarting after a crash: {error}",
    "failed": "{name} is down and is not started again by itself: {error}. Restart it when its cause is gone",
    "stopped": "{name} was stopped",
}


def _refused(link: Link, began: float) -> list[str]:
    """What was, since then, in words."""
    return link.refusals.lines(began) if link.refusals is not None and link.refusals.concern(began) else []


def _hopeless(failure: RootlinkError) -> bool:
    """Trying again changes nothing until somebody changes a spec, a secret or a directory. An allowlist may change any moment."""
    return isinstance(failure, Invalid | NotFound | Forbidden) and not isinstance(failure, EgressBlocked)
