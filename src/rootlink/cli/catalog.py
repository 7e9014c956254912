"""`catalog`: what can be connected, and what each connector asks for and may do."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rootlink.cli import updates
from rootlink.cli.client import path
from rootlink.cli.options import command, group
from rootlink.cli.screen import clean, emit, first_line, hint, say, table
from rootlink.cli.session import Session
from rootlink.errors import NotFound

app = group()


@command(app)
def catalog(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One connector, in full; or update, rollback.")] = None,
    of: Annotated[str | None, typer.Argument(metavar="OF", help="Of which connector or connection.")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Another way to the same service, in full.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With update: apply what it shows.")] = False,
) -> None:
    """What can be connected.

    `catalog update NAME` shows what a newer version of it would change, `catalog rollback NAME` goes back.
    """
    if name in updates.ACTIONS or of is not None:
        if name not in updates.ACTIONS or of is None:
            raise typer.BadParameter("say catalog NAME, catalog update NAME, or catalog rollback NAME")
        updates.ACTIONS[name](session, of, yes)
        return
    if variant is not None and name is None:
        raise typer.BadParameter("--variant is of one connector; say catalog NAME --variant V")
    found = session.api.get("/v1/catalog" if name is None else path("v1", "catalog", name))
    if name is not None and variant is not None:
        found = _variant(found, variant)
    if session.json:
        emit(found)
    elif name is None:
        table(["name", "kind", "what it is"], [[e["name"], e["kind"], _summary(e)] for e in found])
        hint("Next: rootlink catalog NAME, or: rootlink connect NAME")
    else:
        _describe(found)


def _variant(entry: dict[str, Any], name: str) -> dict[str, Any]:
    variants = {one["variant"]: one for one in entry.get("variants") or []}
    if name not in variants:
        there_are = f"there are: {', '.join(sorted(variants))}" if variants else "it has none"
        raise NotFound(f"connector {entry['name']} has no variant {name[:63]!r}; {there_are}")
    found: dict[str, Any] = variants[name]
    return found


def _summary(entry: dict[str, Any]) -> str:
    status = entry.get("status")
    marked = f" ({clean(status)}; other ways: catalog {clean(entry['name'])})" if status not in (None, "active") else ""
    return f"{first_line(entry.get('description') or '')}{marked}"


def _describe(entry: dict[str, Any]) -> None:
    status = entry.get("status")
    marked = f", {clean(status)}" if status not in (None, "active") else ""
    say(f"{clean(entry.get('title') or entry['name'])} ({entry['kind']}{marked})\n{clean(entry.get('description') or '')}")
    if entry.get("maker"):
        say(f"Made by {clean(entry['maker'])}{_from(entry)}")
    fields = entry.get("fields") or []
    _section("Note", [clean(entry["note"])] if entry.get("note") else [])
    _section("Fields", [line for field in fields for line in _field(field)])
    _section("May reach", _reach(entry))
    _section("May do", [clean(access) for access in entry.get("access") or []])
    _section("Tools", [_tool(tool) for tool in entry.get("tools") or []])
    _section("Checked before it is kept", [clean(check) for check in entry.get("checks") or []])
    _section("Other ways to it", [_way(variant) for variant in entry.get("variants") or []])
    needed = "".join(_option(field) for field in fields if field.get("required"))
    chosen = f" --variant {clean(entry['variant'])}" if entry.get("variant") else ""
    hint(f"\nNext: rootlink connect {entry['name']}{chosen}{needed}")


def _from(entry: dict[str, Any]) -> str:
    package = entry.get("package")
    if package:
        return f": {clean(package['identifier'])} {clean(package['version'])} ({clean(package['registry'])})"
    return f": {clean(entry['endpoint'])}" if entry.get("endpoint") else ""


def _reach(entry: dict[str, Any]) -> list[str]:
    hosts = [clean(host) for host in entry.get("hosts") or []]
    hosts += [f"what {clean(field)} names" for field in entry.get("hosts_from") or []]
    return hosts or ["no network"]


def _way(variant: dict[str, Any]) -> str:
    status = "" if variant.get("status") in (None, "active") else f" ({clean(variant['status'])})"
    apart = f": {first_line(variant.get('apart') or '')}" if variant.get("apart") else ""
    return f"--variant {clean(variant['variant'])}  {first_line(variant.get('way') or '')}{status}{apart}"


def _section(heading: str, lines: list[str]) -> None:
    if lines:
        say("\n".join(["", heading, *(f"  {line}" for line in lines)]))


def _field(field: dict[str, Any]) -> list[str]:
    notes = [word for word in ("secret", "required", "multiple") if field.get(word)]
    notes += [f"default {clean(field['default'])}"] if field.get("default") not in (None, "") else []
    name = f"{clean(field['name'])}  {first_line(field.get('label') or '')}" + (f" ({', '.join(notes)})" if notes else "")
    steps = [f"  {number}. {clean(step)}" for number, step in enumerate(field.get("steps") or [], 1)]
    link = [f"  {clean(field['help_url'])}"] if field.get("help_url") else []
    return [name, *([f"  {clean(field['help'])}"] if field.get("help") else []), *steps, *link]


def _tool(tool: dict[str, Any]) -> str:
    access = f" ({clean(tool['access'])}{', off' if tool.get('default') == 'off' else ''})" if tool.get("access") else ""
    return f"{clean(tool.get('name'))}{access}  {first_line(tool.get('description') or '')}".rstrip()


def _option(field: dict[str, Any]) -> str:
    return f" --secret {field['name']}=-" if field.get("secret") else f" --input {field['name']}=…"
