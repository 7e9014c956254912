"""The way to an engine and back."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import aiohttp
import msgspec
import pytest

from rootlink.errors import Unavailable
from tests.gateway.conftest import ADMIN, Instance, Start, until
from tests.gateway.raw import exchange


async def test_a_call_gets_there_and_its_answer_back(instance: Instance) -> None:
    async with instance.http.post(
        instance.url + "/engine/api/v1/ws/main/tools/a%20b/call?x=1&y=%20", data=b'{"arguments": {}}', headers=instance.bearer
    ) as response:
        assert response.status == 200
        assert (await response.json())["result"]["path"] == "/engine/api/v1/ws/main/tools/a b/call"
    method, path, headers, body = instance.engine.requests[0]
    assert (method, path, body) == ("POST", "/engine/api/v1/ws/main/tools/a b/call?x=1&y=%20", b'{"arguments": {}}')
    assert headers["x-rootlink-principal"].startswith("key_")
    assert headers["x-rootlink-scopes"] == "use,manage"


async def test_what_a_stopped_engine_is_started_for_is_asked_for_before_its_setter_is_told(instance: Instance) -> None:
    at = "/engine/api/v1/ws/main/functions/f"
    looked = f"get {instance.project}"
    for method, path, asked in (("PUT", at + "/triggers", 1), ("GET", at + "/triggers", 1), ("POST", at + "/invoke", 1)):
        assert (await instance.call(method, path, {}, token=instance.key))[0] == 200
        assert instance.provisioner.calls.count(looked) == asked
    instance.provisioner.refusal = Unavailable("not now")  # then it is told all the same
    assert (await instance.call("PUT", at + "/triggers", {}, token=instance.key))[0] == 200


async def test_nothing_of_the_clients_that_is_not_the_engines_business_gets_there(instance: Instance) -> None:
    sent = {
        "cookie": "a=b",
        "x-rootlink-principal": "key_of_another",
        "x-rootlink-scopes": "manage",
        "x-forwarded-for": "10.0.0.1",
        "forwarded": "for=10.0.0.1",
        "proxy-authorization": "Basic x",
        "te": "trailers",
        "keep-alive": "timeout=5",
        "connection": "keep-alive, X-Private, x-rootlink-key",
        "x-private": "1",
        "x-kept": "yes",
        "mcp-protocol-version": "2025-11-25",
    }
    async with instance.http.get(instance.url + "/mcp", headers={**sent, **instance.bearer}) as response:
        assert response.status == 200
    headers = instance.engine.requests[0][2]
    for name in (
        "authorization",
        "cookie",
        "x-forwarded-for",
        "forwarded",
        "proxy-authorization",
        "te",
        "keep-alive",
        "x-private",
    ):
        assert name not in headers
    assert headers["x-rootlink-principal"] != "key_of_another"
    assert headers["x-rootlink-key"] == instance.engine.key
    assert (headers["x-kept"], headers["mcp-protocol-version"]) == ("yes", "2025-11-25")
    assert instance.key not in str(headers)


async def test_nothing_of_ours_gets_back(instance: Instance) -> None:
    async with instance.http.get(instance.url + "/mcp", headers=instance.bearer) as response:
        assert not [name for name in response.headers if name.lower().startswith("x-rootlink")]
        assert "set-cookie" not in response.headers
        assert "server" not in response.headers
        assert len(response.headers.getall("date")) == 1
        assert response.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/mcp/other", "/mcp/sse", "/mcp/other/sse", "/mcp/sse/messages"])
async def test_everything_below_mcp_is_the_engines(instance: Instance, path: str) -> None:
    status, answer = await instance.mcp(path)
    assert (status, answer["result"]["path"]) == (200, path)


async def test_what_is_no_engines_is_not_relayed(instance: Instance) -> None:
    for path in ("/mcpx", "/engine", "/engine/", "/engine/internal/status", "/internal/status", "/engine/api/v2/x"):
        assert (await instance.refused("GET", path, token=instance.key))[:2] == (404, "not_found"), path
    assert instance.engine.requests == []


async def test_a_method_no_engine_has_is_refused_here(instance: Instance) -> None:
    async with instance.http.patch(instance.url + "/mcp", headers=instance.bearer) as response:
        assert (response.status, response.headers["allow"]) == (405, "DELETE, GET, POST")
        assert (await response.json())["error"]["code"] == "invalid"


async def test_a_body_over_the_cap_is_refused_and_one_at_the_cap_is_not(start: Start) -> None:
    instance: Instance = await start(relay_body=100_000)
    async with instance.http.post(instance.url + "/mcp", data=b"x" * 100_000, headers=instance.bearer) as response:
        assert response.status == 200
    assert len(instance.engine.requests[0][3]) == 100_000
    async with instance.http.post(instance.url + "/mcp", data=b"x" * 100_001, headers=instance.bearer) as response:
        assert response.status == 413


async def test_a_stopped_engine_is_started_by_the_next_call_once_for_all(instance: Instance) -> None:
    await instance.mcp()
    await instance.provisioner.kill(instance.project)
    instance.provisioner.calls.clear()
    answers = await asyncio.gather(*(instance.mcp() for _ in range(100)))
    assert [status for status, _ in answers] == [200] * 100
    assert len([call for call in instance.provisioner.calls if call.startswith("ensure")]) <= 3
    assert len(instance.engine.requests) == 100


async def test_a_call_to_an_engine_that_stops_goes_to_the_next_one(instance: Instance) -> None:
    await instance.mcp()
    old = instance.engine
    old.stopping = True
    await instance.provisioner.spawn(instance.project)
    status, _ = await instance.mcp()
    assert status == 200
    assert len(old.requests) == 1
    assert len(instance.engine.requests) == 1


async def test_a_call_with_the_key_of_an_earlier_spawn_goes_again_with_the_new_one(instance: Instance) -> None:
    await instance.mcp()
    instance.engine.key = "another"
    assert (await instance.mcp())[0] == 200


async def test_a_call_that_engines_keep_turning_away_is_given_up(instance: Instance) -> None:
    instance.engine.stopping = True
    status, answer = await instance.mcp()
    assert status == 200
    assert answer["error"]["data"] == {"code": "unavailable", "retryable": True}
    assert (await instance.refused("GET", "/engine/api/v1/x", token=instance.key))[:2] == (503, "unavailable")


@pytest.mark.parametrize("id", [1, "a", 2**70, -5, 0, ""])
async def test_a_caller_of_mcp_learns_of_a_dead_engine_with_its_own_id_and_the_call_is_not_repeated(
    instance: Instance, id: Any
) -> None:
    instance.engine.act = instance.engine.die
    body = (
        msgspec.json.encode({"jsonrpc": "2.0", "id": id, "method": "tools/call"})
        if isinstance(id, str)
        else b'{"jsonrpc":"2.0","id":%d,"method":"x"}' % id
    )
    async with instance.http.post(instance.url + "/mcp", data=body, headers=instance.bearer) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        answer = msgspec.json.decode(await response.read(), type=dict[str, msgspec.Raw])
    assert msgspec.json.decode(body, type=dict[str, msgspec.Raw])["id"] == answer["id"]
    assert msgspec.json.decode(answer["error"])["data"] == {"code": "unavailable", "retryable": True}
    assert len(instance.engine.requests) == 1


async def test_each_request_of_a_batch_learns_of_it(instance: Instance) -> None:
    instance.engine.act = instance.engine.die
    batch = [{"id": 1, "method": "a"}, {"method": "notifications/x"}, {"id": 2, "result": {}}, {"id": "b", "method": "c"}]
    async with instance.http.post(instance.url + "/mcp", json=batch, headers=instance.bearer) as response:
        assert [answer["id"] for answer in await response.json()] == [1, "b"]


@pytest.mark.parametrize("body", [b'{"jsonrpc":"2.0","method":"notifications/x"}', b"not json", b"[" * 5000])
async def test_who_asked_nothing_of_a_dead_engine_gets_the_envelope(instance: Instance, body: bytes) -> None:
    instance.engine.act = instance.engine.die
    async with instance.http.post(instance.url + "/mcp", data=body, headers=instance.bearer) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (502, "upstream_failed")


async def test_a_caller_of_rest_learns_of_a_dead_engine_in_the_envelope(instance: Instance) -> None:
    instance.engine.act = instance.engine.die
    assert (await instance.refused("POST", "/engine/api/v1/x", {}, token=instance.key))[:2] == (502, "upstream_failed")


async def test_an_engine_that_does_not_start_is_said_so(instance: Instance) -> None:
    instance.provisioner.refusal = Unavailable("The engine does not start: out of luck")
    status, answer = await instance.mcp()
    assert (status, answer["error"]["message"]) == (200, "The engine does not start: out of luck")
    assert await instance.refused("GET", "/engine/api/v1/x", token=instance.key) == (
        503,
        "unavailable",
        "The engine does not start: out of luck",
    )


async def test_a_client_that_leaves_takes_its_call_with_it(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.hang
    task = asyncio.create_task(instance.mcp())
    await until(lambda: len(engine.requests) == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: engine.gone == 1, within=1.0)


async def test_a_client_that_resets_takes_its_stream_with_it(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.events(b"data: 1\n\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", instance.port)
    writer.write(f"GET /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {instance.key}\r\n\r\n".encode())
    await reader.readuntil(b"data: 1\n\n")
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()
    await until(lambda: engine.gone == 1, within=1.0)


async def test_events_come_as_they_happen(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.events(b"data: 1\n\n")
    async with instance.http.post(instance.url + "/mcp", json={}, headers=instance.bearer) as response:
        assert response.content_type == "text/event-stream"
        assert await asyncio.wait_for(response.content.readuntil(b"\n\n"), 2) == b"data: 1\n\n"
        engine.released.set()
        assert await response.content.read() == b""


async def test_a_stream_of_a_call_that_breaks_off_ends_with_the_error_of_its_call(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.events(b"data: 1\r\n\r\n", then_die=True)
    call = {"jsonrpc": "2.0", "id": "seven", "method": "tools/call"}
    async with instance.http.post(instance.url + "/mcp", json=call, headers=instance.bearer) as response:
        await response.content.readuntil(b"\r\n\r\n")
        engine.released.set()
        event, data, _, _ = (await response.content.read()).split(b"\n")
    assert event == b"event: message"
    answer = msgspec.json.decode(data.removeprefix(b"data: "))
    assert (answer["id"], answer["error"]["data"]["retryable"]) == ("seven", True)


async def test_an_answer_that_is_no_stream_and_breaks_off_does_not_end_properly(instance: Instance) -> None:
    engine = instance.engine

    async def half(request: Any) -> Any:
        response = await engine.events(b'{"jsonrpc": "2.0", ', then_die=True)(request)
        response.headers["content-type"] = "application/json"
        return response

    engine.act = half
    async with instance.http.post(instance.url + "/mcp", json={"id": 1, "method": "x"}, headers=instance.bearer) as response:
        assert await response.content.readexactly(10) == b'{"jsonrpc"'
        engine.released.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()


@pytest.mark.parametrize("listen", [False, True], ids=["a session's stream", "subscriptions/listen"])
async def test_a_stream_of_notices_goes_on_after_its_engine_was_killed(instance: Instance, listen: bool) -> None:
    engine = instance.engine
    engine.act = engine.events(b"data: before\n\n", then_die=True)
    headers = {**instance.bearer, "mcp-session-id": "s1", **({"mcp-method": "subscriptions/listen"} if listen else {})}
    method, body = ("POST", b'{"id": 1, "method": "subscriptions/listen"}') if listen else ("GET", None)
    async with instance.http.request(method, instance.url + "/mcp", data=body, headers=headers) as response:
        await response.content.readuntil(b"before\n\n")
        engine.released.set()
        await instance.provisioner.kill(instance.project)
        instance.provisioner.calls.clear()
        await until(lambda: any(call.startswith("get") for call in instance.provisioner.calls))
        assert not [call for call in instance.provisioner.calls if call.startswith("ensure")], (
            "a waiting stream started an engine"
        )
        fresh = await instance.provisioner.spawn(instance.project)
        fresh.act = fresh.events(b"data: after\n\n")
        assert await asyncio.wait_for(response.content.readuntil(b"after\n\n"), 5) == b"data: after\n\n"
        assert fresh.requests[0][2]["mcp-session-id"] == "s1"
        assert fresh.requests[0][3] == (body or b"")


async def test_a_stream_of_notices_ends_when_no_engine_knows_it_any_more(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.events(b"data: before\n\n")
    async with instance.http.get(instance.url + "/mcp", headers=instance.bearer) as response:
        await response.content.readuntil(b"\n\n")
        engine.act = engine.echo  # no stream for this session
        engine.released.set()
        assert await asyncio.wait_for(response.content.read(), 5) == b""


async def test_the_stream_of_an_old_client_ends_with_its_engine(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.events(b"data: before\n\n", then_die=True)
    async with instance.http.get(instance.url + "/mcp/sse", headers=instance.bearer) as response:
        await response.content.readuntil(b"\n\n")
        engine.released.set()
        assert await asyncio.wait_for(response.content.read(), 5) == b""


async def test_a_shutdown_ends_open_streams_properly_and_lets_calls_finish(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.events(b"data: 1\n\n")
    assert instance.stop is not None
    async with instance.http.get(instance.url + "/mcp", headers=instance.bearer) as response:
        await response.content.readuntil(b"\n\n")
        began = asyncio.get_running_loop().time()
        instance.stop.set()
        assert await response.content.read() == b""
        assert asyncio.get_running_loop().time() - began < 2


async def test_a_shutdown_does_not_wait_for_a_stream_that_waits_for_its_engine(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.events(b"data: 1\n\n", then_die=True)
    assert instance.stop is not None
    async with instance.http.get(instance.url + "/mcp", headers=instance.bearer) as response:
        await response.content.readuntil(b"\n\n")
        engine.released.set()
        await instance.provisioner.kill(instance.project)
        instance.provisioner.calls.clear()
        await until(lambda: any(call.startswith("get") for call in instance.provisioner.calls))
        instance.stop.set()
        assert await asyncio.wait_for(response.content.read(), 2) == b""


async def test_more_calls_than_the_limit_are_told_when_to_come_again(start: Start) -> None:
    instance: Instance = await start(key_rate=0.5, key_burst=3.0)
    assert [(await instance.mcp())[0] for _ in range(4)] == [200, 200, 200, 429]
    async with instance.http.post(instance.url + "/mcp", json={}, headers=instance.bearer) as response:
        assert (response.status, response.headers["retry-after"]) == (429, "2")
        assert (await response.json())["error"]["code"] == "rate_limited"
    assert len(instance.engine.requests) == 3
    other = (await instance.data("POST", "/v1/projects/default/keys", {"name": "other"}))["key"]
    assert (await instance.call("GET", "/engine/api/v1/x", token=other))[0] == 200


async def test_a_pipelined_answer_is_never_mixed_with_an_error(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.events(b"data: 1\n\n")
    call = f"GET /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {instance.key}\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", instance.port)
    writer.write(call)
    await reader.readuntil(b"data: 1\n\n")
    writer.write(b"garbage\r\n\r\n")
    rest = await asyncio.wait_for(reader.read(), 2)
    assert b"HTTP/1.1" not in rest
    writer.close()
    assert ADMIN not in call.decode()
    assert (await exchange(instance.port, b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"))[0][0] == 200
