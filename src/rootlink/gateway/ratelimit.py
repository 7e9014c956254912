"""Token buckets: `burst` requests at once, then `rate` a second. One bucket for each caller, on a monotonic clock.

The number of buckets is bounded, since callers are strangers: a bucket that is full again says nothing and is forgotten.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from rootlink.errors import RateLimited

MOST = 10_000


class Buckets:
    """`clock` gives monotonic seconds. An infinite `rate` is no limit."""

    def __init__(self, rate: float, burst: float, *, clock: Callable[[], float] = time.monotonic, most: int = MOST) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._most = most
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens left, at

    def take(self, caller: str) -> float:
        """0.0 and one token less; or, with none left, the seconds until there is one."""
        if self._rate == math.inf:
            return 0.0
        now = self._clock()
        tokens = self._tokens(caller, now)
        if tokens < 1:
            return (1 - tokens) / self._rate
        if caller not in self._buckets and len(self._buckets) >= self._most:
            self._forget(now)
        self._buckets[caller] = (tokens - 1, now)
        return 0.0

    def spend(self, caller: str, what: str) -> None:
        """`take`, or `RateLimited` naming `what` there were too many of."""
        wait = self.take(caller)
        if wait:
            seconds = max(1, math.ceil(wait))
            raise RateLimited(f"Too many {what}; try again in {seconds} s", retry_after=seconds)

    def _tokens(self, caller: str, now: float) -> float:
        tokens, at = self._buckets.get(caller, (self._burst, now))
        return min(self._burst, tokens + (now - at) * self._rate)

    def _forget(self, now: float) -> None:
        full = [caller for caller in self._buckets if self._tokens(caller, now) >= self._burst]
        for caller in full or list(self._buckets)[: self._most // 10]:
            del self._buckets[caller]
