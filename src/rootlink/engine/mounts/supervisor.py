"""All mounts of one engine, by workspace and name.

A name is taken from the moment somebody begins to add it; a mount is listed once it is ready (`add`) or wanted (`restore`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets as randomness
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import structlog
from msgspec import Raw

from rootlink import names
from rootlink.engine.calls import LEVELS, Client
from rootlink.engine.mounts import spec as specs
from rootlink.engine.mounts.clock import Clock, Monotonic
from rootlink.engine.mounts.dial import Ground, Packages, nobodys
from rootlink.engine.mounts.launch import Launch
from rootlink.engine.mounts.listing import Catalogue
from rootlink.engine.mounts.mount import Mount, Say, silent
from rootlink.engine.mounts.remote import Credential
from rootlink.engine.mounts.spec import Places
from rootlink.engine.outbound import Outbound
from rootlink.engine.trust import Trust
from rootlink.errors import Conflict, Invalid, NotFound, RootlinkError, Unavailable
from rootlink.wire.mounts import MountSpec

log = structlog.get_logger(__name__)
Key = tuple[str, str]
Listed = list[Mount]  # inside the class `list` is a method
Named = list[str]
TRIALS = ".trial-"  # no workspace's name begins so


def unheeded(ws: str, uri: str, params: Raw, key: str | None) -> None:
    """The default of `on_updated`."""


class Mounts:
    """`on_change(ws, kinds)`: lists changed behind everybody's back; kinds ⊆ {"tools", "resources", "prompts"}.

    `credential(ws, spec)`: of a server that somebody signs in to (`engine/oauth/`), each time it is dialled.

    `no_stdio`: why nothing is started here, "" where it is. `trust`: the operator's own CA, for what is started.

    Made and used on one loop, in the main thread (launch.py says why).
    """

    def __init__(
        self,
        *,
        launch: Launch,
        outbound: Outbound,
        packages: Packages,
        files_dir: Path,
        mounts_dir: Path,
        secrets: Mapping[str, str],
        allow_paths: Iterable[str | Path],
        on_change: Callable[[str, set[str]], None],
        on_updated: Callable[[str, str, Raw, str | None], None] = unheeded,
        clock: Clock | None = None,
        trust: Trust | None = None,
        no_stdio: str = "",
        credential: Callable[[str, MountSpec], Credential | None] = nobodys,
    ) -> None:
        places = Places(Path(files_dir), tuple(Path(path) for path in allow_paths))
        self._ground = Ground(launch, outbound, packages, places, Path(mounts_dir), trust, no_stdio, credential=credential)
        self._secrets = dict(secrets)
        self._on_change = on_change
        self._on_updated = on_updated
        self._clock = clock or Monotonic()
        self._levels: dict[str, dict[str, str]] = {}  # workspace → client key → log level
        self._mounts: dict[Key, Mount] = {}
        self._adding: dict[Key, Mount] = {}
        self._leaving: set[Key] = set()
        self._trying: set[Mount] = set()
        for left in self._ground.mounts_dir.glob(f"{TRIALS}*"):  # of an engine that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._closed = False

    # what there is

    @property
    def secrets(self) -> Mapping[str, str]:
        """The project's, as they are now."""
        return self._secrets

    def get(self, ws: str, name: str) -> Mount:
        try:
            return self._mounts[ws, name]
        except KeyError:
            raise NotFound(f"no server {name!r} in workspace {ws!r}") from None

    def find(self, ws: str, name: str) -> Mount | None:
        """As `get`; None when there is no such mount."""
        return self._mounts.get((ws, name))

    def list(self, ws: str) -> Listed:
        return [mount for (of, _), mount in self._mounts.items() if of == ws]

    def all(self) -> Listed:
        return [*self._mounts.values()]

    # its clients

    def level(self, ws: str, client: Client, level: str) -> None:
        """A session client asked for this log level. Raises Invalid for one that is none of MCP's."""
        if level not in LEVELS:
            raise Invalid(f"unknown log level {level[:40]!r}; there are {', '.join(LEVELS)}")
        self._levels.setdefault(ws, {})[client.key] = level
        for mount in self.list(ws):
            mount.level(client)

    def told(self, ws: str, client: Client, method: str, params: Raw) -> None:
        """A session client's own notice (roots/list_changed), for servers it has a session of its own with."""
        for mount in self.list(ws):
            mount.told(client, method, params)

    def forget_client(self, key: str) -> None:
        """A client went away for good: what servers hold for it alone is ended."""
        for ws, levels in tuple(self._levels.items()):
            if levels.pop(key, None) is not None and not levels and ws not in {of for of, _ in (*self._mounts, *self._adding)}:
                del self._levels[ws]  # any name is a workspace; a mount's own is held by it
        for mount in self.all():
            mount.forget_client(key)

    # changing it

    async def add(self, ws: str, spec: MountSpec, *, connection: str | None = None, progress: Say | None = None) -> Mount:
        """Mount and wait until it is ready. Nothing is left of one that did not get there.

        Raises Conflict, Invalid, Forbidden, EgressBlocked, UpstreamFailed; the last with the end of the child's stderr.
        """
        names.workspace_name(ws)
        specs.check(spec, self._ground.places)
        mount = self._claim(ws, spec, connection)
        key = (ws, spec.name)
        fresh = not self._ground.folder(*key).exists()
        self._adding[key] = mount
        try:
            await mount.start(progress or silent)
            self._still_open()
            self._mounts[key] = mount
        except BaseException:
            await mount.stop()
            if fresh:
                await asyncio.to_thread(self._ground.forget, *key)
            raise
        finally:
            del self._adding[key]
        return mount

    async def trial(self, ws: str, spec: MountSpec, progress: Say) -> Catalogue:
        """Started beside what there is, in a folder of its own, and ended; both go. What its lists were. Raises as `add`."""
        specs.check(spec, self._ground.places)
        places = self._ground.mounts_dir / f"{TRIALS}{randomness.token_hex(8)}"
        ground = dataclasses.replace(self._ground, mounts_dir=places)
        mount = Mount(
            ws,
            spec,
            None,
            dial=lambda asked, say: ground.dial(ws, asked, self._secrets, say),
            clock=self._clock,
            changed=lambda of, kinds: None,
            updated=unheeded,
            levels={},
        )
        self._trying.add(mount)
        try:
            await mount.start(progress)
            return mount.catalogue
        finally:
            self._trying.discard(mount)
            await mount.stop()
            await asyncio.to_thread(shutil.rmtree, places, ignore_errors=True)

    def restore(self, ws: str, spec: MountSpec, connection: str | None = None, catalogue: Catalogue | None = None) -> Mount:
        """A mount of before: listed at once, with the catalogue last known if there is one; brought up in the background.

        One that is not allowed any more is listed too, as failed, with the reason. Raises Conflict.
        """
        mount = self._claim(ws, spec, connection, catalogue)
        self._mounts[ws, spec.name] = mount
        mount.revive()
        return mount

    async def remove(self, ws: str, name: str, *, forget: bool = False) -> bool:
        """Unmount; False when there is no such mount. `forget`: the folder it kept its state in goes too."""
        mount = self._mounts.pop((ws, name), None)
        if mount is None:
            return False
        self._leaving.add((ws, name))
        try:
            await mount.stop()
            if forget:
                await asyncio.to_thread(self._ground.forget, ws, name)
        finally:
            self._leaving.discard((ws, name))
        return True

    async def restart(self, ws: str, name: str) -> None:
        """Returns when it is ready again. Raises NotFound, or what went wrong: it is then tried again like after a crash."""
        await self.get(ws, name).restart()

    async def environment(self, secrets: Mapping[str, str]) -> Named:
        """New values of secrets. Restarts just the mounts that refer to one that changed, and answers their names."""
        before, self._secrets = self._secrets, dict(secrets)
        changed = {name for name in {*before, *secrets} if before.get(name) != secrets.get(name)}
        touched = [mount for mount in self.all() if specs.references(mount.spec) & changed]
        outcomes = await asyncio.gather(*(mount.restart() for mount in touched), return_exceptions=True)
        for mount, outcome in zip(touched, outcomes, strict=True):
            if isinstance(outcome, RootlinkError):
                log.warning("mount_restart", ws=mount.ws, mount=mount.name, why=outcome.message)
            elif outcome is not None:
                raise outcome
        return [mount.name for mount in touched]

    async def close(self) -> None:
        """End them all, at the same time."""
        self._closed = True
        mounts = [*self._mounts.values(), *self._adding.values(), *self._trying]
        await asyncio.gather(*(mount.stop() for mount in mounts), return_exceptions=True)

    def _claim(self, ws: str, spec: MountSpec, connection: str | None, catalogue: Catalogue | None = None) -> Mount:
        self._still_open()
        if (ws, spec.name) in self._leaving:
            raise Conflict(f"server {spec.name!r} in workspace {ws!r} is just being removed; try again")
        if (ws, spec.name) in self._mounts or (ws, spec.name) in self._adding:
            raise Conflict(f"there is a server {spec.name!r} in workspace {ws!r} already; remove it or choose another name")
        return Mount(
            ws,
            spec,
            connection,
            dial=lambda asked, say: self._ground.dial(ws, asked, self._secrets, say),
            clock=self._clock,
            changed=self._on_change,
            updated=self._on_updated,
            levels=self._levels.setdefault(ws, {}),
            catalogue=catalogue,
        )

    def _still_open(self) -> None:
        if self._closed:
            raise Unavailable("the engine is stopping; nothing is mounted any more")
