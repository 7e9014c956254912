"""What a client's request means, whatever era it came in: method and params in, the result's bytes out.

Nothing here knows HTTP, sessions or `_meta` envelopes; those are `eras/`. A result from a mounted server passes as the bytes it
sent. Refusals are `RpcError`: codes of JSON-RPC and of MCP, words for a person. A server's own error keeps its code and data; a
server that could not be asked is named in `data.upstream`. `data.retryable` says whether sending the same request again can help:
it never got there, it only reads, or the link went under it (mounts/link.py); then a tool may have run all the same.

Methods nobody here knows are an extension's. Of the servers that declare an extension or something experimental one is asked:
the owner of `params.uri`, if there is such a member, or the only one there is. With none, or several, the method does not exist
(-32601). Its params and result pass as they are.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec

from rootlink.engine import aliases, bridge, tasks
from rootlink.engine.calls import Call, Client, Through
from rootlink.engine.catalogue import FunctionTarget, MountTarget, Owned, OwnTarget, Source, Target, View, merge
from rootlink.engine.functions.host import FunctionHost, Run
from rootlink.engine.functions.tools import Within
from rootlink.engine.mounts import failures
from rootlink.engine.mounts.mount import Mount
from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.rpc import RpcError
from rootlink.engine.tasks import Tasks
from rootlink.engine.tokens import KEY_BYTES, Tokens
from rootlink.engine.tools.control import Judged
from rootlink.engine.tools.guard import Guard, Owner, own_definition
from rootlink.engine.tools.question import can_be_asked
from rootlink.errors import Forbidden, RateLimited, RootlinkError, Unavailable, UpstreamFailed, rpc_error

INVALID_PARAMS, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND = -32602, -32601, -32002

MAX_CLIENTS = 10_000  # whose view is remembered, a workspace; finding it again costs microseconds
MAX_ALIASES = 10_000
LOG_LINES, LOG_CHARS = 5, 300  # of a failed run, in its result
MAX_WORKSPACES = 256  # whose views are remembered: any name is a workspace
MAX_VIEWS = 32  # a workspace; each holds its lists as bytes
CORE = frozenset(
    {"initialize", "server/discover", "subscriptions/listen", "logging/setLevel"}
    | {"resources/subscribe", "resources/unsubscribe", "sampling/createMessage", "elicitation/create", "roots/list"}
)  # MCP's own, which are never an extension's, wherever they are answered
APPS = "io.modelcontextprotocol/ui"  # an extension without methods, so any number of servers may have it
IDEMPOTENT = frozenset({"prompts/get", "resources/read", "completion/complete"})

Params = dict[str, Any]
Act = Callable[["Caller", Params, Call | None], Awaitable[msgspec.Raw]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the project key's id, what it may do, and in which workspace. `within`: a function that runs, and for whom."""

    ws: str
    principal: str
    scopes: frozenset[str]
    within: Within | None = None

    @property
    def manages(self) -> bool:
        return "manage" in self.scopes


class OwnTools(Protocol):
    """The engine's own four tools: their definitions, and what they do."""

    @property
    def definitions(self) -> list[dict[str, Any]]: ...

    async def call(self, caller: Caller, name: str, arguments: Params) -> dict[str, Any]: ...


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def text_result(text: str, *, error: bool = False, structured: object = None) -> dict[str, Any]:
    """A tools/call result with one block of text."""
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": error}
    if isinstance(structured, dict):
        result["structuredContent"] = structured
    return result


def run_result(run: Run) -> dict[str, Any]:
    """A function's run as a tools/call result: the output as text and, when it is an object, as structured content; or why it
    failed."""
    if run.status == "ok":
        text = run.output if isinstance(run.output, str) else msgspec.json.encode(run.output).decode()
        return text_result(text, structured=run.output)
    return text_result("\n".join(_why(run)), error=True)


def _why(run: Run) -> Iterator[str]:
    """For a model that may mend the function, or its own arguments: what, where, what to do, what it said before."""
    error = run.error or {}
    where = (
        f" (line {error['line']}, column {error['column']} of {run.function})" if "line" in error and "column" in error else ""
    )
    yield f"{error.get('name', run.status)}: {error.get('message', run.status)}{where}"
    if "hint" in error:
        yield error["hint"]
    if run.logs:
        yield "console, last lines:"
    for line in run.logs[-LOG_LINES:]:
        yield f"  {line.level}: {line.text[:LOG_CHARS]}"
    yield f"run: {run.run_id} of function {run.function}, version {run.version}"


class _Views:
    """One workspace's views: by client for the hot path, and each once for all clients that see the same."""

    def __init__(self) -> None:
        self._of_client: dict[str, View] = {}
        self._alike: dict[tuple[object, ...], View] = {}

    def of(self, key: str) -> View | None:
        return self._of_client.get(key)

    def keep(self, key: str, sources: list[Source], client: Client | None, make: Callable[[], View]) -> View:
        """The view of a client who is shown `sources`. Lists that are the same object are the same lists: a view holds them."""
        kind = None if client is None else (client.stateless, can_be_asked(client))
        alike = (kind, *(id(source.lists) for source in sources))
        view = self._alike.get(alike)
        if view is None:
            view = _put(self._alike, alike, make(), MAX_VIEWS)
        return _put(self._of_client, key, view, MAX_CLIENTS)

    def drop(self, key: str) -> None:
        self._of_client.pop(key, None)


class Dispatch:
    """One engine's answers. Views are cached until `forget(ws)`. `tokens` make the ids of tasks; without any given, ids do not
    outlive this object."""

    def __init__(
        self,
        mounts: Mounts,
        functions: FunctionHost,
        own: OwnTools,
        redact: Callable[[str], str],
        guard: Guard,
        tokens: Tokens | None = None,
    ) -> None:
        self._mounts, self._functions, self._own, self._redact = mounts, functions, own, redact
        self._guard = guard
        self._tasks = Tasks(tokens or Tokens(secrets.token_bytes(KEY_BYTES)))
        self._views: dict[str, _Views] = {}
        self._subscribed: dict[tuple[str, str], set[str]] = {}  # workspace, URI → aliases of it
        self._methods: dict[str, Act] = {
            "ping": self._ping,
            "tools/list": self._lister("tools"),
            "prompts/list": self._lister("prompts"),
            "resources/list": self._lister("resources"),
            "resources/templates/list": self._lister("resourceTemplates"),
            "tools/call": self._call_tool,
            "prompts/get": self._get_prompt,
            "resources/read": self._read_resource,
            "completion/complete": self._complete,
            **{method: self._task(method) for methods in tasks.METHODS.values() for method in methods},
        }

    # what there is

    def view(self, ws: str, client: Client | None = None) -> View:
        """What this client sees; None: nobody in particular. A client's lists are asked for once, until something changes."""
        views = self._views.get(ws)
        if views is None:
            views = _put(self._views, ws, _Views(), MAX_WORKSPACES)
        key = "" if client is None else client.key
        return views.of(key) or self._look(views, ws, key, client)

    def _look(self, views: _Views, ws: str, key: str, client: Client | None) -> View:
        sources = [self._source(mount, client) for mount in self._mounts.list(ws)]

        def make() -> View:
            names = [deployed.name for deployed in self._functions.list(ws)]
            functions = [self._functions.tool(ws, name) for name in names]
            judged = {tool["name"]: self._of_function(ws, name) for name, tool in zip(names, functions, strict=True)}
            return merge(sources, functions, self._own.definitions, client, judged)

        return views.keep(key, sources, client, make)

    def _source(self, mount: Mount, client: Client | None) -> Source:
        lists, base = mount.lists(client), mount.catalogue.tools
        owner = Owner(mount.ws, "mount", mount.name)
        judged = self._guard.judge(owner, lists.tools, base)
        return Source(mount, lists, judged, lists.tools is base, partial(self._guard.hear, owner))

    def _of_function(self, ws: str, name: str) -> Judged:
        tool = [own_definition(self._functions.tool(ws, name), name)]
        return self._guard.judge(Owner(ws, "function", name), tool, tool)

    def forget(self, ws: str) -> None:
        self._views.pop(ws, None)

    def capabilities(self, ws: str, client: Client | None = None) -> dict[str, Any]:
        """What a handshake declares. Never waits. Lists and their notices are there in every workspace and at every moment: what
        is mounted later must not need a new handshake."""
        mounts = self._mounts.list(ws)
        found: dict[str, Any] = {
            "tools": {"listChanged": True},
            "prompts": {"listChanged": True},
            "resources": {"listChanged": True, "subscribe": True},
            "completions": {},
            "logging": {},
        }
        for member in ("experimental", "extensions"):
            if declared := _unambiguous(mounts, member):
                found[member] = declared
        if client is not None and client.stateless and (extension := tasks.extension(mounts)) is not None:
            found.setdefault("extensions", {})[tasks.EXTENSION] = extension
        if client is not None and not client.stateless and (capability := tasks.capability(mounts)) is not None:
            found["tasks"] = capability
        return found

    def aliases(self, ws: str, uri: str) -> Collection[str]:
        """Under what else clients have subscribed to a resource that servers know as `uri`."""
        return self._subscribed.get((ws, uri), ())

    # requests

    async def handle(self, caller: Caller, method: str, params: Params, call: Call | None = None) -> msgspec.Raw:
        """The result of `method` as JSON bytes. Raises RpcError, and nothing else but cancellation."""
        act = self._methods.get(method)
        try:
            result = await (self._extended(caller, method, params, call) if act is None else act(caller, params, call))
        except (RpcError, RootlinkError) as error:
            raise self._spoken(error) from _cause(error)
        return failures.cleaned(result, self._redact)

    async def subscribe(self, caller: Caller, uri: object, client: Client) -> None:
        """`resources/subscribe`, and a `subscriptions/listen` that names resources. Raises RpcError."""
        try:
            mount, owned = self._owner(caller, uri, client)
            await mount.subscribe(owned.uri, self._tasks.client(caller, mount, client))
        except (RpcError, RootlinkError) as error:
            raise self._spoken(error) from _cause(error)
        if uri != owned.uri:
            _put(self._subscribed, (caller.ws, owned.uri), {*self.aliases(caller.ws, owned.uri), str(uri)}, MAX_ALIASES)

    async def unsubscribe(self, caller: Caller, uri: object, client: Client) -> None:
        """Raises RpcError."""
        try:
            mount, owned = self._owner(caller, uri, client)
            await mount.unsubscribe(owned.uri, self._tasks.client(caller, mount, client))
        except (RpcError, RootlinkError) as error:
            raise self._spoken(error) from _cause(error)

    def level(self, caller: Caller, client: Client, level: str) -> None:
        self._mounts.level(caller.ws, client, level)

    def told(self, caller: Caller, client: Client, method: str, params: msgspec.Raw) -> None:
        self._mounts.told(caller.ws, client, method, params)

    def forget_client(self, key: str) -> None:
        for views in self._views.values():
            views.drop(key)
        self._tasks.forget_client(key)
        self._guard.forget_client(key)
        self._mounts.forget_client(key)

    def _spoken(self, error: RpcError | RootlinkError) -> RpcError:
        """As JSON-RPC says it, with known secrets taken out; a server's own error keeps its code and the rest of its data."""
        if isinstance(error, RpcError):
            return failures.cleaned_error(error, self._redact)
        answer = rpc_error(error)
        return RpcError(answer["code"], self._redact(error.message), answer["data"])

    async def _ping(self, caller: Caller, params: Params, call: Call | None) -> msgspec.Raw:
        return msgspec.Raw(b"{}")

    def _lister(self, member: str) -> Act:
        async def answer(caller: Caller, params: Params, call: Call | None) -> msgspec.Raw:
            view = self.view(caller.ws, _client(call))
            return view.page(member, params.get("cursor"), manages=caller.manages)

        return answer

    async def _call_tool(self, caller: Caller, params: Params, call: Call | None) -> msgspec.Raw:
        name, arguments = params.get("name"), params.get("arguments")
        if not isinstance(name, str):
            raise RpcError(INVALID_PARAMS, "tools/call needs `name`, a string")
        if arguments is not None and not isinstance(arguments, dict):
            raise RpcError(INVALID_PARAMS, "tools/call needs `arguments` to be an object")
        view = self.view(caller.ws, _client(call))
        target = view.targets.get(name)
        if target is not None and target.asks and call is not None and not _goes_on(params, call):
            refusal = await self._asked_person(caller, target, name, arguments or {}, call)
            if refusal is not None:
                return raw(text_result(refusal, error=True))
            view = self.view(caller.ws, _client(call))  # a person takes their time
            target = view.targets.get(name)
        if isinstance(target, MountTarget):
            mount = self._mounts.get(caller.ws, target.mount)
            asked = self._tasks.asked(mount, {**params, "name": target.name}, call)
            admitted = _Admitted(mount, self._guard, view.source(target.mount), target.name, name)
            result = await self._ask(caller, mount, "tools/call", asked, call, admitted)
            return self._tasks.created(caller, mount, asked, call, result)
        if isinstance(target, FunctionTarget):
            return raw(await self._run(caller, target.name, arguments or {}))
        if isinstance(target, OwnTarget):
            return raw(await self._own.call(caller, name, arguments or {}))
        if name in view.withheld:
            raise Forbidden(view.withheld[name])
        raise RpcError(INVALID_PARAMS, f"Unknown tool: {name[:200]}", {"code": "not_found"})

    async def _run(self, caller: Caller, function: str, arguments: Params) -> dict[str, Any]:
        """What a run comes to is always a result: of an error, hosts show models less."""
        trigger, within = ("mcp", None) if caller.within is None else ("tool", caller.within)
        try:
            return run_result(await self._functions.invoke(caller.ws, function, arguments, trigger=trigger, within=within))
        except RateLimited as error:
            return text_result(f"{error.code}: {error.message}", error=True)

    async def _asked_person(self, caller: Caller, target: Target, name: str, arguments: Params, call: Call) -> str | None:
        """Why the tool is not called, if the client's person says no."""
        if isinstance(target, MountTarget):
            owner, tool = Owner(caller.ws, "mount", target.mount), target.name
        else:
            owner, tool = Owner(caller.ws, "function", target.name), target.name
        return await self._guard.ask(call, owner, tool, name, target.access, arguments)

    async def _get_prompt(self, caller: Caller, params: Params, call: Call | None) -> msgspec.Raw:
        target = self._prompt(caller, params.get("name"), call)
        mount = self._mounts.get(caller.ws, target.mount)
        return await self._ask(caller, mount, "prompts/get", {**params, "name": target.name}, call)

    async def _read_resource(self, caller: Caller, params: Params, call: Call | None) -> msgspec.Raw:
        uri = params.get("uri")
        mount, owned = self._owner(caller, uri, _client(call))
        result = await self._ask(caller, mount, "resources/read", {**params, "uri": owned.uri}, call)
        return result if uri == owned.uri else aliases.in_result(result, {owned.uri: str(uri)})

    async def _complete(self, caller: Caller, params: Params, call: Call | None) -> msgspec.Raw:
        ref = params.get("ref")
        if not isinstance(ref, dict):
            raise RpcError(INVALID_PARAMS, "completion/complete needs `ref`, an object")
        if ref.get("type") == "ref/prompt":
            target = self._prompt(caller, ref.get("name"), call)
            mount, named = self._mounts.get(caller.ws, target.mount), {"name": target.name}
        else:
            mount, owned = self._owner(caller, ref.get("uri"), _client(call))
            named = {"uri": owned.uri}
        return await self._ask(caller, mount, "completion/complete", {**params, "ref": {**ref, **named}}, call)

    def _task(self, method: str) -> Act:
        async def answer(caller: Caller, params: Params, call: Call | None) -> msgspec.Raw:
            async def ask(mount: Mount, method: str, params: Params, timeout: float | None) -> msgspec.Raw:
                try:
                    return await mount.request(method, params, timeout=timeout, call=self._renamed(caller, mount, call))
                except (Unavailable, UpstreamFailed) as error:
                    raise _named(error, mount, method) from error.__cause__

            return await self._tasks.handle(caller, self._mounts.list(caller.ws), method, params, call, ask)

        return answer

    async def _extended(self, caller: Caller, method: str, params: Params, call: Call | None) -> msgspec.Raw:
        declaring = [mount for mount in self._mounts.list(caller.ws) if _declares(mount)]
        if method in CORE or method.startswith("notifications/"):
            declaring = []
        uri = params.get("uri")
        owned = self.view(caller.ws, _client(call)).owner(uri) if declaring and isinstance(uri, str) else None
        if owned is not None and owned.mount in (mount.name for mount in declaring):
            mount = self._mounts.get(caller.ws, owned.mount)
            return await self._ask(caller, mount, method, {**params, "uri": owned.uri}, call)
        if len(declaring) != 1:
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method[:100]}")
        return await self._ask(caller, declaring[0], method, params, call)

    async def _ask(
        self, caller: Caller, mount: Mount, method: str, params: Params, call: Call | None, through: bridge.Upstream | None = None
    ) -> msgspec.Raw:
        """`through`: in the mount's place, who has a last word before something is sent to it."""
        try:
            result = await bridge.request(through or mount, method, params, self._renamed(caller, mount, call))
        except (Unavailable, UpstreamFailed) as error:
            raise _named(error, mount, method) from error.__cause__
        table = self.view(caller.ws, _client(call)).aliased.get(mount.name)
        return aliases.in_result(result, table) if table else result

    def _renamed(self, caller: Caller, mount: Mount, call: Call | None) -> Call | None:
        if call is None:
            return None
        renamed = self._tasks.call(caller, mount, call)
        return _Manager(renamed) if caller.manages else renamed

    # whose it is

    def _prompt(self, caller: Caller, name: object, call: Call | None) -> MountTarget:
        prompts = self.view(caller.ws, _client(call)).prompts
        target = prompts.get(name) if isinstance(name, str) else None
        if target is None:
            raise RpcError(INVALID_PARAMS, f"Unknown prompt: {str(name)[:200]}")
        return target

    def _owner(self, caller: Caller, uri: object, client: Client | None) -> tuple[Mount, Owned]:
        """Of a resource, or of a template by its own text."""
        view = self.view(caller.ws, client)
        owned = (view.templates.get(uri) or view.owner(uri)) if isinstance(uri, str) else None
        if owned is None:
            raise RpcError(RESOURCE_NOT_FOUND, f"Resource not found: {str(uri)[:200]}", {"uri": str(uri)[:2000]})
        return self._mounts.get(caller.ws, owned.mount), owned


class _Manager(Through):
    """A call of a key that may manage."""

    @property
    def manages(self) -> bool:
        return True


class _Admitted:
    """A mount, for one call of one tool: whether it may be called is asked once more when it is just about to be sent, for the
    server may have been restarted, and the tool changed, while the call waited. Implements `bridge.Upstream`."""

    def __init__(self, mount: Mount, guard: Guard, source: Source, tool: str, public: str) -> None:
        self._mount, self._guard, self._source, self._tool, self._public = mount, guard, source, tool, public
        self.name = mount.name

    @property
    def catalogue(self) -> bridge.Known:
        return self._mount.catalogue

    async def request(
        self, method: str, params: Params | None = None, *, timeout: float | None = None, call: Call | None = None
    ) -> msgspec.Raw:
        return await self._mount.request(method, params, timeout=timeout, call=call, admit=self._admit)

    def _admit(self) -> None:
        mount, base = self._mount, self._mount.catalogue.tools
        tools = base if self._source.own else self._source.lists.tools
        self._guard.refuse_withheld(Owner(mount.ws, "mount", mount.name), tools, base, self._tool, self._public)


def _goes_on(params: Params, call: Call) -> bool:
    """Whether a stateless client brings a call on its way: its state was made for these very arguments, after a person agreed."""
    return call.client.stateless and bridge.STATE in params


Key = TypeVar("Key")
Value = TypeVar("Value")


def _put(kept: dict[Key, Value], key: Key, value: Value, most: int) -> Value:
    """Keep `value`; of more than `most` the one kept first goes."""
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]
    return value


def _client(call: Call | None) -> Client | None:
    return None if call is None else call.client


def _cause(error: RpcError | RootlinkError) -> BaseException | None:
    """What REST looks at: our own error, or why a server's came to be."""
    return error if isinstance(error, RootlinkError) else error.__cause__


def _named(error: Unavailable | UpstreamFailed, mount: Mount, method: str) -> RootlinkError:
    """`error`, with who it was that could not be asked, and whether asking again can help, where the mount has not said so."""
    retryable = isinstance(error, Unavailable) or method in IDEMPOTENT
    error.data = {"retryable": retryable, **(error.data or {}), "upstream": mount.name}
    return error


def _declared(mount: Mount, member: str) -> dict[str, Any]:
    """Its `experimental` or `extensions`, but for what has rules of its own."""
    declared = mount.catalogue.capabilities.get(member)
    return {id: value for id, value in declared.items() if id != tasks.EXTENSION} if isinstance(declared, dict) else {}


def _declares(mount: Mount) -> bool:
    return any(id != APPS for member in ("experimental", "extensions") for id in _declared(mount, member))


def _unambiguous(mounts: list[Mount], member: str) -> dict[str, Any]:
    """What exactly one server declares, as it declares it; and MCP Apps, whoever does."""
    declared = [(id, value) for mount in mounts for id, value in _declared(mount, member).items()]
    times = Counter(id for id, _ in declared)
    return {id: value for id, value in declared if times[id] == 1 or id == APPS}
