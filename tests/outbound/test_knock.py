"""Whether anybody answers at a port: what takes a connection behind a door is the gate, and only then does it dial."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from rootlink.errors import EgressBlocked, UpstreamFailed
from rootlink.wire.gate import Answer
from tests.engine.ingate import InGate
from tests.outbound.test_behind import FIRST, Make, Stage, ingate, make

__all__ = ["ingate", "make"]
HOST = "db.example.com"
Taken = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert await reader.read() == b""
    writer.close()


async def speaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 hello\r\n")
    await reader.read()
    writer.close()


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    await asyncio.sleep(5)
    writer.close()


async def cuts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As a gate does for which nobody answers."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


Serve = Callable[[Taken], Awaitable[int]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[asyncio.Server] = []
    talks: list[asyncio.Task[None]] = []

    async def start(taken: Taken) -> int:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            talks.append(task)
            try:
                await taken(reader, writer)
            except asyncio.CancelledError:
                return
            finally:
                writer.transport.abort()

        server = await asyncio.start_server(talk, FIRST, 0)
        servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()
    for task in talks:
        task.cancel()
    await asyncio.gather(*talks, return_exceptions=True)


async def staged(make: Make, ingate: InGate, port: int) -> Stage:
    stage = await make([f"{HOST}:{port}"])
    ingate.allowed[HOST] = 1
    return stage


@pytest.mark.parametrize("taken", [ends, speaks])
async def test_who_ends_or_speaks_answers(make: Make, ingate: InGate, serve: Serve, taken: Taken) -> None:
    port = await serve(taken)
    stage = await staged(make, ingate, port)
    async with asyncio.timeout(2):
        await stage.outbound.scope("conn", None).knock(HOST, port, 5)
    assert stage.reasons == [("conn", "in_allowlist")]
    assert [(ask.host, ask.port, ask.name) for ask in ingate.asked] == [(HOST, port, "conn")]


async def test_who_is_silent_for_longer_than_a_gate_dials_answers(
    make: Make, ingate: InGate, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rootlink.engine.outbound.KNOCK_SECS", 0.1)
    port = await serve(says_nothing)
    stage = await staged(make, ingate, port)
    await stage.outbound.scope("conn", None).knock(HOST, port, 5)


async def test_a_connection_that_is_cut_was_answered_by_nobody(make: Make, ingate: InGate, serve: Serve) -> None:
    port = await serve(cuts)
    stage = await staged(make, ingate, port)
    with pytest.raises(UpstreamFailed, match=f"host '{HOST}' port {port} cannot be reached"):
        await stage.outbound.scope("conn", None).knock(HOST, port, 5)


async def test_what_the_gate_refuses_is_a_refusal_and_a_name_that_leads_nowhere_none(make: Make, ingate: InGate) -> None:
    stage = await make([f"{HOST}:5432"])
    scope = stage.outbound.scope("conn", [f"{HOST}:5432"])
    with pytest.raises(UpstreamFailed, match="not known to DNS"):
        await scope.knock(HOST, 5432, 5)
    ingate.answer = lambda ask: ingate.refusal(ask, "private_address", "egress blocked: a private address")
    with pytest.raises(EgressBlocked, match="a private address"):
        await scope.knock(HOST, 5432, 5)
    with pytest.raises(EgressBlocked, match="for port 5433"):
        await scope.knock(HOST, 5433, 5)
    asked = len(ingate.asked)
    with pytest.raises(EgressBlocked, match="not in this project's outbound allowlist"):
        await scope.knock("evil.example", 5432, 5)
    assert len(ingate.asked) == asked


@pytest.mark.parametrize("port", [80, 443])
async def test_at_the_webs_ports_the_gate_itself_would_answer_so_nothing_is_dialled(
    make: Make, ingate: InGate, port: int
) -> None:
    stage = await make([HOST])
    ingate.answer = lambda ask: Answer(ask.n, address="127.18.0.77")
    await stage.outbound.scope("conn", None).knock(HOST, port, 5)
