"""The JSON of other programs' configurations: `mcpServers` (Claude, Cursor, Windsurf and kin), VS Code's `mcp.json`.

    {"mcpServers": {NAME: SERVER}}    {NAME: SERVER}    SERVER
    {"servers": {NAME: SERVER}, "inputs": […]}    {"mcp": {"servers": …}}

A SERVER has a `command` with `args` and `env`, or a `url` (`serverUrl`, `httpUrl`) with `headers`. What else it has (whether it
is on, which tools are allowed without asking) is that program's own and is left where it is.
"""

from __future__ import annotations

from typing import Any

from rootlink.catalog.foreign import lines
from rootlink.catalog.foreign.found import Found
from rootlink.errors import Invalid

MOST_SERVERS = 50
_OUTER = ("mcpServers", "servers", "mcp_servers", "context_servers")
_URLS = ("url", "serverUrl", "httpUrl", "endpoint")
_SSE, _HTTP = ("sse",), ("http", "streamable-http", "streamableHttp", "streamable_http")


def servers(value: dict[str, Any]) -> list[Found]:
    """`Invalid`, naming the server and what is wrong with it."""
    named, inputs = _named(value)
    if not named:
        raise Invalid("there is no server in this JSON: it has neither `mcpServers`, `servers`, `command` nor `url`")
    if len(named) > MOST_SERVERS:
        raise Invalid(f"there are {len(named)} servers in this JSON; paste at most {MOST_SERVERS} at once")
    return [_server(name, each, inputs) for name, each in named.items()]


def _named(value: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    if isinstance(value.get("mcp"), dict):  # VS Code's settings.json
        return _named(value["mcp"])
    outer = next((value[key] for key in _OUTER if isinstance(value.get(key), dict)), None)
    if outer is not None:
        return outer, _inputs(value.get("inputs"))
    if _is_server(value):
        return {str(value.get("name") or ""): value}, {}
    return {name: each for name, each in value.items() if isinstance(each, dict) and _is_server(each)}, {}


def _is_server(value: dict[str, Any]) -> bool:
    return isinstance(value.get("command"), str | list) or any(isinstance(value.get(key), str) for key in _URLS)


def _inputs(value: object) -> dict[str, dict[str, Any]]:
    if value is None:
        return {}
    if not isinstance(value, list) or not all(isinstance(one, dict) and isinstance(one.get("id"), str) for one in value):
        raise Invalid("`inputs` must be a list of objects, each with an `id`")
    for one in value:
        if one.get("type") not in ("promptString", "pickString"):
            raise Invalid(f"input {one['id'][:60]!r} is of a type that runs a command of VS Code's; make it a promptString")
    return {one["id"]: one for one in value}


def _server(name: str, value: Any, inputs: dict[str, dict[str, Any]]) -> Found:
    if not isinstance(value, dict):
        raise Invalid(f"server {name[:60]!r} must be an object with a `command` or a `url`")
    try:
        found = _found(name, value)
    except Invalid as error:
        raise Invalid(f"server {name[:60]!r}: {error.message}" if name else error.message) from None
    found.inputs = inputs
    if value.get("disabled") is True or value.get("enabled") is False:
        found.warnings = [*found.warnings, "it is switched off where it comes from"]
    return found


def _found(name: str, value: dict[str, Any]) -> Found:
    if value.get("envFile"):
        raise Invalid("`envFile` is not read: a file of secrets is not taken as a whole; write its variables under `env`")
    address = next((value[key] for key in _URLS if isinstance(value.get(key), str)), None)
    kind = value.get("type") or value.get("transport") or value.get("transportType")
    if address is not None:
        if kind is not None and kind not in (*_SSE, *_HTTP):
            raise Invalid("`type` of a server with a URL must be http or sse")
        return lines.url(name or None, address, _texts(value, "headers"), kind)
    if "command" not in value:
        raise Invalid("it has neither a `command` nor a `url`")
    command, args = value["command"], value.get("args") or []
    if isinstance(command, list) and command and isinstance(args, list):  # some write it as one list
        command, args = command[0], [*command[1:], *args]
    if not isinstance(command, str) or not isinstance(args, list):
        raise Invalid("`command` must be a text and `args` a list of texts")
    args = [_text("args", one) for one in args]
    if " " in command.strip() and not args:
        command, *args = lines.words_of(command)
    return lines.command(name or None, command.strip(), args, _texts(value, "env"))


def _texts(value: dict[str, Any], member: str) -> dict[str, str]:
    found = value.get(member) or {}
    if not isinstance(found, dict):
        raise Invalid(f"`{member}` must be an object of texts")
    return {name: _text(member, each) for name, each in found.items() if each is not None}


def _text(member: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        raise Invalid(f"`{member}` must hold texts only")
    return value
