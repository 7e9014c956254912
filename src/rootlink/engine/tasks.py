"""Tasks: calls that go on after their answer, in the two forms MCP has for them, each between a client and a server of one era.

    session era     2025-11-25   the client asks for one (`params.task`); tasks/get, result, cancel, list; a notice of its status
    stateless era   2026-07-28   an extension; the server makes one (`resultType: "task"`); tasks/get, update, cancel

Rules
- Task ids are ours: mount and the server's own id, authenticated and bound to the principal and workspace that made the task. To
  anybody else, and to a client of the other era, it does not exist (-32602). The same task always has the same id.
- A server that is shared lists everybody's tasks and tells of them all. Whose they are is remembered while the engine lives, and
  again when a client comes back with an id; tasks/list and notices leave out what nobody is known to have made.
- Eras are not translated. A stateless client's `params.task` is ignored (its revision says so); a session client that wants a
  task of a stateless server is refused with words.
- `_meta["io.modelcontextprotocol/related-task"]` is renamed in whatever is told, asked and answered; one that names a task of
  somebody else is taken out.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Raw

from rootlink.engine import rpc
from rootlink.engine.bridge import MISSING_CAPABILITY
from rootlink.engine.calls import Call, Client, Heard, Standing, Through
from rootlink.engine.catalogue import is_stateless
from rootlink.engine.mounts.mount import Mount
from rootlink.engine.rpc import INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from rootlink.engine.tokens import Tokens
from rootlink.errors import RootlinkError, UpstreamFailed

EXTENSION = "io.modelcontextprotocol/tasks"
RELATED = "io.modelcontextprotocol/related-task"
STATUS = "notifications/tasks/status"
METHODS = {
    False: frozenset({"tasks/get", "tasks/result", "tasks/cancel", "tasks/list"}),
    True: frozenset({"tasks/get", "tasks/update", "tasks/cancel"}),
}  # by whether the client is stateless
RESULT_SECONDS = 24 * 3600.0  # tasks/result waits for the task, however long it takes; a cancelled request ends the wait
LIST_SECONDS = 5.0  # a server that does not answer leaves its tasks out of a list
MAX_PAGES = 20
MAX_REMEMBERED = 10_000
MAX_ID = 1024  # characters of a server's own id: it is remembered
_KIND = "task"
_NEEDED: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}

Ask = Callable[[Mount, str, dict[str, Any], float | None], Awaitable[Raw]]
"""(mount, method, params, seconds): one request of the client's, to the server itself."""


class Owner(Protocol):
    """Who asks (`dispatch.Caller`)."""

    @property
    def ws(self) -> str: ...
    @property
    def principal(self) -> str: ...


class Task(NamedTuple):
    """A task, as its server knows it."""

    ws: str
    mount: str
    id: str


class Made(NamedTuple):
    """`id`: ours. `client`: who made it, or asked for it last."""

    id: str
    principal: str
    client: Client


def offered(mount: Mount) -> bool:
    """Whether this server has tasks, in the form of its own era."""
    declared = mount.catalogue.capabilities
    if is_stateless(mount.catalogue):
        extensions = declared.get("extensions")
        return isinstance(extensions, dict) and EXTENSION in extensions
    return isinstance(declared.get("tasks"), dict)


def capability(mounts: Iterable[Mount]) -> dict[str, Any] | None:
    """`capabilities.tasks` for a session client: what any server can, of what passes through here; None when none has tasks."""
    declared = [mount.catalogue.capabilities["tasks"] for mount in mounts if not is_stateless(mount.catalogue) and offered(mount)]
    if not declared:
        return None
    merged: dict[str, Any] = {name: {} for name in ("list", "cancel") if any(name in tasks for tasks in declared)}
    if any(_at(tasks, "requests", "tools", "call") is not None for tasks in declared):
        merged["requests"] = {"tools": {"call": {}}}
    return merged


def extension(mounts: Iterable[Mount]) -> Any:
    """What a stateless client is told of the extension: what the first server says that has it; None when none has."""
    having = (mount.catalogue.capabilities["extensions"] for mount in mounts if is_stateless(mount.catalogue) and offered(mount))
    return next((declared[EXTENSION] for declared in having), None)


class Tasks:
    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._made: OrderedDict[Task, Made] = OrderedDict()  # oldest first
        self._heard: weakref.WeakSet[Mount] = weakref.WeakSet()

    def forget_client(self, key: str) -> None:
        """Its tasks go on, and can be asked for; nobody is there to be told of them."""
        for task, made in self._made.items():
            if made.client.key == key:
                self._made[task] = made._replace(client=replace(made.client, standing=None))

    # calls that may become tasks

    def call(self, owner: Owner, mount: Mount, call: Call) -> Call:
        """`call`, as a server with tasks of the session era may tell and ask a client of that era through it."""
        names = self._names(owner, mount, call.client)
        return call if names is None else _Renamed(names, call)

    def client(self, owner: Owner, mount: Mount, client: Client) -> Client:
        """The same, outside of any call."""
        names = self._names(owner, mount, client)
        return client if names is None else names.client(client)

    def _names(self, owner: Owner, mount: Mount, client: Client) -> _Names | None:
        between = not client.stateless and not is_stateless(mount.catalogue) and offered(mount)
        return _Names(self, owner, mount) if between else None

    def asked(self, mount: Mount, params: dict[str, Any], call: Call | None) -> dict[str, Any]:
        """The params of a tools/call as this server may see them. Raises RpcError -32601."""
        if "task" not in params or call is None or call.client.stateless == is_stateless(mount.catalogue):
            return params
        if call.client.stateless:
            return {name: value for name, value in params.items() if name != "task"}
        raise RpcError(
            METHOD_NOT_FOUND, f"{mount.name} has no tasks a client of {call.client.version} can use; call without `task`"
        )

    def created(self, owner: Owner, mount: Mount, params: dict[str, Any], call: Call | None, result: Raw) -> Raw:
        """The result of a tools/call; the id in it ours, if it made a task."""
        if call is None or call.client.stateless != is_stateless(mount.catalogue):
            return result
        if call.client.stateless:
            if b'"task"' not in bytes(result) or not offered(mount):
                return result
            members = rpc.members(result)
            return self._with_id(owner, mount, call.client, members) if _text(members, "resultType") == "task" else result
        if "task" not in params:
            return result
        members = rpc.members(result)
        if "task" not in members:
            return result
        members["task"] = self._with_id(owner, mount, call.client, rpc.members(members["task"]))
        return self._unrelated(owner, mount, rpc.raw(members))

    def _with_id(self, owner: Owner, mount: Mount, client: Client, members: dict[str, Raw]) -> Raw:
        id = _text(members, "taskId")
        if len(id) > MAX_ID:
            raise UpstreamFailed(f"{mount.name} gave a task an id of more than {MAX_ID} characters")
        return rpc.raw({**members, "taskId": self._remember(owner, mount, id, client)} if id else members)

    # methods

    async def handle(
        self, owner: Owner, mounts: list[Mount], method: str, params: dict[str, Any], call: Call | None, ask: Ask
    ) -> Raw:
        """The answer to a `tasks/…` request. Raises RpcError, RootlinkError."""
        if call is None or method not in METHODS[call.client.stateless]:
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method[:100]}")
        having = [mount for mount in mounts if offered(mount) and is_stateless(mount.catalogue) == call.client.stateless]
        if not having:
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method[:100]}")
        if call.client.stateless and _at(call.client.capabilities, "extensions", EXTENSION) is None:
            raise RpcError(MISSING_CAPABILITY, f"{method} needs the client capability {EXTENSION}", _NEEDED)
        if method == "tasks/list":
            return await self._list(owner, having, params, ask)
        id = params.get("taskId")
        mount, task = self._find(owner, having, id)
        self._remember(owner, mount, task.id, call.client)
        result = await ask(mount, method, {**params, "taskId": task.id}, RESULT_SECONDS if method == "tasks/result" else None)
        members = rpc.members(result)
        if "taskId" in members:
            result = rpc.raw({**members, "taskId": id})
        return result if call.client.stateless else self._unrelated(owner, mount, result)

    def _find(self, owner: Owner, having: list[Mount], id: object) -> tuple[Mount, Task]:
        task = self._open(owner, id)
        mount = next((mount for mount in having if mount.name == task.mount), None)
        if mount is None:
            raise RpcError(INVALID_PARAMS, f"Unknown task: {str(id)[:100]}")
        return mount, task

    def _open(self, owner: Owner, id: object) -> Task:
        """Raises RpcError -32602."""
        body = self._tokens.open(_KIND, id, owner.principal, owner.ws, name="taskId")
        return Task(owner.ws, *msgspec.json.decode(body, type=tuple[str, str]))

    async def _list(self, owner: Owner, having: list[Mount], params: dict[str, Any], ask: Ask) -> Raw:
        """The tasks this principal made, of every server that can list and answers in time. One page."""
        if params.get("cursor") is not None:
            raise RpcError(INVALID_PARAMS, "Unknown cursor: this list has one page")
        known = {(task.mount, task.id): made.id for task, made in self._made.items() if _is(made, owner, task)}
        names = {mount for mount, _ in known}
        asked = [
            mount for mount in having if mount.name in names and _at(mount.catalogue.capabilities, "tasks", "list") is not None
        ]
        pages = await asyncio.gather(*(_listed(mount, ask) for mount in asked))
        found = [
            (known.get((mount.name, _text(task, "taskId"))), task)
            for mount, tasks in zip(asked, pages, strict=True)
            for task in tasks
        ]
        return rpc.raw({"tasks": [{**task, "taskId": id} for id, task in found if id is not None]})

    # ids

    def _remember(self, owner: Owner, mount: Mount, upstream: str, client: Client) -> str:
        """Our id of a task that this client made or may ask for."""
        id = self._tokens.seal(_KIND, bytes(rpc.raw([mount.name, upstream])), owner.principal, owner.ws)
        self._made[Task(owner.ws, mount.name, upstream)] = Made(id, owner.principal, client)
        if len(self._made) > MAX_REMEMBERED:
            self._made.popitem(last=False)
        self._hear(mount)
        return id

    def ours(self, owner: Owner, mount: Mount, upstream: object) -> str | None:
        """The id this principal knows a server's task by; None for a task of nobody known, or of somebody else."""
        task = Task(owner.ws, mount.name, str(upstream))
        made = self._made.get(task)
        return made.id if made is not None and _is(made, owner, task) else None

    def theirs(self, owner: Owner, mount: Mount, id: object) -> str | None:
        """What the server calls a task of this principal's."""
        try:
            task = self._open(owner, id)
        except RpcError:
            return None
        return task.id if task.mount == mount.name else None

    def _unrelated(self, owner: Owner, mount: Mount, params: Raw) -> Raw:
        return renamed(params, partial(self.ours, owner, mount))

    # what servers tell of their own

    def _hear(self, mount: Mount) -> None:
        if mount not in self._heard and not is_stateless(mount.catalogue):
            self._heard.add(mount)
            mount.listeners.append(partial(self._noticed, mount.ws, mount.name))

    def _noticed(self, ws: str, mount: str, method: str, params: Raw) -> None:
        if method != STATUS:
            return
        members = rpc.members(params)
        made = self._made.get(Task(ws, mount, _text(members, "taskId")))
        if made is not None and made.client.standing is not None:
            made.client.standing.tell(STATUS, rpc.raw({**members, "taskId": made.id}))


class _Names:
    """What one principal and one server call its tasks: ours on the client's side, the server's own on the other."""

    def __init__(self, tasks: Tasks, owner: Owner, mount: Mount) -> None:
        self._ours, self._theirs = partial(tasks.ours, owner, mount), partial(tasks.theirs, owner, mount)

    def client(self, client: Client) -> Client:
        standing = client.standing
        return client if standing is None else replace(client, standing=_RenamedStanding(self, standing))

    def told(self, method: str, params: Raw) -> Raw | None:
        """The params of a notification; None when it is of a task that is not this client's."""
        if method != STATUS:
            return self.out(params)
        members = rpc.members(params)
        id = self._ours(_text(members, "taskId"))
        return None if id is None else rpc.raw({**members, "taskId": id})

    def out(self, params: Raw) -> Raw:
        return renamed(params, self._ours)

    def back(self, result: Raw) -> Raw:
        return renamed(result, self._theirs)


class _Renamed(Through):
    """A call whose server speaks of tasks."""

    def __init__(self, names: _Names, call: Call) -> None:
        super().__init__(call)
        self._names, self._client = names, names.client(call.client)

    @property
    def client(self) -> Client:
        return self._client

    def tell(self, method: str, params: Raw) -> None:
        told = self._names.told(method, params)
        if told is not None:
            self._call.tell(method, told)

    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        return self._names.back(await self._call.ask(method, self._names.out(params), heard))


class _RenamedStanding:
    def __init__(self, names: _Names, standing: Standing) -> None:
        self._names, self._standing = names, standing

    @property
    def open(self) -> bool:
        """As the client's own says it, for links that last as long as somebody hears (mounts/pool.py)."""
        return self._standing.open

    def tell(self, method: str, params: Raw) -> None:
        told = self._names.told(method, params)
        if told is not None:
            self._standing.tell(method, told)

    async def ask(self, method: str, params: Raw, heard: Heard | None = None) -> Raw:
        return self._names.back(await self._standing.ask(method, self._names.out(params), heard))


def renamed(params: Raw, name: Callable[[object], str | None]) -> Raw:
    """`params` (or a result) whose related task is called what `name` says; not at all when that is None."""
    if RELATED.encode() not in bytes(params):
        return params
    members = rpc.members(params)
    meta = rpc.members(members.get("_meta", Raw(b"{}")))
    related = rpc.value(meta.pop(RELATED, Raw(b"null")))
    if not isinstance(related, dict):
        return params
    id = name(related.get("taskId"))
    if id is not None:
        meta[RELATED] = rpc.raw({**related, "taskId": id})
    return rpc.raw({**members, "_meta": meta})


async def _listed(mount: Mount, ask: Ask) -> list[dict[str, Raw]]:
    found: list[dict[str, Raw]] = []
    params: dict[str, Any] = {}
    try:
        for _ in range(MAX_PAGES):
            page = rpc.members(await ask(mount, "tasks/list", params, LIST_SECONDS))
            tasks = rpc.value(page.get("tasks", Raw(b"[]")))
            found += [{name: rpc.raw(value) for name, value in task.items()} for task in tasks if isinstance(task, dict)]
            params = {"cursor": rpc.value(page.get("nextCursor", Raw(b"null")))}
            if not isinstance(params["cursor"], str):
                break
    except (RpcError, RootlinkError):
        pass
    return found


def _is(made: Made, owner: Owner, task: Task) -> bool:
    return (made.principal, task.ws) == (owner.principal, owner.ws)


def _text(members: dict[str, Raw], name: str) -> str:
    value = rpc.value(members.get(name, Raw(b"null")))
    return value if isinstance(value, str) else ""


def _at(value: Any, *path: str) -> Any:
    """What is found down a path of members, or None."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
