"""`gateway`, `provisioner`, `gate`: one program alone, for set-ups where each has a machine, a uid or a container of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from rootlink.cli.options import command, group
from rootlink.cli.session import Session

app = group()


@command(app)
def gateway(
    session: Session,
    host: Annotated[str | None, typer.Option(metavar="H", help="Address to listen on.")] = None,
    port: Annotated[str | None, typer.Option(metavar="N", help="Port to listen on.")] = None,
    catalog: Annotated[str | None, typer.Option(metavar="DIR", help="Connectors of your own, besides the built-in ones.")] = None,
) -> None:
    """Run the gateway alone: it knows who asks, seals, relays."""
    from rootlink.programs import gateway as program  # rule 5

    raise typer.Exit(program.main(session.settings_with({"host": host, "port": port, "catalog": catalog})))


@command(app)
def provisioner(
    session: Session,
    catalog: Annotated[str | None, typer.Option(metavar="DIR", help="Connectors of your own, as the gateway has them.")] = None,
) -> None:
    """Run the provisioner alone: it unseals, launches, reaps."""
    from rootlink.programs import provisioner as program  # rule 5

    raise typer.Exit(program.main(session.settings_with({"catalog": catalog})))


@command(app)
def gate(session: Session) -> None:
    """Run the gate alone: the only way out for engines and mounts."""
    from rootlink.programs import gate as program  # rule 5

    raise typer.Exit(program.main(session.settings))
