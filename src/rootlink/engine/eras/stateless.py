"""Stateless clients: 2026-07-28. Every request stands alone and carries its envelope in `params._meta`.

What is checked before a request means anything (the order is the specification's): the envelope is there; the routing headers
say what the body says (a gateway that trusts one and acts on the other could be played); the version is one we speak. Results
get what this revision requires of them: `resultType`, the server's name, and for lists how long they may be kept.

    serve ──► notification   202
          ──► subscriptions/listen   listening.py
          ──► any other request   a Work (parked.py) ──► JSON; a stream, once something is said before the answer or it takes long

Rules
- Closing the response cancels the call, unless it is parked.
- The envelope is ours: it is taken out of `_meta`, and the rest of `_meta` (trace context, a vendor's own) passes.
- A server's requestState leaves sealed for its principal, method and arguments, and comes back opened (bridge.py, tokens.py).
- The hot path puts a result together from bytes: it is decoded only when it holds what we would add.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import secrets
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import msgspec
import structlog
from msgspec import UNSET, Raw
from starlette.types import Receive, Send

from rootlink.engine import rpc, tokens
from rootlink.engine.bridge import ASKING, MISSING_CAPABILITY, RESPONSES, SERVER_INFO, STATE
from rootlink.engine.calls import LEVELS, Client
from rootlink.engine.changes import Changes
from rootlink.engine.dispatch import INVALID_PARAMS, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND, Caller, Dispatch, raw
from rootlink.engine.eras import frames, session
from rootlink.engine.eras.frames import INVALID_REQUEST, PARSE_ERROR, Id, Message, error_frame, result_frame
from rootlink.engine.eras.listening import Listening
from rootlink.engine.eras.parked import KIND as PARKED_KIND
from rootlink.engine.eras.parked import Bound, Parked, Work
from rootlink.engine.eras.stream import EventStream, event
from rootlink.engine.lease import Lease
from rootlink.engine.mounts.mirrors import value_at
from rootlink.engine.rpc import INTERNAL_ERROR, RpcError
from rootlink.engine.tokens import Tokens
from rootlink.wire.engine import STREAM_HEADER

log = structlog.get_logger(__name__)

VERSION = "2026-07-28"
HEADER_MISMATCH, UNSUPPORTED_VERSION = -32020, -32022
META = "io.modelcontextprotocol/"
SPOKEN, INFO, CAPABILITIES, LEVEL = (META + name for name in ("protocolVersion", "clientInfo", "clientCapabilities", "logLevel"))
ENVELOPE = frozenset({SPOKEN, INFO, CAPABILITIES, LEVEL})
STATUS = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
NAMED = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",  # these three: SEP-2663
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
CACHEABLE = frozenset(
    {"server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"}
)
GONE = frozenset({"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"})
STATE_KIND, STATE_SECS = "state", 3600.0
WATCH_SECS, LONG_SECS = 0.05, 10.0  # until we look whether the client is still there; until its wait is a stream with pings
MAX_KNOWN = 4096  # bytes of JSON of info and capabilities; of who says more nothing is remembered

_OURS = b'"resultType":"complete","_meta":' + msgspec.json.encode({SERVER_INFO: session.SERVER_INFO}) + b"}"
_END = ord("}")
_LIFETIME = b'"ttlMs":0,"cacheScope":"private",'
_DECIMAL = re.compile(r"(-?[0-9]{1,4000})(?:\.0+)?\Z")
_JSON = (b"content-type", b"application/json")

Headers = Mapping[str, str]


# what a request must say


def claims(headers: Headers, message: object) -> bool:
    """Whether a request says it is of this era: by its header, or by its envelope."""
    if headers.get("mcp-protocol-version", "").strip() >= VERSION:
        return True
    params = message.get("params") if isinstance(message, dict) else None
    meta = params.get("_meta") if isinstance(params, dict) else None
    return isinstance(meta, dict) and SPOKEN in meta


def http_status(error: RpcError) -> int:
    return STATUS.get(error.code, 200)


def check(headers: Headers, message: Message) -> dict[str, Any]:
    """The request's `_meta`. Raises RpcError with the code the specification gives each fault."""
    params, method = message.get("params", {}), message["method"]
    meta = params.get("_meta")
    if not isinstance(meta, dict) or SPOKEN not in meta or CAPABILITIES not in meta:
        missing = [key for key in (SPOKEN, CAPABILITIES) if not isinstance(meta, dict) or key not in meta]
        raise RpcError(INVALID_PARAMS, f"params._meta lacks {', '.join(missing)}")
    version = meta[SPOKEN]
    _agree(headers, "mcp-protocol-version", version)
    _agree(headers, "mcp-method", method)
    if member := NAMED.get(method):
        said = params.get(member)
        if said is not None or "mcp-name" in headers:
            _agree(headers, "mcp-name", said)
    if not isinstance(version, str):
        raise RpcError(INVALID_PARAMS, f"params._meta {SPOKEN} must be a string")
    if version != VERSION:
        raise _unsupported(version)
    if not isinstance(meta[CAPABILITIES], dict) or not isinstance(meta.get(INFO, {}), dict):
        raise RpcError(INVALID_PARAMS, f"params._meta {CAPABILITIES} and clientInfo must be objects")
    if meta.get(LEVEL) is not None and meta[LEVEL] not in LEVELS:
        raise RpcError(INVALID_PARAMS, f"params._meta {LEVEL} must be one of {', '.join(LEVELS)}")
    return meta


def check_mirrored(headers: Headers, arguments: object, mirrored: Mapping[tuple[str, ...], str]) -> None:
    """`Mcp-Param-*` headers repeat the arguments they stand for, and nothing else. Raises RpcError -32020."""
    for path, token in mirrored.items():
        name = f"mcp-param-{token.lower()}"
        given, value = headers.get(name), value_at(arguments, path)
        if value is None or isinstance(value, (dict, list)):
            if given is not None:
                raise RpcError(HEADER_MISMATCH, f"the {name} header says what the body does not")
        elif given is None:
            raise RpcError(HEADER_MISMATCH, f"the {name} header is required and must repeat the argument {'.'.join(path)}")
        elif not _same(decode_header(given.strip(" \t")), value):
            raise RpcError(HEADER_MISMATCH, f"the {name} header does not say what the argument {'.'.join(path)} says")


def _same(said: str | None, value: Any) -> bool:
    if said is None:
        return False
    if isinstance(value, bool):
        return said == ("true" if value else "false")
    if isinstance(value, str):
        return said == value
    number = _DECIMAL.match(said)
    return (number is not None and int(number[1]) == value) or said == str(value)


def _agree(headers: Headers, name: str, said: object) -> None:
    value = headers.get(name)
    if value is None:
        raise RpcError(HEADER_MISMATCH, f"the {name} header is required and must repeat what the body says")
    if (value != said or value.startswith("=?")) and decode_header(value.strip(" \t")) != said:
        raise RpcError(HEADER_MISMATCH, f"the {name} header does not say what the body says")


def decode_header(value: str) -> str | None:
    """A header value, or what its `=?base64?…?=` form stands for; None when that form is broken, or not what an encoder makes."""
    if not (value.startswith("=?base64?") and value.endswith("?=") and len(value) > 10):
        return value
    try:
        held = base64.b64decode(value[9:-2], validate=True)
        return held.decode() if base64.b64encode(held).decode() == value[9:-2] else None
    except (binascii.Error, ValueError):
        return None


def _unsupported(version: str) -> RpcError:
    return RpcError(UNSUPPORTED_VERSION, "Unsupported protocol version", {"supported": [VERSION], "requested": version})


# who asks


def client_of(caller: Caller, meta: Mapping[str, Any]) -> Client:
    """Equal requests get the very same Client."""
    said = msgspec.json.encode((meta.get(INFO) or {}, meta[CAPABILITIES]))
    if len(said) > session.MAX_INTRODUCTION:
        raise RpcError(INVALID_PARAMS, f"clientInfo and clientCapabilities are larger than {session.MAX_INTRODUCTION} bytes")
    if len(said) > MAX_KNOWN:
        return _client.__wrapped__(caller.principal, caller.ws, said)
    return _client(caller.principal, caller.ws, said)


@lru_cache(maxsize=1024)
def _client(principal: str, ws: str, said: bytes) -> Client:
    info, capabilities = msgspec.json.decode(said)
    return Client(tokens.digest([principal, ws, info, capabilities]).hex(), True, VERSION, info, capabilities)


# what a result must carry


class _Added(msgspec.Struct):
    """What of a result may be there already. One pass, faster than to search the bytes for these names."""

    resultType: Raw | msgspec.UnsetType = UNSET
    meta: Raw | msgspec.UnsetType = msgspec.field(default=UNSET, name="_meta")
    ttlMs: Raw | msgspec.UnsetType = UNSET
    cacheScope: Raw | msgspec.UnsetType = UNSET


_NOTHING_ADDED = _Added()
_added = msgspec.json.Decoder(_Added)


def complete(method: str, result: Raw, seal: Callable[[str], str] | None = None) -> bytes:
    """A result as this revision wants it; its own type and lifetime stay. `seal` makes our requestState of a server's."""
    held = memoryview(result)
    if _added.decode(result) == _NOTHING_ADDED and held[-1] == _END:
        separator = b"" if len(held) < 8 and not bytes(held[1:-1]).strip() else b","
        return b"".join((held[:-1], separator, _LIFETIME if method in CACHEABLE else b"", _OURS))
    members = msgspec.json.decode(result, type=dict[str, Raw])
    members.setdefault("resultType", raw("complete"))
    members["_meta"] = raw({**rpc.members(members.get("_meta", UNSET)), SERVER_INFO: session.SERVER_INFO})
    kind = rpc.value(members["resultType"])
    if method in CACHEABLE and kind == "complete":
        members.setdefault("ttlMs", raw(0))
        members.setdefault("cacheScope", raw("private"))
    if seal is not None and kind == "input_required" and isinstance(state := rpc.value(members.get(STATE, UNSET)), str):
        members[STATE] = raw(seal(state))
    return msgspec.json.encode(members)


class Stateless:
    """What a stateless POST is answered with. `listening.watches` is where an extension adds to `subscriptions/listen`."""

    def __init__(self, dispatch: Dispatch, changes: Changes, lease: Lease, seals: Tokens | None = None) -> None:
        self._dispatch = dispatch
        self._tokens = seals or Tokens(secrets.token_bytes(tokens.KEY_BYTES))
        self.parked = Parked(self._tokens, lease)
        self.listening = Listening(dispatch, changes, lease)

    async def serve(self, caller: Caller, headers: Headers, message: object, receive: Receive, send: Send) -> None:
        """One POST whose body is `message`. Raises what nobody expected, before anything was sent."""
        try:
            await self._serve(caller, headers, frames.check(message), receive, send)
        except RpcError as error:
            await _respond(send, http_status(error), refusal(message, error))

    async def _serve(self, caller: Caller, headers: Headers, message: Message, receive: Receive, send: Send) -> None:
        if "id" not in message:
            version = headers.get("mcp-protocol-version", VERSION).strip(" \t")
            if version != VERSION:
                raise _unsupported(version)
            await _respond(send, 202)
            return
        if "method" not in message:
            raise RpcError(INVALID_REQUEST, "a stateless client sends requests, never responses")
        meta = check(headers, message)
        client, method = client_of(caller, meta), message["method"]
        if method == "subscriptions/listen":
            again = headers.get(STREAM_HEADER) == "again"
            await self.listening.serve(caller, client, message, receive, send, again=again)
        elif method == "server/discover":
            found = raw(self._discover(caller, client))
            await _respond(send, 200, result_frame(message["id"], complete(method, found)))
        elif method in GONE:
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method} does not exist in {VERSION}")
        else:
            work = self._work(caller, client, headers, message, meta)
            await _Exchange(work, message, self._final, reads=_reads(headers)).run(receive, send)

    def _discover(self, caller: Caller, client: Client) -> dict[str, Any]:
        found: dict[str, Any] = {
            "supportedVersions": [VERSION],
            "capabilities": self._dispatch.capabilities(caller.ws, client),
        }
        if instructions := self._dispatch.view(caller.ws, client).instructions:
            found["instructions"] = instructions
        return found

    def _work(self, caller: Caller, client: Client, headers: Headers, message: Message, meta: dict[str, Any]) -> Work:
        """Begun anew, or taken up where it waited for this request. Raises RpcError."""
        method, params = message["method"], message["params"]
        if method == "tools/call":
            mirrored = self._dispatch.view(caller.ws, client).mirrored
            if mirrored and (of_tool := mirrored.get(params.get("name"))):
                check_mirrored(headers, params.get("arguments"), of_tool)
        asked = _without_envelope(params, meta)

        def bound() -> Bound:
            return caller.principal, caller.ws, method, tokens.digest(_arguments(params))

        if method in ASKING and (RESPONSES in params or STATE in params):
            state = _carried(params)
            if tokens.kind_of(state) == PARKED_KIND:
                work = self.parked.find(state, bound())
                work.answered(client, params, meta.get(LEVEL))
                return work
            if state is not None:
                asked[STATE] = self._tokens.open(STATE_KIND, state, *bound()).decode()
        work = Work(client, params, meta.get(LEVEL), self.parked, bound, asks=method in ASKING)
        work.start(self._dispatch.handle(caller, method, asked, work))
        return work

    def _final(self, work: Work, message: Message) -> tuple[int, bytes]:
        """HTTP status and frame of what a work came to. Raises what nobody expected."""
        id, method, outcome = message["id"], message["method"], work.outcome
        if work.parked:
            return 200, result_frame(id, complete(method, Raw(work.asked)))
        if isinstance(outcome, Raw):
            return 200, result_frame(id, complete(method, outcome, partial(self._sealed, work) if method in ASKING else None))
        if isinstance(outcome, asyncio.CancelledError):
            outcome = RpcError(INTERNAL_ERROR, "Request cancelled")
        if not isinstance(outcome, RpcError):
            assert outcome is not None
            raise outcome
        if outcome.code == RESOURCE_NOT_FOUND:
            outcome = RpcError(INVALID_PARAMS, outcome.message, outcome.data)
        return http_status(outcome), error_frame(id, outcome)

    def _sealed(self, work: Work, state: str) -> str:
        return self._tokens.seal(STATE_KIND, state.encode(), *work.bound(), ttl=STATE_SECS)

    def close_all(self) -> None:
        """At engine stop."""
        self.listening.close_all()
        self.parked.close_all()


class _Exchange:
    """One POST that waits for a work, until it is done, parked, or the client gone. `final` makes its last frame."""

    def __init__(self, work: Work, message: Message, final: Callable[[Work, Message], tuple[int, bytes]], *, reads: bool) -> None:
        self._work, self._message, self._final, self._reads = work, message, final, reads
        self._turn: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self, receive: Receive, send: Send) -> None:
        work = self._work
        try:
            what = await self._until_something(receive)
            if what in ("said", "long"):
                await self._stream(receive, send)
            elif what != "gone":
                await _respond(send, *self._final(work, self._message))
        finally:
            work.leave()
            if work.outcome is None and not work.parked:
                await work.cancel()

    async def _until_something(self, receive: Receive) -> str:
        watch = _Watch(receive, self._turned, reads=self._reads)
        try:
            self._work.attend(self._turned, reads=self._reads)
            self._work.catch_up()
            return await self._turn
        finally:
            if watch.close():
                await watch.closed()

    def _turned(self, what: str) -> None:
        if not self._turn.done():
            self._turn.set_result(what)

    async def _stream(self, receive: Receive, send: Send) -> None:
        stream = EventStream()

        def turned(what: str) -> None:
            if what in ("done", "asked"):
                stream.push(event(self._last()))
                stream.end()

        self._work.read(lambda frame: stream.push(event(frame)))
        self._work.attend(turned, reads=True)
        await stream.serve(receive, send)

    def _last(self) -> bytes:
        try:
            return self._final(self._work, self._message)[1]
        except Exception:
            log.exception("request broke", method=self._message["method"][:80])
            return error_frame(self._message["id"], RpcError(INTERNAL_ERROR, "Internal error"))


class _Watch:
    """Sees that a client went away ("gone"), and that its call takes long ("long", for who `reads` streams). Most calls are over
    before it looks at all: it costs them a timer."""

    def __init__(self, receive: Receive, turn: Callable[[str], None], *, reads: bool) -> None:
        self._receive, self._turn, self._reads = receive, turn, reads
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(WATCH_SECS, self._begin)
        self._task: asyncio.Task[None] | None = None

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._look())
        if self._reads:
            self._timer = self._loop.call_later(LONG_SECS - WATCH_SECS, self._turn, "long")

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._turn("gone")

    def close(self) -> bool:
        """True when there is something to wait for (`closed`)."""
        self._timer.cancel()
        return self._task is not None and self._task.cancel()

    async def closed(self) -> None:
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


def _reads(headers: Headers) -> bool:
    return "text/event-stream" in headers.get("accept", "")


def _without_envelope(params: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    asked = dict(params)
    rest = {key: value for key, value in meta.items() if key not in ENVELOPE}
    if rest:
        asked["_meta"] = rest
    else:
        del asked["_meta"]
    return asked


def _arguments(params: dict[str, Any]) -> dict[str, Any]:
    """What makes a request the same one when it is retried."""
    return {name: value for name, value in params.items() if name not in (RESPONSES, STATE, "_meta")}


def _carried(params: dict[str, Any]) -> str | None:
    """The requestState. Raises RpcError for members of a retry that have the wrong shape."""
    if not isinstance(params.get(RESPONSES, {}), dict):
        raise RpcError(INVALID_PARAMS, f"{RESPONSES} must be an object")
    if not isinstance(params.get(STATE, ""), str):
        raise RpcError(INVALID_PARAMS, f"{STATE} must be a string")
    return params.get(STATE)


def refusal(message: object, error: RpcError) -> bytes:
    """The error frame for a request that may not have a usable id."""
    id: Id | None = message.get("id") if isinstance(message, dict) else None
    return error_frame(id if isinstance(id, (int, str)) and not isinstance(id, bool) else None, error)


async def _respond(send: Send, status: int, body: bytes = b"") -> None:
    headers = [(b"content-length", str(len(body)).encode())] + ([_JSON] if body else [])
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
