"""`egress`: the project's allowlist, and what it refused."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rootlink.cli.options import command, group
from rootlink.cli.screen import clean, emit, hint, say, table
from rootlink.cli.session import Session

app = group()
egress = group("The hosts this project may reach. All else is refused, and recorded.")
app.add_typer(egress, name="egress")

ADVISED = 5  # rules that are spelled out
ADVICE = {
    "not_in_connection": "not_in_connection: a connection reaches only its own hosts, whatever the project allows.",
    "private_address": "private_address: only the operator can open it: rootlink up --allow-private CIDR",
}

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
        table(columns, [[_shown(decision, column) for column in columns] for decision in found])
        for line in _advice(found):
            hint(line)
    else:
        hint("Nothing was refused.")


def _shown(decision: dict[str, Any], column: str) -> Any:
    """Port 0: refused by name, before a port was known."""
    value = decision.get(column)
    return "-" if column == "port" and not value else value


def _advice(found: list[dict[str, Any]]) -> list[str]:
    """What may be done about it, for the first few of each kind; where nothing said here would help, nothing."""
    rules = dict.fromkeys(rule for decision in found if (rule := _rule(decision)) is not None)
    lines = [f"To allow: rootlink egress allow {clean(rule)}" for rule in list(rules)[:ADVISED]]
    reasons = {decision.get("reason") for decision in found}
    return lines + [words for reason, words in ADVICE.items() if reason in reasons]


def _rule(decision: dict[str, Any]) -> str | None:
    host, port = str(decision.get("host") or ""), decision.get("port")
    if decision.get("reason") == "not_in_allowlist" and host:
        return host if port in (None, 0, 80, 443) else _with_port(host, port)
    return _with_port(host, port) if decision.get("reason") == "port" and host and port else None


def _with_port(host: str, port: Any) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
