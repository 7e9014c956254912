"""A client's request while it runs, as servers see it (`calls.Call`): what is told goes to its stream, in its own terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Client, knows

PROGRESS, MESSAGE = "notifications/progress", "notifications/message"


def progress_token(params: dict[str, Any]) -> int | str | None:
    """The client's own token, type and all, or None."""
    meta = params.get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    return token if isinstance(token, (int, str)) and not isinstance(token, bool) else None


class Running:
    """`emit` puts one JSON-RPC frame on the request's stream. An era says how a question is asked (`ask`)."""

    def __init__(self, client: Client, params: dict[str, Any], level: str | None, emit: Callable[[bytes], object]) -> None:
        self.client, self.level = client, level
        self._token, self._emit = progress_token(params), emit

    @property
    def progress(self) -> bool:
        return self._token is not None

    def tell(self, method: str, params: Raw) -> None:
        if method == PROGRESS:
            if self._token is None:
                return
            params = rpc.raw({**rpc.members(params), "progressToken": self._token})
        elif method == MESSAGE and not self.hears(rpc.value(rpc.members(params).get("level", Raw(b"null")))):
            return
        self._emit(frame(method, params))

    def hears(self, level: object) -> bool:
        return knows(self.level, level)

    async def ask(self, method: str, params: Raw) -> Raw:
        raise rpc.RpcError(rpc.METHOD_NOT_FOUND, "Method not found: not offered by this client")


def frame(method: str, params: Raw) -> bytes:
    return b'{"jsonrpc":"2.0","method":' + bytes(rpc.raw(method)) + b',"params":' + bytes(params) + b"}"
