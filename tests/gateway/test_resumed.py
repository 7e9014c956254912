"""A stream of notices that outlives its engine: from where it goes on, and what an engine is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

from rootlink.errors import envelope
from rootlink.gateway.eventids import Progress
from rootlink.gateway.refusals import died
from tests.gateway.conftest import Instance

PRIMING = b"id: s9-0\r\ndata: \r\n\r\n"


def notices(*parts: bytes, stay: bool = False, **headers: str) -> Any:
    """An engine's act: `parts` as an event stream, which then ends, or stays open."""

    async def act(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            for part in parts:
                yield part
            if stay:
                await asyncio.Event().wait()

        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return StreamingResponse(body(), media_type="text/event-stream", headers=named)

    return act


def told(instance: Instance, nth: int) -> tuple[str | None, str | None]:
    """Of the `nth` request an engine got: is it a stream that goes on, and after which event."""
    headers = instance.engine.requests[nth][2]
    return headers.get("x-rootlink-stream"), headers.get("last-event-id")


async def test_the_engine_that_ended_a_stream_is_told_the_last_event_that_went_by(instance: Instance) -> None:
    instance.engine.act = notices(b"id: s1-4\r\nevent: message\r\ndata: {}\r\n\r\n", b"id: s1-", b"5\r\ndata: {}\r\n\r\n")
    headers = {**instance.bearer, "last-event-id": "s1-3"}
    async with instance.http.get(instance.url + "/mcp", headers=headers) as response:
        await response.content.readuntil(b"s1-5\r\n")
        instance.engine.act = notices(b"id: s1-6\r\ndata: after\r\n\r\n", stay=True)
        assert b"after" in await asyncio.wait_for(response.content.readuntil(b"after"), 5)
    assert told(instance, 0) == (None, "s1-3")
    assert told(instance, 1) == ("again", "s1-5")


async def test_a_stream_without_ids_goes_on_after_what_its_client_said(instance: Instance) -> None:
    instance.engine.act = notices(b"data: {}\n\n")
    async with instance.http.get(instance.url + "/mcp", headers={**instance.bearer, "last-event-id": "s1-3"}) as response:
        await response.content.readuntil(b"\n\n")
        instance.engine.act = notices(b"data: after\n\n", stay=True)
        await asyncio.wait_for(response.content.readuntil(b"after"), 5)
    assert told(instance, 1) == ("again", "s1-3")


@pytest.mark.parametrize("listen", [False, True], ids=["a session's stream", "subscriptions/listen"])
async def test_a_fresh_engine_is_told_no_event_of_the_one_before_it(instance: Instance, listen: bool) -> None:
    engine = instance.engine
    engine.act = engine.events(b"id: s1-4\r\ndata: before\r\n\r\n", then_die=True)
    more = {"mcp-method": "subscriptions/listen"} if listen else {"last-event-id": "s1-3"}
    method, body = ("POST", b'{"id": 1, "method": "subscriptions/listen"}') if listen else ("GET", None)
    headers = {**instance.bearer, "x-rootlink-stream": "call", **more}
    async with instance.http.request(method, instance.url + "/mcp", data=body, headers=headers) as response:
        await response.content.readuntil(b"\r\n\r\n")
        assert told(instance, 0) == (None, None if listen else "s1-3")
        engine.released.set()
        await instance.provisioner.kill(instance.project)
        fresh = await instance.provisioner.spawn(instance.project)
        fresh.act = notices(b"data: after\n\n")
        await asyncio.wait_for(response.content.readuntil(b"after\n\n"), 5)
        assert told(instance, 0) == ("again", None)
        fresh.act = notices(b"data: more\n\n", stay=True)
        await asyncio.wait_for(response.content.readuntil(b"more\n\n"), 5)
        assert told(instance, 1) == ("again", None), "an id of the first engine was told to the second one after all"


async def test_the_rest_of_a_calls_answer_ends_when_it_is_whole(instance: Instance) -> None:
    instance.engine.act = notices(b'id: c7-2\r\ndata: {"id": 7, "result": {}}\r\n\r\n', x_rootlink_stream="call")
    async with instance.http.get(instance.url + "/mcp", headers={**instance.bearer, "last-event-id": "c7-1"}) as response:
        assert b"result" in await asyncio.wait_for(response.content.read(), 2)
        assert "x-rootlink-stream" not in response.headers
    assert len(instance.engine.requests) == 1


async def test_the_rest_of_a_calls_answer_ends_with_its_engine(instance: Instance) -> None:
    async def dying(request: Request) -> Any:
        response = await engine.events(PRIMING, then_die=True)(request)
        response.headers["x-rootlink-stream"] = "call"
        return response

    engine = instance.engine
    engine.act = dying
    async with instance.http.get(instance.url + "/mcp", headers={**instance.bearer, "last-event-id": "c7-1"}) as response:
        await response.content.readuntil(b"\r\n\r\n")
        engine.released.set()
        assert await asyncio.wait_for(response.content.read(), 2) == b""


async def test_a_call_that_was_primed_ends_with_the_error_of_its_call(instance: Instance) -> None:
    """SEP-1699: an event of an id and nothing else comes first."""
    engine = instance.engine
    engine.act = engine.events(b"id: c7-0\r\nretry: 500\r\ndata: \r", b"\n\r\n", then_die=True)
    call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call"}
    async with instance.http.post(instance.url + "/mcp", json=call, headers=instance.bearer) as response:
        await response.content.readuntil(b"data: \r\n\r\n")
        engine.released.set()
        words = (await asyncio.wait_for(response.content.read(), 2)).decode()
    assert words.startswith('event: message\ndata: {"jsonrpc":"2.0","id":7,"error":{')
    assert '"retryable":true' in words
    assert len(engine.requests) == 1, "what may have run is never sent twice"


async def test_a_call_the_engine_cuts_off_on_purpose_is_the_clients_to_go_on_with(instance: Instance) -> None:
    """SEP-1699: a stream may end before its answer, properly; the client asks for the rest with GET."""
    instance.engine.act = notices(PRIMING)
    call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call"}
    async with instance.http.post(instance.url + "/mcp", json=call, headers=instance.bearer) as response:
        assert await asyncio.wait_for(response.content.read(), 2) == PRIMING


async def test_an_answer_to_a_question_reaches_no_engine_twice(instance: Instance) -> None:
    """A client's response to an engine that died while it read it: nobody is told twice, and nobody is told in JSON-RPC."""
    instance.engine.act = instance.engine.die
    answer = {"jsonrpc": "2.0", "id": "q1", "result": {"action": "accept"}}
    async with instance.http.post(instance.url + "/mcp", json=answer, headers=instance.bearer) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (502, "upstream_failed")
    assert len(instance.engine.requests) == 1


HALVES = [b"data: {", b"event: mess", b"id: c7-", b"data: {}\r", b"data: {}\r\n", b"data: {}\r\n\r", b"data: \xc3"]


@pytest.mark.parametrize("half", HALVES)
async def test_half_an_event_reaches_no_client_and_the_error_of_its_call_does(instance: Instance, half: bytes) -> None:
    engine = instance.engine
    engine.act = engine.events(b": ping\r\n\r\n", half, then_die=True)
    call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call"}
    async with instance.http.post(instance.url + "/mcp", json=call, headers=instance.bearer) as response:
        await response.content.readuntil(half)
        engine.released.set()
        rest = await asyncio.wait_for(response.content.read(), 2)
    heard = [(event.event, event.data) async for event in _events(half + rest)]
    kind, data = heard[-1]
    assert (kind, msgspec.json.decode(data)["id"]) == ("message", 7)
    assert [one for one in heard[:-1] if one[0] == "message"] in ([], [("message", "{}")]), "only an event that is whole is heard"


async def test_a_stream_of_notices_goes_on_after_half_an_event(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.events(b"id: s1-4\r\ndata: {", then_die=True)
    async with instance.http.get(instance.url + "/mcp", headers=instance.bearer) as response:
        await response.content.readuntil(b"{")
        engine.act = notices(b"data: after\n\n", stay=True)
        engine.released.set()
        rest = await asyncio.wait_for(response.content.readuntil(b"after\n\n"), 5)
    assert [event.data async for event in _events(b"data: {" + rest) if event.event == "message"] == ["after"]


async def _events(body: bytes) -> AsyncIterator[httpx2.ServerSentEvent]:
    """As the official client reads them."""
    asked = httpx2.Request("POST", "http://localhost/mcp")
    response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body, request=asked)
    async for event in httpx2.EventSource(response):
        yield event


def _after(*parts: bytes, said: bytes | None = None) -> tuple[bytes | None, bool]:
    progress = Progress(said)
    for part in parts:
        progress.passed(part)
    return progress.last_id, progress.between


def test_ids_and_ends_are_seen_however_the_bytes_are_cut() -> None:
    events = b'id: a-1\r\nevent: message\r\ndata: {"id: no": 1}\r\n\r\n: ping\r\n\r\nid:a-2\ndata: id: no\n\n'
    for cut in range(len(events) + 1):
        assert _after(events[:cut], events[cut:]) == (b"a-2", True)
    assert _after(*(events[at : at + 1] for at in range(len(events)))) == (b"a-2", True)


def test_a_line_that_only_looks_like_an_id_is_none() -> None:
    long = b"data: " + b"x" * 5000
    assert _after(long, b"id: no\r\n\r\n") == (None, True)
    assert _after(b"id: two words\n\n", said=b"before") == (b"before", True)
    assert _after(b"id: " + b"x" * 300 + b"\n\n") == (None, True)
    assert _after(b"id: cut") == (None, False)
    assert _after(b"id: a-1\n\nid: a-2\ndata: {") == (b"a-1", False), "an event counts when it is whole"


@pytest.mark.parametrize("itself", [False, True], ids=["by its HTTP server", "by itself"])
async def test_a_call_an_engine_drops_as_it_stops_is_an_error_in_its_callers_own_terms(instance: Instance, itself: bool) -> None:
    """Its HTTP server cancels what still runs, and says 500 in plain text, or the engine says it in the envelope."""

    async def cancelled(request: Request) -> Any:
        return JSONResponse(envelope(died()), 502) if itself else PlainTextResponse("Internal Server Error", 500)

    instance.engine.act = cancelled
    status, answer = await instance.mcp(id="seven")
    assert (status, answer["id"], answer["error"]["data"]["retryable"]) == (200, "seven", True)
    assert (await instance.refused("GET", "/engine/api/v1/x", token=instance.key))[:2] == (502, "upstream_failed")
    assert len(instance.engine.requests) == 2
