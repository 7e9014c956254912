"""`/v1/catalog`: what can be connected."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from rootlink.errors import NotFound
from rootlink.gateway.connect import entry_named
from rootlink.gateway.routes import Call, Route

# An icon is a document of its own to a browser that opens it: it may run nothing, load nothing and be nobody here. `nosniff` is
# on every answer.
_ICON_HEADERS = {"content-security-policy": "default-src 'none'; sandbox", "cache-control": "private, max-age=3600"}


async def every(call: Call) -> list[dict[str, Any]]:
    return [entry.summary() for entry in call.plane.catalog.list()]


async def one(call: Call) -> dict[str, Any]:
    return entry_named(call.plane.catalog, call.params["name"]).detail()


async def icon(call: Call) -> Response:
    entry = entry_named(call.plane.catalog, call.params["name"])
    if entry.icon is None:
        raise NotFound(f"Connector {entry.name!r} has no icon")
    return Response(entry.icon, 200, _ICON_HEADERS, "image/svg+xml")


ROUTES = [
    Route("GET", "/v1/catalog", every, "List connectors", answer=list[dict[str, Any]]),
    Route("GET", "/v1/catalog/{name}", one, "A connector: its fields, hosts, access, tools and variants", answer=dict[str, Any]),
    Route("GET", "/v1/catalog/{name}/icon", icon, "A connector's icon (SVG)", answer=str, media="image/svg+xml"),
]
