"""Bytes through the gate: real TCP sockets on loopback."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import psutil
import pytest
import uvloop

from rootlink.gate import splice as splicing
from rootlink.gate.conn import Conn
from rootlink.gate.splice import Flow, Rate, splice

WAIT = 10.0


@dataclass
class Through:
    """A spliced connection, seen from both ends. `client` and `server` are the far ends, non-blocking."""

    client: socket.socket
    server: socket.socket
    inner: tuple[Conn, Conn]
    flow: Flow
    task: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        self.task = asyncio.get_running_loop().create_task(splice(*self.inner, self.flow))

    async def done(self) -> None:
        await asyncio.wait_for(asyncio.shield(self.task), WAIT)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        for sock in (self.client, self.server, *(conn.sock for conn in self.inner)):
            sock.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection, non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for sock in (near, far):
        sock.setblocking(False)
    return near, far


MakeThrough = Callable[..., Through]


@pytest.fixture
async def make() -> AsyncIterator[MakeThrough]:
    made: list[Through] = []

    def one(*, idle: float = 3600.0, rate: Rate | None = None, held: tuple[bytes, bytes] = (b"", b"")) -> Through:
        (client, near), (far, server) = pair(), pair()
        made.append(Through(client, server, (Conn(near, held[0]), Conn(far, held[1])), Flow(idle=idle, rate=rate)))
        return made[-1]

    yield one
    for through in made:
        await through.close()


async def get(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, fewer at the end."""
    loop, got = asyncio.get_running_loop(), b""
    while len(got) < size:
        data = await asyncio.wait_for(loop.sock_recv(sock, size - len(got)), WAIT)
        if not data:
            break
        got += data
    return got


async def put(sock: socket.socket, data: bytes) -> None:
    await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(sock, data), WAIT)


async def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


def abort(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


async def resets(sock: socket.socket) -> bool:
    """Whether the other side cut it (and did not finish)."""
    loop = asyncio.get_running_loop()
    try:
        while await asyncio.wait_for(loop.sock_recv(sock, 65536), WAIT):
            pass
    except ConnectionResetError:
        return True
    return False


def fill(sock: socket.socket, at_least: int = 0) -> int:
    """Sends until nothing more is taken for a moment; how much was."""
    sent, quiet = 0, 0
    while quiet < 5 or sent < at_least:
        try:
            sent += sock.send(b"z" * 65536)
            quiet = 0
        except BlockingIOError:
            quiet += 1
            if quiet > 200:
                break
    return sent


async def test_what_is_said_arrives_on_the_other_side_both_ways(make: MakeThrough) -> None:
    through = make()
    await put(through.client, b"ping")
    assert await get(through.server, 4) == b"ping"
    await put(through.server, b"pong!")
    assert await get(through.client, 5) == b"pong!"
    assert (through.flow.up, through.flow.down) == (4, 5)


async def test_what_was_read_before_goes_first(make: MakeThrough) -> None:
    through = make(held=(b"hello ", b"220 ready "))
    await put(through.client, b"world")
    await put(through.server, b"for you")
    assert await get(through.server, 11) == b"hello world"
    assert await get(through.client, 17) == b"220 ready for you"
    assert through.inner[0].held == through.inner[1].held == b""
    assert (through.flow.up, through.flow.down) == (11, 17)


async def test_an_end_of_the_client_is_handed_on_and_the_answer_still_comes(make: MakeThrough) -> None:
    through = make()
    await put(through.client, b"all I have")
    through.client.shutdown(socket.SHUT_WR)
    assert await get(through.server, 100) == b"all I have"
    await put(through.server, b"answer" * 100_000)
    assert not through.task.done()
    through.server.close()
    assert len(await get(through.client, 700_000)) == 600_000
    await through.done()
    assert through.flow.cut == ""


async def test_an_end_of_the_server_is_handed_on_and_the_client_can_go_on(make: MakeThrough) -> None:
    through = make()
    through.server.shutdown(socket.SHUT_WR)
    assert await get(through.client, 1) == b""
    await put(through.client, b"still here")
    assert await get(through.server, 10) == b"still here"
    through.client.close()
    await through.done()
    assert await get(through.server, 1) == b""


async def test_a_clean_end_leaves_both_sockets_to_the_caller(make: MakeThrough) -> None:
    through = make()
    for sock in (through.client, through.server):
        sock.shutdown(socket.SHUT_WR)
    await through.done()
    assert all(conn.sock.fileno() >= 0 for conn in through.inner)
    assert through.flow.cut == ""


@pytest.mark.parametrize("upwards", [True, False])
async def test_a_hundred_megabytes_arrive_whole_and_memory_stays_flat(make: MakeThrough, upwards: bool) -> None:
    through = make()
    source, sink = (through.client, through.server) if upwards else (through.server, through.client)
    block, blocks = os.urandom(1 << 20), 100
    sent, got = hashlib.sha256(), hashlib.sha256()

    async def send() -> None:
        for number in range(blocks):
            part = block[number:] + block[:number]
            sent.update(part)
            await put(source, part)
        source.shutdown(socket.SHUT_WR)

    before, most = psutil.Process().memory_info().rss, 0
    sending = asyncio.get_running_loop().create_task(send())
    loop, count = asyncio.get_running_loop(), 0
    while data := await asyncio.wait_for(loop.sock_recv(sink, 1 << 18), WAIT):
        got.update(data)
        count += len(data)
        most = max(most, psutil.Process().memory_info().rss)
    await sending
    assert count == blocks << 20
    assert got.digest() == sent.digest()
    assert (through.flow.up if upwards else through.flow.down) == count
    assert most - before < 16 << 20


async def test_a_reader_that_stops_stops_the_sender_and_costs_little_memory(make: MakeThrough) -> None:
    through = make()
    before = psutil.Process().memory_info().rss
    taken, block = 0, b"z" * 65536
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < 0.3:  # until nobody takes anything any more
        try:
            taken += through.client.send(block)
            quiet_since = time.monotonic()
        except BlockingIOError:
            await asyncio.sleep(0.005)
        assert taken < 200 << 20, "nothing holds the sender back"
    assert psutil.Process().memory_info().rss - before < 4 << 20
    assert not through.task.done()
    through.client.shutdown(socket.SHUT_WR)
    loop, got = asyncio.get_running_loop(), 0
    while data := await asyncio.wait_for(loop.sock_recv(through.server, 1 << 20), WAIT):
        got += len(data)
    assert got == taken


async def test_many_readers_that_stop_share_one_allowance(make: MakeThrough, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splicing, "KEPT", 256 * 1024)
    space = splicing._space()
    kept_before = space.kept
    throughs = [make() for _ in range(12)]
    for through in throughs:  # small windows, so that sends fall short at once
        through.inner[1].sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        through.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(3):
        for through in throughs:
            fill(through.client)
            await asyncio.sleep(0.01)
    assert space.kept - kept_before <= 256 * 1024 + splicing.SIZE + 12 * splicing.SMALL
    for through in throughs:
        await through.close()
    assert space.kept == kept_before


@pytest.mark.parametrize("whose", ["client", "server"])
async def test_a_reset_of_one_side_reaches_the_other_as_a_reset(make: MakeThrough, whose: str) -> None:
    through = make()
    await put(through.client, b"x")
    await get(through.server, 1)
    gone, other = (through.client, through.server) if whose == "client" else (through.server, through.client)
    abort(gone)
    await through.done()
    assert through.flow.cut == "error"
    assert await resets(other)
    assert all(conn.sock.fileno() == -1 for conn in through.inner)


async def test_a_reset_is_seen_though_the_other_side_reads_nothing(make: MakeThrough, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splicing, "TICK_SECS", 0.05)
    through = make()
    blocked = time.monotonic() + 0.3
    while time.monotonic() < blocked:
        try:
            through.client.send(b"z" * 65536)
            blocked = time.monotonic() + 0.3
        except BlockingIOError:
            await asyncio.sleep(0.005)
    abort(through.client)
    await through.done()
    assert through.flow.cut == "error"


async def test_a_reset_after_a_half_close_is_seen(make: MakeThrough, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splicing, "TICK_SECS", 0.05)
    through = make()
    through.client.shutdown(socket.SHUT_WR)
    assert await get(through.server, 1) == b""
    abort(through.client)
    await through.done()
    assert through.flow.cut == "error"
    with pytest.raises((BrokenPipeError, ConnectionResetError)):  # it had its end already, so it hears of it when it sends
        await put(through.server, b"the answer")


async def test_a_cancel_cuts_both_at_once(make: MakeThrough) -> None:
    through = make()
    await put(through.client, b"x")
    await get(through.server, 1)
    through.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await through.task
    assert through.flow.cut == "cancelled"
    assert await resets(through.client)
    assert await resets(through.server)


async def test_silence_ends_it_and_a_byte_either_way_is_no_silence(make: MakeThrough) -> None:
    through = make(idle=0.4)
    began = time.monotonic()
    while time.monotonic() < began + 0.9:
        await put(through.server, b".")
        await get(through.client, 1)
        await asyncio.sleep(0.02)
    assert not through.task.done()
    last = time.monotonic()
    await through.done()
    assert 0.3 < time.monotonic() - last < 3
    assert through.flow.cut == "idle"
    assert await resets(through.client)


async def test_a_rate_is_kept_by_all_flows_of_a_door_together_and_shared_among_them(make: MakeThrough) -> None:
    rate = Rate(1_000_000)
    throughs = [make(rate=rate) for _ in range(3)]
    got = [0, 0, 0]
    began = time.monotonic()

    async def read(number: int, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while time.monotonic() < began + 1.5:
            got[number] += len(await loop.sock_recv(sock, 1 << 16))

    for through in throughs:
        fill(through.client)
    await asyncio.gather(*(read(number, through.server) for number, through in enumerate(throughs)))
    took = time.monotonic() - began
    assert 0.6 * took < sum(got) / 1_000_000 < 1.15 * took + 0.3
    assert min(got) > 0.5 * max(got)


async def test_a_rate_is_each_way_and_can_be_changed_while_flows_wait(make: MakeThrough) -> None:
    rate = Rate(1_000)
    through = make(rate=rate)
    await put(through.client, b"u" * 200_000)
    await put(through.server, b"down")
    assert await get(through.client, 4) == b"down"
    assert len(await get(through.server, 500)) == 500
    rate.change(0)
    assert len(await get(through.server, 199_500)) == 199_500


async def test_what_was_held_counts_against_the_rate(make: MakeThrough) -> None:
    through = make(rate=Rate(20_000), held=(b"h" * 30_000, b""))
    began = time.monotonic()
    await put(through.client, b"more")
    assert len(await get(through.server, 30_004)) == 30_004
    assert time.monotonic() - began > 0.5


async def test_a_flow_cut_while_it_waits_in_line_leaves_the_line(make: MakeThrough) -> None:
    rate = Rate(1_000)
    first, second = make(rate=rate), make(rate=rate)
    for through in (first, second):
        await put(through.client, b"u" * 50_000)
    await until(lambda: len(rate.up._line) == 2, "nobody waits")
    await first.close()
    assert len(rate.up._line) == 1
    rate.change(0)
    assert len(await get(second.server, 50_000)) == 50_000


async def test_descriptors_are_back_where_they_were_however_it_ends(make: MakeThrough) -> None:
    async def one(end: Callable[[Through], Awaitable[None]]) -> None:
        through = make()
        await put(through.client, b"x")
        await get(through.server, 1)
        await end(through)
        await through.close()

    async def clean(through: Through) -> None:
        through.client.close()
        through.server.close()
        await through.done()

    async def reset(through: Through) -> None:
        abort(through.client)
        await through.done()

    async def cancelled(through: Through) -> None:
        through.task.cancel()

    await one(clean)  # the loop opens what it needs
    gc.collect()
    base = psutil.Process().num_fds()
    for end in (clean, reset, cancelled) * 10:
        await one(end)
    await until(lambda: psutil.Process().num_fds() <= base, "descriptors are left")


async def test_many_connections_keep_their_bytes_apart(make: MakeThrough) -> None:
    throughs = [make() for _ in range(40)]

    async def one(number: int, through: Through) -> None:
        said = bytes([number]) * 300_000
        sending = asyncio.gather(put(through.client, said), put(through.server, said[::-1]))
        up, down = await asyncio.gather(get(through.server, len(said)), get(through.client, len(said)))
        await sending
        assert set(up) == set(down) == {number}

    await asyncio.gather(*(one(number, through) for number, through in enumerate(throughs)))


def test_two_loops_in_two_threads_keep_their_bytes_apart() -> None:
    wrong: list[str] = []

    async def echo(number: int) -> None:
        (client, near), (far, server) = pair(), pair()
        task = asyncio.get_running_loop().create_task(splice(Conn(near), Conn(far), Flow()))
        for _ in range(200):
            await put(client, bytes([number]) * 50_000)
            if set(await get(server, 50_000)) != {number}:
                wrong.append("another thread's bytes")
        client.close()
        server.close()
        await task
        near.close()
        far.close()

    threads = [threading.Thread(target=lambda number=number: uvloop.run(echo(number))) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
