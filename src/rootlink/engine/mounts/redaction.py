"""Known secret values out of text that a child wrote, in the forms a program is likely to write them in.

Forms: as it is, base64 (at each of the three alignments) and base64url, hex, percent-encoded, JSON-escaped. A value shorter than
`SHORTEST` is no secret that could be told from ordinary text and is left alone.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

import msgspec

SHORTEST = 6
MARK = "[secret]"


class Redactor:
    def __init__(self, values: Iterable[str]) -> None:
        found = {form for value in values if len(value) >= SHORTEST for form in forms(value)}
        longest_first = sorted(found, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if found else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub(MARK, text) if self._pattern else text


def forms(value: str) -> set[str]:
    raw = value.encode("utf-8", "replace")
    found = {value, raw.hex(), raw.hex().upper(), quote(raw, safe=""), quote(raw), quote_plus(raw)}
    found.add(msgspec.json.encode(raw.decode())[1:-1].decode())
    for shift in range(3):
        found |= _aligned(raw, shift)
    return {form for form in found if len(form) >= SHORTEST}


def _aligned(raw: bytes, shift: int) -> set[str]:
    """What of `raw` shows in the base64 of a text that holds it `shift` bytes after a multiple of three."""
    first = -(-shift * 8 // 6)  # characters that the bytes before it reach into
    whole = (shift + len(raw)) * 8 // 6  # characters it fills alone
    return {encode(b"\0" * shift + raw).decode()[first:whole] for encode in (base64.b64encode, base64.urlsafe_b64encode)}
