"""One worker process: the isolates of one project, behind one socket.

    a frame ──► cell (one isolate, one function) ──post──► V8's thread ──result──► events ──► the engine

Rules:
1. All state is guarded by one lock. Nothing is sent and nothing waits for V8 while it is held; `post` only queues.
2. A cell moves one way: arming → spare → home of one function → dead. User code never sees a cell that another function had.
   A fresh function has no home: each call takes a spare, and the cell dies with the call.
3. Progress is the engine's alone: a call moves on only by a frame, as two scripts posted together, do and drain. V8 runs the
   microtasks in between, so the drain has everything the step had to say.
4. A cell that burns CPU, outgrows its heap or ignores a cancel is killed. If even that takes longer than the grace, the worker
   tells the engine to send no more work: its other cells go on until the engine ends the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from functools import partial
from itertools import chain
from typing import Any, NoReturn

from rootlink.engine.functions.isolates import wrapping
from rootlink.engine.functions.isolates.frames import (
    HEADER,
    MAX_EVENTS,
    MAX_FRAME,
    MAX_FRAME_BACK,
    Definition,
    Ending,
    FromWorker,
    ToWorker,
    WorkerLimits,
    pack,
)
from rootlink.engine.functions.isolates.prelude import Prelude
from rootlink.engine.functions.isolates.v8 import Isolate, Kind

TICK_SECS = 0.005
REST_SECS = 1.0
STAY_AWAKE_SECS = 0.1  # a busy worker's keeper keeps ticking for so long, so calls need not wake it
CANCEL_GRACE_SECS = 0.05
SETTLE_SECS = 0.01
HOT_SECS = 1.0
ARMING_AT_ONCE = 2
FAT_BYTES = 64 << 20  # what an idle worker may have grown by since its start
LOOK_SECS = 0.1
SEND_BYTES = 64 << 10  # frames are sent together up to about so many
CULPRIT_BYTES = 16 << 20  # what a cell must have grown by to be worth a kill

Frames = Iterable[bytes]
Act = Callable[["Cell"], None]


class Tag(IntEnum):
    """Which script a result belongs to."""

    IGNORE = 1
    ARMED = 2
    CHECKED = 3
    BOUND = 4
    DRAINED = 5


class Gauge:
    """The process's own memory. The file is opened before seccomp closes the door."""

    def __init__(self) -> None:
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        self._page = os.sysconf("SC_PAGE_SIZE")

    def _pages(self, field: int) -> int:
        return int(os.pread(self._statm, 128, 0).split()[field]) * self._page

    def rss(self) -> int:
        return self._pages(1)

    def data(self) -> int:
        return self._pages(5)


class Cell:
    """One isolate and what goes on in it."""

    def __init__(self, library: Any, on_result: Callable[[Cell, int, Kind, bytes], None]) -> None:
        self.function = 0
        self.cpu_limit = float("inf")
        self.calls: set[int] = set()
        self.steps: deque[int] = deque()  # the call of each pair of scripts posted and not drained
        self.spent: dict[int, float] = {}  # call → seconds of CPU of its steps
        self.cancels: dict[int, float] = {}  # call → when the cell is killed if it has not yielded
        self.bound = self.dead = self.retired = False
        self.pending = 0  # scripts posted and not answered
        self.checks = 0
        self.cpu_mark = 0.0
        self.grown = 0
        self.used = time.monotonic()
        self.due = float("inf")  # when freeing it has taken too long
        self.isolate = Isolate(library, partial(on_result, self))

    def post(self, script: str, tag: Tag = Tag.IGNORE) -> None:
        if not self.dead:
            self.pending += 1
            self.isolate.post(script, tag)

    def charge(self, clock: float) -> None:
        """What the isolate's thread used since its last answer is of the step it is at; `clock` is of that thread."""
        if self.steps:
            call = self.steps[0]
            self.spent[call] = self.spent.get(call, 0.0) + clock - self.cpu_mark
        self.cpu_mark = clock

    def account(self, call: int) -> bytes:
        """The frame with what a call used in all; to be sent before the one that ends it."""
        return pack(FromWorker.SPENT, self.function, call, b"%d" % (self.spent.pop(call, 0.0) * 1e6))

    @property
    def idle(self) -> bool:
        return not self.calls and not self.pending

    def overran(self) -> bool:
        return self.pending > 0 and self.isolate.cpu() - self.cpu_mark > self.cpu_limit

    def ignores_cancel(self, now: float) -> bool:
        return any(due < now for due in self.cancels.values())


class Worker:
    def __init__(self, sock: socket.socket, limits: WorkerLimits, library: Any, gauge: Gauge) -> None:
        self._sock, self._limits, self._library, self._gauge = sock, limits, library, gauge
        self._prelude = Prelude(limits)
        self._libc = ctypes.CDLL(None)
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._definitions: dict[int, Definition] = {}
        self._forgotten: set[int] = set()  # functions that no call will name again, with calls still to be placed
        self._ripe: list[Cell] = []  # armed, not yet spares
        self._spares: list[Cell] = []
        self._homes: dict[int, Cell] = {}  # function → its cell
        self._where: dict[int, Cell] = {}  # call → its cell
        self._waiting: list[tuple[int, int, Act]] = []  # function (0: any spare cell), call, what to do with the cell
        self._cells: set[Cell] = set()
        self._arming = 0
        self._reaping: set[Cell] = set()
        self._dying: queue.SimpleQueue[Cell] = queue.SimpleQueue()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._asleep = False
        self._rss = 0
        self._taken = 0.0  # when the last spare was
        self._hot_until = 0.0  # fresh calls came lately: their spares live too briefly to be worth tidying
        self._look_at = 0.0  # when to look for long unused homes again
        self._litter = False  # isolates were freed since memory was last given back
        self._too_fat = False
        self._lean = gauge.rss()
        self._frames: dict[int, Callable[[int, int, bytes], Frames]] = {
            ToWorker.DEFINE: self._define,
            ToWorker.FORGET: self._forget,
            ToWorker.INVOKE: partial(self._start, "run"),
            ToWorker.PROBE: partial(self._start, "probe"),
            ToWorker.DELIVER: self._deliver,
            ToWorker.CANCEL: self._cancel,
        }
        self._results: dict[int, Callable[[Cell, Kind, bytes], Frames]] = {
            Tag.IGNORE: self._ignored,
            Tag.ARMED: self._armed,
            Tag.CHECKED: self._checked,
            Tag.BOUND: self._has_bound,
            Tag.DRAINED: self._drained,
        }

    def serve(self) -> NoReturn:
        """Until the engine closes the socket. Starts the threads; call it once seccomp is in force."""
        time.tzset()
        for work in (self._keep, self._reap):
            _start_thread(work)
        stream = self._sock.makefile("rb", buffering=1 << 16)
        while len(header := stream.read(HEADER.size)) == HEADER.size:
            length, kind, function, call = HEADER.unpack(header)
            if length > MAX_FRAME:
                break
            body = stream.read(length)
            with self._lock:
                frames = self._frames[kind](function, call, body)
            self._send(frames)
        os._exit(0)

    def _send(self, frames: Frames) -> None:
        batch = bytearray()
        for frame in frames:
            batch += frame
            if len(batch) >= SEND_BYTES:
                self._flush(batch)
        self._flush(batch)

    def _flush(self, batch: bytearray) -> None:
        if batch:
            with self._send_lock:
                self._sock.sendall(batch)
            batch.clear()

    # frames from the engine; the lock is held

    def _define(self, function: int, call: int, body: bytes) -> Frames:
        definition = Definition(**json.loads(body))
        self._definitions[function] = definition
        self._forgotten.discard(function)
        if definition.check:
            self._place(0, 0, partial(self._check, function))
        return ()

    def _forget(self, function: int, call: int, body: bytes) -> Frames:
        if self._awaited(function):
            self._forgotten.add(function)
        else:
            self._definitions.pop(function, None)
        cell = self._homes.pop(function, None)
        if cell is None:
            return ()
        cell.retired = True
        return self._kill(cell, Ending.BROKEN) if not cell.calls else ()

    def _start(self, verb: str, function: int, call: int, body: bytes) -> Frames:
        if function not in self._definitions:
            return (pack(FromWorker.ENDED, function, call, Ending.BROKEN.encode()),)
        self._place(function, call, partial(self._step, call, self._prelude.begin(verb, call, body)))
        return ()

    def _deliver(self, function: int, call: int, body: bytes) -> Frames:
        cell = self._where.get(call)
        if cell is not None:
            self._step(call, self._prelude.deliver(call, body), cell)
        return ()

    def _cancel(self, function: int, call: int, body: bytes) -> Frames:
        cell = self._where.get(call)
        if cell is None:
            self._waiting = [entry for entry in self._waiting if entry[1] != call]
            self._let_go(function)
            return (pack(FromWorker.ENDED, function, call, Ending.CANCELLED.encode()),)
        cell.cancels[call] = time.monotonic() + CANCEL_GRACE_SECS
        self._step(call, self._prelude.drop(call), cell)
        return ()

    # cells; the lock is held

    def _awaited(self, function: int) -> bool:
        return any(waiting == function for waiting, _, _ in self._waiting)

    def _let_go(self, function: int) -> None:
        """The definition of a forgotten function, when no call waits for a cell of it any more."""
        if function in self._forgotten and not self._awaited(function):
            self._forgotten.discard(function)
            self._definitions.pop(function, None)

    def _place(self, function: int, call: int, act: Act) -> None:
        """Do `act` with the function's cell, or a spare one, now or when there is one. Who needs a spare waits in line."""
        in_line = self._waiting and function not in self._homes
        if in_line or not self._placed(function, act):
            self._waiting.append((function, call, act))
            self._wake()

    def _placed(self, function: int, act: Act) -> bool:
        definition = self._definitions[function] if function else None
        cell = self._homes.get(function)
        if cell is None and self._spares:
            cell = self._spares.pop()
            cell.function = function
            self._taken = time.monotonic()
            if definition is not None and definition.fresh:
                self._hot_until = self._taken + HOT_SECS
            elif definition is not None:
                self._homes[function] = cell
        if cell is None or cell.cancels:  # with a cancel open it may be about to be killed: wait for what comes of it
            return False
        if definition is not None and not cell.bound:
            self._bind(cell)
        act(cell)
        return True

    def _bind(self, cell: Cell) -> None:
        """Compile the function in its cell."""
        definition = self._definitions[cell.function]
        cell.bound = True
        cell.retired = definition.fresh or cell.function in self._forgotten
        cell.cpu_limit = definition.cpu
        cell.isolate.limit_heap(definition.heap)
        cell.post(self._prelude.bind(definition), Tag.BOUND)

    def _check(self, function: int, cell: Cell) -> None:
        """Compile, never run: `throw` comes first."""
        definition = self._definitions.get(function)
        if definition is None:  # forgotten while it waited for a cell
            self._spares.append(cell)
            return
        cell.function, cell.checks, cell.cpu_limit = function, 2, definition.cpu
        for script in wrapping.checked(definition.source):
            cell.post(script, Tag.CHECKED)

    def _step(self, call: int, script: str, cell: Cell) -> None:
        cell.calls.add(call)
        cell.steps.append(call)
        self._where[call] = cell
        cell.used = time.monotonic()
        cell.post(script)
        cell.post(self._prelude.drain, Tag.DRAINED)
        if self._asleep:
            self._wake()

    def _kill(self, cell: Cell, ending: Ending) -> Frames:
        """Stop the cell with every call in it. Freeing it is the reaper's: that may take for ever."""
        if cell.dead:
            return ()
        cell.dead = True
        if self._homes.get(cell.function) is cell:
            del self._homes[cell.function]
        self._let_go(cell.function)
        if cell in self._spares:
            self._spares.remove(cell)
        if cell.steps:
            cell.charge(cell.isolate.cpu())
        self._reaping.add(cell)
        self._dying.put(cell)
        self._wake()
        frames: list[bytes] = []
        for call in cell.calls:
            self._where.pop(call, None)
            reason = Ending.STOPPED if call in cell.cancels else Ending.NEIGHBOUR if ending is Ending.STOPPED else ending
            frames += (cell.account(call), pack(FromWorker.ENDED, cell.function, call, reason.encode()))
        cell.calls.clear()
        if cell.checks:
            frames.append(pack(FromWorker.DEFINED, cell.function, 0, b"compiling it took too much time or memory"))
        return frames

    # results, on the isolate's thread: nothing here may post

    def _answered(self, cell: Cell, tag: int, kind: Kind, text: bytes) -> None:
        with self._lock:
            cell.pending -= 1
            cell.charge(time.thread_time())
            frames = () if cell.dead else self._results[tag](cell, kind, text)
        self._send(frames)

    def _ignored(self, cell: Cell, kind: Kind, text: bytes) -> Frames:
        """A step itself gives nothing; when it was stopped, the drain behind it would not tell."""
        return self._kill(cell, _ending(kind)) if kind in (Kind.OUT_OF_MEMORY, Kind.TERMINATED) else ()

    def _armed(self, cell: Cell, kind: Kind, text: bytes) -> Frames:
        if kind is not Kind.STRING:
            self._arming -= 1
            return self._kill(cell, Ending.BROKEN)
        self._ripe.append(cell)
        self._wake()
        return ()

    def _checked(self, cell: Cell, kind: Kind, text: bytes) -> Frames:
        """THREW means it compiled (see `_check`). A cell that saw a source fail is spoilt: half of it may have been declared."""
        cell.checks -= 1
        function = cell.function
        if kind is not Kind.THREW:
            cell.checks = 0
            return (pack(FromWorker.DEFINED, function, 0, text or kind.name.encode()), *self._kill(cell, Ending.BROKEN))
        if cell.checks:
            return ()
        definition = self._definitions.get(function)
        if definition is None or definition.fresh or function in self._homes:
            frames = self._kill(cell, Ending.BROKEN)
        else:
            self._homes[function], frames = cell, ()
        return (pack(FromWorker.DEFINED, function), *frames)

    def _has_bound(self, cell: Cell, kind: Kind, text: bytes) -> Frames:
        return () if kind is Kind.VALUE else self._kill(cell, _ending(kind))

    def _drained(self, cell: Cell, kind: Kind, text: bytes) -> Frames:
        if kind is not Kind.STRING:
            return self._kill(cell, _ending(kind))
        step = cell.steps.popleft()
        finished, _, events = text.partition(b"\n")
        if len(events) > MAX_FRAME_BACK and max(map(len, events.split(b"\n"))) >= MAX_FRAME_BACK:
            return self._kill(cell, Ending.LARGE)
        accounts, endings = [], []
        for call in map(int, finished.split(b",")) if finished else ():
            cell.calls.discard(call)
            self._where.pop(call, None)
            accounts.append(cell.account(call))
            if cell.cancels.pop(call, None) is not None:
                endings.append(pack(FromWorker.ENDED, cell.function, call, Ending.CANCELLED.encode()))
                self._wake()
        if step not in cell.calls:
            cell.spent.pop(step, None)
        if cell.retired and not cell.calls:
            endings += self._kill(cell, Ending.BROKEN)
        return chain(accounts, _frames(cell.function, events), endings)

    # the keeper's thread: arms spares, places who waits, enforces limits

    def _wake(self) -> None:
        self._wakes.put(None)

    def _keep(self) -> None:
        awake_until = time.monotonic() + STAY_AWAKE_SECS
        while True:
            self._asleep = time.monotonic() > awake_until
            if self._asleep and self._litter:
                self._send(self._tidy())
            with contextlib.suppress(queue.Empty):
                self._wakes.get(timeout=REST_SECS if self._asleep else TICK_SECS)
            self._collect()
            with self._lock:
                self._place_waiting()
                arm = self._wants_spare()
                frames = [*self._evict(), *self._enforce()]
                if self._is_busy():
                    awake_until = time.monotonic() + STAY_AWAKE_SECS
            self._send(frames)
            if arm:
                self._arm()

    def _collect(self) -> None:
        """Make armed cells spares, without the garbage of their arming (half of their memory) unless somebody waits for one."""
        with self._lock:
            ripe, self._ripe = self._ripe, []
            hurry = self._in_a_hurry()
        for cell in ripe:
            if not hurry:
                cell.isolate.collect_garbage()
            with self._lock:
                self._arming -= 1
                self._spares.append(cell)

    def _tidy(self) -> Frames:
        """Give back what freed isolates left. malloc does; V8 keeps their pages for others to come, and only the process's end
        gives them back."""
        self._litter = False
        self._libc.malloc_trim(0)
        with self._lock:
            idle = not self._homes and not self._where and not self._waiting
        fat = self._gauge.rss() > self._lean + FAT_BYTES
        return (pack(FromWorker.REPLACE),) if idle and fat else ()

    def _is_busy(self) -> bool:
        lacking = len(self._spares) < self._limits.spares and len(self._cells) < self._limits.isolates
        return bool(lacking or self._where or self._reaping or self._waiting) or any(cell.pending for cell in self._cells)

    def _place_waiting(self) -> None:
        self._waiting = [
            (function, call, act)
            for function, call, act in self._waiting
            if (not function or function in self._definitions) and not self._placed(function, act)
        ]

    def _wants_spare(self) -> bool:
        """One at a time, and not while who took the last one is just starting in it, unless somebody waits."""
        hurry = self._in_a_hurry()
        if len(self._cells) >= self._limits.isolates or self._arming >= (ARMING_AT_ONCE if hurry else 1):
            return False
        if not self._waiting and (len(self._spares) + self._arming >= self._limits.spares or (self._settling() and not hurry)):
            return False
        self._arming += 1
        return True

    def _in_a_hurry(self) -> bool:
        return bool(self._waiting) or time.monotonic() < self._hot_until

    def _settling(self) -> bool:
        return bool(self._spares) and time.monotonic() - self._taken < SETTLE_SECS

    def _arm(self) -> None:
        """Make a spare: prelude in, its lazy code warmed by a call of nothing, everything reachable frozen."""
        cell = Cell(self._library, self._answered)
        with self._lock:
            self._cells.add(cell)
            for script in self._prelude.arming:
                cell.post(script)
            cell.post(self._prelude.drain, Tag.ARMED)
        self._wake()

    def _evict(self) -> Frames:
        """Homes nobody has used for long; the longest unused ones when there are too many, or too little memory is left."""
        now = time.monotonic()
        lacking = self._limits.spares + len(self._waiting) - len(self._spares)
        surplus = len(self._cells) + lacking - self._limits.isolates
        if self._rss > self._limits.rss * 3 // 4:
            surplus = max(surplus, 1)
        if surplus <= 0 and now < self._look_at:
            return ()
        self._look_at = now + LOOK_SECS
        idle = sorted((cell for cell in self._homes.values() if cell.idle), key=lambda cell: cell.used)
        frames: list[bytes] = []
        for number, cell in enumerate(idle):
            if number < surplus or now - cell.used > self._limits.idle_secs:
                frames += self._kill(cell, Ending.BROKEN)
        return frames

    def _enforce(self) -> Frames:
        now = time.monotonic()
        frames: list[bytes] = []
        for cell in list(self._cells):
            if cell.dead:
                continue
            if cell.calls and cell.isolate.outgrew():
                frames += self._kill(cell, Ending.HEAP)
            elif cell.ignores_cancel(now):
                frames += self._kill(cell, Ending.STOPPED)
            elif cell.overran():
                frames += self._kill(cell, Ending.CPU)
        for cell in [cell for cell in self._reaping if now > cell.due]:
            self._reaping.discard(cell)
            frames.append(pack(FromWorker.RETIRE, cell.function))
            _start_thread(self._reap)  # the reaper there was is stuck in this cell
        return [*frames, *self._weigh()]

    def _weigh(self) -> Frames:
        """Keep the process under its memory: the cell that grew most goes first, one at a time; then the process itself."""
        rss = self._gauge.rss()
        grown, self._rss = rss - self._rss, rss
        for cell in self._cells:
            if cell.pending:
                cell.grown += grown
        if rss <= self._limits.rss or self._reaping or self._too_fat:
            return ()
        culprits = [cell for cell in self._cells if cell.calls and not cell.dead and cell.grown > CULPRIT_BYTES]
        if culprits:
            return self._kill(max(culprits, key=lambda cell: (cell.grown, cell.pending)), Ending.MEMORY)
        if any(cell.idle for cell in self._homes.values()):
            return ()  # they are evicted, one with each tick
        self._libc.malloc_trim(0)
        if self._gauge.rss() <= self._limits.rss:
            return ()
        self._too_fat = True  # malloc kept the pages; the next call should not pay for it
        return (pack(FromWorker.RETIRE),)

    # the reaper's thread

    def _reap(self) -> None:
        while True:
            cell = self._dying.get()
            with self._lock:
                cell.due = time.monotonic() + self._limits.grace_secs
            cell.isolate.close()
            with self._lock:
                self._cells.discard(cell)
                self._reaping.discard(cell)
                self._litter = True


def _start_thread(work: Callable[[], None]) -> None:
    """A worker without one of its threads is no worker: it ends, and the engine replaces it."""

    def guarded() -> None:
        try:
            work()
        finally:
            os._exit(1)

    threading.Thread(target=guarded, daemon=True).start()


def _frames(function: int, events: bytes) -> Iterator[bytes]:
    """Lines of events as frames of `MAX_EVENTS`, or of a single line."""
    start = 0
    while start < len(events):
        end = len(events)
        if end - start > MAX_EVENTS:
            end = events.rfind(b"\n", start, start + MAX_EVENTS) + 1 or events.find(b"\n", start) + 1 or end
        yield pack(FromWorker.EVENTS, function, 0, events[start:end])
        start = end


def _ending(kind: Kind) -> Ending:
    return Ending.HEAP if kind is Kind.OUT_OF_MEMORY else Ending.BROKEN
