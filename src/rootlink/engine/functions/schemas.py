"""The JSON Schemas of functions: which may be deployed, and whether a value fits one, without ever holding up the engine.

A schema is a stranger's program. jsonschema-rs holds the interpreter while it runs, so a thread would not help: what may take
long is judged in a process of its own (judge.py).

Rules
- Dialects: draft-07, 2019-09 and 2020-12, the last unless `$schema` says so. The root describes an object.
- `$ref` leads to a place of the same schema (`#`, `#/pointer`, `#anchor`); nothing is fetched. No `$dynamicRef`, no nested `$id`.
- The weight of a schema is what one value may have to be compared with: every member and item once, a reference what it leads to,
  a pattern as much as a linear regular expression may cost, `unevaluated…` four times what it sees. One that leads to itself has
  no end to its weight; then `unevaluated…` is refused, for compiling it would not end.
- A value is judged here while weight x bytes is at most `AT_ONCE` (about 20 ms at worst), and elsewhere beyond that.
- A complaint names the path and the rule, never the value.

Sources: JSON Schema 2020-12 (core, validation); MCP 2025-11-25, tools (`inputSchema`, `outputSchema`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import unquote

import jsonschema_rs
import msgspec

from rootlink.errors import Invalid

MAX_BYTES: Final = 64 << 10
MAX_WEIGHT: Final = 20_000
MAX_DEPTH: Final = 64
MAX_PATTERNS: Final = 64
MAX_PATTERN_BYTES: Final = 512 << 10  # of one compiled expression
AT_ONCE: Final = 300_000
SHOWN: Final = 500  # characters of a complaint

DIALECTS: Final = frozenset(
    {
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema",
    }
)
TOO_DEEP: Final = ": nested too deeply, or with a value JSON does not have"

_LEAST_BYTES: Final = 64
_PATTERN, _MULTIPLE, _UNEVALUATED = 40, 100, 4
_MOST: Final = 1e300  # far beyond the limit; more would become infinite, which means something else
_BY_NAME: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"})
_DATA: Final = frozenset({"const", "enum", "default", "example", "examples", "required", "dependentRequired"})
_UNSUPPORTED: Final = frozenset({"$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"})


class Schema:
    """One schema, ready to judge by. Make it with `compile`."""

    def __init__(self, schema: dict[str, Any], weight: float, validator: jsonschema_rs.Validator) -> None:
        self.encoded = msgspec.json.encode(schema)
        self.weight = weight
        self._validator = validator

    def light(self, size: int) -> bool:
        """Whether a value of `size` bytes as JSON may be judged here."""
        return self.weight * max(size, _LEAST_BYTES) <= AT_ONCE

    def complaint(self, value: Any) -> str:
        """`.path: rule`, empty when the value fits."""
        return complaint(self._validator, value)


def complaint(validator: jsonschema_rs.Validator, value: Any) -> str:
    """Errors are made only for a value that has one: each holds a copy of what it is about."""
    try:
        if validator.is_valid(value):
            return ""
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
        return f"{path[:SHOWN]}: {error.message[:SHOWN]}"
    except (ValueError, RecursionError):
        return TOO_DEEP
    return ""


def validator_of(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    """Of a schema whose weight is known. Raises what jsonschema-rs raises."""
    return jsonschema_rs.validator_for(
        schema,
        retriever=_retrieve_nothing,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=MAX_PATTERN_BYTES),
        validate_formats=False,
        mask="the value",
    )


def of_object(schema: dict[str, Any]) -> dict[str, Any]:
    """As MCP has it: a tool's schema says `object`, whatever its author left out."""
    return {"type": "object", **schema}


def compile(member: str, schema: dict[str, Any]) -> Schema:
    """Raises Invalid naming `member` and the rule."""
    if schema.get("type", "object") != "object":
        raise Invalid(f"{member} must describe an object: its type can't be {str(schema['type'])[:80]}")
    dialect = schema.get("$schema")
    if dialect is not None and str(dialect).removesuffix("#") not in DIALECTS:
        raise Invalid(
            f"{member}: $schema {str(dialect)[:100]} is not supported; leave it out, or use draft-07, 2019-09 or 2020-12"
        )
    try:
        if len(msgspec.json.encode(schema)) > MAX_BYTES:
            raise Invalid(f"{member} is larger than {MAX_BYTES} bytes")
        weight = _weigh(member, schema)
        return Schema(schema, weight, validator_of(schema))
    except (ValueError, RecursionError, OverflowError, jsonschema_rs.ReferencingError, UnicodeEncodeError) as error:
        words = next(iter(str(error).splitlines()), "too deep")[:SHOWN]
        raise Invalid(f"{member} is not a valid JSON Schema: {words}") from None


def _retrieve_nothing(uri: str) -> Any:
    raise ValueError(f"$ref to {uri[:200]} is not fetched; put the definition into the schema's own $defs")


def _weigh(member: str, schema: dict[str, Any]) -> float:
    """The whole schema's weight; infinite when it leads to itself. Raises Invalid."""
    scale = _Scale(member, schema)
    weight = scale.of(schema)
    if math.isinf(weight) and scale.unevaluated:
        raise Invalid(f"{member}: unevaluatedProperties and unevaluatedItems can't be used in a schema that refers to itself")
    if not math.isinf(weight) and weight > MAX_WEIGHT:
        raise Invalid(
            f"{member} is too complex: with its references followed it has {_amount(weight)} parts, "
            f"and {MAX_WEIGHT} are allowed; say less, or nest fewer references"
        )
    return weight


def _amount(weight: float) -> str:
    return f"{weight:.0f}" if weight < 1e6 else "millions of"


class _Scale:
    """Walks every schema once; what a reference leads to is remembered."""

    def __init__(self, member: str, root: dict[str, Any]) -> None:
        self._member, self._root = member, root
        self._known: dict[str, float] = {}
        self._open: set[str] = {"#"}
        self._anchors: dict[str, Any] | None = None
        self._patterns = 0
        self.unevaluated = False

    def of(self, schema: Any, depth: int = 0) -> float:
        if depth > MAX_DEPTH:
            raise Invalid(f"{self._member} is nested deeper than {MAX_DEPTH} levels")
        if isinstance(schema, list):
            return 1 + sum(self.of(item, depth + 1) for item in schema)
        if not isinstance(schema, dict):
            return 1
        self._refuse(schema, depth)
        weight = 1.0 + sum(self._keyword(key, value, depth) for key, value in schema.items())
        unevaluated = sum(key in schema for key in ("unevaluatedProperties", "unevaluatedItems"))
        self.unevaluated = self.unevaluated or bool(unevaluated)
        return weight if math.isinf(weight) else min(weight, _MOST) * _UNEVALUATED**unevaluated

    def _refuse(self, schema: dict[str, Any], depth: int) -> None:
        for key in _UNSUPPORTED.intersection(schema):
            raise Invalid(f"{self._member}: {key} is not supported; use $ref to a definition in its own $defs")
        if depth and "$id" in schema:
            raise Invalid(f"{self._member}: only the whole schema may have an $id")

    def _keyword(self, key: str, value: Any, depth: int) -> float:
        if key in _DATA:
            return _size(value)
        if key == "$ref":
            return 1 + self._reference(value)
        if key == "pattern":
            return self._pattern(1)
        if key == "multipleOf":
            return _MULTIPLE
        if key in _BY_NAME and isinstance(value, dict):
            more = self._pattern(len(value)) if key == "patternProperties" else 0
            return more + len(value) + sum(self.of(each, depth + 2) for each in value.values())
        return self.of(value, depth + 1)

    def _pattern(self, count: int) -> float:
        self._patterns += count
        if self._patterns > MAX_PATTERNS:
            raise Invalid(f"{self._member} has more than {MAX_PATTERNS} patterns")
        return _PATTERN * count

    def _reference(self, ref: Any) -> float:
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise Invalid(
                f"{self._member}: $ref to {str(ref)[:200]} is not fetched; put the definition into the schema's own $defs"
            )
        if ref in self._open:
            return math.inf
        if ref not in self._known:
            self._open.add(ref)
            self._known[ref] = self.of(self._found(ref), 1)
            self._open.discard(ref)
        return self._known[ref]

    def _found(self, ref: str) -> Any:
        """What `ref` leads to. Nothing, if it leads nowhere: the compiler says so."""
        pointer = unquote(ref[1:])
        if pointer and not pointer.startswith("/"):
            if self._anchors is None:
                self._anchors = dict(_anchors(self._root))
            return self._anchors.get(pointer)
        found: Any = self._root
        for part in pointer.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                found = found.get(name) if isinstance(found, dict) else None
        return found


def _anchors(schema: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$anchor"), str):
            yield schema["$anchor"], schema
        for value in schema.values():
            yield from _anchors(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _anchors(item)


def _size(value: Any) -> float:
    """How many values are in one."""
    if isinstance(value, dict):
        return 1 + sum(map(_size, value.values()))
    return 1 + sum(map(_size, value)) if isinstance(value, list) else 1
