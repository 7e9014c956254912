"""`/mcp`, `/mcp/{ws}` and their `/sse`: which era a request is of, and the HTTP it is answered with. Raw ASGI: the hot path.

POST …          session or stateless, told apart by header and envelope
GET  …          a session's stream of notices
DELETE …        ends a session
GET  …/sse      2024-11-05: the stream; its first event names where to post
POST …/sse/messages?session=ID
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.types import Receive, Scope, Send

from rootlink import names
from rootlink.engine.changes import Changes
from rootlink.engine.dispatch import Caller, Dispatch
from rootlink.engine.eras import frames, stateless
from rootlink.engine.eras.session import VERSIONS, Session, Sessions
from rootlink.engine.eras.stateless import Stateless
from rootlink.engine.eras.stream import EventStream, event
from rootlink.engine.lease import Lease
from rootlink.engine.rpc import RpcError
from rootlink.engine.state import State
from rootlink.errors import NotFound, RootlinkError, TooLarge, envelope
from rootlink.wire.engine import PRINCIPAL_HEADER, SCOPES_HEADER

MAX_BODY = 8 << 20
_JSON = (b"content-type", b"application/json")

Headers = dict[str, str]


def headers_of(scope: Scope) -> Headers:
    """By name, lower-cased; of a repeated one the last (the gateway refuses those that count)."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def caller_of(ws: str, headers: Headers) -> Caller:
    scopes = frozenset(headers.get(SCOPES_HEADER, "").split(","))
    return Caller(names.workspace_name(ws), headers.get(PRINCIPAL_HEADER, ""), scopes)


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


class McpEndpoint:
    """ASGI application for every path under `/mcp`."""

    def __init__(self, dispatch: Dispatch, state: State, changes: Changes, lease: Lease) -> None:
        self.sessions = Sessions(dispatch, state, changes)
        self.stateless = Stateless(dispatch, changes)
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
        except RpcError as error:
            await respond(send, 400, frames.error_frame(None, error))
        except RootlinkError as error:
            await respond(send, error.status, msgspec.json.encode(envelope(error)))

    def close(self) -> None:
        self.sessions.close_all()
        self.stateless.close_all()

    # POST

    async def _post(self, caller: Caller, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        message = frames.parse(await read_body(receive))
        if stateless.claims(headers, message):
            await self._post_stateless(caller, headers, message, receive, send)
        elif isinstance(message, list):
            await self._post_batch(caller, headers, message, receive, send)
        else:
            await self._post_session(caller, headers, frames.check(message), receive, send)

    async def _post_stateless(self, caller: Caller, headers: Headers, message: Any, receive: Receive, send: Send) -> None:
        try:
            checked = frames.check(message)
            if "id" not in checked:
                await respond(send, 202)
                return
            if "method" not in checked:
                raise RpcError(frames.INVALID_REQUEST, "a stateless client sends requests, never responses")
            stateless.check(headers, checked)
            if checked["method"] == "subscriptions/listen":

                async def serve(stream: EventStream) -> None:
                    with self._lease.stream():
                        await stream.serve(receive, send)

                await self.stateless.listen(caller, checked, serve)
                return
            await self._answer_stateless(caller, checked, receive, send)
        except RpcError as error:
            await respond(send, stateless.http_status(error), stateless.refusal(message, error))

    async def _answer_stateless(self, caller: Caller, message: frames.Message, receive: Receive, send: Send) -> None:
        """JSON, or an event stream once the call reports progress. A client that closes it cancels the call."""
        stream = EventStream()
        work = asyncio.ensure_future(self.stateless.answer(caller, message, lambda frame: stream.push(event(frame))))
        if _wants_progress(message):
            await _stream_answer(stream, work, message, receive, send)
            return
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            if await stateless.until_done_or_gone(work, gone):
                await respond(send, 200, work.result())
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    async def _post_session(
        self, caller: Caller, headers: Headers, message: frames.Message, receive: Receive, send: Send
    ) -> None:
        if message.get("method") == "initialize" and "id" in message:
            session, frame = self.sessions.initialize(caller, message)
            await respond(send, 200, frame, (b"mcp-session-id", session.id.encode()))
            return
        session = self._session(caller, headers)
        if "method" not in message:
            await respond(send, 202)
        elif "id" not in message:
            self.sessions.notice(session, message)
            await respond(send, 202)
        elif _wants_progress(message) and "text/event-stream" in headers.get("accept", ""):
            stream = EventStream()
            work = asyncio.ensure_future(self.sessions.answer(caller, session, message, lambda frame: stream.push(event(frame))))
            await _stream_answer(stream, work, message, receive, send)
        else:
            await respond(send, 200, await self.sessions.answer(caller, session, message, lambda frame: None))

    async def _post_batch(self, caller: Caller, headers: Headers, batch: list[Any], receive: Receive, send: Send) -> None:
        """Batches exist in 2025-03-26 only. An empty one is invalid; one of notifications has no answer."""
        session = self._session(caller, headers)
        if session.version != "2025-03-26" or not 0 < len(batch) <= 100:
            raise RpcError(frames.INVALID_REQUEST, "Invalid Request: batches are for 2025-03-26 clients, 1 to 100 messages")
        messages = [frames.check(message) for message in batch]
        for message in messages:
            if "method" in message and "id" not in message:
                self.sessions.notice(session, message)
        requests = [message for message in messages if "method" in message and "id" in message]
        answers = await asyncio.gather(*(self.sessions.answer(caller, session, m, lambda frame: None) for m in requests))
        await respond(send, 200 if answers else 202, b"[" + b",".join(answers) + b"]" if answers else b"")

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
        session.attach(stream)
        with self._lease.stream():
            await stream.serve(receive, send, [(b"mcp-session-id", session.id.encode())])

    async def _delete(self, caller: Caller, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        self.sessions.close(self._session(caller, headers))
        await respond(send, 200)

    # 2024-11-05

    async def _get_sse(self, caller: Caller, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        session, stream = self.sessions.open(caller, "2024-11-05"), EventStream()
        stream.push(event(f"{scope['path']}/messages?session={session.id}".encode(), "endpoint"))
        session.attach(stream)
        try:
            with self._lease.stream():
                await stream.serve(receive, send)
        finally:
            self.sessions.close(session)

    async def _post_sse(self, caller: Caller, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        """202 at once; the answer goes down the stream. The request lasts as long as the call, so nothing runs unowned."""
        ids = parse_qs(scope["query_string"].decode("latin-1")).get("session", [])
        session = self.sessions.find(caller, ids[0]) if ids else None
        if session is None or session.stream is None or not session.stream.open:
            raise NotFound("no such session; open the SSE stream again")
        message = frames.check(frames.parse(await read_body(receive)))
        stream = session.stream
        await respond(send, 202)
        if message.get("method") == "initialize" and "id" in message:
            frame = self._initialize_sse(caller, session, message)
        elif "method" in message and "id" in message:
            frame = await self.sessions.answer(caller, session, message, lambda progress: stream.push(event(progress)))
        else:
            self.sessions.notice(session, message)
            return
        stream.push(event(frame))

    def _initialize_sse(self, caller: Caller, session: Session, message: frames.Message) -> bytes:
        """The session is there already (its stream is); the handshake only agrees on 2024-11-05."""
        fresh, frame = self.sessions.initialize(caller, {**message, "params": {"protocolVersion": "2024-11-05"}})
        self.sessions.close(fresh)
        return frame


async def _stream_answer(
    stream: EventStream, work: asyncio.Future[bytes], message: frames.Message, receive: Receive, send: Send
) -> None:
    """Progress frames as they come, the answer last, then the end."""

    def finish(done: asyncio.Future[bytes]) -> None:
        if not done.cancelled():
            error = done.exception()
            if isinstance(error, RpcError):
                stream.push(event(stateless.refusal(message, error)))
            elif error is None:
                stream.push(event(done.result()))
        stream.end()

    work.add_done_callback(finish)
    try:
        await stream.serve(receive, send)
    finally:
        if not work.done():
            work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def _wants_progress(message: frames.Message) -> bool:
    meta = message.get("params", {}).get("_meta")
    return isinstance(meta, dict) and meta.get("progressToken") is not None


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


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
