"""`catalog`: what can be connected, and what each connector asks for and may do."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rootlink.cli.client import path
from rootlink.cli.options import command, group
from rootlink.cli.screen import clean, emit, first_line, hint, say, table
from rootlink.cli.session import Session

app = group()


@command(app)
def catalog(session: Session, name: Annotated[str | None, typer.Argument(help="One connector, in full.")] = None) -> None:
    """What can be connected."""
    found = session.api.get("/v1/catalog" if name is None else path("v1", "catalog", name))
    if session.json:
        emit(found)
    elif name is None:
        table(["name", "kind", "what it is"], [[e["name"], e["kind"], first_line(e.get("description") or "")] for e in found])
        hint("Next: rootlink catalog NAME, or: rootlink connect NAME")
    else:
        _describe(found)


def _describe(entry: dict[str, Any]) -> None:
    say(f"{clean(entry.get('title') or entry['name'])} ({entry['kind']})\n{clean(entry.get('description') or '')}")
    fields = entry.get("fields") or []
    _section("Fields", [_field(field) for field in fields])
    _section("May reach", [clean(host) for host in entry.get("hosts") or []])
    _section("May do", [clean(access) for access in entry.get("access") or []])
    _section("Tools", [_tool(tool) for tool in entry.get("tools") or []])
    _section("Note", [clean(entry["note"])] if entry.get("note") else [])
    needed = "".join(_option(field) for field in fields if field.get("required"))
    hint(f"\nNext: rootlink connect {entry['name']}{needed}")


def _section(heading: str, lines: list[str]) -> None:
    if lines:
        say("\n".join(["", heading, *(f"  {line}" for line in lines)]))


def _field(field: dict[str, Any]) -> str:
    notes = [word for word in ("secret", "required", "multiple") if field.get(word)]
    return f"{clean(field['name'])}  {first_line(field.get('label') or '')}" + (f" ({', '.join(notes)})" if notes else "")


def _tool(tool: dict[str, Any]) -> str:
    return f"{clean(tool.get('name'))}  {first_line(tool.get('description') or tool.get('preview') or '')}".rstrip()


def _option(field: dict[str, Any]) -> str:
    return f" --secret {field['name']}=-" if field.get("secret") else f" --input {field['name']}=…"
