"""What one session client is asked, and has not answered yet.

    ask() ──► a JSON-RPC request on one of its tapes ──► … a person thinks … ──► answered(), from its next POST

Rules
- Ids are ours, strings that hold a mark of the engine's life: an answer to a question from before a restart is nobody's.
- What a client did not declare it can do (elicitation, sampling, roots) it is not asked.
- Cancelling `ask` withdraws the question. One whose stream nobody has read for a minute fails: nobody is there.
- A progress token in a question's `_meta` is the asking server's: `heard` gets the client's progress, and the token is replaced
  by the question's id on the way, because two servers may choose the same. Without `heard` it passes as it is, and what the
  client says of it is ignored.
"""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import UNSET, Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Client, Heard
from rootlink.engine.eras.frames import notification_frame, request_frame
from rootlink.engine.eras.tape import Tape
from rootlink.engine.rpc import INTERNAL_ERROR, METHOD_NOT_FOUND, RpcError

MAX_OPEN = 64
LOOK_SECS, GONE_LOOKS = 15.0, 4
NEEDS = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}


def refuse_unless(client: Client, method: str) -> None:
    """Raises RpcError -32601 for what the client did not declare."""
    needed = NEEDS.get(method)
    if needed is not None and not isinstance(client.capabilities.get(needed), dict):
        raise RpcError(METHOD_NOT_FOUND, f"Method not found: the client does not offer {needed}")


class Questions:
    __slots__ = ("_asked", "_heard", "_life", "_open")

    def __init__(self, life: str) -> None:
        self._life, self._asked = life, 0
        self._open: dict[str, asyncio.Future[Raw]] = {}
        self._heard: dict[str, Heard] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def ask(self, tape: Tape, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        """The result object's bytes. Raises RpcError: the client's own, or -32603 when nobody answers any more."""
        if len(self._open) >= MAX_OPEN:
            raise RpcError(INTERNAL_ERROR, f"the client has {MAX_OPEN} questions open already")
        self._asked += 1
        id = f"rootlink-{self._life}-{self._asked}"
        answer: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()
        self._open[id] = answer
        try:
            tape.write(request_frame(id, method, self._with_token(params, id, heard)))
            return await self._answer(tape, answer)
        except asyncio.CancelledError:
            tape.write(notification_frame("notifications/cancelled", {"requestId": id, "reason": "withdrawn by the server"}))
            raise
        finally:
            self._heard.pop(id, None)
            self._open.pop(id, None)
            if not answer.cancel():
                answer.exception()  # seen, also when nobody waits for it any more

    def _with_token(self, params: Raw, id: str, heard: Heard | None) -> Raw:
        members = rpc.members(params)
        meta = rpc.members(members.get("_meta", UNSET))
        if heard is None or "progressToken" not in meta:
            return params
        self._heard[id] = heard
        return rpc.raw({**members, "_meta": {**meta, "progressToken": id}})

    async def _answer(self, tape: Tape, answer: asyncio.Future[Raw]) -> Raw:
        unread = 0
        while unread < GONE_LOOKS:
            await asyncio.wait({answer}, timeout=LOOK_SECS)
            if answer.done():
                return answer.result()
            unread = 0 if tape.read else unread + 1
        raise RpcError(INTERNAL_ERROR, "the client went away before it answered")

    def answered(self, message: rpc.Envelope) -> None:
        """A response of the client's. One to a question nobody asks is ignored."""
        answer = self._open.get(message.id) if isinstance(message.id, str) else None
        if answer is None or answer.done():
            return
        outcome = _outcome(message)
        if isinstance(outcome, RpcError):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def progressed(self, params: dict[str, Any]) -> None:
        """The client's `notifications/progress`."""
        token = params.get("progressToken")
        heard = self._heard.get(token) if isinstance(token, str) else None
        if heard is not None:
            heard(rpc.raw({name: member for name, member in params.items() if name != "progressToken"}))

    def fail(self, why: str) -> None:
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(RpcError(INTERNAL_ERROR, why))


def _outcome(message: rpc.Envelope) -> Raw | RpcError:
    if message.error is not UNSET and bytes(message.error) != b"null":
        return rpc.error(message.error)
    try:
        if message.result is UNSET:
            raise rpc.Malformed("neither a result nor an error")
        return rpc.result(message.result)
    except rpc.Malformed:
        return RpcError(INTERNAL_ERROR, "the client answered with something that is no MCP result")
