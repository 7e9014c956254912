"""What is kept of functions and runs, and for how long."""

from __future__ import annotations

import sqlite3

import pytest

from rootlink.engine.functions.host import FunctionHost
from rootlink.wire.mounts import FunctionSpec
from tests.functions.ground import Stage, WayOut


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
