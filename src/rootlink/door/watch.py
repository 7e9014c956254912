"""The watch: a packet socket on a door's `lo` that sees what the namespace's kernel refused, and nothing else.

What is refused there never reaches a listener of ours: a TCP port nobody listens on (the kernel answers RST), a UDP port nobody
has bound, a protocol the kernel does not speak (ICMP and ICMPv6 unreachable). The gate reports it.

- `lo` shows each packet twice, on its way out and in; only the second is kept.
- Only a RST with ACK and sequence number 0 answers a SYN; a connection that existed never ends with one.
- The filter is attached before the socket is bound, so that nothing else is ever queued. A flood fills `ROOM` and is lost.
- The kernel's rate limits for ICMP do not count on `lo`.

Formats: RFC 791, 792, 4443, 8200, 9293; offsets of classic BPF: Linux Documentation/networking/filter.rst.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import NamedTuple

ROOM = 64 << 10  # bytes of the kernel's, some 80 packets
_SO_ATTACH_FILTER = 26
_ETH_P_ALL, _IP, _IPV6 = 0x0003, 0x0800, 0x86DD
_TCP, _UDP, _ICMP, _ICMPV6, _SCTP = 6, 17, 1, 58, 132
_RST, _ACK = 0x04, 0x10
_UNREACHABLE, _UNREACHABLE6, _PROBLEM6, _UNKNOWN_NEXT_HEADER = 3, 1, 4, 1
_V6_HEADER = 40
_NAMES = {_TCP: "tcp", _UDP: "udp", _ICMP: "icmp", _ICMPV6: "icmp", _SCTP: "sctp"}


class Seen(NamedTuple):
    """What something behind the door wanted to reach. `port`: 0 where the protocol has none. `protocol`: tcp, udp, sctp, icmp or
    the number of another, as text."""

    address: str
    port: int
    protocol: str


_LOAD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30
_LOAD_BYTE_AT, _LOAD_AT, _HEADER_LENGTH = 0x50, 0x40, 0xB1  # …_AT: relative to X, which HEADER_LENGTH sets to 4 * (byte & 15)
_EQUAL, _AND, _RETURN = 0x15, 0x54, 0x06
_PROTOCOL, _PACKET_TYPE = 0xFFFFF000, 0xFFFFF004  # SKF_AD_PROTOCOL, SKF_AD_PKTTYPE
_OUTGOING = 4
_KEEP, _DROP = 0xFFFF, 0

_FILTER = [
    (_LOAD, 0, 0, _PACKET_TYPE),
    (_EQUAL, 27, 0, _OUTGOING),
    (_LOAD, 0, 0, _PROTOCOL),
    (_EQUAL, 0, 12, _IP),
    (_HEADER_LENGTH, 0, 0, 0),
    (_LOAD_BYTE, 0, 0, 9),
    (_EQUAL, 0, 5, _TCP),
    (_LOAD_BYTE_AT, 0, 0, 13),
    (_AND, 0, 0, _RST | _ACK),
    (_EQUAL, 0, 19, _RST | _ACK),
    (_LOAD_AT, 0, 0, 4),
    (_EQUAL, 16, 17, 0),
    (_EQUAL, 0, 16, _ICMP),
    (_LOAD_BYTE_AT, 0, 0, 0),
    (_EQUAL, 13, 14, _UNREACHABLE),
    (_RETURN, 0, 0, _DROP),
    (_EQUAL, 0, 12, _IPV6),
    (_LOAD_BYTE, 0, 0, 6),
    (_EQUAL, 0, 5, _TCP),
    (_LOAD_BYTE, 0, 0, _V6_HEADER + 13),
    (_AND, 0, 0, _RST | _ACK),
    (_EQUAL, 0, 7, _RST | _ACK),
    (_LOAD, 0, 0, _V6_HEADER + 4),
    (_EQUAL, 4, 5, 0),
    (_EQUAL, 0, 4, _ICMPV6),
    (_LOAD_BYTE, 0, 0, _V6_HEADER),
    (_EQUAL, 1, 0, _UNREACHABLE6),
    (_EQUAL, 0, 1, _PROBLEM6),
    (_RETURN, 0, 0, _KEEP),
    (_RETURN, 0, 0, _DROP),
]


def opened() -> socket.socket:
    """The watch of the network namespace this process is in, where it needs CAP_NET_RAW. Raises OSError."""
    watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)  # protocol 0: nothing is queued until it is bound
    try:
        watch.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in _FILTER))
        watch.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_FILTER), ctypes.addressof(code)))
        watch.bind(("lo", _ETH_P_ALL))
    except BaseException:
        watch.close()
        raise
    return watch


def parse(packet: bytes) -> Seen | None:
    """What was wanted, of a packet the watch received; None if it says nothing of use. Never raises for bad bytes."""
    try:
        version = packet[0] >> 4
        if version == 4:
            return _refused(packet, packet[9], (packet[0] & 15) * 4, _ICMP, {_UNREACHABLE})
        if version == 6:
            return _refused(packet, packet[6], _V6_HEADER, _ICMPV6, {_UNREACHABLE6, _PROBLEM6})
    except (IndexError, struct.error, ValueError):
        pass
    return None


def _refused(packet: bytes, protocol: int, at: int, icmp: int, kinds: set[int]) -> Seen | None:
    if protocol == _TCP:
        return Seen(_address(packet, source=True), _port(packet, at), "tcp")
    if protocol != icmp or packet[at] not in kinds:
        return None
    if icmp == _ICMPV6 and packet[at] == _PROBLEM6 and packet[at + 1] != _UNKNOWN_NEXT_HEADER:
        return None
    return _wanted(packet[at + 8 :])


def _wanted(packet: bytes) -> Seen:
    """Of the packet that was refused: an ICMP message carries its beginning."""
    four = packet[0] >> 4 == 4
    protocol, at = (packet[9], (packet[0] & 15) * 4) if four else (packet[6], _V6_HEADER)
    port = _port(packet, at + 2) if protocol in (_TCP, _UDP, _SCTP) else 0
    return Seen(_address(packet, source=False), port, _NAMES.get(protocol, str(protocol)))


def _port(packet: bytes, at: int) -> int:
    return int(struct.unpack_from(">H", packet, at)[0])


def _address(packet: bytes, *, source: bool) -> str:
    if packet[0] >> 4 == 4:
        at = 12 if source else 16
        return socket.inet_ntop(socket.AF_INET, packet[at : at + 4])
    at = 8 if source else 24
    return socket.inet_ntop(socket.AF_INET6, packet[at : at + 16])
