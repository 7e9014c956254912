"""Bodies written as modules: what may be exported, what is refused in words, and that none of it gets out of its function."""

from __future__ import annotations

import time

import pytest

from rootlink.engine.functions.modules import Module, without_exports
from rootlink.errors import Invalid
from tests.functions.ground import Stage


@pytest.mark.parametrize(
    "code",
    [
        "export default () => 1",
        "export default async (input, ctx) => ctx.version;\n",
        "export default function () { return 1 }",
        "export default function() { return 1 }\n(2)",
        "export default async function () { return 1 }\n[2]",
        "export default function /* no name */ () { return 1 }",
        "const early = main();\nexport default function main() { return 1 }",
        "export default async function main(input) { return input === 'again' ? 1 : helper() }\nconst helper = () => main('again')",
        "function handler() { return 1 }\nexport { handler as default };",
        "const other = 2\nexport { other, handler as default, other as third }\nfunction handler() { return 1 }",
        "const n = 1\nexport { n }\n(() => {})()\nexport default () => n",
        "var a=()=>1;export{a as default};",
        'const a = () => 1; export { a as "default" }',
        "const handler = () => 1\nexport default handler;",
        "export const x = 1;\nexport let y;\nexport class C {}\nexport async function helper() { return x }\nexport default () => helper()",
        "/** JSDoc, with `ticks` and export default */\nexport function helper() { return 1 }\n/* b */ export default () => helper()",
        "export default () => 1\r\n//# sourceMappingURL=bundle.js.map\r\n",
        "export default () => 1\n//# sourceURL=rootlink:prelude",
        "\ufeffexport default () => 1",
        "#!/usr/bin/env node\n'use strict';\nexport default () => 1",
        "export\n  default\r\n() => 1",
        "const fetch = 1, URL = 2, console = 3, globalThis = 4;\nexport default () => fetch",
        "function fetch() { return 1 }\nexport default () => fetch()",
        "const $default = 0, _default = 1;\nexport default () => $default + _default",
        "export default () => 1 // the end",
        "{ let x = 1; }\nouter: for (;;) { break outer }\nexport default () => 1",
    ],
    ids=lambda code: code[:40],
)
async def test_what_is_exported_by_default_is_the_function(stage: Stage, code: str) -> None:
    assert await stage.output(code) == 1
    assert stage.host.get("main", "f").code == code, "what is kept is the author's own"


async def test_the_word_in_text_and_comments_is_left_alone(stage: Stage) -> None:
    text = "\nexport default 5\nexport const x = 1\nimport y from 'z'\n"
    code = f"// export default 1\nconst s = `{text}`;\n/*\nexport default 2\n*/\nconst r = /export default/;\nexport default () => [s, `a\nexport const b`, r.source];"
    assert await stage.output(code) == [text, "a\nexport const b", "export default"]
    assert await stage.output(f"() => `{text}`") == text
    assert (
        await stage.output("() => ({ import(x) { return `import(${x})` } }).import(1) + '/* import(2) */'")
        == "import(1)/* import(2) */"
    )


async def test_nothing_of_a_module_is_kept_between_calls(stage: Stage) -> None:
    for _ in range(2):
        assert await stage.output("let calls = 0;\nexport default () => ++calls") == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "export default { async fetch() { return 1 } }",
            "exports a value of type object, not a function; .*write: export default async",
        ),
        ("export default 42", "exports a value of type number, not a function"),
        ("export default class X { run() {} }", "a class is exported by default at line 1, column 1"),
        ("export const x = 1", "without a default export.*write: export default async"),
        ("export {}", "without a default export"),
        ("export default () => 1\nexport default () => 2", "exports by default twice"),
        ("import x from 'y';\nexport default () => x", "at line 1, column 1.*can't import.*fetch or ctx.tools.call"),
        ("import 'y';\n() => 1", "a function is one file"),
        ("const a = 1;\n  import { b } from 'y';\n() => a", "line 2, column 3.*a function is one file"),
        ("export default () => import.meta.url", "a function is one file"),
        ("export default async () => {\n  const { x } = await import('y');\n}", r"imports another file at line 2, column 23"),
        ("async () => import ('y')", r"imports another file at line 1, column 13"),
        ("const x = 1; async () => import('y')", r"imports another file at line 1, column \d+"),
        ("export * from 'x'", "exports from another file"),
        ("export { a as default } from 'x'", "exports from another file"),
        ("const x = await fetch('y');\nexport default () => x", "line 1, column 11.*put `await` inside the function"),
        ("return 1\nexport default () => 1", "nothing can be returned at the top level"),
        (
            "export default () => {\n  const x = 1;\n  return x +* 2;\n}",
            r"Unexpected token '\*' at line 3, column 13: return x \+\* 2;",
        ),
        ("export default () => {\n  if (1) {\n}\n", "it ends, at line 4, column 1, before it is complete"),
        ("async () => {", r"^the code does not compile: it ends, at line 1, column 14, before it is complete"),
        ("@decorated class X {}\nexport default () => 1", "decorators"),
        ("export default () => 1; export default () => +* 2", "."),
    ],
    ids=lambda value: value[:40],
)
async def test_what_can_not_be_a_function_is_refused_with_what_to_write(stage: Stage, code: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        await stage.deploy(code)
    assert stage.host.list("main") == []


OUT = [
    "export default () => 1\n}); evil(); (() => {",
    "export default () => 1\n}, evil(), () => {",
    "export default () => 1\n} evil() {",
    "export default () => 1\n}} evil(); {{",
    "export default () => 1\n}}); evil(); (class { static {",
    "export default () => 1\nreturn 2}, evil(), () => {",
    "export default () => 1 */ evil() /*",
    "export default () => 1\n/*",
    "export default () => 1\n`",
    "`}},()=>{\nexport default () => 1",
    "export default () => 1\n`}},()=>{",
    "export default () => 1\nif (1)",
    "export default () => 1\n\\u007d); evil(); (() => \\u007b",
    "export default () => 1\n'\\",
    "export default () => 1\nnew.target",
    "export default () => 1\nsuper.x",
    "export default () => 1\nsuper()",
    "export default () => 1\nyield 1",
    "export default () => 1\nbreak",
    "export default () => 1\nlabel:",
    "export default () => 1\narguments[0]",
    "export default () => 1\nlet make, make",
    "const h = 1; export { if as default }",
    "() => 1\n}; evil(); () => {",
]


@pytest.mark.parametrize("code", OUT, ids=lambda code: code[:40])
async def test_no_module_reaches_out_of_its_function(stage: Stage, code: str) -> None:
    with pytest.raises(Invalid, match="does not compile"):
        await stage.deploy(code)
    assert stage.host.list("main") == []


@pytest.mark.parametrize(
    "tail", ["<!-- }); evil(); (() => {", "\n--> }); evil(); (() => {", "// }); evil(); (() => {", "\n/* }); */"]
)
async def test_what_a_comment_hides_stays_hidden(stage: Stage, tail: str) -> None:
    assert await stage.output(f"export default () => typeof evil {tail}") == "undefined"


@pytest.mark.parametrize("name", ["arguments", "make", "f", "body"])
async def test_nothing_of_what_stands_around_a_module_can_be_seen(stage: Stage, name: str) -> None:
    code = f"let seen; try {{ seen = typeof eval('{name}') }} catch {{ seen = 'none' }}\nexport default () => seen"
    assert await stage.output(code) in ("none", "undefined")


def test_exports_are_taken_out_without_moving_anything() -> None:
    code = "export const a = 1;\nexport default async function* () {}\nexport { a,\n b };\nexport function f() {}"
    module = without_exports(Module(code), 0)
    assert module.exported == "$default"
    assert module.statements.split("\n") == [
        "       const a = 1;",
        "async function*$default        () {}",
        ";          ",
        "    ;",
        "       function f() {}",
    ]
    assert len(module.statements) == len(code)


def test_where_text_may_begin_nothing_is_taken_for_certain() -> None:
    code = "const s = `\nexport const a = 1`"
    assert without_exports(Module(code), 0).statements == code


async def test_a_module_is_deployed_as_fast_as_an_expression_and_a_long_one_with_few_readings(stage: Stage) -> None:
    await stage.deploy("() => 0")
    code = "".join(f"/** {i} */\nexport const x{i} = `${{{i}}}`;\n" for i in range(8)) + "export default () => x7"
    begun = time.perf_counter()
    assert await stage.output(code) == "7"
    assert time.perf_counter() - begun < 2
