"""Known secret values out of text: as they are, and in the forms text carries them in.

Forms: raw, `repr`, JSON-escaped, percent-encoded, hex, base64 and base64url at each of the three alignments (a value may begin at
any byte of a longer text that was encoded whole; only the characters that no neighbour has a part in are looked for). Values
shorter than `SHORTEST` are left alone: hiding every `a` would hide nothing and ruin the text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

SHORTEST = 5  # characters
LINE = 8  # characters of a line of a value that are a secret by themselves
MARK = "[secret]"
LONGER_LOWERED = "\u0130"  # the only character whose lower case is more than one


def forms(value: str) -> Iterator[str]:
    """Every spelling of `value` that must not appear, in lower case; those too short to be told from ordinary text left out.

    Of a value of several lines (a private key) also each line, for text is often seen line by line.
    """
    lines = [line.strip() for line in value.splitlines()] if "\n" in value else []
    for part in (value, *(line for line in lines if len(line) >= LINE)):
        yield from (form.lower() for form in _forms(part) if len(form) >= SHORTEST)


def _forms(value: str) -> Iterator[str]:
    raw = value.encode("utf-8", "surrogatepass")
    yield value
    yield repr(value)[1:-1]
    for ascii_only in (True, False):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield from (escaped, escaped.replace("/", "\\/"))
    yield from (quote(raw, safe=""), quote(raw), quote_plus(raw), raw.hex(), raw.hex().upper())
    for shift in range(3):
        first, last = -(-shift * 8 // 6), (shift + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * shift + raw).decode()[first:last]


class Redactor:
    """Of secrets by name, or of bare values. `learn` adds more: what was a secret once stays hidden."""

    def __init__(self, secrets: Mapping[str, str] | Iterable[str] = ()) -> None:
        self._marks: dict[str, str] = {}
        self.learn(secrets)

    def learn(self, secrets: Mapping[str, str] | Iterable[str]) -> None:
        named = secrets.items() if isinstance(secrets, Mapping) else ((None, value) for value in secrets)
        for name, value in named:
            for form in forms(value) if len(value) >= SHORTEST else ():
                self._marks.setdefault(form, f"[secret {name}]" if name else MARK)

    def forget(self, values: Iterable[str]) -> None:
        """Bare values that open nothing any more (a token that was renewed): each costs time in every text. Named ones stay."""
        for value in values:
            for form in forms(value):
                if self._marks.get(form) == MARK:
                    del self._marks[form]

    def __call__(self, text: str) -> str:
        """`text` without them, whatever the case. Each is looked for by itself: a pattern of them all takes a hundred times as
        long, and nothing else goes on meanwhile."""
        if not self._marks:
            return text
        lowered = text.replace(LONGER_LOWERED, "i").lower()
        found = sorted((at, -len(form), form) for form in self._marks for at in _places(lowered, form))
        if not found:
            return text
        pieces, end = [], 0
        for at, length, form in found:
            if at >= end:
                pieces += [text[end:at], self._marks[form]]
            end = max(end, at - length)
        return "".join([*pieces, text[end:]])


def _places(text: str, form: str) -> Iterator[int]:
    at = text.find(form)
    while at >= 0:
        yield at
        at = text.find(form, at + len(form))
