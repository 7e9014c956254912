"""What a test may ask of worker processes from outside: which one it is, its threads, its memory."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import psutil

from rootlink.engine.functions.host import FunctionHost
from rootlink.engine.functions.processes import Worker
from tests.functions.ground import processes

SETTLE_SECS = 5.0


def pid_of(worker: Worker) -> int:
    """By its pidfd."""
    info = Path(f"/proc/self/fdinfo/{worker._pidfd}").read_text()
    found = re.search(r"^Pid:\s*(\d+)$", info, re.MULTILINE)
    assert found is not None
    return int(found[1])


def worker_of(host: FunctionHost) -> Worker:
    """The one that runs all functions but suspects."""
    return host._pool._lanes[0]


def the_worker() -> psutil.Process:
    """The one with most threads: a spare one has but its spare isolates."""
    return max(processes()[1:], key=lambda process: process.num_threads())


def memory(process: psutil.Process) -> int:
    """Bytes; a part of them, always the same, it shares with its zygote."""
    return int(process.memory_info().rss)


async def settled_threads(process: psutil.Process, wanted: int = 0) -> int:
    """How many it has once that has not changed for a while, or once it is what is wanted."""
    until, last, since = time.monotonic() + SETTLE_SECS, -1, 0.0
    while time.monotonic() < until:
        now = process.num_threads()
        if now != last:
            last, since = now, time.monotonic()
        if time.monotonic() - since > (0.1 if now <= wanted else 0.5):
            break
        await asyncio.sleep(0.02)
    return last
