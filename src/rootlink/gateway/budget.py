"""How many bytes of request bodies the gateway holds at once: for all callers together, and for each.

A body is held until its engine answers, which may take minutes; so what limits one body does not limit them all. A caller over
its own limit is told to come again (429), and so is everybody when the whole is used up (503). What a caller *says* it will send
is counted as soon as it says so, before any of it is read.
"""

from __future__ import annotations

from rootlink.errors import RateLimited, Unavailable

MIB = 1024 * 1024


class Budget:
    """`whole` and `each` in bytes; each is at least the largest body."""

    def __init__(self, whole: int, each: int) -> None:
        self.held = 0
        self._whole = whole
        self._each = each
        self._callers: dict[str, int] = {}  # nobody who holds nothing

    def share(self, caller: str) -> Share:
        return Share(self, caller)

    def take(self, caller: str, size: int) -> None:
        """Raises `RateLimited` or `Unavailable`, and has taken nothing then."""
        own = self._callers.get(caller, 0) + size
        if own > self._each:
            limit = f"{self._each // MIB} MiB of request bodies at once is what one caller may have under way"
            raise RateLimited(f"{limit}; wait for calls to be answered, then try again")
        if self.held + size > self._whole:
            raise Unavailable("The gateway holds as many request bodies as it may; try again")
        self._callers[caller] = own
        self.held += size

    def give(self, caller: str, size: int) -> None:
        left = self._callers[caller] - size
        if left:
            self._callers[caller] = left
        else:
            del self._callers[caller]
        self.held -= size


class Share:
    """What one request holds; leaving the `with` gives it back."""

    __slots__ = ("_budget", "_caller", "size")

    def __init__(self, budget: Budget, caller: str) -> None:
        self._budget = budget
        self._caller = caller
        self.size = 0

    def hold(self, size: int) -> None:
        """Hold `size` bytes from now on, more or fewer than before. Raises what `Budget.take` does."""
        more = size - self.size
        if more > 0:
            self._budget.take(self._caller, more)
        elif more < 0:
            self._budget.give(self._caller, -more)
        self.size = size

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self.hold(0)
