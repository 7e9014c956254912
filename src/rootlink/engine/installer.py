"""Changes to what an engine holds: install, remove, deploy, each written down and told to every client.

Two owners: what a person or an AI installed here belongs to the engine; what a connection wants belongs to the connection, and
only its reconciler may change it. Order of a change: start it, write it down, tell the clients; undone in the reverse order, so
a crash in between leaves nothing that was not asked for, and the reconciler repeats what it asked for.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Literal

import msgspec
import structlog
from msgspec import Raw

from rootlink import shapes
from rootlink.engine.catalogue import FUNCTION, public_names
from rootlink.engine.changes import Changes
from rootlink.engine.checks import Ask, Checks
from rootlink.engine.functions.host import Deployed, FunctionHost
from rootlink.engine.mounts.listing import Catalogue
from rootlink.engine.mounts.mount import Mount
from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.oauth.accounts import Accounts
from rootlink.engine.state import ConnectionRow, State
from rootlink.engine.ticking import ticking
from rootlink.engine.tools.control import INSTRUCTIONS, Kept
from rootlink.engine.tools.guard import Change, Guard, Owner, own_definition
from rootlink.errors import Conflict, Invalid, NotFound, RootlinkError
from rootlink.wire.checks import Check, Verdict
from rootlink.wire.engine import InstallEvent
from rootlink.wire.mounts import Actual, Desired, FunctionSpec, MountSpec, Step, digest
from rootlink.wire.tools import ToolRules, ToolView

log = structlog.get_logger(__name__)

Redact = Callable[[str], str]
InstallStep = Literal["install", "deploy"]


def cleaned(value: Any, redact: Redact) -> Any:
    """JSON with every string redacted, names of members too."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(name): cleaned(member, redact) for name, member in value.items()}
    return [cleaned(item, redact) for item in value] if isinstance(value, list) else value


def _owner(row: ConnectionRow) -> Owner:
    return Owner(row.ws, "mount" if row.kind == "mount" else "function", row.name)


def kinds_of(mount: Mount) -> set[str]:
    """Which lists change when this mount comes or goes: tools, and what else it has."""
    lists = mount.catalogue
    have = {"prompts": lists.prompts, "resources": lists.resources or lists.templates}
    return {"tools", *(kind for kind, items in have.items() if items)}


def decode_spec(body: object) -> MountSpec:
    """A pasted server as a MountSpec. Raises Invalid naming the member; what the caller sent is never echoed."""
    own = next((member for member in ("lock", "files", "oauth", "start_secs") if isinstance(body, dict) and member in body), None)
    if own is not None:
        raise Invalid(f"`{own}` is for connections alone; leave it out")
    try:
        return msgspec.convert(body, MountSpec)
    except msgspec.ValidationError as error:
        raise Invalid(f"this server can't be mounted: {shapes.words(str(error))}") from None


class Installer:
    def __init__(
        self,
        mounts: Mounts,
        functions: FunctionHost,
        state: State,
        changes: Changes,
        redact: Redact,
        checks: Checks,
        accounts: Accounts,
        guard: Guard,
    ) -> None:
        self._mounts, self._functions, self._state, self._changes = mounts, functions, state, changes
        self._redact, self._checks, self._accounts, self._guard = redact, checks, accounts, guard
        self._turn = asyncio.Lock()  # of connections: two wishes of one connection must not meet half way
        self._written: weakref.WeakKeyDictionary[Mount, Catalogue] = weakref.WeakKeyDictionary()  # as it was last written down
        self._mounting: dict[str, asyncio.Task[Mount]] = {}  # connection → its mount that is being installed
        self.function_gone: Callable[[str, str], None] = lambda ws, name: (
            None
        )  # told the workspace and name; not of a new version

    # servers a person or an AI installs

    async def install(self, ws: str, body: object) -> dict[str, Any]:
        """Mount what `body` describes. Answers POST …/mcp-servers; `held`, if any are: tools a person has to look at.

        Raises Invalid, Conflict, EgressBlocked, UpstreamFailed.
        """
        spec = decode_spec(body)
        mount = await self._mount(ws, spec, None, ToolRules(), None)
        told = self._changes.publish(ws, kinds_of(mount))
        mounts = self._mounts.list(ws)
        answer = {
            "installed": True,
            "server_count": len(mounts),
            "tool_count": sum(len(mount.catalogue.tools) for mount in mounts),
            "tools_list_changed_notified": told,
        }
        held = [view.name for view in self.tools(ws, mount.name) if view.held is not None]
        return {**answer, "held": held} if held else answer

    async def uninstall(self, ws: str, name: str) -> dict[str, Any]:
        """Unmount a server of the engine's own. Raises NotFound, and Conflict for a connection's."""
        mount = self._mounts.get(ws, name)
        if mount.connection is not None:
            raise Conflict(f"{name} belongs to a connection; remove it with: rootlink disconnect {name}")
        await self._unmount(ws, name, forget=True)
        told = self._changes.publish(ws, kinds_of(mount))
        return {"removed": True, "server_count": len(self._mounts.list(ws)), "tools_list_changed_notified": told}

    def servers(self, ws: str) -> list[dict[str, Any]]:
        return [self.view(mount) for mount in self._mounts.list(ws)]

    def view(self, mount: Mount) -> dict[str, Any]:
        """One item of GET …/mcp-servers (CONTRACT §3)."""
        return {
            "name": mount.name,
            "transport": mount.spec.transport,
            "state": mount.state,
            "tool_count": len(mount.catalogue.tools),
            "error": self._redact(mount.shown) if mount.shown else None,
            "connection": mount.name if mount.connection else None,  # a connection's mount bears its name
        }

    # functions

    async def deploy(self, ws: str, spec: FunctionSpec) -> Deployed:
        """Deploy or redeploy a function of the engine's own. Raises Invalid when it does not compile."""
        self._not_a_connections(ws, spec.name)
        return self._live(ws, await self._functions.deploy(ws, spec))

    async def rollback(self, ws: str, name: str, version: int | None) -> Deployed:
        """An older version of a function of the engine's own is live again. Raises NotFound, Conflict, Invalid."""
        self._not_a_connections(ws, name, "go back to what its connection was before with: rootlink catalog rollback")
        return self._live(ws, await self._functions.rollback(ws, name, version))

    def _live(self, ws: str, deployed: Deployed) -> Deployed:
        """Its definition is its author's own, and agreed to."""
        owner = Owner(ws, "function", deployed.name)
        self._guard.hold(owner, self._state.kept(owner))
        self._changes.publish(ws, {"tools"})
        return deployed

    async def undeploy(self, ws: str, name: str) -> None:
        self._not_a_connections(ws, name)
        if not await self._functions.remove(ws, name):
            raise NotFound(f"no function {name!r} in workspace {ws!r}")
        self.function_gone(ws, name)
        self._forget_tools(Owner(ws, "function", name))
        self._changes.publish(ws, {"tools"})

    def _not_a_connections(self, ws: str, name: str, instead: str = "remove it with: rootlink disconnect") -> None:
        for row in self._state.connections():
            if (row.ws, row.name, row.kind) == (ws, name, "function"):
                raise Conflict(f"function {name!r} belongs to a connection; {instead} {name}")

    # connections

    def actual(self) -> list[Actual]:
        return [self._actual(row) for row in self._state.connections()]

    def _actual(self, row: ConnectionRow) -> Actual:
        state, tools, error = self._look(row)
        owner = _owner(row)
        views = [] if state == "missing" else self._views(owner)
        withheld = {view.name for view in views if view.held is not None or view.mode == "off"}
        return Actual(
            row.id,
            row.ws,
            row.name,
            owner.kind,
            row.digest,
            state,
            [name for name in tools if name not in withheld],
            error,
            pins=self._guard.kept(owner).rules.pins,
            held=[view.name for view in views if view.held is not None],
        )

    def _look(self, row: ConnectionRow) -> tuple[str, list[str], str | None]:
        if row.kind == "function":
            return "ready", [f"function__{row.name}"], None
        try:
            mount = self._mounts.get(row.ws, row.name)
        except NotFound:
            return "missing", [], None
        own = [tool["name"] for tool in mount.catalogue.tools]
        return mount.state, list(public_names([(row.name, own)]).values()), self._redact(mount.shown) if mount.shown else None

    async def apply(self, desired: Desired, emit: Callable[[InstallEvent], None]) -> None:
        """Make this engine hold what a connection wants. Emits steps as they happen, `done` or `failed` last; never raises."""
        step: InstallStep = "install" if desired.mount is not None else "deploy"

        def tell(told: Step) -> None:
            emit(InstallEvent(step=told))

        tell(Step(step, "running"))
        try:
            async with ticking(tell, Step(step, "running", "waiting for its turn")) as told:
                # before its turn: a person may take ten minutes, and others are waiting
                await self._accounts.ready(desired, told)
                async with self._turn:
                    actual = await self._hold(desired, step, told)
        except RootlinkError as error:
            words = self._redact(error.message)
            emit(InstallEvent(step=Step(step, "failed", words)))
            emit(InstallEvent(failed={"code": error.code, "message": words}))
        except Exception:
            log.exception("install broke", connection=desired.id)
            emit(InstallEvent(failed={"code": "internal", "message": "Internal error; see the engine's log"}))
        else:
            count, held = len(actual.tools), len(actual.held)
            words = f"{count} tool{'' if count == 1 else 's'}{f', {held} more held back' if held else ''}"
            emit(InstallEvent(step=Step(step, "done", words)))
            emit(InstallEvent(done=actual))

    async def _hold(self, desired: Desired, step: InstallStep, tell: Callable[[Step], None]) -> Actual:
        def progress(words: str) -> None:
            tell(Step(step, "running", words))

        wanted = digest(desired)
        row = self._state.connection(desired.id)
        if row is not None and row.digest == wanted and self._look(row)[0] != "missing":
            self.rules({desired.id: desired.rules})
            return self._actual(row)
        fresh = row is None
        if row is not None:
            await self._release(desired.id, forget=False)  # it comes back changed: what its server kept stays
        verdict = await self._checks.before(desired, progress)
        if desired.mount is not None:
            row = ConnectionRow(desired.id, desired.ws, desired.name, "mount", wanted)
            mount = await self._breakable(desired.id, self._mount(desired.ws, desired.mount, row, desired.rules, progress))
            self._changes.publish(desired.ws, kinds_of(mount))
        elif desired.function is not None:
            row = ConnectionRow(desired.id, desired.ws, desired.name, "function", wanted)
            if any(function.name == desired.function.name for function in self._functions.list(desired.ws)):
                raise Conflict(f"a function {desired.function.name!r} exists already; delete it or choose another name")
            await self._functions.deploy(desired.ws, desired.function, connection=desired.id)
            self._hold_tools(_owner(row), Kept(desired.rules))
            self._state.put_connection(row)
            self._changes.publish(desired.ws, {"tools"})
        else:
            raise Invalid("a connection wants a mount or a function")
        try:
            verdict = await self._checks.after(desired, self._asker(desired), progress, verdict)
        except BaseException:
            await self._release(desired.id, forget=fresh)
            raise
        return msgspec.structs.replace(self._actual(row), label=verdict.label, notes=verdict.notes)

    async def check(self, id: str, checks: list[Check]) -> Verdict:
        """`checks` made of what a connection has here. Raises NotFound when it has nothing."""
        row = self._state.connection(id)
        if row is None:
            raise NotFound("this engine holds nothing of that connection")
        desired = Desired(row.id, row.ws, row.name, checks=checks)
        if row.kind == "mount":
            desired = msgspec.structs.replace(desired, mount=self._mounts.get(row.ws, row.name).spec)
        else:
            held = self._functions.get(row.ws, row.name)
            desired = msgspec.structs.replace(desired, function=FunctionSpec(held.name, held.code, egress=held.egress))
        return await self._checks.again(desired, self._asker(desired))

    def _asker(self, desired: Desired) -> Ask:
        """A call of one of the connection's own tools, on nobody's behalf."""

        async def ask(tool: str, arguments: dict[str, Any]) -> Raw:
            return await self._mounts.get(desired.ws, desired.name).request("tools/call", {"name": tool, "arguments": arguments})

        return ask

    async def _breakable(self, id: str, work: Coroutine[Any, Any, Mount]) -> Mount:
        """What `work` comes to. Raises NotFound when the connection is taken away meanwhile."""
        task = self._mounting[id] = asyncio.get_running_loop().create_task(work)
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise NotFound("the connection was taken away while it was being installed") from None
        finally:
            del self._mounting[id]

    async def release(self, id: str) -> bool:
        """Undo what a connection had here, and what its server kept; False when there was nothing. An install of it that is
        under way ends: one that hangs must not keep everybody waiting."""
        if id in self._mounting:
            self._mounting[id].cancel()
        self._accounts.leave(id)
        async with self._turn:
            released = await self._release(id, forget=True)
        self._accounts.forget(id)
        return released

    async def _release(self, id: str, *, forget: bool) -> bool:
        row = self._state.connection(id)
        if row is None:
            return False
        kinds = {"tools"}
        if row.kind == "function":
            await self._functions.remove(row.ws, row.name)
            if forget:
                self.function_gone(row.ws, row.name)
            self._forget_tools(_owner(row))
        else:
            kinds = self._kinds(row)
            await self._unmount(row.ws, row.name, forget=forget)
        self._state.drop_connection(id)
        self._changes.publish(row.ws, kinds)
        return True

    def _kinds(self, row: ConnectionRow) -> set[str]:
        try:
            return kinds_of(self._mounts.get(row.ws, row.name))
        except NotFound:
            return set()

    # what is done with their tools

    def rules(self, rules: Mapping[str, ToolRules]) -> None:
        """Of connections, by id, as they are now; in force at once. One that is not named keeps what it has."""
        for row in self._state.connections():
            if row.id in rules and self._guard.update(_owner(row), rules[row.id]):
                self._changes.publish(row.ws, {"tools"})

    def tools(self, ws: str, name: str) -> list[ToolView]:
        """Of a mount; of name `function`: of all functions. Raises NotFound."""
        if name != FUNCTION:
            return self._views(Owner(ws, "mount", self._mounts.get(ws, name).name))
        return [view for deployed in self._functions.list(ws) for view in self._views(Owner(ws, "function", deployed.name))]

    def tools_of(self, id: str) -> list[ToolView]:
        """Of a connection. Raises NotFound when it has nothing here."""
        row = self._state.connection(id)
        if row is None or self._look(row)[0] == "missing":
            raise NotFound("this engine holds nothing of that connection")
        return self._views(_owner(row))

    def decide(self, ws: str, name: str, tool: str, body: object) -> ToolView:
        """What a person decided about one tool of the engine's own. Raises Invalid, NotFound, and Conflict for a connection's."""
        try:
            change = msgspec.convert(body, Change)
        except msgspec.ValidationError as error:
            raise Invalid(f"this is no decision about a tool: {shapes.words(str(error))}") from None
        if name == FUNCTION:
            tool = tool.removeprefix(f"{FUNCTION}__")
            owner = Owner(ws, "function", self._functions.get(ws, tool).name)
            theirs = any((row.ws, row.name, row.kind) == (ws, owner.name, "function") for row in self._state.connections())
        else:
            owner = Owner(ws, "mount", name)
            theirs = self._mounts.get(ws, name).connection is not None
        if theirs:
            raise Conflict(f"{owner.name} belongs to a connection; decide about its tools with: rootlink tools")
        if self._guard.change(owner, self._definitions(owner), tool, change):
            self._changes.publish(ws, {"tools"})
        return next(view for view in self._views(owner) if view.tool == tool)

    def _views(self, owner: Owner) -> list[ToolView]:
        tools = self._definitions(owner)
        known = self._guard.known(owner, tools)
        if owner.kind == "function":
            return self._guard.views(owner, tools, {owner.name: f"{FUNCTION}__{owner.name}"})
        public = public_names([(owner.name, [tool["name"] for tool in known])])
        named = {tool: name for (_, tool), name in public.items()}
        return self._guard.views(owner, tools, named | {INSTRUCTIONS: f"{owner.name}__{INSTRUCTIONS}"})

    def _definitions(self, owner: Owner) -> list[dict[str, Any]]:
        if owner.kind == "function":
            return [own_definition(self._functions.tool(owner.ws, owner.name), owner.name)]
        catalogue = self._mounts.get(owner.ws, owner.name).catalogue
        self._guard.hear(owner, catalogue.instructions)
        return catalogue.tools

    def _hold_tools(self, owner: Owner, kept: Kept) -> None:
        self._state.put_kept(owner, kept)
        self._guard.hold(owner, kept)

    def _forget_tools(self, owner: Owner) -> None:
        self._guard.drop(owner)
        self._state.drop_kept(owner)

    # both

    async def _mount(
        self,
        ws: str,
        spec: MountSpec,
        row: ConnectionRow | None,
        rules: ToolRules,
        progress: Callable[[str], None] | None,
    ) -> Mount:
        """From here on nothing is listed of it before it was judged: between `add` and that nobody else has a turn."""
        connection = row.id if row is not None else None
        mount = await self._mounts.add(ws, spec, connection=connection, progress=progress)
        self._hold_tools(Owner(ws, "mount", spec.name), Kept(rules, agreed=bool(rules.pins)))
        self._judge(mount)
        self._state.put_mount(ws, spec, connection, self._kept(mount))
        if row is not None:
            self._state.put_connection(row)
        return mount

    def _kept(self, mount: Mount) -> Catalogue:
        """Its catalogue as it is written down: a server may have put a secret into a description."""
        kept = msgspec.convert(cleaned(msgspec.to_builtins(mount.catalogue), self._redact), Catalogue)
        self._guard.written(Owner(mount.ws, "mount", mount.name), mount.catalogue.tools, kept.tools)
        return kept

    async def _unmount(self, ws: str, name: str, *, forget: bool) -> None:
        self._state.drop_mount(ws, name)
        await self._mounts.remove(ws, name, forget=forget)
        self._forget_tools(Owner(ws, "mount", name))

    def _judge(self, mount: Mount) -> None:
        """So that what is held back is known before anybody asks for it."""
        tools, owner = mount.catalogue.tools, Owner(mount.ws, "mount", mount.name)
        self._guard.hear(owner, mount.catalogue.instructions)
        self._guard.judge(owner, tools, tools)

    def restore(self, rules: Mapping[str, ToolRules]) -> None:
        """At engine start: bring back every mount in the background, under supervision. Functions restore themselves. `rules`:
        of connections, by id."""
        for ws, spec, connection, catalogue in self._state.mounts():
            mount = self._mounts.restore(ws, spec, connection, catalogue)
            owner = Owner(ws, "mount", spec.name)
            self._guard.hold(owner, self._state.kept(owner))
            if connection is not None and connection in rules:
                self._guard.update(owner, rules[connection])
            self._judge(mount)
        for function in self._functions.all():
            owner = Owner(function.ws, "function", function.name)
            self._guard.hold(owner, self._state.kept(owner))
            if function.connection is not None and function.connection in rules:
                self._guard.update(owner, rules[function.connection])

    def changed(self, ws: str, kinds: set[str]) -> None:
        """A mounted server's lists changed: keep them for the next start, tell the clients."""
        for mount in self._mounts.list(ws):
            self._judge(mount)
            if self._written.get(mount) is not mount.catalogue:  # a change makes a new one
                self._state.put_catalogue(ws, mount.name, self._kept(mount))
                self._written[mount] = mount.catalogue
        self._changes.publish(ws, kinds)
