"""What a client carries for us between two of its requests: authenticated, bound to who and what it was given for.

    KIND "." base64url( mac 24 | nonce 12 | expiry 8 | body )        mac = keyed BLAKE2b over kind, everything bound, and the rest

Rules
- Whoever carries a token may read it: nothing goes in that the client must not know. It can't be changed, moved to another
  principal, workspace, method or arguments (all of them are bound, never inside), or used after its time
  (SECURITY-FIGURES T3; MCP 2026-07-28, multi round-trip requests, "Server Requirements").
- Without a lifetime a token is an id: it never expires, and the same input gives the same string every time.
- Single use is not promised here: who needs it remembers what was used.
- The key is the engine's own, in its state folder, so tokens outlive a restart of the engine.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from rootlink.engine.rpc import INTERNAL_ERROR, INVALID_PARAMS, RpcError

KEY_BYTES, MAC_BYTES, NONCE_BYTES, EXPIRY_BYTES = 32, 24, 12, 8
MAX_TOKEN = 1 << 20  # characters; longer ones are refused unread
_HEAD = MAC_BYTES + NONCE_BYTES + EXPIRY_BYTES
_NOT_OURS = "is not valid for this request"


class Tokens:
    """`now` is the wall clock in seconds: a lifetime goes on while the engine is down."""

    def __init__(self, key: bytes, now: Callable[[], float] = time.time) -> None:
        self._key, self._now = key, now

    def seal(self, kind: str, body: bytes, *bound: bytes | str, ttl: float | None = None) -> str:
        """A token that opens with the same `kind` and `bound` alone. `ttl` in seconds; None: an id (see above). Raises RpcError
        for what would be too long to be taken back."""
        if ttl is None:
            rest = bytes(NONCE_BYTES + EXPIRY_BYTES) + body
        else:
            rest = secrets.token_bytes(NONCE_BYTES) + int(self._now() + ttl).to_bytes(EXPIRY_BYTES) + body
        sealed = self._mac(kind, rest, bound) + rest
        token = f"{kind}.{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}"
        if len(token) > MAX_TOKEN:
            raise RpcError(INTERNAL_ERROR, "The server wants more kept for it than a client can be asked to carry")
        return token

    def open(self, kind: str, token: object, *bound: bytes | str, name: str = "requestState") -> bytes:
        """The body. Raises RpcError -32602 that calls the token `name`."""
        sealed = _decoded(kind, token)
        mac, rest = sealed[:MAC_BYTES], sealed[MAC_BYTES:]
        if len(sealed) < _HEAD or not hmac.compare_digest(mac, self._mac(kind, rest, bound)):
            raise RpcError(INVALID_PARAMS, f"{name} {_NOT_OURS}")
        expiry = int.from_bytes(rest[NONCE_BYTES : NONCE_BYTES + EXPIRY_BYTES])
        if expiry and self._now() >= expiry:
            raise RpcError(INVALID_PARAMS, f"{name} has expired; make the request again without it", {"code": "expired"})
        return rest[NONCE_BYTES + EXPIRY_BYTES :]

    def _mac(self, kind: str, rest: bytes, bound: tuple[bytes | str, ...]) -> bytes:
        """Every part goes in with its length, so no two ways of cutting are the same."""
        mac = hashlib.blake2b(key=self._key, digest_size=MAC_BYTES, person=b"rootlink-token-1")
        for part in (kind, *bound, rest):
            held = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            mac.update(len(held).to_bytes(8))
            mac.update(held)
        return mac.digest()


def kind_of(token: object) -> str:
    """What it says it is; nothing is checked yet. "" when it says nothing."""
    return token.partition(".")[0] if isinstance(token, str) and "." in token[:32] else ""


def digest(value: Any) -> bytes:
    """Of a JSON value, whatever the order of its members: 32 bytes, to bind a token to."""
    return hashlib.blake2b(msgspec.json.encode(value, order="sorted"), digest_size=32).digest()


def keep(path: Path) -> Tokens:
    """With the key in `path` (0600), made at the first call. A file that is no key is replaced: old tokens then don't open."""
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) != KEY_BYTES:
        key = secrets.token_bytes(KEY_BYTES)
        fresh = path.with_name(f"{path.name}.new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key)
        fresh.replace(path)
    return Tokens(key)


def _decoded(kind: str, token: object) -> bytes:
    """What is behind `KIND.`; empty when that is not its form. Only the one spelling base64 has for these bytes is taken."""
    if not isinstance(token, str) or len(token) > MAX_TOKEN or not token.startswith(f"{kind}."):
        return b""
    text = token[len(kind) + 1 :]
    try:
        sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
    return sealed if base64.urlsafe_b64encode(sealed).decode().rstrip("=") == text else b""
