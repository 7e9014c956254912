"""`x-mcp-header`: arguments of a tool that a stateless HTTP server wants repeated as headers `Mcp-Param-<name>` (2026-07-28).

A tool whose annotations are not valid must not be offered (streamable HTTP, custom headers): the annotation stands on an integer,
string or boolean property that is reached from the root through `properties` alone, is an RFC 9110 token, and is there once,
whatever its case.
Schemas are walked, never evaluated and never dereferenced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import structlog

log = structlog.get_logger(__name__)
KEY = "x-mcp-header"
Path = tuple[str, ...]
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_PRIMITIVE = frozenset({"string", "integer", "boolean"})
_ONE = frozenset(
    {"items", "contains", "unevaluatedItems", "additionalProperties", "propertyNames", "unevaluatedProperties"}
    | {"not", "if", "then", "else", "contentSchema"}
)
_MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"patternProperties", "dependentSchemas", "$defs", "definitions"})


class BadMirror(ValueError):
    """The message says where and why."""


def mirrors(schema: Any) -> dict[Path, str]:
    """Path of the argument → header token. Raises BadMirror."""
    found: dict[Path, str] = {}
    for path, node in _positions(schema):
        if KEY in node:
            header = _checked(path, node)
            if header.lower() in (other.lower() for other in found.values()):
                raise BadMirror(f"{header!r} is there twice")
            assert path is not None
            found[path] = header
    return found


def value_at(arguments: Any, path: Path) -> Any:
    """What `arguments` hold at `path`; None where it leads nowhere."""
    for key in path:
        if not isinstance(arguments, dict):
            return None
        arguments = arguments.get(key)
    return arguments


def without_bad_mirrors(mount: str, tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [tool for tool in tools if _sound(mount, tool)]


def _sound(mount: str, tool: dict[str, Any]) -> bool:
    try:
        mirrors(tool.get("inputSchema"))
    except BadMirror as error:
        log.warning("tool_dropped", mount=mount, tool=tool["name"][:128], why=f"{KEY} {error}")
        return False
    return True


def _checked(path: Path | None, node: dict[str, Any]) -> str:
    header = node[KEY]
    if not path:
        raise BadMirror("stands where `properties` alone do not lead")
    if not isinstance(header, str) or not _TOKEN.match(header):
        raise BadMirror("is no header name")
    if not isinstance(node.get("type"), str) or node["type"] not in _PRIMITIVE:
        raise BadMirror(f"{header!r} is not on a string, integer or boolean")
    return header


def _positions(root: Any) -> Iterator[tuple[Path | None, dict[str, Any]]]:
    """Every subschema, with its path of `properties` (None: another keyword was crossed)."""
    waiting: list[tuple[Path | None, Any]] = [((), root)]
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, dict):
            continue
        yield path, node
        for keyword, value in node.items():
            waiting += _below(path, keyword, value)


def _below(path: Path | None, keyword: str, value: Any) -> list[tuple[Path | None, Any]]:
    if keyword == "properties" and isinstance(value, dict):
        return [(None if path is None else (*path, name), member) for name, member in value.items()]
    if keyword in _ONE:
        return [(None, value)]
    if keyword in _MANY and isinstance(value, list):
        return [(None, member) for member in value]
    if keyword in _NAMED and isinstance(value, dict):
        return [(None, member) for member in value.values()]
    return []
