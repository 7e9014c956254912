"""What nothing behind a door may ask of the kernel: a list of refusals, for programs we do not know.

Namespaces and the view already leave little to reach. The filter takes away what goes around them (vsock, io_uring, packet and
raw sockets, new namespaces), what lets one process take over another, and the parts of the kernel nobody behind a door needs.

- A foreign architecture (32 bit) kills: its numbers mean other calls.
- A call newer than this list, and x32, do not exist (ENOSYS): programs then use the older call, which is judged here.
- `clone3` does not exist either: its flags are in memory, where no filter can look; libraries fall back to `clone`.
- Sockets: UNIX; IPv4 and IPv6 as TCP or UDP; NETLINK of the route family, which lists interfaces and addresses. What is said
  on it can't be told apart here: changing a route takes CAP_NET_ADMIN over the door's network namespace, which nobody has.
- 32 of an argument's 64 bits are looked at, since the kernel takes families, types, protocols and ioctls as int.

Numbers: Linux arch/x86/entry/syscalls/syscall_64.tbl, scripts/syscall.tbl; form: Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import NamedTuple


class Architecture(NamedTuple):
    """`audit`: the kernel's AUDIT_ARCH_* value. `refused`: calls that answer EPERM."""

    audit: int
    clone: int
    unshare: int
    socket: int
    socketpair: int
    ioctl: int
    refused: dict[str, int]


_NEWEST = 469  # file_setattr: numbers above 423 are the same everywhere
_CLONE3 = 435
_EVERYWHERE = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
    "quotactl_fd": 443, "process_mrelease": 448, "set_mempolicy_home_node": 450, "open_tree_attr": 467,
}  # fmt: skip
X86_64 = Architecture(
    audit=0xC000003E,
    clone=56,
    unshare=272,
    socket=41,
    socketpair=53,
    ioctl=16,
    refused=_EVERYWHERE | {
        "ptrace": 101, "syslog": 103, "uselib": 134, "vhangup": 153, "modify_ldt": 154, "pivot_root": 155, "adjtimex": 159,
        "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168,
        "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "init_module": 175,
        "delete_module": 176, "quotactl": 179, "nfsservctl": 180, "lookup_dcookie": 212, "clock_settime": 227, "mbind": 237,
        "set_mempolicy": 238, "get_mempolicy": 239, "kexec_load": 246, "migrate_pages": 256, "move_pages": 279, "kcmp": 312,
        "add_key": 248, "request_key": 249, "keyctl": 250, "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303,
        "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
        "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323, "ustat": 136, "sysfs": 139,
    },
)  # fmt: skip
AARCH64 = Architecture(
    audit=0xC00000B7,
    clone=220,
    unshare=97,
    socket=198,
    socketpair=199,
    ioctl=29,
    refused=_EVERYWHERE | {
        "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "nfsservctl": 42, "chroot": 51, "vhangup": 58,
        "quotactl": 60, "acct": 89, "kexec_load": 104, "init_module": 105, "delete_module": 106, "clock_settime": 112,
        "syslog": 116, "ptrace": 117, "reboot": 142, "sethostname": 161, "setdomainname": 162, "settimeofday": 170,
        "adjtimex": 171, "add_key": 217, "request_key": 218, "keyctl": 219, "swapon": 224, "swapoff": 225,
        "perf_event_open": 241, "fanotify_init": 262, "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266,
        "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "finit_module": 273, "bpf": 280, "userfaultfd": 282,
        "kexec_file_load": 294, "mbind": 235, "get_mempolicy": 236, "set_mempolicy": 237, "migrate_pages": 238, "move_pages": 239,
        "kcmp": 272,
    },
)  # fmt: skip
ARCHITECTURES = {"x86_64": X86_64, "aarch64": AARCH64, "arm64": AARCH64}

# namespaces: mount, cgroup, uts, ipc, user, pid, net; time has a flag of its own, which clone reads as part of a signal's number
_NAMESPACES, _TIME = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000, 0x80
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # both put words into somebody's terminal
_TYPE = 0xF  # of a socket's type; the rest are SOCK_CLOEXEC and SOCK_NONBLOCK
_NETLINK_ROUTE = 0

_LOAD, _EQUAL, _MORE, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x54, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND, _THIRD = 0, 4, 16, 24, 32  # offsets in struct seccomp_data, of the low half

Step = tuple[int, int, int, int]


def _fail(number: int) -> Step:
    return (_RETURN, 0, 0, _ERRNO | number)


_PASS: Step = (_RETURN, 0, 0, _ALLOW)


def program(architecture: Architecture) -> bytes:
    """The filter as BPF instructions of 8 bytes: code, jump if true, jump if false, operand."""
    steps: list[Step] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_MORE, 0, 1, _NEWEST),
        _fail(errno.ENOSYS),
        (_EQUAL, 0, 1, _CLONE3),
        _fail(errno.ENOSYS),
        *_only(architecture.clone, [(_LOAD, 0, 0, _FIRST), (_ANY_BIT, 0, 1, _NAMESPACES), _fail(errno.EPERM), _PASS]),
        *_only(architecture.unshare, [(_LOAD, 0, 0, _FIRST), (_ANY_BIT, 0, 1, _NAMESPACES | _TIME), _fail(errno.EPERM), _PASS]),
        *_only(architecture.ioctl, _terminals()),
        *_only(architecture.socket, _sockets()),
        *_only(architecture.socketpair, [*_unless(_FIRST, [socket.AF_UNIX], errno.EAFNOSUPPORT), _PASS]),
    ]
    for number in architecture.refused.values():
        steps += [(_EQUAL, 0, 1, number), _fail(errno.EPERM)]
    steps.append(_PASS)
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def this_machine() -> bytes:
    """Raises OSError: we have no list for this architecture."""
    name = os.uname().machine
    if name not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no list of system calls for {name}")
    return program(ARCHITECTURES[name])


def _only(number: int, steps: list[Step]) -> list[Step]:
    """`steps`, which end in a return, for this call."""
    return [(_EQUAL, 0, len(steps), number), *steps]


def _unless(argument: int, values: list[int], error: int) -> list[Step]:
    """Goes on when the argument is one of the values."""
    count = len(values)
    tests: list[Step] = [(_EQUAL, count - at, 0, value) for at, value in enumerate(values)]
    return [(_LOAD, 0, 0, argument), *tests, _fail(error)]


def _terminals() -> list[Step]:
    return [(_LOAD, 0, 0, _SECOND), (_EQUAL, 1, 0, _TIOCSTI), (_EQUAL, 0, 1, _TIOCLINUX), _fail(errno.EPERM), _PASS]


def _sockets() -> list[Step]:
    netlink = [*_unless(_THIRD, [_NETLINK_ROUTE], errno.EPROTONOSUPPORT), _PASS]
    internet = [
        (_LOAD, 0, 0, _SECOND),
        (_AND, 0, 0, _TYPE),
        (_EQUAL, 2, 0, socket.SOCK_STREAM),
        (_EQUAL, 1, 0, socket.SOCK_DGRAM),
        _fail(errno.EPERM),  # as it is for a raw socket without the right to it
        *_unless(_THIRD, [0, socket.IPPROTO_TCP, socket.IPPROTO_UDP], errno.EPROTONOSUPPORT),
        _PASS,
    ]
    return [
        (_LOAD, 0, 0, _FIRST),
        (_EQUAL, 0, 1, socket.AF_UNIX),
        _PASS,
        (_EQUAL, 0, len(netlink), socket.AF_NETLINK),
        *netlink,
        *_unless(_FIRST, [socket.AF_INET, socket.AF_INET6], errno.EAFNOSUPPORT),
        *internet,
    ]
