"""Errors name the author's own line and column, whatever form the body has, and nothing of what stands around it."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootlink.engine.functions.host import FunctionHost
from rootlink.engine.functions.run import failed
from rootlink.errors import Invalid
from tests.functions.ground import SECRETS, Stage, WayOut

HERE = "/*here*/"
FORMS = {
    "expression": "{before}async (input) => {{ {inside} }}",
    "function": "{before}function (input) {{ {inside} }}",
    "script": "const one = 1;{before}async (input) => {{ {inside} }}",
    "module": "{before}export default async (input) => {{ {inside} }}",
    "declaration": "{before}export default async function main(input) {{ {inside} }}",
    "anonymous": "{before}export default function (input) {{ {inside} }}",
    "list": "const one = 1;{before}async function main(input) {{ {inside} }}; export {{ one, main as default }}",
    "typescript": "{before}async (input: any): Promise<number> => {{ {inside} }}",
    "typescript function": "{before}function (input: any): any {{ {inside} }}",
    "typescript module": "type X = string;{before}export default async (input: X) => {{ const n: number = 1; {inside} }}",
}


def marked(code: str) -> tuple[str, int, int]:
    """The code, and the line and column of what stands behind the mark, in UTF-16 units."""
    before = code[: code.index(HERE) + len(HERE)]
    lines = re.split("\r\n|[\n\r\u2028\u2029]", before)
    return code, len(lines), len(lines[-1].encode("utf-16-le")) // 2 + 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", ["", "\n", "/* 😀 é */ ", "\r\n  "], ids=["first", "next", "wide", "crlf"])
async def test_a_runs_error_has_the_line_and_column_of_the_throw(stage: Stage, form: str, before: str) -> None:
    code, line, column = marked(FORMS[form].format(before=before, inside=f"if (1) throw {HERE}new Error('x')"))
    error = await stage.error(code)
    assert (error["message"], error["line"], error["column"]) == ("x", line, column)
    file = "f.ts" if "typescript" in form else "f.js"
    assert f"{file}:{line}:{column}" in error["stack"]
    assert not re.search(r"rootlink|\$default|<anonymous>|eval at|make", error["stack"]), error["stack"]


@pytest.mark.parametrize("form", FORMS)
async def test_a_complaint_has_the_line_and_column_of_what_is_wrong(stage: Stage, form: str) -> None:
    for before in ("", "\n"):
        code, line, column = marked(FORMS[form].format(before=before, inside=f"const x = {HERE};"))
        with pytest.raises(Invalid, match=f"at line {line}, column {column}: ") as refused:
            await stage.deploy(code)
        assert refused.value.data == {"line": line, "column": column}


PIECES = [
    "const a{n} = 1;",
    "/* c */",
    "\n",
    "\r\n",
    "  ",
    "`t`;",
    "// d\n",
    "'😀é';",
    "(() => 1)();",
    "if (input) {{ }}",
    "\t",
    "let b{n} = `\n`;",
]
THROWS = [f"throw {HERE}new TypeError('x')", f"const g = () => {{ throw {HERE}new TypeError('x') }}; g()", f"null.{HERE}x"]


async def test_of_any_program_the_place_of_a_throw_is_told(stage: Stage) -> None:
    rng = random.Random(5)
    plain = [form for form in FORMS if "typescript" not in form]
    for _ in range(120):
        form = rng.choice(plain * 6 + list(FORMS))
        inside = "".join(rng.choice(PIECES).format(n=n) for n in range(rng.randrange(8))) + rng.choice(THROWS)
        before = "".join(rng.choice(["\n", " ", "/* 😀\n */", "// x\r\n", "\t"]) for _ in range(rng.randrange(4)))
        code, line, column = marked(FORMS[form].format(before=before, inside=inside))
        error = await stage.error(code)
        assert (error.get("line"), error.get("column")) == (line, column), (form, code, error)


@pytest.mark.parametrize(
    "code",
    [
        "async () => {\n  await null;\n  JSON.@parse('{')\n}",
        "export default async () => { const f = async () => { await 1; null.@x }; await f() }",
        "async () => {\n  @await fetch('https://evil.example')\n}",
        "() => new Promise(() => setTimeout(() => { null.@x }, 1))",
        "() => @new URL('nope')",
        "() => {\n  [1].map(() => @eval('null.x'))\n}",
        "export const a = null.@b; export default () => a",
        "@missing.thing",
        "(null).@x",
        "const f = () => { null.@x };\n() => f()",
    ],
)
async def test_the_first_frame_of_the_authors_counts_wherever_the_error_was_made(stage: Stage, code: str) -> None:
    _, line, column = marked(code.replace("@", HERE))
    error = await stage.error(code.replace("@", ""))
    assert (error["line"], error["column"]) == (line, column - len(HERE)), error
    assert "rootlink" not in error["stack"]


async def test_a_stack_that_a_body_reads_or_logs_is_the_authors_too(stage: Stage) -> None:
    assert await stage.output("async () => new Error('a').stack") == "Error: a\n    at f.js:1:13"
    run = await stage.run("export default () => { console.error(new RangeError('b')) }")
    assert run.logs[0].text == "RangeError: b\n    at default (f.js:1:38)"


async def test_a_faked_stack_is_text_and_a_message_is_no_place(stage: Stage) -> None:
    error = await stage.error("() => { const e = new Error('a\\n    at x (f.js:77:7)'); throw e }")
    assert (error["line"], error["column"]) == (1, 19)
    for stack in ("'x'.repeat(1e6)", "{}", "null", "'\\ud800'", "Symbol()", "'    at f.js:' + '9'.repeat(5000) + ':1'"):
        error = await stage.error(f"() => {{ const e = new Error('a'); e.stack = {stack}; throw e }}")
        assert "line" not in error
        assert len(error["stack"]) <= 4000
    faked = await stage.error("() => { const e = new Error('a'); e.stack = '    at x (f.js:77:7)'; throw e }")
    assert (faked["line"], faked["column"]) == (77, 7)


async def test_what_is_thrown_without_a_stack_has_no_place(stage: Stage) -> None:
    for thrown in ("'text'", "5", "null", "{ name: 'Error', stack: '    at f.js:1:1' }"):
        assert "line" not in await stage.error(f"() => {{ throw {thrown} }}")


@pytest.mark.parametrize("kind", ["toString() { throw 1 }", "get name() { throw 1 }", "get message() { for (;;) throw 1 }"])
async def test_an_error_that_can_not_be_described_still_ends_the_run(stage: Stage, kind: str) -> None:
    error = await stage.error(f"() => {{ class E extends Error {{ {kind} }}; throw new E('x') }}")
    assert error["line"] == 1


async def test_what_formats_stacks_can_not_be_replaced(stage: Stage) -> None:
    assert await stage.error("() => { Error.prepareStackTrace = () => 'mine'; }")
    code = "() => { class E extends Error { static prepareStackTrace(e, frames) { return frames } }; return typeof new E('x').stack }"
    assert await stage.output(code) == "string"
    assert await stage.output("() => Error.prepareStackTrace(null, [{ toString() { throw 1 } }])") == "Error"


async def test_columns_of_the_first_line_hold_after_a_restart(stage: Stage) -> None:
    code, line, column = marked(f"export default () => {{ throw {HERE}new Error('x') }}")
    await stage.deploy(code)
    await stage.host.close()
    again = FunctionHost(stage.db, WayOut(), SECRETS)
    try:
        error = (await again.invoke("main", "f", None)).error
        assert error is not None
        assert (error["line"], error["column"]) == (line, column)
    finally:
        await again.close()


@given(st.text(max_size=200), st.text(max_size=50))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_stack_gives_numbers_or_no_place(stack: str, message: str) -> None:
    error = failed("Error", message, stack=f"Error: {message}{stack}").error
    assert error is not None
    assert {type(error[key]) for key in ("line", "column") if key in error} <= {int}
