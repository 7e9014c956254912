"""The control plane as one value: what the routes of `/v1` work with."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import structlog

from rootlink.catalog import Catalog
from rootlink.errors import RootlinkError
from rootlink.gateway.auth import KeyRing, Operators
from rootlink.gateway.budget import Budget
from rootlink.gateway.engines import Engines
from rootlink.gateway.provisioner import ProvisionerClient
from rootlink.gateway.settings import GatewaySettings
from rootlink.sealing.seal import Sealer
from rootlink.store import Store

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Errands:
    """Work that goes on when the request that began it has ended; the owner of its tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Plane:
    """`connecting`: by project, held from the look at what there is until a connect is written, so that two at once don't both
    find a secret's name free."""

    store: Store
    sealer: Sealer
    catalog: Catalog
    provisioner: ProvisionerClient
    engines: Engines
    keys: KeyRing
    operators: Operators
    errands: Errands
    budget: Budget
    settings: GatewaySettings
    connecting: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def refresh(self, project: str) -> None:
        """A change of secrets or allowlist reaches the running engine. It is waited for a few seconds; whether it gets there in
        that time changes nothing about the change itself, which is in the store: every spawn reads it from there."""
        task = self.errands.begin(self._refresh(project))
        await asyncio.wait({task}, timeout=self.settings.refresh_secs)

    async def _refresh(self, project: str) -> None:
        try:
            await self.provisioner.refresh(project)
        except RootlinkError as error:
            log.warning("refresh failed", project=project, code=error.code)


async def stored(ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """One question to the store, off the loop."""
    return await asyncio.to_thread(ask, *args, **kwargs)
