"""Routes without a credential: is it alive, is it ready, which version is it, what does it serve."""

from __future__ import annotations

from typing import Any

import rootlink
from rootlink.errors import RootlinkError, Unavailable
from rootlink.gateway.plane import stored
from rootlink.gateway.routes import Call, Route

TRANSPORTS = (
    ("streamable-http", "", ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"]),
    ("sse", "/sse", ["2024-11-05"]),
)


async def alive(call: Call) -> dict[str, str]:
    return {"status": "alive"}


async def ready(call: Call) -> dict[str, str]:
    """Ready is: the store answers and the provisioner answers."""
    lacking: list[str] = []
    try:
        await stored(call.plane.store.projects.list)
    except RootlinkError:
        lacking.append("database")
    try:
        await call.plane.provisioner.health()
    except RootlinkError:
        lacking.append("provisioner")
    if lacking:
        raise Unavailable(f"Not ready: {' and '.join(lacking)} can't be reached")
    return {"status": "ready"}


async def version(call: Call) -> dict[str, str]:
    return {"name": "rootlink", "version": rootlink.__version__, "api": "v1"}


async def mcp(call: Call) -> dict[str, Any]:
    """Where MCP is spoken. Which tools there are is each key's own business."""
    base = call.plane.settings.public_url
    return {
        "name": "rootlink",
        "endpoints": [
            {"url": f"{base}/mcp{ws}{path}", "transport": transport, "protocol_versions": versions}
            for transport, path, versions in TRANSPORTS
            for ws in ("", "/{workspace}")
        ],
        "authorization": {"scheme": "bearer", "credential": "project key (rl_sk_…)"},
    }


ROUTES = [
    Route("GET", "/livez", alive, "Is the gateway alive", answer=dict[str, str], open=True),
    Route("GET", "/readyz", ready, "Can it serve: database and provisioner answer", answer=dict[str, str], open=True),
    Route("GET", "/api/v1/version", version, "Which version this is", answer=dict[str, str], open=True),
    Route("GET", "/.well-known/mcp", mcp, "What MCP clients can connect to", answer=dict[str, Any], open=True),
]
