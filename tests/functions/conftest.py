"""A stage for each test; it must leave no process behind."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rootlink.engine.functions.host import FunctionHost
from rootlink.engine.functions.isolates.frames import WorkerLimits
from tests.functions.ground import SECRETS, Stage, WayOut, open_db, processes


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    db = open_db(tmp_path / "state.db")
    yield db
    db.close()


@pytest.fixture
def limits() -> WorkerLimits:
    """Overridden where a test needs other ones."""
    return WorkerLimits(spares=2)


@pytest.fixture
async def stage(db: sqlite3.Connection, limits: WorkerLimits) -> AsyncIterator[Stage]:
    out = WayOut()
    host = FunctionHost(db, out, SECRETS, limits=limits)
    yield Stage(host, out, db)
    await host.close()
    assert processes() == []
