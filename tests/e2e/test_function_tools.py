"""Functions as MCP tools, and functions that call tools, through a whole Rootlink, with the official client of both eras."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.harness.instance import SERVERS, Instance, closing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MODES = ("legacy", "auto")
HINTS = {"title": "Order", "readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}
INPUT = {
    "properties": {"lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1}},
    "required": ["lines"],
    "$defs": {"line": {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}},
}
OUTPUT = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"], "additionalProperties": False}
TOTAL = "(input) => ({ total: input.lines.reduce((sum, line) => sum + line.price, 0), ...(input.extra ?? {}) })"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    instance = Instance(tmp_path_factory.mktemp("tools") / "home", "--allow-private", "127.0.0.0/8")
    for one in closing(instance):
        one.mount("plain", SERVERS / "plain.py")
        yield one


def deploy(rig: Instance, name: str, code: str, **spec: Any) -> None:
    answer = rig.engine("PUT", "/functions", {"name": name, "code": code, **spec})
    assert answer.status == 200, answer.body


def words(result: Any) -> str:
    return str(result.content[0].text)


@pytest.mark.parametrize("mode", MODES)
async def test_the_official_client_lists_calls_and_checks_a_function(rig: Instance, mode: str) -> None:
    deploy(rig, "total", TOTAL, input_schema=INPUT, output_schema=OUTPUT, annotations=HINTS, title="Total", description="Adds up")
    async with rig.client(mode) as client:
        (tool,) = [tool for tool in (await client.list_tools()).tools if tool.name == "function__total"]
        assert (tool.title, tool.description) == ("Total", "Adds up")
        assert tool.annotations is not None
        assert tool.annotations.model_dump(by_alias=True, exclude_none=True) == HINTS
        for schema in (tool.input_schema, tool.output_schema):
            assert schema is not None
            assert schema["type"] == "object"
            Draft202012Validator.check_schema(schema)
        done = await client.call_tool("function__total", {"lines": [{"price": 2}, {"price": 0.5}]})
        assert (done.is_error, done.structured_content) == (False, {"total": 2.5})

        wrong = await client.call_tool("function__total", {"lines": [{"price": "sk_live_1"}]})
        assert wrong.is_error
        assert words(wrong).startswith('InputError: input.lines[0].price: the value is not of type "number"')
        assert "sk_live" not in words(wrong)
        more = await client.call_tool("function__total", {"lines": [{"price": 1}], "extra": {"more": 1}})
        assert (more.is_error, more.structured_content) == (True, None)
        assert words(more).startswith("OutputError: output: ")
        assert "run: run_" in words(more)


@pytest.mark.parametrize("mode", MODES)
async def test_a_failing_function_is_a_result_that_a_model_can_act_on(rig: Instance, mode: str) -> None:
    deploy(rig, "asks", "async () => {\n  console.log('asking');\n  return (await fetch('https://evil.example/')).status;\n}")
    async with rig.client(mode) as client:
        refused = await client.call_tool("function__asks", {})
    assert refused.is_error
    assert "egress blocked: host 'evil.example' is not in this project's outbound allowlist" in words(refused)
    assert "rootlink egress allow evil.example" in words(refused)
    assert "log: asking" in words(refused)
    assert any(one["host"] == "evil.example" for one in rig.denied())


@pytest.mark.parametrize("mode", MODES)
async def test_a_function_calls_the_tools_of_a_server_and_of_a_function_for_a_client(rig: Instance, mode: str) -> None:
    deploy(rig, "total", TOTAL, input_schema=INPUT, output_schema=OUTPUT)
    body = """async (input, ctx) => {
        const { structuredContent } = await ctx.tools.call('function__total', { lines: input.lines });
        const echoed = await ctx.tools.call('plain__echo', { text: `the total is ${structuredContent.total}` });
        return { said: echoed.text };
    }"""
    deploy(rig, "tells", body)
    async with rig.client(mode) as client:
        done = await client.call_tool("function__tells", {"lines": [{"price": 7}]})
    assert done.structured_content == {"said": "the total is 7"}
    (run, *_) = rig.engine("GET", "/functions/tells/runs").data
    assert (run["trigger"], run["tool_calls"]) == ("mcp", 2)
    (run, *_) = rig.engine("GET", "/functions/total/runs").data
    assert run["trigger"] == "tool"


async def test_two_functions_that_call_each_other_as_often_as_they_can_end_soon_and_hurt_nobody(rig: Instance) -> None:
    bomb = (
        "async (input, ctx) => Promise.all(Array.from({length: 100}, () => ctx.tools.call('function__%s').catch((e) => e.name)))"
    )
    deploy(rig, "one", bomb % "two")
    deploy(rig, "two", bomb % "one")
    async with rig.client() as client:
        bombing = asyncio.ensure_future(asyncio.to_thread(rig.engine, "POST", "/functions/one/invoke", {"input": {}}))
        slowest = 0.0
        while not bombing.done():
            began = asyncio.get_running_loop().time()
            assert words(await client.call_tool("plain__echo", {"text": "here"})) == "here"
            slowest = max(slowest, asyncio.get_running_loop().time() - began)
        assert bombing.result().data["status"] in ("ok", "timeout")
        assert slowest < 2


def test_a_schema_that_could_end_the_engine_is_refused_and_the_engine_lives(rig: Instance) -> None:
    pid = rig.engine_pid()
    defs = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(22)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**defs, "d22": {"properties": {"a": True}}}, "unevaluatedProperties": False}
    answer = rig.engine("PUT", "/functions", {"name": "bomb", "code": "() => 1", "input_schema": schema})
    assert answer.code == "invalid"
    assert answer.message.startswith("input_schema is too complex")
    deploy(rig, "tree", "() => 'fits'", input_schema={"properties": {"a": {"$ref": "#"}}, "type": "object"})
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"a": deep}
    assert rig.engine("POST", "/functions/tree/invoke", {"input": deep}).data["output"] == "fits"
    assert rig.engine_pid() == pid
