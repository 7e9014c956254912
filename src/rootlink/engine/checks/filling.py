"""Secrets put into what a check sends: `${NAME}`, as in a mount's spec (`mounts/spec.py`).

A value is text of the place it is put into, and cannot break out of it: in a URL or a form it is percent-encoded, in a JSON body
escaped, in a header it has no line break. It is put in once: what is inside a value is never looked at again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from rootlink.errors import Invalid

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_BREAKS = re.compile(r"[\r\n\0]")
_FORM = "application/x-www-form-urlencoded"


class Filling:
    """With the secrets there are. Everything raises Invalid, naming a secret that is not there, or one that cannot be sent."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._secrets = secrets

    def text(self, text: str) -> str:
        return self._put(text, lambda name, value: value)

    def url(self, text: str) -> str:
        return self._put(text, _encoded)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: self._put(text, _on_one_line) for name, text in headers.items()}

    def body(self, text: str, kind: str) -> str:
        """`kind`: its content type."""
        if kind.partition(";")[0].strip().lower() == _FORM:
            return self.url(text)
        return self._put(text, lambda name, value: json.dumps(value)[1:-1])

    def arguments(self, value: Any) -> Any:
        """JSON with its strings filled in; names of members stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {name: self.arguments(member) for name, member in value.items()}
        return [self.arguments(item) for item in value] if isinstance(value, list) else value

    def _put(self, text: str, fit: Callable[[str, str], str]) -> str:
        return _REFERENCE.sub(lambda found: fit(found[1], self._value(found[1])), text)

    def _value(self, name: str) -> str:
        value = self._secrets.get(name)
        if value is None:
            raise Invalid(f"secret {name} is not in this project's vault; set it with: rootlink secrets set {name}")
        return value


def _encoded(name: str, value: str) -> str:
    if value in (".", ".."):  # a step of a path, however it is spelt
        raise Invalid(f"secret {name} cannot be part of a URL; set it again")
    return quote(value.encode("utf-8", "replace"), safe="")


def _on_one_line(name: str, value: str) -> str:
    if _BREAKS.search(value) or not value.isascii():
        raise Invalid(f"secret {name} holds a line break, NUL or a letter that no header can carry; set it again")
    return value
