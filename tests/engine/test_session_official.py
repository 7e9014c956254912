"""The official SDK's session client: asked, told, cut off and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Call
from tests.engine.session_client import Served, served, until


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as one:
        yield one


@asynccontextmanager
async def official(at: Served, **callbacks: Any) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"x-rootlink-principal": "key_1"}, timeout=30) as http,
        Client(streamable_http_client(at.url, http_client=http), mode="legacy", **callbacks) as client,
    ):
        yield client


def text(result: Any) -> str:
    return str(result.content[0].text)


def said(value: object) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": str(value)}]}


async def test_it_answers_what_servers_ask_and_hears_what_they_say(at: Served) -> None:
    logged: list[Any] = []
    steps: list[float] = []

    async def elicit(context: Any, params: Any) -> Any:
        return types.ElicitResult(action="accept", content={"name": "Ada"})

    async def sample(context: Any, params: Any) -> Any:
        return types.CreateMessageResult(role="assistant", content=types.TextContent(text="42"), model="m")

    async def roots(context: Any) -> Any:
        return types.ListRootsResult(roots=[types.Root(uri="file:///home")])

    async def log(params: Any) -> None:
        logged.append(params.data)

    async def progress(done: float, total: float | None, message: str | None) -> None:
        steps.append(done)

    async def everything(call: Call, arguments: Any) -> Any:
        call.tell("notifications/progress", rpc.raw({"progress": 1}))
        call.tell("notifications/message", rpc.raw({"level": "info", "data": "said"}))
        form = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}
        name = rpc.value(await call.ask("elicitation/create", rpc.raw(form)))["content"]["name"]
        prompt = {"messages": [{"role": "user", "content": {"type": "text", "text": "6*7"}}], "maxTokens": 9}
        answer = rpc.value(await call.ask("sampling/createMessage", rpc.raw(prompt)))["content"]["text"]
        root = rpc.value(await call.ask("roots/list", Raw(b"{}")))["roots"][0]["uri"]
        call.tell("notifications/progress", rpc.raw({"progress": 2}))
        return said((name, answer, root))

    at.dispatch.tools["everything"] = everything
    callbacks = {"elicitation_callback": elicit, "sampling_callback": sample, "list_roots_callback": roots}
    async with official(at, logging_callback=log, **callbacks) as client:
        result = await client.call_tool("everything", {}, progress_callback=progress)
    assert text(result) == "('Ada', '42', 'file:///home')"
    assert (logged, steps) == (["said"], [1, 2])


async def test_a_call_whose_connection_broke_is_answered_all_the_same(at: Served) -> None:
    calls: list[Call] = []
    go = asyncio.Event()

    async def slow(call: Call, arguments: Any) -> Any:
        call.tell("notifications/message", rpc.raw({"level": "info", "data": "begun"}))
        calls.append(call)
        await go.wait()
        return said("done")

    at.dispatch.tools["slow"] = slow
    async with official(at) as client:
        calling = asyncio.create_task(client.call_tool("slow", {}))
        await until(lambda: calls and calls[0].tape.read)  # type: ignore[attr-defined]
        calls[0].tape.reader.end()  # type: ignore[attr-defined]
        go.set()
        assert text(await asyncio.wait_for(calling, 10)) == "done"


async def test_its_standing_stream_tells_what_changed_and_goes_on_when_it_broke(at: Served) -> None:
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(getattr(message, "method", ""))

    async with official(at, message_handler=hear) as client:
        session = next(iter(at.sessions._live.values()))
        await until(lambda: session.standing is not None)
        with pytest.warns(MCPDeprecationWarning):
            await client.subscribe_resource("a:b")
        at.changes.publish("main", {"tools"})
        at.changes.updated("main", "a:b", Raw(b'{"uri":"a:b"}'), None)
        await until(lambda: len(heard) == 2)
        assert heard == ["notifications/tools/list_changed", "notifications/resources/updated"]
        session.shelf.hang_up()
        await until(lambda: not session.standing.read)
        at.changes.publish("main", {"prompts"})
        await until(lambda: "notifications/prompts/list_changed" in heard)
        assert len(heard) == 3
