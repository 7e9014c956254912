"""The port through which engines are started, whatever they run on: three verbs, and a state that survives us.

As jupyterhub's spawner: `start` answers with all it takes to find the engine again, `poll` says whether it is still there, `stop`
ends it and everything that came of it. `recover` is `start` for an engine that runs already.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from rootlink.provisioner.launch.identity import Identity
from rootlink.wire.engine import EngineConfig, Sandbox


class Running(msgspec.Struct, frozen=True):
    """One spawn of an engine. Kept in run.json (0600). `started_at` is RFC 3339.

    `process`: the one that was started, and whose end is the end of all of it: behind a door the keeper, else the engine itself.
    `engine`: the engine's own, as this machine numbers it; None until it has answered.
    """

    project: str
    process: Identity
    key: str
    socket: str
    generation: int
    started_at: str
    sandbox: Sandbox = "advisory"
    engine: Identity | None = None

    @property
    def pid(self) -> int:
        """The engine's, on the host."""
        return (self.engine or self.process).pid

    def __repr__(self) -> str:
        return f"Running({self.project}, pid {self.pid}, generation {self.generation})"


class Launcher(Protocol):
    async def start(self, config: EngineConfig, generation: int) -> Running:
        """Returns when the engine answers. `socket` of `config` is chosen here.

        Raises Unavailable with the engine's last words when it does not; nothing of it is left then.
        """

    async def stop(self, running: Running) -> None:
        """Returns when the engine and all that came of it are gone. Asking again changes nothing. Raises Unavailable."""

    def poll(self, running: Running) -> bool:
        """Whether it is still there."""

    async def recover(self, project: str) -> Running | None:
        """The engine that an earlier provisioner started, if it is there and ours; what is left of one that is not is removed."""

    def forget(self, running: Running) -> str | None:
        """Clear away after an engine that ended by itself; how, in words; None when it ended well."""

    def sweep(self) -> None:
        """End what engines that are gone have left behind. Called every few seconds."""

    def memory(self, running: Running) -> int | None:
        """Bytes of all of it, where the engine itself can't see everything of it; None: it can. Blocks for some milliseconds."""

    def aside(self) -> AbstractContextManager[None]:
        """Held while this process has children that are none of the launcher's."""

    def log(self, project: str, lines: int = 200) -> list[str]:
        """The last lines that engines of this project wrote."""

    def projects(self) -> list[str]:
        """Those that have something here."""

    async def erase(self, project: str) -> None:
        """Everything kept of this project is gone. No engine of it may run."""
