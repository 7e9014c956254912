"""Who wants to know that a list changed: every session with an open stream, every `subscriptions/listen`.

A mount, an unmount, a deploy or a mounted server's own notice becomes one `publish(ws, kinds)`; each listener turns it into the
frames of its era. Publishing costs nothing when nobody listens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Protocol

from msgspec import Raw

from rootlink.engine import rpc

KINDS = ("tools", "prompts", "resources")
METHODS = {kind: f"notifications/{kind}/list_changed" for kind in KINDS}


class Listener(Protocol):
    def __call__(self, kinds: set[str], /) -> bool:
        """Deliver; True when somebody is there to read it."""
        ...


Updated = Callable[[str, str, Raw, str | None], None]
"""(ws, uri, params, key): a resource somebody subscribed to changed; `key`: the one client it is for, None: every subscriber."""


class Changes:
    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {}
        self.before: Callable[[str], None] = lambda ws: None
        self.sessions: Callable[[str, set[str]], int] = lambda ws, kinds: 0
        self.on_updated: list[Updated] = []
        self.aliases: Callable[[str, str], Collection[str]] = lambda ws, uri: ()

    @contextmanager
    def listen(self, ws: str, listener: Listener) -> Iterator[None]:
        listeners = self._listeners.setdefault(ws, [])
        listeners.append(listener)
        try:
            yield
        finally:
            listeners.remove(listener)
            if not listeners and self._listeners.get(ws) is listeners:
                del self._listeners[ws]

    def publish(self, ws: str, kinds: set[str]) -> int:
        """Tell everybody in `ws`; answers how many heard it. `before` drops what was cached of the old lists."""
        self.before(ws)
        heard = sum(1 for listener in tuple(self._listeners.get(ws, ())) if listener(kinds))
        return heard + self.sessions(ws, kinds)

    def updated(self, ws: str, uri: str, params: Raw, key: str | None) -> None:
        """Tell who subscribed to `uri`, and who did so under an alias of it (aliases.py)."""
        for tell in self.on_updated:
            tell(ws, uri, params, key)
            for alias in self.aliases(ws, uri):
                tell(ws, alias, rpc.raw({**rpc.members(params), "uri": alias}), key)
