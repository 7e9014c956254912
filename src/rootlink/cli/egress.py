"""`egress`: the project's allowlist, and what it refused."""

from __future__ import annotations

from typing import Annotated

import typer

from rootlink.cli.options import command, group
from rootlink.cli.screen import clean, emit, hint, say, table
from rootlink.cli.session import Session

app = group()
egress = group("The hosts this project may reach. All else is refused, and recorded.")
app.add_typer(egress, name="egress")

Domain = Annotated[str, typer.Argument(metavar="DOMAIN", help="Its subdomains too; :PORT for another than 443 and 80.")]


@command(egress)
def allow(session: Session, domain: Domain) -> None:
    """Allow a domain, at once."""
    rule = session.api.post(session.in_project("egress"), {"domain": domain})
    emit(rule) if session.json else say(f"{clean(rule['domain'])} is allowed")


@command(egress, "list")
def list_(session: Session) -> None:
    """What is allowed, and who asked for it."""
    found = session.api.get(session.in_project("egress"))
    if session.json:
        emit(found)
    elif found:
        table(["domain", "source"], [[rule["domain"], rule["source"]] for rule in found])
    else:
        hint("Nothing may be reached yet; connecting adds what a connector needs. Next: rootlink egress allow DOMAIN")


@command(egress)
def remove(session: Session, domain: Domain) -> None:
    """Allow a domain no longer, at once."""
    gone = session.api.delete(session.in_project("egress", domain))
    emit(gone) if session.json else say(f"{clean(domain)} is no longer allowed")


@command(egress)
def denied(session: Session) -> None:
    """What was refused: which connection asked for which host, and why not."""
    found = session.api.get(session.in_project("egress", "decisions"), verdict="denied")
    if session.json:
        emit(found)
    elif found:
        columns = ["time", "connection", "host", "port", "count", "reason"]
        table(columns, [[decision.get(column) for column in columns] for decision in found])
    else:
        hint("Nothing was refused.")
