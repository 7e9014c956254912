"""Known secret values out of text: as they are, and in the forms text carries them in.

Forms: raw, `repr`, JSON-escaped, percent-encoded, hex, base64 and base64url at each of the three alignments (a value may begin at
any byte of a longer text that was encoded whole; only the characters that no neighbour has a part in are looked for). Values
shorter than `SHORTEST` are left alone: hiding every `a` would hide nothing and ruin the text.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

SHORTEST = 5  # characters
LINE = 8  # characters of a line of a value that are a secret by themselves
MARK = "[secret]"


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
        self._pattern: re.Pattern[str] | None = None
        self.learn(secrets)

    def learn(self, secrets: Mapping[str, str] | Iterable[str]) -> None:
        named = secrets.items() if isinstance(secrets, Mapping) else ((None, value) for value in secrets)
        before = len(self._marks)
        for name, value in named:
            for form in forms(value) if len(value) >= SHORTEST else ():
                self._marks.setdefault(form, f"[secret {name}]" if name else MARK)
        if len(self._marks) > before:
            self._compile()

    def forget(self, values: Iterable[str]) -> None:
        """Bare values that open nothing any more (a token that was renewed): each costs time in every text. Named ones stay."""
        before = len(self._marks)
        for value in values:
            for form in forms(value):
                if self._marks.get(form) == MARK:
                    del self._marks[form]
        if len(self._marks) < before:
            self._compile()

    def _compile(self) -> None:
        longest_first = sorted(self._marks, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE) if longest_first else None

    def __call__(self, text: str) -> str:
        """`text` without them, whatever the case; costs little when there are none: to look for each is a hundred times quicker
        than the pattern of them all."""
        if self._pattern is None:
            return text
        lowered = text.lower()
        if not any(form in lowered for form in self._marks):
            return text
        return self._pattern.sub(lambda found: self._marks.get(found.group().lower(), MARK), text)
