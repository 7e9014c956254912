"""The scripts that a worker posts to its isolates: prelude.js with its blanks filled, and every word to the bridge it makes.

arming    once in a new isolate: the prelude, a call of nothing that compiles its lazy code, the freezing
bind      once a function: compiles it
begin, deliver, drop    a step of a call; what it had to say comes out with `drain`, posted right behind
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from rootlink.engine.functions.isolates import wrapping
from rootlink.engine.functions.isolates.frames import Definition, WorkerLimits

PROVIDED = (
    "fetch", "Request", "Response", "Headers", "ReadableStream", "WritableStream", "TransformStream", "TextDecoderStream",
    "TextEncoderStream", "FormData", "Blob", "File", "DOMException", "console", "setTimeout", "clearTimeout", "setInterval",
    "clearInterval", "performance", "queueMicrotask", "globalThis", "crypto", "AbortController", "AbortSignal", "URL",
    "URLSearchParams", "TextEncoder", "TextDecoder", "atob", "btoa", "structuredClone",
)  # fmt: skip
"""What prelude.js offers a body, by name (its `offers`)."""


class Prelude:
    """Of one worker. The bridge's name is not to be guessed by a body."""

    def __init__(self, limits: WorkerLimits) -> None:
        folder = Path(__file__).parent
        apis = {path.stem: _without_comments(path) for path in (folder / "apis").glob("*.js")}
        given = {
            "output": limits.output_chars,
            "logLines": limits.log_lines,
            "logChars": limits.log_chars,
            "operations": limits.operations,
            "operationChars": limits.operation_chars,
            "depth": limits.depth,
        }
        self._bridge = bridge = "k" + secrets.token_hex(12)
        text = _without_comments(folder / "prelude.js").replace("KEY", bridge)
        text = text.replace("'LIMITS'", json.dumps(given)).replace("'APIS'", json.dumps(apis))
        self.arming = (text, f"{bridge}.warm()", f"{bridge}.lock()")
        self.drain = f"{bridge}.drain()"

    def bind(self, definition: Definition) -> str:
        """The source starts on line 1, so the line numbers of errors are its author's."""
        source, names = definition.source, mentioned(definition.source)
        head = f'{self._bridge}.bind({json.dumps(names)},({",".join(names)})=>{{"use strict";return ('
        where = f"{json.dumps(definition.name)},{len(head) + wrapping.lead(source)}"
        return f"{head}{source}\n)}},{where})\n//# sourceURL={wrapping.BODY}"

    def begin(self, verb: str, call: int, payload: bytes) -> str:
        """`verb`: run or probe."""
        return self._said(verb, call, _literal(payload.decode()))

    def deliver(self, call: int, body: bytes) -> str:
        operation, _, answer = body.decode().partition(" ")
        return self._said("deliver", call, int(operation), _literal(answer))

    def drop(self, call: int) -> str:
        return self._said("drop", call)

    def _said(self, verb: str, *arguments: object) -> str:
        return f'"use strict";{self._bridge}.{verb}({",".join(map(str, arguments))})'


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _without_comments(path: Path) -> str:
    """Lines that are but a comment would be kept in every isolate, and their dashes make V8 take two bytes a character."""
    lines = path.read_text("utf-8").splitlines()
    return "\n".join(line.strip() for line in lines if not line.lstrip().startswith("// "))


def mentioned(source: str) -> list[str]:
    """Which of the provided names a source can mean: only those are made for its calls, so an unused API costs nothing."""
    if "eval" in source or "\\u" in source:
        return list(PROVIDED)
    return [name for name in PROVIDED if name in source]
