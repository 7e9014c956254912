"""`connect`, `disconnect`, `connections`, `check`, `sign-in`: what is connected, how it came to be, and whether it works."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from rootlink.cli import arguments, form
from rootlink.cli.client import path, refusal
from rootlink.cli.options import command, group
from rootlink.cli.screen import Steps, clean, count, emit, first_line, hint, say, show_link, table, waiting
from rootlink.cli.session import Session
from rootlink.errors import Invalid, Unavailable, UpstreamFailed

app = group()
SIGN_IN_WITHIN = 600.0  # seconds a sign-in is waited for
LOOK_EVERY = 1.0

Connection = Annotated[str, typer.Argument(metavar="CONNECTION", help="As in: rootlink connections.")]


@command(app)
def connect(
    session: Session,
    connector: Annotated[str, typer.Argument(metavar="NAME", help="As in: rootlink catalog.")],
    as_: Annotated[str | None, typer.Option("--as", metavar="CONNECTION", help="Another name for this connection.")] = None,
    secret: Annotated[list[str] | None, typer.Option(metavar="K=-", help="A secret, from standard input or a prompt.")] = None,
    input_: Annotated[list[str] | None, typer.Option("--input", metavar="K=V", help="A field that is no secret.")] = None,
    variant: Annotated[str | None, typer.Option(metavar="V", help="Another way to the same service; see: catalog NAME.")] = None,
) -> None:
    """Connect a connector, wholly or not at all.

    Its keys are sealed and tried out, its hosts are allowed, and its tools are live; each step is shown as it runs. Where
    somebody has to sign in, the page to open is shown, and waited for.
    """
    fields = _fields(session.api.get(path("v1", "catalog", connector)), variant)
    body: dict[str, Any] = {
        "connector": connector,
        "workspace": session.ws,
        "inputs": form.inputs(fields, input_ or []),
        "secrets": arguments.secrets(arguments.secret_names(secret or [])),
    }
    if as_ is not None:
        body["name"] = as_
    if variant is not None:
        body["variant"] = variant
    _ask_for_the_rest(session, fields, body)
    if session.json:
        emit(session.api.post(session.in_project("connections"), body))
    else:
        show_connected(followed(session, body))


@command(app)
def disconnect(session: Session, connection: Connection) -> None:
    """Undo a connection: its tools, its hosts, its secrets."""
    gone = session.api.delete(session.in_project("connections", connection), workspace=session.ws)
    emit(gone) if session.json else say(f"{clean(connection)} is disconnected")


@command(app)
def connections(session: Session) -> None:
    """What is connected: as whom, state, tools, what to know, last error."""
    found = session.api.get(session.in_project("connections"))
    if session.ws_chosen:
        found = [connection for connection in found if connection.get("workspace") == session.ws]
    if session.json:
        emit(found)
    elif found:
        table(COLUMNS, [_row(connection) for connection in found])
        for connection in found:
            _hint_what_to_do(connection)
    else:
        hint("Nothing is connected yet. Next: rootlink catalog")


@command(app)
def check(session: Session, connection: Connection) -> None:
    """Ask the service again whether it knows the key, and who we are there; fails when something is wrong."""
    with waiting(f"checking {connection}"):
        found = session.api.post(session.in_project("connections", connection, "check"), workspace=session.ws)
    if session.json:
        emit(found)
        raise typer.Exit(0 if found.get("ok") else 1)
    if not found.get("ok"):
        raise UpstreamFailed(found.get("error") or f"{connection} does not work, and nothing says why")
    say(f"{clean(connection)} works{_as_whom(found)}")
    _say_notes(found)


@command(app, "sign-in")
def sign_in(session: Session, connection: Connection) -> None:
    """Sign in to a service again, or as somebody else: shows the page to open, and waits until it is done."""
    seen = {line["id"] for line in _signed_in(session, connection)}
    begun = session.api.post(session.in_project("connections", connection, "sign-in"), workspace=session.ws)
    if session.json:
        emit(begun)
        return
    show_link(begun["link"])
    deadline = time.monotonic() + SIGN_IN_WITHIN
    with waiting("waiting for the sign-in"):
        while all(line["id"] in seen for line in _signed_in(session, connection)):
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"nobody signed in within {SIGN_IN_WITHIN / 60:.0f} minutes; once more: rootlink sign-in {connection}"
                )
            time.sleep(LOOK_EVERY)
    say(f"{clean(connection)} is signed in")


COLUMNS = ["name", "connector", "kind", "as", "workspace", "state", "tools", "held", "notes", "error"]


def _row(connection: dict[str, Any]) -> list[object]:
    variant = connection.get("variant")
    connector = f"{connection.get('connector')}/{variant}" if variant else connection.get("connector")
    tools, held = (len(connection.get(lists) or []) for lists in ("tools", "held"))
    known = [connection.get("name"), connector, connection.get("kind"), connection.get("label")]
    notes = "; ".join(str(note) for note in connection.get("notes") or [])
    return [*known, connection.get("workspace"), connection.get("state"), tools, held or None, notes, connection.get("error")]


def _hint_what_to_do(connection: dict[str, Any]) -> None:
    name, held = clean(connection.get("name")), connection.get("held") or []
    if held:
        hint(f"{name} has {count(len(held), 'tool')} held back until approved: rootlink tools approve {name}")
    for step in connection.get("steps") or []:
        if connection.get("state") == "connecting" and step.get("link"):
            hint(f"{name} waits for a sign-in: {clean(step['link'])}")


def _fields(entry: dict[str, Any], variant: str | None) -> list[dict[str, Any]]:
    """Of the entry, or of one of its variants."""
    if variant is None:
        return entry.get("fields") or []
    variants = {str(one.get("variant")): one for one in entry.get("variants") or []}
    if variant not in variants:
        there_are = f"there are: {', '.join(sorted(variants))}" if variants else "it has none"
        raise Invalid(f"{entry.get('name')} has no variant {variant!r}; {there_are}")
    return variants[variant].get("fields") or []


def _signed_in(session: Session, connection: str) -> list[dict[str, Any]]:
    """The audit log's lines of sign-ins that this connection has had."""
    lines = session.api.get(session.in_project("activity"))
    return [line for line in lines if (line.get("action"), line.get("target")) == ("connection.signed_in", connection)]


def _as_whom(found: dict[str, Any]) -> str:
    return f" as {first_line(found['label'])}" if found.get("label") else ""


def _say_notes(found: dict[str, Any]) -> None:
    for note in found.get("notes") or []:
        say(f"  note: {first_line(note)}")


def _ask_for_the_rest(session: Session, fields: list[dict[str, Any]], body: dict[str, Any]) -> None:
    """At a terminal, ask for the required fields that were not given and, for a secret, are not in the vault already."""
    missing = form.missing(fields, {**body["inputs"], **body["secrets"]})
    if missing and sys.stdin.isatty():
        kept = {secret["name"] for secret in session.api.get(session.in_project("secrets"))}
        form.ask([field for field in missing if not (field.get("secret") and field["name"] in kept)], body)


def followed(session: Session, body: dict[str, Any]) -> dict[str, Any]:
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
    except BaseException as error:
        steps.interrupted()
        if steps.linked and isinstance(error, KeyboardInterrupt):
            name = clean(body.get("name", body["connector"]))
            hint(f"The sign-in is still waited for; to take it back: rootlink disconnect {name}")
        raise
    raise UpstreamFailed("the connect was cut off before its end; see: rootlink connections")


def show_connected(connection: dict[str, Any]) -> None:
    tools = connection.get("tools") or []
    say(f"{clean(connection['name'])} is connected{_as_whom(connection)}: {count(len(tools), 'tool')}")
    _say_notes(connection)
    for tool in tools:
        say(f"  {clean(tool.get('name') if isinstance(tool, dict) else tool)}")
    _hint_what_to_do(connection)
    hint("Next: rootlink tools, or: rootlink mcp config --client claude-code")
