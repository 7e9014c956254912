"""Where an engine's things are. Ids reach here from our own store only, and are checked once more: they become paths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rootlink.errors import NotFound

_PROJECT = re.compile(r"prj_[0-9a-f]{12}\Z")


@dataclass(frozen=True, slots=True)
class Layout:
    """`home` is `--home`; `runtime` the short directory of unix sockets; `packages` the package store if not the home's own.

    <runtime>/gate.sock                          the gate, for us
              doors/doors.sock                   the gate, for engines
              <project>/<generation>.sock        an engine; it sees this folder and `doors`, nothing else of `runtime`
    """

    home: Path
    runtime: Path
    packages: Path | None = None

    def project(self, project: str) -> Path:
        if not _PROJECT.match(project):
            raise NotFound("no such project")
        return self.home / "projects" / project

    def files(self, project: str) -> Path:
        return self.project(project) / "files"

    def engine(self, project: str) -> Path:
        return self.project(project) / "engine"

    def record(self, project: str) -> Path:
        """Beside what the engine sees, not in it: whoever writes there says which process is ended as this engine."""
        return self.project(project) / "run.json"

    def lock(self, project: str) -> Path:
        """Held by the engine while it lives (`programs/engine.py`)."""
        return self.engine(project) / "engine.lock"

    def log(self, project: str) -> Path:
        self.project(project)
        return self.home / "logs" / f"engine-{project}.log"

    def sockets(self, project: str) -> Path:
        self.project(project)
        return self.runtime / project

    def socket(self, project: str, generation: int) -> Path:
        """One per spawn, so that a late answer of an old engine is never taken for a new one's."""
        return self.sockets(project) / f"{generation}.sock"

    @property
    def gate(self) -> Path:
        return self.runtime / "gate.sock"

    @property
    def doors(self) -> Path:
        return self.runtime / "doors" / "doors.sock"

    def store(self, project: str) -> Path:
        """Its own, for whoever may write there decides what runs; shared only where the operator says so."""
        return self.packages or self.project(project) / "store"

    def projects(self) -> list[str]:
        """Projects that have something on disk, whatever the store knows of them."""
        folder = self.home / "projects"
        return sorted(entry.name for entry in folder.iterdir() if _PROJECT.match(entry.name)) if folder.is_dir() else []
