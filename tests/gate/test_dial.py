"""Names are resolved, classified and dialled once: real sockets, a resolver by hand."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from rootlink.egress.policy import Policy
from rootlink.gate import dial as dialling
from rootlink.gate.dial import Dialer
from rootlink.gate.refused import Refused, Unreachable

LOOPBACK = Policy.parse(["name.test"], private=["127.0.0.0/8", "::1/128"])
WORLD = Policy.parse(["name.test"])
PUBLIC = "93.184.216.34"  # classified only; nothing here dials it


@dataclass
class Names:
    """A resolver by hand: answers in turn, the last one again and again; an error is raised."""

    answers: list[list[str] | OSError]
    asked: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if isinstance(answer, OSError):
            raise answer
        return answer


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(0.2)
        yield made


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def visited(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except TimeoutError:
        return False
    return True


@contextlib.contextmanager
def silent(host: str = "127.0.0.1") -> Iterator[int]:
    """A port whose queue is full, so that a connection to it neither begins nor fails."""
    with socket.create_server((host, 0), backlog=0) as full, contextlib.ExitStack() as held:
        for _ in range(4):
            sock = held.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex((host, port_of(full)))
        yield port_of(full)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as briefly:
        return port_of(briefly)


def resolving(*answers: list[str] | OSError) -> tuple[Dialer, Names, Clock]:
    names, clock = Names(list(answers)), Clock()
    return Dialer(names, clock=clock), names, clock


async def refused(attempt: Awaitable[object]) -> str:
    with pytest.raises(Refused) as caught:
        await attempt
    return caught.value.decision.reason


async def unreachable(attempt: Awaitable[object]) -> str:
    with pytest.raises(Unreachable) as caught:
        await attempt
    return str(caught.value)


async def test_a_name_leads_to_a_connected_socket_that_is_ready_for_the_loop(listener: socket.socket) -> None:
    dialer, _, _ = resolving(["127.0.0.1"])
    sock, address = await dialer.dial(LOOPBACK, "name.test", port_of(listener))
    with sock:
        assert address == "127.0.0.1"
        assert sock.getpeername() == listener.getsockname()
        assert not sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not sock.get_inheritable()


@pytest.mark.parametrize(
    "other", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1", "nonsense", ""]
)
@pytest.mark.parametrize("order", [1, -1])
async def test_one_address_that_is_not_the_worlds_refuses_the_name_before_any_packet(
    listener: socket.socket, other: str, order: int
) -> None:
    dialer, _, _ = resolving([PUBLIC, other][::order])
    assert await refused(dialer.dial(WORLD, "name.test", port_of(listener))) == "private_address"
    assert await refused(dialer.addresses(WORLD, "name.test", port_of(listener))) == "private_address"
    assert not visited(listener)


async def test_all_addresses_of_the_world_are_given_in_the_resolvers_order() -> None:
    dialer, _, _ = resolving([PUBLIC, "2606:2800:220:1::1"])
    assert await dialer.addresses(WORLD, "name.test", 443) == [(PUBLIC, 443), ("2606:2800:220:1::1", 443)]


async def test_a_name_that_leads_elsewhere_the_second_time_is_classified_again(listener: socket.socket) -> None:
    dialer, names, clock = resolving([PUBLIC], ["127.0.0.1"])
    assert await dialer.addresses(WORLD, "name.test", 443)
    clock.now += dialling.KEPT_SECS + 0.1
    assert await refused(dialer.dial(WORLD, "name.test", port_of(listener))) == "private_address"
    assert len(names.asked) == 2
    assert not visited(listener)


async def test_what_is_dialled_is_what_was_classified_though_the_name_leads_elsewhere_by_then(listener: socket.socket) -> None:
    dialer, names, _ = resolving(["127.0.0.1"], ["127.0.0.2"])
    sock, address = await dialer.dial(LOOPBACK, "name.test", port_of(listener))
    sock.close()
    assert address == "127.0.0.1"
    assert names.asked == ["name.test"]


async def test_a_kept_answer_does_not_outlive_a_policy(listener: socket.socket) -> None:
    dialer, names, _ = resolving(["127.0.0.1"])
    (await dialer.dial(LOOPBACK, "name.test", port_of(listener)))[0].close()
    assert visited(listener)
    assert await refused(dialer.dial(WORLD, "name.test", port_of(listener))) == "private_address"
    assert not visited(listener)
    assert len(names.asked) == 1


async def test_a_pin_is_dialled_as_the_operator_said_and_nothing_is_looked_up(listener: socket.socket) -> None:
    dialer, names, _ = resolving([PUBLIC])
    pinned = Policy.parse(["name.test"], resolve=[f"name.test:443=127.0.0.1:{port_of(listener)}"])
    sock, address = await dialer.dial(pinned, "name.test", 443)
    sock.close()
    assert (address, names.asked) == ("127.0.0.1", [])
    assert await dialer.addresses(pinned, "name.test", 80) == [(PUBLIC, 80)]  # a pin is for its port


async def test_an_address_is_classified_and_dialled_as_it_is(listener: socket.socket) -> None:
    dialer, names, _ = resolving([PUBLIC])
    (await dialer.dial(LOOPBACK, "127.0.0.1", port_of(listener)))[0].close()
    assert visited(listener)
    assert await refused(dialer.dial(WORLD, "127.0.0.1", port_of(listener))) == "private_address"
    assert await refused(dialer.dial(WORLD, "::1", port_of(listener))) == "private_address"
    assert not visited(listener)
    assert names.asked == []


async def test_ipv6_loopback_is_reached_when_the_operator_opened_it() -> None:
    dialer, _, _ = resolving(["::1"])
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        sock, address = await dialer.dial(LOOPBACK, "name.test", port_of(listener))
        sock.close()
        assert address == "::1"


async def test_an_address_that_refuses_is_followed_by_the_next_one(listener: socket.socket) -> None:
    dialer, _, _ = resolving(["::1", "127.0.0.9", "127.0.0.1"])
    began = time.monotonic()
    sock, address = await dialer.dial(LOOPBACK, "name.test", port_of(listener))
    sock.close()
    assert address == "127.0.0.1"
    assert time.monotonic() - began < 0.2  # at once, not after the stagger


async def test_an_address_that_is_silent_is_overtaken_and_left_behind() -> None:
    dialer, _, _ = resolving(["127.0.0.2", "127.0.0.1"])
    with silent("127.0.0.2") as port, socket.create_server(("127.0.0.1", port)):
        fds = psutil.Process().num_fds()
        began = time.monotonic()
        sock, address = await dialer.dial(LOOPBACK, "name.test", port)
        assert address == "127.0.0.1"
        assert 0.2 < time.monotonic() - began < 2
        sock.close()
        assert psutil.Process().num_fds() <= fds + 3  # the loop's own at most


async def test_a_closed_port_is_said_in_words() -> None:
    dialer, _, _ = resolving(["127.0.0.1"])
    port = closed_port()
    words = await unreachable(dialer.dial(LOOPBACK, "name.test", port))
    assert words == f"host 'name.test' port {port} cannot be reached: connection refused"


async def test_silence_everywhere_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "LIMIT_SECS", 0.4)
    dialer, _, _ = resolving(["127.0.0.1", "127.0.0.1"])
    with silent() as port:
        assert (
            await unreachable(dialer.dial(LOOPBACK, "name.test", port))
            == f"host 'name.test' port {port} cannot be reached: timed out"
        )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "host 'name.test' is not known to DNS"),
        ([], "host 'name.test' is not known to DNS"),
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            "host 'name.test' cannot be looked up: temporary failure in name resolution",
        ),
    ],
)
async def test_a_name_that_leads_nowhere_is_said_in_words(answer: list[str] | OSError, words: str) -> None:
    dialer, _, _ = resolving(answer)
    assert await unreachable(dialer.dial(WORLD, "name.test", 443)) == words


async def test_a_resolver_that_does_not_answer_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "LOOKUP_SECS", 0.1)
    dialer, names, _ = resolving(["127.0.0.1"])
    names.gate = asyncio.Event()
    assert await unreachable(dialer.dial(LOOPBACK, "name.test", 443)) == "host 'name.test' cannot be looked up: DNS timed out"
    names.gate.set()


async def test_an_answer_is_kept_for_a_few_seconds_and_a_failure_is_not() -> None:
    dialer, names, clock = resolving(socket.gaierror(socket.EAI_NONAME, "no"), [PUBLIC])
    await unreachable(dialer.addresses(WORLD, "name.test", 443))
    for _ in range(3):
        await dialer.addresses(WORLD, "name.test", 443)
    assert len(names.asked) == 2
    clock.now += dialling.KEPT_SECS + 0.1
    await dialer.addresses(WORLD, "name.test", 443)
    assert len(names.asked) == 3


async def test_who_asks_for_one_name_at_once_shares_one_lookup_and_may_leave_without_the_others() -> None:
    dialer, names, _ = resolving([PUBLIC])
    names.gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    waiting = [loop.create_task(dialer.addresses(WORLD, "name.test", 443)) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting[0].cancel()
    names.gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [[(PUBLIC, 443)]] * 4
    assert names.asked == ["name.test"]


async def test_names_are_kept_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "KEPT_NAMES", 3)
    dialer, names, _ = resolving([PUBLIC])
    for number in range(5):
        await dialer.addresses(WORLD, f"n{number}.test", 443)
    assert len(dialer._names._kept) == 3
    await dialer.addresses(WORLD, "n4.test", 443)
    await dialer.addresses(WORLD, "n0.test", 443)
    assert names.asked == ["n0.test", "n1.test", "n2.test", "n3.test", "n4.test", "n0.test"]


async def test_only_so_many_lookups_are_in_flight() -> None:
    dialer, names, _ = resolving([PUBLIC])
    names.gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    waiting = [loop.create_task(dialer.addresses(WORLD, f"n{number}.test", 443)) for number in range(dialling.LOOKUPS + 20)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(names.asked) == dialling.LOOKUPS
    names.gate.set()
    await asyncio.gather(*waiting)
    assert len(names.asked) == dialling.LOOKUPS + 20


async def test_a_dial_that_is_cancelled_leaves_no_socket() -> None:
    dialer, _, _ = resolving(["127.0.0.1", "127.0.0.1"])
    with silent() as port:
        gc.collect()
        base = psutil.Process().num_fds()
        task = asyncio.get_running_loop().create_task(dialer.dial(LOOPBACK, "name.test", port))
        await asyncio.sleep(0.3)  # both are under way
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert psutil.Process().num_fds() <= base + 3  # the loop's own at most


async def test_the_machines_resolver_knows_localhost_and_refuses_nonsense(listener: socket.socket) -> None:
    dialer = Dialer()
    sock, address = await dialer.dial(LOOPBACK, "localhost", port_of(listener))
    sock.close()
    assert address == "127.0.0.1"
    assert await refused(dialer.dial(WORLD, "localhost", port_of(listener))) == "private_address"
