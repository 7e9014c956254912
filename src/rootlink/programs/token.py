"""The admin token of this home: whoever can read the file may do everything on `/v1`."""

from __future__ import annotations

import secrets
from pathlib import Path

from rootlink.errors import Unavailable
from rootlink.programs.record import write_private


def admin_token(path: Path) -> str:
    """Made at the first start, mode 0600. Raises Unavailable when it can't be read or written."""
    try:
        found = path.read_text().strip()
    except FileNotFoundError:
        found = ""
    except OSError as error:
        raise Unavailable(f"the admin token {path} can't be read: {error.strerror}") from None
    if not found:
        found = secrets.token_hex(32)
        write_private(path, f"{found}\n".encode())
    return found
