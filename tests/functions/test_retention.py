"""What is kept of runs and how much of it, and what is told of hosts they were refused."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time

import msgspec
import pytest

from rootlink.engine.functions import ledger
from rootlink.engine.functions.hints import hint
from rootlink.engine.functions.refusals import Refusals
from rootlink.engine.functions.run import Denied, LogLine, shortened
from rootlink.errors import EgressBlocked
from tests.functions.ground import Answer, Asked, Stage

BLOCKED = "egress blocked: host 'evil.example' is not in this project's outbound allowlist"


def refused(host: str = "evil.example", port: int = 443) -> EgressBlocked:
    words = f"egress blocked: host '{host}' is not in this project's outbound allowlist"
    return EgressBlocked(words, data={"host": host, "port": port, "reason": "not_in_allowlist", "connection": "f"})


@pytest.fixture
def closed(stage: Stage) -> Stage:
    """Nothing is allowed; every host but `evil.example`, which the stage itself refuses, is refused with its name."""

    async def network(asked: Asked) -> Answer:
        raise refused(asked.url.split("/")[2])

    stage.out.network = network
    return stage


async def test_logs_are_answered_whole_and_kept_up_to_their_limit(stage: Stage) -> None:
    run = await stage.run("() => { for (let i = 0; i < 200; i++) console.log(String(i).padEnd(1000, '.')) }")
    assert (len(run.logs), run.logs_truncated) == (200, False)
    kept = stage.host.run("main", "f", run.run_id)
    assert kept.logs_truncated
    assert sum(len(line.text) for line in kept.logs) == 64 << 10
    assert kept.logs[:65] == run.logs[:65]


def test_a_line_is_cut_between_characters() -> None:
    lines = [LogLine("log", "é" * 10, "t"), LogLine("log", "é" * 10, "t"), LogLine("log", "z", "t")]
    assert [line.text for line in shortened(lines, 31)] == ["é" * 10, "é" * 5]
    assert shortened(lines, 41) is lines


async def test_an_error_is_bounded_and_says_where(stage: Stage) -> None:
    run = await stage.run("() => { throw new Error('x'.repeat(1e6)) }")
    assert run.error is not None
    assert len(run.error["message"]) <= 4000
    assert len(run.error["stack"]) <= 8000


async def test_runs_older_than_thirty_days_go(stage: Stage, db: sqlite3.Connection) -> None:
    await stage.deploy("(n) => n")
    for number in range(4):
        await stage.host.invoke("main", "f", number)
    stage.host._ledger.flush()
    old = time.time() - 30 * 86400
    db.execute("UPDATE runs SET started = ? WHERE seq <= 2", (old - 60,))
    db.execute("UPDATE runs SET started = ? WHERE seq = 3", (old + 60,))
    stage.host.prune()
    assert [run.output for run in stage.host.runs("main", "f")] == [3, 2]


async def test_pruning_by_age_reads_an_index_and_no_run(stage: Stage, db: sqlite3.Connection) -> None:
    plan = str(db.execute("EXPLAIN QUERY PLAN DELETE FROM runs WHERE started < 1").fetchall())
    assert "runs_by_age" in plan


async def test_runs_are_listed_by_status_and_to_a_limit(stage: Stage) -> None:
    await stage.deploy("(n) => { if (n % 3 === 0) throw new Error('x'); return n }")
    for number in range(9):
        await stage.host.invoke("main", "f", number)
    assert [run.output for run in stage.host.runs("main", "f", 3, "ok")] == [8, 7, 5]
    assert [run.status for run in stage.host.runs("main", "f", 50, "error")] == ["error"] * 3
    assert stage.host.runs("main", "f", 50, "killed") == []


async def test_a_list_of_large_runs_is_not_large_itself(stage: Stage) -> None:
    await stage.deploy("() => { console.log('y'.repeat(60000)); return 'x'.repeat(60000) }")
    for _ in range(30):
        await stage.host.invoke("main", "f", None)
    runs = stage.host.runs("main", "f")
    assert len(msgspec.json.encode(runs)) < 1.2 * (1 << 20)
    assert [len(runs), len(runs[0].output), len(runs[0].logs), runs[0].logs_truncated] == [30, 60_000, 1, False]
    last = runs[-1]
    assert (last.output, last.output_bytes, last.logs, last.logs_truncated) == (None, 60_002, [], True)
    assert len(stage.host.run("main", "f", last.run_id).output) == 60_000


async def test_many_large_runs_are_written_a_few_at_a_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    flush = ledger.Ledger.flush

    def noted(self: ledger.Ledger) -> None:
        written.append(self._unwritten_bytes)
        flush(self)

    monkeypatch.setattr(ledger.Ledger, "flush", noted)
    monkeypatch.setattr(ledger, "FLUSH_SECS", 60)
    await stage.deploy("() => 'x'.repeat(60000)")
    for _ in range(40):
        await stage.host.invoke("main", "f", None)
    assert len(written) == 2
    assert max(written) < ledger.MAX_UNWRITTEN_BYTES + (64 << 10)


# hosts that were refused


async def test_the_hosts_a_run_was_refused_are_kept_with_it_however_its_body_took_it(closed: Stage) -> None:
    run = await closed.run(
        "async () => { for (const host of ['a', 'b', 'a']) { try { await fetch(`https://${host}.example/`) } catch {} } return 1 }"
    )
    assert (run.status, run.error) == ("ok", None)
    assert [(one.host, one.port, one.count) for one in run.denied] == [("a.example", 443, 2), ("b.example", 443, 1)]
    assert closed.host.run("main", "f", run.run_id).denied == run.denied


async def test_a_body_that_throws_words_of_its_own_for_a_refusal_does_not_hide_it(closed: Stage) -> None:
    error = await closed.error(
        "async () => { try { await fetch('https://a.example/') } catch { throw new Error('fetch failed') } }"
    )
    assert error["message"] == "fetch failed"
    assert error["hint"] == (
        "egress blocked: host 'a.example' is not in this project's outbound allowlist; "
        "to allow it: rootlink egress allow a.example"
    )


async def test_an_error_that_tells_the_refusal_is_followed_by_what_to_do(closed: Stage) -> None:
    error = await closed.error("async () => fetch('https://a.example/')")
    assert error["message"] == "egress blocked: host 'a.example' is not in this project's outbound allowlist"
    assert error["hint"] == "to allow it: rootlink egress allow a.example"


async def test_an_error_without_a_refusal_has_no_hint(stage: Stage) -> None:
    assert "hint" not in await stage.error("async () => { throw new Error('x') }")


async def test_a_secret_in_the_name_of_a_host_is_not_kept(closed: Stage) -> None:
    run = await closed.run("async (input, ctx) => fetch(`https://${ctx.env.API_KEY}.example/`)")
    assert "sk_live" not in msgspec.json.encode([run.denied, run.error]).decode()


def test_at_most_fifty_hosts_of_a_run_are_kept_and_counted() -> None:
    refusals = Refusals()
    for number in range(80):
        for _ in range(2):
            refusals.note(refused(f"h{number}.example"))
    assert [(one.host, one.count) for one in refusals.denied] == [(f"h{number}.example", 2) for number in range(50)]


@pytest.mark.parametrize(
    ("port", "rule"), [(443, "evil.example"), (80, "evil.example"), (8443, "evil.example:8443"), (None, "evil.example")]
)
def test_the_hint_names_the_rule_that_would_open_it(port: int | None, rule: str) -> None:
    assert hint({"message": BLOCKED}, [Denied("evil.example", port, BLOCKED)]) == f"to allow it: rootlink egress allow {rule}"


def test_what_the_allowlist_does_not_open_is_told_without_that_advice() -> None:
    words = "egress blocked: host 'a' leads to 10.0.0.1, a private address; only the operator can open it"
    assert hint({"message": "x"}, [Denied("a", 443, words)]) == words
    assert hint({"message": f"x: {words}"}, [Denied("a", 443, words)]) == ""


async def test_a_run_says_what_it_cost(stage: Stage) -> None:
    await stage.deploy("(count) => { let sum = 0; for (let i = 0; i < count; i++) sum += Math.sqrt(i); return sum > 0 }")
    small, large = [await stage.host.invoke("main", "f", count) for count in (1000, 20_000_000)]
    assert large.cpu_ms > 10 * small.cpu_ms > 0
    assert stage.host.run("main", "f", large.run_id).cpu_ms == large.cpu_ms


async def test_a_flood_of_secrets_in_logs_holds_nobody_up(stage: Stage) -> None:
    """The slowest text for who looks for many secrets: long, and with many of them in it."""
    secrets = {f"S{number}": hashlib.sha256(str(number).encode()).hexdigest() for number in range(60)}
    stage.host.environment(secrets)
    body = """(input, ctx) => { const all = Object.values(ctx.env).join(' ');
        for (let i = 0; i < 60; i++) console.log(all.slice(0, 4000)) }"""
    await stage.deploy(body)
    await stage.host.invoke("main", "f", None)
    lags: list[float] = []

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - began)

    ticking = asyncio.create_task(tick())
    run = await stage.host.invoke("main", "f", None)
    ticking.cancel()
    assert len(run.logs) == 60
    assert not any(secret[:20] in line.text for line in run.logs for secret in list(secrets.values())[:50])
    assert max(lags) < 0.25
