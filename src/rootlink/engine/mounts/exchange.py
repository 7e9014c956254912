"""One link's conversation, without I/O: bytes in, answers to whoever waits, and sometimes bytes to send back.

    ask() ──► Asked{id, line, answer}          receive(line) ──► Heard.ANSWER    somebody waited for it
                                                              ├─► Heard.UNASKED   notification, request of the server's, stray id
                                                              └─► Heard.BAD       no JSON-RPC; counted, skipped

Rules
- Ids are ours: integers, never used twice on one link. An answer with an id nobody waits for is counted, not fatal.
- Whoever waits hears at once when the answer came but cannot be read, and when the link ends.
- A server's `ping` is answered; every other request of a server's is refused politely (-32601): no client stands behind it here.
- Only UNASKED and BAD count as noise (`flood.py`): a server that answers fast what it was asked is not a flood.
- A progress token of ours never leaves the link: the call is told the notification's other members.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from msgspec import UNSET, Raw, UnsetType

from rootlink.engine import rpc
from rootlink.engine.calls import Call
from rootlink.errors import UpstreamFailed

log = structlog.get_logger(__name__)
_ID = re.compile(rb'"id"\s*:\s*(\d{1,18})\s*[,}]')


class Heard(enum.Enum):
    ANSWER = enum.auto()
    UNASKED = enum.auto()
    BAD = enum.auto()


@dataclass(slots=True, eq=False)
class Asked:
    id: int
    method: str
    line: bytes
    answer: asyncio.Future[Raw]
    call: Call | None


class Exchange:
    """`name` is the mount's, for words. `notified` gets each notification that is not ours to handle (method, raw params)."""

    def __init__(self, name: str, notified: Callable[[str, Raw], None]) -> None:
        self._name = name
        self._notified = notified
        self._ids = itertools.count(1)
        self._asked: dict[int, Asked] = {}
        self.bad = 0
        self.stray = 0

    def ask(self, method: str, params: Mapping[str, Any] | None, call: Call | None = None) -> Asked:
        id = next(self._ids)
        line = rpc.request(id, method, _with_token(params, id if call is not None and call.progress else None))
        answer: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()
        asked = self._asked[id] = Asked(id, method, line, answer, call)
        return asked

    def forget(self, asked: Asked) -> None:
        """Nobody waits any longer. A failure nobody saw is not reported as one."""
        self._asked.pop(asked.id, None)
        if not asked.answer.cancel() and not asked.answer.cancelled():
            asked.answer.exception()

    def fail(self, error: Callable[[str], Exception]) -> None:
        """End every wait. `error` makes the exception from the method that was asked."""
        for asked in tuple(self._asked.values()):
            self._settle(asked, error(asked.method))

    def receive(self, message: bytes) -> tuple[Heard, bytes | None]:
        """What `message` was, and what is to be sent back."""
        try:
            envelope = rpc.read(message)
        except rpc.Malformed:
            self.bad += 1
            self._blame(message)
            return Heard.BAD, None
        if envelope.method is UNSET:
            return self._answered(envelope), None
        if envelope.id is UNSET:
            self._notice(envelope)
            return Heard.UNASKED, None
        return self._requested(envelope)

    def _answered(self, envelope: rpc.Envelope) -> Heard:
        asked = self._asked.get(envelope.id) if isinstance(envelope.id, int) else None
        if asked is None:
            self.stray += 1
            return Heard.UNASKED
        self._asked.pop(asked.id)
        self._settle(asked, self._outcome(asked, envelope))
        return Heard.ANSWER

    def _outcome(self, asked: Asked, envelope: rpc.Envelope) -> Raw | Exception:
        if envelope.error is not UNSET and bytes(envelope.error) != b"null":
            return rpc.error(envelope.error)
        try:
            if envelope.result is UNSET:
                raise rpc.Malformed("neither a result nor an error")
            return rpc.result(envelope.result)
        except rpc.Malformed:
            self.bad += 1
            return self._unreadable(asked)

    def _unreadable(self, asked: Asked) -> UpstreamFailed:
        return UpstreamFailed(f"{self._name} answered {asked.method} with something that is no MCP result")

    def _settle(self, asked: Asked, outcome: Raw | Exception) -> None:
        if asked.answer.done():
            return
        if isinstance(outcome, Exception):
            asked.answer.set_exception(outcome)
        else:
            asked.answer.set_result(outcome)

    def _blame(self, message: bytes) -> None:
        """A line that is no JSON may still show whom it was for; who waits for that answer must not wait for its deadline."""
        for part in (message[:256], message[-64:]):
            found = _ID.search(part)
            asked = self._asked.pop(int(found[1]), None) if found else None
            if asked is not None:
                self._settle(asked, self._unreadable(asked))
                return

    def _notice(self, envelope: rpc.Envelope) -> None:
        assert envelope.method is not UNSET
        if envelope.method == "notifications/progress":
            self._progressed(envelope.params)
            return
        params = Raw(b"{}") if envelope.params is UNSET else envelope.params
        try:
            self._notified(envelope.method, params)
        except Exception:
            log.exception("notification", mount=self._name, method=envelope.method[:80])

    def _progressed(self, raw: Raw | UnsetType) -> None:
        params = rpc.members(raw)
        token = rpc.value(params.pop("progressToken", UNSET))
        asked = self._asked.get(token) if isinstance(token, int) else None
        if asked is None or asked.call is None or not asked.call.progress:
            self.stray += 1
            return
        try:
            asked.call.tell("notifications/progress", rpc.raw(params))
        except Exception:
            log.exception("progress", mount=self._name, method=asked.method)

    def _requested(self, envelope: rpc.Envelope) -> tuple[Heard, bytes | None]:
        if envelope.id is UNSET or envelope.id is None:
            self.bad += 1
            return Heard.BAD, None
        if envelope.method == "ping":
            return Heard.UNASKED, rpc.answer(envelope.id, {})
        return Heard.UNASKED, rpc.refusal(envelope.id, rpc.METHOD_NOT_FOUND, "Method not found: not offered by this client")


def _with_token(params: Mapping[str, Any] | None, token: int | None) -> Mapping[str, Any] | None:
    """`params` with `_meta.progressToken` ours, or without one: a foreign token must not reach a server that others share."""
    meta = params.get("_meta") if params else None
    held = meta if isinstance(meta, dict) else {}
    if token is None and "progressToken" not in held:
        return params
    kept = {key: member for key, member in held.items() if key != "progressToken"}
    return {**(params or {}), "_meta": kept if token is None else {**kept, "progressToken": token}}
