"""What is wrong with the shape of an input, in words that hold nothing of the input.

msgspec's own messages are almost that, but quote an enum's bad value; so its words are read for the path and the types alone.
"""

from __future__ import annotations

import re

_MISSING = re.compile(r"Object missing required field `([^`]*)`(?: - at `([^`]*)`)?")
_EXPECTED = re.compile(r"Expected `([^`]*)`, got `([^`]*)`(?: - at `([^`]*)`)?")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`(?: - at `([^`]*)`)?")
_AT = re.compile(r" - at `([^`]*)`\Z")


def words(message: str) -> str:
    """A `msgspec.ValidationError`'s message as a sentence about a field."""
    if match := _MISSING.match(message):
        return f"{_field(match[2], match[1])} is missing"
    if match := _EXPECTED.match(message):
        return f"{_field(match[3])} must be of type {match[1]}, not {match[2]}"
    if match := _UNKNOWN.match(message):
        return f"{_field(match[2], match[1][:60])} is not one that is known here"
    at = _AT.search(message)
    return f"{_field(at[1] if at else None)} has a value that is not allowed"


def _field(path: str | None, last: str | None = None) -> str:
    """`$.a.b` as `a.b`; msgspec writes `[...]` for a member of a mapping, so no key of the input is in it."""
    inner = (path or "$").removeprefix("$").removeprefix(".")
    name = ".".join(part for part in (inner, last) if part)
    return f"Field {name!r}" if name else "The body"
