"""A project: one tenant, with its own engine, vault, allowlist and keys (CONTRACT §1)."""

from __future__ import annotations

import builtins
from typing import Protocol

import msgspec

from rootlink import names
from rootlink.records.identity import not_an_id


class Project(msgspec.Struct, frozen=True):
    id: str
    name: str
    created_at: str


def project_name(name: object) -> str:
    """`name` if a project may be called so, else `Invalid`."""
    return not_an_id("prj", names.project_name(name))


class Projects(Protocol):
    def create(self, name: str) -> Project:
        """`Invalid` name, `Conflict` if taken."""

    def list(self) -> builtins.list[Project]:
        """Oldest first."""

    def get(self, ref: str) -> Project:
        """By id or by name; `NotFound`."""

    def delete(self, id: str) -> None:
        """With everything of it but the audit log; `NotFound`."""
