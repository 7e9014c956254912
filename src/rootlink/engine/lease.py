"""Who is using this engine right now, and so whether it may be stopped.

Two rules: an engine is never stopped while a call or a stream is open, and once it has agreed to stop it takes no new work.
Both hold without a lock because the engine has one thread: `agree_to_stop` looks and decides in one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Lease:
    """`clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock()
        self.calls = 0
        self.streams = 0
        self.stopping = False

    @contextmanager
    def call(self) -> Iterator[None]:
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1
            self._last = self._clock()

    @contextmanager
    def stream(self) -> Iterator[None]:
        """A stream is a call that only waits: it is counted apart, so that `status` can tell them apart."""
        self.streams += 1
        self.calls -= 1
        try:
            yield
        finally:
            self.streams -= 1
            self.calls += 1

    @property
    def idle_secs(self) -> float:
        return 0.0 if self.calls or self.streams else self._clock() - self._last

    def agree_to_stop(self, idle_secs: float) -> bool:
        if not self.stopping and not self.calls and not self.streams and self.idle_secs >= idle_secs:
            self.stopping = True
        return self.stopping
