"""When a mount that ended is started again: at once if it did run, then after 1, 2, 4, 8, 16, 30 seconds, then not any more.

Whoever asks while it is started at once waits for it: one end in a minute is nothing that a client need know of. A minute without
an end forgives all earlier ones. A server elsewhere is not ours to give up: it is tried for ever, at the longest delay, because
its coming back needs nobody here.
"""

from __future__ import annotations

DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
STABLE = 60.0  # seconds


class Restarts:
    def __init__(self, *, give_up: bool) -> None:
        self._give_up = give_up
        self._tried = 0
        self._excused = False
        self._ready_at: float | None = None

    def ready(self, now: float) -> None:
        self._ready_at = now

    def excuses(self, now: float) -> bool:
        """Whether an end now is the first of something that did run."""
        return self._ready_at is not None and (not self._excused or now - self._ready_at >= STABLE)

    def ended(self, now: float) -> float | None:
        """Seconds to wait before the next start; None: no more starts."""
        excused = self.excuses(now)
        if self._ready_at is not None and now - self._ready_at >= STABLE:
            self._tried = 0
        self._ready_at = None
        if excused:
            self._excused = True
            return 0.0
        self._tried += 1
        if self._tried > len(DELAYS) and self._give_up:
            return None
        return DELAYS[min(self._tried, len(DELAYS)) - 1]

    def forgive(self) -> None:
        """A person asked for a restart."""
        self._tried = 0
        self._excused = False
        self._ready_at = None
