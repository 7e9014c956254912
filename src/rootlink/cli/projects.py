"""`projects`: the tenants of this instance, each with an engine, a vault, an allowlist and keys of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from rootlink.cli.client import path
from rootlink.cli.options import command, group
from rootlink.cli.screen import clean, emit, say, table
from rootlink.cli.session import Session

app = group()
projects = group("The projects of this instance. A first start makes one, `default`.")
app.add_typer(projects, name="projects")

Name = Annotated[str, typer.Argument(metavar="NAME")]


@command(projects)
def create(session: Session, name: Name) -> None:
    """Make a project."""
    made = session.api.post("/v1/projects", {"name": name})
    emit(made) if session.json else say(f"project {clean(made['name'])} is made; use it with --project {clean(made['name'])}")


@command(projects, "list")
def list_(session: Session) -> None:
    """All projects."""
    found = session.api.get("/v1/projects")
    emit(found) if session.json else table(["id", "name"], [[project["id"], project["name"]] for project in found])


@command(projects)
def delete(session: Session, name: Name) -> None:
    """Remove a project and everything of it."""
    gone = session.api.delete(path("v1", "projects", name))
    emit(gone) if session.json else say(f"project {clean(name)} is removed")
