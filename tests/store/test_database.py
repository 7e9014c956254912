"""What can go wrong with the file, or the server, and the words for it."""

from __future__ import annotations

import signal
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

from rootlink.errors import Invalid, Unavailable
from rootlink.store import Store, schema
from rootlink.store.database import Database
from rootlink.store.upgrade import upgrade
from tests.store import postgres
from tests.store.vault import Vault


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control" / "rootlink.db"


def opened(path: Path) -> Store:
    return Store.open(f"sqlite:///{path}")


def test_the_file_and_its_companions_are_the_owners_alone(path: Path) -> None:
    store = opened(path)
    store.projects.create("default")
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["rootlink.db", "rootlink.db-shm", "rootlink.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    store.close()


def test_a_file_that_was_open_to_others_is_closed_to_them(path: Path) -> None:
    opened(path).close()
    path.chmod(0o644)
    opened(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_commit_is_on_the_disk_before_it_is_acknowledged(path: Path) -> None:
    database = Database(f"sqlite:///{path}")
    with database.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    database.close()


@pytest.mark.parametrize("damage", [b"", b"this is not a database, it is a text file" * 200])
def test_a_file_that_is_no_database_is_refused_with_what_to_do(path: Path, damage: bytes) -> None:
    opened(path).close()
    path.write_bytes(damage or b"\xff" * path.stat().st_size)
    with pytest.raises(Unavailable, match=r"control/rootlink\.db is not a database.*put a copy of control/rootlink\.db back"):
        opened(path)


def test_a_damaged_page_is_refused_at_the_start(path: Path) -> None:
    opened(path).close()
    with path.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xa5" * 4096 * 3)
    with pytest.raises(Unavailable, match="damaged"):
        opened(path)


def test_a_database_of_a_newer_version_is_refused_and_left_alone(url: str) -> None:
    Store.open(url).close()
    database = Database(url)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    with pytest.raises(Unavailable, match=r"schema 0999, this Rootlink knows up to .*newer version"):
        Store.open(url)
    with database.read() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0999"
    database.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mysql://h/d",
        "sqlite://",
        "sqlite:///relative.db",
        "sqlite:///:memory:",
        "postgresql+asyncpg://h/d",
        "p://u:hunter2@h:x/d",
    ],
)
def test_any_other_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(Invalid, match="sqlite:////absolute/path") as refused:
        Store.open(url)
    assert "hunter2" not in repr(refused.value)


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "control").write_text("a file")
    with pytest.raises(Unavailable, match=r"rootlink\.db can't be opened"):
        opened(tmp_path / "control" / "rootlink.db")


def test_a_server_that_is_not_there_is_unavailable_and_its_password_is_not_said() -> None:
    with pytest.raises(Unavailable, match="PostgreSQL") as refused:
        Store.open("postgresql://me:hunter2@127.0.0.1:1/rootlink")
    assert "hunter2" not in repr(refused.value) + repr(refused.value.__cause__)


def test_a_locked_database_is_unavailable_and_works_again_afterwards(path: Path) -> None:
    database = Database(f"sqlite:///{path}", busy_seconds=0.05)
    upgrade(database)
    store = Store(database)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="another program keeps it locked"):
        store.projects.create("default")
    assert store.projects.list() == []
    other.execute("ROLLBACK")
    other.close()
    store.projects.create("default")
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a disk that can be filled needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_refuses_writes_answers_reads_and_recovers(small_disk: Path, vault: Vault) -> None:
    store = opened(small_disk / "rootlink.db")
    project = store.projects.create("default").id
    with pytest.raises(Unavailable, match="the disk is full"):
        _fill(store, project, vault)
    kept = store.secrets.list(project)
    assert kept
    assert set(vault.values(store, project)) == {secret.name for secret in kept}
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    store.secrets.put(project, "LATER", vault.seal(project, "LATER", "x"))
    assert len(store.secrets.list(project)) == len(kept) + 1
    store.close()


def _fill(store: Store, project: str, vault: Vault) -> None:
    for n in range(100):
        store.secrets.put(project, f"S{n}", vault.seal(project, f"S{n}", "x" * 60_000))


def test_no_writer_is_turned_away_under_contention(url: str, store: Store) -> None:
    failures: list[BaseException] = []
    writers = [Store.open(url) for _ in range(3)]

    def write(writer: Store, who: int) -> None:
        try:
            for n in range(20):
                writer.activity.add(None, f"w{who}", "a.b", str(n))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(writers[n % 3], n)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for writer in writers:
        writer.close()
    assert failures == []
    assert len(store.activity.list(None, limit=1000)) == 120


def test_an_error_of_ours_does_not_quote_the_values(store: Store) -> None:
    row = {"id": "prj_1", "name": None, "created_at": "hunter2"}
    with pytest.raises(DBAPIError) as error, store._database.write() as connection:
        connection.execute(insert(schema.projects).values(row))
    assert "hunter2" not in str(error.value).partition("DETAIL")[0]


def test_text_no_database_can_hold_is_refused(store: Store) -> None:
    if store._database.path is None:
        with pytest.raises(Invalid, match="NUL"):
            store.projects.get("a\0b")


@pytest.mark.slow
def test_a_restarted_server_loses_nothing_and_needs_no_new_store(vault: Vault) -> None:
    if postgres.binaries() is None:
        pytest.skip(postgres.MISSING)
    with postgres.server() as server:
        store = Store.open(server.new_database())
        project = store.projects.create("default").id
        acknowledged = []
        for round in range(3):
            acknowledged.append(store.secrets.put(project, f"S{round}", vault.seal(project, f"S{round}", "v")))
            server.stop(signal.SIGQUIT)
            with pytest.raises(Unavailable):
                store.secrets.list(project)
            server.start()
            eventually(lambda: store.secrets.list(project) == acknowledged)
        store.close()


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            assert holds()
            return
        except (AssertionError, Unavailable):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
