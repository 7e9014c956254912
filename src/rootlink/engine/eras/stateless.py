"""Stateless clients: 2026-07-28. Every request stands alone and carries its envelope in `params._meta`.

What is checked before a request means anything (the order is the specification's): the envelope is there; the routing headers
say what the body says (a gateway that trusts one and acts on the other could be played); the version is one we speak. Results
get what this revision requires of them: `resultType`, the server's name, and for lists how long they may be kept. Closing the
response stream cancels the call.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from rootlink.engine.calls import Client
from rootlink.engine.changes import KINDS, METHODS, Changes
from rootlink.engine.dispatch import INVALID_PARAMS, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND, Caller, Dispatch, raw
from rootlink.engine.eras.frames import INVALID_REQUEST, PARSE_ERROR, Message, error_frame, notification_frame, result_frame
from rootlink.engine.eras.running import Running
from rootlink.engine.eras.session import SERVER_INFO
from rootlink.engine.eras.stream import EventStream, event
from rootlink.engine.rpc import RpcError

VERSION = "2026-07-28"
HEADER_MISMATCH, UNSUPPORTED_VERSION = -32020, -32022
META = "io.modelcontextprotocol/"
STATUS = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
CACHEABLE = frozenset(
    {"server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"}
)
GONE = frozenset({"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"})
FILTERS = {kind: f"{kind}ListChanged" for kind in KINDS}


def claims(headers: Mapping[str, str], message: object) -> bool:
    """Whether a request says it is of this era: by its header, or by its envelope."""
    if headers.get("mcp-protocol-version", "") >= VERSION:
        return True
    params = message.get("params") if isinstance(message, dict) else None
    meta = params.get("_meta") if isinstance(params, dict) else None
    return isinstance(meta, dict) and META + "protocolVersion" in meta


def http_status(error: RpcError) -> int:
    return STATUS.get(error.code, 200)


def check(headers: Mapping[str, str], message: Message) -> dict[str, Any]:
    """The request's `_meta`. Raises RpcError with the code the specification gives each fault."""
    params = message.get("params", {})
    meta = params.get("_meta")
    required = (META + "protocolVersion", META + "clientCapabilities")
    missing = [key for key in required if not isinstance(meta, dict) or key not in meta]
    if missing or not isinstance(meta, dict):
        raise RpcError(INVALID_PARAMS, f"params._meta lacks {', '.join(missing)}")
    version = meta[META + "protocolVersion"]
    _agree(headers, "mcp-protocol-version", version)
    _agree(headers, "mcp-method", message["method"])
    if member := NAMED.get(message["method"]):
        _agree(headers, "mcp-name", params.get(member))
    if not isinstance(version, str):
        raise RpcError(INVALID_PARAMS, f"params._meta {META}protocolVersion must be a string")
    if version != VERSION:
        raise RpcError(UNSUPPORTED_VERSION, "Unsupported protocol version", {"supported": [VERSION], "requested": version})
    return meta


def _agree(headers: Mapping[str, str], name: str, said: object) -> None:
    value = headers.get(name)
    if value is None:
        raise RpcError(HEADER_MISMATCH, f"the {name} header is required and must repeat what the body says")
    if decode_header(value.strip()) != said:
        raise RpcError(HEADER_MISMATCH, f"the {name} header does not say what the body says")


def decode_header(value: str) -> str | None:
    """A header value, or what its `=?base64?…?=` form stands for; None when that form is broken."""
    if not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        return base64.b64decode(value[9:-2], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def complete(method: str, result: msgspec.Raw) -> bytes:
    """A result as this revision wants it: only the top level is looked at, everything below passes as bytes."""
    members = msgspec.json.decode(result, type=dict[str, msgspec.Raw])
    members.setdefault("resultType", raw("complete"))
    meta = msgspec.json.decode(members["_meta"], type=dict[str, msgspec.Raw]) if "_meta" in members else {}
    meta[META + "serverInfo"] = raw(SERVER_INFO)
    members["_meta"] = raw(meta)
    if method in CACHEABLE:
        members.setdefault("ttlMs", raw(0))
        members.setdefault("cacheScope", raw("private"))
    return msgspec.json.encode(members)


class Stateless:
    def __init__(self, dispatch: Dispatch, changes: Changes) -> None:
        self._dispatch, self._changes = dispatch, changes
        self._streams: set[EventStream] = set()

    async def answer(self, caller: Caller, message: Message, emit: Callable[[bytes], object]) -> bytes:
        """The result frame of one request. Raises RpcError; progress goes to `emit` as frames."""
        method, params = message["method"], message.get("params", {})
        if method == "server/discover":
            return result_frame(message["id"], complete(method, raw(self._discover(caller))))
        if method in GONE:
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method} does not exist in {VERSION}")
        asked = {**params, "_meta": {key: value for key, value in params["_meta"].items() if not key.startswith(META)}}
        if not asked["_meta"]:
            del asked["_meta"]
        try:
            result = await self._dispatch.handle(
                caller, method, asked, Running(_client(caller, params["_meta"]), params, None, emit)
            )
        except RpcError as error:
            if error.code == RESOURCE_NOT_FOUND:
                raise RpcError(INVALID_PARAMS, error.message, error.data) from error
            raise
        return result_frame(message["id"], complete(method, result))

    def _discover(self, caller: Caller) -> dict[str, Any]:
        found: dict[str, Any] = {"supportedVersions": [VERSION], "capabilities": self._dispatch.capabilities()}
        if instructions := self._dispatch.view(caller.ws).instructions:
            found["instructions"] = instructions
        return found

    async def listen(self, caller: Caller, message: Message, serve: Callable[[EventStream], Any]) -> None:
        """`subscriptions/listen`: acknowledge, then every change the client asked for, each tagged with the request's id."""
        wanted = message.get("params", {}).get("notifications")
        if not isinstance(wanted, dict):
            raise RpcError(INVALID_PARAMS, "subscriptions/listen needs `notifications`, an object")
        kinds = {kind for kind, member in FILTERS.items() if wanted.get(member) is True}
        tag = {"_meta": {META + "subscriptionId": message["id"]}}
        stream = EventStream()

        def tell(changed: set[str]) -> bool:
            heard = [stream.push(event(notification_frame(METHODS[kind], tag))) for kind in sorted(changed & kinds)]
            return bool(heard) and all(heard)

        honoured = {FILTERS[kind]: True for kind in sorted(kinds)}
        stream.push(event(notification_frame("notifications/subscriptions/acknowledged", {"notifications": honoured, **tag})))
        self._streams.add(stream)
        try:
            with self._changes.listen(caller.ws, tell):
                await serve(stream)
        finally:
            self._streams.discard(stream)

    def close_all(self) -> None:
        for stream in self._streams:
            stream.end()


def _client(caller: Caller, meta: dict[str, Any]) -> Client:
    info, capabilities = meta.get(META + "clientInfo"), meta.get(META + "clientCapabilities")
    return Client(
        caller.principal,
        True,
        VERSION,
        info if isinstance(info, dict) else {},
        capabilities if isinstance(capabilities, dict) else {},
    )


def refusal(message: object, error: RpcError) -> bytes:
    """The error frame for a request that may not have a usable id."""
    id = message.get("id") if isinstance(message, dict) else None
    return error_frame(id if isinstance(id, (int, str)) and not isinstance(id, bool) else None, error)


async def until_done_or_gone(work: asyncio.Future[Any], gone: asyncio.Future[Any]) -> bool:
    """Wait for `work`; False, and `work` cancelled, when the client went away first."""
    await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        return True
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return False
