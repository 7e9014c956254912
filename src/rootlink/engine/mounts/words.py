"""Which lines of a program's stderr say why it ended: not the frames of a stack, not the members of a dumped object."""

from __future__ import annotations

import re
from collections.abc import Iterable

_BESIDES = re.compile(rb"\s|[\]}){(\[,;^]*\s*\Z|Node\.js v[0-9.]+\s*\Z|node:internal/")


def telling(lines: Iterable[bytes]) -> list[bytes]:
    """Those that begin at the margin, as runtimes write messages and not what surrounds them. All, if none does."""
    written = [line for line in lines if line.strip()]
    return [line for line in written if not _BESIDES.match(line)] or written
