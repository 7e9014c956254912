"""The engine program: everything one project holds. Wiring only; what it is to be comes on standard input (`wire/engine.py`)."""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec
import uvloop

from rootlink.engine.app import serve
from rootlink.errors import Invalid
from rootlink.programs import logs, prctl
from rootlink.programs.orphans import reap_forgotten
from rootlink.programs.settings import Settings
from rootlink.redaction import Redactor
from rootlink.wire.engine import EngineConfig


def main(settings: Settings) -> int:
    """Serve until stopped. Raises Invalid when standard input holds no configuration."""
    prctl.seal_memory()
    prctl.adopt_orphans()
    config = _config(sys.stdin.buffer.read())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # no child inherits the pipe our secrets came through
    os.close(nothing)
    redactor = Redactor([*config.secrets.values(), config.key])
    logs.set_up("engine", settings.log_level, redactor)
    uvloop.run(_run(config, settings, redactor))
    return 0


async def _run(config: EngineConfig, settings: Settings, redactor: Redactor) -> None:
    reaping = asyncio.create_task(reap_forgotten())
    try:
        await serve(config, environ=settings.environ, redactor=redactor)
    finally:
        reaping.cancel()
        await asyncio.gather(reaping, return_exceptions=True)


def _config(text: bytes) -> EngineConfig:
    try:
        return msgspec.json.decode(text, type=EngineConfig)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # their words may quote what they read
        raise Invalid("standard input must hold an engine's configuration; engines are started by `rootlink up`") from None
