"""fetch: what goes out, what comes back, and what is refused; on a hand-written way out and on the engine's real one."""

from __future__ import annotations

import asyncio
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
        [["x-rate", "5"], ["content-type", "application/json"]],
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
        return [new Uint8Array(await response.arrayBuffer()).toBase64(), await response.text()] }"""
    import base64

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
        return web.Response(body=b"x" * (6 << 20))

    app = web.Application()
    app.add_routes([web.route("*", "/echo", echo), web.get("/away", away), web.get("/onward", onward), web.get("/huge", huge)])
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
    assert "larger than 4194304 bytes" in run.error["message"]


@pytest.mark.parametrize(
    "url",
    ["not a url", "/relative", "file:///etc/passwd", "data:,x", "http://127.0.0.1/", "http://[::1]/", "http://169.254.169.254/"],
)
async def test_the_real_way_out_refuses_what_is_no_address_of_the_world(real: Real, url: str) -> None:
    run = await invoke(real, f"async () => {{ await fetch({url!r}) }}")
    assert run.status == "error"
    assert run.error["name"] == "EgressBlocked"
