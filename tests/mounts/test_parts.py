"""The parts without I/O: JSON-RPC, lines, events, the flood's budget, mirrored arguments."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.mounts.era import Stateless, header_value
from rootlink.engine.mounts.events import Event, Events
from rootlink.engine.mounts.exchange import Exchange, Heard
from rootlink.engine.mounts.flood import PATIENCE, RATE, Flood
from rootlink.engine.mounts.lines import Lines, LineTooLong
from rootlink.engine.mounts.mirrors import BadMirror, mirrors
from rootlink.errors import UpstreamFailed
from tests.harness.calls import Told

# JSON-RPC


@pytest.mark.parametrize("id", [0, -1, 2**70, "", "x", "ä"])
def test_ids_survive(id: int | str) -> None:
    assert rpc.read(rpc.request(id, "m", {})).id == id
    assert rpc.read(rpc.answer(id, {})).id == id
    assert rpc.read(rpc.refusal(id, -1, "no")).id == id


@pytest.mark.parametrize(
    "message",
    [b"", b"x", b"[]", b"1", b"null", b'{"id":{}}', b'{"id":1.5}', b'{"method":1}', b"\xff", b'{"id":"\xff"}', b"[" * 100000],
)
def test_what_is_no_message_is_malformed(message: bytes) -> None:
    with pytest.raises(rpc.Malformed):
        rpc.read(message)


@pytest.mark.parametrize("result", [b"[]", b"1", b'"x"', b"null", b'{"n":1e400}', b'{"x":"\xff"}', b'{"n":' + b"9" * 5000 + b"}"])
def test_what_is_no_result_is_malformed(result: bytes) -> None:
    with pytest.raises(rpc.Malformed):
        rpc.result(Raw(result))


def test_a_result_is_on_one_line_and_otherwise_untouched() -> None:
    plain = Raw(b'{ "n": 1.50, "big": 123456789012345678901234567890 }')
    assert rpc.result(plain) is plain
    assert bytes(rpc.result(Raw(b'{\r\n "n": 1.50,\n "s": "a\\nb" }'))) == b'{"n":1.50,"s":"a\\nb"}'


@pytest.mark.parametrize(
    ("cut", "mended"),
    [
        (rb'"\ud83d"', rb'"\ufffd"'),
        (rb'"\udc00\ud83d"', rb'"\ufffd\ufffd"'),
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
        (rb'"\\ud83d"', rb'"\\ud83d"'),
        (rb'"\\\ud83d"', rb'"\\\ufffd"'),
        (rb'"\n\uD83D\u0041"', rb'"\n\ufffd\u0041"'),
    ],
)
def test_lone_surrogates_are_mended_and_nothing_else(cut: bytes, mended: bytes) -> None:
    assert rpc.mend(cut) == mended
    msgspec.json.decode(mended)


@given(st.text(), st.integers(0, 30))
def test_mended_text_can_always_be_read(text: str, at: int) -> None:
    cut = json.dumps(text[:at] + "\ud83d" + text[at:]).encode()
    msgspec.json.decode(rpc.mend(cut))


# the conversation


@contextlib.asynccontextmanager
async def conversation() -> Any:
    heard: list[tuple[str, bytes]] = []
    yield Exchange("far", lambda method, params: heard.append((method, bytes(params)))), heard


async def test_answers_find_their_askers_in_any_order() -> None:
    async with conversation() as (exchange, _):
        first, second = exchange.ask("a", None), exchange.ask("b", {"x": 1})
        assert exchange.receive(rpc.answer(second.id, {"n": 2})) == (Heard.ANSWER, None)
        assert exchange.receive(rpc.answer(first.id, {"n": 1})) == (Heard.ANSWER, None)
        assert bytes(await first.answer) == b'{"n":1}'
        assert bytes(await second.answer) == b'{"n":2}'


async def test_strays_and_duplicates_are_counted_and_change_nothing() -> None:
    async with conversation() as (exchange, _):
        asked = exchange.ask("a", None)
        exchange.receive(rpc.answer(asked.id, {"n": 1}))
        for message in (rpc.answer(asked.id, {"n": 2}), rpc.answer("1", {}), rpc.refusal(None, -1, "no"), rpc.answer(10**30, {})):
            assert exchange.receive(message) == (Heard.UNASKED, None)
        assert exchange.stray == 4
        assert bytes(await asked.answer) == b'{"n":1}'


async def test_a_line_that_cannot_be_read_is_blamed_on_whom_it_names() -> None:
    async with conversation() as (exchange, _):
        first, second = exchange.ask("a", None), exchange.ask("b", None)
        exchange.receive(b'{"jsonrpc":"2.0","id":%d,"result":%s}' % (first.id, b"[" * 100000))
        with pytest.raises(UpstreamFailed, match="far answered a with something that is no MCP result"):
            await first.answer
        exchange.receive(b'{"result":{"x":NaN},"id":%d}' % second.id)
        with pytest.raises(UpstreamFailed):
            await second.answer
        assert exchange.bad == 2


async def test_a_callback_that_fails_costs_nobody_else() -> None:
    def broken(method: str, params: Raw) -> None:
        raise RuntimeError

    exchange = Exchange("far", broken)
    broken_call = Told()
    broken_call.tell = lambda method, params: 1 / 0  # type: ignore[method-assign]
    asked = exchange.ask("a", None, broken_call)
    exchange.receive(rpc.notification("x"))
    exchange.receive(rpc.notification("notifications/progress", {"progressToken": asked.id, "progress": 1}))
    exchange.receive(rpc.answer(asked.id, {}))
    await asked.answer


@given(st.lists(st.binary(max_size=60)))
def test_no_bytes_break_the_conversation(messages: list[bytes]) -> None:
    async def hear() -> None:
        exchange = Exchange("far", lambda method, params: None)
        exchange.forget(exchange.ask("a", None))
        for message in messages:
            exchange.receive(message)

    asyncio.run(hear())


# bytes


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line and not line.endswith(b"\r"))), st.integers(1, 7))
def test_lines_come_out_as_they_went_in_however_they_are_cut(lines: list[bytes], size: int) -> None:
    stream = b"".join(line + b"\n" for line in lines) + b"rest"
    reader = Lines(1000)
    found = []
    for at in range(0, len(stream), size):
        reader.feed(stream[at : at + size])
        while (line := reader.next()) is not None:
            found.append(line)
    assert found == lines
    assert len(reader) == 4


@pytest.mark.parametrize("stream", [b"x" * 11, b"x" * 11 + b"\n", b"ok\n" + b"x" * 11])
def test_a_line_past_the_cap_is_refused_ended_or_not(stream: bytes) -> None:
    reader = Lines(10)
    reader.feed(stream)
    with pytest.raises(LineTooLong):
        list(iter(reader.next, None))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_events_are_read_by_the_standard(end: bytes) -> None:
    events = Events(1000)
    lines = [
        b": comment",
        b"id: 7",
        b"retry: 1500",
        b"data: one",
        b"data:two",
        b"",
        b"event: endpoint",
        b"data: /x",
        b"",
        b"id: 8",
        b"",
    ]
    for byte in end.join(lines) + end:
        events.feed(bytes([byte]))
    assert [events.next(), events.next(), events.next()] == [Event("message", b"one\ntwo"), Event("endpoint", b"/x"), None]
    assert (events.last_id, events.retry) == ("8", 1.5)


def test_an_event_past_the_cap_is_refused() -> None:
    events = Events(10)
    events.feed(b"data: 12345\ndata: 67890\n\n")
    with pytest.raises(LineTooLong):
        events.next()


# budget


def test_a_burst_within_a_second_is_no_flood() -> None:
    flood = Flood(0.0)
    assert not any(flood.count(0.0, 10) for _ in range(int(RATE) - 1))


def test_a_flood_is_paused_and_then_at_an_end() -> None:
    flood, now, seen = Flood(0.0), 0.0, 0
    while not flood.over(now):
        seen += 1
        now += flood.count(now, 10)
    assert PATIENCE < now < PATIENCE + 1
    assert seen <= RATE * (now + 1) * 1.1


def test_two_bursts_with_quiet_between_are_no_flood() -> None:
    flood, now = Flood(0.0), 0.0
    for _ in range(20):
        for _ in range(1500):
            now += flood.count(now, 10)
        assert not flood.over(now)
        now += 5


def test_big_messages_weigh_more() -> None:
    flood = Flood(0.0)
    assert flood.count(0.0, 4 << 20) > 0


# the stateless era's headers


def test_a_header_value_that_would_not_survive_is_wrapped() -> None:
    assert header_value("plain text") == "plain text"
    for value in ("ä", " edge", "a\nb", "=?base64?eA==?="):
        assert base64.b64decode(header_value(value)[9:-2]).decode() == value


def test_arguments_are_mirrored_where_the_schema_says() -> None:
    era = Stateless()
    schema = {
        "properties": {
            "a": {"type": "string", "x-mcp-header": "A"},
            "o": {"properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
        }
    }
    era.learn([{"name": "t", "inputSchema": schema}])
    headers = era.headers("tools/call", {"name": "t", "arguments": {"a": "x", "o": {"n": 5}, "b": "no"}})
    assert headers == {
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "t",
        "Mcp-Param-A": "x",
        "Mcp-Param-N": "5",
    }
    assert "Mcp-Param-A" not in era.headers("tools/call", {"name": "t", "arguments": {"a": None}})


@pytest.mark.parametrize(
    "schema",
    [
        {"x-mcp-header": "Root"},
        {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "A B"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": 5}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "X"}, "b": {"type": "string", "x-mcp-header": "x"}}},
        {"items": {"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}},
        {"anyOf": [{"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}]},
        {"$defs": {"d": {"type": "string", "x-mcp-header": "A"}}},
    ],
)
def test_a_bad_mirror_is_told(schema: dict[str, Any]) -> None:
    with pytest.raises(BadMirror):
        mirrors(schema)


def test_data_that_looks_like_a_mirror_is_none() -> None:
    assert (
        mirrors({"properties": {"a": {"type": "object", "default": {"x-mcp-header": "A"}, "enum": [{"x-mcp-header": "A"}]}}})
        == {}
    )
    assert mirrors(None) == {}
