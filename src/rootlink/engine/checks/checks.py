"""All checks of a connection, one after the other, and what they come to.

Rules
- The first check that must hold and does not ends it; one that only warns becomes a note.
- The first label stands.
- A check made on the way to a server goes out as that server does: its own hosts, the same door.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from rootlink.engine.checks import http, tcp, tool
from rootlink.engine.checks.filling import Filling
from rootlink.engine.checks.found import Found
from rootlink.engine.checks.tool import Ask
from rootlink.engine.outbound import Outbound
from rootlink.errors import RootlinkError
from rootlink.wire.checks import Check, HttpCheck, TcpCheck, ToolCheck, Verdict
from rootlink.wire.mounts import Desired

Say = Callable[[str], None]


class Checks:
    """`secrets` are the project's, as they are at the moment of a check."""

    def __init__(self, outbound: Outbound, secrets: Callable[[], Mapping[str, str]], redact: Callable[[str], str]) -> None:
        self._outbound, self._secrets, self._redact = outbound, secrets, redact

    async def before(self, desired: Desired, say: Say) -> Verdict:
        """What needs no server of ours: HTTP and TCP. Raises what a check that must hold came to: Invalid for a key that is not
        good, UpstreamFailed, EgressBlocked or Unavailable where that could not be found out."""
        wants = desired.mount or desired.function
        scope = self._outbound.scope(desired.name, wants.egress if wants is not None else [])
        found = Verdict()
        for check in desired.checks:
            if isinstance(check, HttpCheck):
                say("checking the key with its service")
                found = await self._with(found, check, http.asked(check, scope, self._filling(), self._redact))
            elif isinstance(check, TcpCheck):
                say(f"looking whether anybody answers at port {check.port}")
                found = await self._with(found, check, tcp.asked(check, scope, self._filling(), self._redact))
        return found

    async def after(self, desired: Desired, ask: Ask, say: Say, found: Verdict) -> Verdict:
        """What asks the mounted server's tools, added to what was `found` before. Raises as `before`."""
        for check in desired.checks:
            if isinstance(check, ToolCheck):
                say(f"trying {check.tool}")
                found = await self._with(found, check, tool.asked(check, ask, self._filling(), self._redact))
        return found

    async def again(self, desired: Desired, ask: Ask) -> Verdict:
        """All of them, of what is there already. What does not hold is in the verdict; raises nothing of it."""
        try:
            return await self.after(desired, ask, _unsaid, await self.before(desired, _unsaid))
        except RootlinkError as error:
            return Verdict(error=self._redact(error.message), code=error.code)

    def _filling(self) -> Filling:
        return Filling(self._secrets())

    async def _with(self, so_far: Verdict, check: Check, asking: Awaitable[Found]) -> Verdict:
        try:
            found = await asking
        except RootlinkError as error:
            if check.severity == "error":
                raise
            found = Found(None, self._redact(error.message))
        notes = [*so_far.notes, *([found.note] if found.note else [])]
        return Verdict(so_far.label or found.label, notes)


def _unsaid(words: str) -> None:
    """Nobody follows."""
