"""What an engine keeps on disk, in its own folder: mounts, which connection each belongs to, and its clients' sessions.

One SQLite file, written from the engine's one thread. `sqlite3` and not SQLAlchemy: importing the latter takes 350 ms of an
engine's cold start, and these are four statements. WAL with synchronous=NORMAL: a killed process loses nothing, a killed
machine at most the last writes, which the reconciler brings back. Functions and their runs are other tables of the same file,
owned by `functions/`.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import msgspec

from rootlink.engine.mounts.listing import Catalogue
from rootlink.wire.mounts import MountSpec

SESSION_KEEP_SECS = 7 * 24 * 3600.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS mounts (
    ws TEXT NOT NULL, name TEXT NOT NULL, spec BLOB NOT NULL, connection TEXT,
    catalogue BLOB NOT NULL, PRIMARY KEY (ws, name));
CREATE TABLE IF NOT EXISTS connections (
    id TEXT PRIMARY KEY, ws TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, ws TEXT NOT NULL, principal TEXT NOT NULL, version TEXT NOT NULL, seen REAL NOT NULL);
"""


class ConnectionRow(msgspec.Struct, frozen=True):
    id: str
    ws: str
    name: str
    kind: str
    digest: str


class SessionRow(msgspec.Struct, frozen=True):
    id: str
    ws: str
    principal: str
    version: str


class State:
    """The engine's file. `db` is shared with `functions/`, which owns tables of its own in it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.executescript(_SCHEMA)
        path.chmod(0o600)

    def close(self) -> None:
        self.db.close()

    # mounts

    def mounts(self) -> list[tuple[str, MountSpec, str | None, Catalogue]]:
        """Workspace, spec, connection and the lists last known, in the order they were mounted in."""
        decode = msgspec.json.decode
        rows = self.db.execute("SELECT ws, spec, connection, catalogue FROM mounts ORDER BY rowid").fetchall()
        return [(ws, decode(spec, type=MountSpec), of, decode(lists, type=Catalogue)) for ws, spec, of, lists in rows]

    def put_mount(self, ws: str, spec: MountSpec, connection: str | None, catalogue: Catalogue) -> None:
        self.db.execute(
            "INSERT OR REPLACE INTO mounts (ws, name, spec, connection, catalogue) VALUES (?, ?, ?, ?, ?)",
            (ws, spec.name, msgspec.json.encode(spec), connection, msgspec.json.encode(catalogue)),
        )

    def put_catalogue(self, ws: str, name: str, catalogue: Catalogue) -> None:
        """Nothing happens when there is no such mount written down (it is being added)."""
        lists = msgspec.json.encode(catalogue)
        self.db.execute("UPDATE mounts SET catalogue = ? WHERE ws = ? AND name = ?", (lists, ws, name))

    def drop_mount(self, ws: str, name: str) -> None:
        self.db.execute("DELETE FROM mounts WHERE ws = ? AND name = ?", (ws, name))

    # connections

    def connections(self) -> list[ConnectionRow]:
        rows = self.db.execute("SELECT id, ws, name, kind, digest FROM connections ORDER BY rowid").fetchall()
        return [ConnectionRow(*row) for row in rows]

    def connection(self, id: str) -> ConnectionRow | None:
        row = self.db.execute("SELECT id, ws, name, kind, digest FROM connections WHERE id = ?", (id,)).fetchone()
        return None if row is None else ConnectionRow(*row)

    def put_connection(self, row: ConnectionRow) -> None:
        self.db.execute("INSERT OR REPLACE INTO connections VALUES (?, ?, ?, ?, ?)", msgspec.structs.astuple(row))

    def drop_connection(self, id: str) -> None:
        self.db.execute("DELETE FROM connections WHERE id = ?", (id,))

    # sessions

    def session(self, id: str) -> SessionRow | None:
        row = self.db.execute("SELECT id, ws, principal, version FROM sessions WHERE id = ?", (id,)).fetchone()
        return None if row is None else SessionRow(*row)

    def put_session(self, row: SessionRow) -> None:
        self.db.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)", (*msgspec.structs.astuple(row), time.time()))

    def drop_session(self, id: str) -> None:
        self.db.execute("DELETE FROM sessions WHERE id = ?", (id,))

    def forget_old_sessions(self) -> None:
        self.db.execute("DELETE FROM sessions WHERE seen < ?", (time.time() - SESSION_KEEP_SECS,))
