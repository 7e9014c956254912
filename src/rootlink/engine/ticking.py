"""A step of a connect that goes on says so every second: an install takes up to a minute, and silence looks like a hang."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec

from rootlink.wire.mounts import Step

EVERY = 1.0  # seconds
Tell = Callable[[Step], None]


@contextlib.asynccontextmanager
async def ticking(tell: Tell, first: Step, every: float = EVERY) -> AsyncIterator[Tell]:
    """A `tell` to be used inside. When nothing was told for `every` seconds, the last step is told again with how long it takes;
    one that waits for a person is not. `first`: what is under way before anything was told."""
    clock = asyncio.get_running_loop().time
    last = first, clock()
    news = asyncio.Event()

    def told(step: Step) -> None:
        nonlocal last
        last = step, clock()
        news.set()
        tell(step)

    async def tick() -> None:
        while True:
            news.clear()
            try:
                async with asyncio.timeout(every):
                    await news.wait()
            except TimeoutError:
                step, since = last
                if step.state == "running" and step.link is msgspec.UNSET:
                    tell(msgspec.structs.replace(step, detail=f"{step.detail} ({clock() - since:.0f} s)"))

    task = asyncio.create_task(tick())
    try:
        yield told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
