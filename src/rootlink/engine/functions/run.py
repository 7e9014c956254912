"""One run of a function, as it is answered (CONTRACT §3) and kept.

ok       the body returned; `output` is its result
error    the body threw, its result was not JSON, or its input was refused (then no isolate was touched)
timeout  it took longer than the function's timeout, or burnt CPU for as long without a pause
killed   it was stopped for another reason: memory, its isolate's process ended, the caller went away, the engine stops

`error` is {name, message, stack}, with `line` and `column` of the author's source where they are known (both from 1), and `hint`,
what a person can do about hosts that the run was refused.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

_MAX_STACK = 8000
_FRAME = re.compile(r"^ {4}at [^\n]*?\.[jt]s:(\d{1,9}):(\d{1,9})\)?", re.MULTILINE)

Status = Literal["ok", "error", "timeout", "killed"]


class LogLine(msgspec.Struct, frozen=True):
    """`level`: log, info, warn, error or debug. `time` is RFC 3339 in UTC."""

    level: str
    text: str
    time: str


class Denied(msgspec.Struct, frozen=True):
    """A host that the run was refused, `count` times. `message`: what the body was told."""

    host: str
    port: int | None
    message: str
    count: int = 1


class Outcome(msgspec.Struct, frozen=True):
    """How a call ended. `error` is null if `status` is ok. `output_bytes` is of its JSON."""

    status: Status
    output: Any = None
    error: dict[str, Any] | None = None
    output_bytes: int = 0
    response: bool = False


class Run(msgspec.Struct, frozen=True):
    """`duration_ms` is wall time, `cpu_ms` of its isolate alone, `started_at` RFC 3339 in UTC. Of the input only the size of its
    JSON is kept. `trigger`: api, mcp, tool (another function), cron or webhook. `output_bytes` beside a null `output`: it was too
    large to keep. `logs_truncated`: there was more. `replayed`: a run that an earlier call with the same key began.
    `response`: the body returned a `Response`, and `output` is its {status, headers, body or body_base64}."""

    run_id: str
    function: str
    version: int
    status: Status
    output: Any
    error: dict[str, Any] | None
    logs: list[LogLine]
    duration_ms: float
    started_at: str
    trigger: str
    input_bytes: int = 0
    output_bytes: int = 0
    cpu_ms: float = 0.0
    denied: list[Denied] = []
    tool_calls: int = 0
    logs_truncated: bool = False
    replayed: bool = False
    response: bool = False


def failed(name: str, message: str, *, status: Status = "error", stack: str = "") -> Outcome:
    """`stack`: as the isolate wrote it; `line` and `column` are those of its first frame in the author's file."""
    return Outcome(status, error={"name": name, "message": message, "stack": stack, **_place(stack, f"{name}: {message}")})


def _place(stack: str, heading: str) -> dict[str, int]:
    """Of text that the body may have made up. Not of what its message says."""
    found = _FRAME.search(stack[:_MAX_STACK].removeprefix(heading))
    return {"line": int(found[1]), "column": int(found[2])} if found else {}


def shortened(logs: list[LogLine], most: int) -> list[LogLine]:
    """As much of them, from the beginning, as `most` bytes of UTF-8 are; the very same list when they all are."""
    if sum(len(line.text) for line in logs) * 4 <= most:  # no character has more than four bytes
        return logs
    kept, left = [], most
    for line in logs:
        text = line.text.encode()
        if len(text) > left:
            kept.append(LogLine(line.level, text[:left].decode(errors="ignore"), line.time))
            return kept
        kept.append(line)
        left -= len(text)
    return logs


def timestamp(seconds: float) -> str:
    """RFC 3339 with milliseconds, of Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
