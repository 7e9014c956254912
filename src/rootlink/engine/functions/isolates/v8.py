"""One V8 isolate, through the C API that mini-racer's shared library exports.

Rules, each of them paid for (mini-racer 0.14.1, V8 14.4):

1. Nothing here waits for an isolate but `close`, which waits for as long as a builtin ignores termination, and
   `collect_garbage`.
2. The callback runs on the isolate's own thread. It must not call the library: dropping the last reference there destroys the
   isolate on its own thread.
3. The library keeps no reference to the callback: it must live until `mr_free_context` has returned.
4. Every value handed to the callback stays allocated until it is freed, and may be freed only from another thread.
5. Flags are process-wide, and an unknown flag makes V8 ignore all flags after it.
6. Results are read only when they are strings or errors: reading any other value asks the isolate and waits for it.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

from py_mini_racer import init_mini_racer
from py_mini_racer._dll import MR_CALLBACK

FLAGS: Final = (
    "--single-threaded",
    "--max-heap-size=384",  # a backstop: the per-isolate limit acts first
    "--no-compilation-cache",  # it keeps every script, and with it the data the host has posted: a stream would fill the heap
    "--max-semi-space-size=2",  # with the default, a heap overshoots its limit threefold
    "--stack-size=700",
    "--enable-experimental-regexp-engine-on-excessive-backtracks",
    "--regexp-backtracks-before-fallback=50000",
)

_STRING = 5
_FIRST_ERROR, _LAST_ERROR = 200, 206


class Kind(IntEnum):
    """What came of a script."""

    VALUE = 0
    STRING = 5
    THREW = 200
    DOES_NOT_PARSE = 201
    OUT_OF_MEMORY = 202
    TERMINATED = 204
    OTHER_ERROR = 206


OnResult = Callable[[int, Kind, bytes], None]


def load() -> Any:
    """The library with V8 initialised. Loading takes about 100 ms; do it before forking."""
    return init_mini_racer(flags=FLAGS, ignore_duplicate_init=True)


class Isolate:
    """`on_result(tag, kind, text)` is called on the isolate's thread, once for each `post`, in order."""

    def __init__(self, library: Any, on_result: OnResult) -> None:
        self._library = library
        self._on_result = on_result
        self._spent: deque[Any] = deque()
        self._clock: int | None = None
        self._callback = MR_CALLBACK(self._answered)  # rule 3
        self._context = library.mr_init_context(self._callback)

    def post(self, script: str, tag: int) -> None:
        """Queue a script. Microtasks run to the end before the next one. Not after `close`."""
        self._sweep()
        source = script.encode("utf-8", "replace")
        handle = self._library.mr_alloc_string_val(self._context, source, len(source), _STRING)
        self._library.mr_eval(self._context, handle, tag)
        self._library.mr_free_value(self._context, handle)

    def limit_heap(self, size: int) -> None:
        """Bytes of V8's own heap; array buffers are not counted by it."""
        self._library.mr_set_hard_memory_limit(self._context, size)

    def collect_garbage(self) -> None:
        """About 2 ms. Waits for the isolate: only before a body is in it."""
        self._library.mr_low_memory_notification(self._context)

    def outgrew(self) -> bool:
        """Whether the limit was ever reached. What ran was stopped then; if it was a microtask, no result says so."""
        return bool(self._library.mr_hard_memory_limit_reached(self._context))

    def cpu(self) -> float:
        """Seconds of CPU the isolate's thread has used; 0.0 until its first answer."""
        return 0.0 if self._clock is None else time.clock_gettime(self._clock)

    def close(self) -> None:
        """Stop what runs and free everything. May block for ever: call it on a thread of its own."""
        self._library.mr_free_context(self._context)
        self._spent.clear()

    def _sweep(self) -> None:
        while self._spent:
            self._library.mr_free_value(self._context, self._spent.popleft())

    def _answered(self, tag: int, handle: Any) -> None:
        if self._clock is None:
            self._clock = (~threading.get_native_id() << 3) | 6  # this thread's CPU clock; see clock_getcpuclockid(3)
        value = handle.contents
        kind, text = _read(value)
        self._spent.append(handle)
        self._on_result(tag, kind, text)


def _read(value: Any) -> tuple[Kind, bytes]:
    if value.type == _STRING:
        return Kind.STRING, ctypes.string_at(value.value.value_ptr, value.len)
    if not _FIRST_ERROR <= value.type <= _LAST_ERROR:
        return Kind.VALUE, b""
    text = ctypes.string_at(value.value.value_ptr, value.len) if value.len else b""
    known = {Kind.THREW, Kind.DOES_NOT_PARSE, Kind.OUT_OF_MEMORY, Kind.TERMINATED}
    return (Kind(value.type) if value.type in known else Kind.OTHER_ERROR), text
