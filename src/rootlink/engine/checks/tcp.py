"""Whether anybody answers at a host and port that a person gave, dialled as the connection's server will be."""

from __future__ import annotations

from collections.abc import Callable

from rootlink.engine.checks import answers
from rootlink.engine.checks.filling import Filling
from rootlink.engine.checks.found import Found, unasked
from rootlink.engine.outbound import Scope
from rootlink.errors import EgressBlocked, UpstreamFailed
from rootlink.wire.checks import TcpCheck

SECONDS = 12.0  # the gate dials for ten


async def asked(check: TcpCheck, scope: Scope, filling: Filling, redact: Callable[[str], str]) -> Found:
    """Raises UpstreamFailed with the check's words and why, EgressBlocked, Unavailable, Invalid for no host."""
    host = filling.text(check.host)
    try:
        await scope.knock(host, check.port, SECONDS)
    except UpstreamFailed as error:
        said = answers.text(check.error, None, redact, {"host": host, "port": str(check.port)}) or check.error
        raise UpstreamFailed(f"{said} ({error.message})") from None
    except EgressBlocked as error:
        raise unasked(error) from None
    return Found()
