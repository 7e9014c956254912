"""The package store's folders, and the laws that keep them whole.

    <root>/npm/<key>/                      one install, read-only; that it exists means it is complete
    <root>/npm/<key>.tmp-<pid>-<random>/   one being made; renamed to <key> as its last step
    <root>/npm/pins/<sha>.json             what a spec was resolved to the first time: the same for ever
    <root>/npm/cache/                      npm's own cache            (and all the same under pypi/)
    <root>/locks/<name>.lock               held (flock) by whoever makes <name>; never removed
    <root>/locks/<name>.used               held (flock, shared) by every engine that has started from the install <name>
    <root>/home/                           HOME of npm and uv

- Nothing is used before its rename, so a killed install leaves only a `.tmp-` folder, removed by the next holder of its lock.
- An install or a pin is as old as its last use, which is the time of its folder or file. One that an engine has started from is
  not removed while that engine lives, however old it is; what is removed is out of use, by its name, before it is gone.
- The lock goes with the file descriptor: it ends with its process, whatever happens. It is polled, so the event loop never waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from rootlink.errors import Unavailable

log = structlog.get_logger(__name__)

_POLL_SECS = 0.1
_KEY = re.compile(r"[0-9a-f]{64}\Z")


def digest(*parts: str) -> str:
    """64 hex digits over the parts, told apart from one another."""
    hashed = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        hashed.update(len(raw).to_bytes(8, "big") + raw)
    return hashed.hexdigest()


class Shelf:
    """One registry's part of the store. Methods do file I/O of a few calls; those that walk trees run in a thread."""

    def __init__(self, root: Path, registry: str) -> None:
        self.folder = root / registry
        self.cache = self.folder / "cache"
        self.home = root / "home"
        self._pins = self.folder / "pins"
        self._locks = root / "locks"
        self._registry = registry
        self._swept = False
        self._held: dict[str, int] = {}

    def prepare(self) -> None:
        """Raises Unavailable. An engine behind a door has the folder it was started with, and not one made in its place."""
        try:
            for folder in (self.folder, self.cache, self.home, self._pins, self._locks):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            words = f"the package store {self.home.parent} can't be written to: {error.strerror}"
            raise Unavailable(f"{words}; if its folder was removed, restart the engine: rootlink engine restart") from None

    def install(self, key: str) -> Path | None:
        """The folder of a complete install, or None."""
        folder = self.folder / key
        return folder if folder.is_dir() else None

    def use(self, key: str) -> Path | None:
        """As `install`, of one that will be started from: it stays until `close`, whoever sweeps."""
        if key not in self._held and self._locks.is_dir():
            file = self._used_file(key)
            if not _take(file, fcntl.LOCK_SH):  # it is just being removed
                os.close(file)
                return None
            self._held[key] = file
        folder = self.install(key)
        if folder is not None:
            _touch(folder)
        return folder

    def close(self) -> None:
        """Nothing is started from here any more."""
        held, self._held = self._held, {}
        for file in held.values():
            os.close(file)

    def discard_installs(self, keep: Collection[str], before: float) -> list[str]:
        """Removes installs that are not in `keep`, were last used `before` (Unix seconds), and that nobody has started from or
        is making; their keys. Blocking."""
        old = [found.name for found in self.folder.glob("*") if _KEY.match(found.name) and _age(found) < before]
        return [key for key in sorted(old) if key not in keep and self._discard(key)]

    def discard_pins(self, keep: Collection[str], before: float) -> list[str]:
        """The same of pins; their names."""
        old = [found.stem for found in self._pins.glob("*.json") if _age(found) < before and found.stem not in keep]
        for name in old:
            self._pin(name).unlink(missing_ok=True)
        return sorted(old)

    def _discard(self, key: str) -> bool:
        used, making = self._used_file(key), self._lock_file(key)
        try:
            if not _take(used) or not _take(making):
                return False
            gone = self.folder / f"{key}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
            (self.folder / key).rename(gone)
            remove_tree(gone)
            return True
        except FileNotFoundError:  # another engine was quicker
            return False
        finally:
            os.close(making)
            os.close(used)

    def pin(self, name: str) -> bytes | None:
        try:
            content = self._pin(name).read_bytes()
        except FileNotFoundError:
            return None
        _touch(self._pin(name))
        return content

    def put_pin(self, name: str, content: bytes) -> None:
        path = self._pin(name)
        draft = path.with_suffix(f".{os.getpid()}-{secrets.token_hex(4)}")
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)

    @asynccontextmanager
    async def draft(self, key: str) -> AsyncIterator[Path]:
        """A fresh folder that becomes the install `key` when the block ends, or goes away when it fails. Hold `locked(key)`."""
        await asyncio.to_thread(self._sweep, key)
        folder = self._fresh(key)
        try:
            yield folder
            await asyncio.to_thread(_make_readonly, folder)
            folder.rename(self.folder / key)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(remove_tree, folder))
            raise

    @asynccontextmanager
    async def scratch(self, name: str) -> AsyncIterator[Path]:
        """A folder for the length of the block. Hold `locked(name)`."""
        folder = self._fresh(name)
        try:
            yield folder
        finally:
            await asyncio.shield(asyncio.to_thread(remove_tree, folder))

    @asynccontextmanager
    async def locked(self, name: str, waiting: Callable[[], None] | None = None) -> AsyncIterator[None]:
        """Alone with `name` among all tasks and processes. `waiting` is called once if another has it."""
        file = self._lock_file(name)
        try:
            while not _take(file):
                if waiting is not None:
                    waiting()
                    waiting = None
                await asyncio.sleep(_POLL_SECS)
            yield
        finally:
            os.close(file)

    def sweep_once(self) -> None:
        """Removes what killed installs left, of every key nobody is working on. Once per process."""
        if self._swept:
            return
        self._swept = True
        for key in {folder.name.partition(".tmp-")[0] for folder in self.folder.glob("*.tmp-*")}:
            file = self._lock_file(key)
            try:
                if _take(file):
                    self._sweep(key)
            finally:
                os.close(file)

    def _fresh(self, name: str) -> Path:
        folder = self.folder / f"{name}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        return folder

    def _sweep(self, key: str) -> None:
        """With the lock of `key` held, nobody is at work in its folders any more, whatever their pid says."""
        for folder in self.folder.glob(f"{key}.tmp-*"):
            log.info("install_left_over_removed", folder=folder.name)
            remove_tree(folder)

    def _lock_file(self, name: str) -> int:
        return os.open(self._locks / f"{self._registry}-{name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def _used_file(self, key: str) -> int:
        return os.open(self._locks / f"{self._registry}-{key}.used", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def _pin(self, name: str) -> Path:
        return self._pins / f"{name}.json"


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):  # a store that can only be read is never swept either
        os.utime(path)


def _age(path: Path) -> float:
    """When it was last used; now, of what is gone already."""
    try:
        return path.stat().st_mtime
    except OSError:
        return math.inf


def _take(file: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_readonly(folder: Path) -> None:
    """Takes the write bits off a tree; links are left alone, since what they point to may be outside."""
    for place, _, files in os.walk(folder):
        for path in [Path(place), *(Path(place, name) for name in files)]:
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode):
                path.chmod(stat.S_IMODE(mode) & ~0o222)


def remove_tree(folder: Path) -> None:
    """Removes a tree, read-only or not; a tree that is gone already is fine."""
    with contextlib.suppress(FileNotFoundError):
        for place, _, _ in os.walk(folder):
            Path(place).chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)
