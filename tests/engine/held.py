"""A workspace of servers that are not there: `Mounted` answers from a table and keeps what it was asked, `Held` is a `Mounts`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Call, Client
from rootlink.engine.dispatch import Caller, Dispatch
from rootlink.engine.functions.host import FunctionHost
from rootlink.engine.mounts.listing import Catalogue
from rootlink.engine.mounts.mount import at_any_time
from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.own_tools import DEFINITIONS
from rootlink.engine.rpc import METHOD_NOT_FOUND, RpcError
from rootlink.engine.tokens import Tokens
from rootlink.engine.tools.control import Kept
from rootlink.engine.tools.guard import Guard, Owner
from rootlink.errors import NotFound
from rootlink.wire.tools import ToolRules
from tests.harness.calls import Told

Answer = Callable[[dict[str, Any], Call | None], Any]
ADA = Caller("main", "ada", frozenset({"use", "manage"}))
BOB = Caller("main", "bob", frozenset({"use"}))
TASKS = {"extensions": {"io.modelcontextprotocol/tasks": {}}}


class Mounted:
    """`answers`: method → what it answers, or a function of (params, call) that says so."""

    def __init__(self, name: str, answers: dict[str, Any] | None = None, *, ws: str = "main", **catalogue: Any) -> None:
        self.name, self.ws, self.catalogue = name, ws, Catalogue(**catalogue)
        self.listeners: list[Callable[[str, Raw], None]] = []
        self.variants: dict[str, Catalogue] = {}  # by client.key
        self.looked: list[str | None] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.subscribed: list[tuple[str, str]] = []
        self.timeouts: list[float | None] = []
        self._answers = answers or {}

    def lists(self, client: Client | None) -> Catalogue:
        self.looked.append(client and client.key)
        return self.variants.get(client.key, self.catalogue) if client is not None else self.catalogue

    async def request(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        call: Call | None = None,
        admit: Callable[[], None] = at_any_time,
    ) -> Raw:
        admit()
        self.asked.append((method, params or {}))
        self.timeouts.append(timeout)
        if method not in self._answers:
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method}", {"of": self.name})
        answer = self._answers[method]
        found = answer(params or {}, call) if callable(answer) else answer
        if isinstance(found, Exception):
            raise found
        return rpc.raw(await found if hasattr(found, "__await__") else found)

    async def subscribe(self, uri: str, client: Client) -> None:
        self.subscribed.append((uri, client.key))

    async def unsubscribe(self, uri: str, client: Client) -> None:
        self.subscribed.remove((uri, client.key))


class Held:
    def __init__(self, *mounts: Mounted) -> None:
        self.mounts = list(mounts)
        self.forgotten: list[str] = []

    def list(self, ws: str) -> list[Mounted]:
        return [mount for mount in self.mounts if mount.ws == ws]

    def get(self, ws: str, name: str) -> Mounted:
        for mount in self.list(ws):
            if mount.name == name:
                return mount
        raise NotFound(f"no server {name!r}")

    def forget_client(self, key: str) -> None:
        self.forgotten.append(key)


class NoFunctions:
    def list(self, ws: str) -> list[Any]:
        return []


class OwnDefinitions:
    definitions = DEFINITIONS

    async def call(self, caller: Caller, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": name}]}


def guarding(*mounts: Mounted, rules: ToolRules | None = None) -> Guard:
    """A guard that knows them and has agreed to nothing yet."""
    guard = Guard(lambda owner, kept: None, hidden)
    for mount in mounts:
        guard.hold(Owner(mount.ws, "mount", mount.name), Kept(rules or ToolRules()))
    return guard


def hidden(text: str) -> str:
    return text.replace("hunter2", "***")


def dispatch(*mounts: Mounted, tokens: Tokens | None = None, guard: Guard | None = None) -> Dispatch:
    held = cast("Mounts", Held(*mounts))
    functions = cast("FunctionHost", NoFunctions())
    return Dispatch(held, functions, OwnDefinitions(), hidden, guard or guarding(*mounts), tokens)


def session(key: str = "s", **more: Any) -> Told:
    return Told(key=key, **more)


def stateless(key: str = "m", capabilities: dict[str, Any] | None = None) -> Told:
    told = Told(key=key)
    told.client = Client(key, True, "2026-07-28", {"name": "told"}, TASKS if capabilities is None else capabilities)
    return told
