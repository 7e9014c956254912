"""Where each project's engine listens, as far as this gateway knows, and the links to it.

The provisioner's `ensure` is asked once, however many requests wait for it, and its answer is kept until an engine shows that it
is not there any more: nobody listens, it says that it stops, or it does not know the key.

`back` is for those who want an engine that somebody else starts: they wait without starting it, so a stopped engine stays stopped
however many clients have a stream open.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from rootlink.errors import RootlinkError, Unavailable
from rootlink.gateway.link import Links
from rootlink.gateway.provisioner import ProvisionerClient
from rootlink.wire.provisioner import EngineAddress

log = structlog.get_logger(__name__)

LOOK_SECS = 1.0  # between two looks for an engine that streams wait for


class Engine:
    """One spawn of an engine: its key and its links."""

    def __init__(self, address: EngineAddress) -> None:
        self.key = address.key.encode("ascii")
        self.generation = address.generation
        self.links = Links(address.socket)


class Engines:
    def __init__(self, provisioner: ProvisionerClient, ensure_secs: float) -> None:
        self._provisioner = provisioner
        self._ensure_secs = ensure_secs
        self._known: dict[str, Engine] = {}
        self._asking: dict[str, asyncio.Task[Engine]] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._found: dict[str, asyncio.Event] = {}  # of those that are looked for

    def known(self, project: str) -> Engine | None:
        return self._known.get(project)

    async def ensure(self, project: str) -> Engine:
        """The project's engine, started if need be. Raises what `ProvisionerClient.ensure` does."""
        engine = self._known.get(project)
        if engine is not None:
            return engine
        asking = self._asking.get(project)
        if asking is None:
            asking = self._asking[project] = asyncio.create_task(self._ask(project))
            asking.add_done_callback(lambda done: self._asked(project, done))
        return await asyncio.shield(asking)  # a caller that goes away must not take the spawn from the others

    def forget(self, project: str, gone: Engine | None = None) -> None:
        """`gone` is not there any more; nothing to do if another one has taken its place already."""
        engine = self._known.get(project)
        if engine is not None and (gone is None or engine is gone):
            del self._known[project]
            engine.links.close()

    async def back(self, project: str) -> None:
        """Returns when the project's engine runs. Raises `NotFound` when the project is gone."""
        if project in self._known:
            return
        looking = self._looking.get(project)
        if looking is None:
            looking = self._looking[project] = asyncio.create_task(self._look(project))
            looking.add_done_callback(lambda done: self._looked(project, done))
        await asyncio.shield(looking)

    async def noted(self, project: str) -> None:
        """What the project's engine is needed for while it is stopped has changed: the store has it when this returns, unless
        the provisioner can't be asked now; then it asks by itself, soon."""
        with contextlib.suppress(RootlinkError):
            await self._provisioner.view(project)

    async def close(self) -> None:
        tasks = [*self._asking.values(), *self._looking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for project in list(self._known):
            self.forget(project)

    async def _ask(self, project: str) -> Engine:
        engine = Engine(await self._provisioner.ensure(project, self._ensure_secs))
        self._known[project] = engine
        if (found := self._found.pop(project, None)) is not None:
            found.set()
        log.info("engine found", project=project, generation=engine.generation)
        return engine

    async def _look(self, project: str) -> None:
        """Until the engine runs: one look a second, for however many wait, and none once somebody else has it started."""
        while project not in self._known:
            with contextlib.suppress(Unavailable):
                if (await self._provisioner.view(project)).state == "running":
                    return
            found = self._found.setdefault(project, asyncio.Event())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECS):
                    await found.wait()

    def _looked(self, project: str, done: asyncio.Task[None]) -> None:
        self._looking.pop(project, None)
        self._found.pop(project, None)
        if not done.cancelled():
            done.exception()

    def _asked(self, project: str, done: asyncio.Task[Engine]) -> None:
        self._asking.pop(project, None)
        if not done.cancelled():
            done.exception()  # every waiter has it, or has gone away; either way it was seen
