"""`mcp`: AI clients pointed at Rootlink (`config`), and MCP servers of one's own mounted in it (`add`, `list`, `remove`)."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rootlink.cli import arguments
from rootlink.cli.clients import CLIENTS
from rootlink.cli.options import command, group
from rootlink.cli.screen import clean, emit, hint, say, table, waiting
from rootlink.cli.session import KEY_PREFIX, Session
from rootlink.errors import Invalid

app = group()
mcp = group("AI clients of this instance, and MCP servers of your own.")
app.add_typer(mcp, name="mcp")

Name = Annotated[str, typer.Argument(metavar="NAME")]
PLACEHOLDER = f"{KEY_PREFIX}…"


@command(mcp)
def config(
    session: Session,
    client: Annotated[str, typer.Option(metavar="|".join(CLIENTS), help="The AI client to be configured.")],
    no_key: Annotated[bool, typer.Option("--no-key", help="Leave a placeholder instead of making a project key.")] = False,
) -> None:
    """What to paste so that an AI client uses this project's tools. Makes a project key named after the client."""
    target = CLIENTS.get(client)
    if target is None:
        raise typer.BadParameter(f"there is no client {client!r}; choose from {', '.join(CLIENTS)}")
    url = session.mcp_url
    text = target.write(url, PLACEHOLDER if no_key else _key_for(session, client))
    if session.json:
        emit({"client": client, "path": target.path, "format": target.format, "url": url, "config": text})
        return
    say(text)
    hint(f"\nFor {target.path}." + ("" if no_key else " It holds a project key; to take that back: rootlink keys revoke ID"))


@command(mcp, epilog="rootlink mcp add everything -- npx -y @modelcontextprotocol/server-everything")
def add(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="What its tools begin with: NAME__TOOL.")] = None,
    words: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND ARGS…", help="A server on stdio.")] = None,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help="A server on HTTP.")] = None,
    sse: Annotated[bool, typer.Option("--sse", help="It speaks the old HTTP+SSE transport.")] = False,
    from_json: Annotated[
        str | None, typer.Option(metavar="FILE", help="The mcpServers JSON of a README; - for standard input.")
    ] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Its environment; ${NAME} is the secret NAME.")] = None,
    header: Annotated[list[str] | None, typer.Option(metavar="K=V", help="A header for it; ${NAME} is the secret NAME.")] = None,
    egress: Annotated[list[str] | None, typer.Option(metavar="DOMAIN", help="Only these of the project's allowed hosts.")] = None,
    read: Annotated[list[str] | None, typer.Option(metavar="DIR", help="A folder it may read.")] = None,
    write: Annotated[list[str] | None, typer.Option(metavar="DIR", help="A folder it may read and write.")] = None,
    per: Annotated[
        str | None, typer.Option("--session", metavar="shared|client", help="client: each AI client gets one of its own.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", help="At most N calls at once; 1 for one after another.")
    ] = None,
) -> None:
    """Mount an MCP server of your own: a command, a URL, or what its README says to paste."""
    if [bool(words), url is not None, from_json is not None].count(True) != 1:
        raise typer.BadParameter("give one of: -- COMMAND ARGS…, --url URL, --from-json FILE")
    if from_json is None and name is None:
        raise typer.BadParameter("give the server a NAME")
    more: dict[str, Any] = {
        "env": arguments.single_pairs("--env", env or []),
        "headers": arguments.single_pairs("--header", header or []),
        "paths": {kind: folders for kind, folders in (("read", read), ("write", write)) if folders},
    }
    more |= {"egress": egress, "session": per, "concurrency": concurrency}
    specs = (
        pasted(arguments.json_object("--from-json", f"@{from_json}"), name) if from_json else [_spec(str(name), words, url, sse)]
    )
    _install(session, [_merged(spec, more) for spec in specs])


@command(mcp, "list")
def list_(session: Session) -> None:
    """The MCP servers mounted in this workspace, connectors' and your own."""
    found = session.engine.get(session.in_workspace("mcp-servers"))
    if session.json:
        emit(found)
    elif found:
        columns = ["name", "transport", "state", "tool_count", "connection", "error"]
        table(
            [column.replace("_count", "s") for column in columns], [[mount.get(column) for column in columns] for mount in found]
        )
    else:
        hint("No MCP servers yet. Next: rootlink connect memory, or: rootlink mcp add NAME -- COMMAND")


@command(mcp)
def remove(session: Session, name: Name) -> None:
    """Unmount an MCP server added with `mcp add`."""
    gone = session.engine.delete(session.in_workspace("mcp-servers", name))
    emit(gone) if session.json else say(f"{clean(name)} is removed")


def _key_for(session: Session, client: str) -> str:
    if session.token.startswith(KEY_PREFIX):
        return session.token
    return str(session.api.post(session.in_project("keys"), {"name": client})["key"])


def _spec(name: str, words: list[str] | None, url: str | None, sse: bool) -> dict[str, Any]:
    if words:
        return {"name": name, "transport": "stdio", "command": words[0], "args": words[1:]}
    return {"name": name, "transport": "sse" if sse else "http", "endpoint": url}


def pasted(document: dict[str, Any], name: str | None) -> list[dict[str, Any]]:
    """The mounts of a pasted `mcpServers` document (VS Code says `servers`); with `name` that one alone, or the only one renamed.

    Raises Invalid when there is no server in it, or not the one that was named.
    """
    servers = document.get("mcpServers", document.get("servers"))
    if not isinstance(servers, dict) or not servers or not all(isinstance(server, dict) for server in servers.values()):
        raise Invalid('there is no server in this JSON; it should look like {"mcpServers": {"NAME": {"command": …}}}')
    if name is None:
        return [_from_client(key, server) for key, server in servers.items()]
    if name not in servers and len(servers) > 1:
        raise Invalid(f"there is no server {name!r} in this JSON; it has {', '.join(servers)}")
    return [_from_client(name, servers.get(name) or next(iter(servers.values())))]


def _from_client(name: str, server: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {member: server[member] for member in ("command", "args", "env", "cwd", "headers") if member in server}
    endpoint = server.get("url", server.get("serverUrl"))
    if endpoint is None:
        return {"name": name, "transport": "stdio", **kept}
    return {"name": name, "transport": "sse" if server.get("type") == "sse" else "http", "endpoint": endpoint, **kept}


def _merged(spec: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """What was pasted, with what was said on the command line over it."""
    merged = dict(spec)
    for member, value in more.items():
        if value not in (None, [], {}):
            merged[member] = {**merged.get(member, {}), **value} if isinstance(value, dict) else value
    return merged


def _install(session: Session, specs: list[dict[str, Any]]) -> None:
    answers = []
    for spec in specs:
        with waiting(f"installing and starting {spec['name']}"):
            answers.append(session.engine.post(session.in_workspace("mcp-servers"), spec))
        if not session.json:
            mount = session.engine.get(session.in_workspace("mcp-servers", str(spec["name"])))
            say(f"{clean(spec['name'])} is mounted: {mount.get('tool_count', 0)} tools")
    if session.json:
        emit(answers if len(answers) > 1 else answers[0])
    else:
        hint("Next: rootlink tools")
