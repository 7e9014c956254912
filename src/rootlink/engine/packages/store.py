"""The front door: a command line in, a `Start` out, with as few installs as possible.

    command ─► ask ─► pin (the lock: given, remembered, or resolved once) ─► key ─► install (there, or made once) ─► start

One flight per ask inside the process, however many wait; one maker per key among processes (`shelf.locked`). What is pinned and
installed starts without the network, and is the same for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import structlog

from rootlink.egress.hosts import shown
from rootlink.engine.packages import asks, installer, npm
from rootlink.engine.packages.asks import Ask, Spec
from rootlink.engine.packages.npm import Npm
from rootlink.engine.packages.pypi import Pypi
from rootlink.engine.packages.shelf import Shelf, digest
from rootlink.engine.packages.starts import Start
from rootlink.errors import Invalid, RootlinkError, Unavailable, UpstreamFailed

log = structlog.get_logger(__name__)

Progress = Callable[[str], None]
LockT = TypeVar("LockT", bound="Lock")

CAP_SECS = 300.0
_AT_ONCE = 2  # installs; each may use several cores
KEPT_SECS = 7 * 86400.0  # an install nobody uses any more stays so long: what was taken away by mistake is back at once
KEPT_SECS_SHARED = 90 * 86400.0
_PARSERS = {"npx": asks.npx, "uvx": asks.uvx}


class Renewed(NamedTuple):
    """Arguments and the lock that they mean."""

    args: list[str]
    lock: str


class Lock(Protocol):
    """What is the same in the locks of both registries."""

    @property
    def text(self) -> str: ...
    @property
    def versions(self) -> Mapping[str, str]: ...
    @property
    def count(self) -> int: ...
    @property
    def contents(self) -> object: ...
    def require(self, specs: tuple[Spec, ...]) -> None: ...


class Registry(Protocol[LockT]):
    """What npm and PyPI have in common: see `npm.Npm` and `pypi.Pypi`."""

    def read(self, text: str) -> LockT: ...
    def pin_name(self, ask: Ask) -> str: ...
    def key(self, ask: Ask, lock: LockT) -> str: ...
    async def resolve(self, specs: tuple[Spec, ...], title: str, folder: Path) -> LockT: ...
    async def install(self, lock: LockT, title: str, folder: Path) -> None: ...
    def start(self, ask: Ask, lock: LockT, folder: Path) -> Start: ...


class _Pin(msgspec.Struct, frozen=True):
    """What a spec was resolved to, as kept on the shelf."""

    spec: str
    lock: str


@dataclass(eq=False)
class _Flight:
    """One installation under way, and who listens to it."""

    waiting: int = 0
    said: list[str] = field(default_factory=list)
    listeners: list[Progress] = field(default_factory=list)
    task: asyncio.Task[tuple[Any, Path]] = field(init=False)

    def say(self, line: str) -> None:
        self.said.append(line)
        for listener in self.listeners:
            listener(line)


class Packages:
    """`environ` is the user's environment: its PATH, and its settings for package registries (used by installers alone).

    `python` is the interpreter that PyPI packages are installed for and `python …` commands run with. `run` runs installers.
    `found_elsewhere`: other commands stay as they are named, because who starts them looks for them.
    """

    def __init__(
        self,
        store_dir: Path | str,
        *,
        environ: Mapping[str, str] | None = None,
        python: str = sys.executable,
        cap_secs: float = CAP_SECS,
        run: installer.Run = installer.run,
        found_elsewhere: bool = False,
    ) -> None:
        root = Path(store_dir).absolute()
        self._environ = dict(environ or {})
        self._python = python
        self._found_elsewhere = found_elsewhere
        self._cap = cap_secs
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[tuple[Any, Path]]] = set()
        self._shelves = {registry: Shelf(root, registry) for registry in ("npm", "pypi")}
        env = installer.environment(self._environ, root / "home")
        self._registries: dict[str, Registry[Any]] = {
            "npm": Npm(self._shelves["npm"].cache, env, run),
            "pypi": Pypi(self._shelves["pypi"].cache, env, python, run),
        }

    async def resolve(
        self, command: str, args: Sequence[str], *, lock: str | None = None, progress: Progress | None = None
    ) -> Start:
        """How to start `command args`. For `npx` and `uvx` this installs what is not in the store yet.

        `lock`: package-lock.json (npx) or requirements with hashes (uvx) that pins it; None: resolved at first and remembered.
        `progress` gets lines for a person. Raises `Invalid` for what cannot be asked or a lock that cannot be trusted,
        `UpstreamFailed` and `Unavailable` in words when it cannot be installed.
        """
        parse = _PARSERS.get(command)
        if parse is None:
            return self._command(command, list(args))
        ask = parse(args)
        locked, folder = await self._fly(ask, lock, progress)
        return self._registries[ask.registry].start(ask, locked, folder)

    async def renewed(self, command: str, args: Sequence[str], progress: Progress | None = None) -> Renewed | None:
        """What `command args` would be if it was asked for the first time now; None for a command that is no package. What is
        remembered stays as it is. Raises as `resolve`."""
        parse = _PARSERS.get(command)
        if parse is None:
            return None
        ask = parse(args)
        registry, shelf = self._registries[ask.registry], self._shelves[ask.registry]
        if progress is not None:
            progress(f"resolving {ask.title} …")
        try:
            async with asyncio.timeout(self._cap):
                await asyncio.to_thread(shelf.prepare)
                name = f"anew-{registry.pin_name(ask)}"
                async with shelf.locked(name), self._slots, shelf.scratch(name) as folder:
                    lock = await registry.resolve(ask.anew, ask.title, folder)
        except TimeoutError:
            raise UpstreamFailed(f"resolving {ask.title} took longer than {self._cap:.0f} s and was stopped") from None
        return Renewed(ask.at(lock.versions, args), lock.text)

    def pinned(self, command: str, args: Sequence[str], *, lock: str | None = None) -> str | None:
        """`name@version` of what `command args` starts now; None while nothing is pinned, or for what is no package."""
        parse = _PARSERS.get(command)
        if parse is None:
            return None
        ask = parse(args)
        registry = self._registries[ask.registry]
        held = registry.read(lock) if lock is not None else self._remembered(ask)
        return None if held is None else f"{ask.specs[0].name}@{held.versions.get(ask.specs[0].name, '')}"

    def holds(self, command: str, args: Sequence[str], lock: str | None, other: str) -> bool:
        """Whether what `command args` starts now, by `lock` or as remembered, is exactly what the lock `other` installs."""
        ask = _PARSERS[command](args)
        registry = self._registries[ask.registry]
        held = registry.read(lock) if lock is not None else self._remembered(ask)
        return held is not None and held.contents == registry.read(other).contents

    def sweep(self, keep: Iterable[tuple[str, Sequence[str], str | None]], *, now: float, shared: bool) -> int:
        """Removes what nobody uses any more: neither `keep` (command, arguments, lock of what is mounted or may be gone back to)
        nor any engine, and not for `KEPT_SECS`. `shared`: other projects' engines use this store too, so what is not ours may be
        theirs, and only age tells. Answers how many installs went. Blocking."""
        keys: dict[str, set[str]] = {registry: set() for registry in self._registries}
        pins: dict[str, set[str]] = {registry: set() for registry in self._registries}
        for command, args, lock in keep:
            with contextlib.suppress(RootlinkError):  # what can't be started from uses nothing
                self._note_used(command, args, lock, keys, pins)
        before = now - (KEPT_SECS_SHARED if shared else KEPT_SECS)
        gone = 0
        for name, shelf in self._shelves.items():
            installs, forgotten = shelf.discard_installs(keys[name], before), shelf.discard_pins(pins[name], before)
            gone += len(installs)
            if installs or forgotten:
                log.info("packages_removed", registry=name, installs=[key[:12] for key in installs], pins=len(forgotten))
        return gone

    def _note_used(
        self, command: str, args: Sequence[str], lock: str | None, keys: dict[str, set[str]], pins: dict[str, set[str]]
    ) -> None:
        parse = _PARSERS.get(command)
        if parse is None:
            return
        ask = parse(args)
        registry = self._registries[ask.registry]
        if lock is None:
            pins[ask.registry].add(registry.pin_name(ask))
        held = registry.read(lock) if lock is not None else self._remembered(ask)
        if held is not None:
            keys[ask.registry].add(registry.key(ask, held))

    def _remembered(self, ask: Ask) -> Any:
        registry = self._registries[ask.registry]
        return _remembered(registry, self._shelves[ask.registry].pin(registry.pin_name(ask)))

    async def close(self) -> None:
        """Ends installs under way; nothing half done is left in use."""
        tasks = list(self._tasks)
        for task in tasks:
            if not task.cancelling():  # a second cancel would cut its cleaning up short
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for shelf in self._shelves.values():
            shelf.close()

    def _command(self, command: str, args: list[str]) -> Start:
        if command in ("node", "nodejs"):
            node = npm.bundled()
            return Start([str(node.binary), *args], {}, None, node.readonly)
        if command in ("python", "python3"):
            return Start([self._python, *args], {}, None, [Path(sys.prefix), Path(sys.base_prefix)])
        return Start([self._found(command), *args])

    def _found(self, command: str) -> str:
        named = Path(command).is_absolute() or "/" not in command  # a relative path would depend on some folder
        if named and command and self._found_elsewhere:
            return command
        found = shutil.which(command, path=self._environ.get("PATH", os.defpath)) if named and command else None
        if found is None or not Path(found).is_absolute():
            known = "npx, uvx, node and python need nothing installed"
            raise Invalid(f"command {shown(command)} is not on this machine (an absolute path, or a name on PATH); {known}")
        return found

    async def _fly(self, ask: Ask, lock: str | None, progress: Progress | None) -> tuple[Any, Path]:
        """Joins the flight for the same packages, or starts one. A caller that goes away leaves the others their flight."""
        name = digest(ask.registry, repr(ask.specs), lock or "")
        flight = self._flights.get(name) or self._depart(name, ask, lock)
        flight.waiting += 1
        if progress is not None:
            for line in flight.said:
                progress(line)
            flight.listeners.append(progress)
        try:
            await asyncio.wait({flight.task})
        finally:
            flight.waiting -= 1
            if progress is not None:
                flight.listeners.remove(progress)
            if not flight.waiting:  # nobody wants it any more (a finished one does not mind)
                self._flights.pop(name, None)
                flight.task.cancel()
        if flight.task.cancelled():
            raise Unavailable(f"installing {ask.title} was stopped, because the engine is stopping")
        return flight.task.result()

    def _depart(self, name: str, ask: Ask, lock: str | None) -> _Flight:
        flight = self._flights[name] = _Flight()
        flight.task = asyncio.get_running_loop().create_task(self._capped(ask, lock, flight))  # close() awaits it
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._landed)
        return flight

    def _landed(self, task: asyncio.Task[tuple[Any, Path]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even if every caller has gone away

    async def _capped(self, ask: Ask, lock: str | None, flight: _Flight) -> tuple[Any, Path]:
        try:
            async with asyncio.timeout(self._cap):
                return await self._install(self._registries[ask.registry], self._shelves[ask.registry], ask, lock, flight.say)
        except TimeoutError:
            raise UpstreamFailed(f"installing {ask.title} took longer than {self._cap:.0f} s and was stopped") from None

    async def _install(
        self, registry: Registry[LockT], shelf: Shelf, ask: Ask, given: str | None, say: Progress
    ) -> tuple[LockT, Path]:
        lock = await self._lock(registry, shelf, ask, given, say)
        key = registry.key(ask, lock)
        folder = shelf.use(key)
        if folder is not None:
            say(f"{ask.title}: from the store")
            return lock, folder
        shelf.prepare()
        async with shelf.locked(key, lambda: say(f"waiting for another install of {ask.title} …")), self._slots:
            folder = shelf.use(key)
            if folder is None:
                await asyncio.to_thread(shelf.sweep_once)
                say(f"installing {lock.count} packages of {ask.title} …")
                async with shelf.draft(key) as draft:
                    await registry.install(lock, ask.title, draft)
                folder = shelf.use(key) or shelf.folder / key
                log.info("package_installed", package=ask.title, packages=lock.count, key=key[:12])
        return lock, folder

    async def _lock(self, registry: Registry[LockT], shelf: Shelf, ask: Ask, given: str | None, say: Progress) -> LockT:
        """The lock that was given, or remembered, or is resolved now and remembered."""
        if given is not None:
            lock = registry.read(given)
            lock.require(ask.specs)
            return lock
        name = registry.pin_name(ask)
        remembered = _remembered(registry, shelf.pin(name))
        if remembered is not None:
            return remembered
        shelf.prepare()
        async with shelf.locked(f"pin-{name}"):
            remembered = _remembered(registry, shelf.pin(name))
            if remembered is not None:
                return remembered
            say(f"resolving {ask.title} …")
            async with self._slots, shelf.scratch(f"pin-{name}") as folder:
                lock = await registry.resolve(ask.specs, ask.title, folder)
            shelf.put_pin(name, msgspec.json.encode(_Pin(ask.title, lock.text)))
            return lock


def _remembered(registry: Registry[LockT], content: bytes | None) -> LockT | None:
    if content is None:
        return None
    try:
        return registry.read(msgspec.json.decode(content, type=_Pin).lock)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Invalid) as error:
        log.error("pin_damaged", why=str(error))  # it is resolved anew
        return None
