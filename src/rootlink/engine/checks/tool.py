"""A call of one of the mounted server's tools, on nobody's behalf: what it can say only once it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Raw

from rootlink.engine.checks import answers
from rootlink.engine.checks.filling import Filling
from rootlink.engine.checks.found import Found
from rootlink.engine.mounts import failures
from rootlink.engine.rpc import RpcError
from rootlink.errors import Invalid, RootlinkError, UpstreamFailed
from rootlink.wire.checks import ToolCheck

Ask = Callable[[str, dict[str, Any]], Awaitable[Raw]]
SECONDS = 30.0  # a browser starts at its first call
MOST = 300  # characters of what a server says went wrong


async def asked(check: ToolCheck, ask: Ask, filling: Filling, redact: Callable[[str], str]) -> Found:
    """Raises Invalid with the check's words and the server's, or UpstreamFailed with the server's alone; what `ask` raises."""
    try:
        async with asyncio.timeout(SECONDS):
            result = await ask(check.tool, filling.arguments(check.arguments))
    except TimeoutError:
        raise _wrong(check, f"{check.tool} did not answer within {SECONDS:g} s", None, redact) from None
    except (RpcError, UpstreamFailed) as error:
        raise _wrong(check, error.message, None, redact) from None
    answer, failed = failures.answer(result), failures.words(result)
    if failed is not None:
        raise _wrong(check, failed, answer, redact)
    if not answers.holds(answer, check.json):
        raise _wrong(check, None, answer, redact)
    return Found(answers.text(check.label, answer, redact), answers.text(check.note, answer, redact))


def _wrong(check: ToolCheck, said: str | None, answer: Any, redact: Callable[[str], str]) -> RootlinkError:
    words = answers.words(said, redact, MOST) if said else ""
    own = answers.text(check.error, answer, redact)
    if own is not None:
        return Invalid(f"{own} The server says: {words}" if words else own)
    if not words:
        return UpstreamFailed(f"{check.tool} did not answer what it answers when all is well")
    return UpstreamFailed(f"{check.tool} failed: {words}")
