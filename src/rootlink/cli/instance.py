"""`up`, `down`, `status`: the whole of Rootlink on this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rootlink.cli.options import command, group
from rootlink.cli.screen import emit, hint, say, table
from rootlink.cli.session import Session

app = group()


@command(app)
def up(
    session: Session,
    host: Annotated[str | None, typer.Option(metavar="H", help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[str | None, typer.Option(metavar="N", help="Default 7300; 0 picks a free one.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return once it is ready, and leave it running.")] = False,
    resolve: Annotated[list[str] | None, typer.Option(metavar="NAME:PORT=ADDRESS:PORT", help="Pin a name to an address.")] = None,
    extra_ca: Annotated[str | None, typer.Option(metavar="FILE", help="Trust this CA as well (PEM).")] = None,
    allow_private: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="Let connectors reach this private network.")
    ] = None,
    allow_path: Annotated[list[str] | None, typer.Option(metavar="DIR", help="Let mounts see folders under this one.")] = None,
    catalog: Annotated[str | None, typer.Option(metavar="DIR", help="Connectors of your own, besides the built-in ones.")] = None,
    sandbox: Annotated[
        str | None, typer.Option(metavar="TIER", help="How engines and mounts are kept in: kernel (default) or advisory.")
    ] = None,
    egress_rate: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Most bytes a second of one engine or mount, like 10M; default no limit.")
    ] = None,
    package_hosts: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="A package registry besides those npm and uv are set up for.")
    ] = None,
    idle_stop: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop an engine nobody used for so long; default 15m.")
    ] = None,
) -> None:
    """Start Rootlink on this machine.

    That is the gateway, the provisioner and the gate; engines start when they are needed. Ctrl-C stops all of it.
    """
    from rootlink.programs import up as program  # rule 5

    flags: dict[str, Any] = {
        "host": host,
        "port": port,
        "detach": detach or None,
        "resolve": resolve,
        "extra_ca": extra_ca,
        "allow_private": allow_private,
        "allow_path": allow_path,
        "catalog": catalog,
        "sandbox": sandbox,
        "egress_rate": egress_rate,
        "package_hosts": package_hosts,
        "idle_stop": idle_stop,
    }
    raise typer.Exit(program.run(session.settings_with(flags), json=session.json))


@command(app)
def down(session: Session) -> None:
    """Stop what runs from this home, engines and all."""
    from rootlink.programs import up as program  # rule 5

    stopped = program.down(session.settings)
    if session.json:
        emit({"stopped": stopped})
    else:
        say("stopped" if stopped else f"nothing was running from {session.settings.home}")


@command(app)
def status(session: Session) -> None:
    """What is running from this home."""
    from rootlink.programs import up as program  # rule 5

    found = program.status(session.settings)
    if session.json:
        emit(found)
        return
    table(["what", "is"], [[name.replace("_", " "), _shown(value)] for name, value in found.items()])
    if not found.get("running"):
        hint("Next: rootlink up")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
