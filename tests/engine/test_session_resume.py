"""Broken streams: what a client that comes back with Last-Event-ID hears, and what is kept for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Call
from rootlink.engine.eras import tape
from rootlink.engine.eras.stream import EventStream
from rootlink.engine.eras.tape import Shelf
from tests.engine.session_client import Client, Events, Served, served, until

TOLD = "notifications/progress"


class Slow:
    """A tool that says a number for each one put, and ends with None."""

    def __init__(self) -> None:
        self.say: asyncio.Queue[int | None] = asyncio.Queue()

    async def __call__(self, call: Call, arguments: Any) -> Any:
        while (number := await self.say.get()) is not None:
            call.tell(TOLD, rpc.raw({"progress": number}))
        return {"done": True}

    def put(self, *numbers: int | None) -> None:
        for number in numbers:
            self.say.put_nowait(number)


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
async def at(tmp_path: Path, slow: Slow) -> AsyncIterator[Served]:
    async with served(tmp_path) as one:
        one.dispatch.tools["slow"] = slow
        yield one


async def begun(client: Client, slow: Slow, *numbers: int) -> tuple[Events, str]:
    """A call's stream and the id of its last event, after it said these numbers."""
    slow.put(*numbers)
    stream, last = await client.stream("slow", "x", token=1), ""
    heard = 0
    while heard < len(numbers):
        event = await stream.next()
        assert event is not None and event.id is not None
        last, heard = event.id, heard + bool(event.data)
    return stream, last


def said(messages: list[Any]) -> list[Any]:
    return [message["params"]["progress"] if "params" in message else message["result"] for message in messages]


async def test_a_2025_11_25_stream_begins_with_an_id_and_when_to_come_back(client: Client, slow: Slow) -> None:
    slow.put(1, None)
    stream = await client.stream("slow", token=1)
    first = await stream.next()
    assert first is not None and first.id and first.data == "" and first.retry == 1000
    ids = [event.id for event in [await stream.next(), await stream.next()] if event is not None]
    assert len({first.id, *ids}) == 3


@pytest.mark.parametrize("version", ["2025-06-18", "2025-03-26"])
async def test_an_older_client_gets_ids_but_no_event_without_data(
    at: Served, http: aiohttp.ClientSession, slow: Slow, version: str
) -> None:
    client = await Client(at, http, version).initialize()
    slow.put(1, None)
    stream, events = await client.stream("slow", token=1), []
    while (event := await stream.next()) is not None:
        events.append(event)
    assert [bool(event.data) for event in events] == [True, True]
    assert all(event.id for event in events)


@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18", "2025-03-26"])
async def test_a_call_goes_on_for_who_comes_back(at: Served, http: aiohttp.ClientSession, slow: Slow, version: str) -> None:
    client = await Client(at, http, version).initialize()
    stream, last = await begun(client, slow, 1)
    stream.close()
    slow.put(2)
    await until(slow.say.empty)
    again = await client.listen(last)
    assert again.response.headers["x-rootlink-stream"] == "call"
    slow.put(3, None)
    assert said(await again.rest()) == [2, 3, {"done": True}]


async def test_an_answer_given_while_nobody_was_there_is_kept(at: Served, client: Client, slow: Slow) -> None:
    stream, last = await begun(client, slow, 1)
    stream.close()
    slow.put(2, None)
    await until(lambda: not at.sessions._live[client.id].calls)
    assert said(await (await client.listen(last)).rest()) == [2, {"done": True}]
    assert said(await (await client.listen(last)).rest()) == [2, {"done": True}]


async def test_who_has_the_whole_of_a_stream_is_told_not_to_come_back(client: Client, slow: Slow) -> None:
    stream, last = await begun(client, slow, 1)
    slow.put(None)
    answer = await stream.next()
    assert answer is not None and answer.id is not None and answer.id != last
    assert await stream.next() is None
    assert (await client.get(answer.id)).status == 204


async def test_who_comes_back_takes_the_place_of_a_connection_thought_alive(client: Client, slow: Slow) -> None:
    stream, last = await begun(client, slow, 1)
    again = await client.listen(last)
    slow.put(2, None)
    assert await stream.rest() == []
    assert said(await again.rest()) == [2, {"done": True}]


async def test_two_calls_are_two_streams(at: Served, client: Client, slow: Slow) -> None:
    other = Slow()
    at.dispatch.tools["other"] = other
    stream, last = await begun(client, slow, 1)
    stream.close()
    other.put(7, None)
    assert said(await (await client.stream("other", "y", token=2)).rest()) == [7, {"done": True}]
    slow.put(None)
    assert said(await (await client.listen(last)).rest()) == [{"done": True}]


async def test_a_question_waits_for_who_comes_back(at: Served, http: aiohttp.ClientSession, slow: Slow) -> None:
    client = await Client(at, http).initialize({"roots": {}})

    async def ask(call: Call, arguments: Any) -> Any:
        call.tell(TOLD, Raw(b'{"progress":1}'))
        await slow.say.get()
        return {"roots": rpc.value(await call.ask("roots/list", Raw(b"{}")))}

    at.dispatch.tools["ask"] = ask
    stream = await client.stream("ask", token=1)
    event = await stream.next()
    assert event is not None
    stream.close()
    slow.put(1)
    again = await client.listen(event.id)
    messages = [await again.message(), await again.message()]
    await client.reply(messages[1]["id"], result={"roots": []})
    assert (await again.message())["result"] == {"roots": {"roots": []}}


async def test_a_standing_stream_begins_with_something_said(at: Served, client: Client) -> None:
    """Who listens need not know of events without data: only a call's stream has one."""
    stream = await client.listen()
    at.changes.publish("main", {"tools"})
    first = await stream.next()
    assert first is not None and first.id and first.data
    stream.close()


async def test_a_standing_stream_goes_on_where_it_broke(at: Served, client: Client) -> None:
    stream = await client.listen()
    at.changes.publish("main", {"tools"})
    noticed = await stream.next()
    assert noticed is not None and noticed.id
    stream.close()
    session = at.sessions._live[client.id]
    await until(lambda: not session.standing.read)
    session.tell("notifications/message", rpc.raw({"level": "info", "data": 1}))
    at.changes.publish("main", {"prompts"})
    again = await client.listen(noticed.id)
    assert [(await again.message())["method"] for _ in (1, 2)] == ["notifications/message", "notifications/prompts/list_changed"]
    at.changes.publish("main", {"resources"})
    assert (await again.message())["method"] == "notifications/resources/list_changed"
    repeated = await client.listen(noticed.id)
    assert (await repeated.message())["method"] == "notifications/message"
    repeated.close()


@pytest.mark.parametrize("last", ["nonsense", "1-1", "-", "0.1-1", "é", "x" * 5000])
async def test_an_id_nobody_knows_gets_a_fresh_standing_stream(at: Served, client: Client, last: str) -> None:
    stream = await client.listen(last.encode().decode("latin-1"))
    at.changes.publish("main", {"tools"})
    assert (await stream.message())["method"] == "notifications/tools/list_changed"
    assert "x-rootlink-stream" not in stream.response.headers
    stream.close()


async def test_an_id_of_an_earlier_life_gets_a_fresh_standing_stream(at: Served, client: Client) -> None:
    stream = await client.listen()
    at.changes.publish("main", {"tools"})
    first = await stream.next()
    assert first is not None
    await at.restart()
    stream = await client.listen(first.id)
    assert (await stream.message())["method"] == "notifications/tools/list_changed"
    stream.close()


async def test_an_id_of_another_sessions_stream_is_nobodys(
    at: Served, http: aiohttp.ClientSession, client: Client, slow: Slow
) -> None:
    stream, last = await begun(client, slow, 1)
    other = await (await Client(at, http).initialize()).listen(last)
    assert "x-rootlink-stream" not in other.response.headers
    slow.put(None)
    assert said(await stream.rest()) == [{"done": True}]
    other.close()


# what is kept


def fill(shelf: Shelf, *, events: int, size: int = 10, end: bool = True) -> tape.Tape:
    one = shelf.tape(of_call=True)
    for number in range(events):
        one.write(b"%d:" % number + b"x" * size)
    if end:
        one.end()
    return one


def replayed(one: tape.Tape, after: int = 0) -> bytes:
    reader = EventStream()
    one.play(reader, after)
    return b"".join(reader._frames)


async def test_finished_streams_go_first_and_the_oldest_of_them() -> None:
    shelf = Shelf("l", "2025-11-25")
    live = fill(shelf, events=10, end=False)
    oldest, newer = fill(shelf, events=100), fill(shelf, events=100)
    fill(shelf, events=100)
    assert (oldest in shelf, newer in shelf, live in shelf) == (False, True, True)
    assert len(live.kept) == 10
    assert shelf.events == 210


async def test_a_session_keeps_256_events_and_a_megabyte() -> None:
    shelf = Shelf("l", "2025-11-25")
    one = fill(shelf, events=1000, end=False)
    assert (shelf.events, len(one.kept), one.kept[-1][0]) == (256, 256, 1000)
    two = fill(shelf, events=30, size=100_000, end=False)
    assert shelf.size <= tape.MAX_BYTES
    assert (len(one.kept), two.kept[-1][0]) == (0, 30)


async def test_an_answer_larger_than_all_that_is_kept_is_kept() -> None:
    shelf = Shelf("l", "2025-11-25")
    one = fill(shelf, events=3, end=False)
    one.write(b"y" * (3 << 20))
    one.end()
    assert b"y" * (3 << 20) in replayed(one, 3)


async def test_a_finished_stream_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape, "KEEP_SECS", 0.01)
    shelf = Shelf("l", "2025-11-25")
    one = fill(shelf, events=3)
    await until(lambda: one not in shelf)
    assert (shelf.events, shelf.size) == (0, 0)


async def test_a_standing_stream_keeps_little_and_a_2024_one_nothing() -> None:
    shelf = Shelf("l", "2025-11-25")
    one = shelf.tape(of_call=False)
    for _ in range(500):
        one.write(b"x")
    assert shelf.events == tape.STANDING_EVENTS
    old = Shelf("l", "2024-11-05")
    assert fill(old, events=5).kept == type(one.kept)()
    assert old.events == 0


async def test_clients_that_open_streams_for_ever_fill_nothing() -> None:
    shelf = Shelf("l", "2025-11-25")
    for _ in range(2000):
        shelf.tape(of_call=False)
    assert len(shelf._tapes) <= tape.MAX_TAPES
