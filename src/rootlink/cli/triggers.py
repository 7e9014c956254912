"""`function schedule` and `function webhook`: what starts a function by itself. They join the group of `functions.py`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rootlink.cli import arguments
from rootlink.cli.functions import Name, app, function
from rootlink.cli.options import command
from rootlink.cli.screen import clean, count, emit, hint, say
from rootlink.cli.session import Session

__all__ = ["app"]


@command(function)
def schedule(
    session: Session,
    name: Name,
    cron: Annotated[
        str | None, typer.Option(metavar="EXPR", help="Five fields, as in '0 9 * * 1-5', or a name such as @daily.")
    ] = None,
    timezone: Annotated[str | None, typer.Option(metavar="TZ", help="Such as Europe/Berlin; default: UTC.")] = None,
    input_: Annotated[str | None, typer.Option("--input", metavar="JSON", help="JSON, @FILE, or - for standard input.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Turn it off.")] = False,
) -> None:
    """Run a function at set times. Without options: show what is set."""
    if off and not (cron is timezone is input_ is None):
        raise typer.BadParameter("--off goes with no other option")
    if cron is None and not (timezone is input_ is None):
        raise typer.BadParameter("--timezone and --input go with --cron")
    wanted: dict[str, Any] | None = None
    if cron is not None:
        wanted = {"expression": cron}
        wanted |= {} if timezone is None else {"timezone": timezone}
        wanted |= {} if input_ is None else {"input": arguments.json_value("--input", input_)}
    at = session.in_workspace("functions", name, "triggers")
    found = session.engine.put(at, {"cron": wanted}) if wanted or off else session.engine.get(at)
    if session.json:
        emit(found["cron"])
    elif found["cron"] is None:
        say(f"{clean(name)} has no schedule")
        hint(f"Next: rootlink function schedule {name} --cron '0 9 * * 1-5' --timezone Europe/Berlin")
    else:
        _show(name, found["cron"])


@command(function)
def webhook(
    session: Session,
    name: Name,
    rotate: Annotated[bool, typer.Option("--rotate", help="End the URL there is and make another one.")] = False,
    off: Annotated[bool, typer.Option("--off", help="End the URL.")] = False,
) -> None:
    """Give a function a URL that runs it when it is called. Whoever has the URL may call it; it is shown once."""
    if rotate and off:
        raise typer.BadParameter("give --rotate or --off, not both")
    wanted = {"webhook": False if off else "rotate" if rotate else True}
    found = session.engine.put(session.in_workspace("functions", name, "triggers"), wanted)["webhook"]
    url = session.base + found["path"] if found and "path" in found else None
    if session.json:
        emit(found and ({**found, "url": url} if url else found))
    elif found is None:
        say(f"{clean(name)} has no webhook; what URL it had is not known any more")
    elif url is None:
        say(f"{clean(name)} has a webhook since {clean(found['made_at'])}; its URL was shown then")
        hint(f"To end that URL and get another one: rootlink function webhook {name} --rotate")
    else:
        say(url)
        hint("It is shown this once. Try it:")
        hint(f"  curl -X POST -H 'content-type: application/json' -d '{{}}' {url}")


def _show(name: str, cron: dict[str, Any]) -> None:
    say(f"{clean(name)} runs at {clean(cron['expression'])} ({clean(cron['timezone'])})")
    say(f"  next  {', '.join(map(clean, cron['next'])) or 'never'}")
    last, skipped = cron["last"], cron["skipped"]
    if last is not None:
        say(f"  last  {clean(last['due'])}  {clean(last['status'])}  {clean(last['run_id'] or last['error'] or '')}".rstrip())
    if skipped["count"]:
        times = count(skipped["count"], "time")
        say(f"  skipped {times}, since the run before was not over; last {clean(skipped['last'])}")
