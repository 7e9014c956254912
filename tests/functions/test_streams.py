"""Streams inside an isolate, against Node's; and answers that come piece by piece, on a hand-written way out and on the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rootlink.engine.functions.exchange import Exchange, Fetch
from tests.functions.ground import Answer, Asked, Stage, WayOut
from tests.functions.peer import differences

READABLE = [
    "const s = new ReadableStream({ start(c) { c.enqueue(1); c.enqueue('b'); c.close() } }); const g = []; for await (const x of s) g.push(x); return [g, s.locked]",
    "let n = 0; const s = new ReadableStream({ pull(c) { c.enqueue(n++); if (n === 5) c.close() } }); return await Array.fromAsync(s)",
    "let n = 0; const s = new ReadableStream({ async pull(c) { await null; c.enqueue(n++); if (n === 3) c.error(new RangeError('x')) } }); const r = s.getReader(); const g = []; try { for (;;) g.push((await r.read()).value) } catch (e) { return [g.length <= 3, e.name] }",
    "const s = new ReadableStream(); s.getReader(); try { s.getReader() } catch (e) { return [e.name, s.locked] }",
    "const s = new ReadableStream(); const r = s.getReader(); const p = r.read(); r.releaseLock(); return [await p.catch((e) => e.name), s.locked, await r.read().catch((e) => e.name), await r.closed.catch((e) => e.name)]",
    "let why; const s = new ReadableStream({ cancel(r) { why = r } }); await s.cancel('enough'); return [why, (await s.getReader().read()).done]",
    "const s = new ReadableStream({ cancel() { throw new RangeError('no') } }); await s.cancel()",
    "let why = 'none'; const s = new ReadableStream({ start(c) { c.enqueue(1); c.enqueue(2) }, cancel(r) { why = String(r) } }); for await (const x of s) break; return [why, s.locked]",
    "let why = 'none'; const s = new ReadableStream({ start(c) { c.enqueue(1); c.enqueue(2); c.close() }, cancel(r) { why = String(r) } }); for await (const x of s.values({ preventCancel: true })) break; return [why, s.locked, (await s.getReader().read()).value]",
    "const s = new ReadableStream({ start(c) { c.enqueue('a'); c.enqueue('b'); c.close() } }); const [x, y] = s.tee(); return [await Array.fromAsync(x), await Array.fromAsync(y), s.locked]",
    "let why; const s = new ReadableStream({ cancel(r) { why = r } }); const [x, y] = s.tee(); const p = x.cancel(1); await y.cancel(2); await p; return why",
    "const s = new ReadableStream({ start(c) { c.error(new RangeError('r')) } }); const [x, y] = s.tee(); return [await x.getReader().read().catch((e) => e.name), await y.getReader().closed.catch((e) => e.name)]",
    "const sizes = []; const s = new ReadableStream({ start(c) { sizes.push(c.desiredSize); c.enqueue('abc'); sizes.push(c.desiredSize); c.close(); sizes.push(c.desiredSize) } }, { highWaterMark: 5, size: (x) => x.length }); return sizes",
    "let pulls = 0; const s = new ReadableStream({ pull() { pulls++ } }, { highWaterMark: 0 }); await new Promise((d) => setTimeout(d, 5)); return pulls",
    "let pulls = 0; const s = new ReadableStream({ pull(c) { pulls++; c.enqueue(1) } }, { highWaterMark: 3 }); await new Promise((d) => setTimeout(d, 5)); return pulls",
    "const s = new ReadableStream({ start(c) { c.close(); c.enqueue(1) } })",
    "const s = new ReadableStream({ start(c) { c.close(); try { c.close() } catch (e) { throw new RangeError(e.name) } } })",
    "new ReadableStream(null)", "new ReadableStream({ pull: 1 })", "new ReadableStream({}, { highWaterMark: -1 })", "new ReadableStream({}, { highWaterMark: 'x' })",
    "const s = new ReadableStream({ start() { throw new RangeError('s') } })",
    "const s = new ReadableStream({ async start() { throw new RangeError('s') } }); await s.getReader().read()",
    "const s = new ReadableStream({ pull() { throw new RangeError('s') } }); await s.getReader().read()",
    "const s = new ReadableStream({ pull: () => ({ then(ok, no) { no(new RangeError('t')) } }) }); await s.getReader().read()",
    "const s = new ReadableStream({}, { size() { throw new RangeError('size') } }); let c; const t = new ReadableStream({ start(x) { c = x } }, { size() { throw new RangeError('size') } }); try { c.enqueue(1) } catch (e) { return [e.name, await t.getReader().read().catch((e) => e.name)] }",
    "return await Array.fromAsync(ReadableStream.from([1, Promise.resolve(2), 3]))",
    "return await Array.fromAsync(ReadableStream.from((async function* () { yield 1; yield 2 })()))",
    "let ended = false; const s = ReadableStream.from((async function* () { try { yield 1; yield 2 } finally { ended = true } })()); for await (const x of s) break; return ended",
    "ReadableStream.from(null)", "ReadableStream.from(5)", "ReadableStream.from('ab').getReader(); return 1",
    "class Mine extends ReadableStream { get extra() { return 7 } } const m = new Mine({ start(c) { c.enqueue(1); c.close() } }); return [m.extra, m instanceof ReadableStream, await Array.fromAsync(m)]",
    "return ReadableStream.prototype.getReader.call({})", "return ReadableStream.prototype.cancel.call(Object.create(ReadableStream.prototype)).then(() => 1)",
    "const s = new ReadableStream({ start(c) { c.enqueue(1) } }); const r = s.getReader(); await r.read(); const p = r.read(); await r.cancel('x'); return await p",
    "return [Object.prototype.toString.call(new ReadableStream()), typeof ReadableStream, new ReadableStream().locked]",
    "const s = new ReadableStream(); s.getReader(); await s.cancel()",
    "const s = new ReadableStream({ start(c) { c.enqueue(1); c.close() } }); const r = s.getReader(); await r.read(); await r.closed; r.releaseLock(); return s.locked",
]  # fmt: skip

PIPES = [
    "const g = []; await ReadableStream.from([1, 2, 3]).pipeTo(new WritableStream({ write(x) { g.push(x) }, close() { g.push('end') } })); return g",
    "const t = new TransformStream({ transform(x, c) { c.enqueue(x * 2); if (x > 1) c.enqueue('+') }, flush(c) { c.enqueue('flushed') } }); return await Array.fromAsync(ReadableStream.from([1, 2]).pipeThrough(t))",
    "return await Array.fromAsync(ReadableStream.from(['a']).pipeThrough(new TransformStream()))",
    "const t = new TransformStream({ transform() { throw new RangeError('t') } }); await Array.fromAsync(ReadableStream.from([1]).pipeThrough(t))",
    "let why; const w = new WritableStream({ abort(r) { why = r.name } }); const s = new ReadableStream({ start(c) { c.error(new RangeError('s')) } }); const e = await s.pipeTo(w).catch((e) => e.name); return [e, why]",
    "let why; const w = new WritableStream({ write() { throw new RangeError('w') } }); const s = new ReadableStream({ start(c) { c.enqueue(1); c.enqueue(2) }, cancel(r) { why = r.name } }); const e = await s.pipeTo(w).catch((e) => e.name); return [e, why, s.locked, w.locked]",
    "const a = new AbortController(); let why = []; const s = new ReadableStream({ cancel(r) { why.push('c' + r) } }); const w = new WritableStream({ abort(r) { why.push('a' + r) } }); const p = s.pipeTo(w, { signal: a.signal }).catch((e) => e); a.abort('stop'); return [await p, why.sort()]",
    "const g = []; const w = new WritableStream({ async write(x) { await null; g.push(x) } }); const writer = w.getWriter(); writer.write(1); writer.write(2); await writer.close(); return [g, w.locked, await writer.closed.then(() => 'closed')]",
    "const w = new WritableStream({}, { highWaterMark: 2 }); const x = w.getWriter(); const sizes = [x.desiredSize]; x.write(1); sizes.push(x.desiredSize); x.write(2); sizes.push(x.desiredSize); await x.ready; return [sizes, x.desiredSize]",
    "const w = new WritableStream({ write() { throw new RangeError('w') } }); const x = w.getWriter(); return [await x.write(1).catch((e) => e.name), await x.write(2).catch((e) => e.name), await x.closed.catch((e) => e.name)]",
    "const w = new WritableStream(); await w.close(); await w.getWriter().write(1)",
    "const w = new WritableStream(); w.getWriter(); await w.close()", "new WritableStream(null)", "new WritableStream({ write: 5 })",
    "const w = new WritableStream(); const x = w.getWriter(); x.releaseLock(); await x.write(1)",
    "const bytes = [[0xf0, 0x9f], [0x98, 0x80, 0x41], [0xc3]].map((b) => new Uint8Array(b)); return await Array.fromAsync(ReadableStream.from(bytes).pipeThrough(new TextDecoderStream()))",
    "await Array.fromAsync(ReadableStream.from([new Uint8Array([0xff])]).pipeThrough(new TextDecoderStream('utf-8', { fatal: true })))",
    "const out = await Array.fromAsync(ReadableStream.from(['h\\u00e9\\ud83d', '\\ude00', '\\ud800']).pipeThrough(new TextEncoderStream())); return out.flatMap((x) => [...x])",
    "await ReadableStream.from([1]).pipeTo({})", "ReadableStream.from([1]).pipeThrough({})",
    "const t = new TransformStream({ start(c) { c.enqueue('first') }, transform(x, c) { c.terminate() } }); const w = t.writable.getWriter(); w.write(1).catch(() => {}); return [await Array.fromAsync(t.readable), await w.closed.catch((e) => e.name)]",
    "let n = 0; const t = new TransformStream({ transform(x, c) { n++; c.enqueue(x) } }); const w = t.writable.getWriter(); w.write(1); w.write(2); await new Promise((d) => setTimeout(d, 5)); const before = n; const r = t.readable.getReader(); const got = [(await r.read()).value, (await r.read()).value]; return [before <= 1, got]",
]  # fmt: skip


async def test_readable_streams_are_nodes(stage: Stage) -> None:
    assert await differences(stage, READABLE) == []


async def test_pipes_are_nodes(stage: Stage) -> None:
    assert await differences(stage, PIPES) == []


async def test_what_is_not_there_says_so(stage: Stage) -> None:
    body = """() => [() => new ReadableStream({ type: 'bytes' }), () => new ReadableStream().getReader({ mode: 'byob' })].map((act) => {
        try { act() } catch (error) { return [error.name, error.message] } })"""
    told = await stage.output(body)
    assert [name for name, _ in told] == ["TypeError", "TypeError"]
    assert "byte streams are not supported here" in told[0][1]
    assert "byob is not supported here" in told[1][1]


# answers that come piece by piece


def pieces(*parts: bytes, pause: float = 0.0, ended: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    async def flow() -> AsyncIterator[bytes]:
        try:
            for part in parts:
                yield part
                await asyncio.sleep(pause)
        finally:
            if ended is not None:
                ended.set()

    return flow()


async def test_a_small_answer_that_ends_soon_comes_in_one_operation() -> None:
    async def network(asked: Asked) -> Answer:
        return Answer(source=pieces(b'{"a"', b": 1}"))

    out = WayOut()
    out.network = network
    said: list[tuple[int, Any]] = []
    exchange = Exchange(
        Fetch(7, "https://api.example/", "GET", [], "follow"), lambda *answer: said.append(answer), lambda: "not to be open"
    )
    await exchange.run(lambda: out.scope("f", None), 5.0)
    [(operation, answer)] = said
    assert (operation, answer["t"], exchange.finished) == (7, '{"a": 1}', True)


@pytest.mark.parametrize("read", ["bytes()", "arrayBuffer()", "blob()", "clone().bytes()"])
async def test_a_large_answer_survives_byte_for_byte(stage: Stage, read: str) -> None:
    data = bytes(range(256)) * 8000

    async def network(asked: Asked) -> Answer:
        return Answer(source=pieces(*(data[at : at + 100_001] for at in range(0, len(data), 100_001))))

    stage.out.network = network
    body = f"""async () => {{ const got = await (await fetch('https://api.example/')).{read};
        const bytes = new Uint8Array(got.arrayBuffer ? await got.arrayBuffer() : got.buffer ?? got); let wrong = 0;
        for (let i = 0; i < bytes.length; i++) if (bytes[i] !== i % 256) wrong++;
        return [bytes.length, wrong] }}"""
    assert await stage.output(body) == [len(data), 0]


async def test_a_large_text_survives_cuts_through_its_characters(stage: Stage) -> None:
    data = ("é€😀x" * 60_000).encode()

    async def network(asked: Asked) -> Answer:
        return Answer(source=pieces(*(data[at : at + 70_001] for at in range(0, len(data), 70_001))))

    stage.out.network = network
    body = "async () => { const t = await (await fetch('https://api.example/')).text(); return [t.length, t === 'é€😀x'.repeat(60000)] }"
    assert await stage.output(body) == [300_000, True]


async def test_events_are_read_as_they_come(stage: Stage) -> None:
    """An event is written only when the body has told that it read the one before."""
    seen = asyncio.Queue[str]()

    async def network(asked: Asked) -> Answer:
        if asked.url.endswith("/seen"):
            assert asked.data is not None
            await seen.put(asked.data.decode())
            return Answer()

        async def flow() -> AsyncIterator[bytes]:
            for number in range(5):
                yield f"data: {number}\n\n".encode()
                assert await seen.get() == str(number)

        return Answer(headers={"Content-Type": "text/event-stream"}, source=flow())

    stage.out.network = network
    body = """async () => { const response = await fetch('https://api.example/'); const got = [];
        for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
            const number = /data: (\\d)/.exec(text)[1]; got.push(number);
            await fetch('https://api.example/seen', { method: 'POST', body: number });
        }
        return got }"""
    assert await stage.output(body) == ["0", "1", "2", "3", "4"]


async def test_an_answer_nobody_reads_is_not_read_ahead(stage: Stage) -> None:
    given = 0

    async def flow() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(1000):
            given += 1
            yield b"x" * 65536
            await asyncio.sleep(0)

    async def network(asked: Asked) -> Answer:
        return Answer(source=flow())

    stage.out.network = network
    body = "async () => { await fetch('https://api.example/'); await new Promise((done) => setTimeout(done, 100)); return 1 }"
    assert await stage.output(body) == 1
    assert given <= 8


@pytest.mark.parametrize(
    "leave",
    [
        "await response.body.cancel('enough')",
        "for await (const piece of response.body) break",
        "controller.abort(); await response.text().catch((e) => e)",
        "",
    ],
    ids=["cancel", "break", "abort", "the end of the call"],
)
async def test_a_body_that_is_left_closes_its_connection(stage: Stage, leave: str) -> None:
    ended = asyncio.Event()

    async def network(asked: Asked) -> Answer:
        return Answer(source=pieces(*[b"x" * 65536] * 10_000, ended=ended))

    stage.out.network = network
    wait = "await new Promise((done) => setTimeout(done, 3000))" if leave else ""
    body = f"""async () => {{ const controller = new AbortController();
        const response = await fetch('https://api.example/', {{ signal: controller.signal }}); {leave}; {wait} }}"""
    run = asyncio.create_task(stage.run(body))
    async with asyncio.timeout(2.5):
        await ended.wait()
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)


async def test_an_abort_while_the_body_streams_is_what_reading_it_throws(stage: Stage) -> None:
    async def network(asked: Asked) -> Answer:
        return Answer(source=pieces(*[b"x"] * 1000, pause=0.01))

    stage.out.network = network
    body = """async () => { const response = await fetch('https://api.example/', { signal: AbortSignal.timeout(80) });
        let pieces = 0; try { for await (const piece of response.body) pieces++ } catch (e) { return [pieces > 0, e.name, e instanceof DOMException, e.code] } }"""
    assert await stage.output(body) == [True, "TimeoutError", True, 23]


async def test_a_connection_that_breaks_is_an_error_where_the_body_is_read(stage: Stage) -> None:
    async def flow() -> AsyncIterator[bytes]:
        yield b"x" * 300_000
        yield b"y" * 10
        raise OSError("broken")

    async def network(asked: Asked) -> Answer:
        return Answer(source=flow())

    stage.out.network = network
    body = """async () => { const response = await fetch('https://api.example/'); let size = 0;
        try { for await (const piece of response.body) size += piece.length } catch (e) { return [response.status, size, e.name, e.message] } }"""
    assert await stage.output(body) == [200, 300_010, "TypeError", "fetch failed: broken"]


async def test_a_body_read_whole_is_limited_and_one_read_in_pieces_further(stage: Stage) -> None:
    async def network(asked: Asked) -> Answer:
        return Answer(source=pieces(*[b"x" * 262_144] * int(asked.url.rpartition("=")[2])))

    stage.out.network = network
    whole = "async () => { await (await fetch('https://api.example/?n=65')).text() }"
    assert "larger than 16777216 bytes" in (await stage.error(whole))["message"]
    in_pieces = """async (n) => { let size = 0; try {
        for await (const piece of (await fetch('https://api.example/?n=' + n)).body) size += piece.length; return size } catch (e) { return e.message } }"""
    assert await stage.output(in_pieces, 250) == 250 * 262_144
    assert await stage.output(in_pieces, 257) == "fetch: the answer is larger than 67108864 bytes"


async def test_open_answers_are_limited_and_a_cancelled_one_makes_room(stage: Stage) -> None:
    async def network(asked: Asked) -> Answer:
        return Answer(source=pieces(*[b"x" * 65536] * 100))

    stage.out.network = network
    body = """async () => {
        const told = await Promise.allSettled(Array.from({ length: 40 }, () => fetch('https://api.example/')));
        const open = told.filter((one) => one.status === 'fulfilled').map((one) => one.value);
        const [refused] = told.filter((one) => one.status === 'rejected').map((one) => one.reason);
        await open[0].body.cancel();
        const again = await fetch('https://api.example/');
        return [open.length, refused.name, refused.message, again.status] }"""
    count, name, message, status = await stage.output(body)
    assert (count, name, status) == (32, "LimitError", 200)
    assert "at most 32 a run" in message


async def test_a_thousand_answers_opened_and_never_read_cost_the_engine_little(stage: Stage) -> None:
    async def network(asked: Asked) -> Answer:
        return Answer(source=pieces(*[b"x" * 65536] * 1000))

    stage.out.network = network
    body = """async () => { let open = 0, refused = 0;
        for (let i = 0; i < 1100; i += 50) await Promise.all(Array.from({ length: 50 }, () => fetch('https://api.example/').then(() => open++, () => refused++)));
        return [open, refused] }"""
    loop = asyncio.get_running_loop()
    lag = 0.0

    async def watch() -> None:
        nonlocal lag
        while True:
            asked = loop.time()
            await asyncio.sleep(0.005)
            lag = max(lag, loop.time() - asked - 0.005)

    watcher = asyncio.create_task(watch())
    assert await stage.output(body) == [32, 1068]
    watcher.cancel()
    assert len(stage.out.asked) <= 1000
    assert lag < 0.5


async def test_a_slow_body_ends_with_its_run(stage: Stage) -> None:
    ended = asyncio.Event()

    async def network(asked: Asked) -> Answer:
        return Answer(source=pieces(*[b"x"] * 100_000, pause=0.02, ended=ended))

    stage.out.network = network
    run = await stage.run("async () => await (await fetch('https://api.example/')).text()", timeout_ms=300)
    assert run.status == "timeout"
    assert ended.is_set()


HOSTILE = {
    "read twice at once": "async () => { const r = (await fetch('https://api.example/')).body.getReader(); return (await Promise.all([r.read(), r.read(), r.read()])).length }",
    "a then on chunks": "async () => { const s = new ReadableStream({ start(c) { c.enqueue({ get then() { throw 1 } }); c.close() } }); try { return (await s.getReader().read()).done } catch (e) { return e } }",
    "endless pull": "async () => { const s = new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(0)) } }); return await new Response(s).text() }",
    "endless chunks": "async () => { const s = new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(1 << 20)) } }); return (await new Response(s).text()).length }",
    "many streams": "async () => { const kept = []; for (let i = 0; i < 1e5; i++) kept.push(new ReadableStream({ pull() {} })); return kept.length }",
    "many tees": "async () => { let s = ReadableStream.from([1]); for (let i = 0; i < 300; i++) s = s.tee()[0]; return (await s.getReader().read()).value }",
    "many queued": "async () => { let c; new ReadableStream({ start(x) { c = x } }); for (let i = 0; i < 1e5; i++) c.enqueue(i); return c.desiredSize }",
    "forged record": "() => { try { return new ReadableStream({ state: 'readable', reads: [], queue: [] }).locked } catch (e) { return e.name } }",
    "controller taken": "() => { let c; new ReadableStream({ start(x) { c = x } }); try { new c.constructor({}) } catch (e) { return e.name } }",
    "prototype games": "async () => { try { Object.getPrototypeOf(new ReadableStream().getReader()).read = () => 1 } catch {} try { Promise.prototype.then = null } catch {} return (await ReadableStream.from([7]).getReader().read()).value }",
    "returned": "async () => new Response(new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(1 << 16)) } }))",
    "a reader given as one": "() => { try { return ReadableStream.prototype.getReader.call(new ReadableStream().getReader()) } catch (e) { return e.name } }",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_streams_hurt_only_their_own_run(stage: Stage, name: str) -> None:
    async def network(asked: Asked) -> Answer:
        return Answer(source=pieces(*[b"x" * 65536] * 20))

    stage.out.network = network
    await stage.deploy("(input) => input", "neighbour")
    run = await stage.run(HOSTILE[name], timeout_ms=800)
    assert run.status in ("ok", "error", "timeout", "killed")
    assert run.duration_ms < 2500
    assert (await stage.host.invoke("main", "neighbour", 7)).output == 7
    expected = {
        "read twice at once": 3,
        "many tees": 1,
        "forged record": False,
        "controller taken": "TypeError",
        "prototype games": 7,
        "a reader given as one": "TypeError",
    }
    if name in expected:
        assert run.output == expected[name], run
    if name == "endless chunks":
        assert run.error is not None
        assert "larger than 16777216 bytes" in run.error["message"]
