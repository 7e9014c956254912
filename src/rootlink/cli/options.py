"""The five options every command takes, before the command's name or after it, and the decorator that adds them.

A command is a function whose first parameter is the `Session`; `command` gives typer the function with the common options in
that parameter's place. Where a command declares an option of the same name itself (`call --json '{…}'`, `mcp add --url URL`),
its own meaning wins behind the command's name, and the common one is still to be had before it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Concatenate, ParamSpec

import typer
import typer.core

from rootlink.cli.session import Options, Session

P = ParamSpec("P")
Command = Callable[Concatenate[Session, P], None]

Home = Annotated[str | None, typer.Option("--home", metavar="DIR", help="Where the instance keeps its data.")]
Url = Annotated[str | None, typer.Option("--url", metavar="URL", help="A remote instance, with ROOTLINK_TOKEN.")]
Project = Annotated[str | None, typer.Option("--project", metavar="P", help="Id or name; default: the only one.")]
Workspace = Annotated[str | None, typer.Option("--ws", metavar="W", help="Workspace; default: main.")]
Json = Annotated[bool, typer.Option("--json", help="Print the data as JSON.")]

COMMON: dict[str, tuple[Any, Any]] = {  # option: what typer is told of it, its default
    "home": (Home, None),
    "url": (Url, None),
    "project": (Project, None),
    "ws": (Workspace, None),
    "json": (Json, False),
}


def group(help: str | None = None, **settings: Any) -> typer.Typer:
    """A typer app in our house style: plain help (rich costs a start 0.1 s), no completion options, no pretty tracebacks."""
    return typer.Typer(help=help, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, **settings)


def command(app: typer.Typer, name: str | None = None, **settings: Any) -> Callable[[Command[P]], Command[P]]:
    """Register a function `(session, …)` as a command of `app`, with the common options added."""

    def register(function: Command[P]) -> Command[P]:
        app.command(name, **settings)(with_session(function))
        return function

    return register


def with_session(function: Callable[..., None]) -> Callable[..., None]:
    """`function` as typer wants it: the common options and the context in place of the session."""
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())[1:]
    taken = {declared for parameter in own for declared in _declared(parameter)}
    common = [name for name in COMMON if f"--{name}" not in taken]

    @wraps(function)
    def run(context: typer.Context, **values: Any) -> None:
        before = context.obj if isinstance(context.obj, Options) else Options()
        after = {name: values.pop(f"common_{name}") for name in common}
        function(Session(before.overridden(after)), **values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("context", keyword, annotation=typer.Context),
        *(parameter.replace(kind=keyword) for parameter in own),
        *(inspect.Parameter(f"common_{name}", keyword, annotation=COMMON[name][0], default=COMMON[name][1]) for name in common),
    ]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


class AsGiven:
    """A string or a flag as it was given, where typer would build a pydantic adapter for it."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        return () if value is None and (param.multiple or param.nargs == -1) else value


def _runtime_param(described: Any) -> Any:
    plain = (str, bool, list[str])
    return AsGiven() if described.annotation in plain else _build_runtime_param(described)


# Loading pydantic was a third of every start (0.12 of 0.33 s), to find out that a string is one; tests/cli/test_start.py
# tells when a newer typer brings it back.
_build_runtime_param = typer.core.build_runtime_param  # type: ignore[attr-defined]
typer.core.build_runtime_param = _runtime_param  # type: ignore[attr-defined, assignment]


def _declared(parameter: inspect.Parameter) -> list[str]:
    return [name for info in getattr(parameter.annotation, "__metadata__", ()) for name in _spellings(info)]


def _spellings(info: Any) -> list[str]:
    # typer keeps the first spelling of an annotated option where a default would stand
    return [
        text for text in (getattr(info, "default", None), *(getattr(info, "param_decls", None) or ())) if isinstance(text, str)
    ]
