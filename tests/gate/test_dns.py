"""One question in, one answer out; another resolver (dnspython) reads what ours writes."""

from __future__ import annotations

import struct

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlink.egress import hosts
from rootlink.errors import Invalid
from rootlink.gate import dns as door

FAKE = "198.18.0.7"


def query(name: str = "api.example.com", kind: str = "A", **options: object) -> bytes:
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]


def packet(name: bytes, *, flags: int = 0x0100, counts: tuple[int, ...] = (1, 0, 0, 0), tail: bytes = b"\0\1\0\1") -> bytes:
    return struct.pack(">HHHHHH", 7, flags, *counts) + name + tail


API = b"\x03api\x07example\x03com\x00"
OPT = b"\0\0\x29\x10\0\0\0\0\0\0\0"


def asked(data: bytes) -> door.Question:
    question = door.question(data)
    assert question is not None
    return question


def read(answer: bytes) -> dns.message.Message:
    assert len(answer) <= door.LARGEST
    return dns.message.from_wire(answer)


@pytest.mark.parametrize("kind", ["A", "AAAA", "HTTPS", "TXT", "MX", "ANY"])
def test_a_question_has_its_name_and_type(kind: str) -> None:
    question = asked(query(kind=kind))
    assert (question.name, question.type, question.plain) == ("api.example.com", dns.rdatatype.from_text(kind), True)


@pytest.mark.parametrize("use_edns", [False, True])
def test_an_answer_is_one_address_that_another_resolver_takes(use_edns: bool) -> None:
    sent = query(use_edns=use_edns, payload=1232)
    answer = read(door.address(asked(sent), FAKE, 30))
    assert dns.message.from_wire(sent).is_response(answer)
    assert [(record.ttl, [str(item) for item in record]) for record in answer.answer] == [(30, [FAKE])]
    assert answer.flags & dns.flags.RA and answer.flags & dns.flags.RD


@pytest.mark.parametrize(
    ("made", "code"),
    [(door.nothing, dns.rcode.NOERROR), (door.no_such_name, dns.rcode.NXDOMAIN), (door.refused, dns.rcode.REFUSED)],
)
def test_an_answer_without_records_says_which_kind_it_is(made: object, code: dns.rcode.Rcode) -> None:
    sent = query(kind="AAAA")
    answer = read(made(asked(sent)))  # type: ignore[operator]
    assert (answer.rcode(), answer.answer, dns.message.from_wire(sent).is_response(answer)) == (code, [], True)


def test_the_question_comes_back_byte_for_byte_in_mixed_case() -> None:
    question = asked(packet(b"\x03aPi\x07eXaMpLe\x03cOm\x00"))
    assert question.name == "api.example.com"
    assert door.address(question, FAKE, 30)[12:].startswith(b"\x03aPi\x07eXaMpLe\x03cOm\x00\0\1\0\1")


def test_recursion_is_not_said_to_be_desired_by_who_did_not() -> None:
    assert not read(door.nothing(asked(packet(API, flags=0)))).flags & dns.flags.RD


def test_the_longest_name_fits_into_an_answer() -> None:
    name = b"".join(b"\x3f" + b"a" * 63 for _ in range(3)) + b"\x3d" + b"a" * 61 + b"\0"
    question = asked(packet(name))
    assert (len(question.name), question.plain) == (253, True)
    assert len(door.address(question, FAKE, 30)) <= door.LARGEST


NO_HOST = {
    "the root": b"\0",
    "a dot inside a label": b"\x0bapi.example\x03com\0",
    "a NUL inside a label": b"\x04a\0pi\x07example\x03com\0",
    "a service": b"\x05_http\x04_tcp\x07example\x03com\0",
    "a space": b"\x05a api\x07example\x03com\0",
    "a slash": b"\x05a/api\x07example\x03com\0",
    "bytes above ASCII": b"\x04\xd0\xb0pi\x07example\x03com\0",
    "a full-width dot in UTF-8": b"\x0dapi\xef\xbc\x8eexample\x03com\0",
    "a number for an address": b"\x0a2130706433\0",
    "a short address": b"\x03127\x011\0",
    "a backslash": b"\x04a\\pi\x03com\0",
}


@pytest.mark.parametrize("name", NO_HOST.values(), ids=NO_HOST)
def test_a_name_that_is_no_hosts_is_a_question_but_not_plain(name: bytes) -> None:
    question = asked(packet(name))
    assert not question.plain and question.name.isascii() and question.name.isprintable()
    with pytest.raises(Invalid):
        hosts.canonical(question.name)
    assert read(door.refused(question)).rcode() == dns.rcode.REFUSED


FORMERR, NOTIMP = 1, 4
NO_QUESTION = {
    "nothing": (b"", None),
    "half a header": (b"\0" * 11, None),
    "a response": (packet(API, flags=0x8100), None),
    "a response of another operation": (packet(API, flags=0xA900), None),
    "an inverse query": (packet(API, flags=0x0800), NOTIMP),
    "an update": (packet(API, flags=0x2800), NOTIMP),
    "a truncated one": (packet(API, flags=0x0300), FORMERR),
    "no question": (packet(b"", counts=(0, 0, 0, 0), tail=b""), FORMERR),
    "two questions": (packet(API, counts=(2, 0, 0, 0)) + API + b"\0\1\0\1", FORMERR),
    "an answer in the query": (packet(API, counts=(1, 1, 0, 0)), FORMERR),
    "an authority in the query": (packet(API, counts=(1, 0, 1, 0)), FORMERR),
    "two additional records": (packet(API, counts=(1, 0, 0, 2)) + OPT + OPT, FORMERR),
    "an additional record that is none of EDNS": (packet(API, counts=(1, 0, 0, 1)) + b"\0\0\x01\0\1\0\0\0\0\0\0", FORMERR),
    "EDNS cut short": (packet(API, counts=(1, 0, 0, 1)) + OPT[:-1], FORMERR),
    "EDNS longer than the datagram": (packet(API, counts=(1, 0, 0, 1)) + OPT[:-1] + b"\5", FORMERR),
    "bytes behind the question": (packet(API) + b"x", FORMERR),
    "bytes behind EDNS": (packet(API, counts=(1, 0, 0, 1)) + OPT + b"x", FORMERR),
    "a pointer for a name": (packet(b"\xc0\x0c"), FORMERR),
    "a pointer behind a label": (packet(b"\x03api\xc0\x0c"), FORMERR),
    "a label of an unknown kind": (packet(b"\x43api\x00"), FORMERR),
    "a label of 64 bytes": (packet(b"\x40" + b"a" * 64 + b"\0"), FORMERR),
    "a name of 256 bytes": (packet(b"\x3f" + (b"a" * 63 + b"\x3f") * 3 + b"a" * 63 + b"\0"), FORMERR),
    "a name without its end": (packet(API[:-1], tail=b""), FORMERR),
    "a question without a class": (packet(API, tail=b"\0\1\0"), FORMERR),
    "class CHAOS": (packet(API, tail=b"\0\1\0\3"), NOTIMP),
    "any class": (packet(API, tail=b"\0\1\0\xff"), NOTIMP),
}


@pytest.mark.parametrize(("data", "code"), NO_QUESTION.values(), ids=NO_QUESTION)
def test_what_is_no_question_is_answered_with_a_complaint_or_not_at_all(data: bytes, code: int | None) -> None:
    assert door.question(data) is None
    complaint = door.complaint(data)
    if code is None:
        assert complaint is None
    else:
        assert complaint is not None
        assert (dns.message.from_wire(complaint).rcode(), complaint[:2]) == (code, data[:2])


@given(st.one_of(st.binary(max_size=600), st.binary(max_size=80).map(lambda name: packet(name))))
def test_any_datagram_is_a_question_or_a_complaint_and_never_an_error(data: bytes) -> None:
    question = door.question(data)
    if question is None:
        complaint = door.complaint(data)
        assert complaint is None or len(complaint) == 12
    else:
        for answer in (
            door.address(question, FAKE, 30),
            door.nothing(question),
            door.no_such_name(question),
            door.refused(question),
        ):
            assert len(answer) <= door.LARGEST and answer[12:].startswith(question.raw)
