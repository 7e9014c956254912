"""`/v1/projects/{p}/connections`: connectors that are connected, and connecting one (`connect.py` has the saga)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.responses import StreamingResponse

from rootlink.gateway.connect import ConnectionView, Saga, Wish, failure, planned, view
from rootlink.gateway.plane import stored
from rootlink.gateway.routes import Call, Route
from rootlink.records import Connection

PING_SECS = 15.0  # a comment, so that proxies keep a quiet stream open
CHECK_SECS = 120.0  # for checks, besides an engine's start
SIGN_IN_SECS = 60.0  # to find out where to sign in, besides
EVENT_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class CheckView(msgspec.Struct):
    """`label`: who we are to the service. `error`: what is wrong, in words, null when nothing is."""

    ok: bool
    label: str | None
    notes: list[str]
    error: str | None


class LinkView(msgspec.Struct):
    """`link`: a page to open in a browser; what comes back from there ends the sign-in."""

    link: str


async def every(call: Call) -> list[ConnectionView]:
    project = await call.project()
    return [view(connection) for connection in await stored(call.plane.store.connections.list, project.id)]


async def connect(call: Call) -> Any:
    project = await call.project()
    async with call.plane.connecting[project.id]:
        saga = await planned(call.plane, project, call.body, call.actor)
        await saga.begin()
    if "text/event-stream" in call.request.headers.get("accept", ""):
        told = _told(saga, call.scope["rootlink.id"])
        return StreamingResponse(told, 200, EVENT_HEADERS, media_type="text/event-stream")
    return view(await saga.shown())


async def one(call: Call) -> ConnectionView:
    return view(await named(call))


async def disconnect(call: Call) -> ConnectionView:
    """The row says `removing` until the engine has let go; if that can't be done now, the reconciler does it later.

    The answer is the connection as it was, its state `removed`, nothing of it left.
    """
    connection = await named(call)
    gone = await stored(call.plane.store.connections.mark_removing, connection.id, actor=call.actor)
    await call.plane.provisioner.remove(connection.id, call.plane.settings.install_secs)
    return view(msgspec.structs.replace(gone, state="removed", tools=[], steps=[]))


async def named(call: Call) -> Connection:
    """By name; where several workspaces have one of that name, `?workspace=` or else `main` decides."""
    project, name = await call.project(), call.params["name"]
    workspace = call.query("workspace") or call.query("ws")
    if workspace is None:
        named = [one for one in await stored(call.plane.store.connections.list, project.id) if one.name == name]
        workspace = named[0].workspace if len(named) == 1 else "main"
    return await stored(call.plane.store.connections.get, project.id, name, workspace)


async def check(call: Call) -> CheckView:
    """What the connect asked of the service, asked again. That something is wrong is an answer, not an error."""
    connection = await named(call)
    verdict = await call.plane.provisioner.check(connection.id, call.plane.settings.ensure_secs + CHECK_SECS)
    await call.note(connection.project, "connection.check", connection.name, verdict.code or "ok")
    return CheckView(verdict.error is None, verdict.label, verdict.notes, verdict.error)


async def sign_in(call: Call) -> LinkView:
    connection = await named(call)
    link = await call.plane.provisioner.sign_in(connection.id, call.plane.settings.ensure_secs + SIGN_IN_SECS)
    await call.note(connection.project, "connection.sign_in", connection.name)
    return LinkView(link)


async def _told(saga: Saga, request_id: str) -> AsyncIterator[bytes]:
    async for step in _pinged(saga.events()):
        yield b": still here\n\n" if step is None else _event("step", step)
    try:
        yield _event("done", view(await saga.outcome()))
    except Exception as error:  # noqa: BLE001 (the saga has recorded it)
        yield _event("failed", failure(error, saga.steps, request_id))


async def _pinged(events: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The events, and None whenever there was none for `PING_SECS`."""
    following = asyncio.ensure_future(anext(events, ...))
    try:
        while True:
            await asyncio.wait({following}, timeout=PING_SECS)
            if not following.done():
                yield None
                continue
            event = following.result()
            if event is ...:
                return
            following = asyncio.ensure_future(anext(events, ...))
            yield event
    finally:
        following.cancel()


def _event(name: str, data: Any) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


WHERE = {"workspace": "needed when several workspaces have a connection of this name"}

ROUTES = [
    Route("GET", "/v1/projects/{p}/connections", every, "List connections", answer=list[ConnectionView]),
    Route(
        "POST",
        "/v1/projects/{p}/connections",
        connect,
        "Connect a connector; with Accept: text/event-stream the steps come as they happen",
        body=Wish,
        answer=ConnectionView,
        status=201,
        streams=True,
    ),
    Route("GET", "/v1/projects/{p}/connections/{name}", one, "A connection", answer=ConnectionView, query=WHERE),
    Route("POST", "/v1/projects/{p}/connections/{name}/check", check, "Check again", answer=CheckView, query=WHERE),
    Route("POST", "/v1/projects/{p}/connections/{name}/sign-in", sign_in, "Begin a sign-in", answer=LinkView, query=WHERE),
    Route("DELETE", "/v1/projects/{p}/connections/{name}", disconnect, "Disconnect", answer=ConnectionView, query=WHERE),
]
