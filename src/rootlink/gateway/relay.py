"""The way of a client's call to its project's engine and back: `/mcp…` and `/engine/api/v1/…`. Bodies are passed on, not read.

Rule 1. The body is held whole until the engine begins to answer. It is capped, and so are all that are held (`budget.py`).
Rule 2. What the engine surely did not take (`link.Untaken`, `x-rootlink-engine: stopping`, a key it does not know) is sent again
        to a fresh engine, `TRIES` times in all. What it may have taken is never sent again: calls have effects.
Rule 3. A client that goes away takes its request with it at once: the protocol tells (else `receive()` is watched), because
        uvicorn's `send()` returns silently after a disconnect, and a relay that only sends would spin while the engine has
        things to say.
Rule 4. A client that does not read holds at most the link's and the server's buffers (64 KiB and a read each), and is dropped
        after `write_secs`.
Rule 5. Nothing of the client's credentials, cookies or forwarding headers reaches the engine; nothing of ours reaches the client.
Rule 6. A caller of MCP learns of a lost engine in JSON-RPC, with its own id, on the open stream if there is one. Half an event at
        the end of that is ended as one of a kind that no client listens to.
Rule 7. A stream of notices (a session's GET, `subscriptions/listen`) outlives its engine: it is held open, without starting one,
        and goes on when there is an engine again that knows it. Otherwise a restart would cost clients their notices for good:
        the official ones give up after two tries. Ids of events are one engine's own: that very one is told the last that went
        by, so that nothing is missed or comes twice; a fresh one is told none. Either is told that the stream goes on
        (`x-rootlink-stream: again`), since its client does not know that anything may have been missed. The rest of a call's
        answer, had again with GET and Last-Event-ID, is no such stream (`x-rootlink-stream: call`): it ends with its engine.
Rule 8. A schedule or a webhook is in the store before its setter is told: it outlives an engine that is lost the moment after.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import structlog
from starlette.types import Receive, Scope, Send

from rootlink.errors import NotFound, Unauthorized, Unavailable, UpstreamFailed
from rootlink.gateway.answers import Gone
from rootlink.gateway.auth import KeyRing, KeyTest
from rootlink.gateway.budget import Budget
from rootlink.gateway.engines import Engine, Engines
from rootlink.gateway.guard import Head, read_body
from rootlink.gateway.link import Aborted, Broken, Header, Untaken
from rootlink.gateway.metrics import Metrics
from rootlink.gateway.protected import challenged
from rootlink.gateway.protocol import is_whole
from rootlink.gateway.ratelimit import Buckets
from rootlink.gateway.refusals import died, refusals
from rootlink.gateway.relayed import Relayed, is_events, returned
from rootlink.gateway.settings import GatewaySettings
from rootlink.http_server import on_leave
from rootlink.records import Key

log = structlog.get_logger(__name__)

TRIES = 3
_OPERATORS = re.compile(r"/v1/projects/([^/]+)(/ws/.+)\Z")  # an engine's API for who is signed in: of a project, not of a key

PING_SECS = 15.0  # between two signs of life on a stream that waits for its engine


def is_relayed(path: str) -> bool:
    """Whether an admitted path belongs to an engine. Raises `NotFound` for what is under `/engine` but no API of it."""
    if _OPERATORS.match(path):
        return True
    if path == "/mcp" or path.startswith("/mcp/"):
        return True
    if path.startswith("/engine/"):
        if not path.startswith("/engine/api/v1/"):
            raise NotFound("Engines are reached at /engine/api/v1")
        return True
    return False


Admit = Callable[[Scope, Head, str], Awaitable[Key]]  # of a request and the project it names


class Relay:
    """ASGI for admitted requests. `streams` are the open event streams, which a shutdown ends first."""

    def __init__(
        self, keys: KeyRing, engines: Engines, budget: Budget, settings: GatewaySettings, metrics: Metrics, admit: Admit
    ) -> None:
        """`admit`: the way in of an operator."""
        self._admit = admit
        self._keys = keys
        self._engines = engines
        self._budget = budget
        self._settings = settings
        self._metrics = metrics
        self._buckets = Buckets(settings.key_rate, settings.key_burst)
        self._streams: set[Relayed] = set()
        keys.dropped = self._end_streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`scope["rootlink.head"]` is the guard's `Head`. Raises the errors of `rootlink.errors`, and `Gone`."""
        began = time.perf_counter()
        head: Head = scope["rootlink.head"]
        key = await self._asker(scope, head)
        self._buckets.spend(key.id, "requests with this key")
        with self._budget.share(key.id) as share:
            call = Relayed(scope, head, key, share, self._settings.write_secs)
            call.check_method()
            most, within = self._settings.relay_body, self._settings.body_secs
            call.body = await read_body(receive, head, most, within, share, whole=is_whole(scope))
            await self._relayed(call, scope, receive, send, began)

    async def _asker(self, scope: Scope, head: Head) -> Key:
        """Who asks, as an engine is told. An operator's path becomes the engine's own."""
        operators = _OPERATORS.match(scope["path"])
        if operators is None:
            return await self._holder(scope, head)
        key = await self._admit(scope, head, operators[1])
        scope["path"] = "/engine/api/v1" + operators[2]
        scope["raw_path"] = b"/engine/api/v1/" + scope["raw_path"].split(b"/", 4)[4]
        return key

    async def _holder(self, scope: Scope, head: Head) -> Key:
        try:
            return await self._keys.holder(head)
        except Unauthorized as error:
            path: str = scope["path"]
            raise challenged(error, self._settings, head, path) if path.startswith("/mcp") else error from None

    async def _relayed(self, call: Relayed, scope: Scope, receive: Receive, send: Send, began: float) -> None:
        watcher: asyncio.Task[None] | None = None
        if not on_leave(scope, call.left):
            watcher = asyncio.create_task(_disconnected(receive))
            watcher.add_done_callback(lambda _: call.left())
        try:
            await self._carry(call, send, began)
        except (Aborted, Gone):
            if not call.gone:
                raise
        finally:
            if watcher is None:
                on_leave(scope, None)
            else:
                watcher.cancel()

    def end_streams(self) -> None:
        """A shutdown: open streams end where they are, so their clients come again; calls may still finish."""
        self._end_streams(lambda key: True)

    def _end_streams(self, of: KeyTest) -> None:
        for call in [call for call in self._streams if of(call.key)]:
            call.end()

    async def _carry(self, call: Relayed, send: Send, began: float) -> None:
        try:
            await self._fetch(call)
            self._metrics.relayed(time.perf_counter() - began)
            await self._return(call, send)
        except (Unavailable, UpstreamFailed) as error:
            if not call.is_rpc or (answer := refusals(call.body, error)) is None:
                raise
            await _respond(send, answer)
        finally:
            call.release()

    async def _fetch(self, call: Relayed, tries: int = TRIES) -> None:
        """Ask until an engine has begun to answer (rule 2)."""
        for _ in range(tries):
            engine = await self._engines.ensure(call.key.project)
            try:
                await call.ask(engine)
            except Untaken:
                self._refetch(call, engine, "not there")
            except Broken:
                self._refetch(call, engine, "died")
                raise died() from None
            else:
                if call.broken_off:
                    raise died()
                if not call.turned_away:
                    return
                self._refetch(call, engine, "stopping")
        raise Unavailable("The engine could not be reached; try again", data={"retryable": True})

    def _refetch(self, call: Relayed, engine: Engine, why: str) -> None:
        call.release()
        self._engines.forget(call.key.project, engine)
        log.info("engine lost", project=call.key.project, generation=engine.generation, why=why)

    async def _return(self, call: Relayed, send: Send) -> None:
        link = call.answer
        call.settle()
        headers = returned(link.headers)
        if call.sets_triggers and link.status == HTTPStatus.OK:
            await self._engines.noted(call.key.project)
        if link.complete and not call.is_held:
            await send({"type": "http.response.start", "status": link.status, "headers": headers})
            await send({"type": "http.response.body", "body": await link.chunk()})
            return
        self._streams.add(call)
        self._metrics.streams.inc()
        try:
            await self._stream(call, send, headers)
        finally:
            self._streams.discard(call)
            self._metrics.streams.dec()

    async def _stream(self, call: Relayed, send: Send, headers: list[Header]) -> None:
        await send({"type": "http.response.start", "status": call.answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})  # the head goes out, whenever the body comes
        held = call.is_held
        end = await call.pump(send)
        while held and end.may_go_on and await self._resumed(call, send):
            end = await call.pump(send)
        await call.finish(send, end)

    async def _resumed(self, call: Relayed, send: Send) -> bool:
        """Rule 7: whether the stream goes on at an engine; waits for one."""
        self._refetch(call, call.engine, "ended a stream")
        await call.pause()
        while not call.over:
            try:
                if await call.within(PING_SECS, self._engines.back(call.key.project)):
                    await self._fetch(call, tries=1)
                    return call.answer.status == HTTPStatus.OK and is_events(call.answer.headers)
                if not call.over:
                    await call.write(send, b": waiting for the engine\n\n")
            except (Unavailable, UpstreamFailed):
                await call.rest()
            except (NotFound, Aborted):
                break
        return False


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _respond(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers})
    await send({"type": "http.response.body", "body": body})
