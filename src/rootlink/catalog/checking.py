"""A manifest's checks as the engine makes them (`wire/checks.py`): fields become references, connection strings become places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rootlink.catalog import address
from rootlink.catalog.field import expand, variables
from rootlink.catalog.manifest import Check, HttpCheck, TcpCheck, ToolCheck
from rootlink.wire import checks as wire


def wired(checks: Iterable[Check], values: Mapping[str, list[str]], given: Mapping[str, Any]) -> list[wire.Check]:
    """`values`: the texts of each field that has any, a secret's as a reference. `given`: what the user gave, for `TcpCheck`
    alone. A check whose fields have no value is left out. `Invalid` for a URL that names no place."""
    filled = {name: texts[0] for name, texts in values.items()}
    return [made for check in checks for made in _wired(check, filled, given)]


def _wired(check: Check, filled: dict[str, str], given: Mapping[str, Any]) -> Iterator[wire.Check]:
    match check:
        case HttpCheck():
            if all(name in filled for name in fields_of(check)):
                yield _http(check, filled)
        case TcpCheck():
            url = given.get(check.from_url)
            if isinstance(url, str):
                place = address.of(check.from_url, url)
                assert place.port is not None  # `of` always knows one
                yield wire.TcpCheck(check.id, place.host, place.port, check.error, check.severity)
        case ToolCheck():
            yield wire.ToolCheck(
                check.id, check.tool, check.arguments, check.json, check.label, check.note, check.error, check.severity
            )


def fields_of(check: HttpCheck) -> list[str]:
    """The fields whose values it sends."""
    return [name for text in (check.url, check.body or "", *check.headers.values()) for name in variables(text)]


def _http(check: HttpCheck, filled: dict[str, str]) -> wire.HttpCheck:
    return wire.HttpCheck(
        id=check.id,
        url=expand(check.url, filled),
        method=check.method,
        headers={name: expand(value, filled) for name, value in check.headers.items()},
        body=None if check.body is None else expand(check.body, filled),
        ok=check.ok,
        errors=check.errors,
        severity=check.severity,
    )
