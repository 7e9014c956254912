"""What the gateway holds of request bodies: counted, bounded, and let go of."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from rootlink.errors import RateLimited, Unavailable
from rootlink.gateway.budget import Budget
from rootlink.gateway.relayed import Relayed
from tests.gateway.conftest import Instance, Start, until
from tests.gateway.raw import exchange

MIB = 1024 * 1024


def test_a_caller_over_its_limit_is_told_to_come_again_and_has_taken_nothing() -> None:
    budget = Budget(100, 10)
    with budget.share("a") as share:
        share.hold(8)
        with pytest.raises(RateLimited):
            share.hold(11)
        with budget.share("a") as more, pytest.raises(RateLimited):
            more.hold(3)
        with budget.share("b") as other:
            other.hold(10)
            assert budget.held == 18
    assert (budget.held, budget._callers) == (0, {})


def test_nobody_gets_more_when_the_whole_is_used_up() -> None:
    budget = Budget(15, 10)
    with budget.share("a") as a, budget.share("b") as b:
        a.hold(10)
        with pytest.raises(Unavailable):
            b.hold(6)
        a.hold(4)
        b.hold(6)
        assert budget.held == 10


def _head(instance: Instance, length: int | None, key: str = "") -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = ["POST /mcp HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key or instance.key}", framing]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def _held(instance: Instance, size: int) -> None:
    await until(lambda: instance.gateway.plane.budget.held == size)


@pytest.fixture
async def small(start: Start) -> AsyncIterator[Instance]:
    """A gateway that holds 250 kB in all and 100 kB for each key."""
    instance: Instance = await start(bodies=250_000, bodies_each=100_000)
    yield instance
    assert instance.gateway.plane.budget.held == 0


async def test_a_key_with_too_much_under_way_is_refused_before_its_body_is_read(small: Instance) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", small.port)
    writer.write(_head(small, 90_000))
    await _held(small, 90_000)
    (status, answer), *_ = await exchange(small.port, _head(small, 20_000))
    assert (status, answer["error"]["code"]) == (429, "rate_limited")
    async with small.http.post(small.url + "/mcp", data=b"x" * 20_000, headers=small.bearer) as response:
        assert (response.status, response.headers["retry-after"]) == (429, "1")
    assert (await small.mcp())[0] == 200, "what fits is let in"
    writer.close()
    await _held(small, 0)
    async with small.http.post(small.url + "/mcp", data=b"x" * 20_000, headers=small.bearer) as response:
        assert response.status == 200


async def test_chunks_are_counted_as_they_come(small: Instance) -> None:
    chunk = b"c350\r\n" + b"x" * 50_000 + b"\r\n"
    (status, answer), *_ = await exchange(small.port, _head(small, None) + chunk * 3)
    assert (status, answer["error"]["code"]) == (429, "rate_limited")
    await _held(small, 0)


async def test_keys_that_hold_the_whole_together_make_it_unavailable_and_leave_the_rest_alive(small: Instance) -> None:
    keys = [(await small.data("POST", "/v1/projects/default/keys", {"name": f"k{n}"}))["key"] for n in range(3)]
    writers = [(await asyncio.open_connection("127.0.0.1", small.port))[1] for _ in keys]
    for writer, key, size in zip(writers, keys, (100_000, 100_000, 45_000), strict=True):
        writer.write(_head(small, size, key))
    await _held(small, 245_000)
    async with small.http.post(small.url + "/mcp", data=b"x" * 20_000, headers=small.bearer) as response:
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert (await response.json())["error"]["code"] == "unavailable"
    assert (await small.data("GET", "/livez")) == {"status": "alive"}
    for writer in writers:
        writer.close()
    await _held(small, 0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Relayed]:
    """Every call that was relayed, so that a test can look at what it still holds."""
    seen: list[Relayed] = []
    settle = Relayed.settle

    def looked_at(call: Relayed) -> None:
        seen.append(call)
        settle(call)

    monkeypatch.setattr(Relayed, "settle", looked_at)
    return seen


def _call(method: str, size: int = 80_000) -> bytes:
    return b'{"jsonrpc":"2.0","id":"seven","method":"%s","params":{"x":"%s"}}' % (method.encode(), b"x" * size)


async def _posted(instance: Instance, body: bytes, **headers: str) -> aiohttp.ClientResponse:
    sent = {**instance.bearer, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await instance.http.post(instance.url + "/mcp", data=body, headers=sent)


async def test_a_body_is_held_until_its_engine_answers_and_not_longer(small: Instance, calls: list[Relayed]) -> None:
    engine = small.engine
    answering = asyncio.Event()
    stream = engine.events(b"data: 1\n\n", then_die=True)

    async def act(request: Any) -> Any:
        await answering.wait()
        return await stream(request)

    engine.act = act
    body = _call("tools/call")
    asked = asyncio.create_task(_posted(small, body))
    await until(lambda: len(engine.requests) == 1)
    assert small.gateway.plane.budget.held == len(body), "it may yet have to be sent again"
    answering.set()
    async with await asked as response:
        await response.content.readuntil(b"\n\n")
        assert calls[0].body == b""
        assert small.gateway.plane.budget.held < 1000
        engine.released.set()
        rest = await response.content.read()
    assert b'"id":"seven"' in rest, "the error to the call is made without its body"
    await _held(small, 0)


async def test_the_body_of_a_stream_of_notices_is_kept_for_the_next_engine_and_counted(
    small: Instance, calls: list[Relayed]
) -> None:
    engine = small.engine
    engine.act = engine.events(b"data: 1\n\n")
    body = _call("subscriptions/listen")
    async with await _posted(small, body, mcp_method="subscriptions/listen") as response:
        await response.content.readuntil(b"\n\n")
        assert calls[0].body == body
        assert small.gateway.plane.budget.held == len(body)
        engine.released.set()
    await _held(small, 0)


async def test_an_engine_that_dies_or_a_client_that_leaves_gives_all_back(small: Instance) -> None:
    small.engine.act = small.engine.die
    async with await _posted(small, _call("tools/call")) as response:
        assert (await response.json())["id"] == "seven"
    await _held(small, 0)
    small.engine.act = small.engine.hang
    asked = asyncio.create_task(_posted(small, _call("tools/call")))
    await until(lambda: len(small.engine.requests) == 2)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await _held(small, 0)


async def test_a_stranger_may_send_little_and_must_be_quick(start: Start) -> None:
    instance: Instance = await start(sign_in_secs=0.2)
    line = b"POST /v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    (status, _), *_ = await exchange(instance.port, line % 20_000)
    assert status == 413
    (status, answer), *_ = await exchange(instance.port, line % 100)
    assert (status, answer["error"]["message"]) == (400, "The body did not arrive in time")


async def test_thirty_large_calls_of_one_key_hold_no_more_than_its_share(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.hang
    body = b"x" * (4 * MIB)
    most = 0

    async def post() -> int:
        async with instance.http.post(instance.url + "/mcp", data=io.BytesIO(body), headers=instance.bearer) as response:
            return response.status

    asked = [asyncio.create_task(post()) for _ in range(30)]
    while sum(task.done() for task in asked) < 22:
        most = max(most, instance.gateway.plane.budget.held)
        await asyncio.sleep(0.01)
    assert most <= 32 * MIB
    assert {task.result() for task in asked if task.done()} == {429}
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    await _held(instance, 0)
