"""What becomes of what a body returns or throws."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.functions.ground import Stage


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1.5,
        "",
        "é\u2028\u2029\0😀",
        [],
        {},
        [1, [2, {"a": None}]],
        {"": 1, "__proto__": 2, "constructor": 3},
        2**53 - 1,
    ],
    ids=repr,
)
async def test_json_goes_in_and_comes_out_as_it_is(stage: Stage, value: Any) -> None:
    assert await stage.output("async (input) => input", value) == value


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("() => 10n", "BigInt"),
        ("() => { const a = {}; a.a = a; return a }", "circular"),
        ("() => () => 1", "it is a function"),
        ("() => Symbol()", "it is a symbol"),
        ("() => { let a = []; for (let i = 0; i < 129; i++) a = [a]; return a }", "nested deeper than 128"),
        ("() => { let a = []; for (let i = 0; i < 1e6; i++) a = [a]; return a }", "not JSON|nested deeper"),
        ("() => '\\ud800'", "not valid Unicode"),
        ("() => ({ toJSON() { throw new Error('mine') } })", "mine"),
        ("() => 'x'.repeat(5 << 20)", "larger than"),
        ("() => ({ get a() { throw new Error('mine') } })", "mine"),
    ],
)
async def test_what_is_not_json_is_an_error_that_says_why(stage: Stage, body: str, words: str) -> None:
    run = await stage.run(body)
    assert (run.status, run.output) == ("error", None)
    assert run.error is not None
    assert run.error["name"] == "OutputError"
    assert any(word in run.error["message"] for word in words.split("|"))


async def test_undefined_is_null(stage: Stage) -> None:
    assert await stage.output("() => {}") is None


async def test_the_deepest_result_that_is_allowed_can_be_encoded_again(stage: Stage) -> None:
    output = await stage.output("() => { let a = []; for (let i = 0; i < 127; i++) a = [a]; return a }")
    assert len(msgspec.json.encode(output)) == 256


async def test_brackets_in_strings_are_not_depth(stage: Stage) -> None:
    assert await stage.output('() => "[".repeat(500) + "\\\\\\"" + "{".repeat(500)')


async def test_an_error_carries_name_message_and_the_authors_line(stage: Stage) -> None:
    body = "async (input) => {\n  const inner = () => {\n    throw new RangeError('out of ' + input);\n  };\n  await null;\n  inner();\n}"
    run = await stage.run(body, "range")
    assert run.status == "error"
    assert run.error is not None
    assert run.error["name"] == "RangeError"
    assert run.error["message"] == "out of range"
    assert "f.js:3:11" in run.error["stack"]
    assert "f.js:6:3" in run.error["stack"]
    assert "rootlink" not in run.error["stack"]


@pytest.mark.parametrize(
    ("thrown", "name", "message"),
    [
        ("'text'", "Error", "text"),
        ("null", "Error", "null"),
        ("{ code: 7 }", "Error", '{"code":7}'),
        ("Object.assign(new Error('x'), { name: 'Mine' })", "Mine", "x"),
        ("new (class Own extends Error { constructor() { super('o'); this.name = 'Own' } })()", "Own", "o"),
        ("{ get message() { throw 1 }, toString() { throw 2 } }", "Error", "?"),
        ("new Error('\\ud800')", "Error", "\ufffd"),
    ],
)
async def test_whatever_is_thrown_is_told(stage: Stage, thrown: str, name: str, message: str) -> None:
    error = await stage.error(f"async () => {{ throw {thrown} }}")
    assert (error["name"], error["message"]) == (name, message)


async def test_a_run_that_failed_is_followed_by_one_that_works(stage: Stage) -> None:
    name = await stage.deploy("async (input) => { if (input) throw new Error('x'); return 1 }")
    statuses = [(await stage.host.invoke("main", name, input)).status for input in (True, False, True, False)]
    assert statuses == ["error", "ok", "error", "ok"]


async def test_secrets_are_out_of_logs_and_errors_and_the_output_is_left_alone(stage: Stage) -> None:
    body = """async (input, ctx) => { const { API_KEY: key } = ctx.env;
        console.log(key, btoa('x' + key), encodeURIComponent(key + '/'), JSON.stringify({ key }));
        if (input) throw new Error('refused for ' + key); return key }"""
    shown = await stage.run(body, False)
    assert shown.output == "sk_live_0123456789"
    failed = await stage.run(body, True)
    assert failed.error is not None
    assert failed.error["message"] == "refused for [secret API_KEY]"
    kept = stage.host.run("main", "f", failed.run_id)
    for run in (failed, kept):
        text = msgspec.json.encode([run.error, run.logs]).decode()
        assert "sk_live" not in text
        assert "c2tfbGl2ZV8wMTIzNDU2Nzg5"[2:-2] not in text
