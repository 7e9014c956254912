"""The fixture over each transport and in each era, with the official client: the suite itself knows HTTP alone."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import FileUrl

from tests.conformance.conftest import FIXTURE

ERAS = {"legacy": "2025-11-25", "auto": "2026-07-28"}


async def elicited(context: Any, params: Any) -> types.ElicitResult:
    name = next(iter(params.requested_schema["properties"]))
    return types.ElicitResult(action="accept", content={name: f"my {name}"})


async def sampled(context: Any, params: Any) -> types.CreateMessageResult:
    return types.CreateMessageResult(role="assistant", content=types.TextContent(text="hello"), model="none")


async def rooted(context: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri=FileUrl("file:///here"))])


@asynccontextmanager
async def client(transport: str, era: str, fixtures: dict[str, str]) -> AsyncIterator[Client]:
    command = StdioServerParameters(command=sys.executable, args=[str(FIXTURE), "--stdio"])
    carried = stdio_client(command) if transport == "stdio" else streamable_http_client(fixtures[""])
    able: Any = {"elicitation_callback": elicited, "sampling_callback": sampled, "list_roots_callback": rooted}
    async with Client(carried, mode=era, **able) as found:
        assert found.protocol_version == ERAS[era]
        yield found


def words(result: Any) -> str:
    return str(result.content[0].text)


@pytest.mark.parametrize("transport", ["stdio", "http"])
@pytest.mark.parametrize("era", ERAS)
async def test_it_asks_its_client_whatever_there_is_to_ask(fixtures: dict[str, str], transport: str, era: str) -> None:
    async with client(transport, era, fixtures) as asked:
        rounds = await asked.call_tool("test_input_required_result_multi_round", {})
        assert words(rounds) == "{'name': 'my name'} likes {'color': 'my color'}"
        several = await asked.call_tool("test_input_required_result_multiple_inputs", {})
        assert words(several) == "got ['client_roots', 'greeting', 'user_name']"


@pytest.mark.parametrize("transport", ["stdio", "http"])
@pytest.mark.parametrize("era", ERAS)
async def test_it_reports_progress_and_really_changes_its_lists(fixtures: dict[str, str], transport: str, era: str) -> None:
    heard: list[float] = []

    async def noted(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async with client(transport, era, fixtures) as told:
        await told.call_tool("test_tool_with_progress", {}, progress_callback=noted)
        assert heard == [0, 50, 100]
        before = {tool.name for tool in (await told.list_tools()).tools}
        await told.call_tool("test_trigger_tool_change", {})
        after = {tool.name for tool in (await told.list_tools(cache_mode="bypass")).tools}
        assert before ^ after == {"test_added_tool"}
