"""What nobody raised on purpose, in the log: its kind and where it happened. Never its words: they may quote a caller."""

from __future__ import annotations

import traceback
from typing import Any

import structlog

log = structlog.get_logger(__name__)

FRAMES = 8


def record(error: BaseException, **where: Any) -> None:
    """`where`: the request id, or what it was about; nothing of a body."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    log.error(
        "internal error", error=type(error).__name__, at=[f"{one.filename}:{one.lineno} {one.name}" for one in frames], **where
    )
