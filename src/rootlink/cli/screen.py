"""What a person sees: tables, steps, hints. What a program reads: JSON.

Foreign text (a tool's description, a server's log) may hold escape sequences that rewrite a terminal; `clean` takes them out.
Tables are drawn by rich on a terminal only; in a pipe they are plain aligned columns, uncut, and rich is not even loaded.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

# C0 without tab and newline, DEL, C1, bidirectional controls, zero-width characters, and tag characters (invisible to a person)
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")
_MARKS = {"running": "●", "done": "✓", "failed": "✗"}
_LINE_AGAIN = "\r\x1b[2K"
QUIET_FOR = 0.8  # seconds before a wait is explained; what is quicker needs no words


def clean(text: object) -> str:
    return _UNSEEN.sub("", str(text))


def visible(text: object) -> str:
    """As `clean`, but what a person would not see is named in its place: for text that they are to judge."""
    return _UNSEEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", str(text))


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_line(text: object) -> str:
    return clean(text).strip().partition("\n")[0]


def emit(data: Any) -> None:
    """Data for a program, on stdout. What a terminal might obey stands there as JSON can say it too."""
    say(_UNSEEN.sub(_escaped, msgspec.json.format(msgspec.json.encode(data), indent=2).decode()))


def _escaped(found: re.Match[str]) -> str:
    """Such a character occurs in a string only."""
    return json.dumps(found[0])[1:-1] if found[0] != "\x7f" else "\\u007f"


def say(text: str) -> None:
    print(text, flush=True)


def hint(text: str) -> None:
    """Words for a person beside the data, on stderr."""
    print(text, file=sys.stderr, flush=True)


def say_foreign(text: str) -> None:
    """What a server wrote: as it is into a pipe, cleaned on a terminal."""
    say(clean(text) if sys.stdout.isatty() else text)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    cells = [[clean("" if cell is None else cell).replace("\n", " ") for cell in row] for row in rows]
    (_drawn if sys.stdout.isatty() else _aligned)(columns, cells)


def _aligned(columns: Sequence[str], rows: list[list[str]]) -> None:
    lines = [[column.upper() for column in columns], *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    for line in lines:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _drawn(columns: Sequence[str], rows: list[list[str]]) -> None:
    from rich.console import Console  # rule 5
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*[column.upper() for column in columns], box=None, pad_edge=False, header_style="bold")
    for row in rows:
        drawn.add_row(*[Text(cell) for cell in row])
    Console(highlight=False).print(drawn)


class Steps:
    """The steps of a connect as they run: a terminal's last line is the running one, elsewhere each is one line at its end.
    A page that a person must open stands on lines of its own, in both."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._links: set[str] = set()

    def show(self, step: dict[str, Any]) -> None:
        self._show_link(step.get("link"))
        state = str(step.get("state", ""))
        line = f"{_MARKS.get(state, '·')} {clean(step.get('step', ''))}  {first_line(step.get('detail', ''))}".rstrip()
        if state != "running":
            say(f"{_LINE_AGAIN}{line}" if self._live else line)
        elif self._live:
            print(f"{_LINE_AGAIN}{line} …", end="", flush=True)

    @property
    def linked(self) -> bool:
        """Whether there is a page to open."""
        return bool(self._links)

    def _show_link(self, link: object) -> None:
        if isinstance(link, str) and link not in self._links:
            self._links.add(link)
            self.interrupted()
            show_link(link)

    def interrupted(self) -> None:
        if self._live:
            print(_LINE_AGAIN, end="", flush=True)


def show_link(link: object) -> None:
    say(f"Open this page to sign in:\n  {clean(link)}")


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says on a terminal what is being waited for, once it takes a while."""
    if not sys.stderr.isatty():
        yield
        return
    shown = threading.Event()

    def show() -> None:
        shown.set()
        print(f"{_MARKS['running']} {what} …", end="", file=sys.stderr, flush=True)

    timer = threading.Timer(QUIET_FOR, show)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if shown.is_set():
            print(_LINE_AGAIN, end="", file=sys.stderr, flush=True)
