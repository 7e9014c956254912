"""DNS as far as a door needs it: one question read, one answer written. Pure; nothing is looked up, nothing leaves.

A datagram that is one standard query of class IN becomes a `Question`. Whatever else it is (a response, several questions,
compression in the question, bytes behind the end) is no question, and `complaint` says what to send back, if anything: a response
is never answered, two servers would talk to each other for ever.

An answer echoes the question byte for byte: resolvers mix the case of the name (0x20) and want it back.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from rootlink.egress import hosts
from rootlink.errors import Invalid

A = 1
AAAA = 28
HTTPS = 65
LARGEST = 512  # bytes of an answer; ours are never above 287

_HEADER = struct.Struct(">HHHHHH")
_TYPE_CLASS = struct.Struct(">HH")
_OPT = struct.Struct(">BHHIH")
_RECORD = struct.Struct(">HHHIH")
_IN = 1
_IS_OPT = 41
_RESPONSE = 0x8000
_OPCODE = 0x7800
_TRUNCATED = 0x0200
_RECURSION_DESIRED = 0x0100
_RECURSION_AVAILABLE = 0x0080
_LONGEST_NAME = 255  # bytes, with the lengths and the root
_FORMERR, _NXDOMAIN, _NOTIMP, _REFUSED = 1, 3, 4, 5
_POINTER_TO_QUESTION = 0xC00C


@dataclass(frozen=True, slots=True)
class Question:
    """`name`: canonical when `plain`; else it is no host's name, and only fit to be shown. `flags`: of the query. `raw`: the
    question section as it came."""

    id: int
    name: str
    type: int
    plain: bool
    flags: int
    raw: bytes


def question(datagram: bytes) -> Question | None:
    """The one question of a standard query, or None. Never raises."""
    if len(datagram) < _HEADER.size:
        return None
    number, flags, questions, answers, authorities, additional = _HEADER.unpack_from(datagram)
    if flags & (_RESPONSE | _OPCODE | _TRUNCATED) or (questions, answers, authorities) != (1, 0, 0):
        return None
    labels, end = _labels(datagram, _HEADER.size)
    if labels is None or len(datagram) < end + _TYPE_CLASS.size:
        return None
    kind, of_class = _TYPE_CLASS.unpack_from(datagram, end)
    end += _TYPE_CLASS.size
    if of_class != _IN or not _ends(datagram, end, additional):
        return None
    name, plain = _name(labels)
    return Question(number, name, kind, plain, flags, datagram[_HEADER.size : end])


def complaint(datagram: bytes) -> bytes | None:
    """What to send for a datagram `question` did not take: NOTIMP for another operation or class, else FORMERR; None: nothing."""
    if len(datagram) < _HEADER.size:
        return None
    number, flags = struct.unpack_from(">HH", datagram)
    if flags & _RESPONSE:
        return None
    known = not flags & _OPCODE and _class(datagram) in (None, _IN)
    kept = flags & (_OPCODE | _RECURSION_DESIRED)
    return _HEADER.pack(number, _RESPONSE | _RECURSION_AVAILABLE | kept | (_FORMERR if known else _NOTIMP), 0, 0, 0, 0)


def address(question: Question, address: str, ttl: int) -> bytes:
    """One A record. `address` is an IPv4 address, `ttl` in seconds."""
    data = ipaddress.IPv4Address(address).packed
    record = _RECORD.pack(_POINTER_TO_QUESTION, A, _IN, ttl, len(data)) + data
    return _answer(question, 0, 1) + record


def nothing(question: Question) -> bytes:
    """The name is there, with nothing of this type."""
    return _answer(question, 0)


def no_such_name(question: Question) -> bytes:
    """There is no such name."""
    return _answer(question, _NXDOMAIN)


def refused(question: Question) -> bytes:
    """No answer for such a question."""
    return _answer(question, _REFUSED)


def _answer(question: Question, code: int, records: int = 0) -> bytes:
    flags = _RESPONSE | _RECURSION_AVAILABLE | (question.flags & _RECURSION_DESIRED) | code
    return _HEADER.pack(question.id, flags, 1, records, 0, 0) + question.raw


def _labels(datagram: bytes, at: int) -> tuple[list[bytes] | None, int]:
    """The labels of a name written out in full, and where it ends."""
    labels: list[bytes] = []
    start = at
    while at < len(datagram) and at - start < _LONGEST_NAME:
        length = datagram[at]
        at += 1
        if length == 0:
            return labels, at
        if length > 63 or at + length > len(datagram):  # two high bits: a pointer, which a question has no use for
            break
        labels.append(datagram[at : at + length])
        at += length
    return None, at


def _class(datagram: bytes) -> int | None:
    """The class of the first question, where there is one."""
    labels, end = _labels(datagram, _HEADER.size)
    if labels is None or len(datagram) < end + _TYPE_CLASS.size:
        return None
    of_class: int = _TYPE_CLASS.unpack_from(datagram, end)[1]
    return of_class


def _ends(datagram: bytes, at: int, additional: int) -> bool:
    """Whether nothing follows the question but, at most, one OPT record of EDNS."""
    if additional == 0:
        return at == len(datagram)
    if additional > 1 or len(datagram) < at + _OPT.size:
        return False
    root, kind, _, _, length = _OPT.unpack_from(datagram, at)
    whole: bool = root == 0 and kind == _IS_OPT and at + _OPT.size + length == len(datagram)
    return whole


def _name(labels: list[bytes]) -> tuple[str, bool]:
    """A dot inside a label would read as two labels, so it is escaped before it is joined."""
    text = ".".join(label.decode("latin-1").replace("\\", "\\\\").replace(".", "\\.") for label in labels)
    if text.isascii():
        try:
            return hosts.canonical(text), True
        except Invalid:
            pass
    return hosts.escaped(text), False
