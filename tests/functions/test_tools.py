"""`ctx.tools` inside a body: what it gives, what it refuses, and how little a hostile body can do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from rootlink.engine.functions import tools
from rootlink.engine.functions.tools import ToolFailed, Within, matches
from rootlink.errors import EgressBlocked, Forbidden
from rootlink.wire.mounts import FunctionSpec
from tests.functions.ground import Stage
from tests.functions.test_lag import MOST_SECS, TRIES, probed

Answer = Callable[[str, dict[str, Any], Within], Awaitable[Any]]


class Workspace:
    """The port `functions.tools.Tools`: everything it was called with, and answers as a test says."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.called: list[tuple[str, dict[str, Any]]] = []
        self.running = self.most = self.cancelled = 0

    async def call(self, ws: str, name: str, arguments: dict[str, Any], within: Within) -> Raw:
        self.called.append((name, arguments))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            answer = await self.answer(name, arguments, within)
            return answer if isinstance(answer, Raw) else Raw(msgspec.json.encode(answer))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    def list(self, ws: str) -> list[dict[str, Any]]:
        return [{"name": name, "description": "x" * 10_000, "inputSchema": {}} for name in ("a__one", "b__two")] * 300


async def echo(name: str, arguments: dict[str, Any], within: Within) -> Any:
    return {
        "content": [{"type": "text", "text": "one"}, {"type": "image"}, {"type": "text", "text": "two"}],
        "structuredContent": arguments,
    }


async def never(name: str, arguments: dict[str, Any], within: Within) -> Any:
    await asyncio.Event().wait()


@pytest.fixture
def workspace(stage: Stage) -> Workspace:
    one = Workspace(echo)
    stage.host.tools = one
    return one


CAUGHT = (
    "async (input, ctx) => { try { return await ctx.tools.call(%s) } catch (e) { return [e.name, e.message, e.tool ?? null] } }"
)


async def test_a_tools_result_is_given_as_mcp_has_it_and_its_text_joined(stage: Stage, workspace: Workspace) -> None:
    run = await stage.run("async (input, ctx) => await ctx.tools.call('m__echo', { a: [1, null] })")
    assert (run.status, run.tool_calls) == ("ok", 1)
    assert run.output["text"] == "one\ntwo"
    assert run.output["structuredContent"] == {"a": [1, None]}
    assert len(run.output["content"]) == 3
    assert await stage.output("async (input, ctx) => (await ctx.tools.call('m__echo')).structuredContent") == {}
    assert workspace.called == [("m__echo", {"a": [1, None]}), ("m__echo", {})]
    assert (await stage.run("() => 1")).tool_calls == 0


async def test_a_tool_that_fails_is_an_error_of_its_name_with_its_words(stage: Stage, workspace: Workspace) -> None:
    async def fails(name: str, arguments: dict[str, Any], within: Within) -> Any:
        raise {"blocked": EgressBlocked("egress blocked: host 'x'"), "off": Forbidden("off is switched off")}.get(
            name
        ) or ToolFailed("it broke")

    async def says(name: str, arguments: dict[str, Any], within: Within) -> Any:
        return {"isError": True, "content": [{"type": "text", "text": "no such row"}] if arguments else []}

    workspace.answer = says
    assert await stage.output(CAUGHT % "'m__t', {a: 1}") == ["ToolError", "no such row", "m__t"]
    assert await stage.output(CAUGHT % "'m__t'") == ["ToolError", "m__t failed, and gave no reason", "m__t"]
    workspace.answer = fails
    assert await stage.output(CAUGHT % "'blocked'") == ["EgressBlocked", "egress blocked: host 'x'", "blocked"]
    assert await stage.output(CAUGHT % "'off'") == ["Forbidden", "off is switched off", "off"]
    assert await stage.output(CAUGHT % "'other'") == ["ToolError", "it broke", "other"]
    error = await stage.error("async (input, ctx) => { await ctx.tools.call('other') }")
    assert (error["name"], error["message"]) == ("ToolError", "it broke")


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*", "anything", True), ("m__t", "m__t", True), ("m__t", "m__tt", False), ("m__*", "m__", True), ("m__*", "mm__t", False),
        ("*__read*", "m__read_all", True), ("a*a", "a", False), ("a*b*a", "aba", True), ("m__?", "m__t", False), ("", "", True),
        ("*" * 60 + "x", "a" * 64, False), ("a*" * 60, "a" * 59, False), ("[a]", "a", False),
    ],
)  # fmt: skip
def test_a_star_stands_for_any_characters_and_nothing_else_for_others(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) is fits


async def test_a_function_calls_what_its_spec_names_and_a_connections_function_nothing_else(
    stage: Stage, workspace: Workspace
) -> None:
    refused = ["Forbidden", "this function may not call m__t: `tools` of its spec does not name it", "m__t"]
    assert await stage.output(CAUGHT % "'m__t'", tools=["m__other", "n__*"]) == refused
    assert await stage.output(CAUGHT % "'m__t'", tools=[]) == refused
    assert isinstance(await stage.output(CAUGHT % "'m__t'", tools=["m__*"]), dict)
    for patterns, fits in ((None, False), (["m__*"], True)):
        spec = FunctionSpec("of", CAUGHT % "'m__t'", tools=patterns)
        await stage.host.deploy("main", spec, connection="con_1")
        output = (await stage.host.invoke("main", "of", {})).output
        assert isinstance(output, dict) if fits else output == refused
    assert len(workspace.called) == 2


async def test_the_list_is_of_what_may_be_called_and_bounded(stage: Stage, workspace: Workspace) -> None:
    found = await stage.output("async (input, ctx) => (await ctx.tools.list()).map((tool) => tool.name)", tools=["a__*"])
    assert set(found) == {"a__one"}
    assert 50 < len(found) < 120, "1 MiB of them"
    many = "async (input, ctx) => { for (let i = 0; i < 20; i++) await ctx.tools.list() }"
    assert (await stage.error(many))["message"] == "too many lists of tools: at most 10 a run; keep the first"


async def test_at_most_eight_calls_run_at_once_and_a_hundred_in_all(stage: Stage, workspace: Workspace) -> None:
    async def slow(name: str, arguments: dict[str, Any], within: Within) -> Any:
        await asyncio.sleep(0.01)
        return {"content": []}

    workspace.answer = slow
    body = """async (input, ctx) => {
        const all = Array.from({length: 150}, () => ctx.tools.call('m__t').then(() => 'ok', (e) => e.name + ': ' + e.message));
        const said = await Promise.all(all);
        return said.reduce((count, one) => ({ ...count, [one]: (count[one] ?? 0) + 1 }), {});
    }"""
    run = await stage.run(body)
    words = f"LimitError: too many tool calls: at most {tools.MAX_CALLS} a run, with those of the functions it calls"
    assert run.output == {"ok": 100, words: 50}
    assert (workspace.most, len(workspace.called), run.tool_calls) == (8, 100, 100)


async def test_calls_that_nobody_waits_for_are_cancelled_when_the_body_ends(stage: Stage, workspace: Workspace) -> None:
    workspace.answer = never
    body = "async (input, ctx) => { for (let i = 0; i < 20; i++) ctx.tools.call('m__t'); await new Promise((r) => setTimeout(r, 50)); return 'done' }"
    assert await stage.output(body) == "done"
    assert (workspace.running, workspace.cancelled) == (0, 8)


async def test_a_runs_deadline_ends_its_tool_call(stage: Stage, workspace: Workspace) -> None:
    workspace.answer = never
    run = await stage.run("async (input, ctx) => await ctx.tools.call('m__t')", timeout_ms=200)
    assert (run.status, workspace.running, workspace.cancelled) == ("timeout", 0, 1)
    assert "0.2 s" in (run.error or {})["message"]


async def test_large_arguments_and_results_are_refused_and_the_run_goes_on(stage: Stage, workspace: Workspace) -> None:
    name, message, _ = await stage.output(CAUGHT % "'m__t', {a: 'x'.repeat(1 << 20)}")
    assert (name, "at most 1048576" in message) == ("LimitError", True)
    name, message, _ = await stage.output(CAUGHT % "'m__t', {a: Array.from({length: 150000}, () => [])}")
    assert (name, "more than 100,000 lists" in message) == ("LimitError", True)
    assert workspace.called == []

    async def large(name: str, arguments: dict[str, Any], within: Within) -> Any:
        return {"content": [{"type": "text", "text": "x" * (4 << 20)}]}

    workspace.answer = large
    name, message, _ = await stage.output(CAUGHT % "'m__t'")
    assert (name, "at most 4194304" in message) == ("ToolError", True)


PACKED = {
    "lists": "{a: new Array(99_900).fill([])}",
    "members": "Object.fromEntries(Array.from({length: 80_000}, (_, i) => ['k' + i, 0]))",
    "a long string": "{a: '\\n'.repeat(500_000)}",
}


@pytest.mark.parametrize("arguments", PACKED.values(), ids=PACKED.keys())
async def test_many_calls_with_large_arguments_and_answers_do_not_hold_up_the_engine(
    stage: Stage, workspace: Workspace, arguments: str
) -> None:
    body = f"""async (input, ctx) => {{
        const a = {arguments};
        return (await Promise.allSettled(Array.from({{ length: 16 }}, () => ctx.tools.call('m__t', a)))).every((one) => one.value);
    }}"""
    await stage.deploy(body, memory_mb=256, timeout_ms=20_000)
    longest: list[float] = []
    while len(longest) < TRIES and min(longest, default=1.0) > MOST_SECS:
        async with probed() as probe:
            runs = await asyncio.gather(*(stage.host.invoke("main", "f", None) for _ in range(3)))
        assert [(run.output, run.tool_calls) for run in runs] == [(True, 16)] * 3, runs
        longest.append(probe.longest)
    assert min(longest) < MOST_SECS, longest


HOSTILE = {
    "a flood": ("async (input, ctx) => { for (let i = 0; i < 1e4; i++) ctx.tools.call('m__t').catch(() => 0); return 'over' }", "over"),
    "a flood that waits": (
        "async (input, ctx) => { let n = 0; for (let i = 0; i < 3e3; i++) try { await ctx.tools.call('m__t') } catch { n++ } return n }",
        2900,
    ),
    "no name": (CAUGHT % "", ["TypeError", "ctx.tools.call needs the name of a tool, a string", None]),
    "a name that is no string": (
        CAUGHT % "{ toString: () => 'm__t' }", ["TypeError", "ctx.tools.call needs the name of a tool, a string", None],
    ),
    "arguments that are a list": (
        CAUGHT % "'m__t', []", ["TypeError", "ctx.tools.call needs the arguments to be an object", None],
    ),
    "arguments that turn into something else": (
        CAUGHT % "'m__t', { toJSON: () => 5 }",
        ["TypeError", "ctx.tools.call needs the arguments to be an object", None],
    ),
    "arguments that are nowhere": (
        CAUGHT % "'m__t', { toJSON: () => undefined }", ["TypeError", "ctx.tools.call needs the arguments to be an object", None],
    ),
    "arguments nested too deeply": (
        CAUGHT % "'m__t', { a: (() => { let a = []; for (let i = 0; i < 5000; i++) a = [a]; return a })() }",
        ["ToolError", "the arguments must be a JSON object, not nested too deeply, with text that is valid Unicode", "m__t"],
    ),
    "half of a surrogate pair": (
        CAUGHT % "'m__t', { a: '\\ud800' }",
        ["ToolError", "the arguments must be a JSON object, not nested too deeply, with text that is valid Unicode", "m__t"],
    ),
    "its context, changed": (
        "async (input, ctx) => { const t = ctx.tools; t.call = 1; try { t.call() } catch (e) { return e.name } }", "TypeError",
    ),
    "__proto__ in the arguments": (
        """async (input, ctx) => {
            const said = (await ctx.tools.call('m__t', JSON.parse('{"__proto__": {"bad": 1}}'))).structuredContent;
            return [{}.bad ?? null, said.bad ?? null, Object.keys(said)];
        }""",
        [None, None, ["__proto__"]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_hostile_body_gets_an_answer_and_its_neighbour_another(stage: Stage, workspace: Workspace, what: str) -> None:
    code, output = HOSTILE[what]
    run = await stage.run(code)
    assert run.output == output, run.error
    assert run.tool_calls <= tools.MAX_CALLS
    assert await stage.output("() => [{}.bad ?? null, 'fine']") == [None, "fine"]


async def test_a_flood_of_calls_is_held_back_inside_and_its_neighbours_run_on(stage: Stage, workspace: Workspace) -> None:
    await stage.deploy("() => 'fine'", "other")
    flood = asyncio.ensure_future(
        stage.run("async (input, ctx) => { for (let i = 0; i < 1e6; i++) ctx.tools.call('m__t', {i}) }")
    )
    done = 0
    while not flood.done():
        run = await stage.host.invoke("main", "other", {})
        assert run.output == "fine", run.error
        done += 1
    assert flood.result().status == "killed"
    assert done > 20
    assert len(workspace.called) <= tools.MAX_CALLS


@pytest.mark.parametrize(
    "arguments", ["{a: 10n}", "(() => { const a = {}; a.a = a; return a })()", "{ get a() { throw new Error('mine') } }"]
)
async def test_arguments_that_are_no_json_throw_and_are_not_sent(stage: Stage, workspace: Workspace, arguments: str) -> None:
    error = await stage.output(CAUGHT % f"'m__t', {arguments}")
    assert error[0] in ("TypeError", "Error")
    assert workspace.called == []


async def test_a_result_is_data_whatever_its_members_are_called(stage: Stage, workspace: Workspace) -> None:
    async def odd(name: str, arguments: dict[str, Any], within: Within) -> Any:
        return Raw(
            b'{"content": {"no": "list"}, "then": "later", "__proto__": {"bad": 1}, "text": "its own", "toString": 1, "n": 1e400}'
        )

    workspace.answer = odd
    body = "async (input, ctx) => { const r = await ctx.tools.call('m__t'); return [r.text, r.then, {}.bad ?? null, Object.keys(r).sort()] }"
    output = await stage.output(body)
    assert output == ["", "later", None, ["__proto__", "content", "n", "text", "then", "toString"]]


async def test_a_result_of_a_call_that_was_answered_late_is_nobodys(stage: Stage, workspace: Workspace) -> None:
    gate = asyncio.Event()

    async def later(name: str, arguments: dict[str, Any], within: Within) -> Any:
        await gate.wait()
        return {"content": [{"type": "text", "text": "late"}]}

    workspace.answer = later
    assert await stage.output("async (input, ctx) => { ctx.tools.call('m__t').then(() => console.log('heard')); return 1 }") == 1
    gate.set()
    run = await stage.run("async (input, ctx) => await new Promise((resolve) => setTimeout(() => resolve('quiet'), 30))")
    assert (run.output, run.logs) == ("quiet", [])


async def test_without_a_workspace_there_is_no_tool(stage: Stage) -> None:
    assert await stage.output(CAUGHT % "'m__t'") == ["NotFound", "there are no tools to call here", "m__t"]
    assert await stage.output("async (input, ctx) => await ctx.tools.list()") == []
