"""Giving up files for good (Landlock, Linux ≥ 5.13): after `restrict`, this process and what it starts open only what is listed.

The kernel knows allow-lists only, and a rule for a directory holds for all below it. So a listed directory that lies above the
one to be kept away is replaced by what is in it, but for the way there. What is created later beside that way is out of reach.

What a kernel can withhold (its "ABI"): opening, making, removing, listing since 1; truncating, which is destroying, since 3.
Moving and linking between folders (ABI 2's REFER) is never granted here, and the kernel refuses it to whom it is not granted.
What no version withholds, and so remains: stat, chmod, chown, utime and the like. They change who may read a file, not what is
in it, and give this process no way to read it. Their worst: a key opened to other users of the machine, with which the
provisioner refuses to start (`sealing/keyfile.py`), or one its own user can't read until he runs chmod.

Source: https://docs.kernel.org/userspace-api/landlock.html, linux/landlock.h; the numbers are the same on every architecture.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH, _NO_NEW_PRIVS = 1, 38
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))
_TRUNCATE, _TRUNCATE_ABI = 1 << 14, 3
_FILE = _WRITE_FILE | _READ_FILE | _TRUNCATE
READ = _READ_FILE | _READ_DIR
WRITE = READ | _WRITE_FILE | _REMOVE_AND_MAKE | _TRUNCATE


def restrict(rules: Iterable[tuple[Path, int]], *, away: Path) -> bool:
    """Only `rules` (a path and READ or WRITE) from here on, and never what is in `away`. False: this kernel can't.

    Call it before any thread is started: it holds for this one and those it starts.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    known = WRITE if abi() >= _TRUNCATE_ABI else WRITE & ~_TRUNCATE
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(ctypes.c_uint64(known)), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return False
    try:
        for path, access in rules:
            for part in _around(path.resolve(), away.resolve()):
                _allow(libc, ruleset, part, access & known)
        return bool(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def works() -> bool:
    """Whether this kernel has it."""
    return abi() > 0


def abi() -> int:
    """What this kernel's Landlock can do, as a number that grows; 0 or less: it has none."""
    version = ctypes.c_uint32(1)  # LANDLOCK_CREATE_RULESET_VERSION
    return int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), version)) if sys.platform == "linux" else 0


def _around(path: Path, away: Path) -> Iterator[Path]:
    if path == away or away in path.parents:
        return
    if path not in away.parents:
        yield path
        return
    with contextlib.suppress(OSError):
        for entry in path.iterdir():
            if not entry.is_symlink():  # what it leads to has a rule of its own, or has none on purpose
                yield from _around(entry, away)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, access: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no rule
    try:
        rights = access if path.is_dir() else access & _FILE
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, handle))
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(handle)
