"""`logs`: what a mounted server, or the engine itself, wrote. Secrets are taken out where the lines are kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from rootlink.cli.options import command, group
from rootlink.cli.screen import clean, emit, hint, say
from rootlink.cli.session import Session

app = group()
EVERY = 1.0  # seconds between two looks of --follow


@command(app)
def logs(
    session: Session,
    connection: Annotated[str | None, typer.Argument(metavar="CONNECTION", help="As in: rootlink connections.")] = None,
    engine: Annotated[bool, typer.Option("--engine", help="The engine's own log.")] = False,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines until interrupted.")] = False,
) -> None:
    """What a connection wrote to its error stream, or the engine's log."""
    if (connection is None) != engine:
        raise typer.BadParameter("name one connection, or give --engine")
    lines = _reader(session, connection)
    seen = lines()
    if session.json and not follow:
        emit(seen)
        return
    _say(seen)
    if follow:
        _follow(lines, seen)
    elif not seen:
        hint("Nothing is logged yet. To wait for it: rootlink logs … -f")


def _reader(session: Session, connection: str | None) -> Callable[[], list[str]]:
    if connection is None:
        return lambda: _lines(session.api.get(session.in_project("engine", "logs")))
    return lambda: _lines(session.engine.get(session.in_workspace("mcp-servers", connection, "logs")))


def _lines(data: Any) -> list[str]:
    return [str(line).rstrip("\n") for line in data["lines"]]


def _follow(lines: Callable[[], list[str]], seen: list[str]) -> None:
    while True:
        time.sleep(EVERY)
        now = lines()
        _say(now[overlap(seen, now) :])
        seen = now


def overlap(seen: list[str], now: list[str]) -> int:
    """How many lines at the start of `now` are the end of `seen`: both are windows on one growing log."""
    return next((n for n in range(min(len(seen), len(now)), 0, -1) if seen[-n:] == now[:n]), 0)


def _say(lines: list[str]) -> None:
    for line in lines:
        say(clean(line))
