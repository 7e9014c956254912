"""What all runs of an engine share: room for what they send, and turns of the event loop for what takes long to read.

A run is bounded by itself (operations.py, isolates/frames.py); a thousand of them, each with all it may have, would be too much.
What there is no room for is refused and not made to wait: it would be held while it waited.
"""

from __future__ import annotations

import asyncio
from typing import Final

MAX_HELD: Final = 256 << 20  # bytes of operations that are under way; a request is held twice, as text and as what is sent


class Room:
    """Make one for an engine."""

    def __init__(self, size: int = MAX_HELD) -> None:
        self._left = size
        self._turn = asyncio.Lock()

    def take(self, size: int) -> bool:
        """Whether there is room for so many bytes; then they are to be given back."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        self._left += size

    async def turn(self) -> None:
        """Returns for one who asks in each turn of the loop, in the order they came."""
        async with self._turn:
            await asyncio.sleep(0)
