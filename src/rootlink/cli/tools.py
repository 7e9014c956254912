"""`tools`, `call`: what an AI client sees, what may be done with it, and one call as it would make it.

`tools` alone lists; `tools show|set|approve` decide, for a connection through the control plane, for a server that was installed
without one through its engine.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from rootlink.cli import arguments
from rootlink.cli.client import Client, path
from rootlink.cli.options import Home, Json, Project, Url, Workspace, command, group
from rootlink.cli.screen import clean, count, emit, first_line, hint, say, say_foreign, table, visible, waiting
from rootlink.cli.session import Options, Session
from rootlink.errors import Invalid, NotFound, UpstreamFailed

app = group()
tools = group("The tools of this workspace, and what may be done with them.", invoke_without_command=True)
app.add_typer(tools, name="tools")

MODES = ("allow", "ask", "off", "default")
FUNCTION = "function"  # what the names of functions begin with

Connection = Annotated[str, typer.Argument(metavar="CONNECTION", help="As in: rootlink connections.")]
View = dict[str, Any]


@tools.callback()
def listed(
    context: typer.Context,
    search: Annotated[str | None, typer.Option(metavar="TEXT", help="Only tools whose name or description holds this.")] = None,
    home: Home = None,
    url: Url = None,
    project: Project = None,
    ws: Workspace = None,
    json: Json = False,
) -> None:
    said = context.obj if isinstance(context.obj, Options) else Options()
    context.obj = said.overridden({"home": home, "url": url, "project": project, "ws": ws, "json": json})
    if context.invoked_subcommand is None:
        _list(Session(context.obj), search)


def _list(session: Session, search: str | None) -> None:
    with waiting("waking the engine"):
        found = session.engine.get(session.in_workspace("tools"))
    chosen = [tool for tool in found if _matches(tool, search)]
    if session.json:
        emit(chosen)
    elif chosen:
        table(["tool", "what it does"], [[tool["name"], first_line(_description(tool))] for tool in chosen])
    elif search and found:
        hint(f"None of the {len(found)} tools matches {search!r}. Next: rootlink tools")
    else:
        hint("No tools yet. Next: rootlink connect memory")


@command(tools)
def show(session: Session, connection: Connection) -> None:
    """How its tools are judged: what each may do, whether it is asked about, what it costs a model to know it."""
    views = _Where(session, connection).views
    if session.json:
        emit(views)
        return
    table(["tool", "does", "use", "tokens", "held back", "odd"], [_shown(view) for view in views])
    weight = count(sum(view["tokens"] for view in views), "token")
    hint(f"{clean(connection)}: {count(len(views), 'tool')}, about {weight} each time a model reads them")
    if any(view["held"] for view in views):
        hint(f"Next: rootlink tools approve {clean(connection)}")


@command(tools, "set")
def set_(
    session: Session,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="As in: rootlink tools.")],
    mode: Annotated[str, typer.Argument(metavar="|".join(MODES), help="ask: the client is asked before each call.")],
) -> None:
    """Whether a tool may be called, is asked about, or is off; `default` goes by what it does."""
    if mode not in MODES:
        raise typer.BadParameter(f"a tool is set to one of: {', '.join(MODES)}")
    where = _Where(session, _connection_of(tool))
    view = where.decide(tool, {"mode": None if mode == "default" else mode})
    emit(view) if session.json else say(
        f"{clean(view['name'])}: {clean(view['mode'])}{'' if view['chosen'] else ' (by default)'}"
    )


@command(tools)
def approve(
    session: Session,
    connection: Connection,
    tool: Annotated[str | None, typer.Argument(metavar="TOOL", help="Default: every one that is held back.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask at a terminal.")] = False,
) -> None:
    """Agree to the definition of a tool that is held back, as it is shown here; a later change is held back again."""
    where = _Where(session, connection)
    held = [view for view in where.views if view["held"] and tool in (None, view["tool"], view["name"])]
    if tool is not None and not any(tool in (view["tool"], view["name"]) for view in where.views):
        raise NotFound(f"{connection} has no tool {tool!r}; see: rootlink tools show {connection}")
    if not session.json:
        _show_held(connection, held)
    if held and not yes and sys.stdin.isatty():
        typer.confirm("Agree to this?" if len(held) == 1 else f"Agree to all {len(held)}?", abort=True, err=True)
    agreed = [where.decide(view["tool"], {"approve": view["fingerprint"]}) for view in held]
    if session.json:
        emit(agreed)
    for view in agreed if not session.json else []:
        say(f"{clean(view['name'])} is approved")


class _Where:
    """Where the tools of a connection, or of an engine's own server, are decided about."""

    def __init__(self, session: Session, name: str) -> None:
        self._client: Client = session.api
        self._at, self._query = session.in_project("connections", name, "tools"), {"workspace": session.ws}
        with waiting("waking the engine"):
            try:
                self.views: list[View] = self._client.get(self._at, **self._query)
            except NotFound:
                self._client, self._query = session.engine, {}
                self._at = session.in_workspace("mcp-servers", name, "tools")
                self.views = self._client.get(self._at)

    def decide(self, tool: str, decision: dict[str, Any]) -> View:
        view: View = self._client.put(self._at + path(self._of(tool)), decision, **self._query)
        return view

    def _of(self, tool: str) -> str:
        """The server's own name of a tool, if it can stand in a path, and is not what clients call another one."""
        public, own = ({view[by]: view for view in self.views} for by in ("name", "tool"))
        found = public.get(tool) or own.get(tool)
        if found is None:
            return tool
        return str(found["name"] if "/" in found["tool"] or found["tool"] in public else found["tool"])


def _connection_of(tool: str) -> str:
    name, separator, rest = tool.partition("__")
    if not separator or not rest:
        raise Invalid(f"{tool!r} is no name of a tool; give it as clients call it: CONNECTION__TOOL (rootlink tools)")
    return rest if name == FUNCTION else name


def _shown(view: View) -> list[object]:
    use = view["mode"] if view["chosen"] else f"{view['mode']} (default)"
    return [view["tool"], view["access"] or "?", use, view["tokens"], view["held"], "; ".join(view["flags"])]


def _show_held(connection: str, held: list[View]) -> None:
    if not held:
        hint(f"Nothing of {clean(connection)} is held back.")
    for view in held:
        say(f"{visible(view['tool'])}: {clean(view['held'])}")
        for flag in view["flags"]:
            say(f"  odd: {clean(flag)}")
        for line in visible(view["description"]).splitlines():
            say(f"  | {line}")


@command(app)
def call(
    session: Session,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="As in: rootlink tools.")],
    json_: Annotated[
        str, typer.Option("--json", metavar="OBJECT", help="The arguments: JSON, @FILE, or - for standard input.")
    ] = "{}",
    raw: Annotated[bool, typer.Option("--raw", help="The whole result as JSON instead of its text.")] = False,
) -> None:
    """Call a tool; its text goes to stdout. `rootlink --json call …`, or --raw, prints the whole result."""
    body = {"arguments": arguments.json_object("--json", json_)}
    with waiting(f"calling {tool}"):
        result = session.engine.post(session.in_workspace("tools", tool, "call"), body)
    if result.get("isError"):
        raise UpstreamFailed(_text(result) or f"{tool} failed and did not say why")
    if raw or session.json:
        emit(result)
    else:
        say_foreign(_text(result))


def _matches(tool: dict[str, Any], search: str | None) -> bool:
    return search is None or search.casefold() in f"{tool['name']} {tool.get('title') or ''} {_description(tool)}".casefold()


def _description(tool: dict[str, Any]) -> str:
    return str(tool.get("description") or tool.get("title") or "")


def _text(result: dict[str, Any]) -> str:
    """A tool's result in words: its text blocks; a block that is no text is named."""
    return "\n".join(_words(block) for block in result.get("content", []))


def _words(block: dict[str, Any]) -> str:
    if block.get("type") == "text":
        return str(block.get("text", ""))
    resource = block.get("resource") if isinstance(block.get("resource"), dict) else {}
    if resource and "text" in resource:
        return str(resource["text"])
    return f"[{block.get('type', 'unknown')} {block.get('mimeType') or block.get('uri') or ''}]".replace(" ]", "]")
