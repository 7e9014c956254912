"""The parent of a plain mount's process tree. Run as a script by `launch.Plain`, with nothing of ours or of site-packages loaded.

    python -I -S warden.py ENGINE_PID COMMAND [ARG…]

It adopts what is orphaned below it (PR_SET_CHILD_SUBREAPER), so a grandchild in a session of its own does not get away, and
ends when the command ends, with its exit code, after the rest of the tree was killed.

    TERM    asks every process of the tree to end
    USR1    kills the tree and ends; the kernel sends it when the engine dies (PR_SET_PDEATHSIG)

Where there is no prctl (macOS) the engine's death is noticed by a changed parent within a second, and orphans are not adopted.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP}
SWEEPS = 100
LINUX = os.uname().sysname == "Linux"


def main(engine: int, command: list[str]) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
    if os.getppid() != engine:
        return 1
    child = os.fork()
    if child == 0:
        become(command)
    let_go_of_pipes()
    return watch(child, engine)


def become(command: list[str]) -> None:
    """Never returns."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # should the warden itself be killed
    try:
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and exec would hand that down
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def prctl(option: int, value: int) -> None:
    if LINUX:
        ctypes.CDLL(None).prctl(option, int(value), 0, 0, 0)


def let_go_of_pipes() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


def watch(child: int, engine: int) -> int:
    while True:
        heard = next_signal()
        if heard == signal.SIGTERM:
            tell(descendants(), signal.SIGTERM)
        elif heard == signal.SIGUSR1 or os.getppid() != engine:
            sweep()
            return 128 + signal.SIGKILL
        code = reap(child)
        if code is not None:
            sweep()
            return code


def next_signal() -> int | None:
    if LINUX:
        return signal.sigwait(SIGNALS)
    time.sleep(0.2)  # no sigtimedwait on macOS
    pending = signal.sigpending() & SIGNALS
    return signal.sigwait(pending) if pending else None


def reap(child: int) -> int | None:
    """The child's exit code once it has ended; adopted orphans are reaped on the way."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                ended = os.waitstatus_to_exitcode(status)
                code = ended if ended >= 0 else 128 - ended
    return code


def sweep() -> None:
    for _ in range(SWEEPS):
        left = descendants()
        if not left:
            return
        tell(left, signal.SIGKILL)
        reap(-1)
        time.sleep(0.005)


def tell(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, parent in parents():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def parents() -> list[tuple[int, int]]:
    """(pid, parent's pid) of every process that is no zombie."""
    if not LINUX:
        listed = subprocess.run(["/bin/ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, check=False).stdout.split()
        return [(int(pid), int(parent)) for pid, parent in zip(listed[::2], listed[1::2], strict=False)]
    names = os.listdir("/proc")  # noqa: PTH208  pathlib would double this script's start
    return [found for name in names if name.isdigit() and (found := parent_of(name))]


def parent_of(pid: str) -> tuple[int, int] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]  # a name may hold anything, even ")"
    except OSError:
        return None
    return None if state in b"ZX" else (int(pid), int(parent))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
