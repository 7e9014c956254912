"""`function`: Root Functions, deployed, invoked, and looked at."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rootlink.cli import arguments
from rootlink.cli.options import command, group
from rootlink.cli.screen import clean, emit, first_line, hint, say, say_foreign, table, waiting
from rootlink.cli.session import Session

app = group()
function = group("Root Functions: JavaScript bodies run in isolates.")
app.add_typer(function, name="function")

Name = Annotated[str, typer.Argument(metavar="NAME")]
FAILED = 1


@command(function)
def deploy(
    session: Session,
    name: Name,
    code: Annotated[str, typer.Option(metavar="FILE", help="The body: a callable. - for standard input.")],
    schema: Annotated[str | None, typer.Option(metavar="FILE", help="JSON Schema of its input.")] = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="What an AI client reads about it.")] = None,
    timeout_ms: Annotated[int | None, typer.Option(metavar="MS", help="Wall clock a run may take.")] = None,
    memory_mb: Annotated[int | None, typer.Option(metavar="MB", help="Heap a run may take.")] = None,
) -> None:
    """Deploy a function, or a new version of it. It is a tool from then on: function__NAME."""
    body = {
        "name": name,
        "code": arguments.text_of(code),
        "input_schema": arguments.json_object("--schema", f"@{schema}") if schema else None,
        "description": description,
        "timeout_ms": timeout_ms,
        "memory_mb": memory_mb,
    }
    deployed = session.engine.put(session.in_workspace("functions"), {k: v for k, v in body.items() if v is not None})
    if session.json:
        emit(deployed)
        return
    say(f"{clean(name)} version {deployed['version']} is live as the tool {clean(deployed['tool'])}")
    hint(f"Next: rootlink function invoke {name} --input '{{}}'")


@command(function)
def invoke(
    session: Session,
    name: Name,
    input_: Annotated[str, typer.Option("--input", metavar="JSON", help="JSON, @FILE, or - for standard input.")] = "{}",
) -> None:
    """Run a function once; its output goes to stdout, what it logged to stderr."""
    body = {"input": arguments.json_value("--input", input_)}
    with waiting(f"running {name}"):
        run = session.engine.post(session.in_workspace("functions", name, "invoke"), body)
    if session.json:
        emit(run)
    else:
        _show_run(run)
    if run["status"] != "ok":
        raise typer.Exit(FAILED)


@command(function, "list")
def list_(session: Session) -> None:
    """The functions of this workspace."""
    found = session.engine.get(session.in_workspace("functions"))
    if session.json:
        emit(found)
    elif found:
        table(
            ["name", "version", "tool", "what it does"],
            [[f["name"], f.get("version"), f.get("tool"), first_line(f.get("description") or "")] for f in found],
        )
    else:
        hint("No functions yet. Next: rootlink function deploy NAME --code FILE")


@command(function)
def runs(session: Session, name: Name) -> None:
    """The last runs of a function, newest first."""
    found = session.engine.get(session.in_workspace("functions", name, "runs"))
    if session.json:
        emit(found)
    elif found:
        table(["run", "status", "ms", "error"], [[r["run_id"], r["status"], r.get("duration_ms"), _error(r)] for r in found])
    else:
        hint(f"{name} has not run yet. Next: rootlink function invoke {name} --input '{{}}'")


@command(function)
def delete(session: Session, name: Name) -> None:
    """Remove a function and its tool."""
    gone = session.engine.delete(session.in_workspace("functions", name))
    emit(gone) if session.json else say(f"{clean(name)} is removed")


def _show_run(run: dict[str, Any]) -> None:
    for line in run.get("logs") or []:
        hint(clean(line["text"]))
    if run["status"] == "ok":
        say_foreign(_json(run.get("output")))
    else:
        hint(f"rootlink: {run['status']}: {' '.join(_error(run).split())}")


def _json(value: Any) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _error(run: dict[str, Any]) -> str:
    error = run.get("error") or {}
    return clean(": ".join(str(error[part]) for part in ("name", "message") if error.get(part)))
