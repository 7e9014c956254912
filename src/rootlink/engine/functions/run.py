"""One run of a function, as it is answered (CONTRACT §3) and kept.

ok       the body returned; `output` is its result
error    the body threw, its result was not JSON, or its input was refused (then no isolate was touched)
timeout  it took longer than the function's timeout, or burnt CPU for as long without a pause
killed   it was stopped for another reason: memory, its isolate's process ended, the caller went away, the engine stops
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

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
    """How a call ended. `error` is {name, message, stack} unless `status` is ok. `output_bytes` is of its JSON."""

    status: Status
    output: Any = None
    error: dict[str, str] | None = None
    output_bytes: int = 0


class Run(msgspec.Struct, frozen=True):
    """`duration_ms` is wall time, `cpu_ms` of its isolate alone, `started_at` RFC 3339 in UTC. Of the input only the size of its
    JSON is kept. `trigger`: api, mcp, tool (another function), cron or webhook."""

    run_id: str
    function: str
    version: int
    status: Status
    output: Any
    error: dict[str, str] | None
    logs: list[LogLine]
    duration_ms: float
    started_at: str
    trigger: str
    input_bytes: int = 0
    output_bytes: int = 0
    cpu_ms: float = 0.0
    denied: list[Denied] = []
    tool_calls: int = 0


def failed(name: str, message: str, *, status: Status = "error", stack: str = "") -> Outcome:
    return Outcome(status, error={"name": name, "message": message, "stack": stack})


def timestamp(seconds: float) -> str:
    """RFC 3339 with milliseconds, of Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
