"""How runs of functions are shown to a person, and lines of code with the place where something went wrong.

Everything of a run is foreign text: logs, errors, hosts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from rootlink.cli.screen import clean, count, hint, say, say_foreign

MAX_FRAMES, MAX_WIDTH = 12, 120
PLACE = re.compile(r"at line (\d+), column (\d+)")
LINE_END = re.compile("\r\n|[\n\r\u2028\u2029]")
DENIED_SHOWN = 10


def excerpt(code: str, line: int, column: int) -> list[str]:
    """The line, with a caret under the column. Both count from 1, a column in UTF-16 units, as V8 counts. [] if there is none."""
    lines = LINE_END.split(code)
    if not 0 < line <= len(lines):
        return []
    text = lines[line - 1]
    at = len(text.encode("utf-16-le", "surrogatepass")[: 2 * max(column - 1, 0)].decode("utf-16-le", "ignore"))
    start = max(at - MAX_WIDTH // 2, 0)
    shown, before = text[start : start + MAX_WIDTH], text[start:at]
    margin = f"{line:>5} | "
    indent = "".join("\t" if one == "\t" else " " for one in clean(before))
    return [margin + clean(shown), " " * (len(margin) - 2) + "| " + indent + "^"]


def place_in(message: str) -> tuple[int, int] | None:
    """Where a refusal of a body says that it does not compile."""
    found = PLACE.search(message)
    return (int(found[1]), int(found[2])) if found else None


def show_outcome(name: str, run: dict[str, Any], code: str | None) -> None:
    """What an invocation came to: what was logged and what went wrong to stderr, the output to stdout. `code`: of its version."""
    for line in run.get("logs") or []:
        hint(clean(line["text"]))
    if run["status"] != "ok":
        hint(f"rootlink: {run['status']}: {' '.join(in_short(run).split())}")
        for line in _details(run.get("error") or {}, code):
            hint(line)
        hint(f"All of this run: rootlink function run {name} {run['run_id']}")
    elif run.get("output") is None and run.get("output_bytes", 0) > len("null"):
        hint(f"its output of {count(run['output_bytes'], 'byte')} was too large to keep")
    else:
        say_foreign(_json(run.get("output")))
    if run.get("replayed"):
        hint(f"It did not run again: {run['run_id']} ran with this key before.")


def show(name: str, run: dict[str, Any], code: str | None) -> None:
    """Everything that is kept of a run."""
    say(f"run       {clean(run['run_id'])} of {clean(name)} version {run.get('version')}, started by {run.get('trigger')}")
    say(f"status    {run['status']}")
    say(f"started   {run.get('started_at')}")
    say(f"took      {run.get('duration_ms')} ms, {run.get('cpu_ms')} ms of them on the CPU")
    if run.get("tool_calls"):
        say(f"tools     {count(run['tool_calls'], 'call')}")
    say(f"input     {count(run.get('input_bytes', 0), 'byte')}, not kept")
    if run.get("error"):
        say(f"error     {' '.join(in_short(run).split())}")
        for line in _details(run["error"], code):
            say(line)
    for line in _console(run):
        say(line)
    for line in _denied(run.get("denied") or []):
        say(line)
    if run["status"] == "ok":
        large = run.get("output") is None and run.get("output_bytes", 0) > len("null")
        say(f"output    {count(run['output_bytes'], 'byte')}{', too large to keep' if large else ''}")
        if not large:
            say_foreign(_json(run.get("output")))


def in_short(run: dict[str, Any]) -> str:
    error = run.get("error") or {}
    return clean(": ".join(str(error[part]) for part in ("name", "message") if error.get(part)))


def _details(error: dict[str, Any], code: str | None) -> Iterator[str]:
    """The source line, the stack, and what can be done."""
    if code is not None and isinstance(error.get("line"), int):
        yield from excerpt(code, error["line"], error.get("column") or 1)
    frames = [line for line in str(error.get("stack") or "").split("\n") if line.lstrip().startswith("at ")]
    yield from (f"    {clean(frame).strip()}" for frame in frames[:MAX_FRAMES])
    yield from (clean(line) for line in str(error.get("hint") or "").splitlines())


def _console(run: dict[str, Any]) -> Iterator[str]:
    logs = run.get("logs") or []
    if logs or run.get("logs_truncated"):
        yield f"console   {count(len(logs), 'line')}{', and more that was not kept' if run.get('logs_truncated') else ''}"
        yield from (f"  {line.get('level', ''):<5} {clean(line['text'])}" for line in logs)


def _denied(denied: list[dict[str, Any]]) -> Iterator[str]:
    if denied:
        yield f"refused   {count(len(denied), 'host')}"
    for one in denied[:DENIED_SHOWN]:
        times = f" ({one['count']} times)" if one.get("count", 1) > 1 else ""
        yield f"  {clean(one['message'])}{times}"
        if one.get("host") and str(one["message"]).endswith("is not in this project's outbound allowlist"):
            yield f"    to allow it: rootlink egress allow {clean(_rule(one))}"
    if len(denied) > DENIED_SHOWN:
        yield "  and more; see: rootlink egress denied"


def _rule(denied: dict[str, Any]) -> str:
    host, port = str(denied["host"]), denied.get("port")
    if port in (None, 0, 80, 443):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
