"""What sign-ins came to: an engine seals the tokens it was given (`wire.Grant`), and from here they are the vault's.

    engine: grants ──► open (name, version 0) ──► seal for the vault's row ──► write ──► engine: taken

Rule 1. A grant becomes the one secret that its own connection's mount names (`wire.OAuth`), in its own project, or nothing: an
        engine is not believed, and no other secret of the vault can be written over from there.
Rule 2. Acknowledged after it is written, so none is lost; one that the vault holds already, to the letter, is not written again.
        Of several for one secret the latest counts.
Rule 3. What can never be kept (its connection is gone, its box does not open) is acknowledged too, and said in the log by its id.
Rule 4. One at a time for a project: the poll and the end of a sign-in may come together.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import msgspec
import structlog

from rootlink.errors import NotFound, RootlinkError
from rootlink.provisioner.environment import granted, opened
from rootlink.provisioner.line import Line
from rootlink.records.connection import Connection
from rootlink.sealing.seal import Sealer
from rootlink.sealing.unseal import SealBroken, Unsealer
from rootlink.store.store import Store
from rootlink.wire.engine import Grant
from rootlink.wire.mounts import Desired

log = structlog.get_logger(__name__)
SHOWN = 40  # characters of what an engine calls things, in the log


class Grants:
    def __init__(self, store: Store, unsealer: Unsealer) -> None:
        self._store, self._unsealer, self._sealer = store, unsealer, Sealer(unsealer.public)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def take(self, project: str, line: Line, *, within: float = 5.0) -> int:
        """How many were written. Raises Unavailable when engine or store can't be asked: then they come again."""
        async with self._locks[project]:
            grants = await line.grants([], within=within)
            if not grants:
                return 0
            latest = {(grant.connection, grant.secret): grant for grant in grants}
            written = 0
            for grant in latest.values():
                written += await asyncio.to_thread(self._keep, project, grant)
            await line.grants([grant.id for grant in grants], within=within)
            return written

    def _keep(self, project: str, grant: Grant) -> bool:
        row = self._store.connections.by_id(grant.connection)
        if row is None or row.project != project or _wanted(row) != grant.secret:
            log.warning(
                "grant of no connection here", project=project, grant=grant.id[:SHOWN], connection=grant.connection[:SHOWN]
            )
            return False
        try:
            value = granted(project, grant, self._unsealer)
            if self._holds(project, grant.secret, value):
                return False
        except SealBroken:
            log.error("grant does not open", project=project, grant=grant.id[:SHOWN], connection=row.id)
            return False
        name, sealer = grant.secret, self._sealer
        kept = self._store.connections.keep_secret(row.id, name, lambda version: sealer.seal(project, name, version, value))
        log.info("signed in", project=project, connection=row.id, kept=kept)
        return kept

    def _holds(self, project: str, name: str, value: str) -> bool:
        try:
            secret = self._store.secrets.get(project, name)
        except NotFound:
            return False
        return opened(project, secret, self._unsealer) == value


def _wanted(row: Connection) -> str | None:
    """The vault's name for this connection's grant."""
    try:
        mount = msgspec.json.decode(row.desired, type=Desired).mount
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return mount.oauth.secret if mount is not None and mount.oauth is not None else None


async def quietly(grants: Grants, project: str, line: Line, *, within: float = 5.0) -> None:
    """For a moment that is not the last: what fails now is taken at the next poll."""
    try:
        await grants.take(project, line, within=within)
    except RootlinkError as error:
        log.info("grants not taken", project=project, code=error.code, reason=error.message)
