"""Known secrets out of a run: of its error, its console and the hosts it was refused, always; of its output where it is kept.

Pure, and safe in any thread. An output is its caller's: it is answered as it is.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rootlink.engine.functions.hints import hint
from rootlink.engine.functions.ledger import KEPT_OUTPUT_BYTES
from rootlink.engine.functions.run import Denied, LogLine, Run, shortened
from rootlink.redaction import Redactor

ERROR_CHARS: Final = {"name": 200, "message": 4000, "stack": 8000, "hint": 4000}
LOG_BYTES: Final = 1 << 20  # of a run; an isolate stops before
_BETWEEN: Final = "\0\x1e\0"  # of log lines that are looked through as one text


def size(run: Run) -> int:
    """Characters to look through, about."""
    return sum(len(line.text) for line in run.logs) + (run.output_bytes if run.output_bytes <= KEPT_OUTPUT_BYTES else 0)


def cleaned(run: Run, hide: Redactor) -> tuple[Run, Run]:
    """As it is answered, and as it is written down."""
    logs = shortened(run.logs, LOG_BYTES)
    run = msgspec.structs.replace(
        run,
        error=run.error and _told(run.error, run.denied, hide),
        logs=_hidden(logs, hide),
        logs_truncated=logs is not run.logs,
        denied=[Denied(hide(one.host), one.port, hide(one.message), one.count) for one in run.denied],
    )
    return run, _without_output(run, hide)


def _told(error: dict[str, Any], denied: list[Denied], hide: Redactor) -> dict[str, Any]:
    """The error as its caller reads it."""
    words = hint(error, denied)
    told = {**error, "hint": words} if words else error
    return {
        member: hide(value[: 2 * ERROR_CHARS[member]])[: ERROR_CHARS[member]] if member in ERROR_CHARS else value
        for member, value in told.items()
    }


def _hidden(logs: list[LogLine], hide: Redactor) -> list[LogLine]:
    """In one go: to look for every secret in every line takes too long."""
    joined = _BETWEEN.join(line.text for line in logs)
    hidden = hide(joined)
    if hidden == joined:
        return logs
    texts = hidden.split(_BETWEEN)
    if len(texts) != len(logs):
        texts = [hide(line.text) for line in logs]
    return [LogLine(line.level, text, line.time) for line, text in zip(logs, texts, strict=True)]


def _without_output(run: Run, hide: Redactor) -> Run:
    """A number may be spelt like a secret; with its mark the text is no JSON any more, and the output is not kept."""
    if run.output_bytes > KEPT_OUTPUT_BYTES:
        return run  # not kept
    said = msgspec.json.encode(run.output).decode()
    hidden = hide(said)
    if hidden == said:
        return run
    try:
        output = msgspec.json.decode(hidden)
    except msgspec.DecodeError:
        output = None
    return msgspec.structs.replace(run, output=output)
