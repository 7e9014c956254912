"""What was refused on the way out, kept until the provisioner asks for it: one line per connection, host, port and reason."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from rootlink.egress.policy import Decision as Verdict
from rootlink.wire.engine import Decision

MAX_KEPT = 1000


class Decisions:
    """Only refusals are kept. Past 1,000 different ones the oldest goes: a flood of names must not fill memory."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._kept: dict[tuple[str, str, int, str], Decision] = {}

    def record(self, connection: str, verdict: Verdict, count: int = 1) -> None:
        if verdict.verdict != "denied" or not verdict.host:  # what names no host is a mistake, not an attempt
            return
        host = self._redact(verdict.host)  # a name can be made of a secret
        key = (connection, host, verdict.port, verdict.reason)
        known = self._kept.pop(key, None)
        while len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        fresh = Decision(time.time(), connection, host, verdict.port, "denied", verdict.reason, count)
        self._kept[key] = fresh if known is None else msgspec.structs.replace(fresh, count=known.count + count)

    def hand_over(self) -> list[Decision]:
        """Each decision once."""
        kept, self._kept = list(self._kept.values()), {}
        return kept
