"""One client's event stream, by hand: what is written, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rootlink.engine.eras import stream as streams
from rootlink.engine.eras.stream import PING, EventStream, event
from tests.engine.session_client import until


class Reader:
    """The other end. `slow`: it takes nothing until `go`."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.gone, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.go.wait()
        self.sent.append(message)

    @property
    def written(self) -> list[bytes]:
        return [message["body"] for message in self.sent[1:] if message["body"]]


@pytest.fixture
async def reader() -> Reader:
    return Reader()


@pytest.fixture
async def stream(reader: Reader) -> AsyncIterator[EventStream]:
    one = EventStream()
    serving = asyncio.create_task(one.serve(reader.receive, reader.send))
    yield one
    one.end()
    reader.go.set()
    await asyncio.wait_for(serving, 5)


async def test_what_gathers_while_a_write_is_under_way_goes_in_one(stream: EventStream, reader: Reader) -> None:
    reader.go.clear()
    for frame in (b"a", b"b", b"c"):
        assert stream.push(frame)
    reader.go.set()
    await until(lambda: reader.written == [b"abc"])
    assert stream.push(b"d")
    await until(lambda: reader.written == [b"abc", b"d"])


async def test_what_is_queued_at_the_end_is_still_written(stream: EventStream, reader: Reader) -> None:
    stream.push(b"a")
    stream.end()
    await until(lambda: reader.sent and reader.sent[-1].get("more_body") is False)
    assert reader.written == [b"a"]
    assert not stream.push(b"b")


async def test_a_quiet_stream_is_kept_open_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PING_SECS", 0.01)
    reader, stream = Reader(), EventStream()
    serving = asyncio.create_task(stream.serve(reader.receive, reader.send))
    await until(lambda: reader.written[:2] == [PING, PING])
    stream.end()
    await serving
    assert (reader.sent[-1]["body"], reader.sent[-1]["more_body"]) == (b"", False)


async def test_a_client_that_goes_away_ends_it(stream: EventStream, reader: Reader) -> None:
    stream.push(b"a")
    await until(lambda: reader.written)
    reader.gone.set()
    await until(lambda: not stream.open)
    assert not stream.push(b"b")


@pytest.mark.parametrize(("frames", "size"), [(streams.LIMIT + 2, 1), (5, streams.LIMIT_BYTES // 3)])
async def test_a_client_that_does_not_read_is_dropped(stream: EventStream, reader: Reader, frames: int, size: int) -> None:
    reader.go.clear()
    heard = [stream.push(b"x" * size) for _ in range(frames)]
    assert heard[0] and not heard[-1]
    assert not stream.open


async def test_one_frame_of_any_size_is_written(stream: EventStream, reader: Reader) -> None:
    assert stream.push(b"x" * (streams.LIMIT_BYTES + 1))
    await until(lambda: reader.written)


def test_an_event_has_its_name_its_id_and_its_data() -> None:
    assert event(b"{}") == b"event: message\r\ndata: {}\r\n\r\n"
    assert event(b"/x", "endpoint") == b"event: endpoint\r\ndata: /x\r\n\r\n"
    assert event(b"{}", id=b"a.1-2") == b"event: message\r\nid: a.1-2\r\ndata: {}\r\n\r\n"
