"""Logs: one JSON object a line on standard error; whoever started the program says which file that is.

Our own events come from structlog; what libraries write with `logging` takes the same way out. The last step before the line is
written is `Redaction`: a known value is replaced wherever it stands, as it is or in one of the forms it takes on its way
(base64 at any alignment, base64url, hex, URL-quoted, JSON-escaped). uvicorn's access log stays off: it prints query strings.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec
import structlog

MASK = "[redacted]"
SHORTEST = 6  # characters; a shorter value would blank out innocent text
QUIET = {
    "uvicorn.access": logging.CRITICAL,
    "uvicorn.error": logging.WARNING,
    "asyncio": logging.WARNING,
    "alembic": logging.WARNING,
}


def forms(value: str) -> set[str]:
    """Every way `value` may be written in a log line."""
    raw = value.encode("utf-8", "surrogatepass")
    escaped = {json.dumps(value, ensure_ascii=ascii)[1:-1] for ascii in (True, False)}
    found = {value, repr(value)[1:-1], *escaped, *(text.replace("/", "\\/") for text in escaped)}
    found |= {raw.hex(), raw.hex().upper(), quote(raw, safe=""), quote(raw), quote_plus(raw)}
    for shift in range(3):  # the value may begin at any byte of a longer text that was encoded whole
        whole = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        start = (0, 2, 3)[shift]  # characters that also hold bits of what stands before it
        core = whole[start : len(whole) - (0 if (len(raw) + shift) % 3 == 0 else 1)]  # the last one holds bits of what follows
        found |= {core, core.replace("+", "-").replace("/", "_")}
    return {form for form in found if len(form) >= SHORTEST}


class Redaction:
    """Known values to be kept out of text; also a structlog processor."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.learn(values)

    def learn(self, values: Iterable[str]) -> None:
        new = {value for value in values if len(value) >= SHORTEST} - self._values
        if new:
            self._values |= new
            known = sorted({form for value in self._values for form in forms(value)}, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, known)))

    def text(self, text: str) -> str:
        return self._pattern.sub(MASK, text) if self._pattern else text

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {self.text(name): self._clean(value) for name, value in event.items()} if self._pattern else event

    def _clean(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {self.text(str(name)): self._clean(item) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(item) for item in value]
        return self.text(value if isinstance(value, str) else str(value))


def _line(logger: object, method: str, event: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode("utf-8", "replace")


def set_up(program: str, level: str, redaction: Redaction | None = None) -> None:
    """Send every log of this process to standard error, from `level` up."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(program),
    ]
    last: list[Any] = [structlog.processors.format_exc_info, *([redaction] if redaction else []), _line]
    number = getattr(logging, level.upper())
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    out = logging.StreamHandler(sys.stderr)
    out.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    logging.basicConfig(handlers=[out], level=number, force=True)
    for name, quiet in QUIET.items():
        logging.getLogger(name).setLevel(max(quiet, number))


def _named(program: str) -> Any:
    def add(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["program"] = program
        return event

    return add
