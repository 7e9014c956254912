"""A line of the audit log: who did what to which thing. Lines are only ever added; deleting a project keeps its lines."""

from __future__ import annotations

import builtins
from typing import Protocol

import msgspec


class Activity(msgspec.Struct, frozen=True):
    id: str
    project: str | None  # project id; None: of the instance as a whole
    time: str
    actor: str  # a session, a key id, "cli", "system"
    action: str  # noun.verb, e.g. "secret.put"
    target: str
    detail: str = ""


class Activities(Protocol):
    def add(self, project: str | None, actor: str, action: str, target: str, detail: str = "") -> Activity: ...

    def list(self, project: str | None, limit: int = 200, before: str | None = None) -> builtins.list[Activity]:
        """Newest first; of every project when None; only lines older than the one with the id `before`."""
