"""`/v1/projects/{p}/engine`: the process that holds a project's mounts and functions."""

from __future__ import annotations

from rootlink.gateway.routes import Call, Route
from rootlink.wire.provisioner import EngineView


async def view(call: Call) -> EngineView:
    return await call.plane.provisioner.view((await call.project()).id)


async def restart(call: Call) -> EngineView:
    project = await call.project()
    await call.note(project.id, "engine.restart", project.name)
    call.plane.engines.forget(project.id)
    return await call.plane.provisioner.restart(project.id, call.plane.settings.ensure_secs)  # streams find it by `Engines.back`


async def stop(call: Call) -> EngineView:
    project = await call.project()
    await call.note(project.id, "engine.stop", project.name)
    call.plane.engines.forget(project.id)
    return await call.plane.provisioner.stop(project.id)


async def logs(call: Call) -> dict[str, list[str]]:
    return await call.plane.provisioner.logs((await call.project()).id)


ROUTES = [
    Route("GET", "/v1/projects/{p}/engine", view, "The project's engine, also when it is stopped", answer=EngineView),
    Route("GET", "/v1/projects/{p}/engine/logs", logs, "The engine's latest log lines", answer=dict[str, list[str]]),
    Route("POST", "/v1/projects/{p}/engine/restart", restart, "Restart the engine", answer=EngineView),
    Route("POST", "/v1/projects/{p}/engine/stop", stop, "Stop the engine; the next call starts it again", answer=EngineView),
]
