"""JSON-RPC in and out: one message's shape checked once, answers put together from bytes that are JSON already."""

from __future__ import annotations

from typing import Any

import msgspec

from rootlink.engine.rpc import UNREADABLE, RpcError, mend

PARSE_ERROR, INVALID_REQUEST = -32700, -32600

Message = dict[str, Any]
Id = int | str


def parse(body: bytes) -> Any:
    """The JSON value of a request body; a lone surrogate in it is U+FFFD, as in a server's. Raises RpcError -32700."""
    try:
        return msgspec.json.decode(body)
    except UNREADABLE:
        pass
    try:
        return msgspec.json.decode(mend(body))
    except UNREADABLE:
        raise RpcError(PARSE_ERROR, "Parse error: the body is not valid JSON") from None


def check(message: object) -> Message:
    """One JSON-RPC message: request, notification or response. Raises RpcError -32600."""
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, 'Invalid Request: one JSON-RPC object with "jsonrpc": "2.0" is expected')
    if "id" in message and (isinstance(message["id"], bool) or not isinstance(message["id"], (int, str))):
        raise RpcError(INVALID_REQUEST, "Invalid Request: `id` must be a string or an integer")
    if "method" in message:
        if not isinstance(message["method"], str):
            raise RpcError(INVALID_REQUEST, "Invalid Request: `method` must be a string")
        if not isinstance(message.get("params", {}), dict):
            raise RpcError(INVALID_REQUEST, "Invalid Request: `params` must be an object")
    elif "id" not in message or ("result" not in message and "error" not in message):
        raise RpcError(INVALID_REQUEST, "Invalid Request: neither a request, nor a notification, nor a response")
    return message


def result_frame(id: Id, result: bytes | msgspec.Raw) -> bytes:
    return b'{"jsonrpc":"2.0","id":' + msgspec.json.encode(id) + b',"result":' + bytes(result) + b"}"


def error_frame(id: Id | None, error: RpcError) -> bytes:
    """A server's own error passes as the bytes it came in."""
    if error.raw is not None:
        return b'{"jsonrpc":"2.0","id":' + msgspec.json.encode(id) + b',"error":' + bytes(error.raw) + b"}"
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return msgspec.json.encode({"jsonrpc": "2.0", "id": id, "error": body})


def request_frame(id: Id, method: str, params: msgspec.Raw) -> bytes:
    """A question of ours to the client; `params` pass as they are."""
    head = b'{"jsonrpc":"2.0","id":' + msgspec.json.encode(id) + b',"method":' + msgspec.json.encode(method)
    return head + b',"params":' + bytes(params) + b"}"


def notification_frame(method: str, params: dict[str, Any] | None = None) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "method": method, **({"params": params} if params is not None else {})})
