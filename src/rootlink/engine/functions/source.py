"""A body is one JavaScript expression, or statements of which the last one is; and how V8's complaint about it reads.

The worker compiles `(SOURCE` newline `)` and `[SOURCE` newline `]`: a source that closes the one bracket can't close the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from rootlink.errors import Invalid

MAX_BYTES = 1 << 20
_MAX_READINGS = 8
_TRAILING = " \t\r\n;\ufeff\u2028\u2029\xa0"
_COMPLAINT = re.compile(r"[^:\n]*:(\d+): ([^\n]*)(?:\n([^\n]*)\n( *)\^)?")
_WRAPPER = re.compile(r'"use strict";throw 0;[(\[]')
HINT = "the body must be one expression that evaluates to a function, such as: async (input, ctx) => ({ hello: input.name })"


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


def as_statements(code: str) -> str:
    """`code` as the body of a function that is never called: an expression that compiles if the statements do."""
    return f"()=>{{\n{code}\n}}"


def as_script(code: str, name: str) -> str:
    """`code` as statements: an expression whose value is that of the last one. A string can't close what is around it."""
    named = f"{code}\n//# sourceURL={name}.js"  # so that errors name the author's lines
    return f"eval({json.dumps(named)})"


def complaint(text: str, lines: int) -> str:
    """What V8 said of a source of so many lines, as a person would put it."""
    found = _COMPLAINT.match(text)
    if found is None:
        return f"the code does not compile: {text.strip()[:300] or 'V8 gave no reason'}"
    line, message, shown, indent = int(found[1]), found[2][:300], found[3], found[4]
    if line > lines:
        return f"the code does not compile: {message} after its last line: something is not closed; {HINT}"
    if shown is None:
        return f"the code does not compile: {message}; {HINT}"
    prefix = _WRAPPER.match(shown)
    skipped = prefix.end() if prefix and line == 1 else 0
    column = max(len(indent) - skipped, 0) + 1
    return f"the code does not compile: {message} at line {line}, column {column}: {shown[skipped:].strip()[:120]} ({HINT})"
