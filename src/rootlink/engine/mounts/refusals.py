"""What one mount was refused on its way out, so that a call which fails for it says so.

    a refusal from the gate ─► kept with its time ─► errors, `isError` results and log lines that come with it

A result that succeeded stays the bytes it was; but one that is nothing but an error (failures.py) gets a block of text behind its
own if something was refused meanwhile.
"""

from __future__ import annotations

import asyncio
import collections
import re
from collections.abc import Callable
from typing import Any, overload

import msgspec
from msgspec import Raw

from rootlink.egress.hosts import Rule
from rootlink.egress.policy import BLOCKED
from rootlink.engine.mounts import failures
from rootlink.engine.rpc import UNREADABLE, RpcError
from rootlink.errors import RootlinkError, from_code
from rootlink.wire.gate import Refusal

BEFORE = 1.0  # seconds: what was refused so shortly before a server ended may be why it did
LATE = 0.02  # seconds that a failed call waits for its refusal, which comes by another way
MOST_LINES = 5
MOST_KEPT = 64
AGAIN = 60.0  # seconds until the same refusal is logged again

EDGE = 256  # bytes

_FAILS = re.compile(rb'"isError"\s*:\s*true')
_members = msgspec.json.Decoder(dict[str, Raw])
_blocks = msgspec.json.Decoder(list[Raw])


class Refusals:
    """`redact`: a name can be made of a secret. `told(line)` is called for each kind of refusal, now and then."""

    def __init__(self, redact: Callable[[str], str], told: Callable[[str], None]) -> None:
        self._redact, self._told = redact, told
        self._loop = asyncio.get_running_loop()
        self._kept: collections.deque[tuple[float, Refusal]] = collections.deque(maxlen=MOST_KEPT)
        self._logged: dict[tuple[str, int, str], float] = {}
        self._noted = asyncio.Event()
        self.latest = -1.0  # when the latest came, in the loop's time

    def note(self, refusal: Refusal) -> None:
        now = self.latest = self._loop.time()
        self._kept.append((now, refusal))
        self._noted.set()
        key = (refusal.host, refusal.port, refusal.reason)
        if now - self._logged.get(key, -AGAIN) >= AGAIN:
            if len(self._logged) >= MOST_KEPT:
                self._logged.clear()
            self._logged[key] = now
            self._told(self._redact(words(refusal)))

    def concern(self, began: float) -> bool:
        """Whether anything was refused since a call began."""
        return self.latest >= began

    async def await_late(self, began: float) -> None:
        """A moment for a refusal that is still on its way."""
        if self.concern(began):
            return
        self._noted.clear()
        try:
            async with asyncio.timeout(LATE):
                await self._noted.wait()
        except TimeoutError:
            pass

    def lines(self, began: float) -> list[str]:
        """One a host, `MOST_LINES` at most, redacted."""
        found = self._since(began)
        lines = [self._redact(words(refusal)) for refusal in found[:MOST_LINES]]
        more = len(found) - MOST_LINES
        return [*lines, f"{BLOCKED}{more} other hosts; see: rootlink egress denied"] if more > 0 else lines

    @overload
    def explained(self, error: RpcError, began: float) -> RpcError: ...
    @overload
    def explained(self, error: RootlinkError, began: float) -> RootlinkError: ...
    def explained(self, error: RpcError | RootlinkError, began: float) -> RpcError | RootlinkError:
        """`error` with what was refused before its own words, or itself."""
        if not self.concern(began):
            return error
        message = "\n".join([*self.lines(began), error.message])
        data = _with(error.data, [self._shown(refusal) for refusal in self._since(began)[:MOST_LINES]])
        if isinstance(error, RpcError):
            return RpcError(error.code, message, data)
        told = from_code(error.code, message)
        told.data = data
        return told

    async def judged(self, result: Raw, began: float) -> Raw:
        """As `joined`; waits for what is late if the result may be an error."""
        if _may_fail(result):
            await self.await_late(began)
        return self.joined(result, began) if self.concern(began) else result

    def joined(self, result: Raw, began: float) -> Raw:
        """A result that says `isError`, with a first block of text that says what was refused; one that is an error and does not
        say so, with a last one, because its own text is read as JSON; any other one as it is."""
        try:
            members = _members.decode(result)
            told = bytes(members.get("isError", b"")).strip() == b"true"
            if not told and not failures.confesses(result):
                return result
            blocks = _blocks.decode(members["content"]) if "content" in members else []
        except UNREADABLE:
            return result
        block = {"type": "text", "text": "\n".join(self.lines(began))}
        members["content"] = Raw(msgspec.json.encode([block, *blocks] if told else [*blocks, block]))
        return Raw(msgspec.json.encode(members))

    def _since(self, began: float) -> list[Refusal]:
        """The latest of each host and reason, in the order they came."""
        found = {(refusal.host, refusal.reason): refusal for at, refusal in self._kept if at >= began}
        return list(found.values())

    def _shown(self, refusal: Refusal) -> dict[str, Any]:
        return {"host": self._redact(refusal.host), "port": refusal.port, "reason": refusal.reason}


def _may_fail(result: Raw) -> bool:
    """Whether it may say `"isError": true` (servers put it first or last), or be an error without saying so."""
    held = memoryview(result)
    if _FAILS.search(held[-EDGE:]) is not None or _FAILS.search(held[:EDGE]) is not None:
        return True
    return failures.confesses(result)


def words(refusal: Refusal) -> str:
    """For a person: what was refused, and what to do where something can be done."""
    message = refusal.message or f"{BLOCKED}host '{refusal.host}' ({refusal.reason})"
    advice = _advice(refusal)
    return f"{message}. {advice}" if advice else message


def _advice(refusal: Refusal) -> str:
    rule = str(Rule(refusal.host, None if refusal.port in (0, 80, 443) else refusal.port))
    if refusal.reason == "not_in_allowlist":
        return f"Allow it with: rootlink egress allow {rule}"
    if refusal.reason == "port" and "this project's outbound allowlist" in refusal.message:
        return f"Allow it with: rootlink egress allow {Rule(refusal.host, refusal.port or None)}"
    if refusal.reason == "not_in_connection":
        return "The host must be among this connection's own hosts"
    return ""


def _with(data: Any, refused: list[dict[str, Any]]) -> dict[str, Any]:
    if data is None or isinstance(data, dict):
        return {**(data or {}), "egress": refused}
    return {"data": data, "egress": refused}
