"""`connect`, `disconnect`, `connections`: what is connected, and how it came to be."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from rootlink.cli import arguments, form
from rootlink.cli.client import path, refusal
from rootlink.cli.options import command, group
from rootlink.cli.screen import Steps, clean, emit, hint, say, table
from rootlink.cli.session import Session
from rootlink.errors import UpstreamFailed

app = group()


@command(app)
def connect(
    session: Session,
    connector: Annotated[str, typer.Argument(metavar="NAME", help="As in: rootlink catalog.")],
    as_: Annotated[str | None, typer.Option("--as", metavar="CONNECTION", help="Another name for this connection.")] = None,
    secret: Annotated[list[str] | None, typer.Option(metavar="K=-", help="A secret, from standard input or a prompt.")] = None,
    input_: Annotated[list[str] | None, typer.Option("--input", metavar="K=V", help="A field that is no secret.")] = None,
) -> None:
    """Connect a connector, wholly or not at all.

    Its keys are sealed, its hosts are allowed, and its tools are live; each step is shown as it runs.
    """
    fields = session.api.get(path("v1", "catalog", connector)).get("fields") or []
    body: dict[str, Any] = {
        "connector": connector,
        "workspace": session.ws,
        "inputs": form.inputs(fields, input_ or []),
        "secrets": arguments.secrets(arguments.secret_names(secret or [])),
    }
    if as_ is not None:
        body["name"] = as_
    _ask_for_the_rest(session, fields, body)
    if session.json:
        emit(session.api.post(session.in_project("connections"), body))
    else:
        _show_connected(_followed(session, body))


@command(app)
def disconnect(session: Session, connection: Annotated[str, typer.Argument(metavar="CONNECTION")]) -> None:
    """Undo a connection: its tools, its hosts, its secrets."""
    gone = session.api.delete(session.in_project("connections", connection), workspace=session.ws)
    emit(gone) if session.json else say(f"{clean(connection)} is disconnected")


@command(app)
def connections(session: Session) -> None:
    """What is connected: state, tools, last error."""
    found = session.api.get(session.in_project("connections"))
    if session.ws_chosen:
        found = [connection for connection in found if connection.get("workspace") == session.ws]
    if session.json:
        emit(found)
    elif found:
        table(["name", "connector", "kind", "workspace", "state", "tools", "error"], [_row(connection) for connection in found])
    else:
        hint("Nothing is connected yet. Next: rootlink catalog")


def _row(connection: dict[str, Any]) -> list[object]:
    named = [connection.get(column) for column in ("name", "connector", "kind", "workspace", "state")]
    return [*named, len(connection.get("tools") or []), connection.get("error")]


def _ask_for_the_rest(session: Session, fields: list[dict[str, Any]], body: dict[str, Any]) -> None:
    """At a terminal, ask for the required fields that were not given and, for a secret, are not in the vault already."""
    missing = form.missing(fields, {**body["inputs"], **body["secrets"]})
    if missing and sys.stdin.isatty():
        kept = {secret["name"] for secret in session.api.get(session.in_project("secrets"))}
        form.ask([field for field in missing if not (field.get("secret") and field["name"] in kept)], body)


def _followed(session: Session, body: dict[str, Any]) -> dict[str, Any]:
    """Connect, showing each step as it runs; the connection, or the error that ended it."""
    steps = Steps()
    try:
        for event, data in session.api.events(session.in_project("connections"), body):
            if event == "step":
                steps.show(data)
            elif event == "failed":
                raise refusal(data.get("error") if isinstance(data.get("error"), dict) else data)
            elif event == "done":
                return dict(data)
    except BaseException:
        steps.interrupted()
        raise
    raise UpstreamFailed("the connect was cut off before its end; see: rootlink connections")


def _show_connected(connection: dict[str, Any]) -> None:
    tools = connection.get("tools") or []
    say(f"{clean(connection['name'])} is connected: {len(tools)} tool{'' if len(tools) == 1 else 's'}")
    for tool in tools:
        say(f"  {clean(tool.get('name') if isinstance(tool, dict) else tool)}")
    hint("Next: rootlink tools, or: rootlink mcp config --client claude-code")
