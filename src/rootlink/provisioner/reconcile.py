"""The reconciler: rows say what is wanted, engines say what is, and the difference is put right.

    row            in its engine            what is done
    connecting     missing or different     put it there; `done`: the row is connected; `failed`: undone, here and there
    connecting     there                    the row is connected
    connected      missing or different     put it there; if that fails, the row stays and tells why, but an update that no engine
                                            has held yet is rolled back
    removing       whatever                 taken away in the engine, then in the store
    (none)         there                    taken away; what belongs to the engine alone has no connection's id and is not touched

Rule 1. One reconcile of a project at a time; but while a person is waited for (a step with a link) others have their turn.
Rule 2. Every step may be the last: whatever is half done is done again, and nothing is done twice that hurts when done twice.
        The store is changed last, so a crash leaves a row that says what is still to do.
Rule 3. An install is the crew's work. Its events are kept while it runs and a while after, so a caller that comes late, or comes
        again, reads the same story from the beginning.
Rule 4. To undo never starts an engine: one that is not running is put right at its next start, by the last line of the table.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import structlog

from rootlink.errors import Conflict, Internal, NotFound, RootlinkError, Unavailable, from_code
from rootlink.provisioner.crew import Crew
from rootlink.provisioner.engines import Engines
from rootlink.provisioner.line import Line
from rootlink.records.connection import Connection, Found, Previous
from rootlink.store.store import Store
from rootlink.wire.engine import InstallEvent
from rootlink.wire.mounts import Actual, Desired, Step, digest

log = structlog.get_logger(__name__)

REMEMBERED = 60.0  # seconds for which the story of an install that ended can still be read
BREAK_OFF = 10.0  # seconds an engine gets to end an install
AGAIN = 0.5  # seconds until it is asked again
BUSY = 120.0  # seconds an engine may go on with what an earlier provisioner asked of it


class Install:
    """The story of one install: its events so far, and who waits for the next."""

    def __init__(self, connection: str) -> None:
        self.connection = connection
        self.events: list[InstallEvent] = []
        self.ended = False
        self._news = asyncio.Event()

    def tell(self, event: InstallEvent) -> None:
        self.events.append(event)
        self.ended = self.ended or event.step is None
        news, self._news = self._news, asyncio.Event()
        news.set()

    def fail(self, error: RootlinkError) -> None:
        self.tell(InstallEvent(failed={"code": error.code, "message": error.message}))

    async def news(self, *, within: float) -> None:
        """Returns at the next event, or when so many seconds have passed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), within)

    async def story(self) -> AsyncIterator[InstallEvent]:
        """From the beginning to the end, which is `done` or `failed`."""
        told = 0
        while True:
            news = self._news
            while told < len(self.events):
                told += 1
                yield self.events[told - 1]
            if self.ended:
                return
            await news.wait()


class Turn:
    """A project's turn, which may be given back for a while."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock, self._mine = lock, False

    async def take(self) -> None:
        if not self._mine:
            await self._lock.acquire()
            self._mine = True

    def give_back(self) -> None:
        if self._mine:
            self._mine = False
            self._lock.release()


class Reconciler:
    """`clock` is monotonic seconds. Tells `engines` to call it after every spawn."""

    def __init__(self, store: Store, engines: Engines, crew: Crew, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._engines, self._crew, self._clock = store, engines, crew, clock
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._installs: dict[str, Install] = {}
        self._ended: dict[str, float] = {}  # connection → when its install ended
        self._refused: dict[str, RootlinkError] = {}  # connection → why its update was rolled back, until whoever asked hears it
        self._vain: set[str] = set()  # connections that could not be put back; at the engine's next start they are tried again
        engines.spawned = self.later

    # what the gateway asks

    def install(self, connection: str, *, again: bool = False, anew: bool = False) -> Install:
        """The install of this connection, begun if it is not. `again`: an earlier provisioner may have begun it in the engine.
        `anew`: the row wants something else by now, so an install that ended tells nothing."""
        self._forget_old()
        found = self._installs.get(connection)
        if found is None or ((again or anew) and found.ended):
            found = self._installs[connection] = Install(connection)
            try:
                self._crew.start(self._run(found, again), f"install {connection}")
            except Unavailable:
                del self._installs[connection]
                raise
        return found

    async def remove(self, connection: str) -> None:
        """Raises Unavailable when the engine can't be asked; the row stays `removing` then, and is tried again."""
        await self._crew.finish(self._remove(connection), f"remove {connection}")

    # what the owner calls

    async def catch_up(self) -> None:
        """Begin whatever rows say is still to do; called at the start and at every poll."""
        for row in await asyncio.to_thread(self._store.connections.all):
            if row.state == "connecting":
                self.install(row.id, again=True)
            elif row.state == "removing" and not self._locks[row.project].locked():
                self._crew.start(self._remove(row.id), f"remove {row.id}")

    async def watch(self) -> None:
        """One poll: what is still to do, and whether what is connected still stands in every running engine."""
        await self.catch_up()
        await asyncio.gather(*(self._watch(project) for project in self._engines.projects()))

    def later(self, project: str) -> None:
        """Reconcile this project in the background."""
        with contextlib.suppress(Unavailable):  # the provisioner is stopping: the next one does it
            self._crew.start(self._reconcile(project), f"reconcile {project}")

    # install

    async def _run(self, install: Install, again: bool) -> None:
        try:
            row = await asyncio.to_thread(self._store.connections.by_id, install.connection)
            if row is None:
                raise NotFound("there is no such connection; it may have been undone")
            turn = Turn(self._locks[row.project])
            try:
                await turn.take()
                await self._drive(install, again, turn)
            finally:
                turn.give_back()
        except RootlinkError as error:
            install.fail(error)
        except Exception:
            log.exception("install failed", connection=install.connection)
            install.fail(Internal("Internal error"))
        finally:
            self._ended[install.connection] = self._clock()

    async def _drive(self, install: Install, again: bool, turn: Turn) -> None:
        row = await asyncio.to_thread(self._store.connections.by_id, install.connection)  # as it is now that it is our turn
        if row is None:
            raise NotFound("there is no such connection; it may have been undone")
        if row.state == "removing":
            raise Conflict(f"connection {row.name!r} is being removed")
        if row.state == "connected":
            refused = self._refused.pop(row.id, None)
            if on_trial(row):
                install.tell(InstallEvent(done=await self._updated(install, row)))
            elif refused is not None:  # a look at the project was quicker, and rolled it back
                raise refused
            else:
                install.tell(InstallEvent(done=_as_kept(row)))
            return
        steps: dict[str, Step] = {}

        async def tell(step: Step) -> None:
            await self._step(install, row, steps, step)
            if step.link:
                turn.give_back()
            else:
                await turn.take()

        try:
            actual = await self._put(row, again, tell)
            if again:
                actual = await self._introduced(row, actual)
        except Exception as error:
            await turn.take()
            await self._undo(row, error)
            raise
        await turn.take()
        last = _last_step(actual)
        if steps.get(last.step) != last:  # found there, with no step told; or refused once and then found there
            await self._step(install, row, steps, last)
        tools, told, found = actual.tools, _told(row, steps), Found.at_connect(actual)
        connected = self._store.connections.set_state
        await asyncio.to_thread(connected, row.id, "connected", error=actual.error, tools=tools, steps=told, found=found)
        log.info("connected", project=row.project, connection=row.id, tools=len(tools))
        install.tell(InstallEvent(done=actual))

    async def _introduced(self, row: Connection, actual: Actual) -> Actual:
        """What the checks of a connect found is told once, and whoever was told may be gone: they are asked again."""
        line, checks = self._engines.live(row.project), desired_of(row).checks
        if line is None or not checks or actual.label or actual.notes:
            return actual
        try:
            verdict = await line.check(row.id, checks)
        except RootlinkError as error:  # it is there, so they went well
            log.info("checks not repeated", project=row.project, connection=row.id, reason=error.message)
            return actual
        return msgspec.structs.replace(actual, label=verdict.label, notes=verdict.notes)

    async def _updated(self, install: Install, row: Connection) -> Actual:
        """An update that no engine has held yet. Raises why it can't be, and what was before is back then."""

        unattended = _unattended(row)

        async def tell(step: Step) -> None:
            install.tell(InstallEvent(step=step))
            await unattended(step)

        try:
            actual = await self._put(row, False, tell)
        except RootlinkError as error:
            await self._roll_back(row, error)
            raise
        await self._held(row)
        await self._keep(row, actual.error, actual.tools, Found.at_connect(actual))
        return actual

    async def _held(self, row: Connection) -> None:
        if on_trial(row):
            await asyncio.to_thread(self._store.connections.held, row.id)

    async def _roll_back(self, row: Connection, error: RootlinkError) -> None:
        log.warning("update rolled back", project=row.project, connection=row.id, code=error.code, reason=error.message)
        try:
            before = await asyncio.to_thread(self._store.connections.roll_back, row.id, failed=True)
        except RootlinkError as gone:  # removed meanwhile, or the store can't be asked: the next poll sees
            log.warning("update not rolled back", connection=row.id, reason=gone.message)
            return
        await _quietly(self._engines.refresh(row.project), "roll back", row)
        line = self._engines.live(row.project)
        if line is not None:
            await self._put_back(line, before)

    async def _step(self, install: Install, row: Connection, steps: dict[str, Step], step: Step) -> None:
        """A page that a person must open is in the row too: whoever looks at the connection can finish it."""
        before = steps.get(step.step)
        steps[step.step] = step
        install.tell(InstallEvent(step=step))
        if step != before and (step.link or (before is not None and before.link)):
            with contextlib.suppress(RootlinkError):  # undone meanwhile, or no store: who reads the story is told anyway
                await asyncio.to_thread(self._store.connections.set_state, row.id, "connecting", steps=_told(row, steps))

    async def _put(self, row: Connection, again: bool, step: Callable[[Step], Awaitable[None]]) -> Actual:
        """What the engine then holds. Raises what the engine refused it with, and Unavailable when it could not be asked."""
        desired = msgspec.structs.replace(desired_of(row), rules=row.rules)
        line = await self._engines.line(row.project)
        await self._engines.refresh(row.project)  # the secrets and hosts this connection brought
        if not again:
            return await self._apply(line, desired, step)
        deadline = self._clock() + BUSY
        while True:
            held = {actual.id: actual for actual in await line.connections()}.get(row.id)
            if held is not None and held.digest == digest(desired) and held.state != "missing":
                return held
            try:
                return await self._apply(line, desired, step)
            except Conflict:  # with its own earlier self, perhaps: the engine goes on with what it was asked before
                if self._clock() >= deadline:
                    raise
            await asyncio.sleep(1.0)

    async def _apply(self, line: Line, desired: Desired, step: Callable[[Step], Awaitable[None]]) -> Actual:
        async with contextlib.aclosing(line.apply(desired)) as events:
            async for event in events:
                if event.step is not None:
                    await step(event.step)
                elif event.failed is not None:
                    raise from_code(event.failed.get("code", ""), event.failed.get("message") or "refused without a reason")
                elif event.done is not None:
                    return event.done
        raise Unavailable("the engine ended before it was done")

    async def _undo(self, row: Connection, error: Exception) -> None:
        log.info("undone", project=row.project, connection=row.id, why=getattr(error, "code", type(error).__name__))
        line = self._engines.live(row.project)
        if line is not None:
            await _quietly(line.remove(row.id), "undo", row)
        why = error.message if isinstance(error, RootlinkError) else "internal error"
        await asyncio.to_thread(self._store.connections.undo, row.id, why=why)
        if line is not None:
            await _quietly(self._engines.refresh(row.project), "undo", row)  # the secrets and hosts that went with it

    # remove

    async def _remove(self, connection: str) -> None:
        row = await asyncio.to_thread(self._store.connections.by_id, connection)
        if row is None:
            return
        await self._break_off(row)
        async with self._locks[row.project]:
            await self._take_away(row)

    async def _break_off(self, row: Connection) -> None:
        """An install that hangs would keep the project's lock for minutes. The engine ends it, then `_drive` undoes it."""
        install = self._installs.get(row.id)
        while install is not None and not install.ended:  # it may be on its way to the engine yet
            line = self._engines.live(row.project)
            if line is not None:
                await _quietly(line.remove(row.id, within=BREAK_OFF), "break off", row)
            await install.news(within=AGAIN)

    async def _take_away(self, row: Connection) -> None:
        if await asyncio.to_thread(self._store.connections.by_id, row.id) is None:
            return
        await asyncio.to_thread(self._store.connections.mark_removing, row.id)
        await (await self._engines.line(row.project)).remove(row.id)
        await asyncio.to_thread(self._store.connections.remove, row.id)
        self._installs.pop(row.id, None)
        self._refused.pop(row.id, None)
        await _quietly(self._engines.refresh(row.project), "remove", row)
        log.info("removed", project=row.project, connection=row.id)

    # the rest of the table

    async def _reconcile(self, project: str) -> None:
        async with self._locks[project]:
            line = self._engines.live(project)
            if line is None:
                return
            actual = {one.id: one for one in await line.connections()}
            rows = await asyncio.to_thread(self._store.connections.list, project)
            for extra in actual.keys() - {row.id for row in rows}:
                log.info("extra connection removed", project=project, connection=extra)
                await line.remove(extra)
            for row in rows:
                if row.state in ("connected", "failed") and _differs(row, actual.get(row.id)):
                    await self._put_back(line, row)

    async def _put_back(self, line: Line, row: Connection) -> None:
        try:
            wanted = msgspec.structs.replace(desired_of(row), rules=row.rules) if on_trial(row) else _unchecked(row)
            actual = await self._apply(line, wanted, _unattended(row))
        except RootlinkError as error:
            if on_trial(row):
                self._refused[row.id] = error
                await self._roll_back(row, error)
                return
            log.warning("connection not put back", project=row.project, connection=row.id, code=error.code, reason=error.message)
            self._vain.add(row.id)
            await self._keep(row, error.message, None, Found())
        else:
            self._vain.discard(row.id)
            await self._held(row)
            await self._keep(row, actual.error, actual.tools, _seen(row, actual))

    async def _watch(self, project: str) -> None:
        line = self._engines.live(project)
        if line is None or self._locks[project].locked():
            return
        try:
            actual = {one.id: one for one in await line.connections(within=3.0)}
            rows = await asyncio.to_thread(self._store.connections.list, project)
        except RootlinkError:
            return  # the engine's own poll says so
        if actual.keys() - {row.id for row in rows} or any(
            _differs(row, actual.get(row.id)) for row in rows if row.id not in self._vain
        ):
            self.later(project)
            return
        for row in rows:
            await self._note(row, actual.get(row.id))

    async def _note(self, row: Connection, actual: Actual | None) -> None:
        """What became of a connection since: its error, and its tools while they are known."""
        if row.state == "connected" and actual is not None:
            ready = actual.state == "ready"
            tools, seen = actual.tools if ready else row.tools, _seen(row, actual) if ready else Found()
            if (row.error, row.tools) != (actual.error, tools) or seen != Found():
                await self._keep(row, actual.error, tools, seen)

    async def _keep(self, row: Connection, error: str | None, tools: list[str] | None, found: Found) -> None:
        connected = self._store.connections.set_state
        try:
            await asyncio.to_thread(connected, row.id, "connected", error=error, tools=tools, found=found)
        except RootlinkError as refused:  # removed meanwhile, or the store can't be asked: the next poll sees
            log.info("connection not noted", connection=row.id, reason=refused.message)

    def _forget_old(self) -> None:
        long_ago = self._clock() - REMEMBERED
        for connection in [one for one, at in self._ended.items() if at < long_ago]:
            del self._ended[connection]
            self._installs.pop(connection, None)


def on_trial(row: Connection) -> bool:
    """Whether the row is an update that no engine has held yet."""
    return row.previous is not None and msgspec.json.decode(row.previous, type=Previous).trying


def desired_of(row: Connection) -> Desired:
    try:
        return msgspec.json.decode(row.desired, type=Desired)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Internal(f"what connection {row.name!r} wants can't be read") from None


def _unchecked(row: Connection) -> Desired:
    """For one that is only put back: its checks were made when it was connected."""
    return msgspec.structs.replace(desired_of(row), checks=[], rules=row.rules)


def _unattended(row: Connection) -> Callable[[Step], Awaitable[None]]:
    """For steps that nobody reads. A page to sign in on is not waited for: the whole project would wait, for ten minutes."""

    async def hear(step: Step) -> None:
        if step.link:
            raise Unavailable(f"{row.name} waits for a sign-in; ask the operator to sign in with: rootlink sign-in {row.name}")

    return hear


def _seen(row: Connection, actual: Actual) -> Found:
    """What is new of a running connection: what is held back, and the first pins. Label and notes are of checks alone."""
    held = actual.held if actual.held != row.held else None
    return Found(held=held, pins=actual.pins if actual.pins and not row.rules.pins else None)


def _told(row: Connection, steps: dict[str, Step]) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(step) for step in (*_earlier(row), *steps.values())]


def _last_step(actual: Actual) -> Step:
    """As the engine tells it when it has just been done."""
    count = len(actual.tools)
    return Step("install" if actual.kind == "mount" else "deploy", "done", f"{count} tool{'' if count == 1 else 's'}")


def _differs(row: Connection, actual: Actual | None) -> bool:
    if row.state not in ("connected", "failed"):
        return False
    return actual is None or actual.state == "missing" or actual.digest != digest(desired_of(row))


def _as_kept(row: Connection) -> Actual:
    desired = desired_of(row)
    kind: Any = "mount" if desired.mount is not None else "function"
    shown = Actual(row.id, row.workspace, row.name, kind, digest(desired), "ready", row.tools, row.error)
    return msgspec.structs.replace(shown, label=row.label, notes=row.notes, held=row.held)


def _earlier(row: Connection) -> list[Step]:
    """The steps that were over when the row was written: all in one transaction (ARCHITECTURE §5)."""
    steps = [Step("seal", "done", ", ".join(row.uses)), Step("egress", "done", ", ".join(row.hosts))]
    return [step for step in steps if step.detail]


async def _quietly(work: Any, what: str, row: Connection) -> None:
    """For what the next reconcile would do anyway."""
    try:
        await work
    except RootlinkError as error:
        log.warning("not finished", what=what, project=row.project, connection=row.id, reason=error.message)
