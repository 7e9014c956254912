"""Logs: one JSON object a line on standard error; whoever started the program says which file that is.

Our own events come from structlog; what libraries write with `logging` takes the same way out. The last step before the line is
written is `Redaction` (rootlink/redaction.py). uvicorn's access log stays off: it prints query strings.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import msgspec
import structlog

from rootlink.redaction import Redactor

QUIET = {
    "uvicorn.access": logging.CRITICAL,
    "uvicorn.error": logging.WARNING,
    "asyncio": logging.WARNING,
    "alembic": logging.WARNING,
}


class Redaction:
    """A structlog processor that keeps what `redactor` knows out of every event."""

    def __init__(self, redactor: Redactor) -> None:
        self._redact = redactor

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {self._redact(name): self._clean(value) for name, value in event.items()}

    def _clean(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {self._redact(str(name)): self._clean(item) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(item) for item in value]
        return self._redact(value if isinstance(value, str) else str(value))


def _line(logger: object, method: str, event: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode("utf-8", "replace")


def set_up(program: str, level: str, redactor: Redactor | None = None) -> None:
    """Send every log of this process to standard error, from `level` up. What `redactor` learns later is hidden too."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(program),
    ]
    last: list[Any] = [structlog.processors.format_exc_info, *([Redaction(redactor)] if redactor else []), _line]
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
