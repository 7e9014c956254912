"""What people paste from elsewhere and a function has not: it is refused when it is deployed, or fails, with what to write."""

from __future__ import annotations

import pytest

from rootlink.errors import Invalid
from tests.functions.ground import Stage

NO_IMPORT, EXPORT = "can't import.*fetch or ctx.tools.call", "write: export default async"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("module.exports = async (input) => 1;", f"module is not defined at line 1, column 1; .*CommonJS.*{EXPORT}"),
        ("exports.handler = async (event) => ({ statusCode: 200 });", f"CommonJS.*{EXPORT}"),
        (
            "const a = require('axios');\nmodule.exports = async () => a.get('x');",
            f"require is not .* line 1, column 11; .*{NO_IMPORT}",
        ),
        ("const c = require('crypto');\nexport default async () => c.createHash('md5');", NO_IMPORT),
        (
            "\nconst KEY = process.env.API_KEY;\nexport default async () => KEY",
            "process is not defined at line 2, column 13; .*ctx.env",
        ),
        ("const KEY = API_KEY;\nexport default async () => KEY", "API_KEY is not defined at line 1, column 13; .*ctx.env.NAME"),
        ("addEventListener('fetch', (event) => event.respondWith(new Response('hi')));", "rootlink function webhook"),
        ("Deno.serve(async (req: Request) => new Response('hi'));", EXPORT),
        (
            "export default { async fetch(request, env, ctx) { return new Response('hi') } };",
            "not in an object.*from its webhook, input is",
        ),
        (
            "export default { fetch(request: Request) { return new Response('hi') } } satisfies ExportedHandler;",
            "not in an object",
        ),
        ("return { hello: input.name }", "nothing can be returned at the top level"),
        ("const r = 1;\nreturn r", "nothing can be returned at the top level"),
    ],
    ids=lambda value: value[:40],
)
async def test_what_could_never_run_is_refused_when_it_is_deployed(stage: Stage, code: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        await stage.deploy(code)
    assert stage.host.list("main") == []


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("async () => process.env.API_KEY", "async (input, ctx) => … ctx.env.NAME"),
        ("async () => Deno.env.get('API_KEY')", "ctx.env.NAME"),
        ("async () => RESEND_API_KEY", "ctx.env.NAME"),
        ("async () => env.API_KEY", "async (input, ctx) => …"),
        ("async (input) => require('fs')", "can't import"),
        ("async () => Buffer.from('x').toString('base64')", "TextEncoder"),
        ("async () => axios.get('https://api.example')", "fetch"),
        ("async () => window.fetch", "globalThis"),
        ("async (input, ctx) => ctx.waitUntil(1)", "await the work"),
        ("async (req, res) => res.json({})", "what it returns"),
        ("async () => res.status(200)", ""),
        ("async () => mistyped", ""),
        ("async () => { throw new Error('process is not defined') }", ""),
        ("async () => { throw new TypeError('mine: a.waitUntil is not a function') }", ""),
    ],
    ids=lambda value: value[:40],
)
async def test_an_error_about_what_is_not_there_says_what_is(stage: Stage, code: str, hint: str) -> None:
    told = (await stage.error(code, {})).get("hint", "")
    assert hint in told
    assert bool(hint) == bool(told)


@pytest.mark.parametrize(
    "code",
    [
        "typeof require === 'function' ? require('x') : () => typeof process",
        "(() => { try { return require('x') } catch { return () => typeof process } })()",
        "const node = typeof process !== 'undefined' && process.env;\nexport default () => typeof node && 'undefined'",
    ],
)
async def test_a_body_that_looks_first_runs(stage: Stage, code: str) -> None:
    assert await stage.output(code) == "undefined"


async def test_a_body_that_throws_as_it_is_evaluated_is_a_run(stage: Stage) -> None:
    for code in ("(() => { throw new Error('x') })()", "const n = null;\nexport default n.x"):
        assert (await stage.run(code)).status == "error"
