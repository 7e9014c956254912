"""What a server asks its client over one link: each question is a task of the link's; its answer goes back under the server's id.

    put() ──► asked of the call it belongs to, or of the client outside of any ──► answered | withdrawn | abandoned | ended

Rules
- Asked only for what the link declared: its owner's own capabilities (`allowed`); a link of nobody's declared nothing.
- At most `MOST` are open at once; what comes beyond is refused with words.
- The server's `notifications/cancelled` withdraws a question; no answer follows. A call that ends takes its questions with it,
  and the server is told so. The link's end ends them all.
- While a question is open that belongs to no single call, the time of every call of this client's on the link stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import structlog
from msgspec import UNSET, Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Client, Heard
from rootlink.engine.rpc import Id, RpcError
from rootlink.errors import RootlinkError

log = structlog.get_logger(__name__)
MOST = 32
NOT_OFFERED = "Method not found: not offered by this client"
_NEEDS = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}

Send = Callable[[bytes], Awaitable[None]]
"""Takes one message to the server. Whatever it raises is logged: nobody waits for it."""


class Askable(Protocol):
    """A call, or a client outside of any (`calls.Standing`)."""

    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw: ...


@dataclass(slots=True, eq=False)
class _Open:
    task: asyncio.Task[None]
    about: object


class Questions:
    """`name` is the mount's, for words."""

    def __init__(self, name: str, send: Send) -> None:
        self._name, self._send = name, send
        self._open: dict[Id, _Open] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def put(
        self, id: Id, method: str, params: Raw, whom: Askable, *, about: object, holding: Iterable[AbstractContextManager[None]]
    ) -> bytes | None:
        """Ask `whom`; a refusal to be sent at once, or None: the answer follows. `about`: what it ends with; `holding` are held
        open meanwhile. A question whose id is open already came twice (a stream that was resumed) and is dropped."""
        if id in self._open:
            return None
        if len(self._open) >= MOST:
            return refusal(id, RpcError(rpc.INTERNAL_ERROR, f"{MOST} questions to the client are open already; ask again later"))
        self._open[id] = _Open(self._spawn(self._ask(id, method, params, whom, list(holding))), about)
        return None

    def withdraw(self, id: object) -> None:
        """The server does not want to know any more."""
        found = self._open.pop(id, None) if isinstance(id, int | str) else None
        if found is not None:
            found.task.cancel()

    def abandon(self, about: object) -> None:
        """What they were asked for is over: nobody can answer them."""
        for id, found in tuple(self._open.items()):
            if found.about is about:
                del self._open[id]
                found.task.cancel()
                self._spawn(self._reply(refusal(id, RpcError(rpc.INTERNAL_ERROR, "the call this was asked for is over"))))

    def end(self) -> None:
        """The link is over."""
        self._open.clear()
        for task in tuple(self._tasks):
            task.cancel()

    async def ended(self) -> None:
        """Returns when no task of theirs runs."""
        await asyncio.gather(*(task for task in self._tasks if task is not asyncio.current_task()), return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _ask(self, id: Id, method: str, params: Raw, whom: Askable, holding: list[AbstractContextManager[None]]) -> None:
        try:
            with contextlib.ExitStack() as held:
                for one in holding:
                    held.enter_context(one)
                reply = rpc.answer(id, await whom.ask(method, params, self._heard(params)))
        except RpcError as error:
            reply = refusal(id, error)
        except RootlinkError as error:
            reply = refusal(id, RpcError(rpc.INTERNAL_ERROR, error.message))
        except Exception:
            log.exception("question", mount=self._name, method=method[:80])
            reply = refusal(id, RpcError(rpc.INTERNAL_ERROR, "the client could not be asked"))
        self._open.pop(id, None)
        await self._reply(reply)

    def _heard(self, params: Raw) -> Heard | None:
        """How the server hears of the client's progress, if it gave a token for that."""
        token = rpc.members(rpc.members(params).get("_meta", UNSET)).get("progressToken")

        def heard(progress: Raw) -> None:
            told = {**rpc.members(progress), "progressToken": token}
            self._spawn(self._reply(rpc.notification("notifications/progress", told)))

        return None if token is None else heard

    async def _reply(self, reply: bytes) -> None:
        try:
            await self._send(reply)
        except (RootlinkError, TimeoutError) as error:
            log.info("reply_lost", mount=self._name, why=str(error)[:200])


def allowed(owner: Client, method: str, params: Raw) -> bool:
    """Whether `owner` declared that it can be asked this. What no capability of MCP names is the client's own to refuse."""
    needed = _NEEDS.get(method, "tasks" if method.startswith("tasks/") else None)
    if needed is None:
        return True
    declared = owner.capabilities.get(needed)
    if not isinstance(declared, dict):
        return False
    if method != "elicitation/create":
        return True
    mode = rpc.value(rpc.members(params).get("mode", Raw(b'"form"')))
    if mode == "form" and "url" not in declared:
        return True  # {} is how 2025-06-18 says it, when forms were all there was
    return isinstance(mode, str) and isinstance(declared.get(mode), dict)


def refusal(id: Id, error: RpcError) -> bytes:
    """The error answer to a question, `data` and all."""
    data = {} if error.data is None else {"data": error.data}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": id, "error": {"code": error.code, "message": error.message, **data}})
