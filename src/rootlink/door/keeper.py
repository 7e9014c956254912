"""The keeper: `python -I -S keeper.py PLAN`. Parent of the engine and of every command of one project, outside all their doors.

A second bubblewrap within a first could not mount `/proc`, so who starts them must stand outside; and it must be small, because
nothing confines it. It has one thread (PR_SET_PDEATHSIG is a thread's), the standard library, no secret and no network.

SIGTERM is the engine's to answer; then its exit code is this program's. SIGKILL, or any other end, is the end of everything.
"""

# ruff: noqa: PTH100, PTH120
# (pathlib would be a third of the keeper's start)

from __future__ import annotations

import os
import resource
import signal
import socket
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from rootlink.door import cgroups, kernel, plan
from rootlink.door.doors import SEND_SECONDS, Doors
from rootlink.door.refused import Refused


def main() -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.closerange(3, soft)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a door's start takes some thirty, each door that is open six
    given = plan.parsed(sys.argv[1])
    theirs, ours = socket.socketpair()  # the first descriptors after standard error: theirs is 3, as the engine expects it
    if theirs.fileno() != 3:
        raise OSError("descriptor 3 is taken")
    ours.settimeout(SEND_SECONDS)
    kernel.adopt_orphans()
    signals = _signals()
    groups = cgroups.enter()
    try:
        return Doors(given, ours, theirs.detach()).run(signals)
    except (Refused, OSError) as error:
        os.write(2, f"rootlink: the engine's door could not be opened: {error}\n".encode())
        return 1
    finally:
        cgroups.leave(groups)


def _signals() -> int:
    """A descriptor that has the number of each signal that came."""
    heard, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, lambda *_: None)
    return heard


if __name__ == "__main__":
    sys.exit(main())
