"""What the host does for one call: fetch, timers, cryptography. Each is numbered by the isolate and answered once with JSON.

An answer with `e` is an error's message for the body, `n` its name. Where a request may go, for every hop, and what a method or a
header may be is decided by the engine's `outbound`; nothing here parses a URL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

import msgspec

from rootlink.engine.functions.exchange import Exchange, Fetch, Read, Scope
from rootlink.engine.functions.room import Room
from rootlink.engine.functions.subtle import Subtle, compute, threads
from rootlink.engine.functions.tools import Tool, ToolCalls, ToolList

MAX_OPERATIONS: Final = 1000
CLOSED_AT_ONCE: Final = 100  # more would hold up the event loop
MAX_FETCHES_AT_ONCE: Final = 8
MAX_OPEN: Final = 32  # answers that are streamed
MAX_READS: Final = 20_000  # the prelude stops there, too
NO_ROOM: Final = "the functions of this project send more at once than is held for them; try again when some of it has arrived"


class Outbound(Protocol):
    """`connection` is whom a decision is recorded for; `hosts` narrows what it may reach."""

    def scope(self, connection: str, hosts: list[str] | None) -> Scope: ...


class Timer(msgspec.Struct, frozen=True, tag_field="k", tag="timer"):
    i: int
    ms: float


class Cancel(msgspec.Struct, frozen=True, tag_field="k", tag="cancel"):
    """The body no longer wants the answer to operation `i`."""

    i: int


Operation = Fetch | Read | Timer | Subtle | Cancel | Tool | ToolList


Deliver = Callable[[int, bytes], None]
"""Hands an answer's JSON to the isolate: the operation's number, the answer."""


class Operations:
    """Of one call; it owns their tasks and timers until `close`."""

    def __init__(self, scope: Callable[[], Scope], deliver: Deliver, deadline: float, tools: ToolCalls, room: Room) -> None:
        """`deadline` is of the loop's clock."""
        self._scope, self._deliver, self._deadline, self._tools, self._room = scope, deliver, deadline, tools, room
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._slots = asyncio.Semaphore(MAX_FETCHES_AT_ONCE)
        self._sums = asyncio.Lock()  # one at a time, so that runs take turns
        self._waiting: set[int] = set()  # fetches that hold a slot
        self._open: dict[int, Exchange] = {}
        self._seen = self._reads = 0

    def take(self, operation: Operation, size: int) -> None:
        """`size`: bytes that it came in."""
        if isinstance(operation, Cancel):
            self._cancel(operation.i)
            return
        if isinstance(operation, Read):
            self._read(operation)
            return
        self._seen += 1
        if self._seen > MAX_OPERATIONS or operation.i in self._tasks or operation.i in self._timers:
            self._answer(operation.i, {"e": f"too many host operations: at most {MAX_OPERATIONS} a run", "n": "LimitError"})
        elif isinstance(operation, Timer):
            self._timers[operation.i] = self._loop.call_later(max(operation.ms, 0) / 1000, self._ring, operation.i)
        elif isinstance(operation, Subtle) and operation.small:
            self._answer(operation.i, compute(operation))
        elif not self._room.take(size):
            self._answer(operation.i, {"e": NO_ROOM, "n": "LimitError"})
        elif isinstance(operation, Fetch):
            self._begin(operation.i, self._fetch(operation), size)
        elif isinstance(operation, Subtle):
            self._begin(operation.i, self._finish(operation.i, self._compute(operation)), size)
        else:
            self._begin(operation.i, self._finish(operation.i, self._tools.answer(operation)), size)

    async def close(self) -> None:
        """Returns when nothing runs any more."""
        for timer in self._timers.values():
            timer.cancel()
        tasks = list(self._tasks.values())
        for start in range(0, len(tasks), CLOSED_AT_ONCE):
            some = tasks[start : start + CLOSED_AT_ONCE]
            for task in some:
                task.cancel()
            await asyncio.gather(*some, return_exceptions=True)

    def _answer(self, operation: int, value: Mapping[str, Any]) -> None:
        self._deliver(operation, msgspec.json.encode(value))

    def _ring(self, operation: int) -> None:
        del self._timers[operation]
        self._answer(operation, {})

    def _cancel(self, operation: int) -> None:
        timer, task = self._timers.pop(operation, None), self._tasks.get(operation)
        self._open.pop(operation, None)
        if timer is not None:
            timer.cancel()
        if task is not None:
            task.cancel()

    def _begin(self, operation: int, work: Coroutine[Any, Any, None], size: int) -> None:
        task = self._tasks[operation] = self._loop.create_task(work)
        task.add_done_callback(lambda _: self._over(operation, size))

    def _over(self, operation: int, size: int) -> None:
        self._tasks.pop(operation, None)
        self._room.give_back(size)

    async def _finish(self, operation: int, work: Any) -> None:
        self._answer(operation, await work)

    async def _compute(self, operation: Subtle) -> dict[str, Any]:
        async with self._sums:
            return await self._loop.run_in_executor(threads(), compute, operation)

    async def _fetch(self, request: Fetch) -> None:
        """At most `MAX_FETCHES_AT_ONCE` wait for an answer; one that has it lets the next go."""
        await self._slots.acquire()
        exchange = Exchange(request, self._say, lambda: self._keep(request.i, exchange))
        self._waiting.add(request.i)
        try:
            await exchange.run(self._scope, self._deadline - self._loop.time())
        finally:
            self._let_go(request.i)

    def _say(self, operation: int, value: Mapping[str, Any]) -> None:
        self._let_go(operation)
        self._answer(operation, value)

    def _let_go(self, operation: int) -> None:
        if operation in self._waiting:
            self._waiting.discard(operation)
            self._slots.release()

    def _keep(self, operation: int, exchange: Exchange) -> str | None:
        """An answer that is open from here on, or why it can't be."""
        self._open = {number: other for number, other in self._open.items() if not other.finished}
        if len(self._open) >= MAX_OPEN:
            self._cancel(operation)
            return f"too many answers are open: at most {MAX_OPEN} a run; read or cancel the bodies of the others"
        self._open[operation] = exchange
        return None

    def _read(self, operation: Read) -> None:
        self._reads += 1
        exchange = self._open.get(operation.s)
        if self._reads > MAX_READS:
            self._answer(operation.i, {"e": f"too many pieces of answers: at most {MAX_READS} a run", "n": "LimitError"})
        elif exchange is None:
            self._answer(operation.i, {"e": "the answer is closed"})
        else:
            exchange.read(operation.i)
