"""What a text holds that a person does not see, or takes for something else.

Rules
- Characters are judged one by one and by their neighbours, in one pass; nothing here looks further than a run.
- Joiners are right inside emoji and between letters of scripts that join; marks of direction are right where letters run from
  right to left; one variation selector after one character is right. The flags of England, Scotland and Wales are made of tags.
- A look-alike is a letter of another script in a word of Latin letters, or a whole name that reads as another.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

ROOM = 1000
BLANK_LINES, BLANKS = 16, 100  # from here on a text has been pushed out of sight
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{2,6}\U000e007f")
_ESCAPE = re.compile("\x1b|\x9b")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_TAGS = re.compile("[\U000e0000-\U000e007f]")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2}")
_ZERO = re.compile("[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060-\u2065\u3164\ufeff\uffa0\ufff9-\ufffb]")
_JOINERS = re.compile("[\u200c\u200d]")
_TURNED = re.compile("[\u202a-\u202e\u2066-\u2069]")
_MARKS = re.compile("[\u200e\u200f\u061c]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe]")
_SEPARATORS = re.compile("[\u2028\u2029]")
_PRIVATE = re.compile("[\U000f0000-\U0010fffd]")
_FORMAT = re.compile(
    "[\u00ad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]+"
)
_EMPTY = re.compile(rf"[ \t\u00a0]{{{BLANKS}}}|(?:\n[ \t]?){{{BLANK_LINES}}}")

UNSEEN = (
    (_TAGS, "hidden text (Unicode tags)"),
    (_SELECTORS, "hidden text (variation selectors)"),
    (_ZERO, "characters without width"),
    (_TURNED, "characters that turn the direction of text"),
    (_ESCAPE, "escape sequences of terminals"),
    (_CONTROL, "control characters"),
    (_SEPARATORS, "invisible line separators"),
    (_PRIVATE, "characters that mean nothing to anybody else"),
    (_EMPTY, "so much empty space that what follows is out of sight"),
)

# letters that are drawn like a Latin one: Cyrillic, Greek, Armenian, Cherokee and their neighbours
_ALIKE = dict(
    zip(
        "аеорсухіјѕһԁԛԝѵӏԍАВЕЅІЈКМНОРСТУХԌԚԜ" + "ονρυιΑΒΕΖΗΙΚΜΝΟΡΤΥΧϲϳ" + "օոսհցքԼՍՕ" + "ɑɡıꞮℓ",
        "aeopcyxijshdqwvlgABESIJKMHOPCTYXGQW" + "ovpuiABEZHIKMNOPTYXcj" + "onuhgqLSO" + "agiIl",
        strict=True,
    )
)
_FOLD = str.maketrans(_ALIKE)
_WORD = re.compile(r"[^\W\d_]{2,60}")
_ODD = re.compile("[" + "".join(_ALIKE) + "]")
_DRAWN_ALIKE = str.maketrans("015i|", "olsll")  # in lower case


def unseen(text: str) -> list[str]:
    """What is in `text` and not to be seen, in words."""
    if text.isascii():
        found = [words for pattern, words in UNSEEN[4:6] + UNSEEN[8:] if pattern.search(text)]
    else:
        text = _FLAG.sub("", text)
        found = [words for pattern, words in UNSEEN if pattern.search(text)]
        if any(_stray(text, at.start()) for at in _JOINERS.finditer(text)) and UNSEEN[2][1] not in found:
            found.append(UNSEEN[2][1])
        if _MARKS.search(text) and not _RIGHT_TO_LEFT.search(text):
            found.append("marks of direction")
    return found


def _stray(text: str, at: int) -> bool:
    """Whether a joiner stands where nothing is to be joined."""
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    return not (before > "\u024f" and after > "\u024f") or before in "\u200c\u200d"


def plain(text: str) -> str:
    """`text` as it reads: without what is not seen, styled and look-alike letters as Latin ones, in lower case."""
    if not text.isascii():
        folded = unicodedata.normalize("NFKC", _FORMAT.sub("", text))[: len(text) + ROOM]  # some characters become eighteen
        text = _WORD.sub(_folded, folded) if _ODD.search(folded) else folded
    return text.lower()


def _folded(word: re.Match[str]) -> str:
    return word[0].translate(_FOLD) if _mixed(word[0]) else word[0]


def _mixed(word: str) -> bool:
    """A word with a Latin letter and one that only looks like it. Symbols of units and mathematics are not among those."""
    return _ODD.search(word) is not None and any("a" <= letter <= "z" for letter in word.lower())


def alike(text: str) -> str | None:
    """The first word of Latin letters among which there are others that look like them."""
    if text.isascii() or _ODD.search(text) is None:
        return None
    return next((found[0] for found in _WORD.finditer(text) if _mixed(found[0])), None)


def reads_as(name: str) -> str | None:
    """What a name reads as, where its letters are not what they look like."""
    if name.isascii():
        return None
    seen = unicodedata.normalize("NFKC", name).translate(_FOLD)
    return seen if seen != unicodedata.normalize("NFC", name) and seen.isascii() else None


@lru_cache(maxsize=16)
def _drawings(names: frozenset[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(drawing(name), []).append(name)
    return found


def twin(name: str, names: frozenset[str]) -> str | None:
    """Another of `names` that looks the same."""
    same = _drawings(names).get(drawing(name), ())
    return next((other for other in same if other.lower() != name.lower()), None)


def drawing(name: str) -> str:
    """Equal for names that are hard to tell apart."""
    seen = _FORMAT.sub("", unicodedata.normalize("NFKC", name))
    return seen.translate(_FOLD).lower().replace("rn", "m").replace("vv", "w").translate(_DRAWN_ALIKE)
