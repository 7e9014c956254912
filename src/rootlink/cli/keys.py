"""`keys`: project keys, which clients show at `/mcp` and `/engine`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rootlink.cli.options import command, group
from rootlink.cli.screen import clean, emit, hint, say, table
from rootlink.cli.session import Session

app = group()
keys = group("The project's keys. A key is shown once, when it is made; only its hash is kept.")
app.add_typer(keys, name="keys")


@command(keys)
def create(
    session: Session,
    name: Annotated[str, typer.Option(metavar="N", help="What it is for.")] = "key",
    scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPE", help="use: list and call tools; manage: install too.")
    ] = None,
) -> None:
    """Make a key; it goes to stdout, and is not shown again."""
    body: dict[str, Any] = {"name": name, **({"scopes": scope} if scope else {})}
    made = session.api.post(session.in_project("keys"), body)
    if session.json:
        emit(made)
        return
    say(made["key"])
    hint(f"This is the only time the key is shown. To revoke it: rootlink keys revoke {made['id']}")


@command(keys, "list")
def list_(session: Session) -> None:
    """The keys of this project."""
    found = session.api.get(session.in_project("keys"))
    if session.json:
        emit(found)
    elif found:
        table(["id", "name", "begins with", "scopes", "created", "revoked"], [_row(key) for key in found])
    else:
        hint("No keys yet. Next: rootlink keys create --name NAME")


@command(keys)
def revoke(session: Session, id: Annotated[str, typer.Argument(metavar="ID", help="As in: rootlink keys list.")]) -> None:
    """Refuse a key from now on."""
    gone = session.api.delete(session.in_project("keys", id))
    emit(gone) if session.json else say(f"{clean(id)} is revoked")


def _row(key: dict[str, Any]) -> list[object]:
    scopes = ",".join(key.get("scopes") or [])
    return [key.get("id"), key.get("name"), key.get("prefix"), scopes, key.get("created_at"), key.get("revoked_at")]
