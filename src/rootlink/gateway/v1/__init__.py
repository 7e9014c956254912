"""The control plane's routes (CONTRACT §3), one noun a file; each file holds its routes, their bodies and their answers."""

from __future__ import annotations

from rootlink.gateway.routes import Route
from rootlink.gateway.v1 import (
    activity,
    catalog,
    connections,
    egress,
    engine,
    keys,
    paste,
    projects,
    secrets,
    session,
    tools,
    updates,
)

ROUTES: list[Route] = [
    *session.ROUTES,
    *projects.ROUTES,
    *keys.ROUTES,
    *secrets.ROUTES,
    *egress.ROUTES,
    *catalog.ROUTES,
    *connections.ROUTES,
    *tools.ROUTES,
    *paste.ROUTES,
    *updates.ROUTES,
    *engine.ROUTES,
    *activity.ROUTES,
]
