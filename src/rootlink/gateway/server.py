"""Serving the gateway: uvicorn on httptools and uvloop, with the protocol of `protocol.py`. Never h11, which answers a request
with both Content-Length and Transfer-Encoding twice.

A shutdown takes at most `GRACE_SECS`: open streams are ended first (their clients come again), calls may finish, the rest is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import uvicorn

from rootlink.errors import Unavailable
from rootlink.gateway.app import Gateway
from rootlink.gateway.crowd import Crowd
from rootlink.gateway.protocol import GatewayProtocol

GRACE_SECS = 5
KEEP_ALIVE_SECS = 75
BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A bound TCP socket; port 0 picks a free one (`getsockname()` tells which). Raises `Unavailable`."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise Unavailable(f"{host!r} is no address of this machine: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)  # so that a client that comes before `serve` waits instead of being refused
    except OSError as error:
        sock.close()
        why = f"{host}:{port} can't be listened on: {error.strerror}"
        raise Unavailable(f"{why}; is another Rootlink running? (--port N)") from None
    sock.setblocking(False)
    return sock


def url_of(sock: socket.socket, scheme: str = "http") -> str:
    """How a client on this machine reaches a socket of `listen`; one bound to every address is reached at loopback."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def serve(gateway: Gateway, sock: socket.socket, *, stop: asyncio.Event, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until `stop` is set. `ready` is called once requests are answered. Signals are the caller's to catch."""
    config = uvicorn.Config(
        gateway,
        http=cast(Any, partial(GatewayProtocol, crowd=Crowd(gateway.plane.settings.connections))),  # called like the class
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECS,
        timeout_graceful_shutdown=GRACE_SECS,
    )
    server = _Server(config, ready)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    ending = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
        gateway.end_streams()
        server.should_exit = True
        await serving
    finally:
        ending.cancel()
        if not serving.done():
            serving.cancel()
        await asyncio.gather(serving, ending, return_exceptions=True)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the program's business, not the server's."""
        yield
