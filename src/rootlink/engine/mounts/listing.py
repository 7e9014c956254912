"""A server's lists, read whole and kept as they were sent: every page, every unknown field.

Rules
- Tools: more than 500, or more than 2 MiB, refuses the server, with words. Resources, templates and prompts stop at their cap.
- An item that has no name (tools, prompts), URI or template of its own is dropped, and one that would cost a client the lists of
  all servers (`_fit`); of two with the same one the first stays.
- A list the server does not know (-32601) is empty. A cursor that comes again ends the list.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

import msgspec
import structlog

from rootlink.engine import rpc
from rootlink.engine.rpc import RpcError
from rootlink.errors import UpstreamFailed

log = structlog.get_logger(__name__)
MAX_TOOLS = 500
MAX_ITEMS = 5000
MAX_BYTES = 2 << 20
MAX_PAGES = 200

Ask = Callable[[str, dict[str, Any]], Awaitable[msgspec.Raw]]


class _List(NamedTuple):
    capability: str
    method: str
    member: str
    key: str


LISTS = {
    "tools": _List("tools", "tools/list", "tools", "name"),
    "resources": _List("resources", "resources/list", "resources", "uri"),
    "templates": _List("resources", "resources/templates/list", "resourceTemplates", "uriTemplate"),
    "prompts": _List("prompts", "prompts/list", "prompts", "name"),
}
OF_KIND = {"tools": ("tools",), "resources": ("resources", "templates"), "prompts": ("prompts",)}
NOTICES = {f"notifications/{kind}/list_changed": kind for kind in OF_KIND}


class Catalogue(msgspec.Struct):
    """The last known lists of one server: raw dicts as it sent them. Encodes to JSON and back."""

    tools: list[dict[str, Any]] = []
    resources: list[dict[str, Any]] = []
    templates: list[dict[str, Any]] = []
    prompts: list[dict[str, Any]] = []
    instructions: str | None = None
    server_info: dict[str, Any] = {}
    capabilities: dict[str, Any] = {}
    version: str = ""  # of MCP
    cache: dict[str, dict[str, Any]] = {}  # by the lists' names: {ttlMs?, cacheScope?}, as a stateless server said


_TYPES = {
    **dict.fromkeys(("name", "title", "description", "mimeType"), str),
    **dict.fromkeys(("inputSchema", "annotations", "execution", "_meta"), dict),
    **dict.fromkeys(("icons", "arguments"), list),
}


class Listed(NamedTuple):
    """Lists keyed as in `LISTS`, some or all; `cache` as in Catalogue, of the same ones."""

    items: dict[str, list[dict[str, Any]]]
    cache: dict[str, dict[str, Any]]


def differing(one: Catalogue, other: Catalogue) -> set[str]:
    """The kinds whose lists are not the same."""
    return {kind for kind, lists in OF_KIND.items() if any(getattr(one, which) != getattr(other, which) for which in lists)}


def with_lists(held: Catalogue, read: Listed) -> Catalogue:
    """A new catalogue with the lists that were read in place of `held`'s: whoever holds the old one keeps what it saw."""
    cache = {**{which: said for which, said in held.cache.items() if which not in read.items}, **read.cache}
    return msgspec.structs.replace(held, **read.items, cache=cache)


async def read(name: str, ask: Ask, kinds: Iterable[str], capabilities: dict[str, Any]) -> Listed:
    """The lists of `kinds`. Raises UpstreamFailed, RpcError."""
    found = Listed({}, {})
    for which in (which for kind in kinds for which in OF_KIND[kind]):
        said: dict[str, Any] = {}
        found.items[which] = await _whole(name, ask, which, said) if _offered(which, capabilities) else []
        if said:
            found.cache[which] = said
    return found


def _offered(which: str, capabilities: dict[str, Any]) -> bool:
    """Asked for if declared; tools also of a server that declares nothing at all."""
    if LISTS[which].capability in capabilities:
        return True
    return which == "tools" and not any(kind in capabilities for kind in OF_KIND)


async def _whole(name: str, ask: Ask, which: str, said: dict[str, Any]) -> list[dict[str, Any]]:
    """Every item; what the pages say of caching is put into `said`."""
    found: dict[str, dict[str, Any]] = {}
    cursors: set[str] = set()
    params: dict[str, Any] = {}
    size = 0
    for _ in range(MAX_PAGES):
        page = await _page(name, ask, which, params)
        size += len(bytes(page)) if page is not None else 0
        if page is None or _too_much(name, which, 0, size):
            break
        value = rpc.value(page)
        _keepable(value, said)
        for item in _items(value, LISTS[which]):
            found.setdefault(item[LISTS[which].key], item)
        cursor = value.get("nextCursor")
        if _too_much(name, which, len(found), size) or not isinstance(cursor, str) or not cursor or cursor in cursors:
            break
        cursors.add(cursor)
        params = {"cursor": cursor}
    return list(found.values())[:MAX_ITEMS]


async def _page(name: str, ask: Ask, which: str, params: dict[str, Any]) -> msgspec.Raw | None:
    try:
        return await ask(LISTS[which].method, params)
    except RpcError as error:
        if which == "tools" and error.code != rpc.METHOD_NOT_FOUND:
            raise
        log.info("list_refused", mount=name, list=which, code=error.code)
        return None


def _keepable(page: dict[str, Any], said: dict[str, Any]) -> None:
    """Of several pages the shortest life counts, and the narrower scope."""
    ttl, scope = page.get("ttlMs"), page.get("cacheScope")
    if isinstance(ttl, int | float) and not isinstance(ttl, bool):
        said["ttlMs"] = min(ttl, said.get("ttlMs", ttl))
    if isinstance(scope, str) and said.get("cacheScope") != "private":
        said["cacheScope"] = scope


def _items(page: Any, form: _List) -> list[dict[str, Any]]:
    items = page.get(form.member)
    if not isinstance(items, list):
        return []
    return [
        item for item in items if isinstance(item, dict) and isinstance(item.get(form.key), str) and item[form.key] and _fit(item)
    ]


def _fit(item: dict[str, Any]) -> bool:
    """Whether its known members have their types: an official client throws away the whole list, and so every server's, for one
    that has not."""
    return all(item.get(name) is None or isinstance(item[name], kind) for name, kind in _TYPES.items())


def _too_much(name: str, which: str, count: int, size: int) -> bool:
    if which == "tools" and count > MAX_TOOLS:
        raise UpstreamFailed(f"{name} lists more than {MAX_TOOLS} tools, the most one server may have")
    if which == "tools" and size > MAX_BYTES:
        raise UpstreamFailed(f"{name} lists more than {MAX_BYTES >> 20} MiB of tools, the most one server may have")
    if count > MAX_ITEMS or size > MAX_BYTES:
        log.warning("list_cut", mount=name, list=which, items=count, bytes=size)
        return True
    return False
