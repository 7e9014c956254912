"""One thing a connector asks for: how the form shows it, and which values it takes.

Rule 1. A message names the field and what is expected, never the value given: it may be a secret.
Rule 2. A value that is no secret holds no `${NAME}`: only the manifest decides which secrets a connector gets. The two folders
        `${{files}}` and `${{state}}` are allowed where a path is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import msgspec

from rootlink.catalog.manifest import ENGINE_VARIABLES, Hint, Input
from rootlink.errors import Invalid
from rootlink.sealing.envelope import checked_value

MAX_INPUT = 4096  # characters of one value that is no secret
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?\Z")
_BOOLEANS = ("true", "false")


class Field(msgspec.Struct, frozen=True):
    """`detail()` of an entry shows it as it is, `paths` left out."""

    name: str
    label: str
    secret: bool
    required: bool  # false: there is a default, or it may be left out
    pattern: str | None
    placeholder: str | None
    help: str
    help_url: str | None
    steps: list[str]
    default: str | None
    multiple: bool
    format: Literal["string", "number", "boolean", "filepath"]
    choices: list[str] | None
    paths: Literal["read", "write"] | None

    def view(self) -> dict[str, Any]:
        shown = msgspec.structs.asdict(self)
        del shown["paths"]
        return shown

    @property
    def fallback(self) -> list[str]:
        """The values when none is given."""
        return [] if self.default is None else [self.default]

    def check_secret(self, value: object) -> None:
        """`Invalid`, `TooLarge`."""
        self._check_shape(checked_value(self.name, value))

    def values(self, given: object) -> list[str]:
        """`given` as the texts it stands for: one, or as many as there are if `multiple`. `Invalid`."""
        texts = self._split(given) if self.multiple else [self._text(given)]
        if not texts:
            self._refuse("is empty")
        for text in texts:
            self._check_input(text)
        return texts

    def wanted(self) -> str:
        """What to do about a missing or wrong value."""
        example = f"it looks like {self.placeholder}" if self.placeholder else f"it is the {self.label}"
        return f"{example}; get it at {self.help_url}" if self.help_url else example

    def _split(self, given: object) -> list[str]:
        if isinstance(given, str):
            separator = "\n" if "\n" in given else ","
            return [text.strip() for text in given.split(separator) if text.strip()]
        if not isinstance(given, Sequence) or isinstance(given, bytes | bytearray):
            self._refuse("must be a list of texts, or one text with a value on each line")
        return [self._text(text) for text in given]

    def _text(self, given: object) -> str:
        if isinstance(given, bool):
            return _BOOLEANS[not given]
        if isinstance(given, int | float) and self.format == "number":
            return str(given)
        if not isinstance(given, str):
            self._refuse(f"must be text, not {type(given).__name__}")
        return given

    def _check_input(self, text: str) -> None:
        if not text.strip():
            self._refuse("is empty")
        if len(text) > MAX_INPUT or "\0" in text:
            self._refuse(f"must be at most {MAX_INPUT} characters, without NUL")
        bare = without_engine_variables(text) if self.format == "filepath" else text
        if "${" in bare:
            self._refuse("must not refer to secrets with ${…}: only the connector's own fields may")
        if self.format == "filepath":
            self._check_path(text)
        self._check_shape(text)

    def _check_path(self, text: str) -> None:
        absolute = text.startswith(("/", *ENGINE_VARIABLES.values()))
        if not absolute or ".." in text.split("/") or any(ord(char) < 32 for char in text):
            self._refuse("must be an absolute path without '..', like /home/me/documents")

    def _check_shape(self, text: str) -> None:
        if self.format == "number" and not _NUMBER.match(text):
            self._refuse("must be a number")
        if self.format == "boolean" and text not in _BOOLEANS:
            self._refuse("must be true or false")
        if self.choices is not None and text not in self.choices:
            self._refuse(f"must be one of {', '.join(self.choices)}")
        # Not search(): Python's $ lets a line end after it through.
        if self.pattern is not None and not re.fullmatch(self.pattern, text):
            self._refuse(f"has not the right form: {self.wanted()}")

    def _refuse(self, why: str) -> NoReturn:
        raise Invalid(f"{self.name} {why}", data={"field": self.name})


def without_engine_variables(text: str) -> str:
    for spelling in ENGINE_VARIABLES.values():
        text = text.replace(spelling, "")
    return text


def field(name: str, source: Input, hint: Hint | None, *, multiple: bool = False) -> Field:
    """Of what the registry's part says (`source`) and ours adds (`hint`)."""
    shown = hint or Hint(label=name)
    return Field(
        name=name,
        label=shown.label,
        secret=source.is_secret,
        required=source.is_required and source.default is None,
        pattern=shown.pattern,
        placeholder=source.placeholder,
        help=" ".join(_sentence(text) for text in (source.description, shown.help) if text),
        help_url=shown.help_url,
        steps=shown.steps,
        default=None if source.default is None else expand(source.default, ENGINE_VARIABLES),
        multiple=multiple,
        format=source.format,
        choices=source.choices,
        paths=shown.paths,
    )


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


_VARIABLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]*)\}")  # an argument's name may have a dash in it


def variables(template: str) -> list[str]:
    """The names between braces."""
    return _VARIABLE.findall(template)


def expand(template: str, values: dict[str, str]) -> str:
    """`template` with every `{name}` replaced; what is put in is not looked at again."""
    return _VARIABLE.sub(lambda match: values[match[1]], template)
