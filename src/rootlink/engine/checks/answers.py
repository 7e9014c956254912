"""What an answer says: members by dotted path, and texts for a person with members put in (`wire/checks.py`).

A service's words are a stranger's: cut to `MOST` characters, without control and invisible characters, without known secrets.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

MOST = 80  # characters of one word of an answer's

_PLACE = re.compile(r"\{([A-Za-z0-9_.-]+)\}")
_ABSENT = object()


def found(answer: Any, path: str) -> Any:
    """The member, or an object that equals nothing."""
    for step in path.split("."):
        if isinstance(answer, dict) and step in answer:
            answer = answer[step]
        elif isinstance(answer, list) and step.isdecimal() and int(step) < len(answer):
            answer = answer[int(step)]
        else:
            return _ABSENT
    return answer


def holds(answer: Any, members: Mapping[str, Any]) -> bool:
    """Whether every one of `members`, by dotted path, is in it and equal. JSON's true is not 1."""
    return all(_same(found(answer, path), wanted) for path, wanted in members.items())


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def text(template: str | None, answer: Any, redact: Callable[[str], str], places: Mapping[str, str] | None = None) -> str | None:
    """`template` filled in from `places` and the answer. None when there is no template, or nothing it names was there."""
    if template is None:
        return None
    named = 0

    def put(match: re.Match[str]) -> str:
        nonlocal named
        value = (places or {}).get(match[1], _ABSENT)
        value = found(answer, match[1]) if value is _ABSENT else value
        shown = words(value, redact) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
        named += bool(shown)
        return shown

    filled = " ".join(_PLACE.sub(put, template).split())
    return filled if filled and (named or not _PLACE.search(template)) else None


def words(value: object, redact: Callable[[str], str], most: int = MOST) -> str:
    """A stranger's words, fit to be shown."""
    seen = "".join(" " if letter in "\r\n\t" else letter for letter in str(value)[: most * 50] if _visible(letter))
    shown = redact(" ".join(seen.split()))
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _visible(letter: str) -> bool:
    return letter in "\r\n\t" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co", "Cn")
