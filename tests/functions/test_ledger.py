"""What is kept of functions and runs, and for how long."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from rootlink.engine.functions.host import FunctionHost
from rootlink.errors import Unavailable
from rootlink.wire.mounts import FunctionSpec
from tests.functions.ground import Stage, WayOut, open_db


async def test_the_last_two_hundred_runs_are_kept_newest_first(stage: Stage) -> None:
    await stage.deploy("(n) => n")
    await stage.deploy("(n) => n", "other")
    await stage.host.invoke("main", "other", "kept")
    for number in range(230):
        await stage.host.invoke("main", "f", number)
    runs = stage.host.runs("main", "f", 500)
    assert [run.output for run in runs] == list(range(229, 29, -1))
    assert [run.output for run in stage.host.runs("main", "other")] == ["kept"]
    assert [run.output for run in stage.host.runs("main", "f", 2)] == [229, 228]


async def test_a_run_keeps_the_size_of_its_input_and_not_the_input(stage: Stage) -> None:
    run = await stage.run("(input) => 1", {"private": "needle-in-the-input"})
    assert run.input_bytes == len('{"private":"needle-in-the-input"}')
    assert (run.trigger, run.function, run.version) == ("api", "f", 1)
    assert stage.host.run("main", "f", run.run_id) == run
    stage.host._ledger.flush()
    dump = b"".join(str(row).encode() for row in stage.db.execute("SELECT * FROM runs"))
    assert b"needle" not in dump


async def test_a_large_output_is_answered_and_not_kept(stage: Stage) -> None:
    run = await stage.run("() => 'x'.repeat(100000)")
    assert len(run.output) == 100_000
    kept = stage.host.run("main", "f", run.run_id)
    assert kept.output is None
    assert kept.output_bytes == 100_002


async def test_the_last_twenty_versions_are_kept(stage: Stage) -> None:
    for number in range(25):
        await stage.deploy(f"() => {number}")
    versions = [row[0] for row in stage.db.execute("SELECT version FROM function_versions ORDER BY version")]
    assert versions == list(range(6, 26))


@pytest.mark.parametrize("isolation_level", [None, "", "IMMEDIATE"])
async def test_any_isolation_level_of_the_connection_will_do(tmp_path, isolation_level: str | None) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "x.db"
    db = sqlite3.connect(path, isolation_level=isolation_level)  # type: ignore[arg-type]
    host = FunctionHost(db, WayOut(), {})
    await host.deploy("main", FunctionSpec(name="f", code="() => 1"))
    await host.invoke("main", "f", None)
    await host.close()
    db.close()
    other = sqlite3.connect(path)
    assert other.execute("SELECT (SELECT count(*) FROM functions), (SELECT count(*) FROM runs)").fetchone() == (1, 1)
    other.close()


async def test_an_output_with_a_secret_is_answered_as_it_is_and_written_down_without(stage: Stage) -> None:
    stage.host.environment({"PIN": "123456", "WORD": "quite-secret"})
    for body, answered, kept in (
        ("() => ({ id: 123456 })", {"id": 123456}, None),
        ("() => ['a quite-secret b']", ["a quite-secret b"], ["a [secret WORD] b"]),
    ):
        run = await stage.run(body)
        assert (run.status, run.output) == ("ok", answered)
        assert stage.host.run("main", "f", run.run_id).output == kept


_OF_YESTERDAY = """
CREATE TABLE functions (
    ws TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, spec BLOB NOT NULL, source TEXT NOT NULL,
    connection TEXT, deployed_at TEXT NOT NULL, PRIMARY KEY (ws, name));
CREATE TABLE function_versions (
    ws TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, spec BLOB NOT NULL, deployed_at TEXT NOT NULL,
    PRIMARY KEY (ws, name, version));
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, ws TEXT NOT NULL, name TEXT NOT NULL, run BLOB NOT NULL);
CREATE INDEX runs_of_function ON runs (ws, name, seq);
"""
_RUN = """{"run_id":"run_%d","function":"f","version":1,"status":"%s","output":%d,"error":null,"logs":[],"duration_ms":1.0,
"started_at":"2026-11-22T00:00:00.000Z","trigger":"api","input_bytes":1,"output_bytes":1}"""


def of_yesterday(path: Path, *, unreadable: bytes | None = None) -> sqlite3.Connection:
    """The file of a Rootlink that had no versions to go back to: a function of two versions, and three runs."""
    db = open_db(path)
    db.executescript(_OF_YESTERDAY)
    spec = b'{"name":"f","code":"() => %d"}'
    for version in (1, 2):
        db.execute("INSERT INTO function_versions VALUES ('main', 'f', ?, ?, 'then')", (version, spec % version))
    db.execute("INSERT INTO functions VALUES ('main', 'f', 2, ?, '(() => 2)', NULL, 'then')", (spec % 2,))
    for number, status in enumerate(("ok", "error", "ok")):
        run = (_RUN % (number, status, number)).encode()
        db.execute("INSERT INTO runs (run_id, ws, name, run) VALUES (?, 'main', 'f', ?)", (f"run_{number}", run))
    if unreadable is not None:
        db.execute("UPDATE runs SET run = ? WHERE run_id = 'run_1'", (unreadable,))
    return db


async def test_a_file_of_yesterday_keeps_its_functions_versions_and_runs(tmp_path: Path) -> None:
    db = of_yesterday(tmp_path / "x.db")
    host = FunctionHost(db, WayOut(), {})
    assert [(version.version, version.live) for version in host.versions("main", "f")] == [(2, True), (1, False)]
    assert [run.output for run in host.runs("main", "f")] == [2, 1, 0]
    assert [run.output for run in host.runs("main", "f", status="error")] == [1]
    assert (await host.invoke("main", "f", None)).output == 2
    assert (await host.rollback("main", "f")).version == 1
    assert (await host.invoke("main", "f", None)).output == 1
    await host.close()
    db.close()


@pytest.mark.parametrize("unreadable", [b"{broken", b"\xff\xfe", b""])
async def test_a_run_of_yesterday_that_can_not_be_read_does_not_cost_the_others(tmp_path: Path, unreadable: bytes) -> None:
    db = of_yesterday(tmp_path / "x.db", unreadable=unreadable)
    host = FunctionHost(db, WayOut(), {})
    assert [run.output for run in host.runs("main", "f")] == [2, 0]
    await host.close()
    db.close()


async def test_an_engine_that_ends_while_it_brings_a_file_up_to_date_leaves_it_as_it_was(tmp_path: Path) -> None:
    db = of_yesterday(tmp_path / "x.db")
    db.execute("CREATE TRIGGER ends BEFORE UPDATE ON runs BEGIN SELECT raise(ABORT, 'killed'); END")
    with pytest.raises(Unavailable):
        FunctionHost(db, WayOut(), {})
    db.execute("DROP TRIGGER ends")
    host = FunctionHost(db, WayOut(), {})
    assert [run.output for run in host.runs("main", "f")] == [2, 1, 0]
    await host.close()
    db.close()
