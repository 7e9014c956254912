"""`/v1/projects`: tenants."""

from __future__ import annotations

import msgspec

from rootlink.gateway.plane import stored
from rootlink.gateway.routes import Call, Route
from rootlink.records import Project


class NewProject(msgspec.Struct):
    name: str


async def every(call: Call) -> list[Project]:
    return await stored(call.plane.store.projects.list)


async def create(call: Call) -> Project:
    project = await stored(call.plane.store.projects.create, call.body.name)
    await call.note(project.id, "project.create", project.name)
    return project


async def one(call: Call) -> Project:
    return await call.project()


async def delete(call: Call) -> Project:
    """First the engine, so that a provisioner that is away leaves all as it was; then the rows, and with them every key."""
    project = await call.project()
    plane = call.plane
    await plane.provisioner.delete(project.id)
    await stored(plane.store.projects.delete, project.id)
    plane.keys.drop(lambda key: key.project == project.id)
    plane.engines.forget(project.id)
    await plane.provisioner.delete(project.id)  # a call that came in between may have started it again; from now on none can
    await call.note(project.id, "project.delete", project.name)
    return project


ROUTES = [
    Route("GET", "/v1/projects", every, "List projects", answer=list[Project]),
    Route("POST", "/v1/projects", create, "Create a project", body=NewProject, answer=Project, status=201),
    Route("GET", "/v1/projects/{p}", one, "A project, by id or name", answer=Project),
    Route("DELETE", "/v1/projects/{p}", delete, "Delete a project and all it has", answer=Project),
]
