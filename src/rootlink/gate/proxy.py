"""The explicit proxy: `CONNECT host:port`, or a request for `http://host/…`, read strictly. One head, one target; no decision.

What a client sends behind its CONNECT before it is answered stays in `client.held`, and reaches nobody before the decision.
A token, where one is needed, is the password of `Proxy-Authorization: Basic`; it is never passed on.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass

from rootlink.egress import hosts, urls
from rootlink.egress.policy import Decision, Reason, denied
from rootlink.errors import Invalid
from rootlink.gate import http1
from rootlink.gate.conn import Conn
from rootlink.gate.http1 import Head, Malformed
from rootlink.gate.refused import Refused

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"  # the answer to a CONNECT that is allowed and dialled

_AUTHORITY = re.compile(r"(\[[^\[\]@/?#\\]*\]|[^:@\[\]/?#\\]+):([0-9]+)\Z")
_BEFORE_PATH = re.compile(r"http://[^/?#]*", re.IGNORECASE)
_ASKS = ('Proxy-Authenticate: Basic realm="rootlink"',)
_NO_TOKEN = "this proxy is for one project's programs: its address in their environment holds the token"


def unreachable(words: str) -> bytes:
    """The answer to a CONNECT that is allowed, to where nobody answers."""
    return http1.message(502, words)


@dataclass(frozen=True, slots=True)
class Connect:
    """A tunnel. `host` is canonical."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Forward:
    """A request for `http1.serve`, whose `first` is `head`: in origin form, without the proxy's headers. `host` is canonical."""

    host: str
    port: int
    head: Head


async def target(client: Conn, token: str | None) -> Connect | Forward | None:
    """What the client wants to reach. None: it went away, or was asked for the token (407). Raises `Refused` (`bad_host`, `port`,
    `bad_url`, `scheme`, `other_host`, `protocol`) when the client has been told already: nothing more may be sent to it."""
    try:
        head = await http1.read_request(client)
        if head is None:
            return None
        if token is None or _authorised(head, token):
            return _connect(head) if head.method == b"CONNECT" else _forward(head)
    except OSError:
        return None
    except Malformed as error:
        refused = Refused(denied("protocol", "", 0, f"what is sent to the proxy is refused: {error}"))
    except Refused as error:
        refused = error
    else:
        await http1.part(client, http1.message(407, _NO_TOKEN, _ASKS))
        if not head.all(b"proxy-authorization"):  # some clients wait to be asked: that is no refusal
            return None
        raise _refused("protocol", "", 0, "the proxy was asked with another token than this project's")
    await http1.part(client, http1.refusal(refused.decision.message))
    raise refused


def _authorised(head: Head, token: str) -> bool:
    """Raises `Malformed` for two."""
    given = head.all(b"proxy-authorization")
    if len(given) > 1:
        raise Malformed("it has several Proxy-Authorization headers")
    return bool(given) and _matches(given[0], token)


def _matches(given: bytes, token: str) -> bool:
    scheme, _, encoded = given.partition(b" ")
    try:
        password = base64.b64decode(encoded.strip(b" "), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return False
    return scheme.lower() == b"basic" and hmac.compare_digest(password, token.encode())


def _connect(head: Head) -> Connect:
    text = head.target.decode("ascii")
    match = _AUTHORITY.match(text)
    if match is None:
        raise _refused("bad_url", hosts.escaped(text), 0, "CONNECT needs HOST:PORT and nothing else")
    try:
        host = hosts.canonical(match[1])
    except Invalid as error:
        raise _refused("bad_host", hosts.escaped(match[1]), 0, error.message) from None
    try:
        port = hosts.port(match[2])
    except Invalid as error:
        raise _refused("port", host, 0, error.message) from None
    if not http1.body_of(head).over:
        raise Malformed("a CONNECT has a body")
    _agrees(head, host, port)
    return Connect(host, port)


def _forward(head: Head) -> Forward:
    text = head.target.decode("ascii")
    if text.startswith("/"):
        raise _refused("bad_url", "", 0, "a proxy is asked for a whole URL, http://HOST/…, or by CONNECT")
    read = urls.read(text)
    if isinstance(read, Decision):
        raise Refused(read)
    before = _BEFORE_PATH.match(text)
    if before is None:
        raise _refused("scheme", read.host, read.port, "a proxy forwards http:// alone; https is asked for by CONNECT")
    path = text[before.end() :]
    if "#" in path:
        raise _refused("bad_url", read.host, read.port, f"the URL of host '{read.host}' has a fragment, which is never sent")
    if not read.port:
        raise _refused("port", read.host, 0, "port 0 is not a number from 1 to 65535")
    _agrees(head, read.host, read.port)
    fields = [(name, value) for name, value in head.fields if not name.lower().startswith(b"proxy-")]
    origin = path if path.startswith("/") else "/" + path
    return Forward(read.host, read.port, Head(head.method, origin.encode("ascii"), head.minor, fields))


def _agrees(head: Head, host: str, port: int) -> None:
    """A Host header beside the target must name the same. Raises `Refused`, `Malformed`."""
    for value in head.all(b"host"):
        named, named_port = http1.named(value)
        if named != host or named_port not in (None, port):
            asked = http1.authority(named, named_port)
            raise _refused("other_host", host, port, f"the proxy was asked for '{host}' and the Host header names '{asked}'")
    if len(head.all(b"host")) > 1:
        raise Malformed("it has several Host headers")


def _refused(reason: Reason, host: str, port: int, words: str) -> Refused:
    return Refused(denied(reason, host, port, words))
