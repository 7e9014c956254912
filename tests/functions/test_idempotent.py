"""A key makes a call happen once: the run id stands for it."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest

from rootlink.engine.functions import ledger
from rootlink.engine.functions.host import FunctionHost, Run
from rootlink.errors import Conflict, Invalid, RateLimited
from rootlink.wire.mounts import FunctionSpec
from tests.functions.ground import SECRETS, Answer, Asked, Stage, WayOut, end, processes

COUNTS = "async (input, ctx) => { await fetch('https://api.example/x'); console.log('once'); return { id: ctx.runId, input } }"


async def keyed(stage: Stage, key: str, input: Any = None, name: str = "f", **more: Any) -> Run:
    return await stage.host.invoke("main", name, input, key=key, **more)


async def test_a_key_that_was_used_is_answered_again_and_not_run_again(stage: Stage) -> None:
    await stage.deploy(COUNTS)
    first, second = await keyed(stage, "order-7", {"a": 1, "b": 2}), await keyed(stage, "order-7", {"b": 2, "a": 1})
    assert (first.status, first.replayed, second.replayed) == ("ok", False, True)
    assert (second.run_id, second.output, second.logs) == (first.run_id, first.output, first.logs)
    assert first.output["id"] == first.run_id
    assert len(stage.out.asked) == 1
    assert (await keyed(stage, "order-8", {"a": 1, "b": 2})).run_id != first.run_id
    assert len(stage.host.runs("main", "f")) == 2


async def test_calls_with_one_key_at_the_same_time_are_one_run(stage: Stage) -> None:
    await stage.deploy(COUNTS)
    runs = await asyncio.gather(*(keyed(stage, "k", {"n": 1}) for _ in range(50)))
    assert {run.run_id for run in runs} == {runs[0].run_id}
    assert sorted(run.replayed for run in runs) == [False] + [True] * 49
    assert len(stage.out.asked) == 1


async def test_a_run_with_a_key_takes_one_place_of_those_in_flight(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rootlink.engine.functions.host.MAX_IN_FLIGHT", 4)
    await stage.deploy("async (n) => { await new Promise(done => setTimeout(done, 300)); return n }")
    running = []
    for number in range(4):
        running.append(asyncio.create_task(keyed(stage, f"k{number}", number)))
        await asyncio.sleep(0.01)
    with pytest.raises(RateLimited):
        await keyed(stage, "k4", 4)
    assert [run.output for run in await asyncio.gather(*running)] == [0, 1, 2, 3]
    assert (await keyed(stage, "k4", 4)).output == 4


async def test_a_key_belongs_to_its_function(stage: Stage) -> None:
    await stage.deploy(COUNTS, "f")
    await stage.deploy(COUNTS, "g")
    runs = [await keyed(stage, "k", {}, name) for name in ("f", "g", "f", "g")]
    assert [run.replayed for run in runs] == [False, False, True, True]
    assert runs[0].run_id != runs[1].run_id


async def test_another_input_with_the_same_key_is_a_conflict_while_it_runs_and_after(stage: Stage) -> None:
    gate = asyncio.Event()

    async def network(asked: Asked) -> Answer:
        await gate.wait()
        return Answer()

    stage.out.network = network
    await stage.deploy(COUNTS)
    running = asyncio.create_task(keyed(stage, "k", {"amount": 1}))
    await asyncio.sleep(0.1)
    with pytest.raises(Conflict, match="used for function 'f' with another input"):
        await keyed(stage, "k", {"amount": 2})
    gate.set()
    assert (await running).status == "ok"
    with pytest.raises(Conflict, match="another input"):
        await keyed(stage, "k", {"amount": 2})
    assert (await keyed(stage, "k", {"amount": 1})).replayed


async def test_what_must_be_the_same_may_be_less_than_the_input(stage: Stage) -> None:
    await stage.deploy(COUNTS)
    first = await keyed(stage, "k", {"body": "b", "sent": 1}, same="b")
    assert (await keyed(stage, "k", {"body": "b", "sent": 2}, same="b")).run_id == first.run_id
    with pytest.raises(Conflict):
        await keyed(stage, "k", {"body": "c", "sent": 1}, same="c")


async def test_a_run_with_a_key_goes_on_when_its_caller_leaves(stage: Stage) -> None:
    await stage.deploy("async (input, ctx) => { await new Promise((r) => setTimeout(r, 300)); return 'whole' }")
    running = asyncio.create_task(keyed(stage, "k"))
    await asyncio.sleep(0.1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    again = await keyed(stage, "k")
    assert (again.output, again.replayed) == ("whole", True)
    assert len(stage.host.runs("main", "f")) == 1


async def test_a_run_that_was_killed_runs_again_under_the_same_id(stage: Stage) -> None:
    gate = asyncio.Event()

    async def network(asked: Asked) -> Answer:
        await gate.wait()
        return Answer()

    stage.out.network = network
    await stage.deploy(COUNTS)
    running = asyncio.create_task(keyed(stage, "k"))
    await asyncio.sleep(0.3)
    end(processes()[1:])
    killed = await running
    assert killed.status == "killed"
    gate.set()
    again = await keyed(stage, "k")
    assert (again.status, again.run_id, again.replayed) == ("ok", killed.run_id, False)
    assert [run.status for run in stage.host.runs("main", "f")] == ["ok"]
    assert (await keyed(stage, "k")).replayed


async def test_a_body_that_throws_has_run(stage: Stage) -> None:
    await stage.deploy(
        "async () => { await fetch('https://api.example/'); throw Object.assign(new Error('x'), { name: 'InputError' }) }"
    )
    assert [(await keyed(stage, "k")).replayed for _ in range(2)] == [False, True]
    assert len(stage.out.asked) == 1


async def test_a_run_that_never_began_may_begin_later(stage: Stage) -> None:
    await stage.deploy("(input) => 1", env={"TOKEN": "${LATER}"})
    refused = await keyed(stage, "k")
    assert refused.error is not None and refused.error["name"] == "SecretMissing"
    stage.host.environment({**SECRETS, "LATER": "here-it-is"})
    began = await keyed(stage, "k")
    assert (began.status, began.run_id, began.replayed) == ("ok", refused.run_id, False)


async def test_a_key_is_known_after_the_engine_stopped_or_was_lost(stage: Stage, db: sqlite3.Connection) -> None:
    await stage.deploy(COUNTS)
    first = await keyed(stage, "k")  # written before it is answered: nothing is flushed here
    out = WayOut()
    again = FunctionHost(db, out, SECRETS)
    answered = await again.invoke("main", "f", None, key="k")
    assert (answered.run_id, answered.replayed, answered.output, out.asked) == (first.run_id, True, first.output, [])
    await again.close()


async def test_two_engines_have_different_ids_for_one_key(stage: Stage) -> None:
    await stage.deploy(COUNTS)
    db = sqlite3.connect(":memory:", isolation_level=None)
    other = FunctionHost(db, WayOut(), SECRETS)
    await other.deploy("main", FunctionSpec("f", COUNTS))
    assert (await other.invoke("main", "f", None, key="k")).run_id != (await keyed(stage, "k")).run_id
    await other.close()
    db.close()


async def test_a_key_outlives_the_two_hundred_runs_that_are_kept(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "KEPT_RUNS", 3)
    await stage.deploy("(input) => input ?? 'x'.repeat(2000)")
    first = await keyed(stage, "k")
    for number in range(5):
        await stage.host.invoke("main", "f", number)
    assert first.run_id not in {run.run_id for run in stage.host.runs("main", "f")}
    again = await keyed(stage, "k")
    assert (again.status, again.output, again.output_bytes, again.replayed) == ("ok", None, 2002, True)
    assert len(stage.host.runs("main", "f")) == 3


async def test_an_output_too_large_to_keep_is_told_by_its_size(stage: Stage) -> None:
    await stage.deploy("() => 'x'.repeat(100000)")
    assert len((await keyed(stage, "k")).output) == 100_000
    again = await keyed(stage, "k")
    assert (again.status, again.output, again.output_bytes, again.replayed) == ("ok", None, 100_002, True)


async def test_of_the_input_and_of_the_key_nothing_is_kept(stage: Stage, db: sqlite3.Connection) -> None:
    await stage.deploy("() => 1")
    await keyed(stage, "needle-in-the-key", "needle-in-the-input")
    rows = [row for table in ("runs", "run_keys") for row in db.execute(f"SELECT * FROM {table}")]
    assert len(rows) == 2
    assert "needle" not in str(rows)


async def test_keys_are_forgotten_after_a_day_and_with_their_function(stage: Stage, db: sqlite3.Connection) -> None:
    await stage.deploy(COUNTS)
    await keyed(stage, "k")
    db.execute("UPDATE run_keys SET started = started - 86500")
    stage.host.prune()
    assert not (await keyed(stage, "k")).replayed
    await stage.host.remove("main", "f")
    assert db.execute("SELECT count(*) FROM run_keys").fetchone() == (0,)


@pytest.mark.parametrize("key", ["", "x" * 201])
async def test_what_is_no_key_is_refused(stage: Stage, key: str) -> None:
    await stage.deploy(COUNTS)
    with pytest.raises(Invalid, match="1 to 200 characters"):
        await keyed(stage, key)
