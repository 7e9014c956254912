"""The admin token of this home: whoever can read the file may do everything on `/v1`.

So a file that others may read is refused, as the private key is (`sealing/keyfile.py`): who has read it already can't be told,
and a person has to decide whether it still is a secret.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from rootlink.errors import Unavailable
from rootlink.programs.record import write_private


def admin_token(path: Path) -> str:
    """Made at the first start, mode 0600. Raises Unavailable when it can't be read or written, or is open to others."""
    try:
        with open(path, encoding="utf-8") as file:
            permissions = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            found = file.read().strip()
    except FileNotFoundError:
        found, permissions = "", 0
    except UnicodeDecodeError:
        raise Unavailable(f"the admin token {path} is no text; remove the file, and the next start makes another") from None
    except OSError as error:
        raise Unavailable(f"the admin token {path} can't be read: {error.strerror}") from None
    if found and permissions & 0o077:
        raise Unavailable(
            f"the admin token {path} is open to other users (mode {permissions:04o}): run `chmod 600 {path}`, or remove it if "
            "another user may have read it, and the next start makes another"
        )
    if not found:
        found = secrets.token_hex(32)
        write_private(path, f"{found}\n".encode())
    return found
