"""`rootlink function`: what each command asks for, shows, and says when something went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.instance import Instance

BLOCKED = "egress blocked: host 'evil.example' is not in this project's outbound allowlist"
BODY = "export default async (input) => {\n\tconst answer = await ask();\n\treturn answer;\n}"
FAILED: dict[str, Any] = {
    "run_id": "run_2",
    "version": 3,
    "status": "error",
    "output": None,
    "error": {
        "name": "Error",
        "message": "fetch\nfailed",
        "stack": "Error: fetch\nfailed\n    at ask (f.js:9:1)\n    at f.js:2:23",
        "line": 2,
        "column": 23,
        "hint": f"{BLOCKED}; to allow it: rootlink egress allow evil.example",
    },
    "logs": [{"level": "warn", "text": "close\x1b[31m", "time": "t"}],
    "logs_truncated": True,
    "duration_ms": 12.5,
    "cpu_ms": 1.25,
    "started_at": "2026-01-01T00:00:00.000Z",
    "trigger": "mcp",
    "input_bytes": 7,
    "output_bytes": 0,
    "denied": [{"host": "evil.example", "port": 8443, "message": BLOCKED, "count": 3}],
    "tool_calls": 2,
    "replayed": False,
}
DONE = FAILED | {"run_id": "run_1", "status": "ok", "output": {"a": 1}, "error": None, "denied": [], "output_bytes": 7}


@pytest.fixture
def hello(instance: Instance) -> Instance:
    """A function with three versions, of which the second is live, and two runs."""
    spec = {"name": "hello", "tool": "function__hello", "code": BODY, "description": "Says hello.\nMore.", "timeout_ms": 10000}
    spec |= {"memory_mb": 64, "isolation": "fresh", "concurrency": 4, "env": {"KEY": "${KEY}"}, "egress": [], "tools": None}
    instance.functions["hello"] = spec | {"version": 2, "deployed_at": "2026-01-02", "connection": None, "language": None}
    instance.versions["hello"] = [3, 2, 1]
    instance.runs["hello"] = [FAILED, DONE]
    return instance


def test_everything_a_function_may_be_told_reaches_the_engine(run: Run, instance: Instance, tmp_path: Path) -> None:
    (tmp_path / "body.mts").write_text("export default (input: number) => input")
    (tmp_path / "out.json").write_text('{"type": "object"}')
    words = ["--output-schema", f"{tmp_path}/out.json", "--title", "Hello", "--isolation", "fresh", "--concurrency", "3"]
    words += ["--tool", "slack__*", "--tool", "memory__read", "--env", "KEY", "--env", "REGION=eu=1", "--egress", "a.example"]
    assert run("function", "deploy", "hello", "--code", f"{tmp_path}/body.mts", *words).code == 0
    told = instance.functions["hello"]
    assert {member: told[member] for member in ("language", "title", "isolation", "concurrency", "tools", "env", "egress")} == {
        "language": "typescript",
        "title": "Hello",
        "isolation": "fresh",
        "concurrency": 3,
        "tools": ["slack__*", "memory__read"],
        "env": {"KEY": "${KEY}", "REGION": "eu=1"},
        "egress": ["a.example"],
    }
    assert told["output_schema"] == {"type": "object"}


def test_nothing_is_a_choice_too_and_what_is_left_out_is_not_told(run: Run, instance: Instance) -> None:
    words = ["--tool", "", "--env", "", "--egress", ""]
    assert run("function", "deploy", "hello", "--code", "-", *words, stdin="() => 1").code == 0
    told = instance.functions["hello"]
    assert (told["tools"], told["env"], told["egress"]) == ([], {}, [])
    assert run("function", "deploy", "plain", "--code", "-", "--language", "typescript", stdin="() => 1").code == 0
    told = instance.functions["plain"]
    assert told["language"] == "typescript"
    assert not {"tools", "env", "egress", "isolation", "concurrency", "title", "output_schema"} & set(told)


def test_a_body_that_does_not_compile_is_shown_with_a_caret(run: Run, instance: Instance) -> None:
    instance.refuses = "the code does not compile: SyntaxError: Unexpected token ')' at line 2, column 15: const x = 𝒳(;) (hint)"
    shown = run("function", "deploy", "bad", "--code", "-", stdin="() => {\n\tconst x = 𝒳(;)\n}")
    assert shown.code == 1
    assert shown.err.splitlines()[:2] == ["    2 | \tconst x = 𝒳(;)", "      | \t            ^"]
    assert shown.err.splitlines()[2].startswith("rootlink: invalid: the code does not compile")
    assert run("function", "deploy", "bad", "--code", "-", "--json", stdin="x\ny").err.count("\n") == 1


def test_of_a_long_line_the_part_with_the_error_is_shown(run: Run, instance: Instance) -> None:
    instance.refuses = "the code does not compile: x at line 1, column 5001: y"
    shown = run("function", "deploy", "bad", "--code", "-", stdin="a" * 5000 + "!" + "b" * 5000).err.splitlines()
    assert shown[0].index("!") == shown[1].index("^")
    assert len(shown[0]) < 140


def test_an_invocation_that_fails_shows_the_line_the_stack_and_what_to_do(run: Run, hello: Instance) -> None:
    hello.outcome = FAILED
    shown = run("function", "invoke", "hello")
    assert (shown.code, shown.out) == (1, "")
    assert shown.err.splitlines() == [
        "close[31m",
        "rootlink: error: Error: fetch failed",
        "    2 | \tconst answer = await ask();",
        "      | \t                     ^",
        "    at ask (f.js:9:1)",
        "    at f.js:2:23",
        f"{BLOCKED}; to allow it: rootlink egress allow evil.example",
        "All of this run: rootlink function run hello run_2",
    ]


def test_a_key_goes_along_and_an_answer_that_was_kept_says_so(run: Run, hello: Instance) -> None:
    hello.outcome = DONE | {"replayed": True, "logs": []}
    shown = run("function", "invoke", "hello", "--idempotency-key", "order-7")
    assert (shown.code, shown.data) == (0, {"a": 1})
    assert shown.err == "It did not run again: run_1 ran with this key before.\n"
    assert hello.requests[-1][2] == {"input": {}, "idempotency_key": "order-7"}
    hello.outcome |= {"output": None, "output_bytes": 100_000}
    shown = run("function", "invoke", "hello", "--idempotency-key", "order-7")
    assert (shown.out, "100,000 bytes was too large to keep" in shown.err) == ("", True)


def test_runs_are_listed_by_status_with_their_cost(run: Run, hello: Instance) -> None:
    shown = run("function", "runs", "hello")
    assert shown.out.splitlines()[0].split() == ["RUN", "STATUS", "STARTED", "MS", "CPU", "MS", "VERSION", "TRIGGER", "ERROR"]
    assert shown.out.splitlines()[1].split()[:5] == ["run_2", "error", "2026-01-01T00:00:00.000Z", "12.5", "1.25"]
    assert "rootlink function run hello run_2" in shown.err
    run("function", "runs", "hello", "--status", "error", "--limit", "7", "--json")
    assert hello.requests[-1][1].endswith("/functions/hello/runs?status=error&limit=7")
    hello.runs["hello"] = []
    assert "No run of hello that is kept ended as killed" in run("function", "runs", "hello", "--status", "killed").err


def test_one_run_is_told_in_full(run: Run, hello: Instance) -> None:
    shown = run("function", "run", "hello", "run_2")
    assert shown.out.splitlines() == [
        "run       run_2 of hello version 3, started by mcp",
        "status    error",
        "started   2026-01-01T00:00:00.000Z",
        "took      12.5 ms, 1.25 ms of them on the CPU",
        "tools     2 calls",
        "input     7 bytes, not kept",
        "error     Error: fetch failed",
        "    2 | \tconst answer = await ask();",
        "      | \t                     ^",
        "    at ask (f.js:9:1)",
        "    at f.js:2:23",
        f"{BLOCKED}; to allow it: rootlink egress allow evil.example",
        "console   1 line, and more that was not kept",
        "  warn  close[31m",
        "refused   1 host",
        f"  {BLOCKED} (3 times)",
        "    to allow it: rootlink egress allow evil.example:8443",
    ]
    assert run("function", "run", "hello", "run_1").out.splitlines()[-4:] == ["output    7 bytes", "{", '  "a": 1', "}"]
    assert run("function", "run", "hello", "run_2", "--json").data == FAILED
    assert run("function", "run", "hello", "run_9").err.startswith("rootlink: not_found: ")


def test_versions_are_listed_and_gone_back_to(run: Run, hello: Instance) -> None:
    shown = run("function", "versions", "hello")
    assert [line.split() for line in shown.out.splitlines()[1:]] == [["3", "at-3"], ["2", "at-2", "live"], ["1", "at-1"]]
    assert "rootlink function rollback hello" in shown.err
    assert run("function", "rollback", "hello").out == "hello version 1 is live again\n"
    assert hello.requests[-1][2] == {"version": None}
    assert run("function", "rollback", "hello", "3", "--json").data["version"] == 3
    assert run("function", "rollback", "hello", "three").code == 2


def test_a_function_is_shown_and_its_code_alone(run: Run, hello: Instance) -> None:
    shown = dict(line.split(maxsplit=1) for line in run("function", "show", "hello").out.splitlines())
    assert (shown["secrets"], shown["hosts"], shown["tools"]) == ("KEY", "none", "every tool of this workspace")
    assert (shown["isolation"], shown["concurrency"], shown["description"]) == ("fresh", "4", "Says hello.")
    assert run("function", "show", "hello", "--code").out == f"{BODY}\n"
    assert run("function", "show", "hello", "--code", "--version", "3").out == f"{BODY}\n"
    assert hello.requests[-1][1].endswith("/functions/hello/versions/3")
