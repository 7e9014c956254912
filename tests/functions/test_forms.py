"""Blob, File, FormData, DOMException and structuredClone inside an isolate, against Node's; and what hostile bodies make of them."""

from __future__ import annotations

import pytest

from tests.functions.ground import Stage
from tests.functions.peer import differences

BLOBS = [
    "const b = new Blob(['é', new Uint8Array([65, 66]), new Blob(['c']), 5], { type: 'Text/Plain' }); return [b.size, b.type, await b.text(), [...await b.bytes()]]",
    "const b = new Blob(['abcdef']); return [await b.slice(1, 3).text(), await b.slice(-2).text(), await b.slice(4, 2).text(), b.slice(0, 1, 'X/Y').type, await b.slice(0, -1).text(), await b.slice(-100, 100).text()]",
    "return [new Blob().size, new Blob([]).type, new Blob(['x'], { type: '\\u00e9' }).type, Object.prototype.toString.call(new Blob())]",
    "new Blob('x')", "new Blob(5)", "return await new Blob(new Set(['a', 'b'])).text()", "return (await new Blob(['xyz']).arrayBuffer()).byteLength",
    "const parts = []; for await (const p of new Blob(['xyz']).stream()) parts.push(...p); return parts", "const v = new Uint16Array([1, 2, 3]).subarray(1); return new Blob([v, v.buffer]).size",
    "const f = new File(['x'], 'n.txt', { type: 'a/b', lastModified: 5 }); return [f.name, f.type, f.lastModified, f.size, f instanceof Blob, Object.prototype.toString.call(f)]",
    "new File(['x'])", "return typeof new File([], 'x').lastModified", "const bytes = new Uint8Array([65]); const b = new Blob([bytes]); bytes[0] = 66; return await b.text()",
    "class B extends Blob { twice() { return this.size * 2 } } return new B(['ab']).twice()", "new Blob([{ toString() { throw new RangeError('t') } }])",
]  # fmt: skip
FORMS = [
    "const f = new FormData(); f.append('a', 1); f.append('a', 'two'); f.append('b', null); f.set('a', 'x'); f.append('c', 'y'); f.delete('b'); return [[...f], f.get('a'), f.getAll('c'), f.has('b'), f.get('no'), [...f.keys()], [...f.values()]]",
    "const f = new FormData(); f.append('x', new Blob(['b'], { type: 't/t' })); const v = f.get('x'); return [v.name, v.type, v instanceof File, await v.text()]",
    "const f = new FormData(); f.append('x', new File(['b'], 'old'), 'new'); return f.get('x').name", "const f = new FormData(); f.append('x', 'text', 'name')", "new FormData({})",
    "const f = new FormData(); const seen = []; f.append('k', 'v'); f.forEach((v, k, o) => seen.push(k, v, o === f)); return seen", "return Object.prototype.toString.call(new FormData())",
    "const f = new FormData(); f.append('a\\r\\n\"', 'x\\ny\\rz'); f.append('f', new File(['\\r\\n--'], 'ü\".txt')); const g = await new Response(f).formData(); return [[...g.keys()], g.get('a\\r\\n\"'), g.get('f').name, await g.get('f').text(), g.get('f').type]",
    "return (await new Response(new FormData()).text()).startsWith('--')", "return new Response(new FormData()).headers.get('content-type').startsWith('multipart/form-data; boundary=')",
    "const t = '--b\\r\\nContent-Disposition: form-data; name=\"a\"\\r\\n\\r\\n1\\r\\n--b\\r\\ncontent-disposition: form-data; name=\"f\"; filename=\"n\"\\r\\nContent-Type: x/y\\r\\n\\r\\n\\r\\n--b--\\r\\n'; const f = await new Response(t, { headers: { 'content-type': 'multipart/form-data; boundary=b' } }).formData(); return [f.get('a'), f.get('f').name, f.get('f').type, f.get('f').size]",
    "await new Response('--b\\r\\n', { headers: { 'content-type': 'multipart/form-data; boundary=b' } }).formData()", "await new Response('x', { headers: { 'content-type': 'multipart/form-data' } }).formData()",
    "await new Response('--b\\r\\nX: y\\r\\n\\r\\n1\\r\\n--b--', { headers: { 'content-type': 'multipart/form-data; boundary=b' } }).formData()",
    "FormData.prototype.get.call({}, 'x')",
]  # fmt: skip
ERRORS = [
    "const d = new DOMException('m', 'AbortError'); return [d.name, d.message, d.code, d instanceof Error, d instanceof DOMException, String(d), Object.prototype.toString.call(d)]",
    "const d = new DOMException(); return [d.name, d.message, d.code, typeof d.stack]", "return ['AbortError', 'TimeoutError', 'DataCloneError', 'NotSupportedError', 'QuotaExceededError', 'EncodingError'].map((n) => new DOMException('', n).code)",
    "const d = new DOMException('m', { name: 'X', cause: 7 }); return [d.name, d.cause]", "return [DOMException.ABORT_ERR, DOMException.DATA_CLONE_ERR, new DOMException().TIMEOUT_ERR, DOMException.INVALID_NODE_TYPE_ERR, DOMException.URL_MISMATCH_ERR]",
    "throw new DOMException('m', 'TimeoutError')", "class E extends DOMException {} return [new E('m', 'N') instanceof DOMException, new E('m', 'N').name]",
    "try { atob('*') } catch (e) { return [e.name, e.code, e instanceof DOMException] }", "try { btoa('\\u0100') } catch (e) { return [e.name, e.code] }",
    "try { structuredClone(() => 1) } catch (e) { return [e.name, e.code, e instanceof DOMException] }", "try { structuredClone(Symbol()) } catch (e) { return e.name }",
    "const a = new AbortController(); a.abort(); return [a.signal.aborted, a.signal.reason.name, a.signal.reason.code, a.signal.reason instanceof DOMException]",
    "try { AbortSignal.abort().throwIfAborted() } catch (e) { return e.name }", "try { AbortSignal.abort(7).throwIfAborted() } catch (e) { return e }",
    "const s = AbortSignal.timeout(5); await new Promise((d) => s.addEventListener('abort', d)); return [s.aborted, s.reason.name, s.reason.code]",
    "const a = new AbortController(); const s = AbortSignal.any([a.signal, new AbortController().signal]); const seen = []; s.onabort = (e) => seen.push(e.type, e.target === s); a.abort('why'); return [s.aborted, s.reason, seen, AbortSignal.any([AbortSignal.abort(3)]).reason]",
    "const a = new AbortController(); let n = 0; const f = () => n++; a.signal.addEventListener('abort', f); a.signal.addEventListener('abort', f); a.signal.addEventListener('abort', { handleEvent() { n += 10 } }, { once: true }); a.signal.addEventListener('other', f); a.abort(); a.abort(); return n",
    "const a = new AbortController(); let n = 0; const f = () => n++; a.signal.addEventListener('abort', f); a.signal.removeEventListener('abort', f); a.abort(); return n", "new AbortSignal()", "AbortSignal.any([{}])",
    "return [Object.prototype.toString.call(new AbortController()), Object.prototype.toString.call(new AbortController().signal)]", "AbortController.prototype.abort.call({})",
    "structuredClone(new Response('x'))", "structuredClone(new Headers())", "structuredClone(new ReadableStream())", "structuredClone(new FormData())",
    "const b = structuredClone({ b: new Blob(['x'], { type: 'a/b' }) }).b; return [await b.text(), b.type]",
    "const d = structuredClone(new DOMException('m', 'AbortError')); return [d.name, d.code, d instanceof DOMException]",
    "const a = new ArrayBuffer(4); const c = structuredClone({ a }, { transfer: [a] }); return [a.byteLength, a.detached, c.a.byteLength]", "const a = new ArrayBuffer(4); structuredClone(1, { transfer: [a, a] })", "structuredClone(1, { transfer: [{}] })",
]  # fmt: skip


@pytest.mark.parametrize("snippets", [BLOBS, FORMS, ERRORS], ids=["blobs", "forms", "errors"])
async def test_they_are_nodes(stage: Stage, snippets: list[str]) -> None:
    assert await differences(stage, snippets) == []


async def test_a_run_that_fails_with_a_domexception_is_told_by_its_name_and_place(stage: Stage) -> None:
    error = await stage.error("async () => {\n  throw new DOMException('too late', 'TimeoutError');\n}")
    assert (error["name"], error["message"]) == ("TimeoutError", "too late")
    assert "f.js:2:9" in error["stack"]


async def test_a_listener_that_throws_fails_the_run_and_the_others_are_told(stage: Stage) -> None:
    run = await stage.run("""async () => { const a = new AbortController(); a.signal.addEventListener('abort', () => { throw new Error('listener') });
        a.signal.addEventListener('abort', () => console.log('told')); a.abort(); await new Promise(() => {}) }""")
    assert run.error is not None
    assert run.error["message"] == "listener"


HOSTILE = {
    "a million entries": "() => { const f = new FormData(); for (let i = 0; i < 1e6; i++) f.append('k' + i, 'v'); return new Response(f).headers.get('content-type') }",
    "a thousand set": "() => { const f = new FormData(); for (let i = 0; i < 3000; i++) f.set('k' + i, 'v'); return [...f].length }",
    "a huge blob": "() => { let b = new Blob(['x'.repeat(1 << 20)]); for (;;) b = new Blob([b, b]) }",
    "a blob of blobs": "() => new Blob(Array.from({ length: 1e5 }, () => new Blob(['x']))).size",
    "endless parts": "() => new Blob((function* () { for (;;) yield 'x' })())",
    "parts with getters": "() => { try { new Blob([new Proxy({}, { get() { throw new RangeError('p') } })]) } catch (e) { return e.name } }",
    "headers without end": "() => { const h = new Headers(); for (;;) h.append('a' + Math.random().toString(36).slice(2), 'x'.repeat(1000)) }",
    "a boundary in the way": "async () => (await new Response('--b'.repeat(1e6), { headers: { 'content-type': 'multipart/form-data; boundary=b' } }).formData().catch((e) => e.name))",
    "a regexp as boundary": "async () => (await new Response('x', { headers: { 'content-type': 'multipart/form-data; boundary=' + '(a+)+$'.repeat(1000) } }).formData().catch((e) => e.name))",
    "a name with quotes": "async () => (await new Response('x', { headers: { 'content-type': 'multipart/form-data; boundary=\"' + '\\\\'.repeat(1e5) } }).formData().catch((e) => e.name))",
    "stolen private parts": "() => { class Thief extends Response { static take(r) { try { return Object.getOwnPropertyNames(r).concat(Object.getOwnPropertySymbols(r).map(String)) } catch (e) { return e.name } } } return Thief.take(new Response('x')) }",
    "the inside symbol": "() => { let seen; class Spy extends Response { constructor(...a) { seen = a; super(...a) } } const r = new Spy('x').clone(); return [r instanceof Spy, seen.length] }",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_uses_hurt_only_their_own_run(stage: Stage, name: str) -> None:
    await stage.deploy("(input) => input", "neighbour")
    run = await stage.run(HOSTILE[name], timeout_ms=800)
    assert run.duration_ms < 2500
    assert (await stage.host.invoke("main", "neighbour", 7)).output == 7
    expected = {
        "parts with getters": "RangeError",
        "a blob of blobs": 100_000,
        "a boundary in the way": "TypeError",
        "a regexp as boundary": "TypeError",
        "stolen private parts": [],
        "the inside symbol": [False, 1],
    }
    if name in expected:
        assert run.output == expected[name], run


PLACES = [
    "Request", "Request.prototype", "Response", "Response.prototype", "Object.getPrototypeOf(Response)", "Object.getPrototypeOf(Response.prototype)", "Headers", "Headers.prototype",
    "Object.getPrototypeOf(new Headers().entries())", "Object.getPrototypeOf(new Headers().keys())", "ReadableStream", "ReadableStream.prototype", "ReadableStream.from", "WritableStream.prototype",
    "TransformStream.prototype", "TextDecoderStream.prototype", "TextEncoderStream", "Object.getPrototypeOf(new ReadableStream().getReader())", "new ReadableStream().getReader().constructor",
    "Object.getPrototypeOf(new ReadableStream().values())", "Object.getPrototypeOf(Object.getPrototypeOf(new ReadableStream().values()))", "Object.getPrototypeOf(new WritableStream().getWriter())",
    "(() => { let c; new ReadableStream({ start(x) { c = x } }); return Object.getPrototypeOf(c) })()", "(() => { let c; new WritableStream({ start(x) { c = x } }); return Object.getPrototypeOf(c) })()",
    "(() => { let c; new TransformStream({ start(x) { c = x } }); return Object.getPrototypeOf(c).constructor })()", "FormData.prototype", "Object.getPrototypeOf(new FormData().entries())", "Blob", "Blob.prototype",
    "File.prototype", "DOMException", "DOMException.prototype", "AbortController.prototype", "AbortSignal", "AbortSignal.prototype", "AbortSignal.timeout", "Object.getPrototypeOf(new Blob(['x']).stream())",
    "Object.getPrototypeOf(performance)", "Object.getPrototypeOf(fetch)", "Object.getPrototypeOf(setInterval)", "performance", "fetch", "setInterval", "clearInterval",
]  # fmt: skip


async def test_calls_share_no_state_through_the_platforms_classes(stage: Stage) -> None:
    tries = ", ".join(f"[{place!r}, () => {place}]" for place in PLACES)
    body = f"""async () => {{ const left = [];
        for (const [name, find] of [{tries}]) {{
            const place = find();
            if (place.leaked) left.push(name);
            try {{ place.leaked = 1 }} catch {{}}
            try {{ Object.defineProperty(place, 'leaked', {{ value: 1 }}) }} catch {{}}
        }}
        return left }}"""
    await stage.deploy(body)
    for _ in range(3):
        run = await stage.host.invoke("main", "f", None)
        assert run.output == [], run.error


async def test_everything_the_platforms_classes_lead_to_is_frozen(stage: Stage) -> None:
    shared = [place for place in PLACES if place not in ("performance", "fetch", "setInterval", "clearInterval")]
    body = f"""() => {{ const seen = new Set(), loose = [];
        const walk = (value, path) => {{
            if ((typeof value !== 'object' && typeof value !== 'function') || value === null || seen.has(value)) return;
            seen.add(value);
            if (!Object.isFrozen(value)) loose.push(path);
            walk(Object.getPrototypeOf(value), path + '.__proto__');
            for (const key of Reflect.ownKeys(value)) {{
                const {{ value: inner, get, set }} = Object.getOwnPropertyDescriptor(value, key);
                for (const next of [inner, get, set]) walk(next, path + '.' + String(key));
            }}
        }};
        [{", ".join(shared)}].forEach((root, i) => walk(root, 'root' + i));
        return {{ loose, count: seen.size }} }}"""
    output = await stage.output(body)
    assert output["loose"] == []
    assert output["count"] > 200
