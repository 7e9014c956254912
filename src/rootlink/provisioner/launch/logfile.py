"""Log files that do not grow for ever while who writes them runs on.

A writer has its file open and does not look at the name, so the file stays and is emptied, after a copy was put beside it. Every
log of ours is opened with O_APPEND (`programs/up.py`, `launch/process.py`), so the next line goes to the new end: the start.
What is written between the copy and the cut is lost; there is at most one earlier copy.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)
CAP = 32 * 1024 * 1024  # bytes; a log found above it is put aside


def cap(folder: Path, most: int = CAP) -> None:
    """Put aside every `*.log` in `folder` that has more than `most` bytes. On a full disk it is cut without a copy."""
    for path in folder.glob("*.log"):
        try:
            if path.stat().st_size > most and not path.is_symlink():
                _put_aside(path)
        except OSError as error:
            log.warning("log not cut", file=path.name, reason=error.strerror)


def _put_aside(path: Path) -> None:
    copy = path.with_suffix(".log.1")
    copy.unlink(missing_ok=True)
    try:
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        shutil.copyfile(path, copy)
    except OSError:
        copy.unlink(missing_ok=True)
    os.truncate(path, 0)
