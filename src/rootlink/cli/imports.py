"""`import`, `export`: MCP servers of other programs' configurations, in and out.

What is pasted comes from a file or standard input, never from argv, since it may hold credentials. Before anything is connected
it is shown: what runs, where it may go, what it asks for. The credentials in it fill the form and are sealed like any others.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from rootlink.cli import arguments, connections, form
from rootlink.cli.options import command, group
from rootlink.cli.screen import clean, emit, first_line, hint, say
from rootlink.cli.session import Session
from rootlink.errors import Invalid, NotFound

app = group()

Server = dict[str, Any]


@command(app, "import", epilog="rootlink import mcp.json, or: pbpaste | rootlink import -")
def import_(
    session: Session,
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="mcpServers JSON, VS Code's mcp.json, server.json, npx …, a URL.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="CONNECTION", help="Its name here; of several servers, the one to connect.")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="DOMAIN", help="Where it may go, and nowhere else; default: what was found."),
    ] = None,
    secret: Annotated[list[str] | None, typer.Option(metavar="K=-", help="A secret, instead of the one that was pasted.")] = None,
    input_: Annotated[list[str] | None, typer.Option("--input", metavar="K=V", help="A field that is no secret.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask at a terminal.")] = False,
) -> None:
    """Connect the MCP servers that another program's configuration names."""
    if file == "-" and secret and not sys.stdin.isatty():
        raise typer.BadParameter("standard input holds the configuration, so a secret can't come from there too: give a FILE")
    found = session.api.post(session.in_project("paste"), {"text": arguments.text_of(file)})["servers"]
    chosen = _chosen(found, name)
    if len(chosen) > 1 and (secret or input_ or host):
        raise typer.BadParameter(f"there are several servers ({', '.join(one['name'] for one in chosen)}); say which with --name")
    given = arguments.secrets(arguments.secret_names(secret or []))
    done = [_connected(session, server, host, given, input_ or [], yes=yes) for server in chosen]
    if session.json:
        emit(done)


@command(app)
def export(
    session: Session,
    connection: Annotated[str, typer.Argument(metavar="CONNECTION", help="As in: rootlink connections.")],
    format: Annotated[str, typer.Option("--format", metavar="mcpServers|vscode|server.json")] = "mcpServers",
) -> None:
    """A connection as another program writes it down; its secrets are left to be filled in."""
    at = session.in_project("connections", connection, "export")
    found = session.api.get(at, format=format, workspace=session.ws)
    emit(found if session.json else found["config"])
    for note in found.get("notes") or []:
        hint(f"note: {clean(note)}")


def _chosen(found: list[Server], name: str | None) -> list[Server]:
    """All of them; or the one that is called so, or the only one, under this name."""
    if name is None:
        return found
    if len(found) == 1:
        return [{**found[0], "name": name}]
    same = [server for server in found if server["name"] == name]
    if not same:
        raise NotFound(f"there is no server {name!r} in it; there are: {', '.join(server['name'] for server in found)}")
    return same


def _connected(
    session: Session, server: Server, hosts: list[str] | None, secrets: dict[str, str], inputs: list[str], *, yes: bool
) -> dict[str, Any]:
    fields = server.get("fields") or []
    body: dict[str, Any] = {
        "connector": "custom",
        "name": server["name"],
        "workspace": session.ws,
        "server": server["manifest"],
        "hosts": server["hosts"] if hosts is None else hosts,
        "inputs": form.inputs(fields, inputs),
        "secrets": {**server.get("secrets", {}), **secrets},
    }
    if not session.json:
        _show(server, body)
    if sys.stdin.isatty() and not yes:
        if hosts is None:
            body["hosts"] = _asked_for_hosts(server["hosts"])
        form.ask(form.missing(fields, {**body["inputs"], **body["secrets"]}), body)
        typer.confirm(f"Connect {clean(server['name'])}?", default=True, abort=True, err=True)
    at = session.in_project("connections")
    if session.json:
        found: dict[str, Any] = session.api.post(at, body)
        return found
    connection = connections.followed(session, body)
    connections.show_connected(connection)
    return connection


def _show(server: Server, body: dict[str, Any]) -> None:
    say(f"{clean(server['name'])}: {first_line(server['manifest'].get('description') or server.get('title') or '')}")
    for sentence in server.get("access") or []:
        say(f"  {clean(sentence)}")
    say(f"  May reach: {', '.join(map(clean, body['hosts'])) or 'no network'}")
    for field in server.get("fields") or []:
        pasted = " (as pasted, to be sealed)" if field["name"] in server.get("secrets", {}) else ""
        kind = (
            "secret" if field.get("secret") else f"default {clean(field['default'])}" if field.get("default") else "to be given"
        )
        say(f"  {clean(field['name'])}: {kind}{pasted}")
    for warning in server.get("warnings") or []:
        say(f"  note: {clean(warning)}")


def _asked_for_hosts(found: list[str]) -> list[str]:
    """Hosts by comma; what was found unless something is typed, `-` for none."""
    said = typer.prompt("Hosts it may reach (by comma, - for none)", default=", ".join(found) or "-", err=True)
    hosts = [host.strip() for host in str(said).split(",") if host.strip() not in ("", "-")]
    if any(" " in host for host in hosts):
        raise Invalid("hosts are told apart by commas, like api.example.com, db.example.com:5432")
    return hosts
