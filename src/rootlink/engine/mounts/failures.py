"""The shapes in which servers fail, each told as what it is.

    ended before it answered the greeting    its exit code and its last words on stderr     stdio.py
    a JSON-RPC error                         passed on with its code and data               here: `cleaned`
    a result that says isError               passed on                                      here: `cleaned`
    a success that is an error               passed on as the success it says it is         here: `confession`
    tools/list fails, or is not answered     which question it was, and the server's words  here: `Start`; opening.py

Those of calls are shown in the server's state too (latest.py). What the gate refused meanwhile is joined to each (refusals.py).
A failure that goes to a client is looked through for known secrets: a server puts the URL it asked into its error, and its key
with it. A success stays the bytes it was.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.rpc import UNREADABLE, RpcError, value

Redact = Callable[[str], str]

_FAILS = b'"isError"'
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"')  # of JSON that was read before
PLAINLY = 4096  # bytes; a longer success is no mere error, and is not looked at
_LINE = 500  # characters of a text that is nothing but a line of an error
_SIGN = re.compile(rb'"(?:ok|success)\\?"\s*:\s*false|"error\\?"\s*:|"(?:Error|ERROR):')  # in JSON, or in JSON inside a text
_ERROR_LINE = re.compile(r"(?:Error|ERROR):\s*(\S.*)\Z")  # some servers catch what goes wrong, and answer with its text
_MENDED = 256 << 10  # bytes of a failure that holds a secret; nothing of a longer one is shown
_PIECE = 64 << 10  # characters looked at together with as many more: the first that holds a secret ends the search
NO_REASON = "it gave no reason"
_TOO_LONG = "what this server says of its failure holds a secret, and is too long to be shown without it"
_members = msgspec.json.Decoder(dict[str, Raw])


def failed(result: Raw) -> bool:
    """Whether a result, or that of the task it tells of, says `isError`."""
    if _FAILS not in bytes(result):
        return False
    try:
        members = _members.decode(result)
        told = members.get("result")
        return _true(members.get("isError")) or (told is not None and _true(_members.decode(told).get("isError")))
    except UNREADABLE:
        return False


def _true(member: Raw | None) -> bool:
    return member is not None and bytes(member).strip() == b"true"


def cleaned(result: Raw, redact: Redact) -> Raw:
    """A result that failed, without known secrets in any of its strings; every other one as it is."""
    if not failed(result):
        return result
    shown = _without(result, redact)
    return rpc.raw({"content": [{"type": "text", "text": _TOO_LONG}], "isError": True}) if shown is None else shown


def cleaned_error(error: RpcError, redact: Redact) -> RpcError:
    """A server's own error without known secrets in its words and data; itself, as it came, if it holds none."""
    if error.raw is None:
        data = rpc.raw(error.data)
        message, shown = redact(error.message), _without(data, redact)
        if message == error.message and shown is data:
            return error
        return RpcError(error.code, message, None if shown is None else value(shown))
    shown = _without(error.raw, redact)
    if shown is error.raw:
        return error
    if shown is None:
        return RpcError(error.code, _TOO_LONG)
    found = rpc.error(shown)
    return RpcError(found.code, redact(error.message), found.data, shown)


def _without(json: Raw, redact: Redact) -> Raw | None:
    """Itself if there is none in it; None if there is, and it is too long to look at every string of it."""
    held = bytes(json)
    whole = held.decode("utf-8", "replace")
    pieces = (whole[start : start + 2 * _PIECE] for start in range(0, len(whole), _PIECE))
    if all(redact(piece) == piece for piece in pieces):
        return json
    return None if len(held) > _MENDED else Raw(_STRING.sub(lambda found: _string(found[0], redact), held))


def _string(literal: bytes, redact: Redact) -> bytes:
    try:
        text = msgspec.json.decode(literal, type=str)
    except UNREADABLE:
        return b'""'  # half of a surrogate pair: nobody can read it
    shown = redact(text)
    return literal if shown == text else msgspec.json.encode(shown)


# what a result says


def answer(result: Raw) -> Any:
    """What a tool's result says as JSON: its structured content, or else its first text if that is JSON; None."""
    said = value(result)
    if not isinstance(said, dict):
        return None
    if isinstance(said.get("structuredContent"), dict):
        return said["structuredContent"]
    text = _text(said)
    return value(Raw(text.encode("utf-8", "replace"))) if text else None


def words(result: Raw) -> str | None:
    """What went wrong in the server's own words, if a tool's result is an error, or a success that is one; else None."""
    if failed(result):
        return _text(value(result)) or NO_REASON
    return inside(result)


def inside(result: Raw) -> str | None:
    """The words of an error that a tool's result calls a success; None: it is none, or `isError` says it."""
    held = memoryview(result)
    if len(held) > PLAINLY or _SIGN.search(held) is None:  # all that most results cost: some microseconds
        return None
    said = value(result)
    if not isinstance(said, dict) or said.get("isError") is True:
        return None
    text = _only_text(said)
    line = _ERROR_LINE.match(text) if text and len(text) <= _LINE else None
    if line is not None:
        return line[1]
    structured = confession(said.get("structuredContent"))
    return structured or (confession(value(Raw(text.encode("utf-8", "replace")))) if text else None)


def confession(said: Any) -> str | None:
    """The words of an error that calls itself a success: `{"ok": false, "error": "invalid_auth"}` (Slack's), `{"success": false}`
    with a reason, or an object that has nothing but an error. None for any other JSON."""
    if not isinstance(said, dict):
        return None
    reasons = (said.get("error"), said.get("message"))
    if said.get("ok") is False or (said.get("success") is False and any(reasons)) or (set(said) == {"error"} and said["error"]):
        return next((found for found in map(_reason, reasons) if found), NO_REASON)
    return None


def _reason(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else ""


def confesses(result: Raw) -> bool:
    """Whether a result that does not say `isError` is nothing but an error."""
    return inside(result) is not None


def _only_text(said: dict[str, Any]) -> str:
    """Of a result that is one block of text."""
    blocks = said.get("content")
    return _text(said).strip() if isinstance(blocks, list) and len(blocks) == 1 else ""


def _text(said: dict[str, Any]) -> str:
    blocks = said.get("content")
    for block in blocks if isinstance(blocks, list) else ():
        if isinstance(block, dict) and isinstance(block.get("text"), str):
            return str(block["text"])
    return ""


# starting


class Start:
    """What a server that was greeted is being asked, for words about a start that does not end."""

    def __init__(self) -> None:
        self.asked = ""

    def asking(self, request: Callable[[str, dict[str, Any]], Awaitable[Raw]]) -> Callable[[str, dict[str, Any]], Awaitable[Raw]]:
        async def ask(method: str, params: dict[str, Any]) -> Raw:
            self.asked = method
            return await request(method, params)

        return ask
