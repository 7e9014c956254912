"""A call of a client that is not there: keeps what it is told, answers what it is asked from a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.calls import Client, Heard

Answer = Callable[[str, Any], Any]


class Told:
    """Implements `calls.Call`. `told` gets (method, params); `answer(method, params)` gives a question's result."""

    manages = False

    def __init__(self, *, capabilities: dict[str, Any] | None = None, answer: Answer | None = None, key: str = "c") -> None:
        self.client = Client(key, False, "2025-11-25", {"name": "told", "version": "1"}, capabilities or {})
        self.level: str | None = None
        self.progress = True
        self.told: list[tuple[str, Any]] = []
        self.asked: list[tuple[str, Any]] = []
        self._answer = answer

    @property
    def steps(self) -> list[Any]:
        """What it was told of progress."""
        return [params for method, params in self.told if method == "notifications/progress"]

    def tell(self, method: str, params: Raw) -> None:
        self.told.append((method, rpc.value(params)))

    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        asked = rpc.value(params)
        self.asked.append((method, asked))
        if self._answer is None:
            raise rpc.RpcError(rpc.METHOD_NOT_FOUND, "Method not found")
        return rpc.raw(self._answer(method, asked))
