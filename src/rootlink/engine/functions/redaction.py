"""Secret values out of texts that are kept or shown: as they are, and in the forms they travel in.

Forms: raw, base64 and base64url at each of the three alignments, hex, percent-encoded, JSON-escaped. Values shorter than
`SHORTEST` are left alone: hiding every `a` would hide nothing and ruin the text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus

import msgspec

SHORTEST = 4


def forms(value: str) -> Iterator[str]:
    """Every spelling of `value` that must not appear."""
    raw = value.encode("utf-8", "surrogatepass")
    yield value
    yield msgspec.json.encode(value).decode()[1:-1] if value.isprintable() else repr(value)[1:-1]
    yield quote(value, safe="", errors="replace")
    yield quote_plus(value, errors="replace")
    yield raw.hex()
    yield raw.hex().upper()
    for offset in range(3):
        yield from _aligned(raw, offset)


def _aligned(raw: bytes, offset: int) -> Iterator[str]:
    """Base64 of `raw` in the middle of other bytes: only the characters no neighbour has a part in."""
    first = (offset * 8 + 5) // 6
    last = (offset + len(raw)) * 8 // 6
    padded = b"\0" * offset + raw
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        inner = encode(padded).decode().rstrip("=")[first:last]
        if len(inner) >= SHORTEST:
            yield inner


class Redactor:
    """Of one set of secrets. `text` costs nothing when there are none."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._names: dict[str, str] = {}
        for name, value in secrets.items():
            if len(value) >= SHORTEST:
                for form in forms(value):
                    self._names.setdefault(form, name)
        spellings = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, spellings))) if spellings else None

    def text(self, text: str) -> str:
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: f"[secret {self._names[found.group()]}]", text)
