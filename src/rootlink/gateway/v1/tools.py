"""`/v1/projects/{p}/connections/{name}/tools`: what may be done with a connection's tools. An operator decides, nobody else.

Rule 1. A decision is kept first, then the engine is told: whatever happens in between, the next spawn or poll brings it there.
Rule 2. Who approves names the fingerprint of the definition they saw. If it is another by now, that is a conflict: nobody
        agrees to what they have not read.
"""

from __future__ import annotations

import msgspec

from rootlink.errors import Conflict, Invalid, NotFound
from rootlink.gateway.plane import stored
from rootlink.gateway.routes import Call, Route
from rootlink.gateway.v1.connections import WHERE, named
from rootlink.records import Connection
from rootlink.wire.tools import Mode, ToolView

ASK_SECS = 30.0  # for an engine to list them, besides its start


class Decision(msgspec.Struct):
    """`mode` null: as by default. `approve`: the fingerprint of the definition that is agreed to."""

    mode: Mode | msgspec.UnsetType | None = msgspec.UNSET
    approve: str | None = None


async def every(call: Call) -> list[ToolView]:
    return await _tools(call, await named(call))


async def decide(call: Call) -> ToolView:
    decision: Decision = call.body
    if decision.mode is msgspec.UNSET and decision.approve is None:
        raise Invalid("say what is decided: `mode` (allow, ask, off, or null for the default) or `approve` (a fingerprint)")
    connection = await named(call)
    tool = _named(await _tools(call, connection), call.params["tool"], connection)
    if decision.approve not in (None, tool.fingerprint):
        raise Conflict(f"tool {tool.tool!r} is not what was approved: its definition has changed since; look at it again")
    keep = call.plane.store.connections.decide
    await stored(keep, connection.id, tool.tool, mode=decision.mode, pin=decision.approve, actor=call.actor)
    await call.plane.refresh(connection.project)
    return _named(await _tools(call, connection), tool.tool, connection)


async def _tools(call: Call, connection: Connection) -> list[ToolView]:
    return await call.plane.provisioner.tools(connection.id, call.plane.settings.ensure_secs + ASK_SECS)


def _named(tools: list[ToolView], name: str, connection: Connection) -> ToolView:
    """By the name that clients call, or else by its server's: a server may call one tool as another's is called."""
    known = {tool.tool: tool for tool in tools} | {tool.name: tool for tool in tools}
    if name in known:
        return known[name]
    raise NotFound(f"connection {connection.name!r} has no tool {name[:80]!r}; see: rootlink tools show {connection.name}")


ROUTES = [
    Route(
        "GET",
        "/v1/projects/{p}/connections/{name}/tools",
        every,
        "Its tools as they are judged",
        answer=list[ToolView],
        query=WHERE,
    ),
    Route(
        "PUT",
        "/v1/projects/{p}/connections/{name}/tools/{tool}",
        decide,
        "Decide about a tool: how it may be used, or that its definition is agreed to",
        body=Decision,
        answer=ToolView,
        query=WHERE,
    ),
]
