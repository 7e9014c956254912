"""What may be deployed, and what a deploy refuses, in words its author can act on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rootlink.engine.functions.host import FunctionHost
from rootlink.errors import Invalid, NotFound, RootlinkError
from rootlink.wire.mounts import FunctionSpec
from tests.functions.ground import SECRETS, Stage, WayOut


@pytest.mark.parametrize(
    "code",
    [
        "async () => 1;\n",
        "async () => 1 ;;\n ; \n",
        "// first\nasync () => 1;  // see http://x.example/y\n",
        "async () => 'http://x' && 1; /* a */ // b\n/* c */\n",
        "\ufeffasync () => 1",
        "(async () => 1)",
        "function named() { return 1 }",
        "((n) => () => n)(1)",
        "async () => { return 1 } // no newline at the end",
    ],
)
async def test_what_trails_the_expression_in_a_file_is_tolerated(stage: Stage, code: str) -> None:
    assert await stage.output(code) == 1
    assert stage.host.get("main", "f").code == code


@pytest.mark.parametrize(
    "code",
    [
        "1) => 0, (2",
        "1); evil(); (2",
        "() => 1)}); while (true); (() => { return (2",
        "1]; evil(); [2",
        "() => 1, ...[]",
        "}; while (true); {",
        "return () => 1",
        "let a = 1",
        "const a = 1; a",
        "while (true); () => 1",
        "async () => { with ({}) {} }",
        "async () => {",
        "async () => { let a; let a }",
        "`",
        "/*",
        "() => 1 -->",
        "import x from 'y'",
        "(" * 100_000,
    ],
    ids=lambda code: code[:30],
)
async def test_what_is_neither_an_expression_nor_statements_is_refused(stage: Stage, code: str) -> None:
    with pytest.raises(Invalid, match="does not compile"):
        await stage.deploy(code)
    assert stage.host.list("main") == []


@pytest.mark.parametrize(
    "code",
    [
        "const a = 1; () => a",
        "const a = 1;\nfunction twice(n) { return n * 2 }\nasync () => twice(a) - 1;\n// end",
        "let calls = 0; () => ++calls",
        "const url = 'x'; const main = async () => { console.log(typeof fetch); return 1 }; main",
    ],
    ids=lambda code: code[:30],
)
async def test_statements_whose_last_one_is_the_function_are_a_body_too(stage: Stage, code: str) -> None:
    assert await stage.output(code) == 1
    assert await stage.output(code) == 1, "nothing is kept from one call to the next"


async def test_an_output_that_holds_a_secret_is_answered_but_not_written_down(stage: Stage) -> None:
    await stage.deploy("(input, ctx) => ({ token: ctx.env.API_KEY })")
    run = await stage.host.invoke("main", "f", None)
    assert run.output == {"token": SECRETS["API_KEY"]}
    assert stage.host.runs("main", "f")[0].output == {"token": "[secret API_KEY]"}


async def test_a_syntax_error_names_its_line_column_and_text(stage: Stage) -> None:
    with pytest.raises(Invalid) as refused:
        await stage.deploy("async () => {\n  const x = 1;\n  return x +* 2;\n}\n")
    assert "SyntaxError: Unexpected token '*' at line 3, column 13: return x +* 2;" in refused.value.message


async def test_a_syntax_error_on_the_first_line_has_the_authors_column(stage: Stage) -> None:
    with pytest.raises(Invalid, match=r"at line 1, column 4: 1 \+\* 2"):
        await stage.deploy("1 +* 2")


@pytest.mark.parametrize(
    ("code", "kind"), [("42", "number"), ("'x'", "string"), ("({})", "object"), ("undefined", "undefined"), ("null", "object")]
)
async def test_a_body_that_is_plainly_no_function_is_refused(stage: Stage, code: str, kind: str) -> None:
    with pytest.raises(Invalid, match=f"a value of type {kind}, not to a function"):
        await stage.deploy(code)


async def test_statements_without_a_function_at_their_end_are_refused_by_what_they_give(stage: Stage) -> None:
    with pytest.raises(Invalid, match="its last statement gives a value of type number, not a function; write: export default"):
        await stage.deploy("const a = 1; a")


async def test_of_several_readings_the_complaint_is_of_the_one_that_got_furthest(stage: Stage) -> None:
    with pytest.raises(Invalid, match=r"Unexpected token '\*' at line 3, column 13: return x \+\* 2;"):
        await stage.deploy("const x = 1;\nasync () => {\n  return x +* 2;\n}")


async def test_a_body_whose_evaluation_throws_or_never_ends_is_judged_when_it_runs(stage: Stage) -> None:
    assert (await stage.error("missing.thing"))["name"] == "ReferenceError"
    run = await stage.run("(() => { while (true); })()", timeout_ms=100)
    assert run.status == "timeout"


async def test_a_deploy_has_no_effect_outside(stage: Stage) -> None:
    await stage.deploy("(fetch('https://api.example/at-deploy'), async () => 1)")
    assert stage.out.asked == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "../x"}, "function name"),
        ({"code": " ;\n"}, "empty"),
        ({"code": "x" * (1 << 20) + "y"}, "at most 1048576"),
        ({"code": "'\ud800'"}, "surrogate"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"timeout_ms": 300_001}, "timeout_ms"),
        ({"memory_mb": 257}, "memory_mb"),
        ({"memory_mb": 1}, "memory_mb"),
        ({"description": "x" * 9000}, "description"),
        ({"env": {"1x": "y"}}, "secret name"),
        ({"input_schema": {"type": "nonsense"}}, "input_schema"),
        ({"input_schema": {"type": "array"}}, "must describe an object"),
        ({"input_schema": {"properties": {"a": {"$ref": "https://schemas.example/x"}}}}, "schemas.example"),
        ({"input_schema": {"properties": {"a": {"pattern": "(?=x)"}}}}, "input_schema"),
        ({"output_schema": {"required": "a"}}, "output_schema"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_spec_is_refused_without_starting_anything(stage: Stage, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        await stage.host.deploy("main", FunctionSpec(**{"name": "f", "code": "() => 1", **spec}))


async def test_versions_count_up_and_the_newest_runs(stage: Stage) -> None:
    for expected in (1, 2, 3):
        deployed = await stage.host.deploy("main", FunctionSpec(name="f", code=f"(i, ctx) => [{expected}, ctx.version]"))
        assert (deployed.name, deployed.version, deployed.tool) == ("f", expected, "function__f")
        assert (await stage.host.invoke("main", "f", None)).output == [expected, expected]


async def test_a_refused_version_leaves_the_old_one(stage: Stage) -> None:
    await stage.deploy("() => 'old'")
    with pytest.raises(Invalid):
        await stage.deploy("() => {")
    assert (await stage.host.invoke("main", "f", None)).output == "old"
    assert stage.host.get("main", "f").version == 1


async def test_a_run_in_flight_ends_with_the_version_it_began_with(stage: Stage) -> None:
    await stage.deploy("async () => { await new Promise((done) => setTimeout(done, 80)); return 'old' }")
    running = asyncio.create_task(stage.host.invoke("main", "f", None))
    await asyncio.sleep(0.01)
    await stage.deploy("async () => 'new'")
    assert (await stage.host.invoke("main", "f", None)).output == "new"
    assert (await running).output == "old"


async def test_functions_of_two_workspaces_do_not_meet(stage: Stage) -> None:
    for ws in ("main", "other"):
        await stage.host.deploy(ws, FunctionSpec(name="f", code=f"() => '{ws}'"))
    assert [(await stage.host.invoke(ws, "f", None)).output for ws in ("main", "other")] == ["main", "other"]
    assert await stage.host.remove("other", "f")
    assert [function.ws for function in stage.host.all()] == ["main"]


async def test_the_tool_is_what_an_mcp_client_needs(stage: Stage) -> None:
    await stage.deploy("() => 1", "plain")
    assert stage.host.tool("main", "plain") == {"name": "function__plain", "description": "", "inputSchema": {"type": "object"}}
    schema = {"properties": {"a": {"type": "string"}}, "required": ["a"]}
    await stage.deploy(
        "() => 1",
        "full",
        title="Full",
        description="d",
        input_schema=schema,
        output_schema={"type": "object"},
        annotations={"readOnlyHint": True},
    )
    assert stage.host.tool("main", "full") == {
        "name": "function__full",
        "title": "Full",
        "description": "d",
        "inputSchema": {"type": "object", **schema},
        "outputSchema": {"type": "object"},
        "annotations": {"readOnlyHint": True},
    }


async def test_input_that_does_not_fit_is_a_run_with_the_path_and_touches_no_isolate(stage: Stage) -> None:
    schema = {"properties": {"to": {"type": "array", "items": {"type": "string"}}}, "required": ["to"]}
    await stage.deploy("(input) => input.to", input_schema=schema)
    run = await stage.host.invoke("main", "f", {"to": ["a", 5]})
    assert run.status == "error"
    assert run.error is not None
    assert run.error["name"] == "InputError"
    assert run.error["message"].startswith("input.to[1]: ")
    missing = await stage.host.invoke("main", "f", {})
    assert missing.error is not None
    assert '"to"' in missing.error["message"]
    assert stage.host.runs("main", "f") == [missing, run]


@pytest.mark.parametrize("input", ["x" * (5 << 20), "\ud800", object(), {1j: 2}], ids=["large", "surrogate", "object", "key"])
async def test_input_that_is_not_json_is_a_run_that_failed(stage: Stage, input: Any) -> None:
    assert (await stage.error("() => 1", input))["name"] == "InputError"


async def test_what_is_not_there_is_not_found(stage: Stage) -> None:
    host = stage.host
    assert await host.remove("main", "none") is False
    for ask in (
        lambda: host.get("main", "none"),
        lambda: host.tool("main", "none"),
        lambda: host.runs("main", "none"),
        lambda: host.run("main", "f", "r"),
    ):
        with pytest.raises(NotFound):
            ask()
    with pytest.raises(NotFound):
        await host.invoke("main", "none", None)


async def test_a_removed_function_takes_its_runs_along_and_begins_anew(stage: Stage) -> None:
    await stage.run("() => 1")
    assert await stage.host.remove("main", "f")
    assert stage.db.execute("SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM function_versions)").fetchone() == (0,)
    assert (await stage.host.deploy("main", FunctionSpec(name="f", code="() => 2"))).version == 1


async def test_a_restarted_host_holds_what_the_last_one_did(stage: Stage) -> None:
    code = "(input, ctx) => ctx.version;  // trailing\n"
    await stage.host.deploy("main", FunctionSpec(name="f", code=code), connection="con_1")
    run = await stage.host.invoke("main", "f", None)
    await stage.host.close()
    again = FunctionHost(stage.db, WayOut(), SECRETS)
    try:
        assert again.get("main", "f") == stage.host.get("main", "f")
        assert again.get("main", "f").connection == "con_1"
        assert again.runs("main", "f") == [run]
        assert (await again.invoke("main", "f", None)).output == 1
    finally:
        await again.close()


async def test_a_full_disk_fails_the_deploy_and_not_the_run(stage: Stage) -> None:
    await stage.deploy("() => 1")
    stage.db.execute("PRAGMA max_page_count = 1")
    stage.db.execute(f"PRAGMA max_page_count = {stage.db.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(RootlinkError) as refused:
        await stage.deploy(f"() => '{'x' * 200_000}'")
    assert refused.value.code == "unavailable"
    assert (await stage.host.invoke("main", "f", None)).output == 1
