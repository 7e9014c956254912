"""A user and a network namespace in which every address is this machine's own, and the sockets that wait for who is put there.

To be called in a process that was forked for it: `enter` cannot be undone. A socket stays in the namespace it was made in, and
accepts from there wherever its descriptor is held. rtnetlink's numbers: Linux include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable

from rootlink.door import kernel, watch

PROXY = 3128
ALWAYS = (80, 443)
MAX_PORTS = 28  # TCP ports of one frame: two descriptors each, and 64 go into a frame
_BACKLOG = 1024
_LO = 1  # its index in a namespace that was just made
_NEWLINK, _NEWROUTE, _REQUEST, _ACK, _CREATE = 16, 24, 1, 4, 0x400
_UP = 1
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_FREEBIND = 8, 49, 78

Made = list[tuple[dict[str, object], socket.socket]]
"""Listeners as `wire.gate.Listener` is written, each with its socket."""


def enter() -> None:
    """Into a new user and network namespace, as the same user and group. Raises OSError."""
    uid, gid = os.getuid(), os.getgid()
    kernel.unshare(kernel.NEWUSER | kernel.NEWNET)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")


def furnish() -> None:
    """`lo` up, and every address of both families on it. Without IPv6 in this kernel there is none of it. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.bind((0, 0))
        with contextlib.suppress(OSError):
            _write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0")
        _ask(netlink, _NEWLINK, 0, struct.pack("=BxHiII", 0, 0, _LO, _UP, _UP))
        for family in _families():
            _ask(netlink, _NEWROUTE, _CREATE, _all_local(family))
    for name in ("ipv4/icmp_echo_ignore_all", "ipv6/icmp/echo_ignore_all"):
        with contextlib.suppress(OSError):  # else a ping is answered by the namespace itself, and looks as if it got out
            _write(f"/proc/sys/net/{name}", "1")


def listeners(ports: Iterable[int]) -> Made:
    """All of a door that is being made. `ports`: of TCP, besides those every door has. Raises OSError."""
    made = tcp([*ALWAYS, *(port for port in ports if port not in ALWAYS)])
    made.append(({"kind": "proxy", "port": PROXY, "family": 4}, _listening(socket.AF_INET, "127.0.0.1", PROXY)))
    for family in _families():
        made.append(({"kind": "dns", "port": 53, "family": _number(family)}, _dns(family)))
    made.append(({"kind": "watch", "port": 0, "family": 4}, watch.opened()))
    return made


def tcp(ports: Iterable[int]) -> Made:
    """Raises OSError, its `filename` the port that could not be had."""
    made: Made = []
    for port in ports:
        for family in _families():
            try:
                sock = _listening(family, _any(family), port)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(port)) from None
            made.append(({"kind": "tcp", "port": port, "family": _number(family)}, sock))
    return made


def _families() -> list[socket.AddressFamily]:
    """IPv6 may be missing from the kernel, or be turned off."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return [socket.AF_INET]
    return [socket.AF_INET, socket.AF_INET6]


def _number(family: socket.AddressFamily) -> int:
    return 6 if family == socket.AF_INET6 else 4


def _any(family: socket.AddressFamily) -> str:
    return "::" if family == socket.AF_INET6 else "0.0.0.0"


def _listening(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    sock = _bound(family, socket.SOCK_STREAM, address, port)
    sock.listen(_BACKLOG)
    return sock


def _dns(family: socket.AddressFamily) -> socket.socket:
    """Tells with each datagram which address was asked, so that the answer can leave from it."""
    sock = _bound(family, socket.SOCK_DGRAM, _any(family), 53)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)  # IPv6 answers from what is local by route alone only with this
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    return sock


def _bound(family: socket.AddressFamily, kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((address, port))
    return sock


def _all_local(family: int) -> bytes:
    """`local 0.0.0.0/0 dev lo` or `local ::/0 dev lo` in the table `local` (255), proto kernel (2), scope host (254)."""
    return struct.pack("=BBBBBBBBI", family, 0, 0, 0, 255, 2, 254, 2, 0) + struct.pack("=HHi", 8, 4, _LO)


def _ask(netlink: socket.socket, kind: int, flags: int, body: bytes) -> None:
    netlink.send(struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST | _ACK, 1, 0) + body)
    number = -struct.unpack_from("=i", netlink.recv(4096), 16)[0]
    if number and not (kind == _NEWROUTE and number == errno.EEXIST):
        raise OSError(number, f"netlink {kind}: {os.strerror(number)}")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
