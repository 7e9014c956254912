"""Stateless POSTs by hand: a dispatch that does what a test says, and one request with what it was answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import msgspec
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Call, Client
from rootlink.engine.changes import Changes
from rootlink.engine.dispatch import Caller
from rootlink.engine.eras.stateless import Stateless
from rootlink.engine.lease import Lease
from rootlink.engine.rpc import RpcError
from rootlink.engine.tokens import Tokens

ALICE, BOB = (Caller("main", name, frozenset({"use"})) for name in ("alice", "bob"))
META = "io.modelcontextprotocol/"
ALL = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
ACCEPT = "application/json, text/event-stream"
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri", "tasks/update": "taskId"}

Handle = Callable[[str, dict[str, Any], Call], Awaitable[Any]]


async def nothing(method: str, params: dict[str, Any], call: Call) -> Any:
    return {"content": []}


class Port:
    """In the place of Dispatch. `handle` gives a result (any JSON value, or Raw); `refused` URIs can't be subscribed to."""

    def __init__(self, handle: Handle = nothing) -> None:
        self.act = handle
        self.handled: list[tuple[str, dict[str, Any]]] = []
        self.calls: list[Call] = []
        self.cancelled = asyncio.Event()
        self.mirrored: dict[str, dict[tuple[str, ...], str]] = {}
        self.refused: set[str] = set()
        self.subscribed: list[tuple[str, str]] = []
        self.forgotten: list[str] = []

    async def handle(self, caller: Caller, method: str, params: dict[str, Any], call: Call) -> Raw:
        self.handled.append((method, params))
        self.calls.append(call)
        try:
            result = await self.act(method, params, call)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return result if isinstance(result, Raw) else rpc.raw(result)

    def view(self, ws: str, client: Client | None = None) -> Any:
        return SimpleNamespace(mirrored=self.mirrored, instructions="be kind")

    def capabilities(self, ws: str, client: Client | None = None) -> dict[str, Any]:
        return {"tools": {"listChanged": True}}

    async def subscribe(self, caller: Caller, uri: str, client: Client) -> None:
        if uri in self.refused:
            raise RpcError(-32002, "no such resource")
        self.subscribed.append((uri, client.key))

    async def unsubscribe(self, caller: Caller, uri: str, client: Client) -> None:
        self.subscribed.remove((uri, client.key))

    def forget_client(self, key: str) -> None:
        self.forgotten.append(key)


class Era(Stateless):
    """One engine's, with its parts at hand. `tokens` of another one: this engine restarted."""

    def __init__(self, port: Port, tokens: Tokens | None = None) -> None:
        self.changes, self.lease = Changes(), Lease(time.monotonic)
        self.tokens = tokens or Tokens(b"k" * 32)
        super().__init__(port, self.changes, self.lease, self.tokens)  # type: ignore[arg-type]

    async def post(self, method: str, params: dict[str, Any] | None = None, **options: Any) -> Post:
        """One POST and its whole answer."""
        post = Post(method, params, **options)
        async with asyncio.timeout(10):
            await self.serve(post.caller, post.headers, post.message, post.receive, post.send)
        return post

    def begin(self, method: str, params: dict[str, Any] | None = None, **options: Any) -> Post:
        post = Post(method, params, **options)
        post.task = asyncio.create_task(self.serve(post.caller, post.headers, post.message, post.receive, post.send))
        return post


class Post:
    def __init__(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        caller: Caller = ALICE,
        capabilities: Any = None,
        level: str | None = None,
        accept: str = ACCEPT,
        headers: dict[str, str] | None = None,
        meta: dict[str, Any] | None = None,
        id: int | str = 1,
    ) -> None:
        said = {f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": capabilities or {}, **(meta or {})}
        if level is not None:
            said[f"{META}logLevel"] = level
        self.caller = caller
        self.message = {"jsonrpc": "2.0", "id": id, "method": method, "params": {**(params or {}), "_meta": said}}
        self.headers = {"accept": accept, "mcp-protocol-version": "2026-07-28", "mcp-method": method}
        if named := NAMED.get(method):
            self.headers["mcp-name"] = str((params or {}).get(named))
        self.headers.update(headers or {})
        self.task: asyncio.Task[None]
        self._sent: list[dict[str, Any]] = []
        self._gone, self._more = asyncio.Event(), asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self._sent.append(message)
        self._more.set()

    def leave(self) -> None:
        self._gone.set()

    @property
    def status(self) -> int:
        return int(self._sent[0]["status"])

    @property
    def streams(self) -> bool:
        return (b"content-type", b"text/event-stream") in self._sent[0]["headers"]

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self._sent[1:])

    @property
    def frames(self) -> list[Any]:
        """The messages of a stream, as far as they have come."""
        lines = self.body.split(b"\r\n")
        return [msgspec.json.decode(line[6:]) for line in lines if line.startswith(b"data: ")]

    @property
    def answer(self) -> Any:
        return self.frames[-1] if self.streams else msgspec.json.decode(self.body)

    @property
    def result(self) -> Any:
        assert "result" in self.answer, self.answer
        return self.answer["result"]

    @property
    def error(self) -> Any:
        assert "error" in self.answer, self.answer
        return self.answer["error"]

    async def framed(self, count: int) -> list[Any]:
        """Once that many messages have come."""
        async with asyncio.timeout(10):
            while not self._sent or len(self.frames) < count:
                self._more.clear()
                await self._more.wait()
        return self.frames

    async def done(self) -> Post:
        async with asyncio.timeout(10):
            await self.task
        return self
