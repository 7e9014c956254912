"""Functions, their versions and their runs, in tables of the engine's SQLite file that nobody else writes.

    functions           what is deployed now; `source` is the body as it compiled, without what trailed it
    function_versions   every deploy: the last 20 of a function and the live one, of all together at most 128 MiB; `live` is the
                        higher the later a version went live
    runs                the last 200 of a function, newest by `seq`, none older than 30 days. Of an input only its size, of an
                        output and of logs at most 64 KiB each
    run_keys            runs that were given an idempotency key, large ones without output and logs: for 24 hours even when 200
                        others came since, the last 10,000 of a function. `input` is a hash of it, keyed with that key, which is
                        not kept
    function_salt       makes the run ids that stand for keys different in every engine

Called on the event loop's thread only. A deploy is written before it is answered, and so is a run with a key. Other runs are
written behind, in batches: one transaction a call would cost more than the call; a killed engine may lose the last `FLUSH_SECS`
of them, a stopped one none.
"""

from __future__ import annotations

import asyncio
import secrets as randomness
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
import structlog

from rootlink.engine.functions.definition import Held, Version
from rootlink.engine.functions.run import Run, shortened
from rootlink.errors import Conflict, Unavailable
from rootlink.wire.mounts import FunctionSpec

KEPT_RUNS, KEPT_VERSIONS, KEPT_KEYS = 200, 20, 10_000
KEPT_RUN_SECS, KEPT_KEY_SECS = 30 * 86400.0, 86400.0
KEPT_OUTPUT_BYTES = KEPT_LOG_BYTES = 64 << 10
KEPT_SLIM_BYTES = 1 << 10  # a smaller run is kept whole with its key
KEPT_CODE_BYTES = 128 << 20
MAX_VERSION = 2**31
LISTED_BYTES = 1 << 20
FLUSH_SECS, MAX_UNWRITTEN, MAX_UNWRITTEN_BYTES = 0.1, 1000, 1 << 20

log = structlog.get_logger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS functions (
    ws TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, spec BLOB NOT NULL, source TEXT NOT NULL,
    connection TEXT, deployed_at TEXT NOT NULL, PRIMARY KEY (ws, name));
CREATE TABLE IF NOT EXISTS function_versions (
    ws TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, spec BLOB NOT NULL, deployed_at TEXT NOT NULL,
    live INTEGER, PRIMARY KEY (ws, name, version));
CREATE TABLE IF NOT EXISTS runs (
    seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, ws TEXT NOT NULL, name TEXT NOT NULL, run BLOB NOT NULL,
    status TEXT, started REAL);
CREATE INDEX IF NOT EXISTS runs_of_function ON runs (ws, name, seq);
CREATE TABLE IF NOT EXISTS run_keys (
    seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, ws TEXT NOT NULL, name TEXT NOT NULL, input BLOB NOT NULL,
    started REAL NOT NULL, run BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS run_keys_of_function ON run_keys (ws, name, seq);
CREATE TABLE IF NOT EXISTS function_salt (salt BLOB NOT NULL);
"""

_ADDED = [  # to tables of an older Rootlink: table, column, kind, what it is for the rows that are there
    ("function_versions", "live", "INTEGER", "version"),
    ("runs", "status", "TEXT", "json_extract(CAST(run AS TEXT), '$.status')"),
    ("runs", "started", "REAL", "unixepoch(json_extract(CAST(run AS TEXT), '$.started_at'))"),
]
_INDEXES = "CREATE INDEX IF NOT EXISTS runs_by_age ON runs (started)"

_PRUNE = """
DELETE FROM {table} WHERE ws = :ws AND name = :name AND seq <= (
    SELECT seq FROM {table} WHERE ws = :ws AND name = :name ORDER BY seq DESC LIMIT 1 OFFSET :kept)
"""


class Keyed(NamedTuple):
    """A run that was given a key, as it is kept, and the hash of its input."""

    run: Run
    input: bytes


class _Unread(Run, frozen=True):
    """A run whose large members are passed over, which costs a tenth."""

    output: msgspec.Raw
    logs: msgspec.Raw  # type: ignore[assignment]


class _Row(NamedTuple):
    ws: str
    name: str
    run_id: str
    status: str
    started: float
    run: bytes
    key: tuple[bytes, bytes] | None  # the hash of its input, the run without what may be large


class Ledger:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._unwritten: list[_Row] = []
        self._unwritten_bytes = 0
        self._flushing: asyncio.TimerHandle | None = None
        for statement in filter(str.strip, _SCHEMA.split(";")):
            db.execute(statement)
        if db.in_transaction:
            db.commit()
        missing = [added for added in _ADDED if added[1] not in {row[1] for row in db.execute(f"PRAGMA table_info({added[0]})")}]
        if missing:
            self._add(missing)
        db.execute(_INDEXES)
        if db.in_transaction:
            db.commit()

    def _add(self, missing: list[tuple[str, str, str, str]]) -> None:
        """All at once: an engine killed in between finds the older tables as they were. A run that can't be read goes, so that it
        does not cost the others. Raises Unavailable."""
        with self._transaction() as db:
            db.execute("DELETE FROM runs WHERE NOT json_valid(CAST(run AS TEXT))")
            for table, column, kind, value in missing:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
                db.execute(f"UPDATE {table} SET {column} = {value}")  # noqa: S608

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, whatever isolation level the connection was opened with. Raises Unavailable when the disk says no."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            log.error("functions not written", error=str(error))
            raise Unavailable("the engine can't write its state now (disk full or locked?); nothing was changed") from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def salt(self) -> bytes:
        """Made once. Raises Unavailable."""
        row = self._db.execute("SELECT salt FROM function_salt").fetchone()
        if row is None:
            row = (randomness.token_bytes(32),)
            with self._transaction() as db:
                db.execute("INSERT INTO function_salt VALUES (?)", row)
        return bytes(row[0])

    # functions

    def functions(self) -> list[tuple[str, FunctionSpec, str, int, str | None, str]]:
        """(ws, spec, source, version, connection, deployed_at) of each, in the order they were first deployed."""
        columns = "ws, spec, source, version, connection, deployed_at"
        rows = self._db.execute(f"SELECT {columns} FROM functions ORDER BY rowid").fetchall()  # noqa: S608
        found = []
        for ws, spec, *rest in rows:
            try:
                found.append((ws, msgspec.json.decode(spec, type=FunctionSpec), *rest))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                log.warning("function unreadable, left out", ws=ws)  # one bad row must not cost the others
        return found

    def next_version(self, ws: str, name: str) -> int:
        """After a rollback the live one is not the last."""
        newest = "SELECT max(version) FROM function_versions WHERE ws = ? AND name = ?"
        return int(self._db.execute(newest, (ws, name)).fetchone()[0] or 0) + 1

    def put(self, held: Held) -> None:
        """Live from now on. Raises Conflict when there is more code than may be kept."""
        spec = msgspec.json.encode(held.spec)
        key = (held.ws, held.name)
        with self._transaction() as db:
            db.execute(
                "INSERT INTO functions (ws, name, version, spec, source, connection, deployed_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (ws, name) DO UPDATE SET version = excluded.version, spec = excluded.spec,"
                " source = excluded.source, connection = excluded.connection, deployed_at = excluded.deployed_at",
                (*key, held.version, spec, held.source, held.connection, held.deployed_at),
            )
            later = "(SELECT ifnull(max(live), 0) + 1 FROM function_versions WHERE ws = ? AND name = ?)"
            db.execute(
                f"INSERT OR REPLACE INTO function_versions (ws, name, version, spec, deployed_at, live) VALUES (?, ?, ?, ?, ?, {later})",  # noqa: S608, E501
                (*key, held.version, spec, held.deployed_at, *key),
            )
            db.execute(
                "DELETE FROM function_versions WHERE ws = ? AND name = ? AND version <> ? AND version <="
                " (SELECT max(version) FROM function_versions WHERE ws = ? AND name = ?) - ?",
                (*key, held.version, *key, KEPT_VERSIONS),
            )
            self._make_room(db)

    def _make_room(self, db: sqlite3.Connection) -> None:
        """The oldest versions that are not live go, of whatever function."""
        (size,) = db.execute("SELECT sum(length(spec)) FROM function_versions").fetchone()
        if size <= KEPT_CODE_BYTES:
            return
        old = (
            "SELECT v.rowid, length(v.spec) FROM function_versions v JOIN functions f USING (ws, name)"
            " WHERE v.version <> f.version ORDER BY v.deployed_at"
        )
        for row, length in db.execute(old).fetchall():
            db.execute("DELETE FROM function_versions WHERE rowid = ?", (row,))
            size -= length
            if size <= KEPT_CODE_BYTES:
                return
        raise Conflict(
            f"the functions of this project are larger than {KEPT_CODE_BYTES >> 20} MiB together; delete one you no longer need: "
            "rootlink function delete NAME"
        )

    def versions(self, ws: str, name: str, live: int) -> list[Version]:
        """Newest first."""
        rows = "SELECT version, deployed_at FROM function_versions WHERE ws = ? AND name = ? ORDER BY version DESC"
        return [Version(version, version == live, at) for version, at in self._db.execute(rows, (ws, name))]

    def version(self, ws: str, name: str, version: int) -> tuple[FunctionSpec, str] | None:
        """Its spec, and when it was deployed."""
        if not 0 < version < MAX_VERSION:
            return None  # SQLite's integers end
        one = "SELECT spec, deployed_at FROM function_versions WHERE ws = ? AND name = ? AND version = ?"
        row = self._db.execute(one, (ws, name, version)).fetchone()
        return None if row is None else (msgspec.json.decode(row[0], type=FunctionSpec), row[1])

    def version_before(self, ws: str, name: str, live: int) -> int | None:
        """The version that was live before this one, if it is kept."""
        last = "SELECT version FROM function_versions WHERE ws = ? AND name = ? AND version <> ? ORDER BY live DESC LIMIT 1"
        row = self._db.execute(last, (ws, name, live)).fetchone()
        return None if row is None else int(row[0])

    def drop(self, ws: str, name: str) -> None:
        """The function, its versions and its runs."""
        self._unwritten = [row for row in self._unwritten if (row.ws, row.name) != (ws, name)]
        with self._transaction() as db:
            for table in ("functions", "function_versions", "runs", "run_keys"):
                db.execute(f"DELETE FROM {table} WHERE ws = ? AND name = ?", (ws, name))  # noqa: S608

    # runs

    def add(self, ws: str, run: Run, input: bytes | None = None) -> None:
        """Keep a run, soon; one with a key (`input`: the hash of its input) now. A run of the same id is replaced. Never raises:
        a full disk must not fail a run that is over."""
        run = _at_rest(run)
        text = msgspec.json.encode(run)
        key = None if input is None else (input, text if len(text) < KEPT_SLIM_BYTES else msgspec.json.encode(_slim(run)))
        self._unwritten.append(_Row(ws, run.function, run.run_id, run.status, time.time(), text, key))
        self._unwritten_bytes += len(text)
        if key is not None or len(self._unwritten) >= MAX_UNWRITTEN or self._unwritten_bytes >= MAX_UNWRITTEN_BYTES:
            self.flush()
        elif self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(FLUSH_SECS, self.flush)

    def flush(self) -> None:
        """Write what is unwritten. What the disk refuses is dropped, and the log says so."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        rows, self._unwritten, self._unwritten_bytes = self._unwritten, [], 0
        if not rows:
            return
        runs = [(row.run_id, row.ws, row.name, row.run, row.status, row.started) for row in rows]
        keys = [(row.run_id, row.ws, row.name, row.key[0], row.started, row.key[1]) for row in rows if row.key is not None]
        try:
            with self._transaction() as db:
                db.executemany(
                    "INSERT OR REPLACE INTO runs (run_id, ws, name, run, status, started) VALUES (?, ?, ?, ?, ?, ?)", runs
                )
                for ws, name in {(row.ws, row.name) for row in rows}:
                    db.execute(_PRUNE.format(table="runs"), {"ws": ws, "name": name, "kept": KEPT_RUNS})
                if keys:
                    columns = "run_id, ws, name, input, started, run"
                    db.executemany(f"INSERT OR REPLACE INTO run_keys ({columns}) VALUES (?, ?, ?, ?, ?, ?)", keys)  # noqa: S608
                    for ws, name in {(ws, name) for _, ws, name, *_ in keys}:
                        db.execute(_PRUNE.format(table="run_keys"), {"ws": ws, "name": name, "kept": KEPT_KEYS})
        except Unavailable:
            log.warning("runs dropped", count=len(rows))

    def prune(self, now: float) -> None:
        """What is too old goes. `now`: Unix seconds. Raises Unavailable."""
        self.flush()
        with self._transaction() as db:
            db.execute("DELETE FROM runs WHERE started < ?", (now - KEPT_RUN_SECS,))
            db.execute("DELETE FROM run_keys WHERE started < ?", (now - KEPT_KEY_SECS,))

    def runs(self, ws: str, name: str, limit: int, status: str | None = None) -> list[Run]:
        """Newest first; of one status, if that is given. Once 1 MiB of them is listed, the rest is without output and logs."""
        self.flush()
        newest = "SELECT run FROM runs WHERE ws = ? AND name = ? AND status = ifnull(?, status) ORDER BY seq DESC LIMIT ?"
        found, size = [], 0
        for (text,) in self._db.execute(newest, (ws, name, status, limit)):
            size += len(text)
            found.append(msgspec.json.decode(text, type=Run) if size <= LISTED_BYTES else _brief(text))
        return found

    def run(self, ws: str, name: str, run_id: str) -> Run | None:
        self.flush()
        row = self._db.execute("SELECT run FROM runs WHERE run_id = ? AND ws = ? AND name = ?", (run_id, ws, name)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=Run)

    def keyed(self, ws: str, name: str, run_id: str) -> Keyed | None:
        """The run of this id if it was given a key; without output and logs when 200 others came since."""
        one = "SELECT run, input FROM run_keys WHERE run_id = ? AND ws = ? AND name = ?"
        row = self._db.execute(one, (run_id, ws, name)).fetchone()
        if row is None:
            return None
        run = self.run(ws, name, run_id) or msgspec.json.decode(row[0], type=Run)
        return Keyed(run, bytes(row[1]))


def _brief(text: bytes) -> Run:
    unread = msgspec.json.decode(text, type=_Unread)
    said = bytes(unread.logs) != b"[]"
    members = {**msgspec.structs.asdict(unread), "output": None, "logs": [], "logs_truncated": said}
    return Run(**members)


def _at_rest(run: Run) -> Run:
    """`output_bytes` above the limit with a null `output` says that it was too large to keep."""
    if run.output_bytes > KEPT_OUTPUT_BYTES:
        run = msgspec.structs.replace(run, output=None)
    logs = shortened(run.logs, KEPT_LOG_BYTES)
    return run if logs is run.logs else msgspec.structs.replace(run, logs=logs, logs_truncated=True)


def _slim(run: Run) -> Run:
    """How it ended, and no more."""
    error = run.error and {"name": run.error["name"], "message": run.error["message"][:500], "stack": ""}
    return msgspec.structs.replace(run, output=None, error=error, logs=[], logs_truncated=bool(run.logs), denied=[])
