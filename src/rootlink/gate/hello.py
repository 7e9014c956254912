"""The first thing a TLS client says, as far as it says where it wants to go. Pure: bytes in, `ClientHello` out.

Rule 1: every length is checked, and what is left over is an error: a hello that two parsers may read as two names names none.
Rule 2: a hello may come in as many records and reads as it likes, up to `MOST` bytes in all.

Encrypted ClientHello: the extension that hides the real name (`ech`) and the one that only pretends to, which Chromium and
Firefox send to everybody (GREASE), have the same type and the same fields of random-looking bytes: nobody without the server's
key can tell them apart. What can be told: with real ECH the name in the clear is the provider's public name, so another than
the one that was connected to, unless the provider made them alike. That exception is the way past the gate, so both have to be
refused; clients are told not to send it (the browser's managed policy). The inner form hides nothing, the name is beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from rootlink.egress import hosts
from rootlink.errors import Invalid

MOST = 20 * 1024  # bytes, with record headers
LONGEST = 16 * 1024  # bytes of a hello without record headers

ALERT_UNRECOGNIZED_NAME = b"\x15\x03\x01\x00\x02\x02\x70"  # fatal; sent in the clear before closing
ALERT_ACCESS_DENIED = b"\x15\x03\x01\x00\x02\x02\x31"

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_RECORD = 16 * 1024
_SERVER_NAME = 0
_HOST_NAME = 0
_ECH = 0xFE0D
_EARLIER = {0xFFCE, 0xFE08, 0xFE09, 0xFE0A}  # drafts of the same: ESNI, and ECH -08 to -10
_OUTER, _INNER = 0, 1


class NotTls(Exception):
    """What came is no ClientHello that names one host at most: the words say why."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """`sni`: canonical, None without one. `ech`: a name may be hidden in it."""

    sni: str | None
    ech: bool


def parse(data: bytes) -> ClientHello | None:
    """The hello at the start of `data`; None: more bytes are needed. Raises `NotTls`, as early as can be told."""
    hello = _reassembled(data)
    if hello is None:
        if len(data) >= MOST:
            raise NotTls(f"the TLS ClientHello is not complete after {MOST} bytes")
        return None
    return _hello(_Reader(hello))


def _reassembled(data: bytes) -> bytes | None:
    """The handshake message out of its records, without its header."""
    message = bytearray()
    at = 0
    while True:
        record = _record(data, at)
        message += record[0]
        if message and message[0] != _CLIENT_HELLO:
            raise NotTls("the TLS connection does not begin with a ClientHello")
        length = int.from_bytes(message[1:4], "big") if len(message) >= 4 else None
        if length is not None and length > LONGEST:
            raise NotTls(f"the TLS ClientHello is longer than {LONGEST} bytes")
        if length is not None and len(message) > 4 + length:
            raise NotTls("there is more in the TLS records than a ClientHello")
        if not record[1]:
            return None
        if length is not None and len(message) == 4 + length:
            return bytes(message[4:])
        at += 5 + len(record[0])


def _record(data: bytes, at: int) -> tuple[bytes, bool]:
    """What has come of the record at `at`, and whether it is whole."""
    header = data[at : at + 5]
    if header[:1] not in (b"", bytes([_HANDSHAKE])) or header[1:2] not in (b"", b"\x03") or (header[2:3] or b"\x00") > b"\x04":
        raise NotTls("what is sent is not TLS")
    if len(header) < 5:
        return b"", False
    length = int.from_bytes(header[3:], "big")
    if not 0 < length <= _RECORD:
        raise NotTls("a TLS record has an impossible length")
    body = data[at + 5 : at + 5 + length]
    return body, len(body) == length


class _Reader:
    """Takes fields off the front; `NotTls` where there is less than a length says."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def rest(self) -> int:
        """Bytes that are not taken yet."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise NotTls("the TLS ClientHello is malformed: a length reaches past its end")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """A field whose length comes before it in `size` bytes."""
        return self.take(self.number(size))


def _hello(reader: _Reader) -> ClientHello:
    if reader.take(2)[0] != 3:
        raise NotTls("the TLS ClientHello is malformed: no version of TLS")
    reader.take(32)
    session, suites, compressions = reader.vector(1), reader.vector(2), reader.vector(1)
    if len(session) > 32 or len(suites) < 2 or len(suites) % 2 or not compressions:
        raise NotTls("the TLS ClientHello is malformed: a list has an impossible length")
    extensions = _extensions(reader)
    sni = extensions.get(_SERVER_NAME)
    hides = not _EARLIER.isdisjoint(extensions) or (_ECH in extensions and _is_outer(extensions[_ECH]))
    return ClientHello(None if sni is None else _server_name(sni), hides)


def _extensions(reader: _Reader) -> dict[int, bytes]:
    if not reader.rest():
        return {}
    inside = _Reader(reader.vector(2))
    if reader.rest():
        raise NotTls("the TLS ClientHello is malformed: bytes follow its extensions")
    found: dict[int, bytes] = {}
    while inside.rest():
        kind = inside.number(2)
        if kind in found:
            raise NotTls("the TLS ClientHello is malformed: an extension comes twice")
        found[kind] = inside.vector(2)
    return found


def _is_outer(data: bytes) -> bool:
    if data[:1] == bytes([_INNER]) and len(data) == 1:
        return False
    if data[:1] != bytes([_OUTER]):
        raise NotTls("the TLS ClientHello is malformed: an ECH extension of no known form")
    return True


def _server_name(data: bytes) -> str:
    reader = _Reader(data)
    names = _Reader(reader.vector(2))
    if reader.rest() or not names.rest():
        raise NotTls("the TLS server name is malformed")
    kind, name = names.number(1), names.vector(2)
    if kind != _HOST_NAME:
        raise NotTls("the TLS server name is of another kind than a host name")
    if names.rest():
        raise NotTls("the TLS ClientHello has several server names")
    if not name.isascii():
        raise NotTls("the TLS server name is not ASCII")
    try:
        host = hosts.canonical(name.decode("ascii"))
    except Invalid as error:
        raise NotTls(f"the TLS server name is no host name: {error.message}") from None
    if hosts.is_address(host):
        raise NotTls(f"the TLS server name '{host}' is an address, not a name")
    return host
