"""What is asked of one connection in its engine, which is started if need be: its tools, its checks, a sign-in, a trial.

Each is a question: the rows and the reconciler stay in charge of what runs. What a check finds is kept in the row.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from rootlink.errors import Conflict, Invalid, NotFound, RootlinkError
from rootlink.provisioner.engines import Engines
from rootlink.provisioner.line import Line
from rootlink.provisioner.reconcile import desired_of
from rootlink.records.connection import Connection, Found
from rootlink.store.store import Store
from rootlink.wire.checks import Verdict
from rootlink.wire.engine import InstallEvent
from rootlink.wire.mounts import Desired
from rootlink.wire.tools import ToolView


class Connected:
    """Every method raises `NotFound`, `Conflict` for a connection that is being removed, `Unavailable`, and what the engine
    refuses the question with."""

    def __init__(self, store: Store, engines: Engines) -> None:
        self._store, self._engines = store, engines

    async def tools(self, connection: str) -> list[ToolView]:
        row = await self._row(connection)
        return await (await self._engines.line(row.project)).tools(row.id)

    async def check(self, connection: str) -> Verdict:
        """The checks of the connect, made again. Who we are and what to know is kept; what is wrong is only answered: whether
        the connection works is for those who use it to find out, and the row tells that."""
        row = await self._row(connection)
        verdict = await (await self._engines.line(row.project)).check(row.id, desired_of(row).checks)
        if verdict.error is None:
            found = Found(label=verdict.label, notes=verdict.notes)
            with contextlib.suppress(RootlinkError):  # removed meanwhile; the answer stands
                await asyncio.to_thread(self._store.connections.note_found, row.id, found)
        return verdict

    async def sign_in(self, connection: str) -> str:
        """The link that a person opens. What they come back with ends it (`Engines.signed_in`)."""
        row = await self._row(connection)
        mount = desired_of(row).mount
        if mount is None or mount.oauth is None:
            raise Invalid(f"nobody signs in to connection {row.name!r}: it takes no sign-in")
        return await (await self._engines.line(row.project)).sign_in(row.id)

    async def trial(self, connection: str, desired: Desired) -> AsyncIterator[InstallEvent]:
        """Begins what `desired` says beside what runs, in the connection's own project."""
        row = await self._row(connection)
        return _told(await self._engines.line(row.project), desired)

    async def _row(self, connection: str) -> Connection:
        row = await asyncio.to_thread(self._store.connections.by_id, connection)
        if row is None:
            raise NotFound("there is no such connection; it may have been undone")
        if row.state == "removing":
            raise Conflict(f"connection {row.name!r} is being removed")
        return row


async def _told(line: Line, desired: Desired) -> AsyncIterator[InstallEvent]:
    """An engine that is lost on the way is the story's end like any other."""
    try:
        async for event in line.trial(desired):
            yield event
    except RootlinkError as error:
        yield InstallEvent(failed={"code": error.code, "message": error.message})
