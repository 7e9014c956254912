"""Connect as a saga (ARCHITECTURE §5), the gateway's half.

    check      everything that can be refused without writing: connector, names, fields, a taken name, a provisioner that is away
    write      one transaction: the row of intent, the sealed secrets, the hosts, the audit line
    hand over  the provisioner drives the engine to what the row says, and undoes the row if that fails

Rule 1. Either the connection is whole afterwards or nothing of it is left. Between writing and handing over there is one way
        to fail, a provisioner that surely got nothing; then it is undone here.
Rule 2. Once handed over, the outcome is the provisioner's. If it goes away, its reconciler finishes or undoes the connection
        when it is back; all that is said here is that the outcome is not known yet.
Rule 3. The saga does not depend on whoever asked for it: it goes on when the client goes away.
Rule 4. A plaintext is held from the body's decoding to the end of the transaction, and sealed inside it, since the version it is
        bound to is known there only.

Which vault secret a field means: `FIELD`, shared by every connection of the project that has such a field; but a value given to a
connection with a name of its own, while `FIELD` is taken, is kept as `FIELD__CONNECTION`, so it replaces nobody else's. The
tokens of a sign-in are the connection's alone, so what they are called in the vault ends in its id.

A connect that a person must sign in for waits for them (a step with a `link`); who asked for JSON is answered at that point.
"""

from __future__ import annotations

import asyncio
import difflib
import itertools
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from rootlink import names
from rootlink.catalog import Catalog, Entry
from rootlink.errors import Conflict, Internal, Invalid, NotFound, RootlinkError, Unavailable, UpstreamFailed, from_code
from rootlink.gateway import custom, incidents
from rootlink.gateway.plane import Plane, stored
from rootlink.gateway.provisioner import NeverTaken, ProvisionerAway
from rootlink.records import Connection, Found, NewConnection, Project, Seal, new_id
from rootlink.sealing.envelope import checked_value
from rootlink.wire.checks import Check
from rootlink.wire.mounts import Actual, Desired, FunctionSpec, MountSpec, Step
from rootlink.wire.tools import ToolRules

CALLBACK = "/oauth/callback"  # where a browser comes back to from a sign-in (`oauth.py`)
MOST_OF_A_NAME = 100  # characters of a secret's name, before what makes it one connection's own
InstallStep = Literal["install", "deploy"]
INSTALL: dict[str, InstallStep] = {"mcp": "install", "function": "deploy"}


class _Lost(Unavailable):
    """The provisioner had begun, and how it ended is not known."""


class Wish(msgspec.Struct):
    """The body of POST …/connections. `name` is the connector's own unless given. `variant`: of the catalogue's entry. `server`,
    `hosts`: of connector `custom` alone, a server that somebody brought (its manifest, as POST …/paste answers it) and where it
    may go."""

    connector: str
    variant: str | None = None
    workspace: str = "main"
    name: str | None = None
    inputs: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    server: dict[str, Any] | None = None
    hosts: list[str] = []

    def __repr__(self) -> str:
        return f"Wish({self.connector!r})"


class ConnectionView(msgspec.Struct):
    """`steps` are [{step, state, detail, link?}] of the connect; a `link` is a page to open for it to go on. `error` is why it
    does not work, if it does not. `label`: who we are to the service, `notes`: what a person should know of that, as far as
    checks found out. `held`: tools that are neither listed nor called until approved. `variant`, `version`: of the connector."""

    name: str
    connector: str
    kind: str
    workspace: str
    state: str
    steps: list[dict[str, Any]]
    tools: list[str]
    error: str | None
    created_at: str
    label: str | None = None
    notes: list[str] = []
    held: list[str] = []
    variant: str | None = None
    version: str = ""


def view(connection: Connection) -> ConnectionView:
    return ConnectionView(**{name: getattr(connection, name) for name in ConnectionView.__struct_fields__})


def entry_named(catalog: Catalog, name: str) -> Entry:
    """`NotFound` names what was probably meant."""
    known = {entry.name: entry for entry in catalog.list()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
    raise NotFound(f"There is no connector {name[:80]!r}; {hint}")


def entry_for(plane: Plane, wish: Wish) -> tuple[Entry, bytes | None]:
    """What is to be connected; and the manifest, if it is not the catalogue's. Raises `NotFound`, `Invalid`, `TooLarge`."""
    if wish.connector == custom.CONNECTOR:
        brought, manifest = custom.entry(wish)
        return brought.variant(wish.variant), manifest
    if wish.server is not None or wish.hosts:
        what = f"`server` and `hosts` are for connector {custom.CONNECTOR!r}"
        raise Invalid(f"{what}; what {wish.connector[:80]!r} is and where it may go, the catalogue says")
    return entry_named(plane.catalog, wish.connector).variant(wish.variant), None


async def planned(plane: Plane, project: Project, wish: Wish, actor: str) -> Saga:
    """The saga for a wish that may be tried. Raises `NotFound`, `Invalid`, `Conflict`, `Unavailable`; nothing is written."""
    entry, manifest = entry_for(plane, wish)
    workspace = names.workspace_name(wish.workspace)
    name = names.mount_name(entry.name if wish.name is None else wish.name)
    vault = {secret.name for secret in await stored(plane.store.secrets.list, project.id)}
    others = await stored(plane.store.connections.list, project.id)
    chosen = _vault_names(entry, name, wish, vault, {secret for other in others for secret in other.uses})
    entry.check(wish.inputs, wish.secrets, {field for field in chosen if field not in wish.secrets})
    await _must_be_free(plane, project, name, workspace)
    await plane.provisioner.health()
    hosts = entry.hosts_for(wish.inputs, wish.secrets)
    redirect = plane.settings.public_url + CALLBACK
    spec = entry.desired(name, wish.inputs, chosen, hosts, redirect=redirect)
    desired = _desired(spec, workspace, name, entry.checks(wish.inputs, chosen, wish.secrets), entry.rules(), wish.inputs)
    seals = [(chosen[field], _seal(plane, project, chosen[field], value)) for field, value in wish.secrets.items()]
    row = NewConnection(
        id=desired.id,
        project=project.id,
        workspace=workspace,
        name=name,
        connector=wish.connector,
        kind=entry.kind,
        desired=msgspec.json.encode(desired),
        secrets=seals,
        uses=sorted(chosen.values()),
        hosts=hosts,
        actor=actor,
        variant=wish.variant or None,
        version=entry.version,
        manifest=manifest,
        rules=desired.rules,
    )
    return Saga(plane, row)


def _vault_names(entry: Entry, name: str, wish: Wish, vault: set[str], used: set[str]) -> dict[str, str]:
    """The vault secret of each secret field that has a value, given now or kept from before. `used`: by other connections."""
    chosen: dict[str, str] = {}
    brought = wish.connector == custom.CONNECTOR  # a stranger names its fields, so it gets what it is given and nothing there is
    for wanted in (one.name for one in entry.fields if one.secret):
        own = f"{wanted}__{name.upper().replace('-', '_')}"
        if wanted in wish.secrets:
            replaces = brought or (wanted in used if name == entry.name else wanted in vault)
            chosen[wanted] = _unused(own, used | vault if brought else used) if replaces else wanted
        elif own in vault and not brought:
            chosen[wanted] = own
        elif wanted in vault and not brought:
            chosen[wanted] = wanted
    return chosen


def _unused(name: str, used: set[str]) -> str:
    """`name`, or with a number: names of connections that differ in `-` and `_`, or in their workspaces, look alike here."""
    numbered = (f"{name}__{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in used)


def _desired(
    spec: dict[str, Any], workspace: str, name: str, checks: list[Check], rules: ToolRules, inputs: dict[str, Any]
) -> Desired:
    return wired(Desired(new_id("con"), workspace, name, checks=checks, rules=rules, inputs=inputs), spec)


def wired(desired: Desired, spec: dict[str, Any]) -> Desired:
    """`desired` with what an entry says is to run (`Entry.desired`)."""
    mount = _signed_in_as(msgspec.convert(spec["mount"], MountSpec), desired.id) if "mount" in spec else None
    function = msgspec.convert(spec["function"], FunctionSpec) if "function" in spec else None
    return msgspec.structs.replace(desired, mount=mount, function=function)


def _signed_in_as(mount: MountSpec, id: str) -> MountSpec:
    if mount.oauth is None:
        return mount
    own = f"{mount.oauth.secret[:MOST_OF_A_NAME]}__{id.removeprefix('con_').upper()}"
    return msgspec.structs.replace(mount, oauth=msgspec.structs.replace(mount.oauth, secret=own))


def _seal(plane: Plane, project: Project, name: str, value: str) -> Seal:
    checked = checked_value(name, value)
    return lambda version: plane.sealer.seal(project.id, name, version, checked)


async def _must_be_free(plane: Plane, project: Project, name: str, workspace: str) -> None:
    try:
        there = await stored(plane.store.connections.get, project.id, name, workspace)
    except NotFound:
        return
    what = f"There is a connection {name!r} ({there.connector}) in workspace {workspace!r} already"
    raise Conflict(f"{what}; disconnect it, or give this one another name")


@dataclass
class Saga:
    """A connect that may be tried. `begin` it once, which returns when it is written, or can't be; then `outcome` is awaited, or
    `events` read, by as many as like."""

    plane: Plane
    row: NewConnection
    steps: list[Step] = field(default_factory=list)  # the latest of each
    _events: list[Step] = field(default_factory=list)  # every change
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _written: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[Connection] | None = None

    async def begin(self) -> None:
        self._task = self.plane.errands.begin(self._run())
        self._task.add_done_callback(self._ended)
        await self._written.wait()

    async def outcome(self) -> Connection:
        """The connection. Raises why there is none."""
        assert self._task is not None
        return await asyncio.shield(self._task)

    async def shown(self) -> Connection:
        """The connection, whole; or as it is when somebody must open a page for it to go on. Raises why there is none."""
        async for step in self.events():
            row = await stored(self.plane.store.connections.by_id, self.row.id) if step.link else None
            if row is not None:
                return msgspec.structs.replace(row, steps=[msgspec.to_builtins(step) for step in self.steps])
        return await self.outcome()

    async def events(self) -> AsyncIterator[Step]:
        """Every change of a step, from the first on, as it happens."""
        told = 0
        while True:
            news = self._news
            while told < len(self._events):
                told += 1
                yield self._events[told - 1]
            if self._task is None or self._task.done():
                return
            await news.wait()

    async def _run(self) -> Connection:
        try:
            await self._write()
        finally:
            self._written.set()
        return await self._hand_over()

    async def _write(self) -> None:
        row, beginning = self.row, list[Step]()
        if row.secrets:
            beginning.append(Step("seal", "running", _listed(name for name, _ in row.secrets)))
        if row.hosts:
            beginning.append(Step("egress", "running", _listed(row.hosts)))
        for step in beginning:
            self._tell(step)
        try:
            await stored(self.plane.store.connections.connect, row)
        except RootlinkError as error:
            for step in beginning:  # one transaction: neither of them happened
                self._tell(Step(step.step, "failed", error.message))
            raise
        for step in beginning:
            self._tell(Step(step.step, "done", step.detail))

    async def _hand_over(self) -> Connection:
        last, connections = INSTALL[self.row.kind], self.plane.store.connections
        try:
            actual = await self._install(last)
        except NeverTaken:
            await stored(connections.undo, self.row.id)
            raise
        except _Lost as error:
            later = f"Connection {self.row.name!r} will be finished or undone when it is back"
            raise Unavailable(f"{error.message} {later}") from None
        self._tell(Step(last, "done", _counted(actual)))
        steps = [msgspec.to_builtins(step) for step in self.steps]
        keep, found = connections.set_state, Found.at_connect(actual)
        return await stored(keep, self.row.id, "connected", error=actual.error, tools=actual.tools, steps=steps, found=found)

    async def _install(self, last: InstallStep) -> Actual:
        self._tell(Step(last, "running", self.row.connector))
        try:
            async for event in self.plane.provisioner.reconcile(self.row.id, self.plane.settings.install_secs):
                if event.done is not None:
                    return event.done
                if event.failed is not None:
                    raise await self._failed(last, event.failed)
                if event.step is not None and event.step.state == "running":
                    self._tell(event.step)
        except ProvisionerAway as error:
            raise _Lost(error.message) from None
        raise _Lost("The provisioner went away while this was installed.")

    async def _failed(self, last: InstallStep, failed: dict[str, str]) -> RootlinkError:
        error = from_code(failed.get("code", UpstreamFailed.code), failed.get("message", "The install failed"))
        self._tell(Step(last, "failed", error.message))
        note = self.plane.store.activity.add
        await stored(note, self.row.project, self.row.actor, "connection.failed", self.row.name, error.code)
        return error

    def _tell(self, step: Step) -> None:
        if step in self.steps:
            return  # said again as a sign of life
        self.steps = [*(other for other in self.steps if other.step != step.step), step]
        self._events.append(step)
        self._announce()

    def _announce(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _ended(self, task: asyncio.Task[Connection]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, RootlinkError):
            incidents.record(error, connection=self.row.id)  # whoever asked may be gone, and then nobody else does
        self._written.set()  # also if it was cancelled before it began
        self._announce()


def failure(error: BaseException, steps: list[Step], request_id: str) -> dict[str, Any]:
    """The data of a `failed` event."""
    if not isinstance(error, RootlinkError) or isinstance(error, Internal):
        error = Internal(f"Internal error (request id {request_id})")
    return {"code": error.code, "message": error.message, "steps": steps}


def _listed(items: Iterable[str]) -> str:
    return ", ".join(items)


def _counted(actual: Actual) -> str:
    count = len(actual.tools)
    return f"{count} tool" if count == 1 else f"{count} tools"
