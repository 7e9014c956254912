"""The root of the command line: which file holds which command, and how every error is shown.

`COMMANDS` is in the order of `--help`. A command's file is imported when the command is run, and all of them for `--help`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command, get_group

from rootlink import __version__
from rootlink.cli.options import Home, Json, Project, Url, Workspace, group
from rootlink.cli.screen import clean, hint, say
from rootlink.cli.session import Options
from rootlink.errors import RootlinkError

COMMANDS = {
    "up": "instance",
    "down": "instance",
    "status": "instance",
    "doctor": "doctor",
    "gateway": "programs",
    "provisioner": "programs",
    "gate": "programs",
    "engine": "engine",
    "catalog": "catalog",
    "connect": "connections",
    "disconnect": "connections",
    "connections": "connections",
    "import": "imports",
    "export": "imports",
    "check": "connections",
    "sign-in": "connections",
    "tools": "tools",
    "call": "tools",
    "function": "triggers",
    "mcp": "mcp",
    "secrets": "secrets",
    "egress": "egress",
    "keys": "keys",
    "projects": "projects",
    "logs": "logs",
}
USAGE, FAILED, INTERRUPTED = 2, 1, 130


class Commands(MutableMapping[str, Any]):
    """The commands by name, each imported at the first look at it."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._found:
            file = import_module(f"rootlink.cli.{COMMANDS[name]}")
            self._found |= get_group(file.app).commands
        return self._found[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._found[name] = command

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


root = group(
    "Rootlink gives an AI access to the outside world: sealed keys, live connectors, nothing reached but what is allowed."
)


@root.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    home: Home = None,
    url: Url = None,
    project: Project = None,
    ws: Workspace = None,
    json: Json = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    context.obj = Options(home=home, url=url, project=project, ws=ws, json=json)
    if version:
        say(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        hint(context.get_help())
        raise typer.Exit(USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code (rule 2)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that has no ✓ gets a ? instead of a traceback
    command = get_command(root)
    command.commands = Commands()  # type: ignore[attr-defined]
    try:
        result = command.main(args=argv, prog_name="rootlink", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except RootlinkError as error:
        return _failed(error.code, error.message)
    except typer.TyperException as error:
        return _failed("invalid", _usage(error), exit_code=error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        hint("rootlink: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; nothing more to say at exit
        return FAILED
    except Exception as error:  # noqa: BLE001 (the last line of defence: no traceback, no text nobody checked)
        return _failed("internal", _where(error))


def _failed(code: str, message: str, *, exit_code: int = FAILED) -> int:
    hint(f"rootlink: {code}: {' '.join(clean(message).split())}")
    return exit_code


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "rootlink"
    said = error.format_message()
    return f"{said}{'' if said.endswith(('.', '?')) else '.'} Try: {command} --help"


def _where(error: Exception) -> str:
    """A bug of ours: its kind and place. Its text stays out, since nobody checked what that holds."""
    place, frame = "an unknown place", error.__traceback__
    while frame is not None:
        file = Path(frame.tb_frame.f_code.co_filename)
        if "rootlink" in file.parts:
            place = f"{file.parent.name}/{file.name}:{frame.tb_lineno}"
        frame = frame.tb_next
    return f"{type(error).__name__} at {place}; this is a bug of Rootlink's, please report it"
