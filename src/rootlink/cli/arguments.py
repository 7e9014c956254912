"""Values a person gives: `K=V` pairs, JSON, files, and secrets, which never come from argv: every program can read that.

A secret is asked for at a hidden prompt when standard input is a terminal, else it is read from standard input: one secret is the
whole of it less one newline at the end, several are one line each, in order.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from getpass import getpass
from pathlib import Path
from typing import Any

import msgspec
import typer

from rootlink.cli.client import UNREADABLE
from rootlink.errors import Invalid


def pairs(option: str, given: Sequence[str]) -> dict[str, list[str]]:
    """`K=V` options by name; an option given twice has two values."""
    found: dict[str, list[str]] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise typer.BadParameter(f"{option} takes NAME=VALUE")
        found.setdefault(name, []).append(value)
    return found


def single_pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    return {name: values[-1] for name, values in pairs(option, given).items()}


def secret_names(given: Sequence[str]) -> list[str]:
    """The names of `--secret NAME=-` options. The refusal does not repeat what was typed."""
    names = []
    for text in given:
        name, _, value = text.partition("=")
        if value not in ("", "-"):
            raise typer.BadParameter(
                "a secret is not taken from the command line, where every program can read it; "
                "write --secret NAME=- and give the value at the prompt or on standard input"
            )
        names.append(name)
    return names


def secrets(names: Sequence[str]) -> dict[str, str]:
    """A value for each name, from the prompt or from standard input."""
    if not names:
        return {}
    if sys.stdin.isatty():
        return {name: prompted(name) for name in names}
    text = _standard_input()
    values = [text] if len(names) == 1 else text.splitlines()
    if len(values) != len(names):
        raise Invalid(
            f"{len(names)} secrets ({', '.join(names)}) take as many lines of standard input, one each; {len(values)} came"
        )
    return {name: _given(name, value) for name, value in zip(names, values, strict=True)}


def prompted(label: str) -> str:
    return _given(label, getpass(f"{label}: ", stream=sys.stderr))


def json_value(option: str, text: str) -> Any:
    """JSON from the option itself, from a file (`@FILE`) or from standard input (`-`)."""
    source = text_of(text.removeprefix("@")) if text.startswith("@") or text == "-" else text
    try:
        return msgspec.json.decode(source.encode())
    except UNREADABLE as error:
        raise typer.BadParameter(f"{option} is not JSON: {error}") from None


def json_object(option: str, text: str) -> dict[str, Any]:
    value = json_value(option, text)
    if not isinstance(value, dict):
        raise typer.BadParameter(f'{option} must be a JSON object, as in \'{{"name": "value"}}\'')
    return value


def text_of(file: str) -> str:
    """The text of a file, or of standard input for `-`."""
    if file == "-":
        return _standard_input()
    try:
        return Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Invalid(f"{file} is not UTF-8 text") from None
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror}") from None


def _standard_input() -> str:
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise Invalid("standard input is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")


def _given(name: str, value: str) -> str:
    if not value:
        raise Invalid(f"no value was given for {name}")
    return value
