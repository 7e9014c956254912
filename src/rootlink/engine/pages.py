"""One merged list in pages, as the bytes that answer a request for it.

Rules
- A page holds at most 1,000 items and 1 MiB of them, one item at least. What fits into one page has no cursor.
- A cursor is ours, says nothing to a client, and is bound to the very items it was given out for: when the list has changed, in
  whatever way, it is refused (-32602) and the client begins anew, instead of missing some or seeing some twice. It is made of
  what the list holds, so an engine restart in between is not seen.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from rootlink.engine.rpc import INVALID_PARAMS, RpcError

MAX_ITEMS = 1000
MAX_BYTES = 1 << 20

_encode = msgspec.json.Encoder().encode


class Pages:
    """`member`: what the list is called in a result, e.g. `resourceTemplates`. `ttl_ms`: how long a stateless client may keep a
    page; None for session clients, who know no such member."""

    def __init__(self, member: str, items: Iterable[dict[str, Any]], ttl_ms: int | None = None) -> None:
        parts = list(_cut(_encode(item) for item in items))
        self._snapshot = _snapshot(member, parts) if len(parts) > 1 else ""
        # always private: which of our own tools are listed depends on what the key that asks may do
        kept = b"" if ttl_ms is None else b',"ttlMs":%d,"cacheScope":"private"' % ttl_ms
        last = len(parts) - 1
        self._answers = [
            msgspec.Raw(b'{"%b":[%b]%b%b}' % (member.encode(), part, kept, self._next(at + 1) if at < last else b""))
            for at, part in enumerate(parts)
        ]

    @property
    def first(self) -> msgspec.Raw:
        return self._answers[0]

    def at(self, cursor: object) -> msgspec.Raw:
        """The page a cursor leads to. Raises RpcError -32602."""
        snapshot, _, number = _read(cursor).partition(".")
        if not self._snapshot or not number.isascii() or not number.isdigit() or len(number) > 6:
            raise _unknown()
        if snapshot != self._snapshot or not 0 < int(number) < len(self._answers):
            raise _unknown()
        return self._answers[int(number)]

    def _next(self, page: int) -> bytes:
        return b',"nextCursor":"%b"' % base64.urlsafe_b64encode(f"{self._snapshot}.{page}".encode()).rstrip(b"=")


def _cut(items: Iterable[bytes]) -> Iterator[bytes]:
    """Encoded items, joined to as many pages as they need; one empty page for none."""
    page: list[bytes] = []
    size = 0
    for item in items:
        if page and (len(page) == MAX_ITEMS or size + len(item) > MAX_BYTES):
            yield b",".join(page)
            page, size = [], 0
        page.append(item)
        size += len(item) + 1
    yield b",".join(page)


def _snapshot(member: str, parts: list[bytes]) -> str:
    digest = hashlib.blake2b(member.encode(), digest_size=12)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _read(cursor: object) -> str:
    if not isinstance(cursor, str) or len(cursor) > 200:
        raise _unknown()
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise _unknown() from None


def _unknown() -> RpcError:
    return RpcError(INVALID_PARAMS, "Unknown cursor: the list is not what it was; ask for it again from the start")
