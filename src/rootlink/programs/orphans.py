"""Reaping in a program that adopts orphans and also starts processes of its own.

The kernel does not tell an orphan that ended from a child of ours that ended: both are zombies, and collecting one that is ours
takes its exit code from whoever waits for it. But whoever waits, looks soon. So: a zombie that is still there at the next look
has nobody, and is collected.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from rootlink.provisioner.launch.identity import Family

EVERY = 60.0  # seconds


async def reap_forgotten(every: float = EVERY) -> None:
    """For ever."""
    before: set[int] = set()
    while True:
        await asyncio.sleep(every)
        ended = set(Family().ended(os.getpid()))
        for pid in ended & before:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222  it does not wait
        before = ended
