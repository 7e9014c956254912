"""What the latest call of a server's tools came to, where that was no success: words for whoever looks at the server's state.

    the server's own error                            the last call of TOOL (time) was answered with an error: …
    a result that says isError                        the last call of TOOL (time) failed: …
    a success that is an error (failures.py)          the last call of TOOL (time) succeeded with an error inside: …
    an end of the server, no answer, a refusal        the last call of TOOL (time) came to nothing: …

A call that goes well takes the words away. What was not sent says nothing of the server, and leaves them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from msgspec import Raw

from rootlink.engine.mounts import failures
from rootlink.engine.mounts.refusals import EDGE
from rootlink.engine.rpc import RpcError
from rootlink.errors import EgressBlocked, RootlinkError, UpstreamFailed

SHOWN = 300  # characters of what went wrong; of a tool's name 100
_FAILS = re.compile(rb'"isError"\s*:\s*true')


class Latest:
    """`words`: None when all is well, or nothing was called yet."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.words: str | None = None
        self._now = now

    def answered(self, tool: object, result: Raw, refused: Callable[[], list[str]]) -> None:
        """`refused`: what was, since the call began; asked for only if it failed."""
        held = memoryview(result)
        ends = held[-EDGE:], held[:EDGE]  # where servers put `isError`
        if any(_FAILS.search(end) for end in ends) and failures.failed(result):
            self._say(tool, "failed", failures.words(result) or failures.NO_REASON, refused())
            return
        inside = failures.inside(result)
        if inside is None:
            self.words = None
        else:
            self._say(tool, "succeeded with an error inside", inside, refused())

    def raised(self, tool: object, error: RpcError | RootlinkError, refused: list[str]) -> None:
        """`error`: as it came, `refused`: as in `answered`."""
        if isinstance(error, RpcError):
            self._say(tool, f"was answered with an error ({error.code})", error.message, refused)
        elif isinstance(error, UpstreamFailed | EgressBlocked):
            self._say(tool, "came to nothing", error.message, refused)

    def _say(self, tool: object, how: str, said: str, refused: list[str]) -> None:
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self._now()))
        words = " ".join(said.split())[:SHOWN]
        because = f". {'; '.join(refused)}" if refused else ""
        self.words = f"the last call of {str(tool)[:100]} ({at}) {how}: {words}{because}"
