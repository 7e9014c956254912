"""setInterval, its end, and performance.now; beside setTimeout, which test_limits.py has."""

from __future__ import annotations

from tests.functions.ground import Stage


async def test_an_interval_ticks_until_it_is_cleared(stage: Stage) -> None:
    body = """async () => { const seen = []; await new Promise((done) => { const id = setInterval((a, b) => { seen.push(a + b); if (seen.length === 3) { clearInterval(id); done() } }, 2, 1, 2) });
        await new Promise((done) => setTimeout(done, 20)); return seen }"""
    assert await stage.output(body) == [3, 3, 3]


async def test_clearing_is_for_timers_of_both_kinds_and_nothing_else(stage: Stage) -> None:
    body = """async () => { let rang = 0; clearTimeout(setInterval(() => rang++, 1)); clearInterval(setTimeout(() => rang++, 1));
        const answer = fetch('https://api.example/'); for (let id = 0; id < 50; id++) clearTimeout(id);
        for (const odd of [undefined, null, 'x', Symbol('s'), {}, { toString() { throw 1 } }, NaN, -1]) clearInterval(odd);
        const { status } = await answer; await fetch('https://api.example/'); return [rang, status] }"""
    assert await stage.output(body) == [0, 200]


async def test_an_interval_that_throws_fails_the_run(stage: Stage) -> None:
    error = await stage.error("async () => { setInterval(() => { throw new Error('tick') }, 1); await new Promise(() => {}) }")
    assert error["message"] == "tick"


async def test_an_interval_ends_with_its_run_and_with_the_runs_operations(stage: Stage) -> None:
    assert await stage.output("() => { setInterval(() => {}, 1); return 'done' }") == "done"
    error = await stage.error(
        "async () => { for (let i = 0; i < 40; i++) setInterval(() => {}, 0); await new Promise(() => {}) }"
    )
    assert error["name"] == "LimitError"
    assert "at most 1000 a run" in error["message"]


async def test_no_interval_without_a_function(stage: Stage) -> None:
    assert (await stage.error("() => setInterval('code', 1)"))["name"] == "TypeError"


async def test_the_clock_goes_forward_in_whole_milliseconds_and_belongs_to_the_call(stage: Stage) -> None:
    body = """async () => { const first = performance.now(); await new Promise((done) => setTimeout(done, 30)); const second = performance.now();
        performance.mine = (performance.mine ?? 0) + 1;
        return [Number.isInteger(first), second - first >= 25, first < 1000, Math.abs(performance.timeOrigin + second - Date.now()) < 100, performance.mine] }"""
    await stage.deploy(body)
    for _ in range(2):
        assert (await stage.host.invoke("main", "f", None)).output == [True, True, True, True, 1]
