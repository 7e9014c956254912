"""What things may be called. One rule per noun; every name that reaches a path, a tool name or a log line passes here first.

`__` separates a connection from its tool (`memory__read_graph`), so no connection name may hold it.
"""

from __future__ import annotations

import re

from rootlink.errors import Invalid

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")
_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
RESERVED_WORKSPACES = frozenset({"sse"})  # /mcp/sse is a stream of the main workspace
RESERVED_MOUNTS = frozenset({"function", "mcp", "connector"})  # prefixes of the engine's own tools


def _slug(kind: str, name: object) -> str:
    if not isinstance(name, str) or not _SLUG.match(name):
        raise Invalid(
            f"{kind} name {_shown(name)} is not allowed: 1 to 63 letters, digits, '-' or '_', beginning with a letter or a digit"
        )
    return name


def _shown(name: object) -> str:
    return repr(name)[:80] if isinstance(name, str) else f"of type {type(name).__name__}"


def project_name(name: object) -> str:
    return _slug("project", name)


def workspace_name(name: object) -> str:
    """A workspace's name; not one that `/mcp/<workspace>` could not tell from a path of MCP's own."""
    checked = _slug("workspace", name)
    if checked in RESERVED_WORKSPACES:
        raise Invalid(f"workspace name {checked!r} is reserved: /mcp/{checked} is where clients of MCP 2024-11-05 connect")
    return checked


def mount_name(name: object) -> str:
    """A connection's or mount's name; also refuses `__` and the prefixes of the engine's own tools."""
    checked = _slug("connection", name)
    if "__" in checked or checked.endswith("_"):
        raise Invalid(f"connection name {checked!r} is not allowed: '__' separates a connection from its tool")
    if checked in RESERVED_MOUNTS:
        raise Invalid(f"connection name {checked!r} is reserved; choose another")
    return checked


def function_name(name: object) -> str:
    return _slug("function", name)


def secret_name(name: object) -> str:
    if not isinstance(name, str) or not _SECRET.match(name):
        raise Invalid(f"secret name {_shown(name)} is not allowed: 1 to 128 letters, digits or '_', not beginning with a digit")
    return name
