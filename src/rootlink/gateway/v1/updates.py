"""`…/connections/{name}/update`, `…/rollback`: a newer version looked at, agreed to, gone back from (`gateway/updates.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec

from rootlink.errors import Conflict
from rootlink.gateway import updates
from rootlink.gateway.connect import ConnectionView, view
from rootlink.gateway.plane import Plane
from rootlink.gateway.routes import Call, Route
from rootlink.gateway.updates import Changes
from rootlink.gateway.v1.connections import WHERE, named
from rootlink.records import Connection


class Agreed(msgspec.Struct):
    """`digest`: of the changes that were shown and agreed to."""

    digest: str


async def look(call: Call) -> Changes:
    return (await updates.planned(call.plane, await named(call))).changes


async def apply(call: Call) -> ConnectionView:
    plan = await updates.planned(call.plane, await named(call))
    if not plan.changes.update:
        return view(plan.row)
    if plan.changes.digest != call.body.digest:
        raise Conflict("what would change is not what was shown (any more); look at it again")
    return view(await _whatever_happens(call.plane, updates.applied(call.plane, plan, call.actor)))


async def roll_back(call: Call) -> ConnectionView:
    row = await named(call)
    return view(await _whatever_happens(call.plane, updates.rolled_back(call.plane, row, call.actor)))


async def _whatever_happens(plane: Plane, work: Coroutine[Any, Any, Connection]) -> Connection:
    """It goes on when the client goes away."""
    return await asyncio.shield(plane.errands.begin(work))


_PATH = "/v1/projects/{p}/connections/{name}"
ROUTES: list[Route] = [
    Route("GET", f"{_PATH}/update", look, "What an update would change", answer=Changes, query=WHERE),
    Route(
        "POST",
        f"{_PATH}/update",
        apply,
        "Update to what was shown; if it does not start, what was before comes back",
        body=Agreed,
        answer=ConnectionView,
        query=WHERE,
    ),
    Route("POST", f"{_PATH}/rollback", roll_back, "Back to what was before the last update", answer=ConnectionView, query=WHERE),
]
