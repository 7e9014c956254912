"""Which hosts a run was refused.

Noted at the way out, so that it is known however the body took it: many catch the refusal and throw words of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final

from rootlink.engine.functions.exchange import Scope
from rootlink.engine.functions.run import Denied
from rootlink.errors import EgressBlocked

if TYPE_CHECKING:
    from aiohttp import ClientResponse

MAX_HOSTS: Final = 50
MAX_CHARS: Final = 500


class Refusals:
    """Of one run: the first 50 different ones, each with how often it came."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int | None, str], int] = {}

    def watched(self, scope: Scope) -> Scope:
        """`scope`, whose refusals are noted here."""
        return _Watched(scope, self)

    def note(self, error: EgressBlocked) -> None:
        data = error.data or {}
        port = data.get("port")
        key = (str(data.get("host", ""))[:MAX_CHARS], port if isinstance(port, int) else None, error.message[:MAX_CHARS])
        if key in self._found or len(self._found) < MAX_HOSTS:
            self._found[key] = self._found.get(key, 0) + 1

    @property
    def denied(self) -> list[Denied]:
        return [Denied(host, port, message, count) for (host, port, message), count in self._found.items()]


class _Watched:
    def __init__(self, scope: Scope, refusals: Refusals) -> None:
        self._scope, self._refusals = scope, refusals

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str], data: bytes | None, timeout: float | None, follow: bool
    ) -> AbstractAsyncContextManager[ClientResponse]:
        return self._noted(self._scope.request(method, url, headers=headers, data=data, timeout=timeout, follow=follow))

    @asynccontextmanager
    async def _noted(self, request: AbstractAsyncContextManager[ClientResponse]) -> AsyncIterator[ClientResponse]:
        try:
            async with request as response:
                yield response
        except EgressBlocked as error:
            self._refusals.note(error)
            raise
