"""What a mount asks of its transport. Three forms keep this protocol: `stdio.py`, `http.py`, `sse.py`.

Rules
- A link lives once: open, then close. After its end every request fails with `UpstreamFailed` and words; it is never reopened.
- `on_closed` is called at most once, when the link ended without `close()` being asked; its words say how, for a person.
- Deadlines are the caller's (`asyncio.timeout`): a request whose task is cancelled tells the server so and is forgotten.
- `era` decides how a request is dressed (era.py); the transport only asks it.
- `owner`, set before `open`, is the one client a link is for: the greeting declares what it can do, and it is asked what the
  server asks. Without one the link is everybody's and declares nothing.
- `on_gap(anew)`: for a while nobody heard what the server said unasked; `anew`: its session is a new one, which knows nothing of
  what the old one was told (subscriptions, a log level). That lists may have changed is told as notifications besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Raw

from rootlink.engine.calls import Call, Client
from rootlink.engine.mounts.era import Era
from rootlink.engine.mounts.refusals import Refusals
from rootlink.errors import UpstreamFailed

MESSAGE_CAP = 4 << 20  # bytes of one message, whatever carries it
MAY_BE_REPEATED = {
    "retryable": True
}  # in an error's data: the link went while it was asked; whether the server did it is not known


class Ended(UpstreamFailed):
    """The process at the other end ended by itself; it was not ended for what it did."""


class Link(Protocol):
    era: Era
    on_notification: Callable[[str, Raw], None]
    on_closed: Callable[[str], None]
    on_gap: Callable[[bool], None]
    owner: Client | None

    @property
    def sessioned(self) -> bool:
        """Whether the server gave it a session id, so that it may keep state for each session."""
        ...

    @property
    def refusals(self) -> Refusals | None:
        """What the gate refused it, where a gate tells; what the engine itself refuses is an error of the request."""
        ...

    @property
    def modern_first(self) -> bool | None:
        """Whether the handshake tries the stateless era before the session one; None: it finds out (handshake.py)."""
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


def unminding(anew: bool) -> None:
    """The default of `on_gap`."""
