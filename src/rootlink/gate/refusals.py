"""Telling the engine what was refused: each at once, until it floods; then the same ones are counted and told together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from rootlink.egress.policy import Decision
from rootlink.wire.gate import Refusal

BURST, A_SECOND = 200.0, 100.0  # told at once, of one door
TOGETHER_SECS = 0.25
KINDS = 1000  # different ones that may wait; what comes past them is counted with the last


class Refusals:
    """Of one door. `congested()`: whether the engine does not read now."""

    def __init__(self, door: int, name: str, tell: Callable[[Refusal], None], congested: Callable[[], bool]) -> None:
        self._door, self._name, self._tell, self._congested = door, name, tell, congested
        self._loop = asyncio.get_running_loop()
        self._allowance, self._seen = BURST, self._loop.time()
        self._waiting: dict[tuple[str, str, int, str], Refusal] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.total = 0

    def add(self, decision: Decision, name: str = "") -> Refusal:
        refusal = Refusal(self._door, name or self._name, decision.host, decision.port, decision.reason, decision.message)
        self.total += 1
        if not self._waiting and not self._congested() and self._at_once():
            self._tell(refusal)
        else:
            self._put_by(refusal)
        return refusal

    def close(self) -> None:
        """What waits is told now, if anybody reads."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._congested():
            self._flush()

    def _at_once(self) -> bool:
        now = self._loop.time()
        self._allowance = min(BURST, self._allowance + (now - self._seen) * A_SECOND)
        self._seen = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def _put_by(self, refusal: Refusal) -> None:
        key = (refusal.name, refusal.host, refusal.port, refusal.reason)
        if key not in self._waiting and len(self._waiting) >= KINDS:
            key = next(reversed(self._waiting))
        known = self._waiting.get(key)
        self._waiting[key] = refusal if known is None else msgspec.structs.replace(known, count=known.count + 1)
        if self._timer is None:
            self._timer = self._loop.call_later(TOGETHER_SECS, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if self._congested():
            self._timer = self._loop.call_later(TOGETHER_SECS, self._flush)
            return
        waiting, self._waiting = self._waiting, {}
        for refusal in waiting.values():
            self._tell(refusal)
