"""How a body stands in V8: every form is one expression, which `(SOURCE` newline `)` and `[SOURCE` newline `]` must both take.

    expression    the author's own, as it is
    module        (make=>make())(()=>{ STATEMENTS newline return NAME})       NAME is what it exports by default
    script        eval(/*script*/"STATEMENTS")                                its value is that of the last statement

A source that closes the one bracket can't close the other, so none of it is ever outside. Of statements the one bracket is a
class's static block: a method may stand behind what closes that, and only a comma or a bracket behind what closes a function.

What stands around the author's text is on its first line and behind its last: lines are the author's own, and so are columns once
`lead` is taken off those of the first line.
"""

from __future__ import annotations

import json

BODY = "rootlink:body"
"""What V8 calls the script a body is in; prelude.js shows the name of the author's file in its place."""

_MODULE, _RETURN, _END = "(make=>make())(()=>{", "\nreturn ", "})"
_SCRIPT = "eval(/*script*/"
_CHECKED = '"use strict";throw 0;'
_STATIC = "(class{static{"


def as_module(statements: str, exported: str) -> str:
    return f"{_MODULE}{statements}{_RETURN}{exported}{_END}"


def as_script(statements: str, file: str) -> str:
    """`file` names the places in it: what a body evaluates has no other name."""
    return f"{_SCRIPT}{json.dumps(f'{statements}{chr(10)}//# sourceURL={file}')})"


def checked(source: str) -> tuple[str, str]:
    """Two scripts that both compile only if the source is one expression, and throw 0 before any of it runs."""
    statements = _statements(source)
    first = f"({source}\n)" if statements is None else f"{_STATIC}{statements}\n}}}}\n)"
    return f"{_CHECKED}{first}", f"{_CHECKED}[{source}\n]"


def lead(source: str) -> int:
    """How many UTF-16 units of the first line are not its author's; of a script all: its text has lines of its own."""
    if _statements(source) is None:
        return 0
    return len(_MODULE) if source.startswith(_MODULE) else len(source)  # which is ASCII


def check_lead(shown: str) -> int:
    """As `lead`, of the first line of a script that `checked` made."""
    for around in (_STATIC, f"[{_MODULE}", "(", "["):
        if shown.startswith(_CHECKED + around):
            return len(_CHECKED + around)
    return 0


def _statements(source: str) -> str | None:
    """What is in a module or a script; None: the source is an expression. Anybody may write one that begins as these do."""
    if source.startswith(_MODULE) and source.endswith(_END):
        statements, found, exported = source[len(_MODULE) : -len(_END)].rpartition(_RETURN)
        if found and is_name(exported):
            return statements
    elif source.startswith(_SCRIPT) and source.endswith(")"):
        try:
            text = json.loads(source[len(_SCRIPT) : -1])
        except ValueError:
            return None
        if isinstance(text, str):
            return text
    return None


def is_name(word: str) -> bool:
    """Whether it may be a variable's, reserved words apart."""
    return word.replace("$", "_").isidentifier()
