"""JSON-RPC 2.0, raw: only the envelope is read here; what is inside `params` and `result` stays bytes.

Rules
- An envelope's `id` is an integer of any size, a string or null. Anything else is `Malformed`.
- A result that leaves this module is one JSON object, valid UTF-8, readable by every parser of ours (no number out of range,
  no nesting past the recursion limit) and on one line, so it may be put into another message as it is.
- A lone surrogate (`\\ud83d`: JavaScript cuts emoji in two) becomes U+FFFD; a message is not lost for it.
- Duplicate keys: the envelope is read once, the last one wins; only what was read goes on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

Id = int | str

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
UNSUPPORTED_VERSION = -32022  # MCP 2026-07-28; `data.supported` lists versions

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_MENDED = 256 << 10  # longer messages are not searched for lone surrogates: the search is Python's own
_BACKSLASHES, _PAIR, _LONE = rb"(?:\\\\)+", rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..", rb"(\\u[dD][89a-fA-F]..)"
_SURROGATE = re.compile(b"|".join((_BACKSLASHES, _PAIR, _LONE)), re.DOTALL)


class RpcError(Exception):
    """An `error` the other side answered with, passed on unchanged. `data` is any JSON value, or None. `raw` is the object as it
    came, on one line, with what nobody here knows; None for an error of our own."""

    def __init__(self, code: int, message: str, data: Any = None, raw: Raw | None = None) -> None:
        super().__init__(f"{message} ({code})")
        self.raw = raw
        self.code = code
        self.message = message
        self.data = data


class Malformed(Exception):
    """Bytes that are no JSON-RPC message."""


class Envelope(msgspec.Struct):
    id: Id | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _Error(msgspec.Struct):
    code: int
    message: str
    data: Any = None


_envelope = msgspec.json.Decoder(Envelope)
_error = msgspec.json.Decoder(_Error)
_any: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_members = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode


def request(id: Id, method: str, params: Mapping[str, Any] | None) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": id, "method": method, **({} if params is None else {"params": params})})


def notification(method: str, params: Mapping[str, Any] | None = None) -> bytes:
    return _encode({"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params})})


def answer(id: Id, result: Any) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": id, "result": result})


def refusal(id: Id | None, code: int, message: str) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})


def read(message: bytes) -> Envelope:
    """Raises `Malformed`. Members may still hold JSON that `result()` and `error()` refuse."""
    try:
        return _envelope.decode(message)
    except UNREADABLE:
        pass
    try:
        return _envelope.decode(mend(message))
    except UNREADABLE as error:
        raise Malformed(type(error).__name__) from None


def result(raw: Raw) -> Raw:
    """`raw` itself when it keeps this module's promise for results, or a one-line form of it. Raises `Malformed`."""
    try:
        value = _any.decode(raw)
    except UNREADABLE as error:
        raise Malformed(type(error).__name__) from None
    if not isinstance(value, dict):
        raise Malformed("not an object")
    held = bytes(raw)
    return Raw(msgspec.json.format(held, indent=-1)) if b"\n" in held or b"\r" in held else raw


def error(raw: Raw) -> RpcError:
    """The error of an answer; one that cannot be read becomes `INTERNAL_ERROR`, so whoever waits still hears of it."""
    try:
        found, line = _error.decode(raw), result(raw)
    except (*UNREADABLE, Malformed):
        return RpcError(INTERNAL_ERROR, "the server answered with an error that cannot be read")
    return RpcError(found.code, found.message, found.data, line)


def members(raw: Raw | UnsetType) -> dict[str, Raw]:
    """An object's members, each as the bytes it is; {} when it is none."""
    if raw is UNSET:
        return {}
    try:
        return _members.decode(raw)
    except UNREADABLE:
        return {}


def raw(value: Any) -> Raw:
    return Raw(_encode(value))


def value(raw: Raw | UnsetType) -> Any:
    """Decoded JSON, or None when there is none or it cannot be read."""
    if raw is UNSET:
        return None
    try:
        return _any.decode(raw)
    except UNREADABLE:
        return None


def mend(message: bytes) -> bytes:
    """`message` with every lone surrogate escape replaced by U+FFFD. Escaped backslashes and whole pairs are stepped over."""
    if len(message) > _MENDED or b"\\ud" not in message.lower():
        return message
    return _SURROGATE.sub(lambda found: rb"\ufffd" if found[1] else found[0], message)
