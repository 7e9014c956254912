"""The engine's requests behind a door: it decides first, then asks the gate, and dials the address that the gate names.

The gate is the test's, and the addresses it names are of 127.18.0.0/16, where a test can listen without a namespace.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from rootlink.egress.addresses import networks
from rootlink.egress.policy import Decision
from rootlink.engine.doors import Door, Doors
from rootlink.engine.outbound import Behind, Outbound, read_capped
from rootlink.errors import EgressBlocked, Unavailable, UpstreamFailed
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.gate import Answer, Ask
from tests.engine.ingate import InGate, gate

FIRST = "127.18.0.1"  # the first address that the gate names


@dataclass
class Stage:
    """An outbound behind door 0, whose refusals are recorded where the engine's are."""

    outbound: Outbound
    ingate: InGate
    doors: Doors
    decisions: list[tuple[str, Decision]]
    port: int
    seen: list[web.Request] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)

    async def get(self, url: str, own: list[str] | None = None, connection: str = "conn", **how: bool) -> str:
        async with self.outbound.scope(connection, own).request("GET", url, timeout=10, **how) as response:
            return (await read_capped(response, 1 << 20)).decode()

    @property
    def reasons(self) -> list[tuple[str, str]]:
        return [(connection, decision.reason) for connection, decision in self.decisions]


Make = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def ingate(tmp_path: Path) -> AsyncIterator[InGate]:
    async with gate(tmp_path) as one:
        one.network = "127.18.0"
        yield one


@pytest.fixture
async def make(ingate: InGate, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setattr("rootlink.engine.outbound._DOOR_NAMES", networks(["127.18.0.0/16"]))
    stages: list[tuple[Stage, web.AppRunner]] = []

    async def stage(allow: list[str], **policy: list[str]) -> Stage:
        async def hello(request: web.Request) -> web.StreamResponse:
            made.seen.append(request)
            made.connections.add(request.transport)
            if request.path == "/away":
                raise web.HTTPFound(f"http://evil.example:{made.port}/")
            if request.path == "/stream":
                response = web.StreamResponse()
                await response.prepare(request)
                while True:
                    await response.write(b"tick\n")
                    await asyncio.sleep(0.01)
            return web.Response(text=f"hello {request.host}")

        app = web.Application()
        app.router.add_get("/{path:.*}", hello)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, FIRST, 0).start()
        port = runner.addresses[0][1]
        decisions: list[tuple[str, Decision]] = []

        def record(connection: str, decision: Decision, count: int = 1) -> None:
            decisions.append((connection, decision))

        doors = Doors(str(ingate.path), "prj", "key", EgressPolicy(), record=record)
        doors.start()
        doors.open(Door(0, "engine", [], []))
        rules = [rule.format(port=port) for rule in allow]
        asked = EgressPolicy(allow=rules, **policy)
        made = Stage(Outbound(asked, record, way=Behind(doors, 0)), ingate, doors, decisions, port)
        stages.append((made, runner))
        return made

    yield stage
    for made, runner in stages:
        await made.outbound.close()
        await made.doors.close()
        await runner.cleanup()


async def test_an_allowed_name_is_asked_of_the_gate_for_its_connection_and_dialled_there(make: Make, ingate: InGate) -> None:
    stage = await make(["api.example.com:{port}"])
    ingate.allowed["api.example.com"] = 1
    url = f"http://api.example.com:{stage.port}/"
    assert await stage.get(url) == f"hello api.example.com:{stage.port}"
    assert [(ask.door, ask.host, ask.port, ask.name) for ask in ingate.asked] == [(0, "api.example.com", stage.port, "conn")]
    assert stage.reasons == [("conn", "in_allowlist")]
    await stage.get(url)
    assert (len(ingate.asked), len(stage.connections)) == (1, 1)  # an open connection is used again


async def test_each_connection_is_named_to_the_gate_however_many_ask_at_once(make: Make, ingate: InGate) -> None:
    stage = await make(["api.example.com:{port}"])
    ingate.allowed["api.example.com"] = 1
    url = f"http://api.example.com:{stage.port}/"
    await asyncio.gather(*(stage.get(url, connection=f"c{number}") for number in range(20)))
    assert {ask.name for ask in ingate.asked} == {f"c{number}" for number in range(20)}


BEFORE_ANY_PACKET = {
    "http://evil.example/": "not_in_allowlist",
    "http://127.0.0.1/": "not_in_allowlist",
    "http://10.0.0.1/": "private_address",
    "http://198.18.0.1/": "not_in_allowlist",
    "http://127.18.0.1/": "private_address",
    "http://api.example.com:22/": "port",
    "http://other.example.com/": "not_in_connection",
    "http://0x7f.1/": "bad_host",
    "ftp://api.example.com/": "scheme",
}


@pytest.mark.parametrize(("url", "reason"), BEFORE_ANY_PACKET.items())
async def test_the_engine_refuses_first_without_asking(url: str, reason: str, make: Make, ingate: InGate) -> None:
    stage = await make(["api.example.com", "other.example.com", "10.0.0.1", FIRST])
    with pytest.raises(EgressBlocked):
        await stage.get(url, own=["api.example.com", "10.0.0.1", FIRST])
    assert stage.reasons == [("conn", reason)]
    assert ingate.asked == []


async def test_what_the_gate_refuses_is_told_in_its_words_and_recorded_once(make: Make, ingate: InGate) -> None:
    stage = await make(["api.example.com"])
    words = (
        "egress blocked: host 'api.example.com' leads to 10.0.0.1, a private address; "
        "only the operator can open it (rootlink up --allow-private CIDR)"
    )
    ingate.answer = lambda ask: ingate.refusal(ask, "private_address", words)
    with pytest.raises(EgressBlocked) as blocked:
        await stage.get("http://api.example.com/")
    assert blocked.value.message == words
    assert blocked.value.data == {"host": "api.example.com", "port": 80, "reason": "private_address", "connection": "conn"}
    assert stage.reasons == [("conn", "private_address")]


async def test_a_name_that_leads_nowhere_is_told_in_the_gates_words(make: Make) -> None:
    stage = await make(["api.example.com"])
    with pytest.raises(UpstreamFailed, match=r"host 'api\.example\.com' is not known to DNS"):
        await stage.get("http://api.example.com/")


@pytest.mark.parametrize("address", ["93.184.216.34", "10.0.0.1", "::1", "nonsense", ""])
async def test_an_address_that_is_none_of_the_doors_is_not_dialled(address: str, make: Make, ingate: InGate) -> None:
    stage = await make(["api.example.com"])
    ingate.answer = lambda ask: Answer(ask.n, address=address)
    with pytest.raises(Unavailable, match="is not one of the door's"):
        await stage.get("http://api.example.com/")


async def test_without_a_gate_a_request_fails_with_words(make: Make, ingate: InGate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rootlink.engine.doors.GATE_SECS", 0.1)
    stage = await make(["api.example.com"])
    ingate.down()
    with pytest.raises(Unavailable, match="the gate, through which everything goes out, is not running"):
        await stage.get("http://api.example.com/")


async def test_a_pin_is_the_gates_affair(make: Make, ingate: InGate) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        stage = await make(["api.example.com:{port}"], resolve=[f"api.example.com:{port}=127.0.0.1:{port}"])
        ingate.allowed["api.example.com"] = 1
        assert (await stage.get(f"http://api.example.com:{stage.port}/")).startswith("hello")
        assert len(ingate.asked) == 1
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_a_redirect_to_a_host_that_is_not_allowed_is_refused(make: Make, ingate: InGate) -> None:
    stage = await make(["api.example.com:{port}"])
    ingate.allowed["api.example.com"] = 1
    with pytest.raises(EgressBlocked, match=r"host 'evil\.example' is not in this project's outbound allowlist"):
        await stage.get(f"http://api.example.com:{stage.port}/away", follow=True)
    assert [ask.host for ask in ingate.asked] == ["api.example.com"]


async def test_an_open_stream_is_cut_when_its_host_is_removed_and_goes_on_when_another_is(make: Make, ingate: InGate) -> None:
    stage = await make(["api.example.com:{port}", "other.example.com"])
    ingate.allowed["api.example.com"] = 1
    url = f"http://api.example.com:{stage.port}/stream"

    async def drink() -> None:
        async with stage.outbound.scope("conn", None).request("GET", url) as response:
            await response.content.readany()
            stage.outbound.update(EgressPolicy(allow=[f"api.example.com:{stage.port}"]))
            await asyncio.sleep(0.05)
            assert await response.content.readany()
            stage.outbound.update(EgressPolicy(allow=["other.example.com"]))
            while await response.content.readany():
                pass

    with pytest.raises(EgressBlocked, match="not in this project's outbound allowlist"):
        await drink()
    assert stage.reasons[-1] == ("conn", "not_in_allowlist")


async def test_a_port_that_was_just_allowed_is_waited_for(make: Make, ingate: InGate) -> None:
    stage = await make([])
    ingate.allowed["api.example.com"] = 1
    waited: list[int] = []

    class Slow:
        """The doors, whose listener for the port is on its way."""

        async def ask(self, door: int, host: str, port: int, name: str = "") -> str:
            assert waited == [stage.port]
            return await stage.doors.ask(door, host, port, name)

        async def ready(self, number: int, port: int) -> None:
            await asyncio.sleep(0.01)
            waited.append(port)

    policy = EgressPolicy(allow=[f"api.example.com:{stage.port}"])
    outbound = Outbound(policy, lambda connection, decision: None, way=Behind(Slow(), 0))
    async with outbound.scope("conn", None).request("GET", f"http://api.example.com:{stage.port}/") as response:
        assert response.status == 200
    await outbound.close()


async def test_a_question_is_repeated_for_the_gate_that_comes_after(make: Make, ingate: InGate) -> None:
    stage = await make(["api.example.com:{port}"])
    ingate.allowed["api.example.com"] = 1
    ingate.answer = lambda ask: None
    asking = asyncio.create_task(stage.get(f"http://api.example.com:{stage.port}/"))
    await ingate.until(lambda: ingate.asked, "it was asked")
    ingate.down()

    def answer(ask: Ask) -> Answer | None:
        return ingate._answer(ask)

    ingate.answer = answer
    ingate.up()
    assert (await asyncio.wait_for(asking, 5)).startswith("hello")
