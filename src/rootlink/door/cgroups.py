"""One group a project, where one can be made: limits on the processes and the memory of the engine and all its doors together.

The keeper enters its group before it forks, so that all it starts is born there. To move each child costs more: cgroup v1 and v2
hold every fork of the machine up while they move a process (5 ms, at times 25), and a door would start that much later.

- Only below a group that is the top of what this machine, or this container, shows us. Any other was made by somebody who finds
  his processes by it (a service manager, a supervisor, a session), and would lose sight of ours.
- cgroup v2 gives controllers only to what is below a group without processes, but for the machine's own top. Nobody's processes
  are moved to make that so; EBUSY then is the answer, and there is no group.
- A group that can't be made is not an error: the limits of each door (`spawn.py`) remain.
- Names say the process namespace and the number of the keeper: the next keeper removes what a killed one left behind. A group
  that is empty and whose keeper lives is about to be filled.
- Nothing behind a door can reach the files: it has no /sys, and may not mount.
"""

# ruff: noqa: PTH102, PTH106, PTH116, PTH118, PTH120, PTH208
# (pathlib would be a third of the keeper's start)

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import NamedTuple

MAX_TASKS = 16384  # a Node server has a dozen threads, and a project may have hundreds of servers; a door alone has 4096
MEMORY_PERCENT = 80  # of the machine's, and of its swap
LEAVE_SECONDS = 0.5
UNIFIED = ""
_NAME = "rootlink-"
_PROCESSES = "cgroup.procs"


class Limits(NamedTuple):
    """`memory`, `swap`: bytes."""

    tasks: int
    memory: int
    swap: int


def enter() -> list[str]:
    """This process, which has one thread and no children yet, goes into its groups. Their folders, for `leave`; [] if there are
    none. Never raises."""
    try:
        with open("/proc/self/cgroup") as cgroup, open("/proc/self/mountinfo") as mounts, open("/proc/meminfo") as memory:
            return make(tops(cgroup.read(), mounts.read()), limits(memory.read()), _own_name())
    except (OSError, ValueError, KeyError):
        return []


def leave(made: list[str]) -> None:
    """Back to where it came from, and the groups are removed if nothing is in them. Never raises."""
    until = time.monotonic() + LEAVE_SECONDS
    for folder in made:
        with contextlib.suppress(OSError):
            _write(os.path.dirname(folder), _PROCESSES, 0)
        while not _removed(folder) and time.monotonic() < until:
            time.sleep(0.01)


def limits(meminfo: str) -> Limits:
    """For a machine with this /proc/meminfo. Raises ValueError or KeyError: it is none."""
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in meminfo.splitlines())}
    memory, swap = (kilobytes[name] * 1024 * MEMORY_PERCENT // 100 for name in ("MemTotal", "SwapTotal"))
    return Limits(MAX_TASKS, memory, swap)


def tops(cgroup: str, mountinfo: str) -> dict[str, str]:
    """The folders of the groups this process is in, where they are tops: by controller, and cgroup v2's as `UNIFIED`.
    Form: man 7 cgroups, man 5 proc. Raises ValueError: it is another."""
    found: dict[str, str] = {}
    own = _own(cgroup)
    for line in mountinfo.splitlines():
        here, _, there = line.partition(" - ")
        root, folder = (_plain(text) for text in here.split()[3:5])
        kind, _, options = there.split(" ", 2)
        names = [UNIFIED] if kind == "cgroup2" else options.split()[-1].split(",") if kind == "cgroup" else []
        for name in names:
            if own.get(name) == root:
                found.setdefault(name, folder)
    return found


def make(within: dict[str, str], given: Limits, name: str) -> list[str]:
    """As `enter`, with the tops given. Each controller alone may fail."""
    unified = within.get(UNIFIED)
    wanted: list[tuple[str, list[tuple[str, int]], list[tuple[str, int]]]] = []
    if "pids" in within:
        wanted.append((within["pids"], [("pids.max", given.tasks)], []))
    if "memory" in within:
        both = ("memory.memsw.limit_in_bytes", given.memory + given.swap)
        wanted.append((within["memory"], [("memory.limit_in_bytes", given.memory)], [both]))
    if unified is not None:
        there = {controller for controller in ("pids", "memory") if _enabled(unified, controller)}
        must = [("pids.max", given.tasks)] if "pids" in there else []
        must += [("memory.max", given.memory)] if "memory" in there else []
        if must:
            wanted.append((unified, must, [("memory.swap.max", given.swap)] if "memory" in there else []))
    made: dict[str, None] = {}  # two controllers may have one folder
    for top, must, may in wanted:
        folder = os.path.join(top, name)
        if _made(folder, must, may, fresh=folder not in made):
            made[folder] = None
    return list(made)


def _made(folder: str, must: list[tuple[str, int]], may: list[tuple[str, int]], *, fresh: bool) -> bool:
    try:
        if fresh:
            _removed(folder)  # of a keeper that had our number
            os.mkdir(folder, 0o755)
    except OSError:
        return False
    try:
        for file, value in must:
            _write(folder, file, value)
        for file, value in may:
            with contextlib.suppress(OSError):  # a kernel that does not count swap
                _write(folder, file, value)
        _write(folder, _PROCESSES, 0)
    except OSError:
        if fresh:
            _removed(folder)
        return False
    with contextlib.suppress(OSError):
        _tidy(folder)
    return True


def _enabled(top: str, controller: str) -> bool:
    try:
        with open(os.path.join(top, "cgroup.controllers")) as known, open(os.path.join(top, "cgroup.subtree_control")) as given:
            if controller not in known.read().split():
                return False
            if controller in given.read().split():
                return True
        with open(os.path.join(top, "cgroup.subtree_control"), "w") as control:
            control.write(f"+{controller}")
    except OSError:
        return False
    return True


def _tidy(folder: str) -> None:
    """What keepers left beside it that did not come to `leave`."""
    top, own = os.path.split(folder)
    ours = own.rpartition("-")[0] + "-"
    for name in os.listdir(top):
        number = name.removeprefix(ours)
        if name.startswith(ours) and number.isdigit() and not _lives(int(number)):
            _removed(os.path.join(top, name))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _own_name() -> str:
    return f"{_NAME}{os.stat('/proc/self/ns/pid').st_ino}-{os.getpid()}"


def _own(cgroup: str) -> dict[str, str]:
    own: dict[str, str] = {}
    for line in cgroup.splitlines():
        number, names, path = line.split(":", 2)
        for name in [UNIFIED] if number == "0" else names.split(","):
            own[name] = path
    return own


def _plain(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _removed(folder: str) -> bool:
    """False: it is in use, and may not be for long."""
    try:
        os.rmdir(folder)
    except OSError as error:
        return error.errno != errno.EBUSY
    return True


def _write(folder: str, file: str, value: int) -> None:
    with open(os.path.join(folder, file), "w") as control:
        control.write(str(value))
