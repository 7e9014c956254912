"""Which paths of the machine may be shown behind a door, each held open from the moment it was judged.

A path is judged by where its descriptor leads (`/proc/self/fd/N`), never by its text, so nobody can put a symbolic link in the
way in between; bubblewrap checks that what it mounted is what it was given. Below a root that children write to no link is
followed at all: one child's link could otherwise show it another's folder.
"""

# ruff: noqa: PTH115, PTH116, PTH118
# (pathlib would be a third of the keeper's start)

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from rootlink.door.refused import Refused

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store")
_NEVER = ("/dev", "/proc", "/sys", *SYSTEM)
SHORT = {errno.ENOMEM, errno.EAGAIN, errno.ENFILE, errno.EMFILE, errno.ENOSPC, errno.EUSERS}  # of room: may pass


class Place(NamedTuple):
    """`fd`: an O_PATH descriptor, the holder's to close. `at`: where it is shown."""

    fd: int
    at: str
    write: bool


class Roots:
    """What may be asked for. The folders are looked up now, before anybody who could move them runs.

    `closed`: folders in which no link is followed, though they may only be read. `written`: folders that somebody behind a door
    writes to, or did before: a root below one of them that is reached by a link is left out.
    """

    def __init__(self, read: list[str], write: list[str], closed: list[str], written: list[str]) -> None:
        everything = [*written, *write, *closed]
        self._read = [real for path in read if (real := steady(path, everything)) is not None]
        self._write = _looked_up(write, everything)
        self._strict = {**_looked_up(closed, everything), **self._write}

    def place(self, asked: str, *, write: bool) -> Place:
        """Raises Refused: not below a root, not there, or a link where none is followed."""
        _absolute(asked)
        path = os.path.normpath(asked)
        fd = _open(path)
        try:
            actual = led_to(fd)
            if not self._may(path, actual, write=write):
                raise Refused("forbidden", _words(path, actual, write=write))
            _sensible(actual)
            if is_fresh(path):
                raise Refused("forbidden", f"{path} can't be shown there: every door has a folder of its own in that place")
        except BaseException:
            os.close(fd)
            raise
        return Place(fd, path, write)

    def _may(self, path: str, actual: str, *, write: bool) -> bool:
        if write:
            return _straight(path, actual, self._write)
        if any(within(actual, root) for root in self._strict.values()):
            return _straight(path, actual, self._strict)
        return any(within(actual, root) for root in self._read)


def steady(path: str, written: list[str]) -> str | None:
    """Where it leads; None when that is by a link below a folder that is written to: anybody there could have put it."""
    path = os.path.normpath(path)
    real = os.path.realpath(path)
    for folder in written:
        top = os.path.realpath(folder)
        for named in (os.path.normpath(folder), top):
            if path != named and within(path, named) and real != _below(top, path, named):
                return None
    return real


def _looked_up(roots: list[str], written: list[str]) -> dict[str, str]:
    return {os.path.normpath(path): real for path in roots if (real := steady(path, written)) is not None}


def _straight(path: str, actual: str, roots: dict[str, str]) -> bool:
    """Whether it is below one of the roots, without a link on the way from there."""
    return any(
        within(path, named) and actual == _below(real, path, named) for asked, real in roots.items() for named in (asked, real)
    )


def _below(top: str, path: str, named: str) -> str:
    """`path`, which is below `named`, as it is below `top`."""
    return os.path.normpath(os.path.join(top, os.path.relpath(path, named)))


def exactly(path: str, at: str | None = None, *, write: bool = False) -> Place | None:
    """A path that is where it says, without a link anywhere on the way; None when it is not, or not there. Raises
    OSError when this process has no room for it."""
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in SHORT:
            raise
        return None
    if led_to(fd) != path or stat.S_ISLNK(os.stat(fd).st_mode):
        os.close(fd)
        return None
    return Place(fd, at or path, write)


def led_to(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def is_folder(fd: int) -> bool:
    return stat.S_ISDIR(os.stat(fd).st_mode)


def is_program(fd: int) -> bool:
    """Of what is open, not of what a path says a moment later."""
    return stat.S_ISREG(os.stat(fd).st_mode) and os.access(f"/proc/self/fd/{fd}", os.X_OK)


def within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def is_system(path: str) -> bool:
    """Whether every door shows it anyway."""
    return any(within(path, folder) for folder in SYSTEM)


def is_fresh(path: str) -> bool:
    """Whether it lies where every door has something of its own, whose links lead elsewhere than the machine's."""
    return any(within(path, folder) for folder in _NEVER[:3])


def _absolute(path: object) -> None:
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise Refused("invalid", f"{path!r} is not an absolute path")


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in SHORT:
            raise
        raise Refused("invalid", f"{path} can't be shown to the command: {os.strerror(error.errno or 0)}") from None


def _sensible(actual: str) -> None:
    if actual == "/" or any(within(folder, actual) for folder in _NEVER) or any(within(actual, folder) for folder in _NEVER[:3]):
        raise Refused("forbidden", f"{actual} can't be shown as a whole: name a folder of your own with `paths`")


def _words(path: str, actual: str, *, write: bool) -> str:
    led = "" if actual == path else f" (it leads to {actual})"
    how = "written to" if write else "read"
    return f"{path}{led} may not be {how}: start Rootlink with --allow-path for it, or leave it out of the connection's `paths`"
