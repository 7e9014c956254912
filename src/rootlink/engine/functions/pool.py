"""The workers of one engine: one in use, one spare. Nothing is started before the first call.

A worker that ends or wedges is replaced by the spare at once, and a new spare is forked behind. Only calls that were in it are
lost; they are never repeated, since what they did may have had effect. Definitions are given to a worker when it first needs
them.

Quarantine: a function that was in a worker when it ended is suspected. After one such strike it runs in a second worker, with the
other suspects; after two in a worker of its own, as long as there are not too many. A new version begins with no strike.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Final
from weakref import WeakSet

import structlog

from rootlink.engine.functions.call import Call
from rootlink.engine.functions.definition import Held
from rootlink.engine.functions.isolates.frames import WorkerLimits
from rootlink.engine.functions.processes import Worker, Zygote
from rootlink.engine.functions.run import Outcome, failed
from rootlink.errors import Unavailable

CHECK_SECS: Final = 10.0
ACCOUNT_SECS: Final = 0.1  # that a run whose time is up waits for its isolate to be stopped, and so for its CPU time
MAX_LANES: Final = 8

_ALL, _SUSPECTS = 0, -1  # lanes; any other lane is the handle of the one function in it

log = structlog.get_logger(__name__)


class Pool:
    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = limits
        self._zygote: Zygote | None = None
        self._lanes: dict[int, Worker] = {}
        self._spare: Worker | None = None
        self._strikes: Counter[int] = Counter()
        self._turn = asyncio.Lock()  # who holds it may start processes
        self._gone: WeakSet[Held] = WeakSet()  # forgotten, and perhaps still on the way to a worker
        self._watches: dict[Worker, asyncio.Task[None]] = {}
        self._refills: set[asyncio.Task[None]] = set()
        self._number = 0
        self._closed = False

    async def warm(self) -> None:
        """Have a worker ready before the first call asks for one. Costs nothing when there is one; never raises."""
        try:
            await self._ready(_ALL)
        except Unavailable as error:
            log.warning("no worker ahead of the first call", error=error.message)

    async def check(self, held: Held) -> str:
        """V8's complaint about a source, empty when it compiles. Nothing of it is run. Raises Unavailable."""
        words = ""
        for _ in range(3):  # a worker, and the spare, may end for a neighbour's sake; compiling has no effect, so it is repeated
            worker = await self._ready(held.handle)
            try:
                async with asyncio.timeout(CHECK_SECS):
                    words = await worker.check(held)
                    break
            except TimeoutError:
                worker.kill()
                words = f"compiling took longer than {CHECK_SECS:g} s"
                break
            except EOFError:
                words = "V8 gave up on it"
            except asyncio.CancelledError:
                self.forget(held)
                raise
        if words:
            self.forget(held)
        return words

    async def run(self, held: Held, call: Call, payload: bytes | None, timeout: float) -> Outcome:
        """One call, to its outcome; `payload` None: only what the body evaluates to. Raises Unavailable when no worker starts."""
        worker = await self._ready(held.handle)
        if worker.congested:
            raise Unavailable("more input is on its way to the isolates than they take in; try again in a moment")
        self._number += 1
        number = self._number
        worker.start(number, held, call, payload)
        alarm = asyncio.get_running_loop().call_later(timeout, self._expire, worker, number, call, timeout)
        try:
            return await call.outcome
        except asyncio.CancelledError:
            worker.cancel(number)
            raise
        finally:
            alarm.cancel()
            worker.finish(number)
            if held in self._gone:
                worker.forget(held.handle)
            await call.close()

    def _expire(self, worker: Worker, number: int, call: Call, timeout: float) -> None:
        outcome = failed("TimeoutError", f"the function took longer than {timeout:g} s", status="timeout")
        worker.cancel(number, outcome)
        asyncio.get_running_loop().call_later(ACCOUNT_SECS, call.settle, outcome)

    def forget(self, held: Held) -> None:
        """No new call of it will come. Those in flight end as they would."""
        del self._strikes[held.handle]
        self._gone.add(held)
        own = self._lanes.get(held.handle)
        if own is not None:
            own.retire()
        for worker in self._watches:
            worker.forget(held.handle)

    # lanes

    def _lane(self, handle: int) -> int:
        strikes = self._strikes[handle] if self._strikes else 0
        if strikes < 2:
            return _SUSPECTS if strikes else _ALL
        return handle if handle in self._lanes or len(self._lanes) < MAX_LANES else _SUSPECTS

    async def _ready(self, handle: int) -> Worker:
        worker = self._lanes.get(self._lane(handle))
        if worker is not None and worker.alive:
            return worker
        if worker is not None:
            worker.give_up()
        async with self._turn:
            lane = self._lane(handle)
            if lane not in self._lanes:
                self._lanes[lane] = await self._take()
            return self._lanes[lane]

    def _ended(self, worker: Worker, blamed: set[int]) -> None:
        """It may get no more work. `blamed`: the functions that may be why."""
        if worker is self._spare:
            self._spare = None
        self._lanes = {lane: other for lane, other in self._lanes.items() if other is not worker}
        self._strikes.update(blamed)

    # processes

    async def _take(self) -> Worker:
        if self._closed:
            raise Unavailable("the engine is stopping")
        spare, self._spare = self._spare, None
        worker = spare if spare is not None and spare.alive else await self._fork()
        refill = asyncio.get_running_loop().create_task(self._refill())
        self._refills.add(refill)
        refill.add_done_callback(self._refills.discard)
        return worker

    async def _refill(self) -> None:
        async with self._turn:
            if self._spare is None and not self._closed:
                try:
                    self._spare = await self._fork()
                except Unavailable as error:
                    log.warning("no spare worker", error=error.message)

    async def _fork(self) -> Worker:
        """A zygote that does not answer is replaced, once."""
        for attempt in (1, 2):
            if self._zygote is None:
                self._zygote = await Zygote.start()
            try:
                worker = await Worker.fork(self._zygote, self._limits, self._ended)
            except (OSError, EOFError, TimeoutError) as error:
                log.warning("zygote lost", attempt=attempt, error=type(error).__name__)
                zygote, self._zygote = self._zygote, None
                await zygote.close()
            else:
                self._watches[worker] = asyncio.get_running_loop().create_task(self._watch(worker))
                return worker
        raise Unavailable("functions can't run now: no worker process could be started; the engine's log says why")

    async def _watch(self, worker: Worker) -> None:
        await worker.ended()
        del self._watches[worker]

    async def close(self) -> None:
        """End every call (`killed`) and every process. Returns when none is left."""
        self._closed = True
        await _all(self._refills)
        async with self._turn:
            for worker in self._watches:
                worker.abandon("EngineStopping", "the engine stopped while this run was in flight")
            await _all(self._watches.values())
            if self._zygote is not None:
                await self._zygote.close()
                self._zygote = None


async def _all(tasks: Iterable[asyncio.Task[None]]) -> None:
    await asyncio.gather(*list(tasks))
