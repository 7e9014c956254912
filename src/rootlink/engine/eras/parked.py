"""A stateless client's request while it works, over as many requests of the client's as that takes.

    POST ──► working ──► done ──► the answer
               │  ▲
       a server asks │ the client comes again, with `inputResponses` and our `requestState`
               ▼  │
             parked ──► 10 minutes, or the engine's end: cancelled

A session server asks in the middle of a call; a 2026-07-28 client can be asked only by ending its request. So the work is a task
of its own: the request it began with ends with an InputRequiredResult, the task waits here, and the retry takes it up again.

Rules
- What is asked within 5 ms goes out in one result. A question that was not answered is asked again, alone; an answer nobody asked
  for is ignored; what an answer says is the server's to judge.
- A requestState is of one round: bound to principal, workspace, method and arguments (tokens.py), and taken once.
- Only a client that is there can end its call by leaving: parked work is not cancelled by a closed connection.
- After a restart of the engine nothing is parked any more; who comes with an older state is told to begin again.
"""

from __future__ import annotations

import asyncio
import collections
import secrets
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Client, Heard
from rootlink.engine.eras.running import MESSAGE, Told, progress_token
from rootlink.engine.lease import Lease
from rootlink.engine.mounts.questions import NOT_OFFERED, allowed
from rootlink.engine.rpc import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from rootlink.engine.tokens import Tokens

log = structlog.get_logger(__name__)
KIND = "parked"
ASKABLE = frozenset({"elicitation/create", "sampling/createMessage", "roots/list"})  # what an InputRequest may be
TOGETHER_SECS = 0.005
PARKED_SECS = 600.0
MOST_OF_ONE, MOST = 64, 1000  # a principal's, everybody's
KEPT, KEPT_BYTES = 100, 256 << 10  # notifications, while nobody is there to read them
ASKED_BYTES = 64 << 20  # what all that are parked ask together

Bound = tuple[str | bytes, ...]


@dataclass(slots=True)
class Question:
    method: str
    params: Raw
    answer: asyncio.Future[Raw]


class Work(Told):
    """Implements `calls.Call`; `asks`: whether its method may be answered with a question. One request at a time attends to it,
    and is told with `turn(what)` what happened:

    "done"    `outcome` is there: the result, or what was raised
    "asked"   it is parked, and `asked` is the InputRequiredResult
    "said"    frames wait for a stream (`read`)
    """

    def __init__(
        self, client: Client, params: dict[str, Any], level: str | None, parked: Parked, bound: Callable[[], Bound], *, asks: bool
    ) -> None:
        super().__init__(client, params, level)
        self._asks = asks
        self.outcome: Raw | BaseException | None = None
        self.asked = b""
        self.bound = bound
        self.parked = False
        self._parked = parked
        self._now = client  # as the latest request declared itself
        self._task: asyncio.Task[None] | None = None
        self._turn: Callable[[str], None] = _unattended
        self._push: Callable[[bytes], object] | None = None
        self._reads = False
        self._frames: list[bytes] = []
        self._kept: collections.deque[tuple[str, Raw]] = collections.deque(maxlen=KEPT)
        self._kept_bytes = 0
        self._open: dict[str, Question] = {}
        self._keys = 0
        self._soon: asyncio.TimerHandle | None = None

    # its life

    def start(self, handled: Coroutine[Any, Any, Raw]) -> None:
        self._task = asyncio.create_task(self._run(handled))

    async def _run(self, handled: Coroutine[Any, Any, Raw]) -> None:
        try:
            self.outcome = await handled
        except Exception as error:  # noqa: BLE001 - whoever attends raises it
            self.outcome = error
        except asyncio.CancelledError as error:
            self.outcome = error
            raise
        finally:
            if self._soon is not None:
                self._soon.cancel()
            self._turn("done")

    def attend(self, turn: Callable[[str], None], *, reads: bool) -> None:
        """A request of the client's waits from now on. `reads`: it can take a stream, so what is said is worth keeping."""
        self._turn, self._reads = turn, reads
        if self.parked:
            turn("asked")
        elif self.outcome is not None:
            turn("done")
        elif self._frames:
            turn("said")

    def read(self, push: Callable[[bytes], object]) -> None:
        """Frames go to `push` from now on, those that wait first."""
        frames, self._frames = self._frames, []
        self._push = push
        for frame in frames:
            push(frame)

    def leave(self) -> None:
        """Nobody waits any longer."""
        self._turn, self._push, self._reads = _unattended, None, False
        self._frames.clear()

    async def cancel(self) -> None:
        """Returns when it has ended."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # what servers tell and ask

    def tell(self, method: str, params: Raw) -> None:
        if self.parked:
            self._keep(method, params)
        elif method != MESSAGE or self.level is not None:  # log lines are for who asked for them
            super().tell(method, params)

    def _keep(self, method: str, params: Raw) -> None:
        """The newest, as many as there is room for."""
        if len(self._kept) == KEPT:
            self._kept_bytes -= len(bytes(self._kept.popleft()[1]))
        self._kept.append((method, params))
        self._kept_bytes += len(bytes(params))
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(bytes(self._kept.popleft()[1]))

    def emit(self, frame: bytes) -> None:
        if self._push is not None:
            self._push(frame)
        elif self._reads:
            self._frames.append(frame)
            self._turn("said")

    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        if not self._asks or method not in ASKABLE or not allowed(self._now, method, params):
            raise RpcError(METHOD_NOT_FOUND, NOT_OFFERED)
        self._keys += 1
        key, question = f"{method.partition('/')[0]}-{self._keys}", Question(method, params, _future())
        self._open[key] = question
        self._ask_soon()
        try:
            return await question.answer
        finally:
            self._open.pop(key, None)

    def _ask_soon(self) -> None:
        if self._soon is None and not self.parked:
            self._soon = asyncio.get_running_loop().call_later(TOGETHER_SECS, self._ask_now)

    def _ask_now(self) -> None:
        self._soon = None
        if not self._open or self.parked:
            return
        try:
            state = self._parked.park(self, sum(len(bytes(question.params)) for question in self._open.values()))
        except RpcError as error:
            for question in self._open.values():
                if not question.answer.done():
                    question.answer.set_exception(error)
            return
        self.parked = True
        asked = {key: {"method": q.method, "params": q.params} for key, q in self._open.items()}
        self.asked = msgspec.json.encode({"resultType": "input_required", "inputRequests": asked, "requestState": state})
        self._turn("asked")

    # the client comes again

    def answered(self, client: Client, params: dict[str, Any], level: str | None) -> None:
        """Take it up again. Raises RpcError, and nothing is changed, when an answer is no answer at all."""
        responses = params.get("inputResponses") or {}
        given = {key: responses[key] for key in self._open if key in responses}
        for key, answer in given.items():
            if not isinstance(answer, dict):
                raise RpcError(INVALID_PARAMS, f"inputResponses: {key} must be an object, the result of what was asked")
        self._parked.take(self)
        self.parked, self._now, self.level = False, client, level
        self._token = progress_token(params)
        for key, answer in given.items():
            question = self._open.pop(key)
            if not question.answer.done():
                question.answer.set_result(rpc.raw(answer))
        if self._open:
            self._ask_soon()

    def catch_up(self) -> None:
        """Tell what was said while nobody was there; after `attend`."""
        kept, self._kept, self._kept_bytes = self._kept, collections.deque(maxlen=KEPT), 0
        for method, params in kept:
            self.tell(method, params)


@dataclass(slots=True)
class _Place:
    """Where a parked work waits, under a key that is good for one round."""

    work: Work
    principal: str
    size: int  # bytes of what it asks
    expiry: asyncio.TimerHandle
    held: ExitStack


class Parked:
    """The calls that wait for their clients. They hold the engine: it does not stop as idle meanwhile."""

    def __init__(self, tokens: Tokens, lease: Lease, *, seconds: float = PARKED_SECS) -> None:
        self._tokens, self._lease, self._seconds = tokens, lease, seconds
        self._born = secrets.token_bytes(8)  # this engine's life: what an earlier one parked is gone
        self._places: dict[bytes, _Place] = {}
        self._keys: dict[Work, bytes] = {}
        self._of: collections.Counter[str] = collections.Counter()
        self._size = 0
        self._ending: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._places)

    def park(self, work: Work, size: int) -> str:
        """The requestState it is found by; `size`: bytes of what it asks. Raises RpcError when there are too many."""
        bound = work.bound()
        principal = str(bound[0])
        if self._size + size > ASKED_BYTES:
            raise RpcError(INTERNAL_ERROR, "What waits for an answer of the client is too large", {"code": "rate_limited"})
        if len(self._places) >= MOST or self._of[principal] >= MOST_OF_ONE:
            raise RpcError(
                INTERNAL_ERROR,
                f"Too many calls wait for an answer of the client ({MOST_OF_ONE} for one key, {MOST} in all); answer some first",
                {"code": "rate_limited"},
            )
        key, held = secrets.token_bytes(16), ExitStack()
        held.enter_context(self._lease.call())
        expiry = asyncio.get_running_loop().call_later(self._seconds, self._expire, key)
        self._places[key] = _Place(work, principal, size, expiry, held)
        self._keys[work] = key
        self._size += size
        self._of[principal] += 1
        return self._tokens.seal(KIND, self._born + key, *bound, ttl=self._seconds)

    def find(self, state: object, bound: Bound) -> Work:
        """What `state` was given for; it stays parked. Raises RpcError."""
        body = self._tokens.open(KIND, state, *bound)
        if body[:8] != self._born:
            raise RpcError(
                INTERNAL_ERROR,
                "The engine was restarted, and the call that waited for this answer is gone; call again without requestState",
                {"code": "unavailable", "retryable": True},
            )
        place = self._places.get(body[8:])
        if place is None:
            raise RpcError(INVALID_PARAMS, "requestState was used already, or the call it belongs to is over", {"code": "used"})
        return place.work

    def take(self, work: Work) -> None:
        """It works again; its state is used up."""
        place = self._places.pop(self._keys.pop(work))
        place.expiry.cancel()
        self._size -= place.size
        place.held.close()
        self._of[place.principal] -= 1
        if not self._of[place.principal]:
            del self._of[place.principal]

    def close_all(self) -> None:
        for place in tuple(self._places.values()):
            self._end(place.work)

    def _expire(self, key: bytes) -> None:
        place = self._places.get(key)
        if place is not None:
            log.info("parked_call_expired", after_seconds=self._seconds)
            self._end(place.work)

    def _end(self, work: Work) -> None:
        self.take(work)
        ending = asyncio.create_task(work.cancel())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


def _unattended(what: str) -> None:
    """Nobody waits: what happened is seen when somebody comes."""


def _future() -> asyncio.Future[Raw]:
    return asyncio.get_running_loop().create_future()
