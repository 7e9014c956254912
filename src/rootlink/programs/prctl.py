"""What a process asks of the kernel about itself: die with its parent, adopt orphans, keep others out of its memory, more files.

What only Linux has answers False elsewhere and changes nothing. Source: prctl(2), setrlimit(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

MOST_FILES = 65_536

_PDEATHSIG, _DUMPABLE, _CHILD_SUBREAPER = 1, 4, 36


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0)


def die_with_parent(parent: int) -> bool:
    """Get SIGTERM when `parent` ends. It must have started us from its main thread: the kernel means the thread, not the process.

    Ends this process at once when `parent` was gone before we asked.
    """
    asked = _prctl(_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(0)
    return asked


def adopt_orphans() -> bool:
    """Descendants whose parent ends become our children instead of init's, so that none gets away unseen."""
    return _prctl(_CHILD_SUBREAPER, 1)


def seal_memory() -> bool:
    """No core file ever, and no other process of this user may read our memory, environment or open files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return _prctl(_DUMPABLE, 0)


def raise_file_limit(most: int = MOST_FILES) -> int:
    """As many open files as the system lets us have, up to `most`; the usual 1024 are used up by a few hundred clients.

    The limit in force from now on. It is never lowered, and children inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return most
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)
