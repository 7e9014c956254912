"""What an engine keeps on disk, in its own folder: mounts, which connection each belongs to, what was agreed to of their tools,
its clients' sessions, and sealed grants that the vault has not taken yet.

One SQLite file, written from the engine's one thread. `sqlite3` and not SQLAlchemy: importing the latter takes 350 ms of an
engine's cold start, and these are four statements. WAL with synchronous=NORMAL: a killed process loses nothing, a killed
machine at most the last writes, which the reconciler brings back. Functions and their runs are other tables of the same file,
owned by `functions/`.

What the disk did to the file: a row that can't be read is skipped and logged, its neighbours stay (where it said what was agreed
to, nothing is agreed to any more); a file that can't be read is
refused at the start, since what an engine would write into it is lost.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from rootlink.engine.mounts.listing import Catalogue
from rootlink.engine.tools.control import Kept
from rootlink.engine.tools.guard import Owner
from rootlink.errors import RootlinkError, Unavailable
from rootlink.wire.mounts import MountSpec

log = structlog.get_logger(__name__)

CHECKED_BYTES = 32 * 1024 * 1024  # a file up to this size is read once at the start: 30 ms at most, and under 1 ms as a rule
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, AttributeError)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_WORDS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "another program keeps it locked",
    sqlite3.SQLITE_IOERR: "reading or writing the file failed",
    sqlite3.SQLITE_CANTOPEN: "the file can't be opened",
    sqlite3.SQLITE_READONLY: "the file can't be written",
    sqlite3.SQLITE_PERM: "the file's permissions forbid it",
}
SESSION_KEEP_SECS = 7 * 24 * 3600.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS mounts (
    ws TEXT NOT NULL, name TEXT NOT NULL, spec BLOB NOT NULL, connection TEXT,
    catalogue BLOB NOT NULL, PRIMARY KEY (ws, name));
CREATE TABLE IF NOT EXISTS connections (
    id TEXT PRIMARY KEY, ws TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, ws TEXT NOT NULL, principal TEXT NOT NULL, version TEXT NOT NULL, seen REAL NOT NULL,
    client BLOB NOT NULL DEFAULT '{}');
CREATE TABLE IF NOT EXISTS tools (
    ws TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, kept BLOB NOT NULL, PRIMARY KEY (ws, kind, name));
CREATE TABLE IF NOT EXISTS grants (
    id TEXT PRIMARY KEY, connection TEXT NOT NULL, secret TEXT NOT NULL, key_id TEXT NOT NULL, ciphertext BLOB NOT NULL);
"""
_ADDED = {"sessions": {"client": "BLOB NOT NULL DEFAULT '{}'"}}  # columns a file of an older engine may lack

# Texts are asked for as bytes: sqlite3 gives up on a whole answer for one text that is none.
_MOUNTS = """
SELECT CAST(ws AS BLOB), CAST(spec AS BLOB), CAST(connection AS BLOB), CAST(catalogue AS BLOB), CAST(name AS BLOB)
FROM mounts ORDER BY rowid
"""
_CONNECTIONS = """
SELECT CAST(id AS BLOB), CAST(ws AS BLOB), CAST(name AS BLOB), CAST(kind AS BLOB), CAST(digest AS BLOB) FROM connections
"""
_GRANTS = """
SELECT CAST(id AS BLOB), CAST(connection AS BLOB), CAST(secret AS BLOB), CAST(key_id AS BLOB), ciphertext
FROM grants ORDER BY rowid
"""
_SESSION = """
SELECT CAST(id AS BLOB), CAST(ws AS BLOB), CAST(principal AS BLOB), CAST(version AS BLOB), CAST(client AS BLOB)
FROM sessions WHERE id = ?
"""


class GrantRow(msgspec.Struct, frozen=True):
    """A sign-in's tokens, sealed: for the provisioner, which has not said yet that it has them."""

    id: str
    connection: str
    secret: str
    key_id: str
    ciphertext: bytes


class ConnectionRow(msgspec.Struct, frozen=True):
    id: str
    ws: str
    name: str
    kind: str
    digest: str


class SessionRow(msgspec.Struct, frozen=True):
    """`info` and `capabilities` are the client's own words; `level` is the log level it asked for, if any. What follows `version`
    is one column, `client`, as JSON."""

    id: str
    ws: str
    principal: str
    version: str
    info: dict[str, Any] = {}
    capabilities: dict[str, Any] = {}
    level: str | None = None
    subscriptions: tuple[str, ...] = ()


class _Client(msgspec.Struct, omit_defaults=True):
    """The column `sessions.client`."""

    info: dict[str, Any] = {}
    capabilities: dict[str, Any] = {}
    level: str | None = None
    subscriptions: tuple[str, ...] = ()


def damaged(path: Path, error: sqlite3.DatabaseError) -> RootlinkError:
    """What is wrong with the engine's file, and what to do; for clients too, so it quotes nothing of it."""
    words = _WORDS.get(_code(error))
    if words is not None:
        return Unavailable(f"the engine's state {path} can't be used: {words}")
    return Unavailable(
        f"the engine's state {path} is damaged. Move it away, together with {path.name}-wal and {path.name}-shm: the next call "
        "then starts with an empty one; connections are brought back by themselves, servers and functions installed by hand are "
        "lost and must be installed again"
    )


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF  # the low byte is the primary code, the rest says more


Row = TypeVar("Row", ConnectionRow, SessionRow)


class State:
    """The engine's file. `db` is shared with `functions/`, which owns tables of its own in it. Raises Unavailable, at first and
    later, when the file is damaged or the disk says no."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.db = sqlite3.connect(path, isolation_level=None)
        except OSError as error:
            raise Unavailable(f"the engine's state {path} can't be used: {error.strerror}") from None
        except sqlite3.DatabaseError as error:
            raise damaged(path, error) from None
        try:
            self._open()
        except BaseException:
            self.db.close()
            raise

    def _open(self) -> None:
        self._ask("PRAGMA journal_mode=WAL")
        self._ask("PRAGMA synchronous=NORMAL")
        for statement in filter(str.strip, _SCHEMA.split(";")):
            self._ask(statement)
        for table, columns in _ADDED.items():
            self._add_missing(table, columns)
        self._path.chmod(0o600)
        if self._path.stat().st_size <= CHECKED_BYTES and self._ask("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise damaged(self._path, sqlite3.DatabaseError())

    def _add_missing(self, table: str, columns: dict[str, str]) -> None:
        there = {row[1] for row in self._ask(f"PRAGMA table_info({table})")}
        for column, kind in columns.items():
            if column not in there:
                self._ask(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")

    def close(self) -> None:
        self.db.close()

    def _ask(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            return self.db.execute(statement, values)
        except sqlite3.DatabaseError as error:
            raise self._in_words(error) from error

    def _rows(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[bytes | None, ...]]:
        try:
            return self.db.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._in_words(error) from error

    def _in_words(self, error: sqlite3.DatabaseError) -> Exception:
        known = _code(error) in _DAMAGED or _code(error) in _WORDS
        return damaged(self._path, error) if known else error

    # mounts

    def mounts(self) -> list[tuple[str, MountSpec, str | None, Catalogue]]:
        """Workspace, spec, connection and the lists last known, in the order they were mounted in. One that can't be read is
        skipped: a connection's is put back by its reconciler, one that was installed by hand must be installed again."""
        found = []
        for row in self._rows(_MOUNTS):
            try:
                found.append(_mount(*row[:4]))
            except _UNREADABLE as error:
                name = (row[4] or b"?").decode(errors="replace")
                log.error("mount skipped: its row can't be read", mount=name, why=type(error).__name__, state=str(self._path))
        return found

    def put_mount(self, ws: str, spec: MountSpec, connection: str | None, catalogue: Catalogue) -> None:
        self._ask(
            "INSERT OR REPLACE INTO mounts (ws, name, spec, connection, catalogue) VALUES (?, ?, ?, ?, ?)",
            (ws, spec.name, msgspec.json.encode(spec), connection, msgspec.json.encode(catalogue)),
        )

    def put_catalogue(self, ws: str, name: str, catalogue: Catalogue) -> None:
        """Nothing happens when there is no such mount written down (it is being added)."""
        lists = msgspec.json.encode(catalogue)
        self._ask("UPDATE mounts SET catalogue = ? WHERE ws = ? AND name = ?", (lists, ws, name))

    def drop_mount(self, ws: str, name: str) -> None:
        self._ask("DELETE FROM mounts WHERE ws = ? AND name = ?", (ws, name))

    # what was decided about their tools

    def kept(self, owner: Owner) -> Kept:
        """What was agreed to; nothing yet, when there is no row (an older engine's file). One that can't be read says so."""
        rows = self._rows("SELECT kept FROM tools WHERE ws = ? AND kind = ? AND name = ?", owner)
        if not rows:
            return Kept()
        try:
            return msgspec.json.decode(rows[0][0] or b"", type=Kept)
        except _UNREADABLE as error:
            log.error("tools are held back: what was agreed to can't be read", owner=owner.name, why=type(error).__name__)
            return Kept(agreed=True, lost=True)

    def put_kept(self, owner: Owner, kept: Kept) -> None:
        self._ask("INSERT OR REPLACE INTO tools (ws, kind, name, kept) VALUES (?, ?, ?, ?)", (*owner, msgspec.json.encode(kept)))

    def drop_kept(self, owner: Owner) -> None:
        self._ask("DELETE FROM tools WHERE ws = ? AND kind = ? AND name = ?", owner)

    # connections

    def connections(self) -> list[ConnectionRow]:
        rows = self._rows(f"{_CONNECTIONS} ORDER BY rowid")
        return [found for row in rows if (found := self._texts(row, ConnectionRow)) is not None]

    def connection(self, id: str) -> ConnectionRow | None:
        rows = self._rows(f"{_CONNECTIONS} WHERE id = ?", (id,))
        return self._texts(rows[0], ConnectionRow) if rows else None

    def put_connection(self, row: ConnectionRow) -> None:
        self._ask("INSERT OR REPLACE INTO connections VALUES (?, ?, ?, ?, ?)", msgspec.structs.astuple(row))

    def drop_connection(self, id: str) -> None:
        self._ask("DELETE FROM connections WHERE id = ?", (id,))

    # grants on their way to the vault

    def grants(self) -> list[GrantRow]:
        """Oldest first, one a secret."""
        found = []
        for row in self._rows(_GRANTS):
            try:
                id, connection, secret, key_id = ((column or b"").decode() for column in row[:4])
            except UnicodeDecodeError as error:
                log.error("row skipped: it can't be read", kind="GrantRow", why=type(error).__name__, state=str(self._path))
                continue
            found.append(GrantRow(id, connection, secret, key_id, row[4] or b""))
        return found

    def put_grant(self, connection: str, secret: str, ciphertext: bytes, key_id: str) -> None:
        """In place of an older one for the same secret."""
        self._ask("BEGIN IMMEDIATE")
        try:
            self._ask("DELETE FROM grants WHERE secret = ?", (secret,))
            values = (secrets.token_hex(16), connection, secret, key_id, ciphertext)
            self._ask("INSERT INTO grants (id, connection, secret, key_id, ciphertext) VALUES (?, ?, ?, ?, ?)", values)
        except BaseException:
            self._ask("ROLLBACK")
            raise
        self._ask("COMMIT")

    def drop_grants(self, ids: Iterable[str]) -> None:
        for id in ids:
            self._ask("DELETE FROM grants WHERE id = ?", (id,))

    # sessions

    def session(self, id: str) -> SessionRow | None:
        """None also for one that can't be read: its client makes a new one."""
        rows = self._rows(_SESSION, (id,))
        return self._texts(rows[0], _session) if rows else None

    def put_session(self, row: SessionRow) -> None:
        client = msgspec.json.encode(_Client(row.info, row.capabilities, row.level, row.subscriptions))
        self._ask(
            "INSERT OR REPLACE INTO sessions (id, ws, principal, version, seen, client) VALUES (?, ?, ?, ?, ?, ?)",
            (row.id, row.ws, row.principal, row.version, time.time(), client),
        )

    def touch_sessions(self, ids: Iterable[str]) -> None:
        """They are in use, and so are kept for another week."""
        now = time.time()
        self._ask("BEGIN IMMEDIATE")
        try:
            for id in ids:
                self._ask("UPDATE sessions SET seen = ? WHERE id = ?", (now, id))
        finally:
            self._ask("COMMIT")

    def drop_session(self, id: str) -> None:
        self._ask("DELETE FROM sessions WHERE id = ?", (id,))

    def forget_old_sessions(self) -> None:
        self._ask("DELETE FROM sessions WHERE seen < ?", (time.time() - SESSION_KEEP_SECS,))

    def _texts(self, row: tuple[bytes | None, ...], shape: Callable[..., Row]) -> Row | None:
        try:
            return shape(*(column.decode() for column in row if column is not None))
        except _UNREADABLE as error:
            log.error("row skipped: it can't be read", kind=shape.__name__, why=type(error).__name__, state=str(self._path))
            return None


def _session(id: str, ws: str, principal: str, version: str, client: str) -> SessionRow:
    known = msgspec.json.decode(client, type=_Client)
    return SessionRow(id, ws, principal, version, known.info, known.capabilities, known.level, known.subscriptions)


def _mount(
    ws: bytes | None, spec: bytes | None, connection: bytes | None, catalogue: bytes | None
) -> tuple[str, MountSpec, str | None, Catalogue]:
    if ws is None or spec is None or catalogue is None:
        raise TypeError("a column is empty")
    decode = msgspec.json.decode
    lists = decode(catalogue, type=Catalogue)
    return ws.decode(), decode(spec, type=MountSpec), connection.decode() if connection is not None else None, lists
