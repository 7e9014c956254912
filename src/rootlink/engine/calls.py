"""Who asks, and what it can be told and asked while its request runs: the port between clients (`eras/`) and servers (`mounts/`).

    eras/ make a Call for each request ──► Dispatch.handle ──► Mount.request ──► Link      tell, ask ──► the client

Rules
- A server is shown the capabilities of the client that really asks, never a union of several: a server that offers what no client
  behind it can do breaks (MCP.md §5).
- What has no client (REST, the engine's own lists) has no Call: nobody can be told or asked.
- `tell` never waits and never raises; what nobody reads is dropped. `ask` waits for a person, perhaps for minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from msgspec import Raw

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")  # RFC 5424, as MCP names them


Heard = Callable[[Raw], None]
"""Who asked is told the params of the client's `notifications/progress` about the question, without a token."""


class Standing(Protocol):
    """A session client outside of any call: its standing stream, or the stream of a call of its that is open."""

    @property
    def open(self) -> bool:
        """Whether its standing stream is read."""
        ...

    def tell(self, method: str, params: Raw) -> None: ...
    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        """The result object's bytes. Raises RpcError, also when nobody is there to be asked."""
        ...


@dataclass(frozen=True, slots=True)
class Client:
    """One client, as servers may know it. `key` is equal for requests that may share a server's session: a session's id, or a
    digest of principal, workspace, info and capabilities. `version` is the revision it speaks."""

    key: str
    stateless: bool
    version: str
    info: dict[str, Any]
    capabilities: dict[str, Any]
    standing: Standing | None = field(default=None, compare=False)


class Call(Protocol):
    """One request while it runs."""

    @property
    def client(self) -> Client: ...

    @property
    def level(self) -> str | None:
        """The least log level asked for; None: the client asked for none."""
        ...

    @property
    def progress(self) -> bool:
        """Whether it wants to hear of progress."""
        ...

    @property
    def manages(self) -> bool:
        """Whether its key may change what is installed: only then is it handed what decides whose account is used."""
        ...

    def tell(self, method: str, params: Raw) -> None:
        """A notification that belongs to this request. Of progress, `params` come without a token: the client's own is put in."""
        ...

    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        """A server's question to the client: the result object's bytes. Raises RpcError. A cancelled `ask` is withdrawn."""
        ...


class Through:
    """A call as it is, for who changes one thing of it: subclasses say which. Implements `Call`."""

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def client(self) -> Client:
        return self._call.client

    @property
    def level(self) -> str | None:
        return self._call.level

    @property
    def progress(self) -> bool:
        return self._call.progress

    @property
    def manages(self) -> bool:
        return self._call.manages

    def tell(self, method: str, params: Raw) -> None:
        self._call.tell(method, params)

    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        return await self._call.ask(method, params, heard)


def knows(level: str | None, of: object) -> bool:
    """Whether a message of level `of` is to be told to who asked for `level`. A level nobody knows is told."""
    return level is None or of not in LEVELS or LEVELS.index(str(of)) >= LEVELS.index(level)
