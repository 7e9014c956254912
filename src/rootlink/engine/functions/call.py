"""One call in flight: what its isolate says comes in as events, what the host answers goes out, and it has one outcome.

Events come from code that may have broken out of V8: each is decoded into exactly the shapes below or refused, and refusing one
ends this call and no other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from rootlink.engine.functions.operations import Deliver, Operation, Operations
from rootlink.engine.functions.results import MAX_PARTS, TooManyParts, decode
from rootlink.engine.functions.run import LogLine, Outcome, failed, timestamp

MAX_LOG_LINES = 1001  # the prelude stops at 1,000 and says so in one more
MAX_LOG_CHARS = 512 << 10  # it stops at 256 Ki
MAX_TAKEN = 112 << 20  # bytes of all events: what the prelude allows, in UTF-8


class Log(msgspec.Struct, frozen=True, tag_field="k", tag="log"):
    l: str  # noqa: E741
    t: str
    at: float


class Done(msgspec.Struct, frozen=True, tag_field="k", tag="done"):
    """`r`: 1 if `v` is a `Response` as plain data."""

    v: msgspec.Raw
    r: int = 0


class Failed(msgspec.Struct, frozen=True, tag_field="k", tag="failed"):
    n: str
    m: str
    s: str


_decode = msgspec.json.Decoder(Log | Done | Failed | Operation).decode
_UNREADABLE = failed(
    "OutputError", "the result is not valid JSON: a string in it is not valid Unicode, or it is nested too deeply"
)
_TOO_MANY = failed("OutputError", f"the result holds more than {MAX_PARTS:,} lists, objects and strings (names of members too)")


class Call:
    """`operations` None: a probe, which may ask for nothing. The outcome is awaited as `outcome`."""

    def __init__(self, operations: Callable[[Deliver], Operations] | None = None) -> None:
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.logs: list[LogLine] = []
        self.cpu_ms = 0.0
        self._taken = self._logged = 0
        self._make_operations = operations
        self._operations: Operations | None = None
        self.deliver: Deliver = _nowhere  # set by the worker that runs the call

    def settle(self, outcome: Outcome) -> None:
        """The first outcome counts."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def take(self, line: bytes | memoryview) -> None:
        """One event, as the isolate wrote it. Raises ValueError for more than any honest one writes."""
        if self.outcome.done():
            return
        self._taken += len(line)
        if self._taken > MAX_TAKEN:
            raise ValueError("more than a run may say")
        try:
            event = _decode(line)
            if isinstance(event, Done):
                value = bytes(event.v)
                self.settle(Outcome("ok", decode(value), output_bytes=len(value), response=event.r == 1))
                return
        except TooManyParts:
            self.settle(_TOO_MANY)
            return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.settle(_UNREADABLE)
            return
        if isinstance(event, Failed):
            self.settle(failed(event.n, event.m, stack=event.s))
        elif isinstance(event, Log):
            self._log(event)
        elif self._make_operations is not None:
            self._operations = self._operations or self._make_operations(self.deliver)
            self._operations.take(event, len(line))

    def _log(self, event: Log) -> None:
        self._logged += len(event.t)
        if len(self.logs) < MAX_LOG_LINES and self._logged <= MAX_LOG_CHARS:
            self.logs.append(LogLine(event.l[:8], event.t, _time(event.at)))

    async def close(self) -> None:
        """End what the host still does for it."""
        if self._operations is not None:
            await self._operations.close()


def _time(milliseconds: float) -> str:
    try:
        return timestamp(milliseconds / 1000)
    except (OverflowError, OSError, ValueError):
        return timestamp(time.time())


def _nowhere(operation: int, answer: bytes) -> None:
    return None
