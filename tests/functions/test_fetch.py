"""fetch: what goes out, what comes back, and what is refused; on a hand-written way out and on the engine's real one."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from rootlink.egress.policy import Decision
from rootlink.engine.functions.host import FunctionHost
from rootlink.engine.outbound import Outbound
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.mounts import FunctionSpec
from tests.functions.ground import SECRETS, Answer, Asked, Stage
from tests.functions.peer import differences

BLOCKED = "egress blocked: host 'evil.example' is not in this project's outbound allowlist"


async def test_a_request_goes_out_as_it_was_asked(stage: Stage) -> None:
    body = """async (input, ctx) => {
        const response = await fetch('https://api.example/send?x=1', {
            method: 'post', headers: { Authorization: `Bearer ${ctx.env.API_KEY}`, 'X-List': [1, 2] }, body: JSON.stringify({ a: 'é' }) });
        return [response.status, response.ok, await response.json(), response.headers.get('X-Rate'), response.headers.has('nope'),
            response.headers.get('nope'), [...response.headers.entries()], response.url];
    }"""

    async def network(asked: Asked) -> Answer:
        return Answer(201, b'{"id": 9007199254740993}', {"X-Rate": "5", "Content-Type": "application/json"}, asked.url)

    stage.out.network = network
    output = await stage.output(body, egress=["api.example"])
    [asked] = stage.out.asked
    assert (asked.connection, asked.hosts, asked.method, asked.url) == (
        "f",
        ["api.example"],
        "POST",
        "https://api.example/send?x=1",
    )
    assert dict(asked.headers) == {
        "authorization": f"Bearer {SECRETS['API_KEY']}",
        "x-list": "1,2",
        "content-type": "text/plain;charset=UTF-8",
    }
    assert asked.data == '{"a":"é"}'.encode()
    assert asked.follow
    assert output[:2] == [201, True]
    assert output[3:] == [
        "5",
        False,
        None,
        [["content-type", "application/json"], ["x-rate", "5"]],
        "https://api.example/send?x=1",
    ]


@pytest.mark.parametrize(
    ("options", "sent", "type_"),
    [
        (
            "{ method: 'PUT', body: new URLSearchParams({ a: '1 2', b: 'é' }) }",
            b"a=1+2&b=%C3%A9",
            "application/x-www-form-urlencoded;charset=UTF-8",
        ),
        ("{ method: 'POST', body: new Uint8Array([0, 255, 128]) }", b"\x00\xff\x80", None),
        ("{ method: 'POST', body: new Uint8Array([1, 2, 3, 4]).buffer }", b"\x01\x02\x03\x04", None),
        ("{ method: 'POST', body: new Uint16Array([1, 2, 3]).subarray(1, 2) }", b"\x02\x00", None),
        ("{ method: 'POST', body: '', headers: [['Content-Type', 'x/y']] }", b"", "x/y"),
        ("{ method: 'DELETE' }", None, None),
        ("{ headers: new Map([['content-type', 'a']]) }", None, "a"),
        ("undefined", None, None),
    ],
)
async def test_bodies_of_every_kind_arrive(stage: Stage, options: str, sent: bytes | None, type_: str | None) -> None:
    await stage.output(f"async () => {{ await fetch(new URL('https://api.example/'), {options}) }}")
    [asked] = stage.out.asked
    assert asked.data == sent
    assert asked.headers.get("content-type") == type_


@pytest.mark.parametrize(
    "data", [b"", b"plain", "é€😀".encode(), b"\x00\xff\xfe binary \x80", b"\xef\xbb\xbf{}", bytes(range(256)) * 4000]
)
async def test_answers_arrive_byte_for_byte(stage: Stage, data: bytes) -> None:
    async def network(asked: Asked) -> Answer:
        return Answer(body=data)

    stage.out.network = network
    body = """async () => { const response = await fetch('https://api.example/');
        return [new Uint8Array(await response.clone().arrayBuffer()).toBase64(), await response.text()] }"""
    encoded, text = await stage.output(body)
    assert base64.b64decode(encoded) == data
    assert text == data.decode("utf-8-sig", "replace")


async def test_a_refusal_reaches_the_body_word_for_word(stage: Stage) -> None:
    caught = await stage.output(
        "async () => { try { await fetch('https://evil.example/x') } catch (e) { return [e.name, e.message, e instanceof Error] } }"
    )
    assert caught == ["EgressBlocked", BLOCKED, True]
    thrown = await stage.error("async () => {\n  await fetch('https://evil.example/x');\n}")
    assert thrown["message"] == BLOCKED
    assert "f.js:2:3" in thrown["stack"]
    assert stage.out.asked == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("fetch('https://api.example/', { method: 'GET', body: 'x' })", "has no body"),
        ("fetch('https://api.example/', { method: 'A B' })", "not a method"),
        ("fetch('https://api.example/', { headers: 'x' })", "headers must be"),
        ("fetch('https://api.example/', { redirect: 'maybe' })", "redirect must be"),
        (
            "fetch('https://api.example/', { headers: Object.fromEntries(Array.from({ length: 65 }, (_, i) => ['h' + i, 'v'])) })",
            "at most 64 headers",
        ),
        ("fetch(Symbol('x'))", "Symbol"),
    ],
)
async def test_what_is_no_request_throws_where_it_was_made(stage: Stage, call: str, words: str) -> None:
    error = await stage.error(f"async () => {{ await {call} }}")
    assert words in error["message"]
    assert stage.out.asked == []


async def test_redirects_are_followed_unless_told_otherwise(stage: Stage) -> None:
    async def network(asked: Asked) -> Answer:
        return Answer(302, headers={"Location": "/x"})

    stage.out.network = network
    body = """async () => [(await fetch('https://api.example/', { redirect: 'manual' })).status,
        await fetch('https://api.example/', { redirect: 'error' }).catch((e) => e.message)]"""
    assert await stage.output(body) == [302, "fetch: the answer is a redirect, and redirect is 'error'"]
    assert [asked.follow for asked in stage.out.asked] == [False, False]


async def test_a_signal_ends_the_request_here_and_there(stage: Stage) -> None:
    ended = asyncio.Event()

    async def network(asked: Asked) -> Answer:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return Answer()

    stage.out.network = network
    body = """async () => { try { await fetch('https://api.example/', { signal: AbortSignal.timeout(30) }) } catch (e) { var first = e.name }
        const controller = new AbortController(); setTimeout(() => controller.abort(new Error('mine')), 10);
        const second = await fetch('https://api.example/', { signal: controller.signal }).catch((e) => e.message);
        const third = await fetch('https://api.example/', { signal: AbortSignal.abort() }).catch((e) => e.name);
        return [first, second, third] }"""
    assert await stage.output(body) == ["TimeoutError", "mine", "AbortError"]
    async with asyncio.timeout(5):
        await ended.wait()
    assert len(stage.out.asked) == 2


async def test_eight_requests_of_a_run_go_at_once_and_the_rest_wait(stage: Stage) -> None:
    at_once = peak = 0

    async def network(asked: Asked) -> Answer:
        nonlocal at_once, peak
        at_once += 1
        peak = max(peak, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        return Answer()

    stage.out.network = network
    assert (
        await stage.output(
            "async () => (await Promise.all(Array.from({ length: 40 }, () => fetch('https://api.example/')))).length"
        )
        == 40
    )
    assert peak == 8


async def test_a_network_that_breaks_is_an_error_of_the_fetch(stage: Stage) -> None:
    async def network(asked: Asked) -> Answer:
        raise OSError("broken")

    stage.out.network = network
    assert (await stage.error("async () => { await fetch('https://api.example/') }"))["message"] == "fetch failed: broken"


# on the real way out


@pytest.fixture
async def server() -> AsyncIterator[int]:
    """A stand-in for api.example, on a free port of loopback."""

    async def echo(request: web.Request) -> web.Response:
        text = await request.text()
        return web.json_response(
            {"method": request.method, "headers": dict(request.headers), "body": text}, headers={"x-twice": "1"}
        )

    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound("http://evil.example/stolen")

    async def onward(request: web.Request) -> web.Response:
        raise web.HTTPFound("/echo")

    async def huge(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * (17 << 20))

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(20):
            await response.write(f"data: {number}\n\n".encode())
            await asyncio.sleep(0.01)
        return response

    async def cookies(request: web.Request) -> web.Response:
        response = web.Response(text="é", headers={"X-Odd": "caf\u00e9"})
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    async def size(request: web.Request) -> web.Response:
        data = await request.read()
        return web.json_response({"size": len(data), "type": request.headers.get("Content-Type"), "ends": list(data[-3:])})

    async def form(request: web.Request) -> web.Response:
        fields = {}
        for name, value in (await request.post()).items():
            file = [value.filename, value.content_type, value.file.read().hex()] if isinstance(value, web.FileField) else None
            fields[name] = file or value
        return web.json_response(fields)

    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000000"})
        await response.prepare(request)
        await response.write(b"x" * 300_000)
        await asyncio.sleep(0.1)
        assert request.transport is not None
        request.transport.abort()
        return response

    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.route("*", "/echo", echo), web.get("/away", away), web.get("/onward", onward), web.get("/huge", huge)])
    app.add_routes([web.get("/events", events), web.get("/cookies", cookies), web.post("/size", size), web.post("/form", form)])
    app.add_routes([web.get("/broken", broken)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
async def real(db: Any, server: int) -> AsyncIterator[tuple[FunctionHost, list[tuple[str, Decision]]]]:
    decisions: list[tuple[str, Decision]] = []
    policy = EgressPolicy(allow=["api.example"], resolve=[f"api.example:80=127.0.0.1:{server}"])
    outbound = Outbound(policy, lambda connection, decision: decisions.append((connection, decision)))
    host = FunctionHost(db, outbound, SECRETS)
    yield host, decisions
    await host.close()
    await outbound.close()


Real = tuple[FunctionHost, list[tuple[str, Decision]]]


async def invoke(real: Real, code: str, **spec: Any) -> Any:
    await real[0].deploy("main", FunctionSpec(name="f", code=code, **spec))
    return await real[0].invoke("main", "f", None)


async def test_the_real_way_out_lets_the_allowed_host_through(real: Real) -> None:
    run = await invoke(
        real,
        """async (input, ctx) => { const response = await fetch('http://api.example/onward', { headers: { authorization: ctx.API_KEY, host: 'x' } });
           return [response.status, response.url, await response.json(), response.headers.get('x-twice')] }""",
    )
    assert run.status == "ok", run.error
    status, url, seen, twice = run.output
    assert (status, url, twice) == (200, "http://api.example/echo", "1")
    assert seen["headers"]["Authorization"] == SECRETS["API_KEY"]
    assert seen["headers"]["Host"] == "api.example"
    assert {(connection, decision.verdict) for connection, decision in real[1]} == {("f", "allowed")}


@pytest.mark.parametrize("url", ["https://evil.example/x", "http://api.example/away"])
async def test_the_real_way_out_refuses_every_other_host_and_every_hop_to_it(real: Real, url: str) -> None:
    run = await invoke(real, f"async () => {{ await fetch('{url}') }}")
    assert run.error["message"] == BLOCKED
    assert ("f", "denied", "evil.example") in {(connection, decision.verdict, decision.host) for connection, decision in real[1]}


async def test_the_real_way_out_is_narrowed_by_the_functions_own_hosts(real: Real) -> None:
    run = await invoke(real, "async () => { await fetch('http://api.example/echo') }", egress=["other.example"])
    assert run.error["name"] == "EgressBlocked"


async def test_the_real_way_out_caps_the_body(real: Real) -> None:
    run = await invoke(real, "async () => { await (await fetch('http://api.example/huge')).text() }")
    assert "larger than 16777216 bytes" in run.error["message"]


@pytest.mark.parametrize(
    "url",
    ["not a url", "/relative", "file:///etc/passwd", "data:,x", "http://127.0.0.1/", "http://[::1]/", "http://169.254.169.254/"],
)
async def test_the_real_way_out_refuses_what_is_no_address_of_the_world(real: Real, url: str) -> None:
    run = await invoke(real, f"async () => {{ await fetch({url!r}) }}")
    assert run.status == "error"
    assert run.error["name"] == "EgressBlocked"


async def test_a_refused_redirect_is_told_in_the_contracts_words_whatever_the_body_does_next(real: Real) -> None:
    body = """async () => [await fetch('http://api.example/away').catch((e) => [e.name, e.message]),
        (await fetch('http://api.example/away', { redirect: 'manual' })).headers.get('location'),
        await fetch('http://api.example/away', { redirect: 'error' }).catch((e) => e.message),
        (await fetch('http://api.example/onward')).redirected, (await fetch('http://api.example/echo#part')).redirected]"""
    run = await invoke(real, body)
    assert run.output == [
        ["EgressBlocked", BLOCKED],
        "http://evil.example/stolen",
        "fetch: the answer is a redirect, and redirect is 'error'",
        True,
        False,
    ]
    assert [decision.verdict for _, decision in real[1] if decision.host == "evil.example"] == ["denied"]


async def test_the_real_way_out_gives_events_as_they_come(real: Real) -> None:
    body = """async () => { const response = await fetch('http://api.example/events'); let pieces = 0, text = ''; const decoder = new TextDecoder();
        for await (const piece of response.body) { pieces++; text += decoder.decode(piece, { stream: true }) }
        return [pieces > 5, text.match(/data: \\d+\\n\\n/g).length] }"""
    run = await invoke(real, body)
    assert run.output == [True, 20], run.error


async def test_the_real_way_out_keeps_cookies_apart_and_bytes_of_headers(real: Real) -> None:
    body = """async () => { const { headers } = await fetch('http://api.example/cookies');
        return [headers.getSetCookie(), headers.get('x-odd'), [...headers.keys()].filter((n) => n === 'set-cookie').length] }"""
    run = await invoke(real, body)
    assert run.output == [["a=1; Path=/", "b=2; Path=/"], "cafÃ©", 2]  # the Fetch standard reads bytes, not UTF-8


async def test_large_bodies_of_every_kind_go_out_whole(real: Real) -> None:
    body = """async () => { const bytes = new Uint8Array(3 << 20).fill(7); const to = 'http://api.example/size'; const of = async (body) => (await fetch(to, { method: 'POST', body, duplex: 'half' })).json();
        return [await of(bytes), await of('é'.repeat(1 << 20)), await of(new Blob([bytes, 'ab'], { type: 'X/y' })),
            await of(new ReadableStream({ pull(c) { if (this.n > 9) c.close(); else { this.n++; c.enqueue(bytes.subarray(0, 100000)) } }, n: 0 })),
            await of(new Uint8Array((8 << 20) + 1)).catch((e) => e.message),
            await of(new ReadableStream({ pull(c) { c.enqueue(bytes) } })).catch((e) => e.message)] }"""
    run = await invoke(real, body)
    assert run.output == [
        {"size": 3 << 20, "type": None, "ends": [7, 7, 7]},
        {"size": 2 << 20, "type": "text/plain;charset=UTF-8", "ends": [169, 195, 169]},
        {"size": (3 << 20) + 2, "type": "x/y", "ends": [7, 97, 98]},
        {"size": 1_000_000, "type": None, "ends": [7, 7, 7]},
        "fetch: the body of a request may have at most 8388608 bytes",
        "the body is larger than 8388608 bytes; read it in pieces, from its stream",
    ], run.error


async def test_a_form_arrives_as_a_server_reads_it(real: Real) -> None:
    body = """async () => { const form = new FormData(); form.append('plain', 'a\\nb'); form.append('na"me\\r\\n', 'é');
        form.append('file', new File([new Uint8Array([0, 255, 13, 10, 45, 45])], 'ü".bin', { type: 'image/png' })); form.append('blob', new Blob(['x']));
        return await (await fetch('http://api.example/form', { method: 'POST', body: form })).json() }"""
    run = await invoke(real, body)
    assert run.output == {
        "plain": "a\r\nb",
        "na%22me%0D%0A": "é",
        "file": ["ü%22.bin", "image/png", "00ff0d0a2d2d"],
        "blob": ["blob", "application/octet-stream", "78"],
    }, run.error


async def test_an_answer_that_breaks_off_fails_where_it_is_read(real: Real) -> None:
    body = """async () => { const response = await fetch('http://api.example/broken'); let size = 0;
        try { for await (const piece of response.body) size += piece.length } catch (e) { return [response.ok, size, e.message] } }"""
    run = await invoke(real, body)
    assert run.output == [True, 300_000, "host 'api.example' port 80 broke the connection off before its answer was whole"], (
        run.error
    )


# requests, answers and headers, against Node's

HEADERS = [
    "const h = new Headers({ B: '2', a: ' 1 ' }); h.append('a', 'x'); h.append('Set-Cookie', 'p=1'); h.append('set-cookie', 'q=2'); return [[...h], h.get('A'), h.get('set-cookie'), h.getSetCookie(), h.has('b'), h.get('no')]",
    "const h = new Headers([['x', '1'], ['x', '2']]); h.set('X', '3'); h.delete('nope'); return [[...h.keys()], [...h.values()], [...h.entries()]]",
    "const h = new Headers({ a: 1, b: null, c: [1, 2] }); const seen = []; h.forEach((v, n) => seen.push(n + v)); return seen",
    "new Headers({ 'a b': '1' })", "new Headers({ a: 'x\\ny' })", "new Headers({ a: '\\u0100' })", "new Headers([['a']])", "new Headers([['a', 'b', 'c']])",
    "new Headers('x')", "new Headers(null)", "new Headers().append('', '1')", "new Headers().get('a b')", "new Headers().set('a', 'b\\0')",
    "return [...new Headers({ a: '\\t x \\n' })]", "return [...new Headers(new Map([['k', 'v']]))]", "return [...new Headers(new Headers({ k: 'v' }))]",
    "return Object.prototype.toString.call(new Headers())", "Response.error().headers.set('a', 'b')", "class H extends Headers {} return [...new H({ z: 1 })]",
    "new Headers({ get a() { throw new RangeError('g') } })",
]  # fmt: skip
RESPONSES = [
    "const r = new Response('é'); return [r.status, r.ok, r.statusText, r.type, r.url, r.redirected, r.bodyUsed, r.headers.get('content-type'), await r.text(), r.bodyUsed]",
    "const r = new Response('x'); await r.text(); await r.text()", "const r = new Response('x'); r.body.getReader(); await r.text()",
    "const r = new Response('x'); await r.text(); r.clone()", "const r = new Response('x'); const c = r.clone(); return [await r.text(), await c.text()]",
    "const r = new Response('abc'); const c = r.clone(); return [await Array.fromAsync(r.body).then((p) => p.length), await c.text()]",
    "const s = new ReadableStream({ start(c) { c.enqueue(new Uint8Array([104, 105])); c.close() } }); const r = new Response(s); const c = r.clone(); return [await r.text(), await c.text(), s.locked]",
    "const r = new Response(); return [r.body, await r.text(), r.bodyUsed, [...r.headers]]", "const r = new Response(''); return [r.body === null, await r.text()]",
    "const r = Response.json({ a: [1] }, { status: 201, headers: { x: 'y' } }); return [r.status, r.headers.get('content-type'), r.headers.get('x'), await r.json()]",
    "Response.json(undefined)", "Response.json(() => 1)", "const r = Response.error(); return [r.status, r.type, r.ok, r.body]",
    "const r = Response.redirect('https://h.example/a b', 307); return [r.status, r.headers.get('location')]", "Response.redirect('https://h.example/', 200)", "Response.redirect('/relative')",
    "new Response('', { status: 199 })", "new Response('', { status: 600 })", "new Response('x', { status: 204 })", "return new Response(null, { status: 204 }).status", "new Response('', { statusText: 'a\\nb' })",
    "await new Response('{').json()", "return await new Response('\\ufeff{}').json()", "return await new Response('\\ufeffa').text()", "return [...await new Response('é').bytes()]",
    "return (await new Response(new Uint16Array([1, 2])).arrayBuffer()).byteLength", "const b = await new Response('x', { headers: { 'content-type': 'A/B' } }).blob(); return [b.size, b.type]",
    "return new Response(new URLSearchParams({ a: '1 2' })).headers.get('content-type')", "return await new Response(new URLSearchParams({ a: '1 2' })).text()",
    "return await new Response(new Blob(['a', 'b'], { type: 'T/x' })).text()", "return new Response(new Blob(['a'], { type: 'T/x' })).headers.get('content-type')",
    "return await new Response(5).text()", "return await new Response({}).text()", "return await new Response('a', { headers: { 'content-type': 'x' } }).text()",
    "const s = new ReadableStream(); s.getReader(); new Response(s)", "const r = new Response(new ReadableStream({ start(c) { c.enqueue('text'); c.close() } })); await r.text()",
    "const r = new Response(new ReadableStream({ start(c) { c.error(new RangeError('s')) } })); await r.text()", "const r = new Response('x'); for await (const p of r.body) break; return r.bodyUsed",
    "class R extends Response { get mine() { return this.status + 1 } } return new R('x').mine", "return Object.prototype.toString.call(new Response())",
    "const r = new Response('x'); r.body; return [r.bodyUsed, await r.text()]", "const bytes = new Uint8Array([65]); const r = new Response(bytes); bytes[0] = 66; return await r.text()",
    "const r = new Response('x'); 'use strict'; try { r.status = 3 } catch (e) {} return r.status", "return await new Response('a=1&b=%20').formData().catch((e) => e.name)",
    "return [...await new Response('a=1&b=%20', { headers: { 'content-type': 'application/x-www-form-urlencoded' } }).formData()]",
]  # fmt: skip
REQUESTS = [
    "const r = new Request('https://h.example/a b?q#f'); return [r.url, r.method, r.redirect, r.body, r.bodyUsed, [...r.headers], r.signal.aborted]",
    "const r = new Request('https://h.example/', { method: 'post', headers: { a: 'b' }, body: 'x' }); return [r.method, [...r.headers], await r.text(), r.bodyUsed]",
    "new Request('/relative')", "new Request('https://u:p@h.example/')", "new Request('https://h.example/', { method: 'a b' })", "new Request('https://h.example/', { method: 'TRACE' })",
    "new Request('https://h.example/', { body: 'x' })", "new Request('https://h.example/', { redirect: 'maybe' })", "new Request('https://h.example/', { signal: {} })",
    "const a = new Request('https://h.example/', { method: 'PUT', body: 'x' }); const b = new Request(a, { headers: { k: 'v' } }); return [a.bodyUsed, b.method, await b.text(), [...b.headers]]",
    "const a = new Request('https://h.example/', { method: 'PUT', body: 'x' }); await a.text(); new Request(a)",
    "const a = new Request('https://h.example/', { method: 'PUT', body: 'x' }); const b = a.clone(); return [await a.text(), await b.text(), b.method, b.url]",
    "const a = new Request('https://h.example/', { method: 'PUT', body: 'x' }); const b = new Request(a, { body: 'y' }); return [a.bodyUsed, await b.text()]",
    "const c = new AbortController(); const r = new Request('https://h.example/', { signal: c.signal }); c.abort(); return r.signal.aborted",
    "return Object.prototype.toString.call(new Request('https://h.example/'))", "return new Request(new URL('https://h.example/x')).url", "return new Request('https://h.example/', { method: 'DELETE' }).method",
    "await fetch('https://h.example/', { signal: AbortSignal.abort() })", "await fetch('https://h.example/', { signal: AbortSignal.abort(new RangeError('r')) })",
    "await fetch('https://h.example/', { method: 'GET', body: 'x' })", "await fetch('https://h.example/', { headers: { 'a b': 'c' } })",
    "let why; const s = new ReadableStream({ cancel(r) { why = r.name } }); const e = await fetch('https://h.example/', { method: 'POST', body: s, duplex: 'half', signal: AbortSignal.abort() }).catch((e) => e.name); return [e, why]",
]  # fmt: skip


@pytest.mark.parametrize("snippets", [HEADERS, RESPONSES, REQUESTS], ids=["headers", "responses", "requests"])
async def test_the_platforms_classes_are_nodes(stage: Stage, snippets: list[str]) -> None:
    assert await differences(stage, snippets) == []


async def test_a_request_object_is_sent_as_it_is_and_used(stage: Stage) -> None:
    body = """async () => { const request = new Request('https://api.example/x', { method: 'PUT', headers: { a: 'b' }, body: '1', redirect: 'manual' });
        await fetch(request); const again = await fetch(request).catch((e) => e.name);
        await fetch(new Request('https://api.example/y', { headers: { c: 'd' } }), { method: 'POST', body: new URLSearchParams({ q: '1' }) });
        return [request.bodyUsed, again] }"""
    assert await stage.output(body) == [True, "TypeError"]
    first, second = stage.out.asked
    assert (first.method, first.url, dict(first.headers), first.data, first.follow) == (
        "PUT",
        "https://api.example/x",
        {"a": "b", "content-type": "text/plain;charset=UTF-8"},
        b"1",
        False,
    )
    assert (second.method, second.data, second.headers["c"]) == ("POST", b"q=1", "d")


async def test_a_signal_aborts_a_body_that_is_still_being_collected(stage: Stage) -> None:
    body = """async () => { let why; const source = new ReadableStream({ cancel(reason) { why = reason.name } });
        const error = await fetch('https://api.example/', { method: 'POST', body: source, signal: AbortSignal.timeout(20) }).catch((e) => e);
        return [error.name, error instanceof DOMException, why] }"""
    assert await stage.output(body) == ["TimeoutError", True, "TimeoutError"]
    assert stage.out.asked == []


# functions that return a Response


async def test_a_returned_response_is_plain_data_with_a_mark(stage: Stage) -> None:
    run = await stage.run("async () => Response.json({ a: 1 }, { status: 201, headers: { 'x-y': 'z' } })")
    assert run.output == {"status": 201, "headers": {"x-y": "z", "content-type": "application/json"}, "body": '{"a":1}'}
    assert run.response
    run = await stage.run("() => new Response(new Uint8Array([255, 0]))")
    assert (run.output, run.response) == ({"status": 200, "headers": {}, "body_base64": "/wA="}, True)
    run = await stage.run("() => new Response(ReadableStream.from([new Uint8Array([104]), new Uint8Array([105])]))")
    assert run.output["body"] == "hi"
    run = await stage.run("() => new Response(null, { status: 204 })")
    assert run.output == {"status": 204, "headers": {}, "body": ""}


async def test_an_answer_of_fetch_can_be_passed_on(stage: Stage) -> None:
    async def network(asked: Asked) -> Answer:
        return Answer(404, b"gone", {"Content-Type": "text/x"}, asked.url)

    stage.out.network = network
    run = await stage.run("async () => await fetch('https://api.example/')")
    assert (run.output, run.response) == ({"status": 404, "headers": {"content-type": "text/x"}, "body": "gone"}, True)


@pytest.mark.parametrize(
    "body",
    [
        "() => ({ status: 200, headers: {}, body: 'x', r: 1 })",
        '() => \'{"k":"done","v":1,"r":1}\'',
        "() => { void Response; return Object.create(Response.prototype, { status: { value: 200, enumerable: true } }) }",
        "() => ({ response: true, toJSON() { return new Response('x').status } })",
        "() => [new Response('x')]",
    ],
)
async def test_no_value_can_pass_for_a_response(stage: Stage, body: str) -> None:
    run = await stage.run(body)
    assert run.status in ("ok", "error")
    assert not run.response


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("() => Response.error()", "Response.error()"),
        ("async () => { const r = new Response('x'); await r.text(); return r }", "already been read"),
        ("() => new Response('x'.repeat(5e6))", "larger than 4194304"),
        ("() => new Response(new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(65536)) } }))", "larger than 4194304"),
        ("() => new Response(new ReadableStream({ start(c) { c.error(new Error('mine')) } }))", "mine"),
    ],
)
async def test_a_response_that_can_not_be_a_result_says_why(stage: Stage, body: str, words: str) -> None:
    assert words in (await stage.error(body))["message"]
