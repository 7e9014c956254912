"""A secret: a named value in a project's vault, of which only ciphertext is kept (CONTRACT §5).

The ciphertext binds project, name and version (`sealing/envelope.py`), so the value can be sealed only once the store knows which
version it will be: callers hand over a `Seal`, the store calls it inside its transaction.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Protocol

import msgspec

from rootlink import names
from rootlink.records.identity import not_an_id
from rootlink.sealing.envelope import Sealed

__all__ = ["Seal", "Sealed", "Secret", "Secrets", "secret_name"]

Seal = Callable[[int], Sealed]  # version → ciphertext bound to it


class Secret(msgspec.Struct, frozen=True):
    id: str
    project: str  # project id
    name: str
    version: int  # 1, then one more with every rotation
    envelope_key_id: str
    ciphertext: bytes
    created_at: str
    last_rotated_at: str

    def __repr__(self) -> str:
        return f"Secret({self.id}, {self.name!r}, version {self.version})"


def secret_name(name: object) -> str:
    """`name` if a secret may be called so, else `Invalid`."""
    return not_an_id("sec", names.secret_name(name))


class Secrets(Protocol):
    def put(self, project: str, name: str, seal: Seal) -> Secret:
        """A new secret, or a new version of an existing one; `Invalid` name, `NotFound` project."""

    def list(self, project: str) -> builtins.list[Secret]:
        """By name."""

    def get(self, project: str, ref: str) -> Secret:
        """By id or by name; `NotFound`."""

    def delete(self, project: str, ref: str) -> Secret:
        """By id or by name; `NotFound`."""

    def sealed(self, project: str) -> builtins.list[Secret]:
        """What a spawn needs: every secret with its ciphertext."""
