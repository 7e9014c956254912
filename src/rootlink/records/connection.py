"""A connection: a connector that is connected in a workspace. Its row is an intent; what runs is the engine's own state.

Rule 1. `connect` is one transaction: the row, the secrets it brings, its hosts in the allowlist, the audit line. All or nothing.
Rule 2. Until the row is `connected`, the store remembers what each secret was before, and `undo` puts it back to the byte.
Rule 3. A secret goes with the connection that created it, unless another connection uses it: then that one inherits it. A secret
        a person set is no connection's to delete.
Rule 4. `removing` is for good: no later `set_state` brings the row back.
Rule 5. A name is free again only when the row is gone.
Rule 6. The pins of its tools are written once by an engine, for the first list it saw; from then on by a person alone.
Rule 7. An update is one transaction, and so is a roll back: what is to run, its version, hosts and rules change together. The
        update is on trial (`Previous.trying`) until an engine holds it; one that can't be held is rolled back by itself.

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
from rootlink.wire.mounts import Actual
from rootlink.wire.tools import Mode, ToolRules

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
    back. `previous`: what an update replaced, to roll back to: the JSON of `Previous`."""

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


class Version(msgspec.Struct, frozen=True):
    """What an update changes of a connection."""

    desired: bytes
    version: str
    uses: list[str]
    hosts: list[str]
    rules: ToolRules = ToolRules()
    manifest: bytes | None = None


class Previous(msgspec.Struct, frozen=True):
    """`version` is what ran before the update. `trying`: the update has not run yet, and if it can't, `version` comes back by
    itself, with `earlier`, the row's `previous` before it."""

    version: Version
    trying: bool = False
    earlier: bytes | None = None


class Found(msgspec.Struct, frozen=True):
    """What an engine found out about a connection; None: nothing new, what is kept stays. `pins` are kept by rule 6."""

    label: str | None = None
    notes: list[str] | None = None
    held: list[str] | None = None
    pins: dict[str, str] | None = None

    @staticmethod
    def at_connect(actual: Actual) -> Found:
        return Found(actual.label, actual.notes, actual.held, actual.pins)


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

    def rules(self, project: str) -> dict[str, ToolRules]:
        """By id, of all its connections."""

    def set_state(
        self,
        id: str,
        state: State,
        *,
        error: str | None = None,
        tools: Sequence[str] | None = None,
        steps: Sequence[dict[str, Any]] | None = None,
        found: Found | None = None,
    ) -> Connection:
        """The row as it stands afterwards. `error` is replaced (None clears it); `tools`, `steps` and what was `found` stay when
        not given. A row that is `removing` stays so (rule 4). `NotFound`."""

    def note_found(self, id: str, found: Found) -> Connection:
        """As `set_state`, of nothing but what was found."""

    def decide(
        self,
        id: str,
        tool: str,
        *,
        mode: Mode | msgspec.UnsetType | None = msgspec.UNSET,
        pin: str | None = None,
        actor: str = "system",
    ) -> Connection:
        """What a person decided about one tool, by its server's name: how it may be used (None: its default again), and the
        fingerprint of the definition that was agreed to. With an audit line each. `NotFound`; `Conflict` if it is `removing`."""

    def keep_secret(self, id: str, name: str, seal: Seal) -> bool:
        """What the connection's own server gave (the grant of a sign-in): the next version of the secret `name`, which goes with
        the connection (rules 2 and 3). False: there is no such connection (any more), and nothing is written."""

    def update(self, id: str, new: Version, *, was: bytes, actor: str = "system") -> Connection:
        """Rule 7. `was`: the row's `desired` that `new` was made from; `Conflict` when it is another one by now, or the row is
        not connected. `Invalid` if `new` uses a secret that is not there. `NotFound`."""

    def roll_back(self, id: str, *, actor: str = "system", failed: bool = False) -> Connection:
        """What was before the last update, and it can be undone likewise. `failed`: that of an update still on trial, which
        leaves nothing of itself. `Conflict` when there is nothing to go back to. `NotFound`."""

    def held(self, id: str) -> None:
        """An engine holds the update: it is on trial no more. No such row, or none on trial: nothing to do."""

    def undo(self, id: str, *, why: str = "") -> None:
        """A connect that failed: everything as it was before (rule 2). No row: nothing to do. `Conflict` if it is connected.
        `why` it failed, in words, is all that is left of it: in the audit log."""

    def mark_removing(self, id: str, *, actor: str = "system") -> Connection:
        """`NotFound`."""

    def remove(self, id: str) -> None:
        """A disconnect: the row, its hosts and its secrets (rule 3) are gone. No row: nothing to do."""
