"""The gate as its two kinds of clients know it, over its real sockets. Its doors here are listeners on loopback: what is behind a
door, and that nothing else is reached from there, is tests/door and tests/e2e."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rootlink.door.channel import Channel
from rootlink.gate import dns
from rootlink.gate.app import serve
from rootlink.gate.dial import Dialer
from rootlink.gate.door import MOST_UNDECIDED
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.gate import (
    Answer,
    Ask,
    Close,
    Count,
    Counted,
    Counts,
    Done,
    Forget,
    Hello,
    Listen,
    Listener,
    Named,
    Open,
    Refusal,
    Serve,
    ToEngine,
    ToProvisioner,
    Welcome,
)

LOOPBACK = ["127.0.0.0/8", "::1/128"]
SECONDS = 10.0


async def until(true: Callable[[], Any], what: str = "it did not come to pass") -> Any:
    try:
        async with asyncio.timeout(SECONDS):
            while not (found := true()):
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(what) from None
    return found


@dataclass
class Side:
    """One end of a channel with the gate: what it heard, in order."""

    heard: list[Any] = field(default_factory=list)
    ended: bool = False
    channel: Channel[Any] = field(init=False)

    @classmethod
    def to(cls, path: Path, shape: Any) -> Side:
        side = cls()
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))

        def hear(message: Any, fds: list[int]) -> None:
            side.heard.append(message)

        def end() -> None:
            side.ended = True

        side.channel = Channel(sock, shape, hear, end)
        return side

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.heard if isinstance(one, kind)]


@dataclass
class World:
    """A gate, its provisioner, and what it resolves names with."""

    folder: Path
    names: dict[str, list[str]] = field(default_factory=dict)
    n: int = 0

    async def lookup(self, host: str, port: int) -> list[str]:
        if host not in self.names:
            raise OSError("unknown")
        return self.names[host]

    def provisioner(self) -> Side:
        return Side.to(self.folder / "gate.sock", ToProvisioner)

    def engine(self) -> Side:
        return Side.to(self.folder / "doors.sock", ToEngine)

    async def serve(self, policy: EgressPolicy, key: str = "k1", project: str = "p", **more: Any) -> Side:
        side = self.provisioner()
        self.n += 1
        side.channel.send(Serve(self.n, project, key, policy, **more))
        await until(lambda: side.of(Done))
        return side

    async def greeted(self, key: str = "k1", project: str = "p") -> Side:
        side = self.engine()
        side.channel.send(Hello(project, key))
        await until(lambda: side.of(Welcome) or side.ended)
        return side


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    here = World(tmp_path)
    stop = asyncio.Event()
    running = asyncio.create_task(serve(tmp_path / "gate.sock", tmp_path / "doors.sock", stop, dialer=Dialer(here.lookup)))
    await until(lambda: (tmp_path / "doors.sock").exists() and (tmp_path / "gate.sock").exists())
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield here
    stop.set()
    await running
    assert not (tmp_path / "gate.sock").exists()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 10  # the tests' own ends


@dataclass
class Upstream:
    port: int
    connections: int = 0


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """Sends back what it is sent."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.connections += 1
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    here = Upstream(server.sockets[0].getsockname()[1])
    yield here
    server.close()


def listening(kind: int = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        sock.listen(100)
    return sock


def opened(engine: Side, port: int, door: int = 1, **more: Any) -> tuple[str, int]:
    """A door whose listener stands for `port`; where a child would connect to."""
    with listening() as sock:
        engine.channel.send(Open(door, more.pop("name", "github"), [Listener("tcp", port)], **more), [sock.fileno()])
        return sock.getsockname()


async def said(address: tuple[str, int], data: bytes = b"hello") -> bytes:
    """What comes back; empty when the connection is cut."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        async with asyncio.timeout(SECONDS):
            writer.write(data)
            return await reader.read(100)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def policy(*allow: str, private: list[str] = LOOPBACK, **more: Any) -> EgressPolicy:
    return EgressPolicy(list(allow), private, **more)


# who may speak


async def test_an_engine_with_its_key_is_welcome(world: World) -> None:
    await world.serve(policy())
    assert (await world.greeted()).of(Welcome)


@pytest.mark.parametrize(("project", "key"), [("p", "k2"), ("p", ""), ("other", "k1"), ("p", "kü")])
async def test_an_engine_of_another_key_or_project_is_sent_away(world: World, project: str, key: str) -> None:
    await world.serve(policy())
    side = await world.greeted(key, project)
    assert side.ended and not side.of(Welcome)


async def test_a_project_that_is_not_served_has_no_door(world: World) -> None:
    assert (await world.greeted()).ended


async def test_who_does_not_say_who_it_is_has_no_door(world: World, upstream: Upstream) -> None:
    await world.serve(policy(f"127.0.0.1:{upstream.port}"))
    side = world.engine()
    opened(side, upstream.port)
    await until(lambda: side.ended)


async def test_an_engine_of_an_earlier_spawn_loses_its_doors(world: World, upstream: Upstream) -> None:
    await world.serve(policy(f"127.0.0.1:{upstream.port}"))
    old = await world.greeted()
    opened(old, upstream.port)
    await world.serve(policy(f"127.0.0.1:{upstream.port}"), key="k2")
    await until(lambda: old.ended)
    assert not (await world.greeted("k2")).ended


@pytest.mark.parametrize(
    "message",
    [
        Open(1, "x", [Listener("tcp", 80)]),  # without its descriptor
        Listen(9, []),
        Ask(1, 9, "a.example", 443),
        Hello("p", "k1"),
    ],
    ids=lambda message: type(message).__name__,
)
async def test_what_makes_no_sense_ends_the_connection(world: World, message: msgspec.Struct) -> None:
    await world.serve(policy())
    side = await world.greeted()
    side.channel.send(message)
    await until(lambda: side.ended)


async def test_the_sockets_are_this_users_alone(world: World) -> None:
    for name in ("gate.sock", "doors.sock"):
        assert (world.folder / name).stat().st_mode & 0o777 == 0o600


# a door


async def test_what_is_allowed_gets_through(world: World, upstream: Upstream) -> None:
    await world.serve(policy(f"127.0.0.1:{upstream.port}"))
    engine = await world.greeted()
    assert await said(opened(engine, upstream.port)) == b"hello"
    assert engine.of(Refusal) == []


async def test_what_is_not_allowed_is_cut_recorded_and_never_dialled(world: World, upstream: Upstream) -> None:
    await world.serve(policy("api.example"))
    engine = await world.greeted()
    assert await said(opened(engine, upstream.port)) == b""
    (refusal,) = await until(lambda: engine.of(Refusal))
    assert (refusal.door, refusal.name, refusal.host, refusal.port) == (1, "github", "127.0.0.1", upstream.port)
    assert refusal.message == "egress blocked: host '127.0.0.1' is not in this project's outbound allowlist"
    assert upstream.connections == 0


async def test_a_private_address_is_refused_though_its_rule_is_there(world: World, upstream: Upstream) -> None:
    await world.serve(policy(f"127.0.0.1:{upstream.port}", private=[]))
    engine = await world.greeted()
    assert await said(opened(engine, upstream.port)) == b""
    (refusal,) = await until(lambda: engine.of(Refusal))
    assert refusal.reason == "private_address"
    assert upstream.connections == 0


async def test_a_door_reaches_its_own_hosts_and_no_other_allowed_one(world: World, upstream: Upstream) -> None:
    await world.serve(policy(f"127.0.0.1:{upstream.port}", "api.example"))
    engine = await world.greeted()
    assert await said(opened(engine, upstream.port, scope=["api.example"])) == b""
    (refusal,) = await until(lambda: engine.of(Refusal))
    assert refusal.reason == "not_in_connection"


async def test_an_engine_cannot_widen_what_its_project_may(world: World, upstream: Upstream) -> None:
    await world.serve(policy("api.example"))
    engine = await world.greeted()
    assert await said(opened(engine, upstream.port, scope=[f"127.0.0.1:{upstream.port}"])) == b""
    (refusal,) = await until(lambda: engine.of(Refusal))
    assert refusal.reason == "not_in_allowlist"


async def test_a_door_for_packages_reaches_registries_alone(world: World, upstream: Upstream) -> None:
    await world.serve(policy("127.0.0.1:1"), packages=policy(f"127.0.0.1:{upstream.port}"))
    engine = await world.greeted()
    assert await said(opened(engine, upstream.port, door=1, packages=True)) == b"hello"
    assert await said(opened(engine, upstream.port, door=2)) == b""


async def test_localhost_is_a_name_that_a_rule_may_open(world: World, upstream: Upstream) -> None:
    world.names["localhost"] = ["127.0.0.1"]
    await world.serve(policy(f"localhost:{upstream.port}"))
    assert await said(opened(await world.greeted(), upstream.port)) == b"hello"


async def test_a_closed_door_accepts_nothing_more_and_cuts_what_is_open(world: World, upstream: Upstream) -> None:
    await world.serve(policy(f"127.0.0.1:{upstream.port}"))
    engine = await world.greeted()
    with listening() as sock:
        engine.channel.send(Open(1, "x", [Listener("tcp", upstream.port)]), [sock.fileno()])
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(b"a")
        assert await reader.read(1) == b"a"
        engine.channel.send(Close(1))
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(SECONDS):
                assert await reader.read(1) == b""
        writer.close()


async def test_more_listeners_of_an_open_door_count_at_once(world: World, upstream: Upstream) -> None:
    await world.serve(policy(f"127.0.0.1:{upstream.port}"))
    engine = await world.greeted()
    opened(engine, 443)
    with listening() as sock:
        engine.channel.send(Listen(1, [Listener("tcp", upstream.port)]), [sock.fileno()])
        assert await said(sock.getsockname()) == b"hello"


async def test_connections_that_say_nothing_keep_within_the_limit_and_others_are_told(world: World, upstream: Upstream) -> None:
    await world.serve(policy("127.0.0.1"))
    engine = await world.greeted()
    address = opened(engine, 443)
    with contextlib.ExitStack() as held:
        for _ in range(MOST_UNDECIDED + 20):
            sock = held.enter_context(socket.socket())
            sock.setblocking(False)
            with contextlib.suppress(ConnectionError):
                await asyncio.get_running_loop().sock_connect(sock, address)
        await until(lambda: sum(one.count for one in engine.of(Refusal) if one.reason == "limit") == 20)


# a changed policy


async def test_a_host_that_is_taken_away_is_cut_and_refused_from_then_on(world: World, upstream: Upstream) -> None:
    await world.serve(policy(f"127.0.0.1:{upstream.port}"))
    engine = await world.greeted()
    address = opened(engine, upstream.port)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"a")
    assert await reader.read(1) == b"a"
    await world.serve(policy())
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(SECONDS):
            assert await reader.read(1) == b""
    writer.close()
    assert await said(address) == b""
    await until(lambda: len(engine.of(Refusal)) == 2)


async def test_a_host_that_is_added_is_reached_through_the_same_door(world: World, upstream: Upstream) -> None:
    await world.serve(policy())
    address = opened(await world.greeted(), upstream.port)
    assert await said(address) == b""
    await world.serve(policy(f"127.0.0.1:{upstream.port}"))
    assert await said(address) == b"hello"


async def test_what_stays_allowed_is_not_cut(world: World, upstream: Upstream) -> None:
    await world.serve(policy(f"127.0.0.1:{upstream.port}", "a.example"))
    address = opened(await world.greeted(), upstream.port)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"a")
    assert await reader.read(1) == b"a"
    await world.serve(policy(f"127.0.0.1:{upstream.port}"))
    writer.write(b"b")
    assert await reader.read(1) == b"b"
    writer.close()


async def test_a_private_network_that_is_closed_cuts_by_address(world: World, upstream: Upstream) -> None:
    await world.serve(policy(f"127.0.0.1:{upstream.port}"))
    engine = await world.greeted()
    reader, writer = await asyncio.open_connection(*opened(engine, upstream.port))
    writer.write(b"a")
    assert await reader.read(1) == b"a"
    await world.serve(policy(f"127.0.0.1:{upstream.port}", private=[]))
    (refusal,) = await until(lambda: engine.of(Refusal))
    assert refusal.reason == "private_address"
    writer.close()


async def test_a_project_that_is_forgotten_has_no_door_any_more(world: World, upstream: Upstream) -> None:
    side = await world.serve(policy(f"127.0.0.1:{upstream.port}"))
    engine = await world.greeted()
    side.channel.send(Forget(99, "p"))
    await until(lambda: engine.ended)
    assert (await world.greeted()).ended


async def test_projects_go_on_when_the_provisioner_goes_away(world: World, upstream: Upstream) -> None:
    (await world.serve(policy(f"127.0.0.1:{upstream.port}"))).channel.close()
    assert await said(opened(await world.greeted(), upstream.port)) == b"hello"


async def test_one_projects_policy_is_nothing_to_another(world: World, upstream: Upstream) -> None:
    await world.serve(policy(f"127.0.0.1:{upstream.port}"))
    await world.serve(policy(), key="k9", project="q")
    other = await world.greeted("k9", "q")
    assert await said(opened(other, upstream.port)) == b""


# names


def query(name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


async def asked(engine: Side, name: str, *kinds: int) -> list[bytes]:
    with listening(socket.SOCK_DGRAM) as sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as child:
        engine.channel.send(Open(5, "github", [Listener("dns", 53)]), [sock.fileno()])
        child.connect(sock.getsockname())
        child.setblocking(False)
        answers = []
        for kind in kinds:
            child.send(query(name, kind))
            async with asyncio.timeout(SECONDS):
                answers.append(await asyncio.get_running_loop().sock_recv(child, 512))
        return answers


async def test_an_allowed_name_has_an_address_of_ours_and_nothing_is_looked_up(world: World) -> None:
    await world.serve(policy("api.example"))
    engine = await world.greeted()
    (answer,) = await asked(engine, "www.api.example", dns.A)
    assert answer[3] & 15 == 0 and answer[-4:-2] == bytes([198, 18])
    (named,) = await until(lambda: engine.of(Named))
    assert named == Named(5, ".".join(str(part) for part in answer[-4:]), "www.api.example")


@pytest.mark.parametrize("kind", [dns.AAAA, dns.HTTPS, 16], ids=["AAAA", "HTTPS", "TXT"])
async def test_an_allowed_name_has_nothing_else(world: World, kind: int) -> None:
    await world.serve(policy("api.example"))
    (answer,) = await asked(await world.greeted(), "api.example", kind)
    assert (answer[3] & 15, answer[6:8]) == (0, b"\0\0")


async def test_any_other_name_does_not_exist_and_is_recorded_once_for_both_kinds_of_address(world: World) -> None:
    await world.serve(policy("api.example"))
    engine = await world.greeted()
    for answer in await asked(engine, "c2VjcmV0.evil.example", dns.A, dns.AAAA):
        assert answer[3] & 15 == 3
    (refusal,) = engine.of(Refusal)
    assert (refusal.host, refusal.port, refusal.reason) == ("c2vjcmv0.evil.example", 0, "not_in_allowlist")


async def test_names_of_an_earlier_gate_still_stand_for_theirs(world: World, upstream: Upstream) -> None:
    world.names["api.example"] = ["127.0.0.1"]
    await world.serve(policy(f"api.example:{upstream.port}"))
    engine = await world.greeted()
    engine.channel.send(Open(1, "github", [], names={"198.18.0.9": "api.example"}))
    engine.channel.send(Ask(1, 1, "api.example", upstream.port))
    (answer,) = await until(lambda: engine.of(Answer))
    assert answer.address == "198.18.0.9"


# questions


async def test_a_question_is_answered_with_an_address_or_with_the_words_of_the_refusal(world: World) -> None:
    world.names |= {"good.example": ["93.184.216.34"], "inside.example": ["93.184.216.34", "10.0.0.1"]}
    await world.serve(policy("good.example", "inside.example", "nowhere.example", private=[]))
    engine = await world.greeted()
    opened(engine, 443, name="engine")
    for n, host in enumerate(["good.example", "inside.example", "evil.example", "nowhere.example"]):
        engine.channel.send(Ask(n, 1, host, 443, "my-function"))
    answers = {answer.n: answer for answer in await until(lambda: len(engine.of(Answer)) == 4 and engine.of(Answer))}
    assert answers[0].address.startswith("198.18.")
    assert answers[1].refusal.message.startswith("egress blocked: host 'inside.example' leads to 10.0.0.1, a private address")
    assert answers[2].refusal.message == "egress blocked: host 'evil.example' is not in this project's outbound allowlist"
    assert answers[1].refusal.name == answers[2].refusal.name == "my-function"
    assert "nowhere.example" in answers[3].failed and answers[3].address is None


# counting


async def test_what_went_through_is_counted_by_project(world: World, upstream: Upstream) -> None:
    side = await world.serve(policy(f"127.0.0.1:{upstream.port}"))
    engine = await world.greeted()
    await said(opened(engine, upstream.port), b"x" * 50)
    await said(opened(engine, 1, door=2))
    side.channel.send(Count(50))
    (counted,) = await until(lambda: side.of(Counted))
    counts: Counts = counted.projects["p"]
    assert (counts.doors, counts.connections, counts.refused) == (2, 2, 1)
    assert counts.up == counts.down == 50


async def test_a_thousand_connections_leave_nothing_open(world: World, upstream: Upstream) -> None:
    await world.serve(policy(f"127.0.0.1:{upstream.port}"))
    address = opened(await world.greeted(), upstream.port)
    await said(address)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        assert await asyncio.gather(*(said(address) for _ in range(50))) == [b"hello"] * 50
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)  # noqa: PTH208
