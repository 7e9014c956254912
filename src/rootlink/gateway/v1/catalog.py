"""`/v1/catalog`: what can be connected."""

from __future__ import annotations

from typing import Any

from rootlink.gateway.connect import entry_named
from rootlink.gateway.routes import Call, Route


async def every(call: Call) -> list[dict[str, Any]]:
    return [entry.summary() for entry in call.plane.catalog.list()]


async def one(call: Call) -> dict[str, Any]:
    return entry_named(call.plane.catalog, call.params["name"]).detail()


ROUTES = [
    Route("GET", "/v1/catalog", every, "List connectors", answer=list[dict[str, Any]]),
    Route("GET", "/v1/catalog/{name}", one, "A connector: its fields, hosts, access and tools", answer=dict[str, Any]),
]
