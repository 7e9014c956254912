"""The engine of a project as the provisioner last knew it; what it holds now is asked of the engine itself."""

from __future__ import annotations

import builtins
from typing import Protocol

import msgspec


class EngineRow(msgspec.Struct, frozen=True):
    project: str  # project id
    state: str  # stopped | starting | running | stopping | failed
    pid: int | None = None
    started_at: str | None = None
    generation: int = 0  # grows with every spawn
    error: str | None = None


class Engines(Protocol):
    def put(self, row: EngineRow) -> EngineRow:
        """In place of what was there; `NotFound` project."""

    def get(self, project: str) -> EngineRow | None: ...

    def list(self) -> builtins.list[EngineRow]: ...
