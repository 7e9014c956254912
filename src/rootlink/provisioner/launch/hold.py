"""A lock file that also says who holds it: how a program that is alone in its folder is found when its record is lost.

Rule 1. The kernel is believed, the file only asked. The lock (flock(2)) ends with its holder, however that ends, so a file that
        nobody holds tells nothing. Whom the file names is the holder only if the kernel says that this process has the file open,
        or has the lock.
Rule 2. The file is never removed: two programs could then hold two files of one name.

A holder in a pid namespace of its own writes a number that means nothing outside: it is found by its lock, which the kernel tells
with the number that the asker knows it by.

Who has a file open is in `/proc/<pid>/fd`, which the programs that hold secrets keep closed to other processes of their user
(`programs/prctl.py: seal_memory`); who has which lock is in `/proc/locks`, open to all (proc(5)). Elsewhere than Linux neither
is, and pid and moment of start in a file that is really held must do. Kept light: `up` and `down` import this.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

import msgspec

from rootlink.errors import Conflict
from rootlink.provisioner.launch import identity
from rootlink.provisioner.launch.identity import Identity

_BETWEEN = 0.01  # seconds between two tries


def take(path: Path, words: str, *, within: float = 0.0) -> int:
    """Hold `path` and write there who does; the file descriptor whose end is the lock's. Raises Conflict with `words`, OSError.

    `within` seconds are given to an earlier holder that is just ending.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + within
    while not _locked(descriptor, fcntl.LOCK_EX):
        if time.monotonic() >= deadline:
            os.close(descriptor)
            raise Conflict(words)
        time.sleep(_BETWEEN)
    with contextlib.suppress(OSError):  # a full disk: the kernel knows the holder anyway
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(identity.identify(os.getpid())), 0)
    return descriptor


def held(path: Path) -> bool:
    """Whether some process holds it now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _locked(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def holder(path: Path) -> Identity | None:
    """The process that holds it; None when nobody does, or it can't be told who."""
    if not held(path):
        return None
    lockers = _lockers(path.stat().st_ino)
    certain = [pid for pid in lockers if _has_open(pid, path)]
    if len(certain) == 1:  # the file is not even asked: who holds it in a namespace of its own can't be trusted with what it says
        return identity.identify(certain[0])
    named = _named(path)
    if named is not None and identity.alive(named) and _may_be(named.pid, path):
        return named
    known = [pid for pid in lockers if _has_open(pid, path) is not False]
    known = known or [pid for pid in _lockers() if _has_open(pid, path)]  # where the inode's number is not that of stat(2)
    return identity.identify(known[0]) if len(known) == 1 else None  # more: one inode number on several file systems


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _named(path: Path) -> Identity | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _may_be(pid: int, path: Path) -> bool:
    """Whether the kernel bears out what the file says. Of a process with closed memory it tells only that it holds some lock: the
    inode's number is not always that of stat(2) (overlay file systems)."""
    opened = _has_open(pid, path)
    return opened if opened is not None else not identity.LINUX or pid in _lockers()


def _has_open(pid: int, path: Path) -> bool | None:
    """None: this process may not know."""
    try:
        wanted = os.stat(path)  # noqa: PTH116
        for entry in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{entry}"), wanted):  # noqa: PTH116
                    return True
    except OSError:
        return None
    return False


def _lockers(inode: int | None = None) -> list[int]:
    """Processes of this user that took a whole-file lock, on a file of this number if given, as `/proc/locks` has them."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    found = []
    for fields in (line.split() for line in lines):
        # 1: FLOCK  ADVISORY  WRITE 1234 fe:00:2172516 0 EOF
        if len(fields) < 6 or fields[1:4] != ["FLOCK", "ADVISORY", "WRITE"] or not fields[4].isdigit():
            continue
        if inode in (None, int(fields[5].rpartition(":")[2])) and _ours(int(fields[4])):
            found.append(int(fields[4]))
    return found


def _ours(pid: int) -> bool:
    """What runs under another user is not ours to end. (Of a process with a closed memory, `/proc/<pid>` belongs to root.)"""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("Uid:"):
                return line.split()[1] == str(os.getuid())
    except OSError:
        pass
    return False
