"""What may be said to the proxy, and what it makes of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlink.egress.policy import Policy
from rootlink.gate import proxy
from rootlink.gate.conn import Conn
from rootlink.gate.proxy import Connect, Forward
from rootlink.gate.refused import Refused
from tests.gate.test_hello import ECH_OUTER, made, server_name
from tests.gate.test_http1 import DEADLINE, NAME, OK, answering, by_proxy, connected, gate, host, say

POLICY = Policy.parse([NAME, f"{NAME}:8080"])
HELLO = made(server_name(NAME.encode()))
TOKEN = "a-token-of-this-project"


def basic(password: str, user: str = "rootlink") -> bytes:
    return b"Proxy-Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()) + b"\r\n"


def head(target: str, *lines: bytes, method: str = "CONNECT") -> bytes:
    return f"{method} {target} HTTP/1.1\r\n".encode() + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


async def asked(data: bytes, token: str | None = None) -> tuple[Connect | Forward | str | None, bytes, bytes]:
    """What `target` says to `data` (a refusal's reason), what is still held, and what the client got."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    conn, client = Conn(ours), Conn(theirs)
    await client.send(data)
    client.end_sending()
    found: Connect | Forward | str | None
    try:
        found = await proxy.target(conn, token)
    except Refused as refused:
        found = refused.decision.reason
    conn.close()
    with contextlib.suppress(ConnectionResetError):
        while await client.more():
            pass
    client.close()
    return found, bytes(conn.held), bytes(client.held)


TUNNELS = {
    "a name": (head("api.resend.com:443"), Connect(NAME, 443)),
    "a name in capitals with a dot at its end": (head("API.Resend.COM.:443"), Connect(NAME, 443)),
    "another port": (head("db.example.com:5432"), Connect("db.example.com", 5432)),
    "an address": (head("192.0.2.7:443"), Connect("192.0.2.7", 443)),
    "an IPv6 address": (head("[2606:4700::1111]:443"), Connect("2606:4700::1111", 443)),
    "an IPv6 address in another spelling": (head("[2606:4700:0:0::1111]:443"), Connect("2606:4700::1111", 443)),
    "the same Host": (head("api.resend.com:443", b"Host: api.resend.com:443"), Connect(NAME, 443)),
    "a Host without the port": (head("api.resend.com:443", b"Host: api.resend.com"), Connect(NAME, 443)),
    "no body": (head("api.resend.com:443", b"Content-Length: 0"), Connect(NAME, 443)),
    "HTTP/1.0": (head("api.resend.com:443").replace(b"1.1", b"1.0"), Connect(NAME, 443)),
}


@pytest.mark.parametrize(("data", "expected"), TUNNELS.values(), ids=TUNNELS)
async def test_a_tunnel_is_asked_for_with(data: bytes, expected: Connect) -> None:
    assert await asked(data) == (expected, b"", b"")


async def test_what_is_sent_behind_a_connect_is_held() -> None:
    assert await asked(head("api.resend.com:443") + HELLO) == (Connect(NAME, 443), HELLO, b"")


FORWARDS = {
    "a path": ("http://api.resend.com/a/b?c=d", 80, b"/a/b?c=d"),
    "no path": ("http://api.resend.com", 80, b"/"),
    "no path but a query": ("http://api.resend.com?c=d", 80, b"/?c=d"),
    "a port": ("http://api.resend.com:8080/x", 8080, b"/x"),
    "capitals": ("HTTP://API.Resend.COM./x", 80, b"/x"),
    "encoded characters as they are": ("http://api.resend.com/%2F%41%zz/../x", 80, b"/%2F%41%zz/../x"),
    "another URL in the path": ("http://api.resend.com/http://evil.com/", 80, b"/http://evil.com/"),
    "two slashes": ("http://api.resend.com//evil.com/", 80, b"//evil.com/"),
    "an at sign in the path": ("http://api.resend.com/@evil.com/", 80, b"/@evil.com/"),
    "a question mark and an at sign": ("http://api.resend.com?@evil.com/", 80, b"/?@evil.com/"),
}


@pytest.mark.parametrize(("url", "port", "target"), FORWARDS.values(), ids=FORWARDS)
async def test_a_request_is_forwarded_in_origin_form_with(url: str, port: int, target: bytes) -> None:
    data = head(url, b"Host: api.resend.com", b"Proxy-Connection: keep-alive", basic("x")[:-2], b"X: y", method="GET")
    found, held, said = await asked(data + b"behind")
    assert isinstance(found, Forward)
    assert (found.host, found.port, held, said) == (NAME, port, b"behind", b"")
    assert (found.head.method, found.head.target) == (b"GET", target)
    assert found.head.fields == [(b"Host", b"api.resend.com"), (b"X", b"y")]


REFUSED = {
    "no port": (head("api.resend.com"), "bad_url"),
    "an empty port": (head("api.resend.com:"), "bad_url"),
    "port 0": (head("api.resend.com:0"), "port"),
    "port 65536": (head("api.resend.com:65536"), "port"),
    "a port of a thousand digits": (head("api.resend.com:" + "0" * 1000 + "443"), "port"),
    "a user": (head("me@api.resend.com:443"), "bad_url"),
    "a path": (head("api.resend.com:443/"), "bad_url"),
    "a query": (head("api.resend.com:443?x"), "bad_url"),
    "a scheme": (head("https://api.resend.com:443"), "bad_url"),
    "a bare path": (head("/x"), "bad_url"),
    "a backslash": (head("api.resend.com\\:443"), "bad_url"),
    "an IPv6 address without brackets": (head("::1:443"), "bad_url"),
    "an IPv4 address in brackets": (head("[127.0.0.1]:443"), "bad_host"),
    "an empty host": (head(":443"), "bad_url"),
    "empty brackets": (head("[]:443"), "bad_host"),
    "another Host": (head("api.resend.com:443", b"Host: evil.com:443"), "other_host"),
    "a Host with another port": (head("api.resend.com:443", b"Host: api.resend.com:80"), "other_host"),
    "two Hosts": (head("api.resend.com:443", b"Host: api.resend.com", b"Host: api.resend.com"), "protocol"),
    "a body": (head("api.resend.com:443", b"Content-Length: 5") + b"hello", "protocol"),
    "a chunked body": (head("api.resend.com:443", b"Transfer-Encoding: chunked") + b"0\r\n\r\n", "protocol"),
    "connect in small letters": (head("api.resend.com:443", method="connect"), "bad_url"),
    "a path to get": (head("/x", b"Host: api.resend.com", method="GET"), "bad_url"),
    "https to get": (head("https://api.resend.com/", b"Host: api.resend.com", method="GET"), "scheme"),
    "ftp to get": (head("ftp://api.resend.com/", b"Host: api.resend.com", method="GET"), "scheme"),
    "a star": (head("*", b"Host: api.resend.com", method="OPTIONS"), "bad_url"),
    "a host and port to get": (head("api.resend.com:80", b"Host: api.resend.com", method="GET"), "bad_url"),
    "a fragment to get": (head("http://api.resend.com/#x", b"Host: api.resend.com", method="GET"), "bad_url"),
    "a URL of port 0": (head("http://api.resend.com:0/", method="GET"), "port"),
    "a URL with a user": (head("http://me:too@api.resend.com/", b"Host: api.resend.com", method="GET"), "bad_url"),
    "a URL and another Host": (head("http://api.resend.com/", b"Host: evil.com", method="GET"), "other_host"),
    "two tokens": (head("api.resend.com:443", basic(TOKEN)[:-2], basic(TOKEN)[:-2]), "protocol"),
    "TLS to the proxy": (HELLO, "protocol"),
    "SOCKS 5": (b"\x05\x01\x00", "protocol"),
    "SOCKS 4": (b"\x04\x01\x01\xbb\x00\x00\x00\x01x\x00api.resend.com\x00", "protocol"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
async def test_the_proxy_refuses(data: bytes, reason: str) -> None:
    found, _, said = await asked(data, TOKEN if reason == "protocol" and b"Proxy-Auth" in data else None)
    assert found == reason
    assert said.startswith(b"HTTP/1.1 403 Forbidden\r\n") and b"\r\n\r\negress blocked: " in said


# the token


@pytest.mark.parametrize("user", ["rootlink", "", "a b"])
async def test_the_token_opens_the_proxy_for_any_user(user: str) -> None:
    data = head("api.resend.com:443", basic(TOKEN, user)[:-2])
    assert await asked(data, TOKEN) == (Connect(NAME, 443), b"", b"")


async def test_without_a_token_the_client_is_asked_for_it_and_nothing_is_recorded() -> None:
    found, _, said = await asked(head("api.resend.com:443"), TOKEN)
    assert found is None
    assert said.startswith(b"HTTP/1.1 407 ") and b"\r\nProxy-Authenticate: Basic " in said and TOKEN.encode() not in said


WRONG = {
    "another token": basic("another"),
    "an empty one": basic(""),
    "more than the token": basic(TOKEN + "x"),
    "less than the token": basic(TOKEN[:-1]),
    "no colon": b"Proxy-Authorization: Basic " + base64.b64encode(TOKEN.encode()) + b"\r\n",
    "no base64": b"Proxy-Authorization: Basic %%%%\r\n",
    "bytes that are not ASCII": b"Proxy-Authorization: Basic \xff\xfe\r\n",
    "another scheme": b"Proxy-Authorization: Bearer " + TOKEN.encode() + b"\r\n",
    "a scheme alone": b"Proxy-Authorization: Basic\r\n",
}


@pytest.mark.parametrize("line", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize(
    "data", [head("api.resend.com:443"), head("http://api.resend.com/", method="GET")], ids=["CONNECT", "GET"]
)
async def test_a_wrong_token_is_refused(data: bytes, line: bytes) -> None:
    found, _, said = await asked(data[:-2] + line + b"\r\n", TOKEN)
    assert found == "protocol"
    assert said.startswith(b"HTTP/1.1 407 ")


# with a host behind it


async def test_the_token_never_reaches_a_host() -> None:
    data = head("http://api.resend.com/", b"Host: api.resend.com", basic(TOKEN)[:-2], method="GET")
    async with host() as to, gate(by_proxy(to, POLICY, TOKEN)) as found:
        assert (await say(found.port, data, end=True)).startswith(b"HTTP/1.1 200 OK")
    assert to.everything == b"GET / HTTP/1.1\r\nHost: api.resend.com\r\nConnection: close\r\n\r\n"


async def test_a_forwarded_request_is_the_only_one_of_its_connection() -> None:
    """The next one may name another host, and is read by nobody who would notice."""
    data = head("http://api.resend.com/1", b"Host: api.resend.com", method="GET")
    async with host() as to, gate(by_proxy(to, POLICY)) as found:
        answer = await say(found.port, data + head("/2", b"Host: api.resend.com", method="GET"))
    assert answer == OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert b"/2" not in to.everything


async def test_what_is_not_allowed_is_refused_in_the_words_of_the_policy() -> None:
    async with host() as to, gate(by_proxy(to, POLICY)) as found:
        answer = await say(found.port, head("evil.com:443") + HELLO)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.endswith(b"egress blocked: host 'evil.com' is not in this project's outbound allowlist\n")
    assert (found.refused, to.heard) == (["not_in_allowlist"], [])


async def test_a_tunnel_carries_tls_for_its_name_both_ways() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(len(HELLO)) == HELLO
        writer.write(b"hello yourself")

    async with host(talk) as to, gate(by_proxy(to, POLICY)) as found:
        answer = await say(found.port, head("api.resend.com:443") + HELLO, end=True)
    assert answer == proxy.ESTABLISHED + b"hello yourself"


@pytest.mark.parametrize(
    ("hello", "reason"),
    [(made(server_name(b"evil.com")), "other_host"), (made(server_name(NAME.encode()), ECH_OUTER), "protocol"), (OK, "protocol")],
    ids=["another name", "an encrypted one", "no TLS"],
)
async def test_a_tunnel_carries_nothing_but_tls_for_its_name(hello: bytes, reason: str) -> None:
    async with host() as to, gate(by_proxy(to, POLICY)) as found:
        await say(found.port, head("api.resend.com:443") + hello)
        await found.finished()
    assert (found.refused, to.heard) == ([reason], [])


async def test_curl_goes_through_the_proxy() -> None:
    async with host(answering(OK, OK)) as to, gate(by_proxy(to, POLICY, TOKEN)) as found:

        async def curl(*arguments: str) -> tuple[int | None, bytes]:
            process = await asyncio.create_subprocess_exec(
                *("/usr/bin/curl", "-sS", "-m", "20", "-o", "-", *arguments),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await process.communicate()
            return process.returncode, out + err

        plain = f"http://{NAME}/"
        with_token = ["-x", f"http://rootlink:{TOKEN}@127.0.0.1:{found.port}"]
        assert await curl(*with_token, plain) == (0, b"ok")
        assert await curl(*with_token, plain, plain) == (0, b"okok")
        assert await curl(*with_token, "-p", plain) == (0, b"ok")  # CONNECT to port 80
        assert await curl(*with_token, "--proxy-anyauth", plain) == (0, b"ok")  # asks first, and is asked for the token
        code, words = await curl(*with_token, "http://evil.com/")
        assert (code, b"'evil.com' is not in this project's outbound allowlist" in words) == (0, True)
        code, words = await curl(*with_token, "https://evil.com/")
        assert code == 56 and b"403" in words
        code, words = await curl("-x", f"http://127.0.0.1:{found.port}", "-p", plain)
        assert code == 56 and b"407" in words
    assert found.refused == ["not_in_allowlist", "not_in_allowlist"]


async def test_a_client_that_goes_away_is_no_refusal() -> None:
    for data in (b"", b"CONNECT api", head("api.resend.com:443")[:-2]):
        assert await asked(data) == (None, b"" if data == b"" else data, b"")


async def test_a_head_may_come_byte_by_byte() -> None:
    async with host() as to, gate(by_proxy(to, POLICY)) as found:
        conn = await connected(found.port)
        for byte in head("http://api.resend.com/x", b"Host: api.resend.com", method="GET"):
            await conn.send(bytes([byte]))
        async with asyncio.timeout(DEADLINE):
            while await conn.more():
                pass
        conn.close()
    assert to.everything.startswith(b"GET /x HTTP/1.1\r\n")


HOSTILE = st.text(alphabet="api.resend.com:/@?#[]%\\*0123456789xevil", max_size=40)


@given(st.one_of(HOSTILE, HOSTILE.map("http://{}".format), HOSTILE.map("{}:443".format)), st.sampled_from(["CONNECT", "GET"]))
def test_any_target_is_one_host_or_refused(text: str, method: str) -> None:
    found, _, _ = asyncio.run(asked(head(text, method=method)))
    if isinstance(found, (Connect, Forward)):
        assert POLICY.decide(found.host, found.port).host == found.host  # it is canonical
        assert 0 < found.port < 65536
    else:
        assert found in {"bad_host", "bad_url", "scheme", "port", "protocol"}
