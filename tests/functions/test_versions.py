"""Versions of a function: what is kept of them, and going back to one."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import msgspec
import pytest

from rootlink.engine.functions import host as host_module
from rootlink.engine.functions import ledger
from rootlink.engine.functions.host import FunctionHost
from rootlink.errors import Conflict, Invalid, NotFound, RateLimited
from rootlink.wire.mounts import FunctionSpec
from tests.functions.ground import SECRETS, Stage, WayOut


async def numbered(stage: Stage, count: int, name: str = "f") -> None:
    for number in range(1, count + 1):
        await stage.deploy(f"(input, ctx) => [{number}, ctx.version]", name, description=f"the {number}.")


async def says(stage: Stage, name: str = "f") -> Any:
    return (await stage.host.invoke("main", name, {})).output


async def test_a_function_goes_back_to_the_version_that_was_live_before_and_forth_again(stage: Stage) -> None:
    await numbered(stage, 3)
    assert (await stage.host.rollback("main", "f")).version == 2
    assert await says(stage) == [2, 2]
    assert stage.host.tool("main", "f")["description"] == "the 2."
    assert (await stage.host.rollback("main", "f")).version == 3
    assert await says(stage) == [3, 3]
    assert (await stage.host.rollback("main", "f", 1)).version == 1
    assert await says(stage) == [1, 1]
    assert (await stage.host.rollback("main", "f")).version == 3


async def test_what_is_deployed_after_a_rollback_has_a_new_number(stage: Stage) -> None:
    await numbered(stage, 3)
    before = {one.version: one.deployed_at for one in stage.host.versions("main", "f")}
    await stage.host.rollback("main", "f", 1)
    assert stage.host.get("main", "f").deployed_at == before[1]
    assert (await stage.host.deploy("main", FunctionSpec("f", "() => 4"))).version == 4
    assert [(one.version, one.live) for one in stage.host.versions("main", "f")] == [
        (4, True),
        (3, False),
        (2, False),
        (1, False),
    ]


async def test_a_version_is_shown_as_it_was_deployed(stage: Stage) -> None:
    await stage.deploy("() => 'old'", timeout_ms=5, env={"A": "x"}, isolation="fresh", tools=["a__*"], concurrency=3)
    await stage.deploy("() => 'new'")
    old = stage.host.version("main", "f", 1)
    assert (old.version, old.code, old.timeout_ms, old.env) == (1, "() => 'old'", 5, {"A": "x"})
    assert (old.isolation, old.tools, old.concurrency, old.egress) == ("fresh", ["a__*"], 3, None)
    assert stage.host.version("main", "f", 2) == stage.host.get("main", "f")


async def test_the_live_version_is_kept_however_old_it_is(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "KEPT_VERSIONS", 3)
    await numbered(stage, 3)
    await stage.host.rollback("main", "f", 1)
    assert await says(stage) == [1, 1]
    await numbered(stage, 5)  # 4 to 8
    assert [one.version for one in stage.host.versions("main", "f")] == [8, 7, 6]


async def test_the_live_version_survives_the_rollback_that_makes_it_old(stage: Stage) -> None:
    await numbered(stage, 20)
    await stage.host.rollback("main", "f", 1)
    assert [one.version for one in stage.host.versions("main", "f")][-1] == 1
    assert stage.host.version("main", "f", 1).code.startswith("(input")


async def test_a_rollback_outlives_the_engine(stage: Stage, db: sqlite3.Connection) -> None:
    await numbered(stage, 2)
    await stage.host.rollback("main", "f")
    again = FunctionHost(db, WayOut(), SECRETS)
    assert (await again.invoke("main", "f", {})).output == [1, 1]
    assert (await again.rollback("main", "f")).version == 2
    await again.close()


async def test_there_is_nothing_to_go_back_to(stage: Stage) -> None:
    await numbered(stage, 1)
    with pytest.raises(Conflict, match="no version but 1"):
        await stage.host.rollback("main", "f")
    with pytest.raises(Conflict, match="live already"):
        await stage.host.rollback("main", "f", 1)
    with pytest.raises(NotFound, match=r"no version 7.*rootlink function versions f"):
        await stage.host.rollback("main", "f", 7)
    with pytest.raises(NotFound, match="no function 'g'"):
        await stage.host.rollback("main", "g")
    with pytest.raises(NotFound, match="no version 0"):
        stage.host.version("main", "f", 0)


async def test_what_does_not_compile_any_more_does_not_go_live(stage: Stage, db: sqlite3.Connection) -> None:
    await numbered(stage, 2)
    broken = msgspec.json.encode(FunctionSpec("f", "() => {"))
    db.execute("UPDATE function_versions SET spec = ? WHERE version = 1", (broken,))
    with pytest.raises(Invalid, match="does not compile"):
        await stage.host.rollback("main", "f")
    assert await says(stage) == [2, 2]


async def test_runs_in_flight_end_in_the_version_they_began_in(stage: Stage) -> None:
    await stage.deploy("async (input, ctx) => { await new Promise((r) => setTimeout(r, 300)); return ctx.version }")
    await stage.deploy("async (input, ctx) => { await new Promise((r) => setTimeout(r, 300)); return -ctx.version }")
    running = asyncio.create_task(stage.host.invoke("main", "f", {}))
    await asyncio.sleep(0.1)
    await stage.host.rollback("main", "f")
    assert (await stage.host.invoke("main", "f", {})).output == 1
    assert (await running).output == -2


async def test_versions_of_an_older_rootlink_can_be_gone_back_to(tmp_path: Any) -> None:
    db = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    db.executescript("""
        CREATE TABLE function_versions (ws TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, spec BLOB NOT NULL,
            deployed_at TEXT NOT NULL, PRIMARY KEY (ws, name, version));
        CREATE TABLE functions (ws TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, spec BLOB NOT NULL,
            source TEXT NOT NULL, connection TEXT, deployed_at TEXT NOT NULL, PRIMARY KEY (ws, name));
        CREATE TABLE runs (seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, ws TEXT NOT NULL, name TEXT NOT NULL,
            run BLOB NOT NULL);""")
    for version in (1, 2):
        spec = msgspec.json.encode(FunctionSpec("f", f"() => {version}"))
        db.execute("INSERT INTO function_versions VALUES ('main', 'f', ?, ?, '2026-01-01T00:00:00Z')", (version, spec))
    db.execute("INSERT INTO functions VALUES ('main', 'f', 2, ?, '() => 2', NULL, '2026-01-01T00:00:00Z')", (spec,))
    run = {"run_id": "run_1", "function": "f", "version": 2, "status": "error", "output": None, "error": None, "logs": []}
    run |= {"duration_ms": 1.0, "started_at": "2026-01-01T00:00:00.000Z", "trigger": "api"}
    db.execute("INSERT INTO runs VALUES (1, 'run_1', 'main', 'f', ?)", (msgspec.json.encode(run),))
    host = FunctionHost(db, WayOut(), {})
    assert [one.run_id for one in host.runs("main", "f", 10, "error")] == ["run_1"]
    assert (await host.rollback("main", "f")).version == 1
    assert (await host.invoke("main", "f", None)).output == 1
    await host.close()
    assert host._ledger.runs("main", "f", 10)[-1].run_id == "run_1"
    host._ledger.prune(1_767_225_600 + 31 * 86400)
    assert "run_1" not in {one.run_id for one in host._ledger.runs("main", "f", 10)}
    db.close()


# bounds


async def test_a_project_has_so_many_functions_and_no_more(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "MAX_FUNCTIONS", 2)
    await stage.deploy("() => 1", "a")
    await stage.deploy("() => 1", "b")
    with pytest.raises(Conflict, match=r"2 functions.*rootlink function delete"):
        await stage.deploy("() => 1", "c")
    await stage.deploy("() => 2", "b")
    await stage.host.remove("main", "a")
    await stage.deploy("() => 1", "c")


async def test_old_versions_make_room_and_live_code_is_never_dropped(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "KEPT_CODE_BYTES", 4000)
    pad = "/*" + "x" * 1000 + "*/"
    for number in range(3):
        await stage.deploy(f"() => {number} {pad}", "a")
    await stage.deploy(f"() => 'b' {pad}", "b")
    assert [one.version for one in stage.host.versions("main", "a")] == [3, 2]
    await stage.deploy(f"() => 'c' {pad}", "c")
    assert [one.version for one in stage.host.versions("main", "a")] == [3]
    with pytest.raises(Conflict, match="larger than 0 MiB together; delete one"):
        await stage.deploy(f"() => 'd' {pad}", "d")
    assert [one.name for one in stage.host.list("main")] == ["a", "b", "c"]
    assert (await says(stage, "a"), await says(stage, "b"), await says(stage, "c")) == (2, "b", "c")


async def test_a_flood_of_deploys_is_turned_away(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "MAX_DEPLOYS", 3)
    outcomes = await asyncio.gather(*(stage.deploy("() => 1", f"f{n}") for n in range(10)), return_exceptions=True)
    assert sum(isinstance(one, RateLimited) for one in outcomes) == 7
    await stage.deploy("() => 1", "again")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"concurrency": 0}, "concurrency is 0; it must be 1 to 1000"),
        ({"concurrency": 1001}, "it must be 1 to 1000"),
        ({"isolation": "none"}, "isolation is 'none'; it must be reuse or fresh"),
        ({"language": "coffee"}, "language is 'coffee'; it must be javascript or typescript"),
        ({"tools": ["a b"]}, "'a b' is no tool's name"),
        ({"tools": [""]}, "is no tool's name"),
        ({"tools": ["x"] * 101}, "101 patterns; at most 100"),
        ({"egress": ["not a host"]}, "not a host"),
        ({"egress": ["a.example"] * 101}, "101 hosts; at most 100"),
        ({"env": {"1X": "x"}}, "secret name '1X'"),
        ({"env": {"X": "x" * 40_000}}, "env is too large"),
        ({"title": "x" * 201}, "title is longer than 200"),
    ],
    ids=str,
)
async def test_what_a_function_may_be_is_checked_in_words(stage: Stage, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        await stage.deploy("() => 1", **spec)
