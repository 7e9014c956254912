"""A whole gateway on a free port, with a real store and a real sealer, and fakes at its two ports."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from rootlink import catalog
from rootlink.console import app as console
from rootlink.gateway.app import Gateway, build
from rootlink.gateway.provisioner import ProvisionerClient
from rootlink.gateway.server import listen, serve, url_of
from rootlink.gateway.settings import GatewaySettings
from rootlink.sealing import unseal
from rootlink.sealing.seal import Sealer
from rootlink.sealing.unseal import Unsealer
from rootlink.store import Store
from tests.gateway.fakes import FakeEngine, FakeProvisioner

ADMIN = "adm_" + "a" * 60


@dataclass
class Instance:
    """A running gateway and what stands around it."""

    url: str
    port: int
    store: Store
    unsealer: Unsealer
    provisioner: FakeProvisioner
    gateway: Gateway
    http: aiohttp.ClientSession
    project: str = ""
    key: str = ""
    stop: asyncio.Event | None = None

    @property
    def engine(self) -> FakeEngine:
        return self.provisioner.of(self.project)

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    async def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = ADMIN, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Status and envelope."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        async with self.http.request(method, self.url + path, json=body, headers=sent, allow_redirects=False) as response:
            return response.status, await response.json()

    async def data(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        status, answer = await self.call(method, path, body, **headers)
        assert status < 300, answer
        assert answer["ok"] is True
        assert answer["error"] is None
        return answer["data"]

    async def refused(
        self, method: str, path: str, body: Any = None, *, token: str | None = ADMIN, **headers: str
    ) -> tuple[int, str, str]:
        """Status, code and message."""
        status, answer = await self.call(method, path, body, token=token, **headers)
        assert answer["ok"] is False
        assert answer["data"] is None
        return status, answer["error"]["code"], answer["error"]["message"]

    async def mcp(self, path: str = "/mcp", *, id: Any = 1) -> tuple[int, Any]:
        body = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {}}
        async with self.http.post(self.url + path, json=body, headers=self.bearer) as response:
            return response.status, await response.json()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a path short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="rl-", dir="/tmp") as folder:
        yield Path(folder)


Start = Callable[..., Any]


@pytest.fixture
async def start(short: Path) -> AsyncIterator[Start]:
    """Starts gateways with other settings than the default ones; all end with the test."""
    async with AsyncExitStack() as stack:

        async def begin(**settings: Any) -> Instance:
            return await stack.enter_async_context(_instance(short, **settings))

        yield begin


@pytest.fixture
async def instance(start: Start) -> Instance:
    """A gateway with one project and a key for it."""
    started: Instance = await start()
    return started


@asynccontextmanager
async def _instance(folder: Path, **changed: Any) -> AsyncIterator[Instance]:
    store = Store.open(f"sqlite:///{folder}/rootlink.db")
    private, public = unseal.generate()
    sock = listen("127.0.0.1", 0)
    url = url_of(sock)
    settings = GatewaySettings(**{"admin_token": ADMIN, "public_url": url, "guess_burst": 1e6, **changed})
    async with FakeProvisioner(folder, store).running() as provisioner, aiohttp.ClientSession() as http:
        client = ProvisionerClient(str(provisioner.socket))
        gateway = build(store, Sealer(public), catalog.load(), client, settings, console=console.build())
        stop, ready = asyncio.Event(), asyncio.Event()
        serving = asyncio.create_task(serve(gateway, sock, stop=stop, ready=ready.set))
        await asyncio.wait_for(ready.wait(), 10)
        instance = Instance(url, int(url.rsplit(":", 1)[1]), store, Unsealer(private), provisioner, gateway, http, stop=stop)
        try:
            instance.project = (await instance.data("POST", "/v1/projects", {"name": "default"}))["id"]
            instance.key = (await instance.data("POST", "/v1/projects/default/keys", {"name": "test"}))["key"]
            await provisioner.spawn(instance.project)
            yield instance
        finally:
            stop.set()
            await http.close()
            await asyncio.wait_for(serving, 15)
    store.close()


async def until(true: Callable[[], bool], within: float = 15.0) -> None:
    """Poll `true` until it holds. Fails after `within` seconds."""
    deadline = asyncio.get_running_loop().time() + within
    while not true():
        assert asyncio.get_running_loop().time() < deadline, "it did not become true in time"
        await asyncio.sleep(0.01)
