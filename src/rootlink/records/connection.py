"""A connection: a connector that is connected in a workspace. Its row is an intent; what runs is the engine's own state.

Rule 1. `connect` is one transaction: the row, the secrets it brings, its hosts in the allowlist, the audit line. All or nothing.
Rule 2. Until the row is `connected`, the store remembers what each secret was before, and `undo` puts it back to the byte.
Rule 3. A secret goes with the connection that created it, unless another connection uses it: then that one inherits it. A secret
        a person set is no connection's to delete.
Rule 4. `removing` is for good: no later `set_state` brings the row back.
Rule 5. A name is free again only when the row is gone.

    connecting ──► connected ⇄ failed
        │  └─────────┬──────────┘
      undo       mark_removing
        ▼            ▼
       gone ◄────  removing
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

from rootlink.records.secret import Seal
from rootlink.wire.tools import ToolRules

Kind = Literal["mcp", "function"]
State = Literal["connecting", "connected", "failed", "removing"]


class NewConnection(msgspec.Struct, frozen=True):
    """What a connect asks for. `desired` is the JSON of `wire.Desired`; `uses` names every secret the desired spec refers to."""

    id: str
    project: str  # project id
    workspace: str
    name: str
    connector: str
    kind: Kind
    desired: bytes
    secrets: list[tuple[str, Seal]]  # those given with this connect: new ones, or new versions of existing ones
    uses: list[str]
    hosts: list[str]
    actor: str
    variant: str | None = None
    version: str = ""
    manifest: bytes | None = None
    rules: ToolRules = ToolRules()


class Connection(msgspec.Struct, frozen=True):
    """`variant`: of the catalogue's entry, None: the entry itself. `version`: of the entry at the connect. `manifest`: of a
    server that somebody brought (connector `custom`), as JSON. `label`, `notes`: what the checks found, who we are to the service
    and what a person should know. `rules` are a person's; `pins` in them, the engine's first. `held`: public names of tools held
    back. `previous`: what an update replaced, as JSON, to roll back to."""

    id: str
    project: str
    workspace: str
    name: str
    connector: str
    kind: Kind
    state: State
    desired: bytes
    uses: list[str]
    hosts: list[str]
    tools: list[str]
    steps: list[dict[str, Any]]
    error: str | None
    created_at: str
    variant: str | None = None
    version: str = ""
    label: str | None = None
    notes: list[str] = []
    held: list[str] = []
    rules: ToolRules = ToolRules()
    manifest: bytes | None = None
    previous: bytes | None = None


class Connections(Protocol):
    def connect(self, connection: NewConnection) -> Connection:
        """Rule 1. `Conflict` if (project, workspace, name) is taken, `Invalid` if `uses` names a secret that is not there,
        `NotFound` project."""

    def list(self, project: str) -> builtins.list[Connection]:
        """Oldest first."""

    def get(self, project: str, name: str, workspace: str = "main") -> Connection:
        """`NotFound`."""

    def by_id(self, id: str) -> Connection | None: ...

    def all(self) -> builtins.list[Connection]:
        """Of every project, oldest first."""

    def set_state(
        self,
        id: str,
        state: State,
        *,
        error: str | None = None,
        tools: Sequence[str] | None = None,
        steps: Sequence[dict[str, Any]] | None = None,
    ) -> Connection:
        """The row as it stands afterwards. `error` is replaced (None clears it); `tools` and `steps` stay when not given.
        A row that is `removing` stays so (rule 4). `NotFound`."""

    def undo(self, id: str) -> None:
        """A connect that failed: everything as it was before (rule 2). No row: nothing to do. `Conflict` if it is connected."""

    def mark_removing(self, id: str, *, actor: str = "system") -> Connection:
        """`NotFound`."""

    def remove(self, id: str) -> None:
        """A disconnect: the row, its hosts and its secrets (rule 3) are gone. No row: nothing to do."""
