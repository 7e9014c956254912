"""A lost engine in the words of MCP: a JSON-RPC error to every request of a body, with its own id.

Bodies are not read on their way; this is for when one did not get there, or no answer came back.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rootlink.errors import RootlinkError, Unavailable, UpstreamFailed, rpc_error


def died() -> UpstreamFailed:
    """`data` is for callers of MCP: they may try again, which is theirs to decide, since the call may have had its effect."""
    return UpstreamFailed("The engine died while it worked on this", data={"code": Unavailable.code, "retryable": True})


def refusals(body: bytes, error: RootlinkError) -> bytes | None:
    """None if `body` holds no request: a notification, a response, or no JSON-RPC at all."""
    try:
        asked = msgspec.json.decode(body, type=_Asked | list[_Asked])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    shown = rpc_error(error)
    if isinstance(asked, list):
        answers = [_refusal(one.id, shown) for one in asked if one.is_request]
        return msgspec.json.encode(answers) if answers else None
    return msgspec.json.encode(_refusal(asked.id, shown)) if asked.is_request else None


class _Asked(msgspec.Struct):
    """As much of a message as an error to it needs. `id` stays the bytes it came as: it may be any JSON number."""

    id: msgspec.Raw = msgspec.Raw()
    method: str | None = None

    @property
    def is_request(self) -> bool:
        return self.method is not None and bytes(self.id) not in (b"", b"null")


def _refusal(id: msgspec.Raw, error: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "error": error}
