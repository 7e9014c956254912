"""The bypass list (EGRESS.md §4) as it can be spoken to a door's listeners: to the proxy (CONNECT, absolute form), on port 80
(Host headers) and as TLS. Every dial, whatever the name, reaches a canary: it must see nobody, or none of the forbidden bytes.

`CASES` is keyed by the item's number; `ELSEWHERE` says where the other items of the 120 are."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Literal

import pytest

from rootlink.egress.policy import Policy
from tests.gate.test_hello import ECH_OUTER, made, record, server_name
from tests.gate.test_http1 import NAME, OK, answering, by_proxy, direct, gate, host, say

Way = Literal["proxy", "direct"]

POLICY = Policy.parse([NAME])


@dataclass(frozen=True)
class Case:
    """`way`: what it is said to. `forbidden`: bytes that must not arrive; b"": nobody may arrive. `reason`: of the refusal."""

    way: Way
    data: bytes
    reason: str
    forbidden: bytes = b""


def connect(target: str, behind: bytes = b"") -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\n\r\n".encode() + behind


def get(target: str, host: str = NAME) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


HELLO = made(server_name(NAME.encode()))
NOT_ALLOWED, OTHER = "not_in_allowlist", "other_host"
BAD_HOST, BAD_URL, PROTOCOL, PORT = "bad_host", "bad_url", "protocol", "port"


def hosts(*texts: str, reason: str = NOT_ALLOWED, url: str | None = None, header: str | None = None) -> list[Case]:
    """Each host in the three places a host can be in. `reason`: of CONNECT; `url` and `header`: of the others, if another."""
    cases = []
    for text in texts:
        plain = text.isascii() and re.search(r"[\x00-\x20\x7f]", text) is None
        in_line = reason if plain else PROTOCOL  # the request line holds visible ASCII alone
        in_header = header or (OTHER if reason == NOT_ALLOWED and plain else PROTOCOL)
        cases += [
            Case("proxy", connect(f"{text}:443", HELLO), in_line),
            Case("proxy", get(f"http://{text}/", text), (url or reason) if plain else PROTOCOL),
            Case("direct", get("/", text), in_header),
        ]
    return cases


def urls(*texts: str, reason: str = BAD_URL, host: str = NAME) -> list[Case]:
    return [Case("proxy", get(text, host), reason) for text in texts]


def said(*datas: bytes, reason: str = PROTOCOL, forbidden: bytes = b"") -> list[Case]:
    return [Case("direct", data, reason, forbidden) for data in datas]


def tls(*hellos: bytes, reason: str) -> list[Case]:
    return [Case("proxy", connect("api.resend.com:443", hello), reason) for hello in hellos]


GET = b"GET / HTTP/1.1\r\nHost: api.resend.com\r\n"
POST = b"POST / HTTP/1.1\r\nHost: api.resend.com\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
EVIL = b"GET /evil HTTP/1.1\r\nHost: evil.com\r\n\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

NAMES = {
    "1 a name that ends alike": hosts("evilapi.resend.com"),
    "2 an allowed name continued": hosts("api.resend.com.evil.com"),
    "3 the dot as a regular expression": hosts("apixresend.com"),
    "4 the parent": hosts("resend.com"),
    "5 the bare top-level domain": hosts("com"),
    "6 another name in capitals": hosts("EVIL.COM"),
    "7 two trailing dots": hosts("api.resend.com..", reason=BAD_HOST),
    "8 a leading dot": hosts(".api.resend.com", reason=BAD_HOST),
    "8 an empty label": hosts("api..resend.com", reason=BAD_HOST),
    "9 a wildcard as host": hosts("*.resend.com", "*", reason=BAD_HOST),
    "10 a homoglyph": hosts("api.resеnd.com"),  # Cyrillic е
    "11 a full-width or ideographic dot": hosts("evil．com", "evil。com", "api.resend。com"),
    "12 a soft hyphen or a zero-width space": hosts("api.re\u00adsend.com", "api.re\u200bsend.com", "api.resend.com\ufeff"),
    "13 the punycode of another name": hosts("xn--pi-7bc.resend.com"),
    "14 an encoded NUL": hosts("evil.com%00.api.resend.com", "api.resend.com%00.evil.com", reason=BAD_HOST),
    "14 a NUL": hosts("api.resend.com\x00.evil.com"),
    "15 an encoded dot": hosts("evil%2ecom", "api%2eresend.com", reason=BAD_HOST),
    "15 an encoded slash": hosts("evil.com%2f.api.resend.com", reason=BAD_HOST),
    "16 an underscore at an edge": hosts("_x.api.resend.com", "x_.api.resend.com", reason=BAD_HOST),
    "16 a hyphen at an edge": hosts("-x.api.resend.com", "x-.api.resend.com", reason=BAD_HOST),
    "17 a label too long": hosts("a" * 64 + ".api.resend.com", reason=BAD_HOST),
    "17 a name too long": hosts("a." * 130 + "api.resend.com", reason=BAD_HOST),
    "18 localhost": hosts("localhost", "api.resend.com.localhost", "ip6-localhost", "localhost.localdomain"),
    "19 a metadata name, the container host": hosts("metadata.google.internal", "host.docker.internal", "metadata"),
    "20 a name that spells an address": hosts("127.0.0.1.nip.io", "7f000001.nip.io", "localtest.me"),
}
URLS = {
    "21 an allowed name as user": [
        *urls("http://api.resend.com@evil.com/", "http://api.resend.com:x@evil.com/"),
        Case("proxy", connect("api.resend.com@evil.com:443", HELLO), BAD_URL),
        *said(get("/", "api.resend.com@evil.com")),
    ],
    "22 another name as user": [
        *urls("http://evil.com@api.resend.com/"),
        Case("proxy", connect("evil.com@api.resend.com:443", HELLO), BAD_URL),
        *said(get("/", "evil.com@api.resend.com")),
    ],
    "23 an allowed name and port as user and password": [
        *urls("http://api.resend.com:80@evil.com/"),
        Case("proxy", connect("api.resend.com:80@evil.com:443", HELLO), BAD_URL),
        *said(get("/", "api.resend.com:80@evil.com")),
    ],
    "24 an allowed name in the fragment": [
        *urls("http://evil.com#.api.resend.com", "http://evil.com#@api.resend.com/", "http://api.resend.com#@evil.com/"),
        Case("proxy", connect("evil.com#api.resend.com:443", HELLO), BAD_URL),
        *said(get("/", "evil.com#api.resend.com")),
    ],
    "25 an allowed name in the query": [
        *urls("http://evil.com?.api.resend.com", "http://evil.com?@api.resend.com/", reason=NOT_ALLOWED, host="evil.com"),
        Case("proxy", connect("evil.com?api.resend.com:443", HELLO), BAD_URL),
        *said(get("/", "evil.com?api.resend.com")),
    ],
    "26 a backslash": [
        *urls("http://evil.com\\.api.resend.com/", "http://evil.com\\@api.resend.com/", "http://api.resend.com\\@evil.com/"),
        Case("proxy", connect("evil.com\\.api.resend.com:443", HELLO), BAD_URL),
        *said(get("/", "evil.com\\.api.resend.com"), get("/", "evil.com\\@api.resend.com")),
    ],
    "27 a slash before the allowed name": [
        *urls("http://evil.com/.api.resend.com/", reason=NOT_ALLOWED, host="evil.com"),
        *urls("http://evil.com/.api.resend.com/", reason=OTHER),
        Case("proxy", connect("evil.com/.api.resend.com:443", HELLO), BAD_URL),
        *said(get("/", "evil.com/.api.resend.com")),
    ],
    "28 backslashes for slashes": urls("http:\\\\api.resend.com\\", "http:\\\\evil.com\\", "http:/\\evil.com/"),
    "29 no slashes": urls("http:api.resend.com", "http:evil.com/", "http:/evil.com/"),
    "30 no scheme": urls("//api.resend.com/", "//evil.com/"),
    "31 another scheme": [
        *urls(
            "file:///etc/passwd", "ftp://api.resend.com/", "gopher://api.resend.com/_GET", "ws://api.resend.com/", reason="scheme"
        ),
        *urls("javascript:alert(1)", "data:,x"),
    ],
    "32 https in absolute form": urls("https://api.resend.com/", "HTTPS://api.resend.com:80/", reason="scheme"),
    "33 no host": urls("http:///evil.com/", "http:///api.resend.com/", "http://:80/", "http://", reason=BAD_HOST),
    "34 relative": urls("/api.resend.com/", "api.resend.com", "/http://api.resend.com/", "api.resend.com/http://evil.com/"),
    "35 a tab, CR, LF or line separator in the host": [
        *urls("http://evil.com\t.api.resend.com/", "http://api.resend\n.com/", "ht\ttp://api.resend.com/", reason=PROTOCOL),
        *urls("http://api.resend.com/\r\nHost: evil.com", "http://evil.com\u2028.api.resend.com/", reason=PROTOCOL),
        *urls(" http://api.resend.com/", "http://api.resend.com /", "http://api.resend.com\r/", reason=PROTOCOL),
        Case("proxy", connect("api.resend.com\t:443", HELLO), PROTOCOL),
        Case("proxy", connect("api.resend.com\r\n:443", HELLO), PROTOCOL),
        *said(
            get("/", "api.resend.com\t.evil.com"),
            get("/", "api.resend.com\u2028.evil.com"),
            get("/", "api.resend.com\n.evil.com"),
        ),
    ],
}
ADDRESSES = {
    "36 a dotted address": hosts("127.0.0.1", "10.0.0.1", "8.8.8.8"),
    "37 a short address": hosts("127.1", "127.0.1", reason=BAD_HOST),
    "38 a decimal address": hosts("2130706433", reason=BAD_HOST),
    "39 an octal address": hosts("0177.0.0.1", "017700000001", reason=BAD_HOST),
    "40 a hexadecimal address": hosts("0x7f000001", "0x7f.1", "127.0.0.0x1", reason=BAD_HOST),
    "41 an overflowing address": hosts("0x17f000001", "127.0.0.257", "4294967297", reason=BAD_HOST),
    "42 zero": [*hosts("0", "0x", reason=BAD_HOST), *hosts("0.0.0.0")],
    "43 an address with a trailing dot": hosts("127.0.0.1.", reason=BAD_HOST),
    "44 IPv6 loopback": hosts("[::1]", "[0:0:0:0:0:0:0:1]"),
    "45 IPv6 unspecified": hosts("[::]"),
    "46 IPv4 mapped": hosts("[::ffff:127.0.0.1]", "[::ffff:7f00:1]"),
    "47 IPv4 compatible": hosts("[::7f00:1]", "[::ffff:0:7f00:1]"),
    "48 NAT64": hosts("[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]"),
    "49 6to4": hosts("[2002:7f00:1::]"),
    "50 Teredo": hosts("[2001:0:4136:e378:8000:63bf:3fff:fdd2]"),
    "51 link-local with a zone": [*hosts("[fe80::1%25lo]", "[fe80::1%lo]", reason=BAD_HOST), *hosts("[fe80::1]")],
    "52 unique local": hosts("[fc00::1]"),
    "53 the metadata address": hosts("169.254.169.254"),
    "54 the metadata address on IPv6": hosts("[fd00:ec2::254]"),
    "55 another cloud's metadata address": hosts("168.63.129.16"),
    "56 shared inside a carrier": hosts("100.64.0.1", "100.127.255.254"),
    "57 multicast, broadcast, reserved": hosts("224.0.0.1", "255.255.255.255", "240.0.0.1", "[ff02::1]"),
    "58 circled digits": hosts("①②⑦.⓪.⓪.①"),
    "59 a name in brackets": hosts("[api.resend.com]", "[127.0.0.1]", reason=BAD_HOST),
}
PORTS = {
    "68 the SSH and mail ports": [
        *(Case("proxy", connect(f"api.resend.com:{port}", b"SSH-2.0-x\r\n"), PORT) for port in (22, 25)),
        *urls("http://api.resend.com:22/", "http://api.resend.com:25/", reason=PORT),
        *said(get("/", "api.resend.com:22"), reason=OTHER),
    ],
    "69 port 0 and 65536": [
        *(Case("proxy", connect(f"api.resend.com:{port}", HELLO), PORT) for port in (0, 65536, 65979, 4295967739)),
        *urls("http://api.resend.com:0/", reason=PORT),
        *urls("http://api.resend.com:65536/", "http://api.resend.com:65616/"),
        *said(get("/", "api.resend.com:0"), get("/", "api.resend.com:65616")),
    ],
    "70 a sign, a space, a letter": [
        *(Case("proxy", connect(f"api.resend.com:{port}", HELLO), BAD_URL) for port in ("+443", "443x", "-443", "4_43", "0x1bb")),
        *(Case("proxy", connect(f"api.resend.com:{port}", HELLO), PROTOCOL) for port in (" 443", "443 ", "\t443")),
        *urls("http://api.resend.com:+80/", "http://api.resend.com:80x/"),
        *urls("http://api.resend.com: 80/", reason=PROTOCOL),
        *said(get("/", "api.resend.com:+80"), get("/", "api.resend.com: 80"), get("/", "api.resend.com:80x")),
    ],
    "71 two ports": [
        Case("proxy", connect("api.resend.com:443:22", HELLO), BAD_URL),
        *urls("http://api.resend.com:80:22/"),
        *said(get("/", "api.resend.com:80:22")),
    ],
    "72 digits that are not ASCII": [
        Case("proxy", connect("api.resend.com:４４３", HELLO), PROTOCOL),
        *urls("http://api.resend.com:８０/", reason=PROTOCOL),
        *said(get("/", "api.resend.com:８０")),
    ],
    "73 a missing port": [
        Case("proxy", connect("api.resend.com", HELLO), BAD_URL),
        Case("proxy", connect("api.resend.com:", HELLO), BAD_URL),
        *urls("http://api.resend.com:/"),
        *said(get("/", "api.resend.com:")),
    ],
}
HTTP = {
    "74 another Host than the URL's": [
        Case("proxy", get("http://api.resend.com/", "evil.com"), OTHER),
        Case("proxy", get("http://evil.com/"), OTHER),
        *said(EVIL, reason=OTHER),
    ],
    "75 two Hosts": [
        *said(GET + b"Host: evil.com\r\n\r\n", GET + b"host: api.resend.com\r\n\r\n"),
        Case("proxy", get("http://api.resend.com/")[:-2] + b"Host: evil.com\r\n\r\n", OTHER),
        Case("proxy", get("http://api.resend.com/")[:-2] + b"HOST: api.resend.com\r\n\r\n", PROTOCOL),
    ],
    "76 no Host": [
        *said(b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"),
        Case("proxy", b"GET http://api.resend.com/ HTTP/1.1\r\n\r\n", PROTOCOL),
    ],
    "77 a folded header": said(GET + b"X: y\r\n z\r\n\r\n", b"GET / HTTP/1.1\r\nHost: evil.com\r\n \r\n api.resend.com\r\n\r\n"),
    "78 a bare line feed or carriage return": said(
        *(GET.replace(b"\r\n", b"\n") + b"\n", GET + b"X: y\nHost: evil.com\r\n\r\n", GET + b"X: y\rHost: evil.com\r\n\r\n"),
        *(GET + b"\n", GET + b"\r\r\n\r\n", GET + b"\n\r\n"),
    ),
    "79 a NUL": said(GET + b"X: \0\r\n\r\n", GET + b"X\0: y\r\n\r\n", b"GET /\0 HTTP/1.1\r\nHost: api.resend.com\r\n\r\n"),
    "80 a space before the colon": said(b"GET / HTTP/1.1\r\nHost : api.resend.com\r\n\r\n", GET + b"Host : evil.com\r\n\r\n"),
    "81 a length and chunks": said(
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + EVIL,
    ),
    "82 two lengths, a list, a sign": said(
        *(POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + EVIL, POST + b"Content-Length: 0, 44\r\n\r\n" + EVIL),
        *(POST + b"Content-Length: +0\r\n\r\n" + EVIL, POST + b"Content-Length: 0\r\ncontent-length: 0\r\n\r\n" + EVIL),
    ),
    "83 xchunked, chunked with identity": said(
        *(
            POST + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n" + EVIL
            for coding in (b"xchunked", b"chunked, identity", b"identity, chunked", b"\x0bchunked", b"'chunked'", b"chunked;q=1")
        )
    ),
    "84 a chunk's size in another form": said(
        *(CHUNKED + b"0x0\r\n\r\n" + EVIL, CHUNKED + b"0;x=y\r\n\r\n" + EVIL, CHUNKED + b"0 \r\n\r\n" + EVIL),
        *(CHUNKED + b"0\n\r\n" + EVIL, CHUNKED + b"00000000000000000\r\n\r\n" + EVIL, CHUNKED + b"-0\r\n\r\n" + EVIL),
        forbidden=b"evil",
    ),
    "85 a second request behind a body": said(
        *(POST + b"Content-Length: 2\r\n\r\nhi" + EVIL, CHUNKED + b"2\r\nhi\r\n0\r\n\r\n" + EVIL), reason=OTHER, forbidden=b"evil"
    ),
    "86 a pipelined request for another host": said(
        GET + b"\r\n" + EVIL, GET + b"\r\n" + GET + b"\r\n" + EVIL, reason=OTHER, forbidden=b"evil"
    ),
    "89 HTTP/2's preface": [
        *said(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
        Case("proxy", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), PROTOCOL),
    ],
    "90 HTTP/0.9": [*said(b"GET /\r\n", b"GET /\n"), Case("proxy", b"GET http://api.resend.com/\r\n", PROTOCOL)],
    "91 a huge head": [
        *said(GET + b"X: " + b"y" * 100_000 + b"\r\n\r\n", GET + b"X: y\r\n" * 101 + b"\r\n"),
        Case("proxy", b"CONNECT api.resend.com:443 HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", PROTOCOL),
    ],
}
TLS = {
    "94 another name in TLS than in CONNECT": tls(made(server_name(b"evil.com")), made(server_name(b"resend.com")), reason=OTHER),
    "95 a sibling's name": tls(made(server_name(b"x.api.resend.com")), made(server_name(b"other.resend.com")), reason=OTHER),
    "96 no TLS on port 443": tls(GET + b"\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", bytes(100), reason=PROTOCOL),
    "97 bytes behind a CONNECT that is denied": [
        Case("proxy", connect("evil.com:443", HELLO), NOT_ALLOWED),
        Case("proxy", connect("api.resend.com:22", EVIL), PORT),
        Case("proxy", connect("api.resend.com@evil.com:443", EVIL), BAD_URL),
    ],
    "98 encrypted ClientHello": tls(made(server_name(NAME.encode()), ECH_OUTER), made(ECH_OUTER), reason=PROTOCOL),
    "101 another name in a hello of many records": tls(
        b"".join(record(bytes([byte])) for byte in made(server_name(b"evil.com"))[5:]), reason=OTHER
    ),
    "102 a websocket to another host": [
        *said(b"GET / HTTP/1.1\r\nHost: evil.com\r\n" + UPGRADE, reason=OTHER),
        Case("proxy", b"GET http://evil.com/ HTTP/1.1\r\nHost: evil.com\r\n" + UPGRADE, NOT_ALLOWED),
        *said(GET + UPGRADE + EVIL, reason=OTHER, forbidden=b"evil"),
    ],
}
CASES = {**NAMES, **URLS, **ADDRESSES, **PORTS, **HTTP, **TLS}
EVERY = [
    pytest.param(case, id=f"{name} / {case.way} {number}") for name, cases in CASES.items() for number, case in enumerate(cases)
]
PASSES_WITHOUT = {  # nothing is refused here: it passes without what is dangerous in it (below)
    87: "a header named by Connection cannot take Host or the framing away",
    88: "an upgrade to HTTP/2 is not passed on",
    92: "the proxy's token is not passed on",
    93: "a redirect is not followed, and the client's next request is checked",
}
ELSEWHERE = {
    **dict.fromkeys(range(60, 64), "who dials: tests/outbound/test_bypass_list.py, and the gate's dial"),
    **dict.fromkeys(range(63, 68), "tests/gate/test_dns.py, and the door's own listeners"),
    99: "inside TLS: not seen without ending it",
    100: "inside TLS: not seen without ending it",
    **dict.fromkeys(range(103, 121), "below HTTP: the door itself (its namespaces, its keeper, its limits)"),
}


def test_every_item_of_the_list_has_its_place() -> None:
    here = {int(name.split(" ")[0]) for name in CASES}
    assert here | set(PASSES_WITHOUT) | set(ELSEWHERE) == set(range(1, 121))


@pytest.mark.parametrize("case", EVERY)
async def test_nothing_forbidden_arrives_for(case: Case) -> None:
    async with host() as canary, gate(by_proxy(canary, POLICY) if case.way == "proxy" else direct(canary)) as found:
        await say(found.port, case.data)
        await found.finished()
    assert (found.refused, found.failed) == ([case.reason], [])
    assert found.messages[0].startswith("egress blocked: ")
    if case.forbidden:
        assert case.forbidden not in canary.everything
    else:
        assert (canary.heard, found.dialled) == ([], 0)


@pytest.mark.parametrize("name", ["36", "44", "46", "47", "48", "49", "50", "52", "53", "54", "55", "56", "57"])
async def test_an_address_that_is_not_the_worlds_is_refused_even_if_the_project_lists_it(name: str) -> None:
    for case in next(cases for label, cases in ADDRESSES.items() if label.startswith(name + " ")):
        if case.way == "proxy" and b"8.8.8.8" not in case.data:
            written = re.split(rb"[ /]", case.data.replace(b"http://", b""))[1].decode().removesuffix(":443")
            policy = Policy.parse([written])
            async with host() as canary, gate(by_proxy(canary, policy)) as found:
                await say(found.port, case.data)
                await found.finished()
            assert (found.refused, canary.heard) == (["private_address"], [])


# what passes, without what is dangerous in it


async def sent(way: Way, data: bytes, token: str | None = None) -> bytes:
    async with host() as canary, gate(by_proxy(canary, POLICY, token) if way == "proxy" else direct(canary)) as found:
        assert b"200 OK" in await say(found.port, data, end=True)
        await found.finished()
    assert found.refused == []
    return canary.everything


async def test_87_connection_cannot_take_the_host_or_the_framing_away() -> None:
    data = POST + b"Content-Length: 2\r\nConnection: host, content-length, close\r\n\r\nhi"
    assert await sent("direct", data) == POST + b"Content-Length: 2\r\nConnection: close\r\n\r\nhi"


async def test_88_an_upgrade_to_http2_is_not_passed_on() -> None:
    data = GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    assert await sent("direct", data) == GET + b"\r\n"


async def test_92_the_proxys_token_is_not_passed_on() -> None:
    line = b"Proxy-Authorization: Basic " + base64.b64encode(b"x:token") + b"\r\n"
    arrived = await sent("proxy", get("http://api.resend.com/")[:-2] + line + b"\r\n", "token")
    assert arrived == GET + b"Connection: close\r\n\r\n"


async def test_93_a_redirect_is_not_followed_and_the_next_request_is_checked() -> None:
    redirect = b"HTTP/1.1 302 Found\r\nLocation: http://evil.com/\r\nContent-Length: 0\r\n\r\n"
    async with host(answering(redirect, OK)) as canary, gate(direct(canary)) as found:
        answer = await say(found.port, GET + b"\r\n" + EVIL)
        await found.finished()
    assert answer.startswith(redirect + b"HTTP/1.1 403 ")
    assert (found.refused, found.dialled, b"evil" in canary.everything) == (["other_host"], 1, False)


# the negative controls: the same ways let the allowed name through

ALLOWED = {
    "6 in capitals": ("direct", get("/", "API.RESEND.COM")),
    "7 with one trailing dot": ("direct", get("/", "api.resend.com.")),
    "with the port": ("direct", get("/", "api.resend.com:80")),
    "in absolute form": ("proxy", get("http://api.resend.com/")),
    "a subdomain in absolute form": ("proxy", get("http://x.api.resend.com/", "x.api.resend.com")),
    "through a tunnel to port 80": ("proxy", connect("api.resend.com:80", get("/"))),
}


@pytest.mark.parametrize(("way", "data"), ALLOWED.values(), ids=ALLOWED)
async def test_the_allowed_name_arrives(way: Way, data: bytes) -> None:
    assert (await sent(way, data)).startswith(b"GET / HTTP/1.1\r\nHost: ")


@pytest.mark.parametrize(
    "hello",
    [HELLO, made(), made(server_name(b"API.resend.com")), b"".join(record(bytes([byte])) for byte in HELLO[5:])],
    ids=["with its name", "without a name", "in capitals", "101 in many records"],
)
async def test_tls_for_the_allowed_name_arrives(hello: bytes) -> None:
    async with host(answering()) as canary, gate(by_proxy(canary, POLICY)) as found:
        await say(found.port, connect("api.resend.com:443", hello), end=True)
    assert (canary.everything, found.refused) == (hello, [])
