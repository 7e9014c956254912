"""From the keeper to the command: a child of the keeper makes the namespaces, hands the listeners out, and becomes bubblewrap.

What the child says to the keeper, in one frame, before its end of the socket closes with the exec:

    {"listeners": [...]} + their descriptors, the user namespace's, the network namespace's
    {"code": …, "message": …}    it came to nothing

Traps
- Nothing of the command's may reach bubblewrap before it is inside, its environment least of all (`view.py`).
- Whatever is not in `keep` has close-on-exec: Python's own descriptors do, and the keeper closed what it inherited.
- Python ignores SIGPIPE and SIGXFSZ, and a child would go on to.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rootlink.door import frames, kernel, namespaces, paths

MAX_FILES = 65536
MAX_TASKS = 4096
_MOST_TEXT = 6 << 20  # three quarters of the kernel's _STK_LIM (fs/exec.c)
_SPARE_TEXT = 8192  # the program's own path, and what bubblewrap adds
_POINTER = 9  # bytes, with the text's end


class Start(NamedTuple):
    """`argv`: bubblewrap's, with the command behind. `room`: bytes that the command gets besides, for its environment.
    `stdio`: three descriptors. `keep`: others the program is to have."""

    argv: list[str]
    room: int
    ports: list[int]
    stdio: Sequence[int]
    keep: Sequence[int]


def door(start: Start) -> tuple[int, socket.socket]:
    """pid, and the socket on which the child's one frame comes. Raises OSError when there is no room for a process."""
    return forked(lambda say: _become(start, say))


def listen(user: int, network: int, ports: list[int]) -> tuple[int, socket.socket]:
    """More TCP listeners in the namespaces of a door; as `door`, without descriptors of namespaces. Raises OSError."""

    def work(say: socket.socket) -> None:
        kernel.setns(user, kernel.NEWUSER)
        kernel.setns(network, kernel.NEWNET)
        _hand_out(say, namespaces.tcp(ports), [])

    return forked(work)


def signal_all(first: int, number: int) -> tuple[int, socket.socket]:
    """Every process of the namespace whose pid 1 is `first` (a pidfd) gets the signal, but pid 1. Raises OSError."""
    return forked(lambda _: _inside(first, lambda: os.kill(-1, number)))


def limit_tasks(first: int) -> tuple[int, socket.socket]:
    """At most about `MAX_TASKS` processes and threads in the namespace of `first`. For root, whom RLIMIT_NPROC does not bind;
    Linux ≥ 6.14 counts pid_max by namespace, before that this would be the machine's own and is left alone. Raises OSError."""

    def work() -> None:
        release = os.uname().release.split(".")
        if (int(release[0]), int(release[1].split("-")[0])) >= (6, 14):
            with open("/proc/sys/kernel/pid_max", "w") as limit:
                limit.write(str(MAX_TASKS))

    return forked(lambda _: _inside(first, work))


def forked(work: Callable[[socket.socket], None]) -> tuple[int, socket.socket]:
    """`work(say)` in a child of this process, which ends with it. Raises OSError."""
    ours, theirs = socket.socketpair()
    keeper = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        _child(work, theirs, keeper)
    theirs.close()
    return pid, ours


def _child(work: Callable[[socket.socket], None], say: socket.socket, keeper: int) -> None:
    """Never returns: above it is the keeper's loop."""
    code = 0
    try:
        kernel.die_with_parent(keeper)
        signal.set_wakeup_fd(-1)
        work(say)
    except OSError as error:
        code = 126
        _tell(say, "unavailable" if error.errno in paths.SHORT else "upstream_failed", _words(error))
    except BaseException as error:  # noqa: BLE001 (a forked child must not run on)
        code = 126
        _tell(say, "upstream_failed", f"the door could not be made: {type(error).__name__}")
    finally:
        os._exit(code)


def _become(start: Start, say: socket.socket) -> None:
    keeper = os.getppid()
    if start.room + sum(len(os.fsencode(text)) + _POINTER for text in start.argv) > _most_text():
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    namespaces.enter()
    kernel.die_with_parent(keeper)
    namespaces.furnish()
    own = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("user", "net")]
    _hand_out(say, namespaces.listeners(start.ports), own)
    _limit()
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:  # nohup and `&` ignore some
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for at, fd in enumerate(start.stdio):
        os.dup2(fd, at)
    for fd in start.keep:
        os.set_inheritable(fd, True)
    os.execve(start.argv[0], start.argv, {})


def _most_text() -> int:
    """Bytes of arguments and environment, with their pointers, that the kernel lets a program start with."""
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return (_MOST_TEXT if soft == resource.RLIM_INFINITY else min(soft // 4, _MOST_TEXT)) - _SPARE_TEXT


def _hand_out(say: socket.socket, made: namespaces.Made, own: Sequence[int]) -> None:
    fds = [*(sock.fileno() for _, sock in made), *own]
    frames.send(say, json.dumps({"listeners": [listener for listener, _ in made]}).encode(), fds)


def _inside(first: int, work: Callable[[], None]) -> None:
    """`work` by a child of ours in the namespace: only who is born after setns is in it. Both at once: from within its user
    namespace bubblewrap's pid 1, which is not dumpable, could not be asked for the other."""
    kernel.setns(first, kernel.NEWUSER | kernel.NEWPID)
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    with contextlib.suppress(BaseException):
        work()
    os._exit(0)


def _limit() -> None:
    """After `enter`: RLIMIT_NPROC counts by user namespace, and the machine's other processes must not count here.

    These are each door's; the project's, where there can be any, are its group's (`cgroups.py`)."""
    for what, wanted in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, MAX_FILES), (resource.RLIMIT_NPROC, MAX_TASKS)):
        _, hard = resource.getrlimit(what)
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (allowed, allowed))


def _tell(say: socket.socket, code: str, message: str) -> None:
    with contextlib.suppress(OSError):
        frames.send(say, json.dumps({"code": code, "message": message}).encode())


def _words(error: OSError) -> str:
    if isinstance(error.filename, str) and error.filename.isdigit():
        return f"port {error.filename} can't be listened on behind the door: {os.strerror(error.errno or 0)}"
    if error.errno == errno.E2BIG:
        return "the command's arguments and environment are longer than the system allows"
    return f"the door could not be made: {error.strerror or error}"
