"""Who wants to hear of which resource of one server, and the stateless era's way to hear of anything: `subscriptions/listen`.

    Watched     counts subscribers of a URI: the server is told of the first, and when the last is gone
    Listening   one long request, asked again when it ends, and in a new form when what is wanted changed

Rules
- A changed wish opens the new stream first and ends the old one when the new one is acknowledged: nothing falls in between.
- After an acknowledgement everything is read again only if nobody listened before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from msgspec import UNSET, Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Client, Heard
from rootlink.engine.mounts.clock import Clock
from rootlink.engine.mounts.era import CAPABILITIES, CLIENT, STATELESS_VERSIONS
from rootlink.engine.mounts.exchange import LISTEN
from rootlink.engine.mounts.link import Link
from rootlink.engine.mounts.listing import OF_KIND
from rootlink.engine.rpc import INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from rootlink.errors import RootlinkError

log = structlog.get_logger(__name__)
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
MOST_WATCHED = 1 << 20  # characters of all URIs
GATHER_SECONDS = 0.02  # subscriptions come in bursts
ACKNOWLEDGE_SECONDS = 5.0
SLOWEST, STEADY = 30.0, 30.0  # seconds: the longest pause; a stream that lasted so long was no failure
_OURS = Client("", True, STATELESS_VERSIONS[0], CLIENT, CAPABILITIES)


class Watched:
    """`full`: whether it is too much to watch one more URI; a server is told of all of them at once."""

    def __init__(self) -> None:
        self._keys: dict[str, set[str]] = {}
        self._size = 0

    def full(self, uri: str) -> bool:
        return uri not in self._keys and self._size + len(uri) > MOST_WATCHED

    def __contains__(self, uri: str) -> bool:
        return uri in self._keys

    def covers(self, uri: str) -> bool:
        """Whether somebody watches it, or what it is below."""
        return uri in self._keys or below(uri, self._keys)

    def uris(self) -> list[str]:
        return sorted(self._keys)

    def add(self, uri: str, key: str) -> None:
        if uri not in self._keys:
            self._keys[uri] = set()
            self._size += len(uri)
        self._keys[uri].add(key)

    def remove(self, uri: str, key: str) -> bool:
        """Whether that was the last one."""
        keys = self._keys.get(uri)
        if keys is None or key not in keys:
            return False
        keys.discard(key)
        if not keys:
            del self._keys[uri]
            self._size -= len(uri)
        return not keys

    def forget(self, key: str) -> list[str]:
        """The URIs that nobody watches any more."""
        return [uri for uri in self.uris() if self.remove(uri, key)]


def below(uri: str, heard: Iterable[str]) -> bool:
    """An update may name a sub-resource of what was subscribed to."""
    return any(uri.startswith(f"{one.rstrip('/')}/") for one in heard)


def updated_uri(params: Raw) -> str | None:
    """Which resource a notice is about."""
    uri = rpc.value(rpc.members(params).get("uri", UNSET))
    return uri if isinstance(uri, str) else None


def without_tag(params: Raw) -> Raw:
    """`params` without the id of a subscription of ours, which means nothing to a client."""
    if SUBSCRIPTION.encode() not in bytes(params):
        return params
    members = rpc.members(params)
    meta = rpc.members(members.get("_meta", UNSET))
    meta.pop(SUBSCRIPTION, None)
    kept = {name: value for name, value in members.items() if name != "_meta"}
    return rpc.raw({**kept, "_meta": meta} if meta else kept)


class _Stream:
    """One `subscriptions/listen`. As a `calls.Call` it is told every frame of its own."""

    client, level, progress, manages = _OURS, None, False, False

    def __init__(self, link: Link, wanted: dict[str, Any], heard: Callable[[_Stream, str, Raw], None]) -> None:
        self.wanted = wanted
        self.acknowledged = asyncio.Event()
        self._heard = heard
        self.task = asyncio.create_task(link.request(LISTEN, {"notifications": wanted}, call=self))
        self.task.add_done_callback(
            lambda task: task.cancelled() or task.exception()
        )  # a failure is looked at later, or not at all

    def tell(self, method: str, params: Raw) -> None:
        self._heard(self, method, params)

    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        raise RpcError(METHOD_NOT_FOUND, "Method not found: not offered by this client")

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Listening:
    """`told` gets what the server says. `missed(lists, uris)`: for a while nobody heard it; whether that goes for lists, and for
    which resources that were watched before."""

    def __init__(
        self,
        name: str,
        link: Link,
        capabilities: dict[str, Any],
        watched: Watched,
        clock: Clock,
        *,
        told: Callable[[str, Raw], None],
        missed: Callable[[bool, set[str]], None],
    ) -> None:
        self._name, self._link, self._watched, self._clock = name, link, watched, clock
        self._told, self._missed = told, missed
        self._lists = {f"{kind}ListChanged": True for kind in OF_KIND if _offers(capabilities, kind, "listChanged")}
        self._changed = asyncio.Event()
        self._current: _Stream | None = None  # whose frames count
        self._down = True  # nobody listens
        self._unheard = set(watched.uris())
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    def change(self) -> None:
        """What is watched changed."""
        self._changed.set()

    async def heard_of(self, uri: str) -> None:
        """Returns when a stream that names `uri` is acknowledged, or when that takes too long."""
        if self._current is not None and uri in self._current.wanted.get("resourceSubscriptions", ()):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting = [held for held in self._waiting if not held[1].done()] + [(uri, waiter)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                await waiter

    async def run(self) -> None:
        stream: _Stream | None = None
        delay = 1.0
        try:
            while True:
                if stream is None:
                    stream, began = await self._begun(), self._clock.now()
                await self._until_changed(stream)
                if stream.task.done():
                    useless = self._ended(stream)
                    stream = None
                    if useless:
                        await self._changed.wait()
                    delay = 1.0 if self._clock.now() - began > STEADY else delay
                    await self._clock.sleep(delay)
                    delay = min(delay * 2, SLOWEST)
                else:
                    stream = await self._replaced(stream)
        finally:
            if stream is not None:
                stream.task.cancel()

    async def _begun(self) -> _Stream:
        while not (wanted := self._wanted()):
            await self._changed.wait()
            self._changed.clear()
        return _Stream(self._link, wanted, self._heard)

    async def _until_changed(self, stream: _Stream) -> None:
        change = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({stream.task, change}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()

    async def _replaced(self, stream: _Stream) -> _Stream | None:
        """The stream that hears what is wanted now, `stream` itself if that did not change."""
        await asyncio.sleep(GATHER_SECONDS)
        self._changed.clear()
        wanted = self._wanted()
        if wanted == stream.wanted:
            return stream
        newer = _Stream(self._link, wanted, self._heard) if wanted else None
        try:
            if newer is not None:
                await self._acknowledged(newer)
        finally:
            await stream.end()
        self._current = newer
        self._down = self._down or newer is None
        return newer

    async def _acknowledged(self, stream: _Stream) -> None:
        told = asyncio.create_task(stream.acknowledged.wait())
        try:
            both = {stream.task, told}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED, timeout=ACKNOWLEDGE_SECONDS)
        except asyncio.CancelledError:
            stream.task.cancel()
            raise
        finally:
            told.cancel()

    def _wanted(self) -> dict[str, Any]:
        uris = self._watched.uris()
        return {**self._lists, **({"resourceSubscriptions": uris} if uris else {})}

    def _heard(self, stream: _Stream, method: str, params: Raw) -> None:
        if method == ACKNOWLEDGED:
            self._current = stream
            stream.acknowledged.set()
            self._let_go(stream)
            was_down, self._down = self._down, False
            unheard, self._unheard = self._unheard.intersection(self._watched.uris()), set()
            if was_down:
                self._missed(bool(self._lists), unheard)
        elif self._current is None or self._current is stream:
            self._told(method, params)

    def _let_go(self, stream: _Stream) -> None:
        named = set(stream.wanted.get("resourceSubscriptions", ()))
        for uri, waiter in self._waiting:
            if uri in named and not waiter.done():
                waiter.set_result(None)
        self._waiting = [(uri, waiter) for uri, waiter in self._waiting if not waiter.done()]

    def _ended(self, stream: _Stream) -> bool:
        """Whether asking again is of no use until something else is wanted."""
        self._down = True
        self._unheard.update(stream.wanted.get("resourceSubscriptions", ()))
        self._current = None if self._current is stream else self._current
        error = None if stream.task.cancelled() else stream.task.exception()
        if isinstance(error, RootlinkError):
            log.info("listen_ended", mount=self._name, why=error.message)
        return isinstance(error, RpcError) and error.code in (METHOD_NOT_FOUND, INVALID_PARAMS)


def _offers(capabilities: dict[str, Any], kind: str, what: str) -> bool:
    held = capabilities.get(kind)
    return isinstance(held, dict) and held.get(what) is True
