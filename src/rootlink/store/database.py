"""A transaction, on SQLite or PostgreSQL, and the words for what can go wrong with it.

Facts this stands on:
- SQLite: a plain BEGIN that later writes fails at once under contention (the busy timeout does not cover upgrading a lock; 200 of
  240 failed, SECURITY-FIGURES R17), so writes start with BEGIN IMMEDIATE. One writer at a time, WAL, so readers never wait.
- PostgreSQL: the same order comes from locking the project's row first (`locked_project`), which every write to a project does.
- `hide_parameters`: without it SQLAlchemy's errors quote the values, ciphertexts and hashes included.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.schema import Table

from rootlink.errors import Invalid, NotFound, RootlinkError, Unavailable
from rootlink.store.schema import projects

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

BUSY_SECONDS = 10
THREADS = 40  # asyncio.to_thread runs at most 32; more connections than that are never needed
_WRITE = "rootlink_write"
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SQLITE_WORDS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "another program keeps it locked",
    sqlite3.SQLITE_LOCKED: "it is locked",
    sqlite3.SQLITE_IOERR: "reading or writing the file failed",
    sqlite3.SQLITE_CANTOPEN: "the file can't be opened",
    sqlite3.SQLITE_READONLY: "the file can't be written",
    sqlite3.SQLITE_PERM: "the file's permissions forbid it",
}


class Database:
    """`url` as `Store.open` takes it. Opens nothing yet, but makes the SQLite file so that its mode is right from the start."""

    def __init__(self, url: str, *, busy_seconds: float = BUSY_SECONDS) -> None:
        parsed = _parsed(url)
        self.path = Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None
        if self.path is not None:
            _make_private(self.path)
        self._engine = _sqlite_engine(parsed, busy_seconds) if self.path is not None else _postgresql_engine(parsed)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One snapshot for all that is read in it (SQLite; in PostgreSQL each statement has its own)."""
        with self._in_words(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Committed when the block ends, undone when it raises. `IntegrityError` goes through: it means something to the noun."""
        with self._in_words(), self._engine.connect() as connection:
            connection.execution_options(**{_WRITE: True})
            with connection.begin():
                yield connection

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that knows ON CONFLICT."""
        if self.path is not None:
            return sqlite.insert(table)
        from sqlalchemy.dialects import postgresql  # 50 ms that an instance on SQLite need not pay

        return postgresql.insert(table)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except PoolTimeout:
            raise Unavailable("the control plane's database is busy: try again") from None
        except DBAPIError as error:
            words = self._words(error)
            if words is None:
                raise
            raise words from error

    def _words(self, error: DBAPIError) -> RootlinkError | None:
        """None: a bug of ours, not a state of the database."""
        if self.path is not None:
            return _sqlite_words(self.path, error.orig)
        return _postgresql_words(error)


def locked_project(connection: Connection, project: str) -> None:
    """First statement of every write to a project: `NotFound`, or nobody else writes to it until this transaction ends.

    (SQLite locks the whole database anyway and drops the FOR NO KEY UPDATE.)
    """
    found = connection.execute(select(projects.c.id).where(projects.c.id == project).with_for_update(key_share=True)).first()
    if found is None:
        raise NotFound(f"no project {project!r}")


def _parsed(url: str) -> URL:
    # SQLAlchemy's own message quotes the url, password included.
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is not None and parsed.drivername in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed is not None and parsed.drivername == "sqlite" and Path(parsed.database or "").is_absolute():
        return parsed
    raise Invalid("the database url must be sqlite:////absolute/path or postgresql://user:password@host:port/database")


def _make_private(path: Path) -> None:
    """SQLite gives the -wal and -shm files the mode of the database file."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unavailable(f"{path} can't be opened: {error.strerror}") from None


def _sqlite_engine(url: URL, busy_seconds: float) -> Engine:
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=4,
        max_overflow=THREADS - 4,
        pool_timeout=BUSY_SECONDS,
        connect_args={"timeout": busy_seconds},
    )

    @event.listens_for(engine, "connect")
    def prepare(dbapi: sqlite3.Connection, _record: Any) -> None:
        dbapi.isolation_level = None  # sqlite3 must not begin by itself: the next listener does
        for pragma in _PRAGMAS:
            _patiently(dbapi, pragma, busy_seconds)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITE)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _patiently(dbapi: sqlite3.Connection, pragma: str, busy_seconds: float) -> None:
    """SQLite's busy timeout does not cover all of the change to WAL: of six that wanted it at once on a new file, 21 of 1,800
    were told "locked" within a millisecond. Gateway and provisioner both want it at a first start."""
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            dbapi.execute(pragma).close()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _postgresql_engine(url: URL) -> Engine:
    return create_engine(
        url,
        hide_parameters=True,
        pool_size=4,
        max_overflow=THREADS - 4,
        pool_timeout=BUSY_SECONDS,
        pool_pre_ping=True,  # a server that was restarted in between costs no request
        connect_args={"connect_timeout": BUSY_SECONDS},
    )


def damaged(path: Path) -> Unavailable:
    return Unavailable(
        f"{path} is not a database, or is damaged. Stop Rootlink (rootlink down), move the file away together with "
        f"{path.name}-wal and {path.name}-shm, and put a copy of control/{path.name} back in its place"
    )


def _sqlite_words(path: Path, cause: BaseException | None) -> RootlinkError | None:
    if not isinstance(cause, sqlite3.Error):
        return None
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code, the rest says more
    if code in _DAMAGED:
        return damaged(path)
    words = _SQLITE_WORDS.get(code)
    return Unavailable(f"the control plane's database {path} can't be used: {words}") if words else None


def _postgresql_words(error: DBAPIError) -> RootlinkError | None:
    import psycopg  # 40 ms that an instance on SQLite need not pay

    if isinstance(error.orig, psycopg.DataError):
        return Invalid("this text can't be kept: it holds a character that PostgreSQL refuses, such as NUL")
    if isinstance(error.orig, psycopg.OperationalError | psycopg.InterfaceError):
        return Unavailable(f"the control plane's PostgreSQL database can't be used ({type(error.orig).__name__})")
    return None
