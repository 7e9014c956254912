"""One link's conversation, without I/O: bytes in, answers to whoever waits, and sometimes bytes to send back.

    ask() ──► Asked{id, line, answer}          receive(line) ──► Heard.ANSWER    somebody waited for it
                                                              ├─► Heard.UNASKED   notification, request of the server's, stray id
                                                              └─► Heard.BAD       no JSON-RPC; counted, skipped

What a server says or asks by itself belongs to a call: the one whose stream it came on (`about`, over HTTP), or the one its
`subscriptionId` names; else the only call in flight; else to the client whose own link this is, outside of any call.

Rules
- Ids are ours: integers, never used twice on one link. An answer with an id nobody waits for is counted, not fatal.
- Whoever waits hears at once when the answer came but cannot be read, and when the link ends.
- A server's `ping` is answered. Any other request of its goes to whom it belongs to (questions.py) on a link that has an owner,
  and is refused politely (-32601) on one that declared nothing, because it is nobody's in particular.
- What is told to no call and no client, lists and resources that changed among it, goes to `notified`.
- Only UNASKED and BAD count as noise (`flood.py`): a server that answers fast what it was asked is not a flood.
- A progress token of ours never leaves the link: the call is told the notification's other members.
- A call that was broken off may still be worked on and spoken of: for a minute, or until its answer comes, what a server says
  on a link that is everybody's is told to no other client.
- What is passed on is one JSON object on one line (rpc.py): of anything else a client's stream would break.
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
from msgspec import UNSET, Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Call, Client, Standing
from rootlink.engine.mounts.listing import NOTICES
from rootlink.engine.mounts.patience import Patient
from rootlink.engine.mounts.questions import NOT_OFFERED, Questions, Send, allowed
from rootlink.errors import UpstreamFailed

log = structlog.get_logger(__name__)
LISTEN = "subscriptions/listen"
UPDATED, CANCELLED = "notifications/resources/updated", "notifications/cancelled"
_SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
_OF_THE_SERVER = frozenset({*NOTICES, UPDATED, "notifications/tasks/status", "notifications/subscriptions/acknowledged"})
LINGER_SECONDS, MOST_LINGERING = 60.0, 256
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


async def unsent(message: bytes) -> None:
    """The default of `send`."""


class Exchange:
    """`name` is the mount's, for words. `notified` gets notifications that belong to nobody (method, raw params), `send`
    answers to the server's questions. `owner`: the one client this link is for, None: it is everybody's."""

    def __init__(self, name: str, notified: Callable[[str, Raw], None], send: Send = unsent) -> None:
        self._name = name
        self._notified = notified
        self._ids = itertools.count(1)
        self._asked: dict[int, Asked] = {}
        self._lingering: dict[int, tuple[str, float]] = {}  # broken off: id → whose it was, and until when it counts
        self.questions = Questions(name, send)
        self.owner: Client | None = None
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
        if self._asked.pop(asked.id, None) is not None and asked.call is not None and self.owner is None:
            self._linger(asked.id, asked.call.client.key)
        if len(self.questions):
            self.questions.abandon(asked)
        if not asked.answer.cancel() and not asked.answer.cancelled():
            asked.answer.exception()

    def _linger(self, id: int, key: str) -> None:
        until = asyncio.get_running_loop().time() + LINGER_SECONDS
        if len(self._lingering) >= MOST_LINGERING:
            key, self._lingering = "", {}  # whose they were is not told apart any more
        self._lingering[id] = key, until

    def _lingers(self, beside: str) -> bool:
        """Whether the server may still speak of a call of another client than this one."""
        now = asyncio.get_running_loop().time()
        self._lingering = {id: held for id, held in self._lingering.items() if held[1] > now}
        return any(key != beside for key, _ in self._lingering.values())

    def fail(self, error: Callable[[str], Exception]) -> None:
        """End every wait. `error` makes the exception from the method that was asked."""
        for asked in tuple(self._asked.values()):
            self._settle(asked, error(asked.method))
        self.questions.end()

    def receive(self, message: bytes, about: Asked | None = None) -> tuple[Heard, bytes | None]:
        """What `message` was, and what is to be sent back at once. `about`: whose stream it came on."""
        try:
            envelope = rpc.read(message)
        except rpc.Malformed:
            self.bad += 1
            self._blame(message)
            return Heard.BAD, None
        if envelope.method is UNSET:
            return self._answered(envelope), None
        params = _params(envelope)
        if params is None:
            self.bad += 1
            refused = None if envelope.id is UNSET else rpc.refusal(envelope.id, rpc.INVALID_PARAMS, "params must be an object")
            return Heard.BAD, refused
        if envelope.id is UNSET:
            self._notice(envelope.method, params, about)
            return Heard.UNASKED, None
        return self._requested(envelope.id, envelope.method, params, about)

    def _answered(self, envelope: rpc.Envelope) -> Heard:
        asked = self._asked.get(envelope.id) if isinstance(envelope.id, int) else None
        if asked is None:
            if isinstance(envelope.id, int):
                self._lingering.pop(envelope.id, None)
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

    def _notice(self, method: str, params: Raw, about: Asked | None) -> None:
        if method == "notifications/progress":
            self._progressed(params)
        elif method == CANCELLED:
            self.questions.withdraw(rpc.value(rpc.members(params).get("requestId", UNSET)))
        else:
            self._say(method, params, about)

    def _say(self, method: str, params: Raw, about: Asked | None) -> None:
        about = about or self._subscribed(params)
        listening = about is not None and about.method == LISTEN
        hearer = None if method in _OF_THE_SERVER and not listening else self._of(about)
        try:
            (self._notified if hearer is None else hearer.tell)(method, params)
        except Exception:
            log.exception("notification", mount=self._name, method=method[:80])

    def _subscribed(self, params: Raw) -> Asked | None:
        """The `subscriptions/listen` whose frame this is."""
        if _SUBSCRIPTION.encode() not in bytes(params):
            return None
        id = rpc.value(rpc.members(rpc.members(params).get("_meta", UNSET)).get(_SUBSCRIPTION, UNSET))
        return self._asked.get(id) if isinstance(id, int) else None

    def _of(self, about: Asked | None) -> Call | Standing | None:
        """Whom something of the server's belongs to."""
        about = about or self._only()
        if about is not None and about.call is not None:
            return about.call
        return self.owner.standing if self.owner is not None else None

    def _only(self) -> Asked | None:
        """The call in flight, if there is just one."""
        found: Asked | None = None
        for asked in self._asked.values():
            if asked.call is not None and asked.method != LISTEN:
                if found is not None:
                    return None
                found = asked
        if found is not None and found.call is not None and self._lingering and self._lingers(found.call.client.key):
            return None
        return found

    def _progressed(self, raw: Raw) -> None:
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

    def _requested(self, id: rpc.Id | None, method: str, params: Raw, about: Asked | None) -> tuple[Heard, bytes | None]:
        if id is None:
            self.bad += 1
            return Heard.BAD, None
        if method == "ping":
            return Heard.UNASKED, rpc.answer(id, {})
        return Heard.UNASKED, self._question(id, method, params, about)

    def _question(self, id: rpc.Id, method: str, params: Raw, about: Asked | None) -> bytes | None:
        about = about or self._only()
        whom = self._of(about)
        if self.owner is None or whom is None or not allowed(self.owner, method, params):
            return rpc.refusal(id, rpc.METHOD_NOT_FOUND, NOT_OFFERED)
        waiting = () if about is not None and about.call is not None else self._asked.values()
        holding = [asked.call.holding() for asked in waiting if isinstance(asked.call, Patient)]
        return self.questions.put(id, method, params, whom, about=about, holding=holding)


def _params(envelope: rpc.Envelope) -> Raw | None:
    """What a notification or request of the server's carries; None when that is no object that can be passed on."""
    if envelope.params is UNSET or bytes(envelope.params) == b"null":
        return Raw(b"{}")
    try:
        return rpc.result(envelope.params)
    except rpc.Malformed:
        return None


def _with_token(params: Mapping[str, Any] | None, token: int | None) -> Mapping[str, Any] | None:
    """`params` with `_meta.progressToken` ours, or without one: a foreign token must not reach a server that others share."""
    meta = params.get("_meta") if params else None
    held = meta if isinstance(meta, dict) else {}
    if token is None and "progressToken" not in held:
        return params
    kept = {key: member for key, member in held.items() if key != "progressToken"}
    return {**(params or {}), "_meta": kept if token is None else {**kept, "progressToken": token}}
