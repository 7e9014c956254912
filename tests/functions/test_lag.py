"""What a body may do to the engine's event loop: hold it up for less than 50 ms, whatever it does.

Measured in CPU time of the loop's thread between two turns of the loop: on a machine with other things to do, wall time tells what
they do. The collector of garbage is left on: it is part of what a large result costs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rootlink.engine.functions.results import MAX_PARTS, has_too_many_parts
from tests.functions.ground import Answer, Asked, Stage

MOST_SECS = 0.05
TRIES = 3  # what else runs on the machine makes it slower, and nothing makes it faster


class Probe:
    """The longest stretch of CPU that the loop's thread used without coming round."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def go(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            self.longest = max(self.longest, time.thread_time() - before)


@asynccontextmanager
async def probed() -> AsyncIterator[Probe]:
    probe = Probe()
    task = asyncio.create_task(probe.go())
    try:
        yield probe
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


M = "(4 << 20) - 100"
BODIES = {
    "a long string": f"() => 'x'.repeat({M})",
    "a long string of escapes": f"() => '\\n'.repeat(({M}) / 2)",
    "a long string in another alphabet": f"() => '\\u4e16'.repeat({M} - 2)",
    "a string full of brackets": f"() => '['.repeat({M})",
    "JSON in a string": f"() => '[{{\"a\":1}}],'.repeat(({M}) / 15)",
    "numbers": f"() => new Array(({M}) / 2 - 2).fill(0)",
    "fractions": f"() => new Array((({M}) / 7) | 0).fill(1.5e10)",
    "empty lists": f"() => new Array((({M}) / 3) | 0).fill([])",
    "empty objects": f"() => new Array((({M}) / 3) | 0).fill({{}})",
    "empty strings": f"() => new Array((({M}) / 3) | 0).fill('')",
    "members": "() => { const o = {}; for (let i = 0; i < 3e5; i++) o['k' + i] = 0; return o }",
    "as many lists as may be": f"() => new Array({MAX_PARTS - 2}).fill([])",
    "as many members as may be": f"() => {{ const o = {{}}; for (let i = 0; i < {MAX_PARTS - 1}; i++) o['k' + i] = 0; return o }}",
    "as many of both as may be, and a long string": f"() => [new Array({MAX_PARTS // 2 - 4}).fill([]), new Array({MAX_PARTS // 2 - 4}).fill('[]'), '['.repeat(35e5)]",
    "deep": "() => { let a = []; for (let i = 0; i < 100; i++) a = [a]; return new Array(900).fill(a) }",
    "a thousand timers": "async () => { for (let i = 0; i < 1000; i++) setTimeout(() => {}, 0); await new Promise((done) => queueMicrotask(done)); return 1 }",
    "a thousand timers that ring": "async () => { let n = 0; await new Promise((done) => { for (let i = 0; i < 999; i++) setTimeout(() => ++n === 999 && done(), 5) }); return n }",
    "a thousand requests": "async () => (await Promise.allSettled(Array.from({ length: 990 }, () => fetch('https://api.example/')))).length",
    "a thousand refused requests": "async () => (await Promise.allSettled(Array.from({ length: 990 }, () => fetch('https://evil.example/')))).length",
    "requests nobody waits for": "() => { for (let i = 0; i < 990; i++) fetch('https://api.example/').catch(() => {}); return 1 }",
    "large requests": "async () => { const body = 'x'.repeat(7 << 20); await Promise.allSettled([1, 2, 3, 4].map(() => fetch('https://api.example/', { method: 'POST', body }))); return 1 }",
    "a large answer": "async () => (await (await fetch('https://api.example/large')).text()).length",
    "a thousand digests": "async () => { const d = new Uint8Array(20000); await Promise.all(Array.from({ length: 900 }, () => crypto.subtle.digest('SHA-256', d))); return 1 }",
    "large digests": "async () => { const d = new Uint8Array(5 << 20); for (let i = 0; i < 4; i++) await crypto.subtle.digest('SHA-512', d); return 1 }",
    "a thousand lines": "() => { for (let i = 0; i < 1001; i++) console.log('x'.repeat(250)); return 1 }",
    "one long line": "() => { console.log('x'.repeat(250 << 10)); return 1 }",
    "lines like secrets": "(input, ctx) => { for (let i = 0; i < 1001; i++) console.log(ctx.API_KEY.slice(0, -1).repeat(14)); return 1 }",
    "lines full of secrets": "(input, ctx) => { for (let i = 0; i < 1001; i++) console.log(ctx.API_KEY.repeat(14)); return 1 }",
    "a long error": "() => { throw new Error('x'.repeat(1e7)) }",
    "a result of secrets": "(input, ctx) => ctx.API_KEY.repeat(2e5)",
    "all at once": "async () => { for (let i = 0; i < 900; i++) { setTimeout(() => {}, 1); console.log('x'.repeat(200)) } return 'x'.repeat(4e6) }",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_no_body_holds_up_the_engine(stage: Stage, body: str) -> None:
    async def network(asked: Asked) -> Answer:
        return Answer(body=b"\x01" * (3 << 20) if asked.url.endswith("large") else b"{}", url=asked.url)

    stage.out.network = network
    await stage.deploy(body, memory_mb=256, timeout_ms=20_000)
    longest: list[float] = []
    while len(longest) < TRIES and min(longest, default=1.0) > MOST_SECS:
        async with probed() as probe:
            run = await stage.host.invoke("main", "f", None)
            await asyncio.sleep(0.2)  # what is written behind belongs to it
        assert run.status in ("ok", "error"), run.error
        longest.append(probe.longest)
    assert min(longest) < MOST_SECS, longest


@pytest.mark.parametrize(
    ("json", "refused"),
    [
        ('"' + "[" * MAX_PARTS * 2 + '"', False),
        ('"' + '\\"' * MAX_PARTS * 4 + '"', False),
        ('"' + "\\\\" * MAX_PARTS * 2 + '"', False),
        ("[" + "0," * MAX_PARTS * 3 + "0]", False),
        ("[" + '"\\\\",' * (MAX_PARTS - 2) + "0]", False),
        ("[" + '"[\\"",' * MAX_PARTS + "0]", True),
        ("[" + "[]," * (MAX_PARTS - 1) + "0]", False),
        ("[" + "[]," * MAX_PARTS + "0]", True),
        ("[" + "{}," * MAX_PARTS + "0]", True),
        ("[" + '{"a":""},' * (MAX_PARTS // 3) + "0]", False),
        ("[" + '{"a":""},' * (MAX_PARTS // 2) + "0]", True),
        ("[" + '["\\\\"],' * (MAX_PARTS // 2 + 1) + '"["]', True),
    ],
)
def test_the_parts_of_a_result_are_counted_as_json_has_them(json: str, refused: bool) -> None:
    assert has_too_many_parts(json.encode()) is refused


async def test_a_result_of_too_many_parts_is_an_error_that_says_so(stage: Stage) -> None:
    error = await stage.error(BODIES["empty lists"], memory_mb=256)
    assert error["name"] == "OutputError"
    assert error["message"] == "the result holds more than 100,000 lists, objects and strings (names of members too)"
    assert len(await stage.output(BODIES["as many lists as may be"], memory_mb=256)) == MAX_PARTS - 2
