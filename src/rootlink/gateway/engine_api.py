"""What engines serve behind this gateway, as data for `/openapi.json`: CONTRACT §3 "Engine" and "MCP".

The gateway passes these requests on unread and may not import an engine, so the shapes stand here a second time, on purpose; a
test compares the two. Bodies hold what a client may send, answers what it may rely on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from rootlink.wire.mounts import Auth, Paths, Transport
from rootlink.wire.tools import Mode, ToolView

WS = "/engine/api/v1/ws/{ws}"
_SERVER, _FUNCTION = WS + "/mcp-servers/{name}", WS + "/functions/{name}"


@dataclass(frozen=True, slots=True)
class Operation:
    """`name` is the operation's id. `enveloped` answers are the `data` of the envelope."""

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
    """`code`: one JavaScript body (CONTRACT §4). `input_schema`: JSON Schema."""

    name: str
    code: str
    description: str = ""
    input_schema: dict[str, Any] | None = None
    timeout_ms: int | None = None
    memory_mb: int | None = None


class DeployedFunction(msgspec.Struct):
    name: str
    version: int
    tool: str


class FunctionView(msgspec.Struct):
    name: str
    version: int
    tool: str
    description: str
    code: str
    input_schema: dict[str, Any] | None
    timeout_ms: int
    memory_mb: int
    connection: str | None
    deployed_at: str


class Invocation(msgspec.Struct):
    input: Any = None


class RunError(msgspec.Struct):
    name: str
    message: str
    stack: str


class RunLog(msgspec.Struct):
    level: str
    text: str
    time: str


class RunView(msgspec.Struct):
    """A body that throws is a run with status `error`, not a refusal."""

    run_id: str
    status: Literal["ok", "error", "timeout", "killed"]
    output: Any
    error: RunError | None
    logs: list[RunLog]
    duration_ms: float


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
    Operation("POST", _FUNCTION + "/invoke", "functions_invoke", "Run a Root Function", RunView, Invocation),
    Operation("GET", _FUNCTION + "/runs", "functions_runs", "The last runs, newest first", list[RunView]),
    Operation("GET", _FUNCTION + "/runs/{run_id}", "functions_run", "One run", RunView),
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
