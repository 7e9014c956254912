"""How many descriptors one project may have of the gate's, so that one cannot use up what all need.

A project may take what leaves at least half as much free as it then has: alone it gets two thirds, two that take all they can get
two fifths each, and there is always something left for the next one. Nothing is reserved for those who want nothing.
"""

from __future__ import annotations

import resource
from typing import Protocol

KEPT_BACK = 128  # for the gate itself, and for what comes before anybody knows whose it is
_ENOUGH = 1 << 20


class Holder(Protocol):
    held: int


class Room:
    def __init__(self, total: int) -> None:
        self._free = max(total - KEPT_BACK, 0)

    def admits(self, who: Holder, count: int) -> bool:
        return who.held + count <= 2 * (self._free - count)

    def take(self, who: Holder, count: int) -> None:
        who.held += count
        self._free -= count

    def give_back(self, who: Holder, count: int) -> None:
        self.take(who, -count)


def of_this_process() -> Room:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Room(_ENOUGH if soft == resource.RLIM_INFINITY else soft)
