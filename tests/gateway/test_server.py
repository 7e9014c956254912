"""Listening, and ending."""

from __future__ import annotations

import asyncio
import socket

import pytest

from rootlink.errors import Unavailable
from rootlink.gateway.server import listen, url_of
from tests.gateway.conftest import Instance, until


def test_port_zero_picks_a_free_one_and_says_which() -> None:
    with listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        assert port > 0
        assert url_of(sock) == f"http://127.0.0.1:{port}"
        assert url_of(sock, "https") == f"https://127.0.0.1:{port}"


def test_a_socket_on_every_address_is_reached_at_loopback() -> None:
    with listen("0.0.0.0", 0) as sock:
        assert url_of(sock).startswith("http://127.0.0.1:")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_an_ipv6_address_is_written_as_urls_want_it() -> None:
    try:
        sock = listen("::1", 0)
    except Unavailable:
        pytest.skip("no IPv6 loopback")
    with sock:
        assert url_of(sock).startswith("http://[::1]:")


def test_a_taken_port_is_said_so() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(Unavailable, match="can't be listened on"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_an_address_of_nobody_is_said_so() -> None:
    with pytest.raises(Unavailable):
        listen("no.such.host.invalid", 0)


async def test_an_idle_connection_does_not_hold_up_the_end(instance: Instance) -> None:
    assert instance.stop is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", instance.port)
    writer.write(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    instance.stop.set()
    await asyncio.wait_for(reader.read(), 2)
    writer.close()


async def test_a_call_under_way_may_finish(instance: Instance) -> None:
    engine = instance.engine
    engine.act = engine.events(b"")
    assert instance.stop is not None
    finished = asyncio.create_task(instance.data("GET", "/livez"))
    await asyncio.sleep(0)
    assert (await finished) == {"status": "alive"}
    instance.stop.set()
    await until(lambda: not _listened_on(instance.port), within=5)


def _listened_on(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
