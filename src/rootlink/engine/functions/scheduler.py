"""Runs what `triggers.py` holds: schedules when they are due, webhooks when they are called.

Rule 1. A schedule is marked as fired before its run begins: a due time is never run twice, whatever ends the engine.
Rule 2. What was missed is made up for once, if it was due within the last day.
Rule 3. While a run of a schedule goes on, its next one is skipped, and that is counted.
Rule 4. A clock that is put back fires nothing again, and one that is put forward is noticed within a minute. A time reckoned
        from more than `WRONG_SECS` ahead is of a clock that was wrong, and is reckoned again.
Rule 5. A run holds the engine's lease, and goes on when whoever called the webhook has left.
Rule 6. Of all schedules that are due at once, `AT_ONCE` run and the others wait, so that people's own calls find room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec
import structlog

from rootlink.engine.functions.run import Run, timestamp
from rootlink.engine.functions.triggers import Key, Last, Row, Scheduled, Triggers
from rootlink.engine.lease import Lease
from rootlink.errors import Internal, RootlinkError, Unavailable

DAY: Final = 86_400.0
LOOK_SECS: Final = 60.0
WRONG_SECS: Final = 3 * 3600.0
AT_ONCE: Final = 500  # half of what a project may have in flight

log = structlog.get_logger(__name__)


class Invoke(Protocol):
    """`FunctionHost.invoke`."""

    async def __call__(
        self, ws: str, name: str, input: Any, *, trigger: str = ..., key: str | None = ..., same: Any = ...
    ) -> Run: ...


class Scheduler:
    """`admit` raises when a person has withheld the function. `keep` goes on until it is cancelled; runs are tasks of `tasks`.
    `look` in seconds: see rule 4."""

    def __init__(
        self,
        triggers: Triggers,
        invoke: Invoke,
        lease: Lease,
        tasks: asyncio.TaskGroup,
        admit: Callable[[str, str], None] = lambda ws, name: None,
        *,
        look: float = LOOK_SECS,
    ) -> None:
        self._triggers, self._invoke, self._lease, self._tasks, self._admit = triggers, invoke, lease, tasks, admit
        self._now, self._look_secs = triggers.now, look
        self._changed = asyncio.Event()
        triggers.changed = self._changed.set
        self._scheduled: set[Key] = set()  # of which a run goes on
        self._runs: set[asyncio.Task[Any]] = set()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._put_right()

    def _put_right(self) -> None:
        """Runs that an engine's end left without one of their own."""
        for scheduled in self._triggers.schedules:
            last = scheduled.row.last
            if last is not None and last.status == "running":
                self._note(scheduled, last=Last(last.due, "killed"))

    async def keep(self) -> None:
        while True:
            self._changed.clear()
            wait = await self._fire()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    def needed(self, within: float) -> bool:
        """Whether something runs, or is due in so many seconds."""
        due = self._triggers.due
        return bool(self._runs) or (due is not None and due - self._now() < within)

    async def close(self) -> None:
        """When every run has ended, which closing the functions sees to."""
        while self._runs:
            await asyncio.wait(self._runs)

    # schedules

    async def _fire(self) -> float | None:
        """What is due now. Seconds until the next look; None: until something is set."""
        for row, _ in self._triggers.schedules:
            scheduled = self._triggers.get(row.ws, row.name)  # what it is now: others had their turn in between
            if scheduled is None or self._lease.stopping:
                continue
            try:
                fired = self._look(scheduled)
            except Unavailable as error:  # the mark can't be written, so nothing was run; the next look tries again
                log.warning("schedule not fired", ws=row.ws, function=row.name, reason=error.message)
                fired = True
            if fired:
                await asyncio.sleep(0)  # each costs a transaction, and there may be a thousand
        now = self._now()
        left = [row.due - now for row, _ in self._triggers.schedules if row.due is not None and row.due > now]
        return min([self._look_secs, *left]) if self._triggers.schedules else None

    def _look(self, scheduled: Scheduled) -> bool:
        """Whether there was something to do. Raises Unavailable."""
        (row, schedule), now = scheduled, self._now()
        if row.since > now + WRONG_SECS:
            self._mark(scheduled, now)
            return True
        if row.due is None or row.due > now:
            return False
        due: float | None = row.due if now - row.due < DAY else schedule.after(now - DAY)
        if due is None or due > now or not self._triggers.owned(row):
            self._mark(scheduled, now)
        elif (row.ws, row.name) in self._scheduled:
            self._mark(scheduled, now, skipped=row.skipped + 1, skipped_at=due)
        else:
            self._mark(scheduled, now, last=Last(due, "running"))
            self._scheduled.add((row.ws, row.name))
            self._start(self._run(row, due))
        return True

    def _mark(self, scheduled: Scheduled, now: float, **changes: Any) -> None:
        """What was due until now is done with. Raises Unavailable."""
        changes |= {"since": now, "due": scheduled.schedule.after(now)}
        self._triggers.put(scheduled._replace(row=msgspec.structs.replace(scheduled.row, **changes)))

    async def _run(self, row: Row, due: float) -> None:
        """Never raises: it is a task of the engine's group."""
        async with self._room:
            ran = None
            if self._still(row, due):
                ran = await self._ran(row.ws, row.name, msgspec.json.decode(row.input), "cron", f"{due:.0f}")
        self._scheduled.discard((row.ws, row.name))
        if ran is None:
            return
        last = Last(due, ran.status, ran.run_id) if isinstance(ran, Run) else Last(due, "refused", error=ran.message)
        log.info("schedule ran", ws=row.ws, function=row.name, due=timestamp(due), status=last.status, run_id=last.run_id)
        if found := self._still(row, due):
            self._note(found, last=last)

    def _still(self, row: Row, due: float) -> Scheduled | None:
        """What was due, if it is still set: it may have been changed, or gone and come again by its name."""
        found = self._triggers.get(row.ws, row.name)
        same = found is not None and (found.row.connection, found.row.last) == (row.connection, Last(due, "running"))
        return found if same else None

    def _note(self, scheduled: Scheduled, **changes: Any) -> None:
        with suppress(Unavailable):  # said in the log; only a person who looks misses it
            self._triggers.put(scheduled._replace(row=msgspec.structs.replace(scheduled.row, **changes)))

    # webhooks

    async def deliver(self, ws: str, name: str, input: dict[str, Any], delivery: str | None) -> Run | RootlinkError:
        """One call of a URL whose token was accepted. `delivery`: the sender's id of it, which is run once. What comes again
        under the same id may differ in its headers: times and signatures are made anew."""
        same = {name: value for name, value in input.items() if name != "headers"}
        work = self._ran(ws, name, input, "webhook", delivery, same)
        return await asyncio.shield(self._start(work))

    # both

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._tasks.create_task(work)
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)
        return task

    async def _ran(
        self, ws: str, name: str, input: Any, trigger: str, id: str | None, same: Any = msgspec.UNSET
    ) -> Run | RootlinkError:
        """What invoking it came to. The key of `id` is made so that no other caller of the function can take it before."""
        key = None if id is None else self._triggers.mac("run", trigger, ws, name, id)
        with self._lease.call():
            try:
                self._admit(ws, name)
                return await self._invoke(ws, name, input, trigger=trigger, key=key, same=same)
            except RootlinkError as error:
                return error
            except Exception:
                log.exception("trigger broke", ws=ws, function=name, trigger=trigger)
                return Internal("Internal error; see the engine's log")
