"""How much a server may say unasked: 1,000 messages a second, or 4 MiB. More: it is not read for a while; always more: ended.

A bucket that holds one second's worth. While it is empty the reader pauses until a tenth is back; a server that stays over
its budget for `PATIENCE` seconds without one quiet second is a flood. Pausing costs only the server itself: its pipe fills.
"""

from __future__ import annotations

RATE = 1000.0  # messages a second
UNIT = 4096  # bytes; a longer message weighs as several
PATIENCE = 5.0  # seconds


class Flood:
    """`now` is monotonic seconds, given in so that nothing here reads a clock."""

    def __init__(self, now: float, rate: float = RATE, patience: float = PATIENCE) -> None:
        self._rate, self._patience = rate, patience
        self._left, self._at = rate, now
        self._since: float | None = None  # when it began to be over budget
        self._until = now  # when the current pause ends

    def count(self, now: float, size: int) -> float:
        """One more message, of `size` bytes. Answers how many seconds the reader must now pause; 0: go on."""
        self._left = min(self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        self._left -= 1 + size // UNIT
        if self._left > 0:
            return 0.0
        if self._since is None or now > self._until + 1.0:
            self._since = now
        self._until = now + 0.1 - self._left / self._rate
        return self._until - now

    def over(self, now: float) -> bool:
        """Whether patience is at its end."""
        return self._since is not None and now <= self._until + 1.0 and now - self._since > self._patience
