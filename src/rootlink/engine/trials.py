"""A new version beside the one that runs, before anybody agrees to it: what it would be, and what is now.

    the connection's mount ──► its package resolved anew, if no lock holds it ──► started in a folder of its own ──► asked, ended

Rule 1. It runs under the connection's own name, door, hosts and secrets, and in a folder that is empty and goes with it: two
        servers on one state are a way to lose it.
Rule 2. What it is asked for are its lists. Nothing of it is kept but the installed package; `mount` in the answer is what has
        to be kept for exactly that to run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from rootlink.engine.installer import Redact, cleaned
from rootlink.engine.mounts.listing import Catalogue
from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.packages import Packages
from rootlink.engine.tools.control import Control, Kept, instructions
from rootlink.engine.tools.pins import fingerprint
from rootlink.errors import Invalid, NotFound, RootlinkError
from rootlink.wire.engine import InstallEvent, Runs, Trial
from rootlink.wire.mounts import Desired, MountSpec, Step

log = structlog.get_logger(__name__)


class Trials:
    def __init__(self, mounts: Mounts, packages: Packages, redact: Redact) -> None:
        self._mounts, self._packages, self._redact = mounts, packages, redact

    async def run(self, desired: Desired, emit: Callable[[InstallEvent], None]) -> None:
        """Emits steps as they happen, `tried` or `failed` last; never raises."""

        def progress(words: str) -> None:
            emit(InstallEvent(step=Step("install", "running", words)))

        try:
            trial = await self._tried(desired, progress)
        except RootlinkError as error:
            emit(InstallEvent(failed={"code": error.code, "message": self._redact(error.message)}))
        except Exception:
            log.exception("trial broke", connection=desired.id)
            emit(InstallEvent(failed={"code": "internal", "message": "Internal error; see the engine's log"}))
        else:
            emit(InstallEvent(tried=trial))

    async def _tried(self, desired: Desired, progress: Callable[[str], None]) -> Trial:
        spec = desired.mount
        if spec is None:
            raise Invalid("only what is mounted can be tried beside what runs")
        package = None
        if spec.transport == "stdio" and spec.lock is None and spec.command is not None:
            renewed = await self._packages.renewed(spec.command, spec.args, progress)
            now = self._running(desired)
            if renewed is not None and now is not None and self._packages.holds(spec.command, now.args, now.lock, renewed.lock):
                spec = msgspec.structs.replace(spec, args=now.args, lock=now.lock)  # the same packages: nothing to agree to
            elif renewed is not None:
                spec = msgspec.structs.replace(spec, args=renewed.args, lock=renewed.lock)
        package = self._package(spec)
        lists = await self._mounts.trial(desired.ws, spec, progress)
        fresh = Control(Kept(rules=msgspec.structs.replace(desired.rules, pins={})), lambda kept: None)
        fresh.hear(lists.instructions)
        public = {tool["name"]: f"{spec.name}__{tool['name']}" for tool in fresh.known(lists.tools)}
        views = fresh.views(lists.tools, public)
        return Trial(self._runs(lists, package), self._now(desired), spec, [self._shown(view) for view in views])

    def _running(self, desired: Desired) -> MountSpec | None:
        try:
            return self._mounts.get(desired.ws, desired.name).spec
        except NotFound:
            return None

    def _now(self, desired: Desired) -> Runs:
        try:
            mount = self._mounts.get(desired.ws, desired.name)
        except NotFound:
            return Runs()
        return self._runs(mount.catalogue, self._package(mount.spec))

    def _package(self, spec: MountSpec) -> str | None:
        if spec.transport != "stdio" or spec.command is None:
            return None
        try:
            return self._packages.pinned(spec.command, spec.args, lock=spec.lock)
        except RootlinkError:
            return None

    def _runs(self, lists: Catalogue, package: str | None) -> Runs:
        """A server may have put a secret into a description; a fingerprint is of what it really sent."""
        said = instructions(lists.instructions)
        sent = lists.tools if said is None else [*lists.tools, said]
        tools: list[dict[str, Any]] = cleaned(sent, self._redact)
        server: dict[str, Any] = cleaned(lists.server_info or {}, self._redact)
        return Runs(server, tools, {tool["name"]: fingerprint(tool) for tool in sent}, package)

    def _shown(self, view: Any) -> Any:
        return msgspec.structs.replace(view, title=self._redact(view.title), description=self._redact(view.description))
