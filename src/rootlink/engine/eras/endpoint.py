"""`/mcp`, `/mcp/{ws}` and their `/sse`: which era a request is of, and the HTTP it is answered with. Raw ASGI: the hot path.

POST …          session or stateless, told apart by header and envelope
GET  …          a session's stream of notices
DELETE …        ends a session
GET  …/sse      2024-11-05: the stream; its first event names where to post
POST …/sse/messages?session=ID
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.types import Receive, Scope, Send

from rootlink import names
from rootlink.engine.changes import Changes
from rootlink.engine.dispatch import Caller, Dispatch, raw
from rootlink.engine.eras import frames, stateless
from rootlink.engine.eras.session import OVER_SSE, VERSIONS, Session, SessionCall, Sessions
from rootlink.engine.eras.stateless import Stateless
from rootlink.engine.eras.stream import EventStream, event
from rootlink.engine.lease import Lease
from rootlink.engine.rpc import RpcError
from rootlink.engine.state import State
from rootlink.engine.tokens import Tokens
from rootlink.errors import NotFound, RootlinkError, TooLarge, envelope
from rootlink.wire.engine import PRINCIPAL_HEADER, SCOPES_HEADER, STREAM_HEADER

MAX_BODY = 8 << 20
_JSON = (b"content-type", b"application/json")

Headers = dict[str, str]


def headers_of(scope: Scope) -> Headers:
    """By name, lower-cased; of a repeated one the last (the gateway refuses those that count)."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def caller_of(ws: str, headers: Headers) -> Caller:
    return _caller(ws, headers.get(PRINCIPAL_HEADER, ""), headers.get(SCOPES_HEADER, ""))


@lru_cache(maxsize=1024)
def _caller(ws: str, principal: str, scopes: str) -> Caller:
    return Caller(names.workspace_name(ws), principal, frozenset(scopes.split(",")))


async def read_body(receive: Receive) -> bytes:
    """The whole request body. Raises TooLarge past 8 MiB."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    parts = [body]
    size = len(body)
    while message.get("more_body"):
        message = await receive()
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            raise TooLarge(f"the request is larger than {MAX_BODY} bytes")
        parts.append(part)
    return b"".join(parts)


async def respond(send: Send, status: int, body: bytes = b"", *headers: tuple[bytes, bytes]) -> None:
    fixed = [(b"content-length", str(len(body)).encode())] + ([_JSON] if body else [])
    await send({"type": "http.response.start", "status": status, "headers": fixed + list(headers)})
    await send({"type": "http.response.body", "body": body})


class Unfit(RpcError):
    """A request HTTP has a status of its own for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(frames.INVALID_REQUEST, message)
        self.status = status


class Accepts(Enum):
    """What a POST may be answered with. `*/*` is JSON: who can read streams says so."""

    JSON = auto()
    EVENTS = auto()
    BOTH = auto()


JSON, EVENTS, BOTH = Accepts


@lru_cache(maxsize=256)
def accepted(accept: str) -> Accepts | None:
    """Of an Accept header ("" for none, which allows anything); None when neither JSON nor a stream will do."""
    kinds = {kind.partition(";")[0].strip().lower() for kind in accept.split(",")}
    json = not kinds.isdisjoint(("", "*/*", "application/*", "application/json"))
    if "text/event-stream" in kinds:
        return BOTH if json else EVENTS
    return JSON if json else EVENTS if "text/*" in kinds else None


def _check_type(headers: Headers) -> None:
    kind = headers.get("content-type", "")
    if kind != "application/json" and kind.partition(";")[0].strip().lower() != "application/json":
        raise Unfit(415, "Unsupported Media Type: Content-Type must be application/json")


class McpEndpoint:
    """ASGI application for every path under `/mcp`. `seals` are for what stateless clients carry."""

    def __init__(self, dispatch: Dispatch, state: State, changes: Changes, lease: Lease, seals: Tokens | None = None) -> None:
        self.sessions = Sessions(dispatch, state, changes)
        self.stateless = Stateless(dispatch, changes, lease, seals)
        self._lease = lease

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        try:
            ws, rest = _split(scope["path"])
            caller = caller_of(ws, headers)
            act = _ROUTES.get((scope["method"], rest))
            if act is None:
                await respond(send, 405, b"", (b"allow", b"GET, POST" if rest else b"GET, POST, DELETE"))
                return
            await act(self, caller, headers, scope, receive, send)
        except Unfit as error:
            await respond(send, error.status, frames.error_frame(None, error))
        except RpcError as error:
            await respond(send, 400, frames.error_frame(None, error))
        except RootlinkError as error:
            await respond(send, error.status, msgspec.json.encode(envelope(error)))

    def close(self) -> None:
        self.sessions.close_all()
        self.stateless.close_all()

    # POST

    async def _post(self, caller: Caller, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        _check_type(headers)
        body = await read_body(receive)
        message = frames.parse(body)
        if stateless.claims(headers, message):
            await self.stateless.serve(caller, headers, message, receive, send)
        elif isinstance(message, list):
            await self._post_batch(caller, headers, message, receive, send)
        else:
            await self._post_session(caller, headers, frames.check(message), body, receive, send)

    async def _post_session(
        self, caller: Caller, headers: Headers, message: frames.Message, body: bytes, receive: Receive, send: Send
    ) -> None:
        accepts = accepted(headers.get("accept", ""))
        if accepts is None:
            raise Unfit(406, "Not Acceptable: the client must accept application/json or text/event-stream")
        if message.get("method") == "initialize" and "id" in message:
            session, frame = self.sessions.initialize(caller, message)
            await respond(send, 200, frame, (b"mcp-session-id", session.id.encode()))
            return
        session = self._session(caller, headers)
        if "method" in message and "id" in message:
            await self._answer(caller, session, message, accepts, receive, send)
            return
        if "method" in message:
            self.sessions.notice(caller, session, message)
        else:
            self.sessions.answered(session, msgspec.Raw(body))
        await respond(send, 202)

    async def _answer(
        self, caller: Caller, session: Session, message: frames.Message, accepts: Accepts, receive: Receive, send: Send
    ) -> None:
        """One JSON body, or a stream when something had to be said before the answer, or the client takes nothing else. A call
        its client cancelled is not answered on a stream."""
        serve = (lambda stream: stream.serve(receive, send)) if accepts is not JSON else None
        call = SessionCall(session, message.get("params", {}), serve)
        answer = await self.sessions.answer(caller, session, message, call)
        if call.tape is None and accepts is not EVENTS:
            await respond(send, 200, answer)
        else:
            await call.finish(None if call.cancelled else answer)

    async def _post_batch(self, caller: Caller, headers: Headers, batch: list[Any], receive: Receive, send: Send) -> None:
        """Batches exist in 2025-03-26 only. An empty one is invalid; one of notifications and responses has no answer."""
        session = self._session(caller, headers)
        if session.version != "2025-03-26" or not 0 < len(batch) <= 100:
            raise RpcError(frames.INVALID_REQUEST, "Invalid Request: batches are for 2025-03-26 clients, 1 to 100 messages")
        messages = [frames.check(message) for message in batch]
        for message in messages:
            self._hear(caller, session, message)
        requests = [message for message in messages if "method" in message and "id" in message]
        calls = [SessionCall(session, message.get("params", {}), None) for message in requests]
        answers = await asyncio.gather(
            *(self.sessions.answer(caller, session, message, call) for message, call in zip(requests, calls, strict=True))
        )
        await respond(send, 200 if answers else 202, b"[" + b",".join(answers) + b"]" if answers else b"")

    def _hear(self, caller: Caller, session: Session, message: frames.Message) -> None:
        """What needs no answer: a notification, or a response. Nothing is done about a request."""
        if "method" not in message:
            self.sessions.answered(session, raw(message))
        elif "id" not in message:
            self.sessions.notice(caller, session, message)

    def _session(self, caller: Caller, headers: Headers) -> Session:
        id = headers.get("mcp-session-id")
        if id is None:
            raise RpcError(frames.INVALID_REQUEST, "Bad Request: Mcp-Session-Id is missing; send initialize first")
        session = self.sessions.find(caller, id)
        if session is None:
            raise NotFound("no such session; send initialize again")
        version = headers.get("mcp-protocol-version")
        if version is not None and version not in VERSIONS:
            raise RpcError(frames.INVALID_REQUEST, f"Bad Request: unsupported protocol version; this server speaks {VERSIONS}")
        return session

    # GET, DELETE

    async def _get(self, caller: Caller, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        if "text/event-stream" not in headers.get("accept", ""):
            await respond(send, 406)
            return
        session, stream = self._session(caller, headers), EventStream()
        more = [(b"mcp-session-id", session.id.encode())]
        found = session.shelf.find(headers.get("last-event-id", ""))
        if found is None:
            tape = session.stand(stream)
        elif not found[0].of_call:
            tape = session.stand(stream, *found)
        else:
            tape, after = found
            if tape.over and after == tape.last:  # it has all of it; any other answer and clients come back every second
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
            tape.play(stream, after)
            more.append((STREAM_HEADER.encode(), b"call"))
        try:
            with self._lease.stream():
                await stream.serve(receive, send, more)
        finally:
            tape.leave(stream)

    async def _delete(self, caller: Caller, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        self.sessions.close(self._session(caller, headers))
        await respond(send, 200)

    # 2024-11-05

    async def _get_sse(self, caller: Caller, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        session, stream = self.sessions.open(caller, OVER_SSE, kept=False), EventStream()
        stream.push(event(f"{scope['path']}/messages?session={session.id}".encode(), "endpoint"))
        session.stand(stream)
        try:
            with self._lease.stream():
                await stream.serve(receive, send)
        finally:
            self.sessions.close(session)

    async def _post_sse(self, caller: Caller, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        """202 at once; the answer goes down the stream. The request lasts as long as the call, so nothing runs unowned."""
        ids = parse_qs(scope["query_string"].decode("latin-1")).get("session", [])
        session = self.sessions.find(caller, ids[0]) if ids else None
        if session is None or session.kept or session.standing is None:
            raise NotFound("no such session; open the SSE stream again")
        _check_type(headers)
        body = await read_body(receive)
        message = frames.check(frames.parse(body))
        await respond(send, 202)
        if message.get("method") == "initialize" and "id" in message:
            session.say(self._introduced(caller, session, message))
        elif "method" in message and "id" in message:
            call = SessionCall(session, message.get("params", {}), None)
            answer = await self.sessions.answer(caller, session, message, call)
            if not call.cancelled:
                session.say(answer)
        else:
            self._hear(caller, session, message)

    def _introduced(self, caller: Caller, session: Session, message: frames.Message) -> bytes:
        try:
            return self.sessions.initialize(caller, message, session)[1]
        except RpcError as error:
            return frames.error_frame(message["id"], error)


def _split(path: str) -> tuple[str, str]:
    """`/mcp[/{ws}][/sse[/messages]]` as (workspace, rest). A workspace can't be called `sse`."""
    parts = path.strip("/").split("/")[1:]
    ws = parts.pop(0) if parts and parts[0] != "sse" else "main"
    rest = "/".join(parts)
    if rest not in ("", "sse", "sse/messages"):
        raise NotFound(f"nothing is served under {path[:200]}; MCP is at /mcp, /mcp/WORKSPACE, /mcp/sse and /mcp/WORKSPACE/sse")
    return ws, rest


_ROUTES = {
    ("POST", ""): McpEndpoint._post,
    ("GET", ""): McpEndpoint._get,
    ("DELETE", ""): McpEndpoint._delete,
    ("GET", "sse"): McpEndpoint._get_sse,
    ("POST", "sse/messages"): McpEndpoint._post_sse,
}
