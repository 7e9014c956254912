"""Engines behind a door: who is the keeper of which, and what it all takes.

An engine behind a door is in a pid namespace of its own, where it has a number that means nothing here. The kernel translates:
the credentials of a unix socket's listener (SO_PEERCRED, unix(7)) and the holders in `/proc/locks` come with the numbers of
whoever looks. Kept light: `up` and `down` import this.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from rootlink.provisioner.launch import identity
from rootlink.provisioner.launch.identity import Identity

_KEEPER = b"rootlink.door.keeper", b"/rootlink/door/keeper.py"  # how its command line names it (`door/plan.py`)
_PAGE = os.sysconf("SC_PAGE_SIZE")


def listener(path: str, within: float = 1.0) -> Identity | None:
    """The process that listens on this unix socket; None when none does, or the kernel does not tell. Blocks, hardly."""
    if not identity.LINUX:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(within)
        try:
            link.connect(path)
            credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    return identity.identify(struct.unpack("3i", credentials)[0])


def whole(engine: Identity) -> Identity:
    """The process whose end is the end of all that came of this engine: its keeper, if it has one, or itself."""
    found, above = engine, identity.parent(engine)
    while above is not None and above.pid > 1:
        if _is_keeper(above.pid):
            found = above
        above = identity.parent(above)
    return found


def _is_keeper(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word.endswith(_KEEPER) for word in words)


def memory(processes: Iterable[Identity]) -> int:
    """Bytes, shared pages counted once (PSS); of what may not be looked into closely, its resident ones."""
    return sum(_memory(process.pid) for process in processes)


def _memory(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
