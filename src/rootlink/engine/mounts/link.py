"""What a mount asks of its transport. Three forms keep this protocol: `stdio.py`, `http.py`, `sse.py`.

Rules
- A link lives once: open, then close. After its end every request fails with `UpstreamFailed` and words; it is never reopened.
- `on_closed` is called at most once, when the link ended without `close()` being asked; its words say how, for a person.
- Deadlines are the caller's (`asyncio.timeout`): a request whose task is cancelled tells the server so and is forgotten.
- `era` decides how a request is dressed (era.py); the transport only asks it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Raw

from rootlink.engine.calls import Call
from rootlink.engine.mounts.era import Era
from rootlink.engine.mounts.refusals import Refusals

MESSAGE_CAP = 4 << 20  # bytes of one message, whatever carries it


class Link(Protocol):
    era: Era
    on_notification: Callable[[str, Raw], None]
    on_closed: Callable[[str], None]

    @property
    def refusals(self) -> Refusals | None:
        """What the gate refused it, where a gate tells; what the engine itself refuses is an error of the request."""
        ...

    @property
    def modern_first(self) -> bool:
        """Whether the handshake tries the stateless era before the session one (MCP.md §1)."""
        ...

    async def open(self) -> None:
        """Raises UpstreamFailed, EgressBlocked."""
        ...

    async def request(self, method: str, params: Mapping[str, Any] | None = None, *, call: Call | None = None) -> Raw:
        """The result's bytes. Raises RpcError for an error answer, UpstreamFailed when there is none."""
        ...

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None: ...

    async def attend(self) -> None:
        """After a session-era handshake: begin to hear what the server says unasked, where that takes a stream of its own."""
        ...

    async def close(self) -> None:
        """End it and all that belongs to it; returns when nothing is left. Safe to repeat."""
        ...

    def last_words(self) -> str:
        """Why it may have failed: the end of its stderr, on one line; "" when there is none. Redacted."""
        ...

    def logs(self) -> list[str]: ...


def unheard(method: str, params: Raw) -> None:
    """The default of `on_notification`."""


def unminded(words: str) -> None:
    """The default of `on_closed`."""
