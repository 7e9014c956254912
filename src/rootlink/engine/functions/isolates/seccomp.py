"""After `lock()` a worker can compute, talk on the socket it has, and start threads: no files, sockets, exec, new process.

V8 is taken to be broken. The filter is a list of allowed system calls; any other answers EPERM, a foreign architecture kills.
`clone3` answers ENOSYS so that glibc falls back to `clone`, whose flags a filter can read (threads yes, processes no).
V8 14 (abseil's mutex) asks for sched_getparam and sched_getscheduler. Numbers: Linux arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h; the program's form: Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Architecture:
    """`audit` is the kernel's AUDIT_ARCH_* value."""

    audit: int
    allowed: dict[str, int]
    clone: int
    clone3: int


_X86_64 = Architecture(
    audit=0xC000003E,
    allowed={
        "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12,
        "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "sched_yield": 24, "mremap": 25,
        "madvise": 28, "nanosleep": 35, "getpid": 39, "sendto": 44,
        "recvfrom": 45, "sendmsg": 46, "recvmsg": 47, "exit": 60, "uname": 63,
        "getrusage": 98, "sysinfo": 99, "sigaltstack": 131, "sched_getparam": 143, "sched_getscheduler": 145,
        "gettid": 186, "futex": 202, "sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229,
        "clock_nanosleep": 230, "exit_group": 231, "set_robust_list": 273, "getrandom": 318, "membarrier": 324,
        "pkey_mprotect": 329, "pkey_alloc": 330, "pkey_free": 331, "rseq": 334,
    },
    clone=56,
    clone3=435,
)  # fmt: skip

_AARCH64 = Architecture(
    audit=0xC00000B7,
    allowed={
        "close": 57, "lseek": 62, "read": 63, "write": 64, "pread64": 67, "ppoll": 73, "fstat": 80, "exit": 93, "exit_group": 94,
        "futex": 98, "set_robust_list": 99, "nanosleep": 101, "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115,
        "sched_getscheduler": 120, "sched_getparam": 121, "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128,
        "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "uname": 160, "getrusage": 165,
        "getpid": 172, "gettid": 178, "sysinfo": 179, "sendto": 206, "recvfrom": 207, "sendmsg": 211, "recvmsg": 212, "brk": 214,
        "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "getrandom": 278, "membarrier": 283,
        "pkey_mprotect": 288, "pkey_alloc": 289, "pkey_free": 290, "rseq": 293,
    },
    clone=220,
    clone3=435,
)  # fmt: skip

ARCHITECTURES: Final = {"x86_64": _X86_64, "aarch64": _AARCH64}

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # offsets in struct seccomp_data (low half of the argument)
_X32_BIT, _CLONE_THREAD = 0x40000000, 0x00010000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER_MODE = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def program(architecture: Architecture) -> bytes:
    """The filter as BPF instructions of 8 bytes: code, jump if true, jump if false, operand."""
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL),
        (_EQUAL, 0, 1, architecture.clone3),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_EQUAL, 0, 4, architecture.clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    for number in architecture.allowed.values():
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    steps.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def lock() -> None:
    """Install the filter for this thread and every thread it starts, for good. Raises OSError when the kernel will not."""
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise OSError(errno.ENOSYS, f"no system call table for {platform.machine()}")
    instructions = program(architecture)
    libc = ctypes.CDLL(None, use_errno=True)
    filter_ = _Program(len(instructions) // 8, instructions)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _FILTER_MODE, ctypes.byref(filter_), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel refused the seccomp filter")
