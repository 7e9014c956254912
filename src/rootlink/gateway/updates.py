"""A newer version of what a connection is made from: shown before it is applied, and gone back from.

    the catalogue's entry as it is now, or a registry asked anew ──► trial beside what runs ──► changes, shown ──► agreed to
                                                                                                                       │
    engine holds it ◄── or what was before comes back by itself ◄── reconciler ◄── one transaction: row, hosts, pins ◄─┘

Rule 1. What is applied is what was shown: `Changes.digest` is of all of it, and another one by now is a `Conflict`.
Rule 2. A tool whose definition was shown and agreed to is pinned; one with something odd about it is held back until it is
        approved by itself.
Rule 3. A person's choices outlive an update: inputs, secrets, what may be done with each tool.
Rule 4. Once it is in the row, the update is the provisioner's, like a connect: it goes on when whoever asked goes away.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import blake3
import msgspec

from rootlink.catalog import Entry
from rootlink.errors import Conflict, RootlinkError, Unavailable, UpstreamFailed, from_code
from rootlink.gateway import custom
from rootlink.gateway.connect import CALLBACK, entry_named, wired
from rootlink.gateway.plane import Plane, stored
from rootlink.gateway.provisioner import ProvisionerAway
from rootlink.records import Connection, Version
from rootlink.wire.engine import InstallEvent, Trial
from rootlink.wire.mounts import Desired, MountSpec, digest
from rootlink.wire.tools import Access

_SHOWN = ("title", "description", "inputSchema", "outputSchema", "annotations", "_meta")
_NOT_AGREED_TO = ("name", "icons", "execution")  # of a tool: no fingerprint is of these (`engine/tools/pins.py`)
_QUIET = ("name", "egress", "lock")  # members of a spec that are shown as versions and hosts, or are the same always


class ToolChange(msgspec.Struct):
    """`what`: the members of its definition that change. `flags`: what is odd about the new one, which is then held back."""

    tool: str
    change: Literal["added", "removed", "changed"]
    what: list[str] = []
    access: Access | None = None
    flags: list[str] = []
    before: str = ""
    after: str = ""


class FromTo(msgspec.Struct, rename={"before": "from", "after": "to"}):
    before: str | None
    after: str | None


class Changes(msgspec.Struct):
    """What an update of this connection would change; `update` false: nothing, it is as new as can be. `package`: as installed,
    `settings`: what it is started with besides. `digest` names exactly these changes."""

    name: str
    workspace: str
    connector: str
    update: bool
    version: FromTo
    package: FromTo
    hosts_added: list[str]
    hosts_removed: list[str]
    tools: list[ToolChange]
    settings: list[str]
    digest: str


class Plan(NamedTuple):
    row: Connection
    changes: Changes
    version: Version


async def planned(plane: Plane, row: Connection) -> Plan:
    """What an update would be. Nothing is written; the new version runs for a moment beside the one there is. Raises `Conflict`,
    `NotFound` when the catalogue has it no more, `Invalid` when it needs what was not given, and what a start came to."""
    if row.state != "connected":
        raise Conflict(f"connection {row.name!r} is {row.state}: only what is connected can be updated")
    old = msgspec.json.decode(row.desired, type=Desired)
    new, version, hosts = _custom(row, old) if row.connector == custom.CONNECTOR else _of_catalogue(plane, row, old)
    trial = None
    if new.mount is not None:
        trial = await _tried(plane, row, new)
        new = msgspec.structs.replace(new, mount=trial.mount)
    pins = {view.tool: view.fingerprint for view in trial.views if view.held is None} if trial is not None else row.rules.pins
    rules = msgspec.structs.replace(new.rules, modes={**new.rules.modes, **row.rules.modes}, pins=pins)
    uses = sorted({*row.uses})
    becoming = Version(msgspec.json.encode(msgspec.structs.replace(new, rules=rules)), version, uses, hosts, rules, row.manifest)
    return Plan(row, _changes(row, old, new, becoming, trial), becoming)


async def applied(plane: Plane, plan: Plan, actor: str) -> Connection:
    """The connection, updated. Raises why it is not, and then what was before runs again."""
    wanted = await stored(plane.store.connections.update, plan.row.id, plan.version, was=plan.row.desired, actor=actor)
    return await _driven(plane, wanted, "the update was not kept, and what was before runs again")


async def rolled_back(plane: Plane, row: Connection, actor: str) -> Connection:
    """The connection as it was before its last update. Raises `Conflict` when there was none, and why it could not be."""
    wanted = await stored(plane.store.connections.roll_back, row.id, actor=actor)
    return await _driven(plane, wanted, "it could not be gone back to, and what was there runs again")


async def _driven(plane: Plane, row: Connection, otherwise: str) -> Connection:
    try:
        async for event in plane.provisioner.update(row.id, plane.settings.install_secs):
            if event.failed is not None:
                raise _failure(event, f"{row.name}: {otherwise}: ")
    except ProvisionerAway as error:
        raise Unavailable(f"{error.message} {row.name!r} will be updated, or put back, when it is there again") from None
    after = await stored(plane.store.connections.get, row.project, row.name, row.workspace)
    if after.desired != row.desired:  # by a look at it that came first
        raise UpstreamFailed(f"{row.name}: {otherwise}; see: rootlink logs --engine")
    return after


def _failure(event: InstallEvent, before: str = "") -> RootlinkError:
    failed = event.failed or {}
    return from_code(failed.get("code", ""), before + (failed.get("message") or "refused without a reason"))


async def _tried(plane: Plane, row: Connection, desired: Desired) -> Trial:
    async for event in plane.provisioner.trial(row.id, desired, plane.settings.install_secs):
        if event.failed is not None:
            raise _failure(event, f"the new version of {row.name!r} does not start, so nothing was changed: ")
        if event.tried is not None:
            return event.tried
    raise Unavailable("The provisioner went away while the new version was tried; nothing was changed")


# what it would be


def _custom(row: Connection, old: Desired) -> tuple[Desired, str, list[str]]:
    """The same, its package asked for anew."""
    mount = old.mount
    if mount is not None and mount.transport == "stdio":
        mount = msgspec.structs.replace(mount, lock=None)
    entry = Entry.from_manifest(custom.kept(row.manifest or b""))
    return msgspec.structs.replace(old, mount=mount, rules=entry.rules()), row.version, row.hosts


def _of_catalogue(plane: Plane, row: Connection, old: Desired) -> tuple[Desired, str, list[str]]:
    """What a connect with the same values would make now."""
    entry = entry_named(plane.catalog, row.connector).variant(row.variant)
    chosen = {
        field.name: name
        for field in entry.fields
        if field.secret
        for name in row.uses
        if name == field.name or name.startswith(f"{field.name}__")
    }
    entry.check(old.inputs, {}, set(chosen))
    own = entry.manifest.own.egress
    hosts = row.hosts if own.from_url else entry.hosts_for(old.inputs, {})  # a URL that is a secret is not to be read here
    spec = entry.desired(row.name, old.inputs, chosen, hosts, redirect=plane.settings.public_url + CALLBACK)
    bare = Desired(old.id, old.ws, old.name, rules=entry.rules(), inputs=old.inputs)
    new = wired(msgspec.structs.replace(bare, checks=entry.checks(old.inputs, chosen, {})), spec)
    return new, entry.version, hosts


# what changes


def _changes(row: Connection, old: Desired, new: Desired, becoming: Version, trial: Trial | None) -> Changes:
    tools = _tools(row, trial) if trial is not None else []
    settings = _settings(old, new)
    relabelled = becoming.rules.access != row.rules.access
    different = digest(new) != digest(old) or becoming.version != row.version or becoming.hosts != row.hosts
    return Changes(
        name=row.name,
        workspace=row.workspace,
        connector=row.connector,
        update=different or bool(tools) or relabelled,
        version=FromTo(row.version, becoming.version),
        package=FromTo(trial.now.package, trial.would.package) if trial is not None else FromTo(None, None),
        hosts_added=sorted({*becoming.hosts} - {*row.hosts}),
        hosts_removed=sorted({*row.hosts} - {*becoming.hosts}),
        tools=tools,
        settings=[*settings, *(["access of its tools"] if relabelled else []), *_beneath(old, new, trial)],
        digest=blake3.blake3(msgspec.json.encode(becoming, order="sorted")).hexdigest(16),
    )


def _tools(row: Connection, trial: Trial) -> list[ToolChange]:
    """Against what was agreed to, or what runs while nothing was."""
    now = {str(tool["name"]): tool for tool in trial.now.tools}
    would = {str(tool["name"]): tool for tool in trial.would.tools}
    agreed = row.rules.pins or trial.now.pins
    found = [ToolChange(name, "removed", before=_said(now.get(name))) for name in sorted({*agreed} - {*would})]
    for view in trial.views:
        before, after = now.get(view.tool), would.get(view.tool, {})
        if view.tool not in agreed:
            found.append(ToolChange(view.tool, "added", [], view.access, view.flags, "", _said(after)))
        elif agreed[view.tool] != view.fingerprint:
            members = [*_SHOWN, *sorted({*(before or ()), *after}.difference(_SHOWN, _NOT_AGREED_TO))]
            what = [member for member in members if before is not None and before.get(member) != after.get(member)]
            found.append(ToolChange(view.tool, "changed", what, view.access, view.flags, _said(before), _said(after)))
    return found


def _said(tool: dict[str, Any] | None) -> str:
    return str((tool or {}).get("description") or "")


def _beneath(old: Desired, new: Desired, trial: Trial | None) -> list[str]:
    """A lock that changes while its package does not: packages that one needs do."""
    if trial is None or old.mount is None or new.mount is None or old.mount.lock == new.mount.lock:
        return []
    return ["packages it needs"] if trial.now.package == trial.would.package else []


def _settings(old: Desired, new: Desired) -> list[str]:
    if old.mount is not None and new.mount is not None:
        members = [name for name in MountSpec.__struct_fields__ if name not in _QUIET]
        return [name for name in members if getattr(old.mount, name) != getattr(new.mount, name)]
    if old.function is not None and new.function is not None:
        return [
            name
            for name in ("code", "description", "input_schema", "output_schema", "annotations", "env", "timeout_ms", "memory_mb")
            if getattr(old.function, name) != getattr(new.function, name)
        ]
    return []
