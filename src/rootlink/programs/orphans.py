"""Reaping in a program that adopts orphans and also starts processes of its own.

The kernel does not tell an orphan that ended from a child of ours that ended: both are zombies, and collecting one that is ours
takes its exit code from whoever waits for it. But whoever waits, waits for SIGCHLD, and so looks in the same turn of the loop.
So: a zombie that is still there at the next look has nobody, and is collected.

While nothing has ended, a look is one system call: waitid(2) with WNOWAIT tells of a zombie and leaves it as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from rootlink.provisioner.launch.identity import Family

EVERY = 0.5  # seconds; an orphan that ended is gone after two looks


async def reap_forgotten(every: float = EVERY) -> None:
    """For ever."""
    before: set[int] = set()
    while True:
        await asyncio.sleep(every)
        ended = set(Family().ended(os.getpid())) if _somebody_ended() else set()
        for pid in ended & before:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222  it does not wait
        before = ended


def _somebody_ended() -> bool:
    if not hasattr(os, "waitid"):  # macOS: it has no subreapers either, so no orphan comes to us
        return False
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False
