"""Whether a connection will work, before it is kept (`wire/checks.py`): the engine asks, behind the door of that connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Raw

from rootlink.engine.outbound import Outbound
from rootlink.wire.checks import Verdict
from rootlink.wire.mounts import Desired

Ask = Callable[[str, dict[str, Any]], Awaitable[Raw]]


class Checks:
    """`secrets` are the project's, as they are at the moment of a check."""

    def __init__(self, outbound: Outbound, secrets: Callable[[], Mapping[str, str]], redact: Callable[[str], str]) -> None:
        self._outbound, self._secrets, self._redact = outbound, secrets, redact

    async def before(self, desired: Desired, say: Callable[[str], None]) -> Verdict:
        """What needs no server of ours: HTTP and TCP. Raises what a check that must hold came to."""
        return Verdict()

    async def after(self, desired: Desired, ask: Ask, say: Callable[[str], None], found: Verdict) -> Verdict:
        """What asks the mounted server's tools, added to what was `found` before. Raises as `before`."""
        return found
