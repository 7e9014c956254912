"""A call's deadline: it stands still while its client is asked something, and begins anew with each progress notification.

It ends in an hour all the same: a server that reports progress for ever must not hold what a call holds for ever.
Without this a person who thinks for two minutes about a form would find that the call behind it is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Raw

from rootlink.engine.calls import Call, Heard, Through

PROGRESS = "notifications/progress"
LONGEST = 3600.0  # seconds a call may live on progress alone


class Patient(Through):
    """`call`, with the timeout it runs under (entered already) and that timeout's seconds."""

    def __init__(self, call: Call, deadline: asyncio.Timeout, seconds: float) -> None:
        super().__init__(call)
        self._deadline, self._seconds = deadline, seconds
        self._loop = asyncio.get_running_loop()
        self._left = seconds
        self._latest = self._loop.time() + max(LONGEST, seconds)
        self._held = 0
        self._over = False

    def tell(self, method: str, params: Raw) -> None:
        if method == PROGRESS:
            self._left = self._seconds
            if self._held == 0:
                self._run()
        self._call.tell(method, params)

    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        with self.holding():
            return await self._call.ask(method, params, heard)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Its time stands still meanwhile."""
        if self._held == 0 and not self._finished():
            when = self._deadline.when()
            self._left = self._seconds if when is None else when - self._loop.time()
            self._deadline.reschedule(None)
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self._held == 0:
                self._run()

    def over(self) -> None:
        """The call is done; a question of its may end later."""
        self._over = True

    def _run(self) -> None:
        if not self._finished():
            self._deadline.reschedule(min(self._loop.time() + self._left, self._latest))

    def _finished(self) -> bool:
        return self._over or self._deadline.expired()
