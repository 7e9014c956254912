"""What a running program leaves in `run/` for others to find it by: a record of who it is, and a lock that ends with it.

Light on purpose: `up`, `down` and `status` read these.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from rootlink.errors import Unavailable
from rootlink.provisioner.launch import hold, identity
from rootlink.provisioner.launch.identity import Identity


class Record:
    """A JSON file (0600): `pid`, `start` (the moment it started, as `launch/identity.py` has it), and what else to know."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, **more: Any) -> None:
        me = identity.identify(os.getpid())
        assert me is not None
        write_private(self.path, msgspec.json.encode({"pid": me.pid, "start": me.start, **more}))

    def read(self) -> dict[str, Any]:
        """What it says; empty when there is none."""
        try:
            found = msgspec.json.decode(self.path.read_bytes())
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def process(self) -> Identity | None:
        """The process it is of, if that still runs."""
        found = self.read()
        pid, start = found.get("pid"), found.get("start")
        if not isinstance(pid, int) or not isinstance(start, str):
            return None
        recorded = Identity(pid, start)
        return recorded if identity.alive(recorded) else None

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def kept(self, **more: Any) -> Iterator[None]:
        """Written, and removed at the end."""
        self.write(**more)
        try:
            yield
        finally:
            self.remove()


@contextlib.contextmanager
def alone(path: Path, words: str) -> Iterator[None]:
    """Hold the lock `path`, which says by whom (`launch/hold.py`); the kernel lets go of it when this process ends, however it
    ends. Raises Conflict with `words`, Unavailable."""
    try:
        lock = hold.take(path, words)
    except OSError as error:
        raise Unavailable(f"{path} can't be locked: {error.strerror}") from None
    try:
        yield
    finally:
        os.close(lock)


def write_private(path: Path, content: bytes) -> None:
    """Whole or not at all, mode 0600. Raises Unavailable."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        beside.replace(path)
    except OSError as error:
        raise Unavailable(f"{path} can't be written: {error.strerror}") from None
