"""Functions, their versions and their runs, in tables of the engine's SQLite file that nobody else writes.

    functions           what is deployed now; `source` is the body as it compiled, without what trailed it
    function_versions   every deploy, the last 20 of a function
    runs                the last 200 of a function, newest by `seq`; of an input only its size, of an output at most 64 KiB

Called on the event loop's thread only. A deploy is written before it is answered. Runs are written behind, in batches: one
transaction a call would cost more than the call; a killed engine may lose the last `FLUSH_SECS` of them, a stopped one none.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import structlog

from rootlink.engine.functions.definition import Held
from rootlink.engine.functions.run import Run
from rootlink.errors import Unavailable
from rootlink.wire.mounts import FunctionSpec

KEPT_RUNS, KEPT_VERSIONS = 200, 20
KEPT_OUTPUT_BYTES = 64 << 10
FLUSH_SECS, MAX_UNWRITTEN = 0.1, 1000

log = structlog.get_logger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS functions (
    ws TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, spec BLOB NOT NULL, source TEXT NOT NULL,
    connection TEXT, deployed_at TEXT NOT NULL, PRIMARY KEY (ws, name));
CREATE TABLE IF NOT EXISTS function_versions (
    ws TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, spec BLOB NOT NULL, deployed_at TEXT NOT NULL,
    PRIMARY KEY (ws, name, version));
CREATE TABLE IF NOT EXISTS runs (
    seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, ws TEXT NOT NULL, name TEXT NOT NULL, run BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS runs_of_function ON runs (ws, name, seq);
"""

_PRUNE_RUNS = """
DELETE FROM runs WHERE ws = :ws AND name = :name AND seq <= (
    SELECT seq FROM runs WHERE ws = :ws AND name = :name ORDER BY seq DESC LIMIT 1 OFFSET :kept)
"""


class Ledger:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._unwritten: list[tuple[str, Run]] = []
        self._flushing: asyncio.TimerHandle | None = None
        for statement in filter(str.strip, _SCHEMA.split(";")):
            db.execute(statement)
        if db.in_transaction:
            db.commit()

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
        row = self._db.execute("SELECT version FROM functions WHERE ws = ? AND name = ?", (ws, name)).fetchone()
        return 1 if row is None else int(row[0]) + 1

    def put(self, held: Held) -> None:
        spec = msgspec.json.encode(held.spec)
        key = (held.ws, held.name)
        with self._transaction() as db:
            db.execute(
                "INSERT INTO functions (ws, name, version, spec, source, connection, deployed_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (ws, name) DO UPDATE SET version = excluded.version, spec = excluded.spec,"
                " source = excluded.source, connection = excluded.connection, deployed_at = excluded.deployed_at",
                (*key, held.version, spec, held.source, held.connection, held.deployed_at),
            )
            db.execute("INSERT INTO function_versions VALUES (?, ?, ?, ?, ?)", (*key, held.version, spec, held.deployed_at))
            db.execute(
                "DELETE FROM function_versions WHERE ws = ? AND name = ? AND version <= ?", (*key, held.version - KEPT_VERSIONS)
            )

    def drop(self, ws: str, name: str) -> None:
        """The function, its versions and its runs."""
        self._unwritten = [entry for entry in self._unwritten if (entry[0], entry[1].function) != (ws, name)]
        with self._transaction() as db:
            for table in ("functions", "function_versions", "runs"):
                db.execute(f"DELETE FROM {table} WHERE ws = ? AND name = ?", (ws, name))  # noqa: S608

    # runs

    def add(self, ws: str, run: Run) -> None:
        """Keep a run, soon. Never raises: a full disk must not fail a run that is over."""
        if len(self._unwritten) >= MAX_UNWRITTEN:
            self.flush()
        self._unwritten.append((ws, run))
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(FLUSH_SECS, self.flush)

    def flush(self) -> None:
        """Write what is unwritten. What the disk refuses is dropped, and the log says so."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        unwritten, self._unwritten = self._unwritten, []
        if not unwritten:
            return
        rows = [(run.run_id, ws, run.function, msgspec.json.encode(_kept(run))) for ws, run in unwritten]
        try:
            with self._transaction() as db:
                db.executemany("INSERT INTO runs (run_id, ws, name, run) VALUES (?, ?, ?, ?)", rows)
                for ws, name in {(ws, run.function) for ws, run in unwritten}:
                    db.execute(_PRUNE_RUNS, {"ws": ws, "name": name, "kept": KEPT_RUNS})
        except Unavailable:
            log.warning("runs dropped", count=len(unwritten))

    def runs(self, ws: str, name: str, limit: int) -> list[Run]:
        """Newest first."""
        self.flush()
        newest = "SELECT run FROM runs WHERE ws = ? AND name = ? ORDER BY seq DESC LIMIT ?"
        rows = self._db.execute(newest, (ws, name, limit)).fetchall()
        return [msgspec.json.decode(row[0], type=Run) for row in rows]

    def run(self, ws: str, name: str, run_id: str) -> Run | None:
        self.flush()
        row = self._db.execute("SELECT run FROM runs WHERE run_id = ? AND ws = ? AND name = ?", (run_id, ws, name)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=Run)


def _kept(run: Run) -> Run:
    """`output_bytes` above the limit with a null `output` says that it was too large to keep."""
    return msgspec.structs.replace(run, output=None) if run.output_bytes > KEPT_OUTPUT_BYTES else run
