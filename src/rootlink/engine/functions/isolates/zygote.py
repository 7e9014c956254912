"""The zygote program: `python -I zygote.py FD`. It loads V8 once and forks a worker for each request on the control socket FD.

A request is the JSON of `WorkerLimits` with one descriptor, the worker's end of its socket; the answer is the worker's pid with
one descriptor, its pidfd (no descriptor: the worker was gone at once). End of file means the engine is gone: the zygote ends, and
with it, by their parent-death signal, all workers. It stays single-threaded, so forking is safe and that signal is the process's.
No secret ever reaches this process: a worker gets them call by call, over its own socket.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import struct
import sys
from typing import Any, NoReturn

from rootlink.engine.functions.isolates import seccomp, v8
from rootlink.engine.functions.isolates.frames import WorkerLimits
from rootlink.engine.functions.isolates.worker import Gauge, Worker

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_STACK = 1 << 20  # of each isolate's thread; V8 uses 700 KiB of it (v8.FLAGS)


def main(descriptor: int) -> NoReturn:
    control = socket.socket(fileno=descriptor)
    library = v8.load()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; nobody asks how a worker ended
    sys.setswitchinterval(0.0005)
    _shrink_stacks(libc)
    control.send(b"ready")
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
        if not request:
            os._exit(0)
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            control.close()
            _work(socket.socket(fileno=descriptors[0]), WorkerLimits(**json.loads(request)), library, libc, zygote)
        os.close(descriptors[0])
        _answer(control, pid)


def _answer(control: socket.socket, pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        control.send(struct.pack("<I", pid))
        return
    socket.send_fds(control, [struct.pack("<I", pid)], [pidfd])
    os.close(pidfd)


def _shrink_stacks(libc: Any) -> None:
    attributes = ctypes.create_string_buffer(64)
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(_STACK))
    libc.pthread_setattr_default_np(attributes)


def _work(sock: socket.socket, limits: WorkerLimits, library: Any, libc: Any, zygote: int) -> NoReturn:
    """What a fork does: give everything up, then be a worker. Never returns, whatever happens."""
    try:
        _give_up(sock, libc, zygote)
        gauge = Gauge()
        data = gauge.data() + limits.data
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
        worker = Worker(sock, limits, library, gauge)
        seccomp.lock()
        worker.serve()
    finally:
        os._exit(1)


def _give_up(sock: socket.socket, libc: Any, zygote: int) -> None:
    os.setsid()
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != zygote:  # it died before the signal was asked for
        os._exit(0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # no core file, no ptrace by the same user
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass  # the first to go when memory ends: a wish, not a rule
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    kept = sock.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, 1 << 16)


if __name__ == "__main__":
    main(int(sys.argv[1]))
