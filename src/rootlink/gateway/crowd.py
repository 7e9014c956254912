"""The open connections of a gateway, and which of them must go when there are too many.

    headless    no request whole yet, or the head of the next one under way: a stranger at most. Too many of one address, or of
                all, and the oldest is closed, unless it is younger than `GRACE_SECS`: many clients may well come in one instant
    idle        its last request is answered
    busy        a request is being worked on; it is never closed from here

All together are at most `most`, which must leave files for links to engines. When there are as many, the newcomer takes the place
of the oldest headless, or else of the longest idle; when all are busy it is turned away with an answer (503). So
whoever opens connections and says nothing keeps out nobody but others who say nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Protocol

HEADLESS = 256
HEADLESS_EACH = 64  # of one address
GRACE_SECS = 1.0


class Guest(Hashable, Protocol):
    """A connection."""

    @property
    def address(self) -> str:
        """Whose it is."""

    def shed(self) -> None:
        """Close it at once."""


class Crowd:
    """Every change of a connection's state is told here. All of them take constant time."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._all: set[Guest] = set()
        self._idle: dict[Guest, None] = {}  # these dicts are in order of arrival: the oldest is first
        self._headless: dict[Guest, float] = {}
        self._each: dict[str, dict[Guest, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def come(self, guest: Guest) -> bool:
        """A new connection, headless; False if there is no place for it."""
        if len(self._all) >= self._most and not self._make_place():
            return False
        self._all.add(guest)
        self.headless(guest)
        return True

    def headless(self, guest: Guest) -> None:
        if guest in self._headless or guest not in self._all:
            return
        self._idle.pop(guest, None)
        self._headless[guest] = self._clock()
        same = self._each.setdefault(guest.address, {})
        same[guest] = None
        self._thin_out(same, HEADLESS_EACH)
        self._thin_out(self._headless, HEADLESS)

    def busy(self, guest: Guest) -> None:
        if guest in self._idle:
            del self._idle[guest]
        elif guest in self._headless:
            self._head_is_whole(guest)

    def idle(self, guest: Guest) -> None:
        if guest in self._all:
            self._idle[guest] = None

    def leave(self, guest: Guest) -> None:
        self._all.discard(guest)
        self.busy(guest)

    def _head_is_whole(self, guest: Guest) -> None:
        del self._headless[guest]
        same = self._each[guest.address]
        del same[guest]
        if not same:
            del self._each[guest.address]

    def _make_place(self) -> bool:
        for kind in (self._headless, self._idle):
            if kind:
                self._shed(next(iter(kind)))
                return True
        return False

    def _thin_out(self, kind: dict[Guest, float] | dict[Guest, None], most: int) -> None:
        while len(kind) > most:
            oldest = next(iter(kind))
            if self._clock() - self._headless[oldest] < GRACE_SECS:
                return
            self._shed(oldest)

    def _shed(self, guest: Guest) -> None:
        self.leave(guest)
        guest.shed()
