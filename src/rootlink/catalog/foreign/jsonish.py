"""JSON as people paste it: with comments, with commas before the end, as the inside of an object without its braces.

Only what a person may have meant in one way is read. A string stays as it is, whatever it looks like inside.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

# A string or comment without its end goes on to the text's: looked for again from each place in it, it would take forever.
_STRING = r'"(?:[^"\\]|\\.?)*(?:"|\Z)'
_TOKEN = re.compile(rf"{_STRING}|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_LATE_COMMA = re.compile(rf"({_STRING})|,(\s*[}}\]])", re.DOTALL)
_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)


def decode(text: str) -> Any:
    """The value, or `...` when it is no JSON in any of the ways above."""
    bare = _LATE_COMMA.sub(_without_comma, _TOKEN.sub(_without_comment, text)).strip()
    for attempt in (text, bare, f"{{{bare.rstrip(',')}}}"):
        try:
            return msgspec.json.decode(attempt)
        except _UNREADABLE:
            continue
    return ...


def _without_comment(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith('"') else " "


def _without_comma(found: re.Match[str]) -> str:
    return found[1] or found[2]
