"""One key in one file: 64 hex digits and a line end.

Rule 1. A file is whole or not there: written beside its place, synced, put into place in one step, the folder synced.
Rule 2. `create` never overwrites a key: a lost private key is a lost vault. If two programs create at once, one key wins.
Rule 3. A private key that others may read is refused, as ssh does it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootlink.errors import Unavailable

_KEY = re.compile(rb"[0-9a-f]{64}\n?\Z")


def read(path: Path, *, private: bool = False) -> bytes:
    """The key's 32 bytes. `Unavailable`: missing, unreadable, not a key, or (`private`) open to others."""
    text = _content(path, private)
    if not _KEY.match(text):
        raise Unavailable(f"{path} is not a sealing key (64 hex digits): restore it from a backup")
    return bytes.fromhex(text.decode().strip())


def holds(path: Path, key: bytes) -> bool:
    """Whether the file is there and holds this (public) key."""
    try:
        return read(path) == key
    except Unavailable:
        return False


def create(path: Path, key: bytes, *, mode: int) -> None:
    """Rule 2: if the file is there already it stays as it is. `Unavailable` if it can't be written."""
    with _written(path, key, mode) as written, contextlib.suppress(FileExistsError):
        os.link(written, path)


def replace(path: Path, key: bytes, *, mode: int) -> None:
    """`Unavailable` if it can't be written."""
    with _written(path, key, mode) as written:
        written.replace(path)


def _content(path: Path, private: bool) -> bytes:
    try:
        with open(path, "rb") as file:
            permissions = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(128)
    except OSError as error:
        raise Unavailable(f"{path} can't be read: {error.strerror}") from None
    if private and permissions & 0o077:
        raise Unavailable(f"{path} is open to other users (mode {permissions:04o}): run `chmod 600 {path}`")
    return content


@contextmanager
def _written(path: Path, key: bytes, mode: int) -> Iterator[Path]:
    """A synced file beside `path` for the caller to put into place; the folder is synced afterwards."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _write(beside, f"{key.hex()}\n".encode(), mode)
            yield beside
        finally:
            beside.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise Unavailable(f"{path} can't be written: {error.strerror}") from None


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
