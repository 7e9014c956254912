"""A session client on a real socket, and the endpoint it talks to: `eras/` over a dispatch that is a script.

Scripted   implements what `eras/` need of Dispatch; `tools[name]` is a coroutine function (call, arguments) -> result
Served     uvicorn with one McpEndpoint on loopback; `restart()` is another life of the engine with the same file
Client     one session; `Events` reads one stream
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvicorn
from msgspec import Raw
from uvicorn.server import ServerState

from rootlink.engine import rpc
from rootlink.engine.calls import Call
from rootlink.engine.calls import Client as Known
from rootlink.engine.changes import Changes
from rootlink.engine.dispatch import Caller
from rootlink.engine.eras.endpoint import McpEndpoint
from rootlink.engine.lease import Lease
from rootlink.engine.rpc import RpcError
from rootlink.engine.state import State
from rootlink.http_server import ServerProtocol

WAIT = 10.0
DRAIN_SECS = 0.5
BOTH = "application/json, text/event-stream"
Tool = Callable[[Call, dict[str, Any]], Awaitable[Any]]


class _View:
    instructions = "Read me first."


@dataclass
class Scripted:
    tools: dict[str, Tool] = field(default_factory=dict)
    happened: list[tuple[Any, ...]] = field(default_factory=list)
    clients: list[Known] = field(default_factory=list)
    deaf: int = 0  # how many subscriptions fail first

    def capabilities(self, ws: str, client: Known) -> dict[str, Any]:
        return {"tools": {"listChanged": True}, "of": sorted(client.capabilities)}

    def view(self, ws: str, client: Known | None = None) -> _View:
        return _View()

    async def handle(self, caller: Caller, method: str, params: dict[str, Any], call: Call | None = None) -> Raw:
        if method == "tools/list":
            return rpc.raw({"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in self.tools]})
        if method != "tools/call" or call is None:
            raise RpcError(-32601, f"Method not found: {method}")
        self.clients.append(call.client)
        return rpc.raw(await self.tools[params["name"]](call, params.get("arguments", {})))

    async def subscribe(self, caller: Caller, uri: object, client: Known) -> None:
        if self.deaf:
            self.deaf -= 1
            raise RpcError(-32603, "not up yet")
        if uri == "no:such":
            raise RpcError(-32002, "Resource not found: no:such")
        self.happened.append(("subscribe", client.key, uri))

    async def unsubscribe(self, caller: Caller, uri: object, client: Known) -> None:
        self.happened.append(("unsubscribe", client.key, uri))

    def level(self, caller: Caller, client: Known, level: str) -> None:
        self.happened.append(("level", client.key, level))

    def told(self, caller: Caller, client: Known, method: str, params: Raw) -> None:
        self.happened.append(("told", client.key, method, rpc.value(params)))

    def forget_client(self, key: str) -> None:
        self.happened.append(("forgotten", key))

    async def until(self, *happened: Any) -> None:
        await until(lambda: happened in self.happened)


async def until(so: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT):
        while not so():
            await asyncio.sleep(0.005)


class Served:
    def __init__(self, dispatch: Scripted, path: Path) -> None:
        self.dispatch, self._path = dispatch, path
        self.url = ""
        self.opened: list[Events] = []  # by its clients, and closed at the end

    async def start(self) -> None:
        self.state, self.changes = State(self._path), Changes()
        self.lease = Lease(time.monotonic)
        self.endpoint = McpEndpoint(self.dispatch, self.state, self.changes, self.lease)  # type: ignore[arg-type]
        config = uvicorn.Config(self, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
        config.load()
        self._uvicorn = ServerState()
        self._listening = await asyncio.get_running_loop().create_server(
            lambda: ServerProtocol(config=config, server_state=self._uvicorn, app_state={}), "127.0.0.1", 0
        )
        self.url = f"http://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}/mcp"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with self.lease.call():
            await self.endpoint(scope, receive, send)

    async def stop(self) -> None:
        """As the engine does: what is under way may finish for a while, and is cancelled then."""
        self.endpoint.close()
        self._listening.close()
        for connection in tuple(self._uvicorn.connections):
            connection.shutdown()
        tasks = set(self._uvicorn.tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=DRAIN_SECS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for connection in tuple(self._uvicorn.connections):
            connection.shutdown()
        self.state.close()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    @property
    def sessions(self) -> Any:
        return self.endpoint.sessions


@asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    one = Served(Scripted(), tmp_path / "engine" / "state.db")
    await one.start()
    try:
        yield one
    finally:
        for events in one.opened:
            events.close()
        await one.stop()


@dataclass
class Event:
    id: str | None = None
    name: str | None = None
    data: str | None = None
    retry: int | None = None

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.data or "null")


class Events:
    """One stream. Comments are left out, as a client does."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> Event | None:
        """None at the end."""
        found = Event()
        async with asyncio.timeout(WAIT):
            while line := await self.response.content.readline():
                name, _, value = line.decode().rstrip("\r\n").partition(": ")
                if not name and found != Event():
                    return found
                match name:
                    case "id":
                        found.id = value
                    case "event":
                        found.name = value
                    case "data":
                        found.data = value
                    case "retry":
                        found.retry = int(value)
        return None

    async def message(self) -> Any:
        """The next event with data, as JSON; None at the end."""
        while (event := await self.next()) is not None:
            if event.data:
                return event.json
        return None

    async def rest(self) -> list[Any]:
        found = []
        while (message := await self.message()) is not None:
            found.append(message)
        return found

    def close(self) -> None:
        """As a connection that broke."""
        self.response.close()


@dataclass
class Client:
    """`principal` is the project key's id, which the gateway would say."""

    served: Served
    http: aiohttp.ClientSession
    version: str = "2025-11-25"
    principal: str = "key_1"
    id: str = ""
    started: Any = None
    accept: str = BOTH
    next_id: int = 0

    def headers(self, **more: str) -> dict[str, str]:
        known = {"x-rootlink-principal": self.principal, "accept": self.accept, "mcp-protocol-version": self.version}
        if self.id:
            known["mcp-session-id"] = self.id
        return {name: value for name, value in {**known, **more}.items() if value}

    async def send(self, body: Any, **headers: str) -> aiohttp.ClientResponse:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        given = self.headers(**{"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}})
        skip = () if "content-type" in given else ("Content-Type",)
        return await self.http.post(self.served.url, data=data, headers=given, skip_auto_headers=("Accept", *skip))

    async def initialize(self, capabilities: dict[str, Any] | None = None) -> Client:
        params = {
            "protocolVersion": self.version,
            "capabilities": capabilities or {},
            "clientInfo": {"name": "t", "version": "1"},
        }
        answer = await self.send({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        assert answer.status == 200, await answer.text()
        self.id, self.started = answer.headers["mcp-session-id"], (await answer.json())["result"]
        self.version = self.started["protocolVersion"]
        assert (await self.notify("notifications/initialized")).status == 202
        return self

    def request(self, method: str, params: dict[str, Any] | None = None, id: int | str | None = None) -> dict[str, Any]:
        self.next_id += 1
        return {"jsonrpc": "2.0", "id": self.next_id if id is None else id, "method": method, "params": params or {}}

    async def post(self, method: str, params: dict[str, Any] | None = None, id: int | str | None = None, **headers: str) -> Any:
        """Answered with one JSON body."""
        answer = await self.send(self.request(method, params, id), **headers)
        assert answer.content_type == "application/json", (answer.status, answer.content_type)
        return await answer.json()

    async def call(self, name: str, id: int | str | None = None, *, token: int | str | None = None) -> aiohttp.ClientResponse:
        meta = {"_meta": {"progressToken": token}} if token is not None else {}
        return await self.send(self.request("tools/call", {"name": name, "arguments": {}, **meta}, id))

    async def stream(self, name: str, id: int | str | None = None, *, token: int | str | None = None) -> Events:
        """A call that is answered with a stream."""
        answer = await self.call(name, id, token=token)
        assert answer.content_type == "text/event-stream", await answer.text()
        return self._opened(answer)

    async def notify(self, method: str, params: dict[str, Any] | None = None) -> aiohttp.ClientResponse:
        return await self.send({"jsonrpc": "2.0", "method": method, "params": params or {}})

    async def reply(self, id: Any, **outcome: Any) -> int:
        return (await self.send({"jsonrpc": "2.0", "id": id, **outcome})).status

    async def get(self, last: str | None = None, **headers: str) -> aiohttp.ClientResponse:
        more = {"last-event-id": last} if last else {}
        return await self.http.get(self.served.url, headers=self.headers(**{"accept": "text/event-stream", **more, **headers}))

    async def listen(self, last: str | None = None) -> Events:
        answer = await self.get(last)
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        return self._opened(answer)

    def _opened(self, answer: aiohttp.ClientResponse) -> Events:
        events = Events(answer)
        self.served.opened.append(events)
        return events

    async def delete(self) -> int:
        return (await self.http.delete(self.served.url, headers=self.headers())).status
