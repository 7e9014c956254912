"""How many runs of one function there may be at once, whatever their version; who comes later waits in line."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from rootlink.errors import RateLimited

MAX_WAITING: Final = 100  # of one function, so that it can't take every run of its project


class Turns:
    """`limit` None: as many as come. Each `take` that returns must be followed by one `give_back`."""

    def __init__(self, name: str, limit: int | None) -> None:
        self._name, self._limit = name, limit
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def limit(self, limit: int | None) -> None:
        """From now on. Runs that are over a smaller one end as they would."""
        self._limit = limit
        self._admit()

    async def take(self, seconds: float) -> None:
        """Raises RateLimited when the line is full, or does not get to the end in time."""
        if not self._waiting and self._free:
            self._running += 1
            return
        if len(self._waiting) >= MAX_WAITING:
            raise RateLimited(f"{self._busy}, and {MAX_WAITING} more wait for their turn; try again later")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give_back()  # it was given while its owner was leaving
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise RateLimited(f"{self._busy}, and none ended within {seconds:g} s; try again later") from None
            raise

    def give_back(self) -> None:
        self._running -= 1
        self._admit()

    @property
    def _free(self) -> bool:
        return self._limit is None or self._running < self._limit

    @property
    def _busy(self) -> str:
        return f"function {self._name!r} already has {self._limit} runs at once, its `concurrency`"

    def _admit(self) -> None:
        while self._waiting and self._free:
            turn = self._waiting.popleft()
            if not turn.done():
                self._running += 1
                turn.set_result(None)
