"""`tools`, `call`: what an AI client sees, and one call as it would make it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rootlink.cli import arguments
from rootlink.cli.options import command, group
from rootlink.cli.screen import emit, first_line, hint, say_foreign, table, waiting
from rootlink.cli.session import Session
from rootlink.errors import UpstreamFailed

app = group()


@command(app)
def tools(
    session: Session,
    search: Annotated[str | None, typer.Option(metavar="TEXT", help="Only tools whose name or description holds this.")] = None,
) -> None:
    """The tools of this workspace."""
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
