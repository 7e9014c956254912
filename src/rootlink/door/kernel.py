"""The system calls Python 3.11 has no name for. Numbers: Linux include/uapi/linux/{sched,prctl}.h."""

from __future__ import annotations

import ctypes
import os
import signal

NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


def unshare(namespaces: int) -> None:
    """Raises OSError."""
    _checked(_libc.unshare(namespaces), "unshare")


def setns(fd: int, namespaces: int) -> None:
    """`fd`: a namespace's, or a pidfd. Raises OSError."""
    _checked(_libc.setns(fd, namespaces), "setns")


def die_with_parent(parent: int) -> None:
    """KILL for this process as soon as the thread that forked it ends. To be said again after `unshare` or an exec that changes
    credentials. Ends this process when `parent` is gone already."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Descendants whose parent ended become children of this process, to be waited for. Raises OSError."""
    _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def _checked(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
