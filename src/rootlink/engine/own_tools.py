"""The engine's own four tools: an AI client installs, removes and lists MCP servers, and sees what could be connected."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from rootlink.engine.dispatch import Caller, Params, text_result
from rootlink.engine.installer import Installer, Redact
from rootlink.errors import Forbidden, NotFound, RootlinkError

_NAME = {"type": "string", "description": "Name of the server; its tools become <name>__<tool>"}
_STRINGS = {"type": "array", "items": {"type": "string"}}
_MAP = {"type": "object", "additionalProperties": {"type": "string"}}

INSTALL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["name", "transport"],
    "properties": {
        "name": _NAME,
        "transport": {"enum": ["stdio", "http", "sse"]},
        "command": {"type": "string", "description": "stdio: the program, e.g. npx, uvx, node, python"},
        "args": {**_STRINGS, "description": 'stdio: e.g. ["-y", "@modelcontextprotocol/server-memory@2026.8.31"]'},
        "env": {**_MAP, "description": "stdio: environment; ${NAME} is the secret NAME of the project's vault"},
        "cwd": {"type": "string"},
        "endpoint": {"type": "string", "description": "http, sse: the URL; its host must be in the project's allowlist"},
        "headers": {**_MAP, "description": "http, sse: sent with every request; ${NAME} is a secret"},
        "timeout_secs": {"type": "number", "description": "Deadline for its start and for each call"},
        "session": {
            "enum": ["shared", "client"],
            "description": "client: a process or session for each client, for a server that asks its client something or keeps "
            "state of it; shared: one for all. Left out: shared, or client when an HTTP server opens sessions",
        },
        "concurrency": {
            "type": "integer",
            "minimum": 1,
            "description": "Calls at once; 1 for a server that loses data when it is called in parallel",
        },
        "auth": {
            "type": "object",
            "required": ["kind", "token"],
            "properties": {"kind": {"enum": ["bearer", "api_key"]}, "token": {"type": "string"}},
        },
        "egress": {**_STRINGS, "description": "Which of the project's allowed hosts this server may reach"},
        "paths": {"type": "object", "properties": {"read": _STRINGS, "write": _STRINGS}},
    },
}


def _definition(name: str, title: str, description: str, schema: dict[str, Any], **hints: bool) -> dict[str, Any]:
    annotations = {"title": title, "readOnlyHint": False, "openWorldHint": False, **hints}
    return {"name": name, "title": title, "description": description, "inputSchema": schema, "annotations": annotations}


DEFINITIONS = [
    _definition(
        "mcp_server_install",
        "Install an MCP server",
        "Mount an MCP server in this workspace. Its tools appear at once, to every connected client.",
        INSTALL_SCHEMA,
        destructiveHint=False,
        openWorldHint=True,
    ),
    _definition(
        "mcp_server_remove",
        "Remove an MCP server",
        "Unmount an MCP server that was installed with mcp_server_install.",
        {"type": "object", "required": ["name"], "properties": {"name": _NAME}},
        destructiveHint=True,
    ),
    _definition(
        "mcp_server_list",
        "List MCP servers",
        "The MCP servers mounted in this workspace: state, number of tools, last error.",
        {"type": "object", "properties": {}},
        readOnlyHint=True,
    ),
    _definition(
        "connector_catalog",
        "What can be connected",
        "The connectors this Rootlink knows. A person connects them in the Console or with `rootlink connect NAME`.",
        {"type": "object", "properties": {"search": {"type": "string"}}},
        readOnlyHint=True,
    ),
]


class EngineTools:
    """Implements `dispatch.OwnTools`. `catalog` is what the provisioner handed over at spawn."""

    def __init__(self, installer: Installer, catalog: list[dict[str, Any]], redact: Redact) -> None:
        self._installer, self._catalog, self._redact = installer, catalog, redact
        self._acts: dict[str, Callable[[Caller, Params], Awaitable[object]]] = {
            "mcp_server_install": self._install,
            "mcp_server_remove": self._remove,
            "mcp_server_list": self._list,
            "connector_catalog": self._connectors,
        }

    @property
    def definitions(self) -> list[dict[str, Any]]:
        return DEFINITIONS

    async def call(self, caller: Caller, name: str, arguments: Params) -> dict[str, Any]:
        """A refusal is a tool result with `isError`, so that the model reads why."""
        try:
            answer = await self._acts[name](caller, arguments)
        except RootlinkError as error:
            return text_result(self._redact(f"{error.code}: {error.message}"), error=True)
        return text_result(msgspec.json.encode(answer).decode(), structured=answer)

    async def _install(self, caller: Caller, arguments: Params) -> object:
        _must_manage(caller)
        return await self._installer.install(caller.ws, arguments)

    async def _remove(self, caller: Caller, arguments: Params) -> object:
        _must_manage(caller)
        name = arguments.get("name")
        if not isinstance(name, str):
            raise NotFound("mcp_server_remove needs `name`: the name of a mounted server")
        return await self._installer.uninstall(caller.ws, name)

    async def _list(self, caller: Caller, arguments: Params) -> object:
        return {"servers": self._installer.servers(caller.ws)}

    async def _connectors(self, caller: Caller, arguments: Params) -> object:
        search = str(arguments.get("search") or "").lower()
        return {"connectors": [entry for entry in self._catalog if search in msgspec.json.encode(entry).decode().lower()]}


def _must_manage(caller: Caller) -> None:
    if not caller.manages:
        raise Forbidden("this key may use tools but not install servers; make one with the scope 'manage'")
