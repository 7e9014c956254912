"""A ClientHello, from real clients and from liars."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootlink.gate import hello
from rootlink.gate.hello import ClientHello, NotTls, parse

NAME = "api.example.com"


def real(name: str | None = NAME, **options: object) -> bytes:
    """What OpenSSL says first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    for option, value in options.items():
        setattr(context, option, value)
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, data)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names)))


def record(data: bytes, kind: int = 22) -> bytes:
    return bytes([kind, 3, 1]) + vector(2, data)


def message(*extensions: bytes, session: bytes = b"", suites: bytes = b"\x13\x01", compressions: bytes = b"\0") -> bytes:
    body = b"\x03\x03" + bytes(32) + vector(1, session) + vector(2, suites) + vector(1, compressions)
    return b"\x01" + vector(3, body + vector(2, b"".join(extensions)))


def made(*extensions: bytes) -> bytes:
    return record(message(*extensions))


PLAIN = made(server_name(NAME.encode()))
ECH_OUTER = extension(0xFE0D, b"\0" + b"\0\1\0\1\x2a" + vector(2, bytes(32)) + vector(2, bytes(200)))

GOOD = {
    "of OpenSSL": (real(), ClientHello(NAME, False)),
    "of OpenSSL without a name": (real(None), ClientHello(None, False)),
    "of TLS 1.2": (real(maximum_version=ssl.TLSVersion.TLSv1_2), ClientHello(NAME, False)),
    "by hand": (PLAIN, ClientHello(NAME, False)),
    "in capitals": (made(server_name(b"API.Example.COM")), ClientHello(NAME, False)),
    "without any extension": (record(b"\x01" + vector(3, message()[4:-2])), ClientHello(None, False)),
    "with encrypted ClientHello": (made(server_name(NAME.encode()), ECH_OUTER), ClientHello(NAME, True)),
    "with the inner form of it": (made(server_name(NAME.encode()), extension(0xFE0D, b"\1")), ClientHello(NAME, False)),
    "with an encrypted name of an early draft": (made(extension(0xFFCE, bytes(100))), ClientHello(None, True)),
    "with extensions nobody knows": (made(extension(0x0A0A, b""), server_name(NAME.encode())), ClientHello(NAME, False)),
    "with early data behind it": (PLAIN + record(b"\1", 20) + record(bytes(100), 23), ClientHello(NAME, False)),
    "in two records": (record(message(server_name(NAME.encode()))[:30]) + record(message(server_name(NAME.encode()))[30:]), None),
    "in records of one byte": (b"".join(record(bytes([b])) for b in message(server_name(NAME.encode()))), None),
    "large, as with post-quantum keys": (made(extension(51, bytes(4000)), server_name(NAME.encode())), ClientHello(NAME, False)),
}


@pytest.mark.parametrize(("data", "expected"), GOOD.values(), ids=GOOD)
def test_a_hello_is_read_however_it_is_cut(data: bytes, expected: ClientHello | None) -> None:
    whole = parse(data)
    assert whole == (expected or ClientHello(NAME, False))
    found = None
    for end in range(len(data) + 1):
        again = parse(data[:end])
        assert again is None or again == whole
        assert found is None or again == found  # once there, it stays
        found = again
    assert found == whole


def inside(data: bytes) -> bytes:
    return record(b"\x01" + vector(3, data))


BODY = message(server_name(NAME.encode()))[4:]
BAD = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": bytes(64),
    "an SSL 2 hello": b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
    "application data": record(bytes(64), 23),
    "an alert": record(b"\2\x28", 21),
    "an empty record": record(b"") + PLAIN,
    "a record that is too long": b"\x16\x03\x01\x40\x01" + bytes(64),
    "a version of the future": b"\x16\x04\x01" + PLAIN[3:],
    "a ServerHello": record(b"\x02" + PLAIN[6:]),
    "a hello that is too long": record(b"\x01\x00\x40\x01" + bytes(64)),
    "another message behind the hello": record(message(server_name(NAME.encode())) + b"\x0b\0\0\0"),
    "a record of another kind in the middle": record(message()[:20]) + record(message()[20:], 23),
    "a hello cut inside": inside(BODY[:40]),
    "no hello": inside(b""),
    "version 2": inside(b"\2\0" + BODY[2:]),
    "a session of 33 bytes": record(message(session=bytes(33))),
    "no cipher suites": record(message(suites=b"")),
    "half a cipher suite": record(message(suites=b"\x13\x01\x13")),
    "no compression": record(message(compressions=b"")),
    "bytes behind the extensions": inside(BODY + b"x"),
    "extensions longer than the hello": inside(message()[4:-2] + b"\0\x10" + bytes(4)),
    "half an extension": inside(message()[4:-2] + vector(2, b"\0\0\0")),
    "two server name extensions": made(server_name(NAME.encode()), server_name(b"evil.com")),
    "two names": made(server_name(NAME.encode(), b"evil.com")),
    "the same name twice": made(server_name(NAME.encode(), NAME.encode())),
    "no name in the list": made(extension(0, vector(2, b""))),
    "an empty server name extension": made(extension(0, b"")),
    "an empty name": made(server_name(b"")),
    "a name of another kind": made(server_name(NAME.encode(), kind=1)),
    "bytes behind the name": made(extension(0, vector(2, b"\0" + vector(2, NAME.encode())) + b"x")),
    "a name longer than its list": made(extension(0, vector(2, b"\0\0\x40" + NAME.encode()))),
    "an IPv4 address": made(server_name(b"127.0.0.1")),
    "a decimal address": made(server_name(b"2130706433")),
    "an IPv6 address": made(server_name(b"::1")),
    "an IPv6 address in brackets": made(server_name(b"[::1]")),
    "a name with a NUL": made(server_name(b"api.example.com\0.evil.com")),
    "a name that is not ASCII": made(server_name("аpi.example.com".encode())),
    "a name with a port": made(server_name(b"api.example.com:443")),
    "a name with a space": made(server_name(b"api.example.com ")),
    "a wildcard": made(server_name(b"*.example.com")),
    "ECH of no known form": made(extension(0xFE0D, b"\2")),
    "ECH without a form": made(extension(0xFE0D, b"")),
    "ECH's inner form with a body": made(extension(0xFE0D, b"\1x")),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_no_plain_hello_is_refused_however_it_is_cut(data: bytes) -> None:
    with pytest.raises(NotTls, match="TLS"):
        parse(data)
    for end in range(len(data)):  # before its end it may be unclear, but it never was a hello
        try:
            assert parse(data[:end]) is None
        except NotTls:
            continue


@pytest.mark.parametrize("first", [b"G", b"S", b"\x80", b"\x16\x02", b"\x16\x03\x01\x00\x05\x02"])
def test_the_first_wrong_byte_is_enough(first: bytes) -> None:
    with pytest.raises(NotTls):
        parse(first)


def test_a_hello_that_never_ends_is_given_up() -> None:
    endless = b"".join(record(bytes([byte])) for byte in b"\x01\x00\x3f\xff" + bytes(hello.MOST // 6))
    assert parse(endless[: hello.MOST - 1]) is None
    with pytest.raises(NotTls, match="not complete"):
        parse(endless[: hello.MOST])


def test_a_client_understands_the_alerts() -> None:
    for alert, words in ((hello.ALERT_UNRECOGNIZED_NAME, "UNRECOGNIZED_NAME"), (hello.ALERT_ACCESS_DENIED, "ACCESS_DENIED")):
        incoming = ssl.MemoryBIO()
        tls = ssl.create_default_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname=NAME)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        incoming.write(alert)
        with pytest.raises(ssl.SSLError, match=words):
            tls.do_handshake()


def either(data: bytes) -> ClientHello | str | None:
    try:
        return parse(data)
    except NotTls as error:
        return f"no: {error}"


@given(st.binary(max_size=400))
def test_any_bytes_are_a_hello_or_refused_or_too_few(data: bytes) -> None:
    either(data)
    either(b"\x16\x03\x01" + data)
    either(record(b"\x01" + vector(3, data)))
    either(made(extension(0, data)))


@settings(max_examples=300)
@given(st.integers(0, len(PLAIN) - 1), st.integers(0, 255))
def test_any_changed_byte_gives_a_hello_or_a_refusal(at: int, byte: int) -> None:
    changed = PLAIN[:at] + bytes([byte]) + PLAIN[at + 1 :]
    found = either(changed)
    assert not isinstance(found, ClientHello) or found.sni is None or found.sni.isascii()


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_records_may_be_cut_anywhere(sizes: list[int]) -> None:
    rest, data = message(server_name(NAME.encode()), ECH_OUTER), b""
    for size in sizes:
        part, rest = rest[:size], rest[size:]
        data += record(part) if part else b""
    data += record(rest) if rest else b""
    assert parse(data) == ClientHello(NAME, True)
