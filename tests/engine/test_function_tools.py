"""Functions that call the workspace's tools, and functions as tools, in one real engine with a real server of the tests."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from rootlink.engine.app import Engine
from rootlink.engine.dispatch import Caller
from rootlink.engine.functions.host import Run
from rootlink.redaction import Redactor
from rootlink.wire.engine import EgressPolicy, Environment
from rootlink.wire.mounts import Desired, FunctionSpec, MountSpec
from rootlink.wire.tools import ToolRules
from tests.engine.test_tool_connections import SERVERS, USER, connect, engine

PLAIN = [str(SERVERS / "plain.py")]
TELLS = "async (input, ctx) => { try { return (await ctx.tools.call(%s)).text } catch (e) { return `${e.name}: ${e.message}` } }"
CATCH = TELLS % "input.tool, input.args"
NEXT = TELLS % "'function__%s', {}"


async def mount(one: Engine, name: str = "m", **rules: Any) -> None:
    spec = MountSpec(name, "stdio", command=sys.executable, args=["-S", *PLAIN])
    await connect(one, Desired(f"con_{name}", "main", name, mount=spec, rules=ToolRules(**rules)))


async def deploy(one: Engine, name: str, code: str, **spec: Any) -> None:
    await one.installer.deploy("main", FunctionSpec(name, code, **spec))


async def run(one: Engine, name: str, input: Any = None) -> Run:
    return await one.functions.invoke("main", name, input or {})


async def call(one: Engine, tool: str, arguments: Any = None) -> Any:
    answer = await one.dispatch.handle(USER, "tools/call", {"name": tool, "arguments": arguments or {}})
    return msgspec.json.decode(answer)


async def said(one: Engine, tool: str, args: Any = None, by: str = "f") -> Any:
    return (await run(one, by, {"tool": tool, "args": args or {}})).output


async def test_a_function_uses_the_tools_of_its_workspace_as_a_client_does(tmp_path: Path) -> None:
    async with engine(tmp_path) as one:
        await mount(one)
        await deploy(one, "f", "async (input, ctx) => await ctx.tools.call('m__echo', input)")
        done = await run(one, "f", {"text": "hello", "n": [1]})
        assert done.output == {
            "content": [{"type": "text", "text": "hello"}],
            "structuredContent": {"text": "hello", "n": [1]},
            "text": "hello",
        }
        assert done.tool_calls == 1
        listed = "async (input, ctx) => (await ctx.tools.list()).map((tool) => tool.name)"
        await deploy(one, "f", listed)
        names = (await run(one, "f")).output
        assert {"m__echo", "function__f"} <= set(names)
        assert not {name for name in names if name.startswith(("mcp_", "connector"))}
        await deploy(one, "f", listed, tools=["m__e*"])
        assert (await run(one, "f")).output == ["m__echo", "m__env"]


async def test_what_a_function_may_not_call_is_refused_in_words(tmp_path: Path) -> None:
    modes = {"env": "off", "slow": "ask"}
    async with engine(tmp_path) as one:
        await mount(one, modes=modes, access={"busy": "write", "echo": "read"})
        await deploy(one, "f", CATCH)
        assert await said(one, "m__echo", {"text": "ok"}) == "ok"
        assert (
            await said(one, "m__env") == "Forbidden: m__env is switched off; switch it on with: rootlink tools set m__env allow"
        )
        for asks in ("m__slow", "m__busy"):
            words = await said(one, asks)
            assert words.startswith(
                f"Forbidden: {asks} asks a person first, and a function can't ask; allow it with: rootlink tools set {asks} allow"
            )
        assert (await call(one, "m__busy"))["content"][0]["text"] == "1", "a key's holder without a client is not asked"
        for own in ("mcp_server_install", "mcp_server_remove", "mcp_server_list", "connector_catalog"):
            assert await said(one, own) == f"Forbidden: {own} is one of Rootlink's own tools, which functions can't call"
        assert (await said(one, "m__none")).startswith("NotFound: no tool 'm__none' in workspace 'main'")
        assert await said(one, "m__fail") == "ToolError: it failed"


async def test_a_secret_is_in_no_error_that_a_tool_gives_a_function(tmp_path: Path) -> None:
    async with engine(tmp_path) as one:
        await mount(one)
        one.dispatch._redact = Redactor({"KEY": "sk_live_0123456789"})
        await deploy(one, "thrower", "(input) => { throw new Error('with ' + input.key) }")
        await deploy(one, "f", CATCH)
        words = await said(one, "function__thrower", {"key": "sk_live_0123456789"})
        assert words.startswith("ToolError: Error: with ")
        assert "sk_live" not in words


async def test_a_body_that_ends_early_and_one_that_is_out_of_time_cancel_their_calls_at_the_server(tmp_path: Path) -> None:
    async with engine(tmp_path) as one:
        await mount(one)
        for body, timeout in (
            (
                "async (input, ctx) => { ctx.tools.call('m__slow', {seconds: 5}); await new Promise((r) => setTimeout(r, 100)) }",
                5000,
            ),
            ("async (input, ctx) => await ctx.tools.call('m__slow', {seconds: 5})", 300),
        ):
            before = len(json.loads((await call(one, "m__cancelled"))["content"][0]["text"]))
            await deploy(one, "f", body, timeout_ms=timeout)
            done = await run(one, "f")
            assert done.status == ("ok" if timeout == 5000 else "timeout")
            assert done.duration_ms < 3000
            async with asyncio.timeout(5):
                while len(json.loads((await call(one, "m__cancelled"))["content"][0]["text"])) == before:
                    await asyncio.sleep(0.02)


async def test_functions_that_call_one_another_stop_at_four_with_words(tmp_path: Path) -> None:
    async with engine(tmp_path) as one:
        await deploy(one, "a", NEXT % "b")
        await deploy(one, "b", NEXT % "a")
        words = (await run(one, "a")).output
        assert (
            words == "LimitError: functions call one another too deeply: a → b → a → b → a; at most 4 may stand above one another"
        )
        assert [entry.trigger for entry in one.functions.runs("main", "b")] == ["tool", "tool"]
        assert [entry.tool_calls for entry in one.functions.runs("main", "b")] == [1, 1]


async def test_a_tree_of_runs_shares_one_budget_of_calls(tmp_path: Path) -> None:
    async with engine(tmp_path) as one:
        await mount(one)
        every = "await Promise.all(Array.from({length: 100}, () => ctx.tools.call('function__%s').catch((e) => e.name)))"
        await deploy(one, "a", f"async (input, ctx) => {{ {every % 'b'}; return 1 }}")
        await deploy(one, "b", f"async (input, ctx) => {{ {every % 'a'}; return 1 }}")
        began = asyncio.get_running_loop().time()
        assert (await run(one, "a")).status == "ok"
        assert asyncio.get_running_loop().time() - began < 20
        runs = [*one.functions.runs("main", "a"), *one.functions.runs("main", "b")]
        assert len(runs) <= 101, "the first, and one for each call there was"
        assert sum(entry.tool_calls for entry in runs) == 100
        assert (await run(one, "a")).status == "ok", "the next tree has a budget of its own"


async def test_a_function_that_would_wait_for_itself_is_refused_at_once(tmp_path: Path) -> None:
    async with engine(tmp_path) as one:
        await deploy(one, "a", NEXT % "b", concurrency=1)
        await deploy(one, "b", NEXT % "a")
        began = asyncio.get_running_loop().time()
        words = (await run(one, "a")).output
        assert words == "LimitError: a → b → a: this call would wait for itself, for `concurrency` of a is 1"
        assert asyncio.get_running_loop().time() - began < 3
        assert (await asyncio.gather(run(one, "a"), run(one, "a")))[1].status == "ok", "others wait for their turn"


async def test_a_function_that_is_switched_off_or_asked_about_is_so_for_functions(tmp_path: Path) -> None:
    async with engine(tmp_path) as one:
        await connect(
            one, Desired("con_g", "main", "g", function=FunctionSpec("g", "() => 'done'"), rules=ToolRules(modes={"g": "off"}))
        )
        await deploy(one, "f", CATCH)
        assert "switched off" in await said(one, "function__g")
        await one._environment(Environment({}, EgressPolicy(), {"con_g": ToolRules(modes={"g": "ask"})}))
        assert "asks a person first" in await said(one, "function__g")
        await one._environment(Environment({}, EgressPolicy(), {"con_g": ToolRules(modes={"g": "allow"})}))
        assert await said(one, "function__g") == "done"


async def test_a_failing_run_tells_a_model_what_where_and_what_to_do(tmp_path: Path) -> None:
    async with engine(tmp_path) as one:
        await deploy(
            one, "f", "async (input, ctx) => {\n  console.log('about to ask');\n  await fetch('https://evil.example/');\n}"
        )
        answer = await call(one, "function__f")
        text = answer["content"][0]["text"]
        assert (answer["isError"], "structuredContent" in answer) == (True, False)
        assert text.startswith("EgressBlocked: egress blocked: host 'evil.example' is not in this project's outbound allowlist")
        assert "rootlink egress allow evil.example" in text
        assert "\n  log: about to ask\n" in text
        assert f"run: {one.functions.runs('main', 'f')[0].run_id} of function f, version 1" in text

        await deploy(
            one,
            "f",
            "() => {\n  for (let i = 0; i < 9; i++) console.log('x'.repeat(1000) + i);\n  throw new RangeError('too far')\n}",
        )
        text = (await call(one, "function__f"))["content"][0]["text"]
        assert text.startswith("RangeError: too far (line 3, column ")
        assert text.count("\n  log: ") == 5
        assert len(text) < 2500

        await deploy(one, "f", "async () => new Promise(() => {})", timeout_ms=150)
        assert "took longer than 0.15 s" in (await call(one, "function__f"))["content"][0]["text"]

        schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
        await deploy(one, "f", "(input) => input", input_schema=schema, output_schema={"required": ["m"]})
        answer = await call(one, "function__f", {"n": "sk_live_1"})
        assert answer["isError"] is True
        assert answer["content"][0]["text"].startswith('InputError: input.n: the value is not of type "integer"')
        answer = await call(one, "function__f", {"n": 1})
        assert answer["content"][0]["text"].startswith('OutputError: output: "m" is a required property (output_schema)')
        assert "structuredContent" not in answer


async def test_a_busy_function_is_a_result_that_says_so(tmp_path: Path) -> None:
    async with engine(tmp_path) as one:
        await deploy(one, "f", "async () => new Promise((r) => setTimeout(r, 1500))", concurrency=1, timeout_ms=600)
        first = asyncio.ensure_future(call(one, "function__f"))
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(call(one, "function__f"))
        third = asyncio.ensure_future(call(one, "function__f"))
        answers = await asyncio.gather(first, second, third)
        assert all(answer["isError"] for answer in answers)
        assert any(answer["content"][0]["text"].startswith("rate_limited: function 'f' already has 1") for answer in answers)


async def test_a_key_that_may_only_use_calls_functions_and_they_tools(tmp_path: Path) -> None:
    async with engine(tmp_path) as one:
        await mount(one)
        await deploy(one, "f", CATCH)
        user = Caller("main", "user", frozenset({"use"}))
        params = {"name": "function__f", "arguments": {"tool": "m__echo", "args": {"text": "hi"}}}
        assert b"hi" in bytes(await one.dispatch.handle(user, "tools/call", params))
