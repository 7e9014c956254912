"""What engines serve behind this gateway, as data for `/openapi.json`: CONTRACT §3 "Engine" and "MCP".

The gateway passes these requests on unread and may not import an engine, so the shapes stand here a second time, on purpose; a
test compares the two. Bodies hold what a client may send, answers what it may rely on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from rootlink.wire.mounts import Auth, Paths, Transport
from rootlink.wire.tools import Mode, ToolView

WS = "/engine/api/v1/ws/{ws}"
_SERVER, _FUNCTION = WS + "/mcp-servers/{name}", WS + "/functions/{name}"


@dataclass(frozen=True, slots=True)
class Operation:
    """`name` is the operation's id. `enveloped` answers are the `data` of the envelope. `query`: parameters, and their
    meaning."""

    method: str
    path: str
    name: str
    summary: str
    answer: Any
    body: Any = None
    status: int = 200
    scope: Literal["use", "manage"] = "use"
    enveloped: bool = True
    streams: bool = False
    query: dict[str, str] = field(default_factory=dict)


class NewServer(msgspec.Struct):
    """Values may refer to secrets as ${NAME}. `egress` names which of the project's allowed hosts this server may reach.
    `session`: whether clients share the server's process or session, or each gets its own; left out, its transport decides.
    `concurrency`: calls it gets at once; left out, there is no limit."""

    name: str
    transport: Transport
    command: str | None = None
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: str | None = None
    endpoint: str | None = None
    headers: dict[str, str] = {}
    timeout_secs: float | None = None
    auth: Auth | None = None
    egress: list[str] | None = None
    paths: Paths = Paths()
    session: Literal["shared", "client"] | None = None
    concurrency: int | None = None


class Installed(msgspec.Struct):
    installed: bool
    server_count: int
    tool_count: int
    tools_list_changed_notified: int
    held: list[str] | msgspec.UnsetType = msgspec.UNSET


class Uninstalled(msgspec.Struct):
    removed: bool
    server_count: int
    tools_list_changed_notified: int


class ServerView(msgspec.Struct):
    name: str
    transport: Transport
    state: str
    tool_count: int
    error: str | None
    connection: str | None


class ServerLogs(msgspec.Struct):
    lines: list[str]


class ToolDecision(msgspec.Struct):
    """`mode`: null is its default again. `approve`: the fingerprint of the definition that was looked at. Tools of a connection
    are decided about through `/v1`."""

    mode: Mode | msgspec.UnsetType | None = msgspec.UNSET
    approve: str | msgspec.UnsetType = msgspec.UNSET


class ToolCall(msgspec.Struct):
    arguments: dict[str, Any] = {}


class NewFunction(msgspec.Struct):
    """`code`: one body (CONTRACT §4) of `language`; null: JavaScript, or TypeScript if only that compiles. `input_schema`,
    `output_schema`: JSON Schema. `annotations`: as MCP has them. `env`: what the body sees as `ctx.env`, values with ${NAME} for
    secrets; null: every secret of the project. `egress`: which of the project's allowed hosts it may reach; null: all of them.
    `isolation`: `fresh` gives every run an isolate that nothing ran in. `concurrency`: runs at once, 1 to 1000; more wait their
    turn. `tools`: names, or patterns with `*`, of the tools that `ctx.tools` may call; null: all of the workspace."""

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
    language: Literal["javascript", "typescript"] | None = None
    isolation: Literal["reuse", "fresh"] | None = None
    concurrency: int | None = None
    tools: list[str] | None = None


class DeployedFunction(msgspec.Struct):
    name: str
    version: int
    tool: str


class FunctionView(msgspec.Struct):
    """As NewFunction. `connection`: whose it is, if it is one's. `deployed_at`: RFC 3339."""

    ws: str
    name: str
    version: int
    tool: str
    description: str
    title: str | None
    code: str
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    annotations: dict[str, Any] | None
    timeout_ms: int
    memory_mb: int
    env: dict[str, str] | None
    egress: list[str] | None
    language: Literal["javascript", "typescript"] | None
    isolation: Literal["reuse", "fresh"]
    concurrency: int | None
    tools: list[str] | None
    connection: str | None
    deployed_at: str


class FunctionVersion(msgspec.Struct):
    """`live`: it is the version that runs."""

    version: int
    live: bool
    deployed_at: str


class Rollback(msgspec.Struct):
    """`version`: one that is kept; null: the one that was live before."""

    version: int | None = None


class Invocation(msgspec.Struct):
    """`idempotency_key`: at most 200 characters. However often a function is invoked with one, it runs once: the answer is of
    that run, in flight or kept (24 hours, of a function's last 10,000). Another input with the same key is a `conflict`; a run
    that was `killed` runs again, with the same `run_id`."""

    input: Any = None
    idempotency_key: str | None = None


class Cron(msgspec.Struct):
    """`expression`: five fields, or a name such as @daily. `timezone`: an IANA name."""

    expression: str
    timezone: str = "UTC"
    input: Any = {}


class NewTriggers(msgspec.Struct):
    """What is left out stays as it is; null and false turn off. `rotate` ends the webhook's URL and makes another one."""

    cron: Cron | msgspec.UnsetType | None = msgspec.UNSET
    webhook: bool | Literal["rotate"] | msgspec.UnsetType = msgspec.UNSET


class LastDue(msgspec.Struct):
    """`status`: running, one of a run, or refused: no run began, and `error` says why. `due` is RFC 3339."""

    due: str
    status: str
    run_id: str | None
    error: str | None


class Skipped(msgspec.Struct):
    """Due times at which the run before them was not over."""

    count: int
    last: str | None


class CronView(msgspec.Struct):
    """`next`: the next three times, RFC 3339."""

    expression: str
    timezone: str
    input: Any
    next: list[str]
    last: LastDue | None
    skipped: Skipped


class WebhookView(msgspec.Struct):
    """`path`: of the URL, in the answer that made it and never again."""

    made_at: str
    path: str | msgspec.UnsetType = msgspec.UNSET


class TriggersView(msgspec.Struct):
    cron: CronView | None
    webhook: WebhookView | None


class RunError(msgspec.Struct):
    """`line` and `column`: of the author's source, from 1, where they are known. `hint`: which hosts it was refused, and how to
    allow them."""

    name: str
    message: str
    stack: str
    line: int | msgspec.UnsetType = msgspec.UNSET
    column: int | msgspec.UnsetType = msgspec.UNSET
    hint: str | msgspec.UnsetType = msgspec.UNSET


class RunLog(msgspec.Struct):
    level: str
    text: str
    time: str


class RefusedHost(msgspec.Struct):
    """A host that the run was refused, `count` times; the first 50 of a run are told."""

    host: str
    port: int | None
    message: str
    count: int


class RunView(msgspec.Struct):
    """A body that throws is a run with status `error`, not a refusal. Of a run that is over, output and logs are kept up to
    64 KiB each: `output_bytes` beside a null `output` says that it was too large, `logs_truncated` that there was more.
    `cpu_ms`: of its isolate. `replayed`: an earlier invocation with the same idempotency key began it. `response`: it returned a
    `Response`, and `output` is its {status, headers, body or body_base64}."""

    run_id: str
    function: str
    version: int
    status: Literal["ok", "error", "timeout", "killed"]
    output: Any
    error: RunError | None
    logs: list[RunLog]
    duration_ms: float
    started_at: str
    trigger: Literal["api", "mcp", "tool", "cron", "webhook"]
    input_bytes: int
    output_bytes: int
    cpu_ms: float
    denied: list[RefusedHost]
    tool_calls: int
    logs_truncated: bool
    replayed: bool
    response: bool


class Message(msgspec.Struct):
    """A JSON-RPC 2.0 message; one with a `method` and an `id` is a request."""

    jsonrpc: Literal["2.0"]
    id: str | int | msgspec.UnsetType | None = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    result: Any | msgspec.UnsetType = msgspec.UNSET
    error: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


Tool = dict[str, Any]  # as MCP has it

REST = [
    Operation("GET", WS + "/mcp-servers", "servers_list", "List the MCP servers of a workspace", list[ServerView]),
    Operation(
        "POST", WS + "/mcp-servers", "servers_install", "Install an MCP server", Installed, NewServer, status=201, scope="manage"
    ),
    Operation("GET", _SERVER, "servers_get", "An MCP server", ServerView),
    Operation("DELETE", _SERVER, "servers_remove", "Remove an MCP server", Uninstalled, scope="manage"),
    Operation("POST", _SERVER + "/restart", "servers_restart", "Restart an MCP server", ServerView, scope="manage"),
    Operation("GET", _SERVER + "/logs", "servers_logs", "What an MCP server wrote last, redacted", ServerLogs, scope="manage"),
    Operation("GET", _SERVER + "/tools", "servers_tools", "A server's tools, and what is done with each", list[ToolView]),
    Operation(
        "PUT",
        _SERVER + "/tools/{tool}",
        "servers_tool_decide",
        "Allow, ask about, switch off or approve a tool",
        ToolView,
        ToolDecision,
        scope="manage",
    ),
    Operation("GET", WS + "/tools", "tools_list", "List tools as MCP describes them", list[Tool]),
    Operation("POST", WS + "/tools/{tool}/call", "tools_call", "Call a tool; the result is MCP's", dict[str, Any], ToolCall),
    Operation("GET", WS + "/functions", "functions_list", "List Root Functions", list[FunctionView]),
    Operation(
        "PUT", WS + "/functions", "functions_deploy", "Deploy a Root Function", DeployedFunction, NewFunction, scope="manage"
    ),
    Operation("GET", _FUNCTION, "functions_get", "A Root Function", FunctionView),
    Operation("DELETE", _FUNCTION, "functions_remove", "Remove a Root Function", None, scope="manage"),
    Operation("GET", _FUNCTION + "/versions", "functions_versions", "Its versions that are kept", list[FunctionVersion]),
    Operation("GET", _FUNCTION + "/versions/{version}", "functions_version", "One version, with its code", FunctionView),
    Operation(
        "POST",
        _FUNCTION + "/rollback",
        "functions_rollback",
        "Make an older version live again, under its own number",
        DeployedFunction,
        Rollback,
        scope="manage",
    ),
    Operation("POST", _FUNCTION + "/invoke", "functions_invoke", "Run a Root Function", RunView, Invocation),
    Operation(
        "GET",
        _FUNCTION + "/runs",
        "functions_runs",
        "The last runs, newest first; beyond 1 MiB of them without output and logs",
        list[RunView],
        query={"limit": "1 to 200; left out, 50", "status": "ok, error, timeout or killed: only such runs"},
    ),
    Operation("GET", _FUNCTION + "/runs/{run_id}", "functions_run", "One run", RunView),
    Operation("GET", _FUNCTION + "/triggers", "functions_triggers", "What starts a function by itself", TriggersView),
    Operation(
        "PUT",
        _FUNCTION + "/triggers",
        "functions_set_triggers",
        "Set a function's schedule, and its webhook URL",
        TriggersView,
        NewTriggers,
        scope="manage",
    ),
]


def _mcp(path: str, where: str) -> list[Operation]:
    def one(method: str, name: str, summary: str, at: str = path, **more: Any) -> Operation:
        return Operation(method, at, f"{name}{where}", summary, more.pop("answer", Any), enveloped=False, **more)

    return [
        one("POST", "mcp_send", "MCP, Streamable HTTP: send a message", answer=Message, body=Message, streams=True),
        one("GET", "mcp_listen", "MCP: a session's stream of notices", streams=True),
        one("DELETE", "mcp_end", "MCP: end a session"),
        one("GET", "mcp_sse", "MCP 2024-11-05: a stream whose `endpoint` event tells where to send", path + "/sse", streams=True),
    ]


OPERATIONS = [*REST, *_mcp("/mcp", ""), *_mcp("/mcp/{ws}", "_ws")]
