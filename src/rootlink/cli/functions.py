"""`function`: Root Functions, deployed, invoked, looked at, and brought back to what they were."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rootlink.cli import arguments
from rootlink.cli import runs as shown
from rootlink.cli.options import command, group
from rootlink.cli.screen import clean, emit, first_line, hint, say, say_foreign, table, waiting
from rootlink.cli.session import Session
from rootlink.errors import Invalid, RootlinkError

app = group()
function = group("Root Functions: JavaScript and TypeScript bodies run in isolates.")
app.add_typer(function, name="function")

Name = Annotated[str, typer.Argument(metavar="NAME")]
Key = Annotated[
    str | None, typer.Option(metavar="KEY", help="However often it is invoked with this key, it runs once (24 hours long).")
]
FAILED = 1
TYPESCRIPT = (".ts", ".mts", ".cts")


@command(function)
def deploy(
    session: Session,
    name: Name,
    code: Annotated[str, typer.Option(metavar="FILE", help="The body: a callable. - for standard input.")],
    schema: Annotated[str | None, typer.Option(metavar="FILE", help="JSON Schema of its input.")] = None,
    output_schema: Annotated[str | None, typer.Option(metavar="FILE", help="JSON Schema of its output.")] = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="What an AI client reads about it.")] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="What people read as its name.")] = None,
    language: Annotated[
        str | None, typer.Option(metavar="javascript|typescript", help="Default: by the file's name, else what compiles.")
    ] = None,
    timeout_ms: Annotated[int | None, typer.Option(metavar="MS", help="Wall clock a run may take.")] = None,
    memory_mb: Annotated[int | None, typer.Option(metavar="MB", help="Heap a run may take.")] = None,
    isolation: Annotated[
        str | None, typer.Option(metavar="reuse|fresh", help="fresh: every run in an isolate nothing ran in before.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(metavar="N", help="Runs at once; more wait for their turn.")] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="A tool it may call, * for any; '' for none. Default: all. Repeatable."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]", help="A secret it may see, or a value; '' for none. Default: every secret. Repeatable."
        ),
    ] = None,
    egress: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="An allowed host it may reach; '' for none. Default: all of them. Repeatable."),
    ] = None,
) -> None:
    """Deploy a function, or a new version of it. It is a tool from then on: function__NAME."""
    text = arguments.text_of(code)
    body = {
        "name": name,
        "code": text,
        "input_schema": arguments.json_object("--schema", f"@{schema}") if schema else None,
        "output_schema": arguments.json_object("--output-schema", f"@{output_schema}") if output_schema else None,
        "description": description,
        "title": title,
        "language": language or ("typescript" if code.endswith(TYPESCRIPT) else None),
        "timeout_ms": timeout_ms,
        "memory_mb": memory_mb,
        "isolation": isolation,
        "concurrency": concurrency,
        "tools": _named(tool),
        "env": _variables(env),
        "egress": _named(egress),
    }
    try:
        deployed = session.engine.put(session.in_workspace("functions"), {k: v for k, v in body.items() if v is not None})
    except Invalid as error:
        place = shown.place_in(error.message)
        for line in shown.excerpt(text, *place) if place and not session.json else ():
            hint(line)
        raise
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
    idempotency_key: Key = None,
) -> None:
    """Run a function once; its output goes to stdout, what it logged to stderr."""
    body = {"input": arguments.json_value("--input", input_)}
    if idempotency_key is not None:
        body["idempotency_key"] = idempotency_key
    with waiting(f"running {name}"):
        run = session.engine.post(session.in_workspace("functions", name, "invoke"), body)
    if session.json:
        emit(run)
    else:
        shown.show_outcome(name, run, _code(session, name, run))
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
def show(
    session: Session,
    name: Name,
    code: Annotated[bool, typer.Option("--code", help="Its code and nothing else.")] = False,
    version: Annotated[int | None, typer.Option(metavar="VERSION", help="Another version than the live one.")] = None,
) -> None:
    """A function: what it may do, and with --code its body."""
    at = ("functions", name) if version is None else ("functions", name, "versions", str(version))
    found = session.engine.get(session.in_workspace(*at))
    if session.json:
        emit(found)
    elif code:
        say_foreign(found["code"])
    else:
        for label, value in _facts(found):
            say(f"{label:<13} {clean(value)}")
        hint(f"Next: rootlink function runs {name}, rootlink function versions {name}")


@command(function)
def runs(
    session: Session,
    name: Name,
    status: Annotated[str | None, typer.Option(metavar="STATUS", help="ok, error, timeout or killed.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="At most so many, up to 200.")] = None,
) -> None:
    """The last runs of a function, newest first."""
    query = {"status": status, "limit": None if limit is None else str(limit)}
    found = session.engine.get(
        session.in_workspace("functions", name, "runs"), **{key: value for key, value in query.items() if value is not None}
    )
    if session.json:
        emit(found)
    elif found:
        columns = ["run", "status", "started", "ms", "cpu ms", "version", "trigger", "error"]
        table(columns, [_row(run) for run in found])
        hint(f"All of one: rootlink function run {name} {found[0]['run_id']}")
    elif status is not None:
        hint(f"No run of {name} that is kept ended as {status}. All of them: rootlink function runs {name}")
    else:
        hint(f"{name} has not run yet. Next: rootlink function invoke {name} --input '{{}}'")


@command(function, "run")
def run_(session: Session, name: Name, run_id: Annotated[str, typer.Argument(metavar="RUN_ID")]) -> None:
    """One run: its error, console, output, and the hosts it was refused."""
    found = session.engine.get(session.in_workspace("functions", name, "runs", run_id))
    if session.json:
        emit(found)
    else:
        shown.show(name, found, _code(session, name, found))


@command(function)
def versions(session: Session, name: Name) -> None:
    """The versions of a function that are kept, newest first."""
    found = session.engine.get(session.in_workspace("functions", name, "versions"))
    if session.json:
        emit(found)
        return
    table(["version", "deployed", ""], [[v["version"], v["deployed_at"], "live" if v["live"] else ""] for v in found])
    if len(found) > 1:
        hint(f"To go back: rootlink function rollback {name} [VERSION]")


@command(function)
def rollback(
    session: Session,
    name: Name,
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", help="Default: the one that was live before.")] = None,
) -> None:
    """Make an older version live again; runs in flight end as they would."""
    deployed = session.engine.post(session.in_workspace("functions", name, "rollback"), {"version": version})
    if session.json:
        emit(deployed)
        return
    say(f"{clean(name)} version {deployed['version']} is live again")
    hint(f"All versions: rootlink function versions {name}")


@command(function)
def delete(session: Session, name: Name) -> None:
    """Remove a function and its tool."""
    gone = session.engine.delete(session.in_workspace("functions", name))
    emit(gone) if session.json else say(f"{clean(name)} is removed")


def _named(given: list[str] | None) -> list[str] | None:
    """What was named; '' alone names nothing."""
    return [text for text in given if text] if given else None


def _variables(given: list[str] | None) -> dict[str, str] | None:
    """`NAME` is the secret of that name, `NAME=VALUE` a value."""
    if not given:
        return None
    found = {}
    for text in filter(None, given):
        name, sign, value = text.partition("=")
        found[name] = value if sign else f"${{{name}}}"
    return found


def _code(session: Session, name: str, run: dict[str, Any]) -> str | None:
    """The code that ran, to show where it went wrong; a version that is not kept any more has none."""
    if not isinstance((run.get("error") or {}).get("line"), int):
        return None
    try:
        at = session.in_workspace("functions", name, "versions", str(run.get("version")))
        return str(session.engine.get(at)["code"])
    except RootlinkError:
        return None


def _row(run: dict[str, Any]) -> list[Any]:
    told = shown.in_short(run)
    if not told and run.get("denied"):
        told = "was refused hosts"
    members = ("run_id", "status", "started_at", "duration_ms", "cpu_ms", "version", "trigger")
    return [*(run.get(member) for member in members), told[:100]]


def _facts(found: dict[str, Any]) -> list[tuple[str, Any]]:
    def listed(value: Any, otherwise: str) -> str:
        return otherwise if value is None else ", ".join(value) or "none"

    return [
        ("name", found["name"]),
        ("version", f"{found['version']}, deployed {found['deployed_at']}"),
        ("tool", found["tool"]),
        ("description", first_line(found.get("description") or "")),
        ("language", found.get("language") or "JavaScript, or TypeScript if only that compiles"),
        ("timeout", f"{found.get('timeout_ms')} ms"),
        ("memory", f"{found.get('memory_mb')} MB"),
        ("isolation", found.get("isolation")),
        ("concurrency", found.get("concurrency") or "no limit of its own"),
        ("secrets", listed(found.get("env"), "every secret of the project")),
        ("hosts", listed(found.get("egress"), "every host that is allowed")),
        ("tools", listed(found.get("tools"), "none" if found.get("connection") else "every tool of this workspace")),
        ("connection", found.get("connection") or "none: it is deployed by hand"),
    ]
