"""The clients people have: the official SDK in both eras, the Inspector's CLI, an SSE client of 2024-11-05."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest
from mcp import ClientSession
from mcp.client.sse import sse_client

from tests.harness import node
from tests.harness.instance import SERVERS, Instance, request, script

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", autouse=True)
def _servers(shared: Instance) -> None:
    """The reference server over stdio and a fast one of ours."""
    node.ready()
    paths = {"read": [str(node.HOME)]}
    everything = {"name": "everything", "transport": "stdio", "command": "node", "args": [node.EVERYTHING], "paths": paths}
    plain = script("plain", SERVERS / "plain.py", command=sys.executable)
    for body in (everything, plain):
        answer = shared.engine("POST", "/mcp-servers", body)
        assert answer.status == 201, answer.body


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_official_client_uses_tools_resources_and_prompts(shared: Instance, mode: str) -> None:
    async with shared.client(mode) as client:
        assert client.protocol_version == {"legacy": "2025-11-25", "auto": "2026-07-28"}[mode]
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert "everything__echo" in tools
        echoed = await client.call_tool("everything__echo", {"message": "hello"})
        assert "hello" in str(echoed.content)
        resources = (await client.list_resources()).resources
        read = await client.read_resource(str(resources[0].uri))
        assert read.contents
        prompts = (await client.list_prompts()).prompts
        simple = next(prompt.name for prompt in prompts if not any(a.required for a in prompt.arguments or []))
        assert (await client.get_prompt(simple)).messages


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_progress_reaches_the_client_that_asked_for_it(shared: Instance, mode: str) -> None:
    heard: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        heard.append(done)

    async with shared.client(mode) as client:
        arguments = {"duration": 0.5, "steps": 3}
        result = await client.call_tool("everything__trigger-long-running-operation", arguments, progress_callback=progress)
        assert not result.is_error
    assert len(heard) >= 2


async def test_a_tool_that_does_not_exist_is_an_error_with_its_name(shared: Instance) -> None:
    async with shared.client() as client:
        with pytest.raises(Exception, match="no__such"):
            await client.call_tool("no__such", {})


async def test_a_2024_client_works_over_sse(shared: Instance) -> None:
    headers = {"authorization": f"Bearer {shared.key}"}
    async with sse_client(shared.mcp + "/sse", headers=headers) as (read, write), ClientSession(read, write) as session:
        started = await session.initialize()
        assert started.protocol_version == "2024-11-05"
        assert "plain__echo" in {tool.name for tool in (await session.list_tools()).tools}
        assert "hi" in str((await session.call_tool("plain__echo", {"text": "hi"})).content)


def inspect(shared: Instance, *args: str, url: str = "") -> Any:
    header = f"Authorization: Bearer {shared.key}"
    done = node.inspector(shared.mcp + url, "--header", header, *args)
    assert done.returncode == 0, done.stderr + done.stdout
    return msgspec.json.decode(done.stdout.encode())


def test_the_inspector_lists_and_calls(shared: Instance) -> None:
    tools = inspect(shared, "--method", "tools/list")["tools"]
    assert "plain__echo" in {tool["name"] for tool in tools}
    called = inspect(shared, "--method", "tools/call", "--tool-name", "plain__echo", "--tool-arg", "text=there")
    assert "there" in str(called)


def test_the_inspector_works_over_sse(shared: Instance) -> None:
    tools = inspect(shared, "--transport", "sse", "--method", "tools/list", url="/sse")["tools"]
    assert "plain__echo" in {tool["name"] for tool in tools}


VERSIONS = ["2025-11-25", "2025-06-18", "2025-03-26"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_published_session_revision_is_agreed_on(shared: Instance, version: str) -> None:
    bearer = {"authorization": f"Bearer {shared.key}", "accept": "application/json, text/event-stream"}
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    first = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    started = request(shared.api, "POST", "/mcp", first, bearer)
    assert started.json["result"]["protocolVersion"] == version
    bearer["mcp-session-id"] = started.headers["mcp-session-id"]
    listed = request(shared.api, "POST", "/mcp", {"jsonrpc": "2.0", "id": "a", "method": "tools/list"}, bearer)
    assert listed.json["id"] == "a"
    assert listed.json["result"]["tools"]
    assert request(shared.api, "DELETE", "/mcp", None, bearer).status == 200
    assert request(shared.api, "POST", "/mcp", {"jsonrpc": "2.0", "id": 2, "method": "ping"}, bearer).status == 404


def test_a_session_belongs_to_the_key_that_opened_it(shared: Instance) -> None:
    thief = shared.project("POST", "/keys", {"name": "thief"}).data["key"]
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    first = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    started = request(shared.api, "POST", "/mcp", first, {"authorization": f"Bearer {shared.key}"})
    stolen = {"authorization": f"Bearer {thief}", "mcp-session-id": started.headers["mcp-session-id"]}
    assert request(shared.api, "POST", "/mcp", {"jsonrpc": "2.0", "id": 2, "method": "ping"}, stolen).status == 404


def test_a_session_goes_on_after_its_engine_was_stopped(shared: Instance) -> None:
    bearer = {"authorization": f"Bearer {shared.key}"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    first = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    bearer["mcp-session-id"] = request(shared.api, "POST", "/mcp", first, bearer).headers["mcp-session-id"]
    shared.project("POST", "/engine/stop")
    answer = request(shared.api, "POST", "/mcp", {"jsonrpc": "2.0", "id": 2, "method": "ping"}, bearer)
    assert (answer.status, answer.json["result"]) == (200, {})
