"""A client's request while it runs, as servers see it (`calls.Call`): what both eras share. What is told reaches the client in
its own terms: progress with its own token, log lines by its level.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Client, Heard, knows

PROGRESS, MESSAGE = "notifications/progress", "notifications/message"


def progress_token(params: dict[str, Any]) -> int | str | None:
    """The client's own token, type and all, or None."""
    meta = params.get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    return token if isinstance(token, (int, str)) and not isinstance(token, bool) else None


def hears(level: str | None, method: str, params: Raw) -> bool:
    """Whether this notification is for a client that asked for log lines of `level` and up."""
    return method != MESSAGE or knows(level, rpc.value(rpc.members(params).get("level", Raw(b"null"))))


class Told:
    """An era says where a frame goes (`emit`) and how a question is asked (`ask`)."""

    manages = False  # until `Dispatch`, which knows the key, says otherwise

    def __init__(self, client: Client, params: dict[str, Any], level: str | None) -> None:
        self.client, self.level = client, level
        self._token = progress_token(params)

    @property
    def progress(self) -> bool:
        return self._token is not None

    def tell(self, method: str, params: Raw) -> None:
        if method == PROGRESS:
            if self._token is None:
                return
            params = rpc.raw({**rpc.members(params), "progressToken": self._token})
        elif not hears(self.level, method, params):
            return
        self.emit(frame(method, params))

    def emit(self, frame: bytes) -> None:
        """One JSON-RPC message for the client. Never waits, never raises."""
        raise NotImplementedError

    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        raise rpc.RpcError(rpc.METHOD_NOT_FOUND, "Method not found: not offered by this client")


def frame(method: str, params: Raw) -> bytes:
    return b'{"jsonrpc":"2.0","method":' + bytes(rpc.raw(method)) + b',"params":' + bytes(params) + b"}"
