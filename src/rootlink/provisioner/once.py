"""What a slow question comes to, asked once, off the loop, whoever wants to know first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """`work` blocks and may start processes; `around` is held meanwhile. One that raises is asked again the next time."""

    def __init__(self, work: Callable[[], T], around: Callable[[], AbstractContextManager[None]]) -> None:
        self._work, self._around = work, around
        self._found: list[T] = []
        self._lock = asyncio.Lock()

    async def get(self) -> T:
        """Raises what `work` raises."""
        async with self._lock:
            if not self._found:
                with self._around():
                    self._found.append(await asyncio.to_thread(self._work))
            return self._found[0]
