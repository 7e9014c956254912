"""Work that outlives whoever asked for it, and its owner.

A caller that goes away must not leave an engine half started or a connection half made, so such work is started here; the
provisioner's end is the only thing that cancels it, and waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

import structlog

from rootlink.errors import RootlinkError, Unavailable

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Crew:
    """Owns tasks between `async with` and its end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False

    async def __aenter__(self) -> Crew:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Begin `work`. Raises Unavailable when the crew is closing."""
        if self._closing:
            work.close()
            raise Unavailable("the provisioner is stopping; try again in a moment")
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def finish(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """What `work` comes to. It goes on when the caller goes away. Raises what it raises; Unavailable when cancelled."""
        task = self.start(work, name)
        await asyncio.wait({task})
        if task.cancelled():
            raise Unavailable("the provisioner is stopping; try again in a moment")
        return task.result()

    async def close(self) -> None:
        """Cancel what still runs and wait for its end."""
        self._closing = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, RootlinkError):
            log.info("task refused", task=task.get_name(), code=error.code, reason=error.message)
        elif error is not None:
            log.error("task failed", task=task.get_name(), exc_info=error)
