"""The gate program: what every door leads to. Wiring only."""

from __future__ import annotations

import asyncio
import signal

import uvloop

from rootlink.gate.app import serve
from rootlink.programs import logs, prctl
from rootlink.programs.record import Record, alone
from rootlink.programs.settings import Settings, runtime_dir


def main(settings: Settings) -> int:
    """Serve until SIGTERM. Raises Conflict when this home has a gate, Unavailable when it can't listen."""
    prctl.seal_memory()
    prctl.raise_file_limit()
    logs.set_up("gate", settings.log_level)
    settings.prepare()
    folder = runtime_dir(settings.home)
    doors = folder / "doors"
    doors.mkdir(mode=0o700, exist_ok=True)

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(folder / "gate.sock", doors / "doors.sock", stop)

    with alone(settings.run_dir / "gate.lock", "a gate of this home runs already"), Record(settings.run_dir / "gate.json").kept():
        uvloop.run(run())
    return 0
