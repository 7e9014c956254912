"""A real FunctionHost, with its own zygote and workers, and a hand-written way out in place of the network."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from rootlink.engine.functions.host import FunctionHost, Run
from rootlink.errors import EgressBlocked
from rootlink.wire.mounts import FunctionSpec

SECRETS = {"API_KEY": "sk_live_0123456789", "REGION": "eu-central"}


@dataclass
class Asked:
    """One request as the way out was asked for it."""

    connection: str
    hosts: list[str] | None
    method: str
    url: str
    headers: Mapping[str, str]
    data: bytes | None
    follow: bool


@dataclass
class Answer:
    """What the network answers; enough of an aiohttp.ClientResponse for what reads it."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    url: str = "https://api.example/"
    reason: str = "OK"
    source: AsyncIterator[bytes] | None = None  # the body, as it comes; then `body` is not looked at

    @property
    def content(self) -> Answer:
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        if self.source is None:
            yield self.body
            return
        try:
            async for part in self.source:
                yield part
        finally:
            await self.source.aclose()  # type: ignore[attr-defined]

    def close(self) -> None:
        return None


Network = Callable[[Asked], Awaitable[Answer]]


class WayOut:
    """The port `operations.Outbound`: refuses evil.example, and asks `network` for the rest."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.network: Network = _empty

    def scope(self, connection: str, hosts: list[str] | None) -> WayOutScope:
        return WayOutScope(self, connection, hosts)


@dataclass
class WayOutScope:
    out: WayOut
    connection: str
    hosts: list[str] | None

    @asynccontextmanager
    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], data: bytes | None, timeout: float | None, follow: bool
    ) -> AsyncIterator[Any]:
        if "evil.example" in url:
            raise EgressBlocked("egress blocked: host 'evil.example' is not in this project's outbound allowlist")
        asked = Asked(self.connection, self.hosts, method, url, headers, data, follow)
        self.out.asked.append(asked)
        yield await self.out.network(asked)


async def _empty(asked: Asked) -> Answer:
    return Answer(url=asked.url)


@dataclass
class Stage:
    """What a test holds: the host, its way out and its database."""

    host: FunctionHost
    out: WayOut
    db: sqlite3.Connection

    async def deploy(self, code: str, name: str = "f", **spec: Any) -> str:
        await self.host.deploy("main", FunctionSpec(name=name, code=code, **spec))
        return name

    async def run(self, code: str, input: Any = None, **spec: Any) -> Run:
        """Deploy as `f` and invoke once."""
        return await self.host.invoke("main", await self.deploy(code, **spec), input)

    async def output(self, code: str, input: Any = None, **spec: Any) -> Any:
        run = await self.run(code, input, **spec)
        assert run.status == "ok", run.error
        return run.output

    async def error(self, code: str, input: Any = None, **spec: Any) -> dict[str, str]:
        run = await self.run(code, input, **spec)
        assert run.error is not None, run
        return run.error


def open_db(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    return db


def processes(of: psutil.Process | None = None) -> list[psutil.Process]:
    """Zygotes and workers below a process (ours unless given), zygotes first."""
    found = []
    for process in (of or psutil.Process()).children(recursive=True):
        try:
            if any("zygote.py" in part for part in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def end(victims: list[psutil.Process]) -> None:
    """Kill, and wait until they are gone."""
    for victim in victims:
        victim.kill()
    psutil.wait_procs(victims, timeout=10)
