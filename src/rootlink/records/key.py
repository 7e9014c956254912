"""A project key. Kept: a BLAKE3 hash of the whole key and a prefix to know it by; the key itself is shown once and forgotten."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Protocol

import msgspec

from rootlink.errors import Invalid

HASH_BYTES = 32
SCOPES = ("use", "manage")  # use: list and call tools; manage: install servers and deploy functions too (CONTRACT §3)


class Key(msgspec.Struct, frozen=True):
    id: str
    project: str  # project id
    name: str
    prefix: str
    scopes: list[str]
    created_at: str
    revoked_at: str | None = None


def checked_scopes(scopes: Sequence[str] | None) -> list[str]:
    """In the order of `SCOPES`, no doubles; all of them when none are given; `Invalid` for an unknown one or an empty list."""
    if scopes is None:
        return list(SCOPES)
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise Invalid(f"key scopes must be one or both of {', '.join(SCOPES)}")
    return [scope for scope in SCOPES if scope in scopes]


def checked_name(name: object) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= 100 or not name.isprintable():
        raise Invalid("key name is not allowed: 1 to 100 printable characters")
    return name


class Keys(Protocol):
    def create(self, project: str, *, name: str, scopes: Sequence[str] | None, hash: bytes, prefix: str) -> Key:
        """`NotFound` project, `Invalid` name or scopes."""

    def list(self, project: str) -> builtins.list[Key]:
        """Revoked ones too, oldest first."""

    def revoke(self, project: str, id: str) -> Key:
        """In force at once; revoking again changes nothing; `NotFound`."""

    def find(self, hash: bytes) -> Key | None:
        """The key with this hash, or None if there is none or it is revoked."""
