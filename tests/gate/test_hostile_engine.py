"""An engine that was taken over, and holds what it handed to the gate: what it can do is its own project's to bear."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from pathlib import Path

import msgspec
import pytest

from rootlink.door import frames
from rootlink.egress.policy import Policy
from rootlink.gate.app import LONGEST_HELLO, LONGEST_NAME, MOST_BREAKS, MOST_LINKS, MOST_RULES, MOST_STRANGERS
from rootlink.gate.dial import LOOKUPS, LOOKUPS_OF_ONE, WAITING_OF_ONE, Dialer, Turns
from rootlink.gate.door import Turn
from rootlink.gate.refused import Unreachable
from rootlink.gate.room import KEPT_BACK, Room
from rootlink.wire.gate import Answer, Ask, Listen, Listener, Open, Refusal, Welcome
from tests.gate.test_gate import SECONDS, Side, Upstream, World, listening, opened, policy, said, until, upstream, world

__all__ = ["upstream", "world"]  # fixtures
QUICK = 2.0  # seconds, in which whoever is no part of it is served


@pytest.fixture
async def other(world: World, upstream: Upstream) -> tuple[str, int]:
    """Where somebody behind a door of another project connects to, and is sent back what he says."""
    port = upstream.port
    await world.serve(policy(f"127.0.0.1:{port}"), key="k2", project="other")
    return opened(await world.greeted("k2", "other"), port, name="theirs")


def soft_limit() -> int:
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65536)


async def served(address: tuple[str, int]) -> bool:
    async with asyncio.timeout(QUICK):
        return await said(address) == b"hello"


@pytest.mark.parametrize("kind", ["tcp", "proxy"])
async def test_a_listener_that_was_made_blocking_again_holds_up_nobody_else(
    world: World, other: tuple[str, int], kind: str
) -> None:
    await world.serve(policy())
    engine = await world.greeted()
    with listening() as sock:
        engine.channel.send(Open(1, "x", [Listener(kind, 443)]), [sock.fileno()])  # type: ignore[arg-type]
        await until(lambda: not os.get_blocking(sock.fileno()))
        os.set_blocking(sock.fileno(), True)
        with socket.create_connection(sock.getsockname()):
            assert await served(other)
            await until(lambda: engine.ended)


async def test_a_dns_socket_that_was_made_blocking_again_holds_up_nobody_else(world: World, other: tuple[str, int]) -> None:
    await world.serve(policy())
    engine = await world.greeted()
    with listening(socket.SOCK_DGRAM) as sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as child:
        engine.channel.send(Open(1, "x", [Listener("dns", 53)]), [sock.fileno()])
        await until(lambda: not os.get_blocking(sock.fileno()))
        os.set_blocking(sock.fileno(), True)
        child.sendto(bytes(20), sock.getsockname())
        await asyncio.sleep(0)
        assert await served(other)


async def test_a_descriptor_that_is_no_listener_ends_the_link(world: World) -> None:
    await world.serve(policy())
    engine = await world.greeted()
    reading, writing = os.pipe()
    engine.channel.send(Open(1, "x", [Listener("tcp", 443)]), [reading])
    os.close(reading)
    os.close(writing)
    await until(lambda: engine.ended)


async def test_who_keeps_breaking_the_rules_is_not_served_until_its_engine_is_another(world: World) -> None:
    await world.serve(policy())
    for _ in range(MOST_BREAKS):
        engine = await world.greeted()
        assert engine.of(Welcome)
        engine.channel.send(Listen(9, []))
        await until(lambda side=engine: side.ended)
    assert not (await world.greeted()).of(Welcome)
    await world.serve(policy(), key="k9")
    assert (await world.greeted("k9")).of(Welcome)


@pytest.mark.parametrize(
    "message",
    [
        Open(1, "x" * (LONGEST_NAME + 1), []),
        Open(1, "x", [], scope=["a.example"] * (MOST_RULES + 1)),
        Ask(1, 1, "a", 1, "x" * 1000),
    ],
    ids=["name", "scope", "ask"],
)
async def test_what_would_fill_the_gate_s_memory_ends_the_link(world: World, message: msgspec.Struct) -> None:
    await world.serve(policy())
    engine = await world.greeted()
    engine.channel.send(Open(1, "x", []))
    engine.channel.send(message)
    await until(lambda: engine.ended)


async def test_listeners_without_end_leave_descriptors_for_others(world: World, other: tuple[str, int]) -> None:
    await world.serve(policy())
    engine = await world.greeted()
    engine.channel.send(Open(1, "x", []))
    with listening() as sock:
        many = [Listener("tcp", 443)] * frames.MAX_FDS
        for _ in range(soft_limit() // frames.MAX_FDS + 20):
            engine.channel.send(Listen(1, many), [sock.fileno()] * frames.MAX_FDS)
            await until(lambda: not engine.channel.congested)
        engine.channel.send(Ask(1, 1, "a.example", 443))
        await until(lambda: engine.of(Answer))  # all of it was heard
        assert len(list(Path("/proc/self/fd").iterdir())) < soft_limit() * 3 / 4
    assert await served(other)


async def test_strangers_who_say_nothing_keep_nobody_out(world: World) -> None:
    await world.serve(policy())
    strangers = [Side.to(world.folder / "doors.sock", Welcome) for _ in range(MOST_STRANGERS + 20)]
    await until(lambda: sum(side.ended for side in strangers) >= 20)
    assert (await world.greeted()).of(Welcome)
    for side in strangers:
        side.channel.close()


async def test_a_stranger_hands_over_nothing_and_says_little(world: World) -> None:
    for payload, fds in ((bytes(LONGEST_HELLO + 1), []), (b"{}", [0])):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(world.folder / "doors.sock"))
            sock.settimeout(SECONDS)
            await asyncio.get_running_loop().run_in_executor(None, frames.send, sock, payload, fds)
            assert await asyncio.get_running_loop().run_in_executor(None, ended, sock)


def ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(100) == b""
    except ConnectionResetError:
        return True


async def test_an_engine_that_comes_again_and_again_has_only_so_many_links(world: World) -> None:
    await world.serve(policy())
    sides = [await world.greeted() for _ in range(MOST_LINKS + 2)]
    await until(lambda: [side.ended for side in sides] == [True] * 2 + [False] * MOST_LINKS)


async def test_connections_of_one_project_leave_room_for_another() -> None:
    class Holder:
        held = 0

    room, one, two, three = Room(9000 + KEPT_BACK), Holder(), Holder(), Holder()
    while room.admits(one, 2):
        room.take(one, 2)
    assert 5900 <= one.held <= 6000
    while room.admits(two, 2):
        room.take(two, 2)
    assert two.held >= 1900
    assert room.admits(three, 500)
    room.give_back(one, one.held)
    assert room.admits(two, 2000)


async def test_a_round_of_the_loop_begins_only_so_many_connections() -> None:
    turn = Turn(3)
    assert [turn.take() for _ in range(5)] == [True] * 3 + [False] * 2
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert turn.take()


async def test_names_that_nobody_answers_leave_lookups_for_another_project() -> None:
    silent = asyncio.Event()

    async def lookup(host: str, port: int) -> list[str]:
        if host.endswith(".silent.example"):
            await silent.wait()
        return ["93.184.216.34"]

    dialer, one, two = Dialer(lookup), Turns(), Turns()
    loop = asyncio.get_running_loop()
    asked = [loop.create_task(dialer.addresses(Policy(), f"n{n}.silent.example", 443, one)) for n in range(LOOKUPS + 40)]
    await asyncio.sleep(0)
    async with asyncio.timeout(QUICK):
        assert await dialer.addresses(Policy(), "answers.example", 443, two)
    assert one.names == LOOKUPS + 40 and LOOKUPS_OF_ONE < LOOKUPS
    more = [loop.create_task(dialer.addresses(Policy(), f"m{n}.silent.example", 443, one)) for n in range(WAITING_OF_ONE)]
    await asyncio.wait(more, return_when=asyncio.FIRST_COMPLETED)
    with pytest.raises(Unreachable, match="too many names"):
        await next(task for task in more if task.done())
    silent.set()
    await asyncio.gather(*asked, *more, return_exceptions=True)
    assert one.names == 0


async def test_a_flooded_door_s_refusals_are_counted_and_others_are_served(world: World, other: tuple[str, int]) -> None:
    await world.serve(policy())
    engine = await world.greeted()
    address = opened(engine, 5432)
    for _ in range(90):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(address)
        sock.close()
    assert await served(other)
    await until(lambda: sum(one.count for one in engine.of(Refusal)) == 90)
