"""A canary that must stay silent, stand-ins that answer, and an `Outbound` whose names all lead to this machine."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
import uvloop
from aiohttp import web

from rootlink.egress.policy import Decision
from rootlink.engine.outbound import Direct, Outbound
from rootlink.wire.engine import EgressPolicy


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Engines run on uvloop, whose clock and sockets are its own."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


LOOPBACK = ["127.0.0.0/8", "::1/128"]


@dataclass
class Canary:
    """A listener on loopback, on IPv4 and IPv6 alike, that counts who comes."""

    port: int
    seen: int = 0


@dataclass
class Names:
    """A resolver by hand: what it was asked, and where each name leads (to loopback unless told; [] for an unknown name)."""

    leads: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        found = self.leads.get(host, ["127.0.0.1"])
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found


@dataclass
class Out:
    """An `Outbound`, and what it recorded."""

    outbound: Outbound
    names: Names
    decisions: list[tuple[str, Decision]]

    @property
    def reasons(self) -> list[str]:
        return [decision.reason for _, decision in self.decisions]


@dataclass
class StandIn:
    """An HTTP server of this machine. `paths` are the requests it saw, with their headers."""

    port: int
    seen: list[web.Request] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)


MakeOut = Callable[..., Out]
Serve = Callable[..., Awaitable[StandIn]]


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    found = Canary(0)

    def called(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.seen += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nchirp")
        writer.close()

    on_v4 = await asyncio.start_server(called, "127.0.0.1", 0)
    found.port = on_v4.sockets[0].getsockname()[1]
    on_v6 = await asyncio.start_server(called, "::1", found.port)
    async with on_v4, on_v6:
        yield found


@pytest.fixture
async def make_out() -> AsyncIterator[MakeOut]:
    made: list[Outbound] = []

    def make(
        allow: list[str], *, private: list[str] | None = None, resolve: list[str] | None = None, ca: Path | None = None
    ) -> Out:
        decisions: list[tuple[str, Decision]] = []
        names = Names()
        policy = EgressPolicy(
            allow=allow, private=LOOPBACK if private is None else private, resolve=resolve or [], extra_ca=str(ca) if ca else None
        )
        outbound = Outbound(policy, lambda connection, decision: decisions.append((connection, decision)), way=Direct(names))
        made.append(outbound)
        return Out(outbound, names, decisions)

    yield make
    for outbound in made:
        await outbound.close()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    runners: list[web.AppRunner] = []

    async def start(
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
        *,
        tls: trustme.CA | None = None,
        name: str = "api.example.com",
    ) -> StandIn:
        found = StandIn(0)

        async def handle(request: web.Request) -> web.StreamResponse:
            found.seen.append(request)
            found.connections.add(request.transport)
            return await handler(request)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=_server_context(tls, name))
        await site.start()
        found.port = runner.addresses[0][1]
        return found

    yield start
    for runner in runners:
        await runner.cleanup()


def _server_context(ca: trustme.CA | None, name: str) -> ssl.SSLContext | None:
    if ca is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path
