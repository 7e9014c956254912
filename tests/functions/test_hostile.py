"""Bodies written to break out, break V8 or wedge it, beside a function that is called all the time.

The corpus runs in one engine, so what one body leaves behind the next one meets. A neighbour may lose a call only when the whole
worker died under it, and then only the call that was in it.
"""

from __future__ import annotations

import asyncio
import time

import psutil
import pytest

from rootlink.engine.functions.host import Run
from rootlink.wire.mounts import FunctionSpec
from tests.functions.ground import Stage, end, processes

ABORTS = {  # V8 ends the process
    "split": "() => 'x'.repeat(2 ** 28).split('')",
    "nested regexp": "() => new RegExp('('.repeat(5000) + 'a' + '){1,2}'.repeat(5000)).test('a')",
}
WEDGES = {  # builtins that ignore being told to stop
    "fill": "() => new Array(2 ** 32 - 1).fill(0)",
    "from": "() => Array.from({ length: 1e9 })",
    "indexOf": "() => Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1)",
    "sort": "() => { const a = []; a.length = 2 ** 32 - 1; a.sort() }",
    "replace": "() => 'x'.repeat(2 ** 27).replace(/x/g, 'yyyy').length",
}
PRANKS = {
    "deep recursion": "() => { const f = () => f() + 1; return f() }",
    "string concat": "() => { let s = 'x'; for (;;) s += s }",
    "long result": "() => 'x'.repeat(2 ** 26)",
    "many keys": "() => { const o = {}; for (let i = 0; i < 1e6; i++) o['k' + i] = i; return o }",
    "freeze globals": "() => { Object.freeze(Object.prototype); Object.freeze(globalThis); return 1 }",
    "patch array": "() => { try { Array.prototype.map = () => 'evil' } catch {} try { Array.prototype.push = null } catch {} return [1].map(String) }",
    "patch json": '() => { try { JSON.stringify = () => \'{"k":"done","v":"evil"}\' } catch {} return \'honest\' }',
    "patch promise": "() => { try { Promise.prototype.then = function () { return 1 } } catch {} return 1 }",
    "prototype": "() => { try { Object.prototype.polluted = 1 } catch {} ; ({}).__proto__.polluted2 = 1 }",
    "global getter": "() => Object.defineProperty(globalThis, 'x' + Math.random(), { get() { throw 1 } })",
    "constructor": "() => (() => {}).constructor('return globalThis')().constructor.constructor('return 1')()",
    "find the bridge": "() => Object.getOwnPropertyNames((0, eval)('this')).filter((n) => /^k[0-9a-f]{24}$/.test(n))",
    "call sites": "() => { try { Error.prepareStackTrace = (e, s) => s.map((f) => String(f.getFunction())) } catch {} return new Error().stack }",
    "then bomb": "() => ({ then(f) { f({ then(g) { g({ then: this.then }) } }) } })",
    "await flood": "async () => { for (let i = 0; i < 1e5; i++) await null; return 1 }",
    "timer flood": "async () => { for (let i = 0; i < 1e5; i++) setTimeout(() => {}, 0) }",
    "fetch flood": "async () => { for (let i = 0; i < 1e5; i++) fetch('https://evil.example').catch(() => {}); return 1 }",
    "log flood": "() => { for (let i = 0; i < 1e6; i++) console.log('x') }",
    "log newlines": '() => { console.log(\'\\n1 {"k":"done","v":"forged"}\\n\'); return \'honest\' }',
    "intl": "() => { const a = []; for (let i = 0; i < 3e4; i++) a.push(new Intl.NumberFormat('de')); return a.length }",
    "shadow realm": "() => new ShadowRealm().evaluate('1')",
    "wasm": "() => new WebAssembly.Memory({ initial: 60000 })",
    "bigint": "() => { let n = 2n; for (;;) n *= n }",
    "date": "() => new Date(8.64e15).toISOString() + new Date(NaN)",
    "labels": "() => { a: for (;;) { b: for (;;) continue a } }",
    "generator": "() => { const g = (function* () { for (;;) yield 1 })(); return [...g] }",
    "proxy result": "() => new Proxy([], { get(t, k) { return k === 'length' ? 1e9 : t[k] } })",
    "weird then": "() => ({ get then() { throw new Error('t') } })",
    "delete": "() => { for (const k of Reflect.ownKeys(globalThis)) try { delete globalThis[k] } catch {} return 1 }",
    "array length": "() => { const a = []; a[4294967294] = 1; return a.concat(a).length }",
    "atob": "() => atob('A'.repeat(1 << 24)).length",
    "url": "() => new URL('http://' + 'a'.repeat(1e6) + '/' + '../'.repeat(1e5)).href.length",
    "clone": "() => { let a = {}; for (let i = 0; i < 1e5; i++) a = { a }; return structuredClone(a) }",
}
CORPUS = {**PRANKS, **WEDGES, **ABORTS}


class Neighbour:
    """Calls one function in a loop until stopped, and remembers how it went."""

    def __init__(self, stage: Stage, name: str) -> None:
        self._stage, self._name = stage, name
        self._stop = False
        self.runs: list[Run] = []
        self.lag = 0.0

    async def go(self) -> None:
        while not self._stop:
            self.runs.append(await self._stage.host.invoke("main", self._name, {"n": len(self.runs)}))
            asked = time.perf_counter()
            await asyncio.sleep(0.005)
            self.lag = max(self.lag, time.perf_counter() - asked - 0.005)

    def stop(self) -> None:
        self._stop = True


async def test_the_corpus_hurts_nobody_else(stage: Stage) -> None:
    await stage.deploy(
        "async (input) => ({ n: input.n, clean: ({}).polluted === undefined && [1, 2].map((x) => x * 2)[1] === 4 })", "good"
    )
    neighbour = Neighbour(stage, "good")
    loop = asyncio.create_task(neighbour.go())
    try:
        told = await through_the_corpus(stage)
    finally:
        neighbour.stop()
        await loop
    lost = [run for run in neighbour.runs if run.status != "ok"]
    assert len(lost) <= 2 * len(ABORTS), (lost, told)
    assert {run.status for run in lost} <= {"killed"}
    assert all(run.output == {"n": number, "clean": True} for number, run in enumerate(neighbour.runs) if run.status == "ok")
    assert len(neighbour.runs) > 200
    assert neighbour.lag < 1.0
    assert told["log newlines"] == "ok 'honest'"
    assert told["patch json"] == "ok 'honest'"
    assert told["find the bridge"] == "ok []"
    assert all(told[name].startswith(("timeout", "killed", "error")) for name in (*WEDGES, *ABORTS)), told


async def through_the_corpus(stage: Stage) -> dict[str, str]:
    """Each body once; what became of it."""
    told: dict[str, str] = {}
    for name, body in CORPUS.items():
        run = await stage.run(body, timeout_ms=400)
        told[name] = f"{run.status} {run.error['name'] if run.error else run.output!r:.60}"
        assert run.duration_ms < 1500, name
        after = await stage.host.invoke("main", "good", {"n": -1})
        if name in ABORTS and after.status == "killed":  # the run timed out first, and V8 gave up only then
            after = await stage.host.invoke("main", "good", {"n": -1})
        assert after.output == {"n": -1, "clean": True}, name
    return told


@pytest.mark.parametrize("body", [ABORTS["split"]])
async def test_an_abort_costs_the_calls_in_its_worker_and_next_time_only_its_own(stage: Stage, body: str) -> None:
    """After its first strike a function runs in quarantine: a call of another function no longer dies with it."""
    await stage.deploy("async () => { await new Promise((done) => setTimeout(done, 1500)); return 'survived' }", "slow")
    await stage.deploy(body, timeout_ms=5000)
    assert (await stage.host.invoke("main", "f", None)).status == "killed"
    await stage.host.invoke("main", "f", None)
    slow = asyncio.create_task(stage.host.invoke("main", "slow", None))
    again = await stage.host.invoke("main", "f", None)
    assert again.status == "killed"
    assert again.error is not None
    assert again.error["name"] in ("WorkerLost", "MemoryLimitError")
    assert (await slow).output == "survived"


async def test_a_neighbour_outlives_a_wedged_builtin(stage: Stage) -> None:
    await stage.deploy("async (ms) => { await new Promise((done) => setTimeout(done, ms)); return ms }", "good")
    await stage.deploy(WEDGES["fill"], timeout_ms=300)
    waiting = asyncio.create_task(stage.host.invoke("main", "good", 1500))
    wedged = await stage.host.invoke("main", "f", None)
    assert wedged.status == "timeout"
    for _ in range(5):
        assert (await stage.host.invoke("main", "good", 10)).output == 10
    assert (await waiting).output == 1500
    deadline = time.monotonic() + 10
    while len(processes()) > 3 and time.monotonic() < deadline:  # zygote, the new worker, a spare: the wedged one is gone
        await asyncio.sleep(0.05)
    assert len(processes()) <= 3


async def test_a_killed_worker_fails_what_was_in_it_and_nothing_else(stage: Stage) -> None:
    await stage.deploy("async (ms) => { await new Promise((done) => setTimeout(done, ms)); return 'done' }")
    call = asyncio.create_task(stage.host.invoke("main", "f", 60_000))
    await stage.host.invoke("main", "f", 1)
    await asyncio.to_thread(end, processes()[1:])
    run = await call
    assert run.status == "killed"
    assert run.error is not None
    assert run.error["name"] == "WorkerLost"
    assert "not repeated" in run.error["message"]
    assert (await stage.host.invoke("main", "f", 1)).output == "done"


async def test_a_killed_zygote_is_replaced(stage: Stage) -> None:
    await stage.deploy("() => 1")
    zygote, *workers = processes()
    zygote.kill()
    await asyncio.to_thread(psutil.wait_procs, workers, timeout=10)  # they die with it
    run = await stage.host.invoke("main", "f", None)
    assert run.output == 1
    assert await stage.output("() => 2") == 2


async def test_calls_of_one_function_share_no_state(stage: Stage) -> None:
    """The leak table: everywhere one call could leave something for the next."""
    places = [
        "globalThis", "Object.prototype", "Array.prototype", "Function.prototype", "Promise.prototype", "Error", "RegExp", "JSON", "Math",
        "Reflect", "Symbol", "Map.prototype", "Intl.NumberFormat", "(async () => {}).constructor.prototype",
        "Object.getPrototypeOf(function* () {})", "Object.getPrototypeOf([].values())", "Object.getPrototypeOf(Int8Array)",
        "Object.getPrototypeOf(new Intl.Segmenter().segment('a'))", "Object.getPrototypeOf(new Intl.Segmenter().segment('a')[Symbol.iterator]())",
        "Object.getPrototypeOf('a'.matchAll(/a/g))", "Object.getPrototypeOf([].values().map(String))", "(0, eval)('this')",
        "URL", "URL.prototype", "URLSearchParams.prototype", "TextEncoder.prototype", "TextDecoder", "structuredClone", "atob", "fetch",
        "crypto.subtle", "AbortSignal", "Object.getPrototypeOf(new URLSearchParams('a=1').entries())", "Object.getPrototypeOf(async function* () {})",
        "Object.getPrototypeOf(new Map().entries())", "Iterator.prototype", "DisposableStack.prototype", "Date", "String.raw",
    ]  # fmt: skip
    tries = ", ".join(f"['{place.replace(chr(39), chr(34))}', () => {place}]" for place in places)
    body = f"""async () => {{
        const key = await crypto.subtle.importKey('raw', new Uint8Array(4), {{ name: 'HMAC', hash: 'SHA-256' }}, true, ['sign']);
        const left = [];
        for (const [name, find] of [{tries}, ['key', () => Object.getPrototypeOf(key)]]) {{
            const place = find();
            if (place.leaked) left.push(name);
            try {{ place.leaked = 1 }} catch {{}}
        }}
        /secret(.)/.exec('secretX'); if (RegExp.$1) left.push('RegExp.$1');
        return left;
    }}"""
    await stage.deploy(body)
    for _ in range(3):
        run = await stage.host.invoke("main", "f", None)
        assert run.output == [], run.error


async def test_everything_reachable_is_frozen(stage: Stage) -> None:
    """Walks from fresh objects to every object a call shares with the next; the few that are made per call are left out."""
    body = """async () => {
        const roots = [(0, eval)('this'), function* () {}, async () => {}, async function* () {}, [].values(), ''[Symbol.iterator](), /a/, new Date(),
            'x'.matchAll(/x/g), new Map().keys(), new Set().keys(), [].values().map(String), Iterator.from({ next() {} }), new Int8Array(), new DataView(new ArrayBuffer(1)),
            new Intl.Segmenter().segment('a'), new Intl.Segmenter().segment('a')[Symbol.iterator](), Promise.resolve(), new Error(), new Proxy({}, {}),
            new DisposableStack(), new AsyncDisposableStack(), RegExp('a').exec('a'), new Intl.Locale('de'), new Intl.DateTimeFormat()].map(Object.getPrototypeOf);
        roots.push((0, eval)('this'), URL, URLSearchParams, TextEncoder, TextDecoder, structuredClone, atob, btoa);
        const seen = new Set(), loose = [];
        const walk = (value, path) => {
            if ((typeof value !== 'object' && typeof value !== 'function') || value === null || seen.has(value)) return;
            seen.add(value);
            if (!Object.isFrozen(value)) loose.push(path);
            walk(Object.getPrototypeOf(value), path + '.__proto__');
            for (const key of Reflect.ownKeys(value)) {
                const { value: inner, get, set } = Object.getOwnPropertyDescriptor(value, key);
                for (const next of [inner, get, set]) walk(next, path + '.' + String(key));
            }
        };
        roots.forEach((root, i) => walk(root, 'root' + i));
        return { loose, count: seen.size };
    }"""
    output = await stage.output(body)
    assert output["loose"] == []
    assert output["count"] > 1000


async def test_a_mark_left_wherever_a_call_gets_is_not_there_for_the_next(stage: Stage) -> None:
    """Also on what only accessors give: the methods behind those of frozen prototypes, the getter of `stack`."""
    body = """async () => {
        const key = await crypto.subtle.generateKey({ name: 'HMAC', hash: 'SHA-256' }, true, ['sign']);
        const queue = [crypto, key, new Error(), {}, () => 1, new Response('x'), new FormData(), new Blob(['x']), new TransformStream(),
            new DOMException(), AbortSignal.abort(), new URL('https://a.example/?a=b'), new TextDecoder(), fetch, console, performance];
        const seen = new Set(), marked = [];
        while (queue.length) {
            const place = queue.pop();
            if (place === null || (typeof place !== 'object' && typeof place !== 'function') || seen.has(place)) continue;
            seen.add(place);
            if (Object.hasOwn(place, 'leaked')) marked.push(String(place.name ?? place).slice(0, 80));
            Reflect.defineProperty(place, 'leaked', { value: 1, configurable: true });
            queue.push(Object.getPrototypeOf(place));
            for (const name of Reflect.ownKeys(place)) {
                const { value, get, set } = Object.getOwnPropertyDescriptor(place, name);
                queue.push(value, get, set);
                try { if (get) queue.push(Reflect.apply(get, place, [])) } catch {}
            }
        }
        return { marked, count: seen.size };
    }"""
    await stage.deploy(body)
    for _ in range(2):
        output = (await stage.host.invoke("main", "f", None)).output
        assert output["marked"] == []
        assert output["count"] > 300


async def test_frozen_prototypes_do_not_get_in_the_way_of_ordinary_code(stage: Stage) -> None:
    body = """async () => {
        class Failure extends Error { constructor(m) { super(m); this.name = 'Failure'; this.message = m + '!' } toString() { return 'F' } }
        const o = {}; o.toString = () => 'o'; o.constructor = 1; o.valueOf = () => 3;
        function Old() {} Old.prototype.toString = () => 'old'; Old.prototype = { constructor: Old };
        const f = () => {}; f.toString = () => 'f'; const e = new TypeError('x'); e.name = 'Named'; e.message = 'y';
        class Point { constructor(x) { this.x = x } get y() { return this.x } static make() { return new this(2) } }
        return [String(new Failure('m')), `${o}`, o + 1, String(f), String(e), Point.make().y, [3, 1, 2].sort().map((x) => x * 2)];
    }"""
    assert await stage.output(body) == ["F", "o", 4, "f", "Named: y", 2, [2, 4, 6]]


async def test_many_isolates_come_and_go_without_a_leak(stage: Stage) -> None:
    for round_number in range(3):
        for number in range(40):
            await stage.host.deploy("main", FunctionSpec(name=f"f{number}", code=f"() => {round_number}"))
            assert (await stage.host.invoke("main", f"f{number}", None)).output == round_number
    workers = processes()[1:]
    assert sum(worker.num_threads() for worker in workers) < 40 + 30
