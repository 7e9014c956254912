"""A body's text: what may be one, how it may be read as an expression, and how a complaint about it reads.

Lines end where JavaScript's do; columns count UTF-16 units from 1, as V8 and editors do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rootlink.engine.functions.isolates import wrapping
from rootlink.errors import Invalid

MAX_BYTES = 1 << 20
_MAX_READINGS = 8
_TRAILING = " \t\r\n;\ufeff\u2028\u2029\xa0"
_COMPLAINT = re.compile(r"[^:\n]*:(\d+): ([^\n]*)(?:\n([^\n]*)\n( *)\^)?")
HINT = "the body must be one expression that evaluates to a function, such as: async (input, ctx) => ({ hello: input.name })"
EXPORTED = "write: export default async (input, ctx) => ({ hello: input.name })"
_TOP_LEVEL_AWAIT = (
    "nothing can be awaited at the top level, which is evaluated anew for each run: put `await` inside the function"
)
NO_IMPORT = (
    "a function is one file and can't import: put the code it needs into it, and reach services with fetch or ctx.tools.call"
)
_DECORATOR = "decorators (@name) are not JavaScript yet: call the function instead"
_HINTS = (  # for what V8 says of what people write most
    (r"Cannot use import statement|Cannot use 'import\.meta'", NO_IMPORT),
    (r"Unexpected reserved word|await is only valid", f"{_TOP_LEVEL_AWAIT}, which must be async"),
    (r"Illegal return statement", f"nothing can be returned at the top level; {EXPORTED}"),
)


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with a source. `line` None: no place is known; a line behind the last: it is not complete."""

    message: str
    line: int | None = None
    column: int = 1
    hint: str = HINT

    @property
    def place(self) -> tuple[int, int]:
        return (self.line or 0, self.column)

    def refusal(self, code: str) -> Invalid:
        """The error for the author of `code`, naming the place in it; its `data` is {line, column} where that is known."""
        start = f"the code does not compile: {self.message}"
        if self.line is None:
            return Invalid(start if self.hint == HINT else f"{start}; {self.hint}")
        shown = line_of(code, self.line)
        if shown is None:
            line, column = place(code, len(code))
            end = f"the code does not compile: it ends, at line {line}, column {column}, before it is complete; {self.hint}"
            return Invalid(end, data={"line": line, "column": column})
        shown = shown.strip()[:120]
        where = {"line": self.line, "column": self.column}
        return Invalid(f"{start} at line {self.line}, column {self.column}: {shown} ({self.hint})", data=where)


def check_size(code: str) -> None:
    """Raises Invalid for an empty, oversized or ill-formed source."""
    if not code.strip(_TRAILING):
        raise Invalid(f"the code is empty; {HINT}")
    try:
        size = len(code.encode())
    except UnicodeEncodeError:
        raise Invalid("the code holds a lone surrogate, which no file can; send it as UTF-8") from None
    if size > MAX_BYTES:
        raise Invalid(f"the code is {size} bytes; at most {MAX_BYTES} are allowed")


def plain(code: str) -> str:
    """Without what only the beginning of a file may hold: a byte order mark is no editor's column, `#!` is a comment."""
    code = code.removeprefix("\ufeff")
    return f"//{code[2:]}" if code.startswith("#!") else code


def readings(code: str) -> Iterator[str]:
    """`code` without what may trail an expression in a file: semicolons first, then comments, one more with each reading.

    Where a comment begins can't be told from the end, so each is a guess for the compiler to judge.
    """
    code = code.rstrip(_TRAILING)
    yield code
    for _ in range(_MAX_READINGS - 1):
        line = code.rfind("\n") + 1
        start = code.rfind("/*") if code.endswith("*/") else code.rfind("//", line)
        if start < 0:
            return
        code = code[:start].rstrip(_TRAILING)
        yield code


def complaint(text: str) -> Complaint:
    """What V8 said of a script that `wrapping.checked` made."""
    found = _COMPLAINT.match(text)
    if found is None:
        return Complaint(text.strip()[:300] or "V8 gave no reason")
    line, message, shown, indent = int(found[1]), found[2][:300], found[3], found[4]
    hint = next((words for pattern, words in _HINTS if re.search(pattern, message)), HINT)
    if shown is None or line < 1:
        return Complaint(message, hint=hint)
    if shown[len(indent) : len(indent) + 1] == "@":
        hint = _DECORATOR
    skipped = wrapping.check_lead(shown) if line == 1 else 0
    return Complaint(message, line, max(len(indent) - skipped, 0) + 1, hint)


def offset(code: str, line: int, column: int) -> int:
    """Where in a Python string a place is."""
    lines = _even(code).split("\n", line)[:line]
    start = sum(map(len, lines[:-1])) + len(lines) - 1
    text = code[start : start + column].encode("utf-16-le", "surrogatepass")[: (column - 1) * 2]
    return start + len(text.decode("utf-16-le", "replace"))


def place(code: str, at: int) -> tuple[int, int]:
    """The line and column of an offset."""
    before = _even(code[:at])
    return before.count("\n") + 1, units(before[before.rfind("\n") + 1 :]) + 1


def line_of(code: str, line: int) -> str | None:
    """A line by its number; None: behind the last. No regular expression, since a source may be a million lines."""
    lines = _even(code).split("\n", line)
    return lines[line - 1] if len(lines) >= line else None


def _even(code: str) -> str:
    """The same, as long, with every line ended by one newline."""
    return code.replace("\r\n", " \n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")


def units(text: str) -> int:
    """Its length as JavaScript counts."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
