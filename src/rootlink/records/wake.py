"""What a project's engine is started for when it is stopped: its next schedule, and calls of its webhooks."""

from __future__ import annotations

from typing import Protocol

import msgspec


class WakeRow(msgspec.Struct, frozen=True):
    """As its engine said last. `due`: Unix seconds. `hooks`: hashes of the tokens that are live, in hex; never a token."""

    project: str  # project id
    due: float | None = None
    hooks: list[str] = []


class Wakes(Protocol):
    def put(self, row: WakeRow) -> WakeRow:
        """In place of what was there; `NotFound` project."""

    def get(self, project: str) -> WakeRow | None: ...

    def due(self, until: float) -> list[str]:
        """Projects that something is due in by then, the one that waits longest first."""
