"""A second address for a resource whose own one is another mount's: `rootlink:///<mount>/<the URI or template, verbatim>`.

URIs pass verbatim as long as they can: links inside content must go on working. When two mounts list the same one, the first
keeps it and the other's is listed here, so that neither hides the other. What is verbatim in the middle makes a template's
alias a template again. Every resource can be asked for by its alias, also one that needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Raw

from rootlink.engine import rpc

_PREFIX = "rootlink:///"


def alias(mount: str, uri: str) -> str:
    return f"{_PREFIX}{mount}/{uri}"


def read(uri: str) -> tuple[str, str] | None:
    """(mount, URI as its own server knows it), or None for a URI that is no alias."""
    if not uri.startswith(_PREFIX):
        return None
    mount, slash, own = uri[len(_PREFIX) :].partition("/")
    return (mount, own) if mount and slash and own else None


def in_tool(tool: dict[str, Any], table: Mapping[str, str]) -> dict[str, Any]:
    """`tool` with the page of its MCP App (`_meta.ui.resourceUri`, formerly `_meta["ui/resourceUri"]`) at its alias."""
    meta = tool.get("_meta")
    if not isinstance(meta, dict):
        return tool
    changed = dict(meta)
    if (own := _named(meta, "ui/resourceUri", table)) is not None:
        changed["ui/resourceUri"] = own
    ui = meta.get("ui")
    if isinstance(ui, dict) and (own := _named(ui, "resourceUri", table)) is not None:
        changed["ui"] = {**ui, "resourceUri": own}
    return {**tool, "_meta": changed}


def in_result(result: Raw, table: Mapping[str, str]) -> Raw:
    """A result of tools/call, prompts/get or resources/read with links to, and contents of, aliased resources named so.
    Asked for mounts that have such resources alone: every other result passes unread."""
    value = rpc.value(result)
    if not isinstance(value, dict):
        return result
    blocks = [*_dicts(value.get("contents")), *(block for found in _blocks(value) for block in (found, found.get("resource")))]
    aliased = [
        (block, named) for block in blocks if isinstance(block, dict) and (named := _named(block, "uri", table)) is not None
    ]
    for block, named in aliased:
        block["uri"] = named
    return rpc.raw(value) if aliased else result


def _named(held: dict[str, Any], member: str, table: Mapping[str, str]) -> str | None:
    """The alias of what a member says, which may be of any type: a server wrote it."""
    uri = held.get(member)
    return table.get(uri) if isinstance(uri, str) else None


def _blocks(value: dict[str, Any]) -> list[dict[str, Any]]:
    messages = [message.get("content") for message in _dicts(value.get("messages"))]
    found = _dicts(value.get("content"))
    for content in messages:
        found += _dicts(content if isinstance(content, list) else [content])
    return found


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
