"""`secrets`: the project's vault. Values go in, sealed; they never come out."""

from __future__ import annotations

from typing import Annotated

import typer

from rootlink.cli import arguments
from rootlink.cli.options import command, group
from rootlink.cli.screen import clean, emit, hint, say, table
from rootlink.cli.session import Session

app = group()
secrets = group(
    "The project's sealed secrets. A value comes from a hidden prompt or standard input, never from the command line."
)
app.add_typer(secrets, name="secrets")

Name = Annotated[str, typer.Argument(metavar="NAME")]


@command(secrets, "set")
def set_(session: Session, name: Name) -> None:
    """Seal a secret, or rotate it: rootlink secrets set NAME < file."""
    value = arguments.secrets([name])[name]
    kept = session.api.post(session.in_project("secrets"), {"name": name, "plaintext": value})
    emit(kept) if session.json else say(f"{clean(name)} is sealed with key {clean(kept.get('envelope_key_id', ''))}")


@command(secrets, "list")
def list_(session: Session) -> None:
    """The names of the secrets, and when each was changed."""
    found = session.api.get(session.in_project("secrets"))
    if session.json:
        emit(found)
    elif found:
        table(["name", "created", "last rotated", "key"], [_row(secret) for secret in found])
    else:
        hint("No secrets yet. Next: rootlink secrets set NAME")


@command(secrets)
def unset(session: Session, name: Name) -> None:
    """Remove a secret."""
    gone = session.api.delete(session.in_project("secrets", name))
    emit(gone) if session.json else say(f"{clean(name)} is removed")


def _row(secret: dict[str, object]) -> list[object]:
    return [secret.get(column) for column in ("name", "created_at", "last_rotated_at", "envelope_key_id")]
