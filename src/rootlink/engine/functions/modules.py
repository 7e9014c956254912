"""A body written as a module: `export default` of a function, among other statements and exports.

V8 has no module here, so every `export` is taken out, with as many characters put in as taken away: the statements left are the
body of a function, and what was exported by default is what it returns. Which `export` is a statement, and not a word in a
comment, a string or a template, is V8's to say: where it is one, V8 stops at it ("Unexpected token 'export'").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rootlink.engine.functions.isolates import wrapping
from rootlink.engine.functions.source import EXPORTED, NO_IMPORT, Complaint, place

MAX_EXPORTS, MAX_AT_ONCE = 100, 1000
UNEXPECTED = "Unexpected token 'export'"
_WORD = re.compile(r"(?:\A|[;}\n\r/])[ \t]*(?:export|import)\b")
_LINE_END = re.compile("[\n\r\u2028\u2029]")
_HERE = re.compile(r"[ \t]*export\b")  # at a line's beginning, or behind a comment there
_TELLING = re.compile(r"^[ \t]*(export\b|/\*)|`|/\*|\\\r?$", re.MULTILINE)
_NAME = r"[\w$]+"
_SPACE = r"(?>\s|/\*.*?\*/|//[^\n]*\n)*+"
_FUNCTION = re.compile(rf"export(\s+)default(\s+)((?:async[ \t]+)?function\b{_SPACE}\*?{_SPACE})({_NAME})?", re.DOTALL)
_CLASS = re.compile(r"export\s+default\s+(?:abstract\s+)?class\b")
_DEFAULT = re.compile(r"export(\s+)default\b")
_DECLARATION = re.compile(r"export(?=\s+(?:const|let|var|function|async|class)\b)")
_LIST = re.compile(r"export\s*\{([^{}]*)\}(\s*from\b)?")
_AS_DEFAULT = re.compile(rf"(?:\A|,)\s*({_NAME})\s+as\s+(?:default|'default'|\"default\")\s*(?=,|\Z)")
_FROM = re.compile(r"export\s*\*")
_DYNAMIC = re.compile(r"(?<![\w$.#])import(?=\s*\()")
_NAMES = ("$default", "_default", *(f"$defaul{digit}" for digit in range(10)))

NOT_ONE = "only one function can be exported by default"
NO_CLASS = f"a class can't be called; {EXPORTED}"


class NotTaken(Exception):
    """An export, or an import, that a function can't have."""

    def __init__(self, complaint: Complaint) -> None:
        super().__init__(complaint.message)
        self.complaint = complaint


@dataclass(frozen=True, slots=True)
class Module:
    """`statements` is the code with the exports found so far taken out; `exported` names what it exports by default."""

    statements: str
    exported: str | None = None
    found: bool = False

    @property
    def source(self) -> str:
        return wrapping.as_module(self.statements, self.exported or "undefined")


def may_be_one(code: str) -> bool:
    """Whether a statement may begin with `export` or `import` in it."""
    return _WORD.search(code) is not None


def without_exports(module: Module, at: int) -> Module:
    """`at`: where V8 stopped at an `export`, or 0: so code, not text, is there. Takes out every export of which that is certain.

    Raises NotTaken.
    """
    for start in reversed(list(_certain(module.statements, at))[:MAX_EXPORTS]):
        module = _without(module, start)
    return module


def _certain(code: str, at: int) -> Iterator[int]:
    """Where exports are, at the beginning of a line, as long as no string, template or comment can reach over a line's end."""
    for _ in range(MAX_AT_ONCE):
        here = _HERE.match(code, at)
        if here is not None:
            yield here.end() - len("export")
            at = here.end()
        found = _TELLING.search(code, at)
        end = code.find("*/", found.end()) if found is not None and found[1] == "/*" else -1
        if found is not None and found[1] == "export":
            at = found.start()
        elif end >= 0:
            at = end + 2
        else:
            return


def _without(module: Module, at: int) -> Module:
    code = module.statements
    function = _FUNCTION.match(code, at)
    if _CLASS.match(code, at):
        raise NotTaken(_complaint(code, at, "a class is exported by default", NO_CLASS))
    if function is not None:
        declared = function[4] or _free(code)
        text = _blank(function[0][: -len(function[3] + (function[4] or ""))]) + function[3] + (function[4] or "")
        if function[4] is None:  # the name takes the place of what stood before
            text = _with_name(function[3], declared, _blank(function[1] + function[2]), len(function[0]))
        return _exporting(module, at, function.end(), text, declared)
    default = _DEFAULT.match(code, at)
    if default is not None:
        name = _free(code)
        space = default[1] if _LINE_END.search(default[1]) else default[1][1:]
        return _exporting(module, at, default.end(), f"var {name} ={space}", name)
    if declaration := _DECLARATION.match(code, at):
        return Module(code[:at] + _blank(declaration[0]) + code[declaration.end() :], module.exported, True)
    exports = _LIST.match(code, at)
    if _FROM.match(code, at) or (exports is not None and exports[2]):
        raise NotTaken(_complaint(code, at, "it exports from another file", NO_IMPORT))
    if exports is None:
        raise NotTaken(_complaint(code, at, "SyntaxError: this export is not JavaScript", EXPORTED))
    text = ";" + _blank(exports[0])[1:]
    names = _AS_DEFAULT.findall(exports[1])
    if not names:
        return Module(code[:at] + text + code[exports.end() :], module.exported, True)
    return _exporting(module, at, exports.end(), text, names[0])


def _exporting(module: Module, at: int, end: int, text: str, name: str) -> Module:
    if module.exported is not None:
        raise NotTaken(_complaint(module.statements, at, "it exports by default twice", NOT_ONE))
    return Module(module.statements[:at] + text + module.statements[end:], name, True)


def _with_name(function: str, name: str, before: str, length: int) -> str:
    """`async function*` and the name, in as many characters as `export default async function*` were, lines kept."""
    named = (
        f"{before.strip(' ')}{function.rstrip(' ')} {name}"
        if not function.rstrip().endswith("*")
        else f"{function.rstrip()}{name}"
    )
    return named + " " * (length - len(named))


def _blank(text: str) -> str:
    return re.sub(r"[^\s]", " ", text)


def _free(code: str) -> str:
    """A name that the code does not use."""
    return next((name for name in _NAMES if name not in code), "$default")


def _complaint(code: str, at: int, message: str, hint: str) -> Complaint:
    line, column = place(code, at)
    return Complaint(message, line, column, hint)


def without_dynamic_imports(source: str) -> str | None:
    """`source` with a word in place of each `import(` that V8 stops at, if that is code and not text; None: it has none."""
    changed = _DYNAMIC.sub("export", source)
    return None if changed == source else changed
