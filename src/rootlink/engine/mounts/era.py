"""The two eras of MCP as a client sees them, apart from what carries them.

    session era     2024-11-05 … 2025-11-25   initialize, notifications/initialized; then plain requests
    stateless era   2026-07-28                server/discover; every request says version, client and capabilities in `_meta`

Handshake: HTTP tries stateless first, stdio session first (nearly every stdio server is of that era). What one era refuses
the other is asked; only an answer that says "neither" fails. A server that supports no version of ours is refused with words.

What a server is told of its client is what the real client said of itself, word for word; only what means something else in the
other era is left out (tasks). A link that is everybody's declares nothing.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from rootlink import __version__
from rootlink.engine import rpc
from rootlink.engine.calls import Call, Client
from rootlink.engine.mounts.mirrors import mirrors, value_at
from rootlink.engine.rpc import RpcError
from rootlink.errors import UpstreamFailed

if TYPE_CHECKING:
    from rootlink.engine.mounts.link import Link

SESSION_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
STATELESS_VERSIONS = ("2026-07-28",)
CLIENT = {"name": "rootlink", "version": __version__}
CAPABILITIES: dict[str, Any] = {}  # of what is nobody's in particular
TASKS_EXTENSION = "io.modelcontextprotocol/tasks"
DEFAULT_LEVEL = "info"
_NO_ERA = (401, 403, 407, 429)  # says nothing about the era
MAX_GREETING = 256 << 10  # bytes of JSON of a server's info and capabilities: what it declares is in each handshake of ours
PROBE_SECONDS = 5.0  # a session-era server may stay silent to a method it does not know

_META = "io.modelcontextprotocol/"
_SAID = frozenset(f"{_META}{name}" for name in ("protocolVersion", "clientInfo", "clientCapabilities", "logLevel"))
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
        meta.update({f"{_META}{name}": value for name, value in said.items() if value is not None})
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


@dataclass(frozen=True, slots=True)
class Server:
    """Who answered. `info` and `capabilities` are as it sent them."""

    version: str
    info: dict[str, Any]
    capabilities: dict[str, Any]
    instructions: str | None


async def shake_hands(link: Link, name: str) -> Server:
    """Settle the era of `link` and greet. The deadline is the caller's. Raises UpstreamFailed, EgressBlocked."""
    try:
        return await (_discover if link.modern_first else initialize)(link, name)
    except (RpcError, Refused) as error:
        if isinstance(error, Refused) and error.http in _NO_ERA:
            raise
        first = error
    try:
        return await (initialize if link.modern_first else _discover)(link, name)
    except (RpcError, Refused) as error:
        told = error if link.modern_first else first  # what the likelier era said is what a person can use
        if isinstance(told, Refused):
            raise told from None
        raise UpstreamFailed(f"{name} refused the MCP handshake: {str(told)[:300]}") from None


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


async def initialize(link: Link, name: str) -> Server:
    """The session era's greeting, also used to renew a session the server forgot. It speaks as the link's owner, or as nobody."""
    link.era = Session()
    owner = link.owner
    capabilities = CAPABILITIES if owner is None else declared(owner, stateless=False)
    asked = {
        "protocolVersion": SESSION_VERSIONS[0],
        "capabilities": capabilities,
        "clientInfo": (owner.info if owner is not None else None) or CLIENT,
    }
    greeted = rpc.value(await link.request("initialize", asked))
    version = greeted.get("protocolVersion")
    if version not in SESSION_VERSIONS:
        spoken = ", ".join((*STATELESS_VERSIONS, *SESSION_VERSIONS))
        raise UpstreamFailed(f"{name} speaks MCP {str(version)[:40]!r}; spoken here: {spoken}")
    link.era = Session(version)
    await link.notify("notifications/initialized")
    return _server(version, greeted.get("serverInfo"), greeted)


async def _discover(link: Link, name: str) -> Server:
    link.era = Stateless()
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            found = rpc.value(await link.request("server/discover", {}))
    except TimeoutError:
        raise RpcError(rpc.METHOD_NOT_FOUND, "server/discover was not answered") from None
    supported = found.get("supportedVersions")
    if not isinstance(supported, list) or STATELESS_VERSIONS[0] not in supported:
        raise RpcError(rpc.UNSUPPORTED_VERSION, "the server offers no stateless version spoken here")
    meta = found.get("_meta")
    info = found.get("serverInfo") or (meta.get(f"{_META}serverInfo") if isinstance(meta, dict) else None)
    return _server(STATELESS_VERSIONS[0], info, found)


def _server(version: str, info: Any, greeted: dict[str, Any]) -> Server:
    capabilities, instructions = greeted.get("capabilities"), greeted.get("instructions")
    if len(msgspec.json.encode((info, capabilities))) > MAX_GREETING:
        raise UpstreamFailed(f"the server says more than {MAX_GREETING} bytes of its name and capabilities")
    return Server(
        version,
        info if isinstance(info, dict) else {},
        capabilities if isinstance(capabilities, dict) else {},
        instructions if isinstance(instructions, str) else None,
    )
