"""What a body has (CONTRACT §4): its two arguments, and each API by what it must give."""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid

import pytest

from tests.functions.ground import SECRETS, Stage

HMAC_BODY = """
async ({ key, text, hash }) => {
  const utf8 = (s) => new TextEncoder().encode(s);
  const imported = await crypto.subtle.importKey('raw', utf8(key), { name: 'HMAC', hash }, false, ['sign', 'verify']);
  const signature = await crypto.subtle.sign('HMAC', imported, utf8(text));
  const good = await crypto.subtle.verify('HMAC', imported, signature, utf8(text));
  const bad = await crypto.subtle.verify('HMAC', imported, signature, utf8(text + '!'));
  return { hex: Array.from(new Uint8Array(signature), (b) => b.toString(16).padStart(2, '0')).join(''), good, bad };
}
"""


async def test_the_second_argument_gives_secrets_both_ways_and_says_which_run_it_is(stage: Stage) -> None:
    run = await stage.run(
        "async (input, ctx) => [input.a, ctx.env.API_KEY, ctx.REGION, ctx.runId, ctx.ws, ctx.fnName, ctx.version]", {"a": 1}
    )
    assert run.output == [1, SECRETS["API_KEY"], SECRETS["REGION"], run.run_id, "main", "f", 1]


async def test_a_body_may_name_its_second_argument_env(stage: Stage) -> None:
    assert await stage.output("async (input, env) => env.API_KEY") == SECRETS["API_KEY"]


async def test_a_body_that_is_not_async_is_a_body(stage: Stage) -> None:
    assert await stage.output("function (input) { return input + 1 }", 41) == 42


async def test_env_of_the_spec_is_all_a_body_sees(stage: Stage) -> None:
    body = "async (input, ctx) => [Object.keys(ctx.env).sort(), ctx.env.auth, ctx.API_KEY ?? null]"
    output = await stage.output(body, env={"auth": "Bearer ${API_KEY}", "plain": "x"})
    assert output == [["auth", "plain"], f"Bearer {SECRETS['API_KEY']}", None]


async def test_a_secret_that_is_not_set_is_named(stage: Stage) -> None:
    error = await stage.error("async () => 1", env={"auth": "${NOT_THERE}"})
    assert error["name"] == "SecretMissing"
    assert "NOT_THERE" in error["message"]


async def test_new_secrets_are_in_force_at_the_next_call(stage: Stage) -> None:
    name = await stage.deploy("async (input, ctx) => ctx.API_KEY")
    await stage.host.invoke("main", name, None)
    stage.host.environment({"API_KEY": "rotated-value"})
    assert (await stage.host.invoke("main", name, None)).output == "rotated-value"


async def test_a_secret_called_like_a_member_of_ctx_does_not_hide_it(stage: Stage) -> None:
    stage.host.environment({"runId": "mine", "env": "mine", "__proto__": "mine"})
    run = await stage.run("async (input, ctx) => [ctx.runId, ctx.env.env, Object.getPrototypeOf(ctx) === Object.prototype]")
    assert run.output == [run.run_id, "mine", True]


async def test_console_goes_to_the_run(stage: Stage) -> None:
    body = """async () => {
        console.log('a', 1, { b: [2] }, null, undefined); console.error(new TypeError('bad')); console.warn(10n, new Map([[1, 2]]));
        console.info(() => 1); console.debug(Symbol('s'));
    }"""
    run = await stage.run(body)
    first, second, *rest = run.logs
    assert (first.level, first.text) == ("log", 'a 1 {"b":[2]} null undefined')
    assert second.level == "error"
    assert second.text.startswith("TypeError: bad\n    at f.js:2:")
    assert [(line.level, line.text) for line in rest] == [
        ("warn", "10n Map [[1,2]]"),
        ("info", "[Function: anonymous]"),
        ("debug", "s"),
    ]
    assert first.time.endswith("Z")
    assert run.output is None


async def test_text_and_base64_go_both_ways(stage: Stage) -> None:
    text = "aé€😀\0\n\u2028"
    output = await stage.output(
        """async (t) => { const bytes = new TextEncoder().encode(t);
           return [Array.from(bytes), new TextDecoder().decode(bytes), btoa(String.fromCharCode(...bytes)), atob(btoa('hi'))] }""",
        text,
    )
    assert output == [list(text.encode()), text, base64.b64encode(text.encode()).decode(), "hi"]


@pytest.mark.parametrize(
    "data", [b"\xff", b"a\xc3", b"\xe2\x82", b"\xed\xa0\x80x", b"\xf0\x9f\x98", b"\xf5\x80", b"\xc0\xaf", b"\xef\xbb\xbfok"]
)
async def test_bytes_that_are_not_utf8_decode_as_the_standard_says(stage: Stage, data: bytes) -> None:
    body = """async (bytes) => { const view = new Uint8Array(bytes); const out = [new TextDecoder().decode(view)];
        try { out.push(new TextDecoder('utf-8', { fatal: true }).decode(view)) } catch (e) { out.push(e.name) }
        const parts = new TextDecoder(); let pieces = '';
        for (const byte of view) pieces += parts.decode(new Uint8Array([byte]), { stream: true });
        return [...out, pieces + parts.decode()] }"""
    lenient = data.decode("utf-8-sig", "replace")
    try:
        strict = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        strict = "TypeError"
    assert await stage.output(body, list(data)) == [lenient, strict, lenient]


@pytest.mark.parametrize("bad", ["atob('a')", "atob('é')", "btoa('€')"])
async def test_what_is_not_base64_throws(stage: Stage, bad: str) -> None:
    assert (await stage.error(f"async () => {bad}"))["name"] == "InvalidCharacterError"


@pytest.mark.parametrize("name", ["SHA-1", "SHA-256", "SHA-384", "SHA-512"])
async def test_digests_are_right(stage: Stage, name: str) -> None:
    body = "async (n) => Array.from(new Uint8Array(await crypto.subtle.digest(n, new TextEncoder().encode('abc'))))"
    assert bytes(await stage.output(body, name)) == hashlib.new(name.replace("-", ""), b"abc").digest()


async def test_a_digest_of_megabytes_is_right(stage: Stage) -> None:
    body = "async () => Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array(3 << 20))))"
    assert bytes(await stage.output(body)) == hashlib.sha256(bytes(3 << 20)).digest()


@pytest.mark.parametrize("hash_name", ["SHA-256", "SHA-512"])
async def test_hmac_signs_and_verifies(stage: Stage, hash_name: str) -> None:
    output = await stage.output(HMAC_BODY, {"key": "k€y", "text": "body", "hash": hash_name})
    expected = hmac.new("k€y".encode(), b"body", hash_name.replace("-", "")).hexdigest()
    assert output == {"hex": expected, "good": True, "bad": False}


async def test_random_values_differ_between_calls_and_within_one(stage: Stage) -> None:
    name = await stage.deploy(
        "async () => [crypto.randomUUID(), crypto.randomUUID(), Array.from(crypto.getRandomValues(new Uint8Array(200)))]"
    )
    first, second = [(await stage.host.invoke("main", name, None)).output for _ in range(2)]
    ids = [*first[:2], *second[:2]]
    assert len(set(ids)) == 4
    assert all(uuid.UUID(text).version == 4 for text in ids)
    assert first[2] != second[2]
    assert len(set(first[2])) > 50


async def test_timers_wait_and_can_be_cleared(stage: Stage) -> None:
    body = """async () => {
        const order = []; const start = Date.now();
        const never = setTimeout(() => order.push('never'), 5); clearTimeout(never);
        setTimeout((x) => order.push(x), 30, 'late'); setTimeout(() => order.push('soon'), 1); queueMicrotask(() => order.push('micro'));
        await new Promise((done) => setTimeout(done, 60));
        return [order, Date.now() - start >= 55];
    }"""
    assert await stage.output(body) == [["micro", "soon", "late"], True]


async def test_an_error_in_a_timer_fails_the_run(stage: Stage) -> None:
    error = await stage.error(
        "async () => { setTimeout(() => { throw new RangeError('late') }, 1); await new Promise(() => {}) }"
    )
    assert (error["name"], error["message"]) == ("RangeError", "late")


async def test_abort_signals_abort(stage: Stage) -> None:
    body = """async () => {
        const controller = new AbortController(); const seen = [];
        controller.signal.addEventListener('abort', (event) => seen.push(event.type)); controller.signal.onabort = () => seen.push('on');
        controller.abort(); controller.abort('again');
        const timeout = AbortSignal.timeout(5); await new Promise((done) => timeout.addEventListener('abort', done));
        const any = AbortSignal.any([timeout]); let thrown; try { any.throwIfAborted() } catch (e) { thrown = e.name }
        return [seen, controller.signal.aborted, controller.signal.reason.name, timeout.reason.name, thrown, AbortSignal.abort(7).reason];
    }"""
    assert await stage.output(body) == [["on", "abort"], True, "AbortError", "TimeoutError", "TimeoutError", 7]


async def test_structured_clone_copies_what_json_cannot(stage: Stage) -> None:
    body = """async () => {
        const source = { d: new Date(5), m: new Map([['k', new Set([1])]]), b: new Uint8Array([1, 2]), e: new RangeError('r'), r: /x/gi };
        source.self = source;
        const copy = structuredClone(source); source.b[0] = 9; let refused; try { structuredClone(() => 1) } catch (e) { refused = e.name }
        return [copy !== source, copy.self === copy, copy.d.getTime(), [...copy.m.get('k')], [...copy.b], copy.e instanceof RangeError,
                copy.e.message, String(copy.r), refused];
    }"""
    assert await stage.output(body) == [True, True, 5, [1], [1, 2], True, "r", "/x/gi", "DataCloneError"]


async def test_the_same_things_are_reached_through_global_this(stage: Stage) -> None:
    body = """async () => { globalThis.mine = 1; return [typeof globalThis.fetch, typeof globalThis.crypto.randomUUID, new globalThis.URL('http://x').host,
        globalThis.mine, globalThis.globalThis === globalThis, typeof globalThis.Array] }"""
    assert await stage.output(body) == ["function", "function", "x", 1, True, "function"]


async def test_nothing_else_of_the_host_is_there(stage: Stage) -> None:
    names = [
        "process",
        "require",
        "module",
        "Deno",
        "Bun",
        "WebAssembly",
        "SharedArrayBuffer",
        "Atomics",
        "XMLHttpRequest",
        "WebSocket",
        "load",
        "read",
    ]
    body = f"async () => [{', '.join(f'typeof {name}' for name in names)}]"
    assert await stage.output(body) == ["undefined"] * len(names)
    assert (
        await stage.output("async () => { try { return await eval('im' + 'port(`fs`)') } catch (e) { return 'refused' } }")
        == "refused"
    )


async def test_what_a_source_does_not_mention_it_can_still_reach_by_escape_or_eval(stage: Stage) -> None:
    assert await stage.output(r"async () => typeof f\u0065tch") == "function"
    assert await stage.output("async () => eval('typeof fet' + 'ch')") == "function"
