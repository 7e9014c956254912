"""Which process a number means. A pid alone is reused; a pid together with the moment it started is not.

Rule 1. Nothing here signals a process before it has checked that it is the one that was recorded.
Rule 2. A zombie has ended: it holds nothing any more, only its parent has not looked yet.

The moment is `<boot id>:<clock ticks since boot>` on Linux (proc(5), field 22 of stat), which no change of the clock moves;
elsewhere psutil's time of creation. Kept light: `up` imports this and little else.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

LINUX = sys.platform == "linux"


class Identity(msgspec.Struct, frozen=True):
    pid: int
    start: str


@functools.cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]


def _linux_stat(pid: int) -> tuple[str, int, str] | None:
    """(state, parent, start)"""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before may hold anything, ")" too
    return fields[0], int(fields[1]), f"{_boot()}:{fields[19]}"


def _other_stat(pid: int) -> tuple[str, int, str] | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return ("Z" if process.status() == psutil.STATUS_ZOMBIE else "R"), process.ppid(), str(process.create_time())
    except psutil.Error:
        return None


_stat: Callable[[int], tuple[str, int, str] | None] = _linux_stat if LINUX else _other_stat


def identify(pid: int) -> Identity | None:
    """The process that has this pid now; None when none has, or it has ended."""
    found = _stat(pid) if pid > 0 else None
    return Identity(pid, found[2]) if found and found[0] not in "ZX" else None


def parent(process: Identity) -> Identity | None:
    """None when it has ended."""
    found = _stat(process.pid)
    return identify(found[1]) if found and found[2] == process.start else None


def alive(process: Identity) -> bool:
    return identify(process.pid) == process


def send(process: Identity, number: signal.Signals) -> bool:
    """Signal this process and no other. False when it has ended."""
    if not LINUX:
        return alive(process) and _kill(process.pid, number)
    try:
        handle = os.pidfd_open(process.pid)  # from here on the number can't come to mean another process
    except OSError:
        return False
    try:
        if not alive(process):
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def _kill(pid: int, number: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


class Family:
    """Who is whose child, at one moment: one look at all processes, for any number of questions."""

    def __init__(self) -> None:
        self._children: dict[int, list[int]] = {}
        for pid, parent in _parents():
            self._children.setdefault(parent, []).append(pid)

    def children(self, pid: int) -> list[Identity]:
        """Those that have not ended."""
        return [one for child in self._children.get(pid, []) if (one := identify(child)) is not None]

    def ended(self, pid: int) -> list[int]:
        """Children that have, and wait to be reaped."""
        return [child for child in self._children.get(pid, []) if identify(child) is None]

    def below(self, process: Identity) -> list[Identity]:
        """All below it, parents before children; none when it has ended."""
        found: list[Identity] = []
        front = self.children(process.pid) if alive(process) else []
        while front:
            found += front
            front = [child for parent in front for child in self.children(parent.pid)]
        return found


def descendants(process: Identity) -> list[Identity]:
    return Family().below(process)


def _parents() -> Iterable[tuple[int, int]]:
    if LINUX:
        pids = (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208  a third of the time
        return [(pid, found[1]) for pid in pids if (found := _linux_stat(pid)) is not None]
    import psutil

    return [(process.pid, process.ppid()) for process in psutil.process_iter()]


def reap(family: Family, known: Iterable[int] = ()) -> None:
    """Collect our ended children, other than `known` (those belong to someone who waits for them)."""
    for pid in set(family.ended(os.getpid())) - set(known):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def end(processes: Iterable[Identity], *, term: float, kill: float = 2.0) -> list[Identity]:
    """TERM, then KILL after `term` seconds (at once for 0); those that are still there `kill` seconds later. Blocks."""
    left = list(processes)
    for number, patience in ((signal.SIGTERM, term), (signal.SIGKILL, kill)):
        if patience <= 0 and number == signal.SIGTERM:
            continue
        left = [process for process in left if send(process, number)]
        deadline = time.monotonic() + patience
        while left and time.monotonic() < deadline:
            time.sleep(0.01)
            left = [process for process in left if alive(process)]
    return left
