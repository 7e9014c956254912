"""A connector's form, filled in from the command line and, where a person sits at a terminal, by asking for what is missing.

Shapes are checked by the catalogue on the server, once; here only what belongs to the command line: no secret in argv, and a list
for a field that takes several values.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import typer

from rootlink.cli import arguments
from rootlink.cli.screen import clean, first_line, hint

Field = dict[str, Any]


def inputs(fields: Sequence[Field], given: Sequence[str]) -> dict[str, Any]:
    """The `--input K=V` options by field; a field that takes several (or is given several) gets a list."""
    found = arguments.pairs("--input", given)
    for field in fields:
        if field.get("secret") and field["name"] in found:
            raise typer.BadParameter(f"{field['name']} is a secret, and no option holds one; say --secret {field['name']}=-")
    several = {field["name"] for field in fields if field.get("multiple")}
    return {name: values if name in several or len(values) > 1 else values[0] for name, values in found.items()}


def missing(fields: Sequence[Field], given: Collection[str]) -> list[Field]:
    return [field for field in fields if field.get("required") and field["name"] not in given]


def ask(fields: Sequence[Field], body: dict[str, Any]) -> None:
    """Ask a person for each field, with what the catalogue says about it, into `body`'s inputs and secrets."""
    for field in fields:
        _explain(field)
        label = first_line(field.get("label") or field["name"])
        if field.get("secret"):
            body["secrets"][field["name"]] = arguments.prompted(label)
        else:
            value = typer.prompt(label, err=True)
            body["inputs"][field["name"]] = [value] if field.get("multiple") else value


def _explain(field: Field) -> None:
    hint(f"\n{clean(field.get('label') or field['name'])}")
    if field.get("help"):
        hint(f"  {clean(field['help'])}")
    for number, step in enumerate(field.get("steps") or [], start=1):
        hint(f"  {number}. {clean(step)}")
    if field.get("help_url"):
        hint(f"  {clean(field['help_url'])}")
