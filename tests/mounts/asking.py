"""Clients and servers for what servers ask: a session client or a stateless one as a `Told`, the fixture servers as specs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any, TypeVar

import aiohttp
import msgspec
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Call, Heard
from rootlink.engine.mounts.mount import Mount
from rootlink.wire.mounts import MountSpec
from tests.harness.calls import Answer, Told
from tests.mounts.ground import SERVERS

ALL = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {"listChanged": True}}


class Standing:
    """A session client outside of any call. `open`: its standing stream is."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.open = True
        self.told: list[tuple[str, Any]] = []
        self.asked: list[tuple[str, Any]] = []
        self._answer = answer

    def tell(self, method: str, params: Raw) -> None:
        self.told.append((method, rpc.value(params)))

    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        self.asked.append((method, rpc.value(params)))
        if self._answer is None:
            raise rpc.RpcError(rpc.METHOD_NOT_FOUND, "nobody is there")
        return rpc.raw(self._answer(method, rpc.value(params)))


class Slowly(Told):
    """Answers when `go` is set; `withdrawn` counts questions that were taken back."""

    def __init__(self, **members: Any) -> None:
        super().__init__(**members)
        self.go, self.withdrawn = asyncio.Event(), 0

    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        self.asked.append((method, rpc.value(params)))
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.withdrawn += 1
            raise
        return rpc.raw({"action": "accept"})


Some = TypeVar("Some", bound=Told)


def as_client(told: Some, **members: Any) -> Some:
    """`told`, whose client is otherwise."""
    told.client = dataclasses.replace(told.client, **members)
    return told


def stateless(told: Some, **members: Any) -> Some:
    return as_client(told, stateless=True, version="2026-07-28", **members)


def asking(**members: Any) -> MountSpec:
    argv = ["-S", str(SERVERS / "asking.py")]
    return MountSpec(**{"name": "asking", "transport": "stdio", "command": "python", "args": argv, **members})


def asking_far(port: int, **members: Any) -> MountSpec:
    return MountSpec(**{"name": "asking", "transport": "http", "endpoint": f"http://127.0.0.1:{port}/mcp", **members})


def here(port: int) -> list[str]:
    return [f"127.0.0.1:{port}"]


async def control(port: int, **wanted: Any) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.post(f"http://127.0.0.1:{port}/control", json=wanted) as response:
        found: dict[str, Any] = await response.json()
        return found


async def use(mount: Mount, call: Call | None, tool: str, /, timeout: float = 10, **arguments: Any) -> Any:
    """What a tool of the fixtures answers, as `call`."""
    meta = {"_meta": {"progressToken": "theirs"}} if call is not None else {}
    raw = await mount.request("tools/call", {"name": tool, "arguments": arguments, **meta}, timeout=timeout, call=call)
    return json.loads(msgspec.json.decode(raw)["content"][0]["text"])
