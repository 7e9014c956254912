"""`engine`: one engine as a program, and, with a word behind it, the project's engine that runs already."""

from __future__ import annotations

import sys

import typer

from rootlink.cli.options import command, group
from rootlink.cli.screen import emit, say
from rootlink.cli.session import Session

app = group()
engine = group("The project's engine. Without a command: run one engine, configured on standard input by the provisioner.")
app.add_typer(engine, name="engine")


@engine.callback(invoke_without_command=True)
def run(context: typer.Context) -> None:
    if context.invoked_subcommand is not None:
        return
    if sys.stdin.isatty():
        raise typer.BadParameter(
            "an engine reads its configuration from standard input; the provisioner starts engines by itself"
        )
    from rootlink.programs import engine as program  # rule 5

    raise typer.Exit(program.main(Session(context.obj).settings))


@command(engine)
def restart(session: Session) -> None:
    """End the project's engine and start it again; clients stay connected."""
    _tell(session, "restart")


@command(engine)
def stop(session: Session) -> None:
    """End the project's engine; the next request starts it again."""
    _tell(session, "stop")


def _tell(session: Session, verb: str) -> None:
    view = session.api.post(session.in_project("engine", verb))
    if session.json:
        emit(view)
        return
    pid = f", pid {view['pid']}" if view.get("pid") else ""
    say(f"engine of {session.project}: {view.get('state', 'unknown')}{pid}")
