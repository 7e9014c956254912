"""What the tests of mounts stand on: real children, real sockets, a resolver that installs nothing, a clock that stands still."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil

from rootlink.engine.mounts.mount import Mount
from rootlink.engine.packages.starts import Start
from rootlink.wire.mounts import MountSpec
from tests.harness.node import NODE

SERVERS = Path(__file__).resolve().parents[1] / "fixtures" / "servers"
COMMANDS = {"python": sys.executable, "node": NODE}


class Installed:
    """Packages, with everything installed already."""

    async def resolve(self, command: str, args: list[str], *, lock: str | None, progress: Callable[[str], None] | None) -> Start:
        return Start([COMMANDS.get(command, command), *args])


class StillClock:
    """Time that passes only by `pass_by`. `asked` are the sleeps so far."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self.asked: list[float] = []

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now + seconds, waker))
        await waker

    def pass_by(self, seconds: float) -> None:
        self._now += seconds
        for until, waker in self._sleepers:
            if until <= self._now and not waker.done():
                waker.set_result(None)
        self._sleepers = [(until, waker) for until, waker in self._sleepers if not waker.done()]


def plain(name: str = "plain", *args: str, **members: Any) -> MountSpec:
    return MountSpec(name=name, transport="stdio", command="python", args=["-S", str(SERVERS / "plain.py"), *args], **members)


def hostile(mode: str, mark: str = "", **members: Any) -> MountSpec:
    argv = ["-S", str(SERVERS / "hostile.py"), mode, mark or "unmarked"]
    return MountSpec(name=members.pop("name", "hostile"), transport="stdio", command="python", args=argv, **members)


async def call(mount: Mount, tool: str, /, timeout: float = 10, **arguments: Any) -> Any:
    """The text of a tool's result."""
    raw = await mount.request("tools/call", {"name": tool, "arguments": arguments}, timeout=timeout)
    return msgspec.json.decode(raw)["content"][0]["text"]


async def until(holds: Callable[[], Any], words: str, seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {words}"
        await asyncio.sleep(0.01)
    return found


async def until_async(holds: Callable[[], Awaitable[Any]], words: str, seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := await holds()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {words}"
        await asyncio.sleep(0.02)
    return found


def marked(mark: str) -> list[int]:
    """Living processes with `mark` in their command line."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        if mark in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.info["pid"])
    return found


def tree() -> set[int]:
    """Every process below this one, the dead that were not waited for included."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


@contextlib.asynccontextmanager
async def stalls() -> AsyncIterator[list[float]]:
    """CPU seconds the loop's thread worked while a 5 ms timer waited: other work on the machine is no stall of ours, nor is
    collecting what thousands of tests before have left in this process."""
    found: list[float] = [0.0]
    gc.collect()
    gc.freeze()

    async def watch() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.005)
            found.append(time.thread_time() - began)

    task = asyncio.create_task(watch())
    try:
        yield found
    finally:
        gc.unfreeze()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def served(script: str, *args: str) -> AsyncIterator[int]:
    """A fixture server in a process of its own; the port it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVERS / script), *args, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = int(await asyncio.wait_for(process.stdout.readline(), 30))
        yield port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
