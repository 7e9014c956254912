"""The engine program: everything one project holds. Wiring only; what it is to be comes on standard input (`wire/engine.py`).

An engine is alone on its state folder, and holds `engine.lock` there to say so: a second one refuses to start, and whoever lost
the first one's record finds it by that lock (`provisioner/launch/hold.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import uvloop

from rootlink.engine.app import serve
from rootlink.engine.state import damaged
from rootlink.errors import Invalid, RootlinkError, Unavailable
from rootlink.programs import logs, prctl
from rootlink.programs.orphans import reap_forgotten
from rootlink.programs.settings import Settings
from rootlink.provisioner.launch import hold
from rootlink.redaction import Redactor
from rootlink.wire.engine import EngineConfig

Known = TypeVar("Known", bound=BaseException)
LOCK = "engine.lock"  # as `provisioner/layout.py` has it
PREDECESSOR_SECS = 2.0  # that an engine which is just ending has to let go of the lock


def main(settings: Settings) -> int:
    """Serve until stopped. Raises Invalid when standard input holds no configuration, Conflict when this project has an engine
    already, Unavailable when its state can't be used."""
    prctl.seal_memory()
    prctl.adopt_orphans()
    prctl.raise_file_limit()
    config = _config(sys.stdin.buffer.read())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # no child inherits the pipe our secrets came through
    os.close(nothing)
    redactor = Redactor([*config.secrets.values(), config.key])
    logs.set_up("engine", settings.log_level, redactor)
    with _alone(Path(config.state_dir)), _in_words(Path(config.state_dir)):
        uvloop.run(_run(config, settings, redactor))
    return 0


@contextlib.contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    words = "another engine of this project runs already on the same state; end it with `rootlink down`, then start again"
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = hold.take(state_dir / LOCK, words, within=PREDECESSOR_SECS)
    except OSError as error:
        raise Unavailable(f"{state_dir / LOCK} can't be locked: {error.strerror}") from None
    try:
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _in_words(state_dir: Path) -> Iterator[None]:
    """What a task group gathered, as the one error of ours that is in it."""
    try:
        yield
    except BaseExceptionGroup as group:
        known = _first(group, RootlinkError)
        if known is not None:
            raise known from None
        broken = _first(group, sqlite3.DatabaseError)
        if broken is not None:
            raise damaged(state_dir / "state.db", broken) from None
        raise


def _first(group: BaseExceptionGroup[BaseException], kind: type[Known]) -> Known | None:
    for error in group.exceptions:
        found = _first(error, kind) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, kind):
            return found
    return None


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
