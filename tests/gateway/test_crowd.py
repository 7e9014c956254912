"""Too many connections: who has to go, and who still gets in."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from rootlink.gateway import crowd as crowd_module
from rootlink.gateway.crowd import Crowd
from tests.gateway.conftest import Instance, Start, until
from tests.gateway.raw import exchange

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class Guest:
    """One that remembers whether it was closed."""

    address: str = "10.0.0.1"
    closed: bool = field(default=False)

    def shed(self) -> None:
        self.closed = True


def _come(crowd: Crowd, count: int, address: str = "10.0.0.1") -> list[Guest]:
    guests = [Guest(address) for _ in range(count)]
    assert all(crowd.come(guest) for guest in guests)
    return guests


def test_the_oldest_headless_of_one_address_goes_and_no_other_address_feels_it() -> None:
    clock = Clock()
    crowd = Crowd(1000, clock)
    other = _come(crowd, 3, "10.0.0.2")
    guests = _come(crowd, crowd_module.HEADLESS_EACH)
    clock.now += crowd_module.GRACE_SECS
    _come(crowd, 2)
    assert [guest.closed for guest in guests] == [True, True] + [False] * (len(guests) - 2)
    assert not any(guest.closed for guest in other)


def test_of_headless_ones_from_everywhere_the_oldest_goes() -> None:
    clock = Clock()
    crowd = Crowd(1000, clock)
    guests = [_come(crowd, 1, f"10.0.1.{n}")[0] for n in range(crowd_module.HEADLESS)]
    clock.now += crowd_module.GRACE_SECS
    _come(crowd, 1)
    assert [guest.closed for guest in guests] == [True] + [False] * (len(guests) - 1)


def test_many_that_come_in_one_instant_are_given_time_for_their_heads() -> None:
    crowd = Crowd(1000, Clock())
    guests = _come(crowd, 300)
    assert not any(guest.closed for guest in guests)


def test_whose_head_is_whole_counts_no_more_as_headless() -> None:
    clock = Clock()
    crowd = Crowd(1000, clock)
    guests = _come(crowd, crowd_module.HEADLESS_EACH)
    for guest in guests:
        crowd.busy(guest)
    clock.now += 10
    _come(crowd, crowd_module.HEADLESS_EACH)
    assert not any(guest.closed for guest in guests)


def test_a_full_house_makes_place_by_the_headless_then_by_the_longest_idle_and_never_by_the_busy() -> None:
    crowd = Crowd(4, Clock())
    busy, first, second, headless = _come(crowd, 4)
    for guest in (second, first, busy):
        crowd.busy(guest)
    for guest in (second, first):
        crowd.idle(guest)
    newcomers = []
    for _ in range(3):
        newcomers += _come(crowd, 1)
        crowd.busy(newcomers[-1])
    assert (headless.closed, second.closed, first.closed, busy.closed) == (True, True, True, False)
    assert not crowd.come(Guest())
    crowd.leave(busy)
    assert crowd.come(Guest())
    assert len(crowd) == 4


def test_when_all_have_left_nothing_is_remembered() -> None:
    crowd = Crowd(10, Clock())
    one, two, three = _come(crowd, 3)
    crowd.busy(one)
    crowd.busy(two)
    crowd.idle(two)
    for guest in (one, two, three):
        crowd.leave(guest)
        crowd.leave(guest)
        crowd.idle(guest)
        crowd.headless(guest)
    assert (len(crowd), crowd._idle, crowd._headless, crowd._each) == (0, {}, {}, {})


async def _half_open(instance: Instance, count: int, sent: bytes = b"POST /mcp HTTP/1.1\r\nHost: loc") -> list[Connection]:
    connections = []
    for _ in range(count):
        connections.append(await asyncio.open_connection("127.0.0.1", instance.port))
        connections[-1][1].write(sent)
    return connections


async def _close(connections: list[Connection]) -> None:
    for _, writer in connections:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_eleven_hundred_half_open_connections_lock_nobody_out(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd_module, "GRACE_SECS", 0.0)
    half_open = await _half_open(instance, 1100)
    for _ in range(5):
        began = asyncio.get_running_loop().time()
        assert (await exchange(instance.port, LIVEZ))[0][0] == 200
        assert asyncio.get_running_loop().time() - began < 2
    await until(lambda: sum(reader.at_eof() or reader.exception() is not None for reader, _ in half_open) >= 1100 - 64)
    assert not half_open[-1][0].at_eof(), "the oldest go, not the newest"
    await _close(half_open)


async def test_half_open_connections_do_not_use_up_the_places_even_while_they_are_young(start: Start) -> None:
    instance: Instance = await start(connections=40)
    half_open = await _half_open(instance, 100)
    assert (await exchange(instance.port, LIVEZ))[0][0] == 200
    async with instance.http.post(instance.url + "/mcp", json={}, headers=instance.bearer) as response:
        assert response.status == 200
    await until(lambda: sum(reader.at_eof() or reader.exception() is not None for reader, _ in half_open) >= 60)
    await _close(half_open)


async def test_an_idle_connection_makes_place_for_a_newcomer(start: Start) -> None:
    instance: Instance = await start(connections=10)
    idle = []
    for _ in range(10):
        idle += await _half_open(instance, 1, LIVEZ)
        await idle[-1][0].readuntil(b"null}")
    assert (await exchange(instance.port, LIVEZ))[0][0] == 200
    await until(lambda: idle[0][0].at_eof())
    assert not idle[-1][0].at_eof()
    await _close(idle)


async def test_when_every_place_is_busy_a_newcomer_is_told_so_and_streams_go_on(start: Start) -> None:
    instance: Instance = await start(connections=5)
    engine = instance.engine
    engine.act = engine.events(b"data: 1\n\n")
    call = f"GET /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {instance.key}\r\n\r\n".encode()
    streams = []
    for _ in range(5):
        streams += await _half_open(instance, 1, call)
        await streams[-1][0].readuntil(b"data: 1\n\n")
    (status, answer), *_ = await exchange(instance.port, b"")
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    assert not any(reader.at_eof() for reader, _ in streams)
    await _close(streams)
    await until(lambda: engine.gone == 5)
    assert (await exchange(instance.port, LIVEZ))[0][0] == 200


RAISED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from rootlink.programs.prctl import raise_file_limit
print(raise_file_limit({most}), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "most", "raised"),
    [
        (64, 512, 65_536, "512 512 512"),
        (64, 512, 256, "256 256 512"),
        (400, 512, 256, "400 400 512"),
        (512, 512, 512, "512 512 512"),
    ],
    ids=["to the hard limit", "to our cap", "never lowered", "as it is"],
)
def test_the_limit_of_open_files_is_raised_as_far_as_allowed(soft: int, hard: int, most: int, raised: str) -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 512
    program = RAISED.format(soft=soft, hard=hard, most=most)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (run.stdout.strip(), run.returncode) == (raised, 0), run.stderr
