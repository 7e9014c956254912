"""The two eras of MCP as a client sees them, apart from what carries them.

    session era     2024-11-05 … 2025-11-25   initialize, notifications/initialized; then plain requests
    stateless era   2026-07-28                server/discover; every request says version, client and capabilities in `_meta`

Which of the two a server speaks is found out in handshake.py.

What a server is told of its client is what the real client said of itself, word for word; only what means something else in the
other era is left out (tasks). A link that is everybody's declares nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rootlink import __version__
from rootlink.engine.calls import Call, Client
from rootlink.engine.mounts.mirrors import mirrors, value_at
from rootlink.errors import UpstreamFailed

SESSION_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
STATELESS_VERSIONS = ("2026-07-28",)
CLIENT = {"name": "rootlink", "version": __version__}
CAPABILITIES: dict[str, Any] = {}  # of what is nobody's in particular
TASKS_EXTENSION = "io.modelcontextprotocol/tasks"
DEFAULT_LEVEL = "info"

META = "io.modelcontextprotocol/"
_SAID = frozenset(f"{META}{name}" for name in ("protocolVersion", "clientInfo", "clientCapabilities", "logLevel"))
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"} | {
    f"tasks/{act}": "taskId" for act in ("get", "update", "cancel")
}  # the last of the extension (SEP-2663)
_PLAIN = re.compile(r"[\x20-\x7e]*\Z")
_SENTINEL = re.compile(r"=\?base64\?.*\?=\Z")


class Refused(UpstreamFailed):
    """An HTTP answer that is no answer to the request; `http` is its status. It was not accepted, so it may be asked again."""

    def __init__(self, message: str, http: int) -> None:
        super().__init__(message)
        self.http = http


class Era(Protocol):
    @property
    def version(self) -> str: ...
    @property
    def stateless(self) -> bool: ...
    def dress(self, params: Mapping[str, Any] | None, call: Call | None) -> Mapping[str, Any] | None: ...
    def headers(self, method: str, params: Mapping[str, Any] | None) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True)
class Session:
    """`version` is "" until the server said which."""

    version: str = ""
    stateless: bool = field(default=False, init=False)

    def dress(self, params: Mapping[str, Any] | None, call: Call | None) -> Mapping[str, Any] | None:
        return params

    def headers(self, method: str, params: Mapping[str, Any] | None) -> dict[str, str]:
        return {"MCP-Protocol-Version": self.version} if self.version else {}


@dataclass(slots=True)
class Stateless:
    """`mirrored`: tool → {path in its arguments → header}, from `x-mcp-header` in input schemas; `learn()` fills it."""

    version: str = STATELESS_VERSIONS[0]
    stateless: bool = field(default=True, init=False)
    mirrored: dict[str, dict[tuple[str, ...], str]] = field(default_factory=dict)

    def dress(self, params: Mapping[str, Any] | None, call: Call | None) -> Mapping[str, Any]:
        held = params.get("_meta") if params else None
        client = call.client if call is not None else None
        said = {
            "protocolVersion": self.version,
            "clientInfo": (CLIENT if client is None else client.info) or None,
            "clientCapabilities": CAPABILITIES if client is None else declared(client, stateless=True),
            "logLevel": None if call is None else _level(call),
        }
        meta = {key: value for key, value in held.items() if key not in _SAID} if isinstance(held, dict) else {}
        meta.update({f"{META}{name}": value for name, value in said.items() if value is not None})
        return {**(params or {}), "_meta": meta}

    def headers(self, method: str, params: Mapping[str, Any] | None) -> dict[str, str]:
        headers = {"MCP-Protocol-Version": self.version, "Mcp-Method": method}
        named = (params or {}).get(_NAMED.get(method, ""))
        if isinstance(named, str):
            headers["Mcp-Name"] = header_value(named)
        if method == "tools/call" and isinstance(named, str):
            headers.update(self._of_arguments(named, (params or {}).get("arguments")))
        return headers

    def learn(self, tools: list[dict[str, Any]]) -> None:
        """`tools` without bad mirrors (mirrors.py)."""
        self.mirrored = {tool["name"]: found for tool in tools if (found := mirrors(tool.get("inputSchema")))}

    def _of_arguments(self, tool: str, arguments: Any) -> dict[str, str]:
        found = ((header, value_at(arguments, path)) for path, header in self.mirrored.get(tool, {}).items())
        return {f"Mcp-Param-{header}": header_value(text) for header, value in found if (text := _scalar(value)) is not None}


def header_value(text: str) -> str:
    """`text`, or its base64 sentinel form when a header would not carry it unchanged (2026-07-28, streamable HTTP)."""
    if _PLAIN.match(text) and text == text.strip() and not _SENTINEL.match(text):
        return text
    return f"=?base64?{base64.b64encode(text.encode('utf-8', 'replace')).decode()}?="


def _scalar(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def declared(client: Client, *, stateless: bool) -> dict[str, Any]:
    """A client's capabilities for a server of either era. Tasks are a capability in one and an extension in the other, with other
    methods: who knows the one kind cannot be offered the other."""
    held = client.capabilities
    if client.stateless == stateless:
        return held
    if stateless:
        return {name: value for name, value in held.items() if name != "tasks"}
    extensions = held.get("extensions")
    if not isinstance(extensions, dict) or TASKS_EXTENSION not in extensions:
        return held
    return {**held, "extensions": {name: value for name, value in extensions.items() if name != TASKS_EXTENSION}}


def _level(call: Call) -> str | None:
    """A session client that never set a level leaves it to the server what to log, and servers then log. A stateless server logs
    nothing unasked, so for such a client it is asked for what servers mostly send by themselves."""
    return call.level or (None if call.client.stateless else DEFAULT_LEVEL)
