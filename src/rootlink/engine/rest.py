"""`/engine/api/v1`: the same mounts, tools and functions for programs that speak no MCP (CONTRACT §3).

Every route is a row of `ROUTES`: method, path, what it needs (`use` or `manage`), what it does. Answers are the envelope.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rootlink import names, shapes
from rootlink.engine.dispatch import Caller, Dispatch
from rootlink.engine.eras.endpoint import caller_of, headers_of, read_body
from rootlink.engine.functions.host import FunctionHost, Run
from rootlink.engine.functions.ledger import KEPT_RUNS, MAX_VERSION
from rootlink.engine.functions.run import Status
from rootlink.engine.functions.triggers import Triggers
from rootlink.engine.installer import Installer, Redact
from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.rpc import RpcError
from rootlink.engine.tools.guard import Guard, Owner, own_definition
from rootlink.errors import Forbidden, Invalid, NotFound, RootlinkError, UpstreamFailed, envelope
from rootlink.wire.mounts import FunctionSpec

PREFIX = "/engine/api/v1/ws/{ws}"
LISTED_RUNS: Final = 50  # unless asked for more

Handler = Callable[["Rest", Caller, Request], Awaitable[Any]]


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def ok(data: Any, status: int = 200) -> Json:
    return Json({"ok": True, "data": data, "error": None}, status)


def refused(error: RootlinkError, redact: Redact) -> Json:
    """The error's envelope; what a server said may stand in its words, so known secrets are taken out. `line` and `column` stand
    there when it is about a place in the code that was sent."""
    body = envelope(error)
    body["error"]["message"] = redact(error.message)
    body["error"].update({part: place for part, place in (error.data or {}).items() if part in ("line", "column")})
    return Json(body, error.status)


async def body_of(request: Request) -> dict[str, Any]:
    """The request's JSON object. Raises Invalid without echoing any of it."""
    try:
        body = msgspec.json.decode(await read_body(request.receive) or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid("the body is not valid JSON") from None
    if not isinstance(body, dict):
        raise Invalid("the body must be a JSON object")
    return body


class FunctionBody(msgspec.Struct, forbid_unknown_fields=True):
    """PUT …/functions: a FunctionSpec, whose words the function host judges."""

    name: str
    code: str
    description: str = ""
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    annotations: dict[str, Any] | None = None
    title: str | None = None
    timeout_ms: int | None = None
    memory_mb: int | None = None
    env: dict[str, str] | None = None
    egress: list[str] | None = None
    language: str | None = None
    isolation: str | None = None
    concurrency: int | None = None
    tools: list[str] | None = None


class RollbackBody(msgspec.Struct, forbid_unknown_fields=True):
    """POST …/functions/{name}/rollback. `version` null: the one that was live before."""

    version: int | None = None


class Rest:
    def __init__(
        self,
        mounts: Mounts,
        functions: FunctionHost,
        installer: Installer,
        dispatch: Dispatch,
        guard: Guard,
        redact: Redact,
        triggers: Triggers,
    ) -> None:
        self._mounts, self._functions, self._installer, self._dispatch = mounts, functions, installer, dispatch
        self._guard, self._redact, self._triggers = guard, redact, triggers

    def routes(self) -> list[Route]:
        return [Route(_pattern(path), self._endpoint(scope, act), methods=[method]) for method, path, scope, act in ROUTES]

    def _endpoint(self, scope: str, act: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                caller = caller_of(request.path_params["ws"], headers_of(request.scope))
                if scope not in caller.scopes:
                    raise Forbidden(f"this key lacks the scope {scope!r}; make one with it: rootlink keys create")
                answer = await act(self, caller, request)
                return answer if isinstance(answer, Response) else ok(answer)
            except RootlinkError as error:
                return refused(error, self._redact)

        return endpoint

    # mcp-servers

    async def servers(self, caller: Caller, request: Request) -> Any:
        return self._installer.servers(caller.ws)

    async def install(self, caller: Caller, request: Request) -> Any:
        return ok(await self._installer.install(caller.ws, await body_of(request)), 201)

    async def server(self, caller: Caller, request: Request) -> Any:
        return self._installer.view(self._mounts.get(caller.ws, request.path_params["name"]))

    async def uninstall(self, caller: Caller, request: Request) -> Any:
        return await self._installer.uninstall(caller.ws, request.path_params["name"])

    async def restart(self, caller: Caller, request: Request) -> Any:
        name = request.path_params["name"]
        await self._mounts.restart(caller.ws, name)
        return self._installer.view(self._mounts.get(caller.ws, name))

    async def logs(self, caller: Caller, request: Request) -> Any:
        return {"lines": self._mounts.get(caller.ws, request.path_params["name"]).logs()}

    async def server_tools(self, caller: Caller, request: Request) -> Any:
        return self._installer.tools(caller.ws, request.path_params["name"])

    async def decide(self, caller: Caller, request: Request) -> Any:
        path = request.path_params
        return self._installer.decide(caller.ws, path["name"], path["tool"], await body_of(request))

    # tools

    async def tools(self, caller: Caller, request: Request) -> Any:
        return self._dispatch.view(caller.ws).tools

    async def call(self, caller: Caller, request: Request) -> Any:
        arguments = (await body_of(request)).get("arguments")
        name = request.path_params["tool"]
        view = self._dispatch.view(caller.ws)
        if name not in view.targets and name not in view.withheld:
            raise NotFound(f"no tool {name[:200]!r} in workspace {caller.ws!r}; see: rootlink tools")
        if arguments is not None and not isinstance(arguments, dict):
            raise Invalid("`arguments` must be an object")
        params = {"name": name, "arguments": arguments or {}}
        try:
            return msgspec.json.decode(await self._dispatch.handle(caller, "tools/call", params))
        except RpcError as error:
            if isinstance(error.__cause__, RootlinkError):
                raise error.__cause__ from None
            raise UpstreamFailed(f"{name} answered with an error: {error.message}") from None

    # functions

    async def functions(self, caller: Caller, request: Request) -> Any:
        return [self._function_view(caller.ws, deployed.name) for deployed in self._functions.list(caller.ws)]

    async def deploy(self, caller: Caller, request: Request) -> Any:
        try:
            body = msgspec.convert(await body_of(request), FunctionBody)
        except msgspec.ValidationError as error:
            raise Invalid(f"this function can't be deployed: {shapes.words(str(error))}") from None
        names.function_name(body.name)
        return await self._installer.deploy(caller.ws, FunctionSpec(**msgspec.structs.asdict(body)))

    async def function(self, caller: Caller, request: Request) -> Any:
        return self._function_view(caller.ws, request.path_params["name"])

    def _function_view(self, ws: str, name: str) -> dict[str, Any]:
        return msgspec.to_builtins(self._functions.get(ws, name))  # type: ignore[no-any-return]

    async def versions(self, caller: Caller, request: Request) -> Any:
        return self._functions.versions(caller.ws, request.path_params["name"])

    async def version(self, caller: Caller, request: Request) -> Any:
        number = _number("version", request.path_params["version"], 1, MAX_VERSION)
        return self._functions.version(caller.ws, request.path_params["name"], number)

    async def rollback(self, caller: Caller, request: Request) -> Any:
        try:
            body = msgspec.convert(await body_of(request), RollbackBody)
        except msgspec.ValidationError as error:
            raise Invalid(f"this is no version to go back to: {shapes.words(str(error))}") from None
        return await self._installer.rollback(caller.ws, request.path_params["name"], body.version)

    async def undeploy(self, caller: Caller, request: Request) -> Any:
        await self._installer.undeploy(caller.ws, request.path_params["name"])
        return None

    async def invoke(self, caller: Caller, request: Request) -> Any:
        body, name = await body_of(request), request.path_params["name"]
        tool = [own_definition(self._functions.tool(caller.ws, name), name)]
        self._guard.refuse_withheld(Owner(caller.ws, "function", name), tool, tool, name, f"function__{name}")
        key = body.get("idempotency_key")
        if key is not None and not isinstance(key, str):
            raise Invalid("`idempotency_key` must be a string")
        return run_view(await self._functions.invoke(caller.ws, name, body.get("input"), trigger="api", key=key))

    async def runs(self, caller: Caller, request: Request) -> Any:
        query = request.query_params
        limit, status = _number("limit", query.get("limit", str(LISTED_RUNS)), 1, KEPT_RUNS), query.get("status")
        if status is not None and status not in get_args(Status):
            raise Invalid(f"status is one of {', '.join(get_args(Status))}")
        return [run_view(run) for run in self._functions.runs(caller.ws, request.path_params["name"], limit, status)]

    async def run(self, caller: Caller, request: Request) -> Any:
        path = request.path_params
        return run_view(self._functions.run(caller.ws, path["name"], path["run_id"]))

    async def triggers(self, caller: Caller, request: Request) -> Any:
        return self._triggers.view(caller.ws, request.path_params["name"])

    async def set_triggers(self, caller: Caller, request: Request) -> Any:
        return await self._triggers.set(caller.ws, request.path_params["name"], await body_of(request))


def _number(name: str, text: str, least: int, most: int) -> int:
    """Raises Invalid."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most):
        raise Invalid(f"{name} must be a number from {least} to {most}")
    return int(text)


def _pattern(path: str) -> str:
    """A server may give its tools names with slashes."""
    return PREFIX + (path.replace("{tool}", "{tool:path}") if path.endswith("{tool}") else path)


def run_view(run: Run) -> dict[str, Any]:
    return msgspec.to_builtins(run)  # type: ignore[no-any-return]


ROUTES: list[tuple[str, str, str, Handler]] = [
    ("GET", "/mcp-servers", "use", Rest.servers),
    ("POST", "/mcp-servers", "manage", Rest.install),
    ("GET", "/mcp-servers/{name}", "use", Rest.server),
    ("DELETE", "/mcp-servers/{name}", "manage", Rest.uninstall),
    ("POST", "/mcp-servers/{name}/restart", "manage", Rest.restart),
    ("GET", "/mcp-servers/{name}/logs", "manage", Rest.logs),
    ("GET", "/mcp-servers/{name}/tools", "use", Rest.server_tools),
    ("PUT", "/mcp-servers/{name}/tools/{tool}", "manage", Rest.decide),
    ("GET", "/tools", "use", Rest.tools),
    ("POST", "/tools/{tool}/call", "use", Rest.call),
    ("GET", "/functions", "use", Rest.functions),
    ("PUT", "/functions", "manage", Rest.deploy),
    ("GET", "/functions/{name}", "use", Rest.function),
    ("DELETE", "/functions/{name}", "manage", Rest.undeploy),
    ("GET", "/functions/{name}/versions", "use", Rest.versions),
    ("GET", "/functions/{name}/versions/{version}", "use", Rest.version),
    ("POST", "/functions/{name}/rollback", "manage", Rest.rollback),
    ("POST", "/functions/{name}/invoke", "use", Rest.invoke),
    ("GET", "/functions/{name}/runs", "use", Rest.runs),
    ("GET", "/functions/{name}/runs/{run_id}", "use", Rest.run),
    ("GET", "/functions/{name}/triggers", "use", Rest.triggers),
    ("PUT", "/functions/{name}/triggers", "manage", Rest.set_triggers),
]
