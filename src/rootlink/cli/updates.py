"""`catalog update NAME`, `catalog rollback NAME`: newer versions of what is connected, shown before they are applied.

NAME is a connector's (all its connections) or one connection's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer

from rootlink.cli.screen import clean, count, emit, first_line, hint, say, visible, waiting
from rootlink.cli.session import Session
from rootlink.errors import NotFound

_MARKS = {"added": "+", "removed": "-", "changed": "~"}


def update(session: Session, name: str, yes: bool) -> None:
    """What would change of each connection, and, agreed to, the change itself."""
    done: list[dict[str, Any]] = []
    for connection in _of(session, name):
        at = session.in_project("connections", connection["name"], "update")
        with waiting(f"trying what {clean(connection['name'])} would be"):
            changes = session.api.get(at, workspace=connection["workspace"])
        if not session.json:
            _show(changes)
        agreed = changes["update"] and (yes or (not session.json and _confirmed(changes)))
        if agreed:
            with waiting(f"updating {clean(connection['name'])}"):
                after = session.api.post(at, {"digest": changes["digest"]}, workspace=connection["workspace"])
            if not session.json:
                say(f"{clean(after['name'])} is updated: {count(len(after['tools']), 'tool')}")
                hint(f"To go back: rootlink catalog rollback {clean(after['name'])}")
        done.append({**changes, "applied": bool(agreed)})
    if session.json:
        emit(done)


def roll_back(session: Session, name: str, yes: bool) -> None:
    """Back to what was before the last update."""
    done = []
    for connection in _of(session, name):
        at = session.in_project("connections", connection["name"], "rollback")
        with waiting(f"going back with {clean(connection['name'])}"):
            after = session.api.post(at, {}, workspace=connection["workspace"])
        done.append(after)
        if not session.json:
            say(f"{clean(after['name'])} is as it was: {count(len(after['tools']), 'tool')}")
    if session.json:
        emit(done)


ACTIONS: dict[str, Callable[[Session, str, bool], None]] = {"update": update, "rollback": roll_back}


def _of(session: Session, name: str) -> list[dict[str, Any]]:
    """The connection of this name, else all of the connector of this name."""
    there = [one for one in session.api.get(session.in_project("connections")) if one["state"] == "connected"]
    if session.ws_chosen:
        there = [one for one in there if one["workspace"] == session.ws]
    found = [one for one in there if one["name"] == name] or [one for one in there if one["connector"] == name]
    if not found:
        raise NotFound(f"nothing is connected that is called {name!r} or is made from it; see: rootlink connections")
    return found


def _confirmed(changes: dict[str, Any]) -> bool:
    if not sys.stdin.isatty():
        hint(f"Nothing is changed yet. To apply this: rootlink catalog update {clean(changes['name'])} --yes")
        return False
    return bool(typer.confirm(f"Update {clean(changes['name'])}?", err=True))


def _show(changes: dict[str, Any]) -> None:
    name = clean(changes["name"])
    if not changes["update"]:
        say(f"{name} is up to date{_at(changes['package']['to'])}")
        return
    say(f"{name}: an update changes")
    for what, moved in (("version", changes["version"]), ("package", changes["package"])):
        if moved["from"] != moved["to"]:
            say(f"  {what}: {clean(moved['from'] or 'none')} to {clean(moved['to'] or 'none')}")
    for words, hosts in (("may reach also", changes["hosts_added"]), ("may reach no more", changes["hosts_removed"])):
        if hosts:
            say(f"  {words}: {', '.join(map(clean, hosts))}")
    for tool in changes["tools"]:
        _show_tool(tool)
    if changes["settings"]:
        say(f"  set otherwise: {', '.join(map(clean, changes['settings']))}")


def _show_tool(tool: dict[str, Any]) -> None:
    access = f" ({clean(tool['access'])})" if tool.get("access") else ""
    what = f": {', '.join(map(clean, tool['what']))}" if tool.get("what") else ""
    say(f"  {_MARKS[tool['change']]} {clean(tool['tool'])}{access}{what}")
    if tool["change"] == "changed" and tool["before"] != tool["after"]:
        say(f"      was: {first_line(visible(tool['before']))}")
        say(f"      is:  {first_line(visible(tool['after']))}")
    for flag in tool.get("flags") or []:
        say(f"      odd, so it is held back until you approve it: {visible(flag)}")


def _at(package: str | None) -> str:
    return f" ({clean(package)})" if package else ""
