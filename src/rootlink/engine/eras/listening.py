"""`subscriptions/listen`, a stateless client's one way to hear of changes: acknowledged, then told until somebody hangs up.

Rules
- The acknowledgement is the first frame and names what is honoured; what changes while that is found out waits behind it.
- Every frame carries the listen request's id, as the client spelled it, in `_meta`; a server's own id there is replaced.
- Nothing is told that was not asked for. Each stream is a client of its own to servers, so its subscriptions end with it.
- The engine's end is not the subscription's: no closing result is sent, and the gateway, whose stream goes on, asks anew.
- What another extension may put in the filter is one entry in `watches`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from msgspec import UNSET, Raw
from starlette.types import Receive, Send

from rootlink.engine import rpc
from rootlink.engine.calls import Client
from rootlink.engine.changes import KINDS, METHODS, Changes
from rootlink.engine.dispatch import INVALID_PARAMS, Caller, Dispatch
from rootlink.engine.eras.frames import Id, Message
from rootlink.engine.eras.running import frame
from rootlink.engine.eras.stream import EventStream, event
from rootlink.engine.lease import Lease
from rootlink.engine.mounts.watched import below
from rootlink.engine.rpc import RpcError
from rootlink.errors import RootlinkError

SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
ACKNOWLEDGED, UPDATED = "notifications/subscriptions/acknowledged", "notifications/resources/updated"
RESOURCES = "resourceSubscriptions"
FILTERS = {kind: f"{kind}ListChanged" for kind in KINDS}
MAX_URIS, MAX_URI = 256, 8192
SUBSCRIBE_SECS = 5.0  # for each server; one that is slower is not honoured
LEAVE_SECS = 10.0

Tell = Callable[[str, Raw], bool]


@dataclass(slots=True)
class Watched:
    """`honoured` goes into the acknowledgement; `end` is awaited when the stream is over."""

    honoured: Any
    end: Callable[[], Awaitable[None]]


Watch = Callable[[Caller, Client, Any, Tell], Awaitable[Watched | None]]
"""(caller, client, what the filter says, tell). None: not honoured. Raises RpcError to refuse the whole request."""


class Listening:
    def __init__(self, dispatch: Dispatch, changes: Changes, lease: Lease) -> None:
        self._dispatch, self._changes, self._lease = dispatch, changes, lease
        self._streams: set[EventStream] = set()
        self.watches: dict[str, Watch] = {RESOURCES: self._resources}

    def __len__(self) -> int:
        return len(self._streams)

    async def serve(
        self, caller: Caller, client: Client, message: Message, receive: Receive, send: Send, *, again: bool = False
    ) -> None:
        """Returns when the stream is over. `again`: its client had it from an engine that is gone, and does not know; what may
        have changed meanwhile, which is everything it asked for, is told at once. Raises RpcError before it has begun."""
        wanted = message.get("params", {}).get("notifications")
        if not isinstance(wanted, dict):
            raise RpcError(INVALID_PARAMS, "subscriptions/listen needs `notifications`, an object")
        client = replace(client, key=f"{client.key}:{secrets.token_hex(8)}")
        listener = _Listener(message["id"])
        kinds = {kind for kind, member in FILTERS.items() if wanted.get(member) is True}
        watched: dict[str, Watched] = {}
        with self._changes.listen(caller.ws, lambda changed: listener.changed(changed & kinds)):
            try:
                for member, watch in self.watches.items():
                    one = await watch(caller, client, wanted[member], listener.tell) if member in wanted else None
                    if one is not None:
                        watched[member] = one
                honoured = {FILTERS[kind]: True for kind in KINDS if kind in kinds}
                listener.acknowledge({**honoured, **{member: one.honoured for member, one in watched.items()}})
                if again:
                    listener.changed(kinds)
                    for uri in watched[RESOURCES].honoured if RESOURCES in watched else ():
                        listener.tell(UPDATED, rpc.raw({"uri": uri}))
                await self._stream(listener.stream, receive, send)
            finally:
                await _leave(watched)
                self._dispatch.forget_client(client.key)

    async def _stream(self, stream: EventStream, receive: Receive, send: Send) -> None:
        self._streams.add(stream)
        try:
            with self._lease.stream():
                await stream.serve(receive, send)
        finally:
            self._streams.discard(stream)

    async def _resources(self, caller: Caller, client: Client, uris: Any, tell: Tell) -> Watched | None:
        if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
            raise RpcError(INVALID_PARAMS, "resourceSubscriptions must be a list of URIs")
        heard = dict.fromkeys(uris)
        if len(heard) > MAX_URIS:
            raise RpcError(INVALID_PARAMS, f"resourceSubscriptions: at most {MAX_URIS} URIs a stream; open another one for more")
        if any(len(uri) > MAX_URI for uri in heard):
            raise RpcError(INVALID_PARAMS, f"resourceSubscriptions: a URI has at most {MAX_URI} characters")

        def updated(ws: str, uri: str, params: Raw, key: str | None) -> None:
            if ws == caller.ws and key in (None, client.key) and (uri in heard or below(uri, heard)):
                tell(UPDATED, params)

        async def end() -> None:
            self._changes.on_updated.remove(updated)
            await asyncio.gather(*(self._unsubscribe(caller, uri, client) for uri in heard))

        self._changes.on_updated.append(updated)
        try:
            honoured = await asyncio.gather(*(self._subscribe(caller, uri, client) for uri in tuple(heard)))
        except BaseException:
            self._changes.on_updated.remove(updated)
            raise
        for uri, ok in zip(tuple(heard), honoured, strict=True):
            if not ok:
                del heard[uri]
        return Watched(list(heard), end)

    async def _subscribe(self, caller: Caller, uri: str, client: Client) -> bool:
        try:
            async with asyncio.timeout(SUBSCRIBE_SECS):
                await self._dispatch.subscribe(caller, uri, client)
        except (RpcError, RootlinkError, TimeoutError):
            return False
        return True

    async def _unsubscribe(self, caller: Caller, uri: str, client: Client) -> None:
        with suppress(RpcError, RootlinkError):
            await self._dispatch.unsubscribe(caller, uri, client)

    def close_all(self) -> None:
        for stream in tuple(self._streams):
            stream.end()


class _Listener:
    """One stream's frames: kept until it is acknowledged, then pushed."""

    def __init__(self, id: Id) -> None:
        self.stream = EventStream()
        self._id = rpc.raw(id)
        self._early: list[bytes] | None = []

    def acknowledge(self, honoured: dict[str, Any]) -> None:
        early, self._early = self._early or [], None
        self.tell(ACKNOWLEDGED, rpc.raw({"notifications": honoured}))
        for data in early:
            self.stream.push(data)

    def tell(self, method: str, params: Raw) -> bool:
        members = rpc.members(params)
        meta = {**rpc.members(members.get("_meta", UNSET)), SUBSCRIPTION: self._id}
        data = event(frame(method, rpc.raw({**members, "_meta": meta})))
        if self._early is None:
            return self.stream.push(data)
        self._early.append(data)
        return True

    def changed(self, kinds: set[str]) -> bool:
        heard = [self.tell(METHODS[kind], Raw(b"{}")) for kind in sorted(kinds)]
        return bool(heard) and all(heard)


async def _leave(watched: dict[str, Watched]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LEAVE_SECS):
            await asyncio.gather(*(one.end() for one in watched.values()))
