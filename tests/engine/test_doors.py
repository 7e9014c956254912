"""The engine's link to the gate: what is handed over, again and again; questions; refusals; ports."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rootlink.egress.hosts import named_ports
from rootlink.egress.policy import Decision
from rootlink.engine.decisions import Decisions
from rootlink.engine.doors import AT_ONCE, Door, Doors, Opened
from rootlink.errors import EgressBlocked, Unavailable, UpstreamFailed
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.gate import Answer, Listener, Refusal
from tests.engine.ingate import InGate

Make = Callable[..., Doors]


class Recorded(list[tuple[str, Decision, int]]):
    def __call__(self, connection: str, decision: Decision, count: int) -> None:
        self.append((connection, decision, count))


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Doors] = []

    def doors(*, record: Any = None, key: str = "key", **members: Any) -> Doors:
        policy = members.pop("policy", EgressPolicy())
        one = Doors(str(tmp_path / "doors.sock"), "prj", key, policy, record=Recorded() if record is None else record, **members)
        one.start()
        made.append(one)
        return one

    yield doors
    for one in made:
        await one.close()


def listening() -> tuple[int, int]:
    """A descriptor, and the port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        return sock.detach(), port


def a_door(number: int = 1, name: str = "m", **members: Any) -> tuple[Door, int]:
    fd, port = listening()
    return Door(number, name, [Listener("tcp", port)], [fd], **members), port


async def test_an_open_door_reaches_the_gate_with_its_sockets(make: Make, ingate: InGate) -> None:
    doors = make()
    door, port = a_door(scope=["a.example"], token="t")
    doors.open(door)
    await ingate.until(lambda: 1 in ingate.doors, "the door is there")
    asked = ingate.doors[1].asked
    assert (asked.name, asked.scope, asked.token, asked.packages) == ("m", ["a.example"], "t", False)
    assert [(hello.project, hello.key) for hello in ingate.hellos] == [("prj", "key")]
    seen: list[str] = []

    async def serve(held: Any, sock: socket.socket) -> None:
        seen.append(held.asked.name)
        sock.close()

    ingate.serve = serve
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    await ingate.until(lambda: seen == ["m"], "what was connected to the engine's socket was accepted by the gate")
    writer.close()


async def test_a_gate_that_comes_again_gets_every_door_again_with_its_names(make: Make, ingate: InGate) -> None:
    doors = make()
    door, port = a_door()
    doors.open(door)
    await ingate.until(lambda: 1 in ingate.doors, "the door is there")
    ingate.allowed["a.example"] = 1
    assert await doors.ask(1, "a.example", 443) == "198.18.0.1"
    ingate.down()
    with socket.create_connection(("127.0.0.1", port)) as waiting:  # taken by the backlog: nothing passes, nothing is refused
        await ingate.until(lambda: not doors.connected, "the engine noticed")
        ingate.up()
        await ingate.until(lambda: 1 in ingate.doors, "the door is there again")
        assert ingate.doors[1].asked.names == {"198.18.0.1": "a.example"}
        assert waiting.fileno() > 0


async def test_a_door_that_is_shut_is_told_and_its_descriptors_are_closed(make: Make, ingate: InGate) -> None:
    doors = make()
    door, _ = a_door()
    doors.open(door)
    await ingate.until(lambda: 1 in ingate.doors, "the door is there")
    doors.shut(1)
    doors.shut(1)
    await ingate.until(lambda: ingate.closed == [1], "told once")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(door.fds[0])


async def test_more_listeners_than_a_frame_carries_arrive_in_pieces(make: Make, ingate: InGate) -> None:
    made = [listening() for _ in range(130)]
    make().open(Door(1, "m", [Listener("tcp", port) for _, port in made], [fd for fd, _ in made]))
    await ingate.until(lambda: 1 in ingate.doors and ingate.doors[1].ports == {port for _, port in made}, "all are there")


async def test_questions_are_answered_in_one_of_three_ways(make: Make, ingate: InGate) -> None:
    recorded = Recorded()
    doors = make(record=recorded)
    doors.open(a_door(0, "engine")[0])
    ingate.allowed["a.example"] = 1
    words = "egress blocked: host 'b.example' leads to 10.0.0.1, a private address; only the operator can open it"

    def answer(ask: Any) -> Answer | None:
        return ingate.refusal(ask, "private_address", words) if ask.host == "b.example" else ingate._answer(ask)

    ingate.answer = answer
    assert await doors.ask(0, "a.example", 443, "conn") == "198.18.0.1"
    with pytest.raises(UpstreamFailed, match=r"host 'c\.example' is not known to DNS"):
        await doors.ask(0, "c.example", 443, "conn")
    with pytest.raises(EgressBlocked) as blocked:
        await doors.ask(0, "b.example", 443, "conn")
    assert blocked.value.message == words
    assert blocked.value.data == {"host": "b.example", "port": 443, "reason": "private_address", "connection": "conn"}
    assert [(name, decision.reason, count) for name, decision, count in recorded] == [("conn", "private_address", 1)]


async def test_a_question_waits_for_a_gate_that_is_just_being_started(make: Make, ingate: InGate) -> None:
    ingate.down()
    doors = make()
    doors.open(a_door(0, "engine")[0])
    ingate.allowed["a.example"] = 1
    asking = asyncio.create_task(doors.ask(0, "a.example", 443))
    await asyncio.sleep(0.1)
    assert not asking.done()
    ingate.up()
    assert await asyncio.wait_for(asking, 5) == "198.18.0.1"


async def test_a_question_that_a_dying_gate_left_open_is_asked_again(make: Make, ingate: InGate) -> None:
    doors = make()
    doors.open(a_door(0, "engine")[0])
    ingate.allowed["a.example"] = 1
    ingate.answer = lambda ask: None
    asking = asyncio.create_task(doors.ask(0, "a.example", 443))
    await ingate.until(lambda: ingate.asked, "it was asked")
    ingate.down()
    ingate.answer = ingate._answer
    ingate.up()
    assert await asyncio.wait_for(asking, 5) == "198.18.0.1"
    assert len(ingate.asked) == 2


async def test_without_a_gate_a_question_fails_with_words(make: Make, ingate: InGate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rootlink.engine.doors.GATE_SECS", 0.1)
    ingate.down()
    doors = make()
    with pytest.raises(Unavailable, match="the gate, through which everything goes out, is not running"):
        await doors.ask(0, "a.example", 443)


async def test_an_engine_that_is_not_known_yet_asks_until_it_is(make: Make, ingate: InGate) -> None:
    ingate.key = "later"
    doors = make()
    await ingate.until(lambda: len(ingate.hellos) >= 3, "it asks again")
    assert not doors.connected
    ingate.key = "key"
    await ingate.until(lambda: doors.connected, "it is welcome")


async def test_a_refusal_is_recorded_and_reaches_its_door(make: Make, ingate: InGate) -> None:
    decisions = Decisions(lambda text: text)
    doors = make(record=decisions.record)
    heard: list[Refusal] = []
    doors.open(a_door(refused=heard.append)[0])
    await ingate.until(lambda: 1 in ingate.doors, "the door is there")
    ingate.refuse(ingate.doors[1], "evil.example")
    assert ingate._channel is not None
    ingate._channel.send(Refusal(1, "m", "evil.example", 443, "not_in_allowlist", "words", 5))
    ingate._channel.send(Refusal(9, "gone", "evil.example", 443, "not_in_allowlist", "words"))
    await ingate.until(lambda: len(heard) == 2, "heard")
    found = {(d.connection, d.host, d.port, d.reason): d.count for d in decisions.hand_over()}
    assert found == {("m", "evil.example", 443, "not_in_allowlist"): 6, ("gone", "evil.example", 443, "not_in_allowlist"): 1}


class Keeper:
    """`more`: real listeners of this machine, told as the ports that were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, list[int]]] = []
        self.failing = False

    async def __call__(self, number: int, ports: Sequence[int]) -> Opened:
        self.asked.append((number, list(ports)))
        await asyncio.sleep(0)
        if self.failing:
            raise Unavailable("no room")
        return [Listener("tcp", port) for port in ports], [listening()[0] for _ in ports]


async def test_ports_that_are_named_later_are_opened_on_every_open_door(make: Make, ingate: InGate) -> None:
    keeper = Keeper()
    doors = make(more=keeper, policy=EgressPolicy(allow=["a.example:5432"]))
    assert doors.ports(["b.example:6000"]) == [5432, 6000]
    for number in (0, 1):
        doors.open(Door(number, f"d{number}", [Listener("tcp", 443), Listener("tcp", 5432)], [listening()[0], listening()[0]]))
    doors.open(Door(2, "packages", [], [], packages=True))
    doors.open(Door(3, "proxied", [], [], token="t"))
    doors.update(EgressPolicy(allow=["a.example:5432", "db.example:9000", "[2606::1]:9001", "web.example:80", "nonsense:x:y"]))
    await doors.ready(0, 9000)
    await doors.settled()
    assert sorted(keeper.asked) == [(0, [9000, 9001]), (1, [9000, 9001])]
    await ingate.until(lambda: {0, 1} <= set(ingate.doors), "the doors are there")
    await ingate.until(lambda: all(ingate.doors[n].ports == {443, 5432, 9000, 9001} for n in (0, 1)), "the gate has them")
    doors.update(EgressPolicy(allow=["db.example:9000"]))
    await doors.settled()
    assert len(keeper.asked) == 2


async def test_many_ports_are_asked_for_in_pieces_and_a_refused_one_only_once(make: Make, ingate: InGate) -> None:
    keeper = Keeper()
    doors = make(more=keeper)
    doors.open(Door(0, "engine", [], []))
    policy = EgressPolicy(allow=[f"a.example:{port}" for port in range(5000, 5000 + 2 * AT_ONCE)])
    doors.update(policy)
    await doors.settled()
    assert [len(ports) for _, ports in keeper.asked] == [AT_ONCE, AT_ONCE]
    keeper.failing = True
    doors.update(EgressPolicy(allow=["a.example:9000"]))
    await doors.settled()
    assert keeper.asked[2:] == [(0, [9000])]
    keeper.failing = False
    doors.update(EgressPolicy(allow=["a.example:9000"]))
    await doors.settled()
    assert keeper.asked[3:] == [(0, [9000])]


def test_ports_of_rules() -> None:
    assert named_ports(["a.example", "a.example:443", "a.example:80", "a.example:8443", "*.bad:1"]) == [8443]
