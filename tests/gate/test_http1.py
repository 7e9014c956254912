"""What passes an HTTP/1.1 connection to one vetted host, and what does not.

The stage is first, for the neighbours too: clients by hand, a host that records every byte, and a gate in few lines. It decides
as the real one does, with the real policy, and then dials the recording host whatever the name was: so only the protocols and the
policy stand between what is sent and that host."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from rootlink.egress.policy import Policy, denied
from rootlink.gate import hello, http1, proxy
from rootlink.gate.conn import READ, Conn
from rootlink.gate.http1 import AnswerHead, Chunked, Head, Malformed, parse_answer, parse_request
from rootlink.gate.refused import Refused, Unreachable

# the stage

DEADLINE = 10.0  # seconds, for what takes milliseconds
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NAME = "api.resend.com"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Host:
    """A server that is reached. `heard`: every byte, a buffer a connection."""

    port: int = 0
    heard: list[bytearray] = field(default_factory=list)

    @property
    def everything(self) -> bytes:
        return b"".join(self.heard)


class _Recording(asyncio.StreamReader):
    def __init__(self, into: bytearray) -> None:
        super().__init__()
        self._into = into

    def feed_data(self, data: bytes) -> None:
        self._into += data
        super().feed_data(data)


@contextlib.asynccontextmanager
async def host(talk: Talk | None = None, *, record: bool = True) -> AsyncIterator[Host]:
    """By default every head is answered with `OK`."""
    found = Host()
    talks: set[asyncio.Task[None]] = set()

    async def called(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await (talk or _ok)(reader, writer)
        writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(called(reader, writer))
        talks.add(task)
        task.add_done_callback(talks.discard)

    def protocol() -> asyncio.StreamReaderProtocol:
        heard = bytearray()
        found.heard.append(heard)
        return asyncio.StreamReaderProtocol(_Recording(heard) if record else asyncio.StreamReader(), connected)

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        await _ended(talks)


async def _ended(tasks: set[asyncio.Task[None]]) -> None:
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)


def answering(*answers: bytes, close: bool = False) -> Talk:
    """A host that says each answer after a head, and then ends (`close`) or stays."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        if not close:
            await reader.read()

    return talk


async def connected(port: int) -> Conn:
    """Raises Unreachable."""
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except OSError as error:
        sock.close()
        raise Unreachable(f"host '{NAME}' does not answer: {error.strerror}") from None
    return Conn(sock)


async def splice(one: Conn, other: Conn) -> None:
    async def copy(source: Conn, sink: Conn) -> None:
        with contextlib.suppress(OSError):
            await sink.send(source.take())
            while await source.more():
                await sink.send(source.take())
        sink.end_sending()

    await asyncio.gather(copy(one, other), copy(other, one))


@dataclass
class Gate:
    """`refused`: the reasons; `failed`: the words of `Unreachable`; `broken`: whatever else came out, which should be nothing."""

    port: int = 0
    dialled: int = 0
    messages: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    broken: list[BaseException] = field(default_factory=list)
    done: int = 0

    async def finished(self, count: int = 1) -> None:
        """Returns when `count` connections have been served to their end."""
        async with asyncio.timeout(DEADLINE):
            while self.done < count:
                await asyncio.sleep(0.005)


Serve = Callable[[Gate, Conn], Awaitable[None]]


@contextlib.asynccontextmanager
async def gate(serve: Serve) -> AsyncIterator[Gate]:
    found = Gate()
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    found.port = listener.getsockname()[1]
    tasks: set[asyncio.Task[None]] = set()

    async def one(sock: socket.socket) -> None:
        conn = Conn(sock)
        try:
            await serve(found, conn)
        except Refused as refused:
            found.refused.append(refused.decision.reason)
            found.messages.append(refused.decision.message)
        except Unreachable as failed:
            found.failed.append(str(failed))
        except Exception as error:
            found.broken.append(error)
        finally:
            conn.close()
            found.done += 1

    async def accept() -> None:
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(one(sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    accepting = loop.create_task(accept())
    try:
        yield found
    finally:
        await _ended({accepting})
        await _ended(tasks)
        listener.close()
    assert not found.broken, found.broken


def direct(to: Host, *, name: str = NAME, port: int = 80) -> Serve:
    """What is said on port 80 to an address that was given out for `name`."""

    async def serve(found: Gate, conn: Conn) -> None:
        async def dial() -> Conn:
            found.dialled += 1
            return await connected(to.port)

        await http1.serve(conn, name, port, dial, splice)

    return serve


def by_proxy(to: Host, policy: Policy, token: str | None = None) -> Serve:
    """What is said to the proxy. A tunnel is a tunnel to TLS for the same name, but to port 80: that is HTTP."""

    async def serve(found: Gate, conn: Conn) -> None:
        asked = await proxy.target(conn, token)
        if asked is None:
            return
        decision = policy.decide(asked.host, asked.port)
        if not decision.allowed:
            await http1.part(conn, http1.refusal(decision.message))
            raise Refused(decision)

        async def dial() -> Conn:
            found.dialled += 1
            return await connected(to.port)

        if isinstance(asked, proxy.Forward):
            await http1.serve(conn, asked.host, asked.port, dial, splice, asked.head)
            return
        await conn.send(proxy.ESTABLISHED)
        if asked.port == 80:
            await http1.serve(conn, asked.host, asked.port, dial, splice)
            return
        await _tls_for(asked, conn)
        upstream = await dial()
        try:
            await splice(conn, upstream)
        finally:
            upstream.close()

    return serve


async def _tls_for(asked: proxy.Connect, conn: Conn) -> None:
    try:
        while (found := hello.parse(bytes(conn.held))) is None:
            if not await conn.more():
                raise EOFError
    except hello.NotTls as error:
        raise Refused(denied("protocol", asked.host, asked.port, str(error))) from None
    if found.ech or found.sni not in (None, asked.host):
        await http1.part(conn, hello.ALERT_UNRECOGNIZED_NAME)
        raise Refused(denied("protocol" if found.ech else "other_host", asked.host, asked.port, "another name"))


async def say(port: int, data: bytes, *, end: bool = False) -> bytes:
    """Send `data`, and read until the other side ends (b"" also when it resets)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        async with asyncio.timeout(DEADLINE):
            writer.write(data)
            if end:
                writer.write_eof()
            while part := await reader.read(READ):
                answer += part
    except ConnectionError:
        pass
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return answer


# what is said on it

GET = b"GET / HTTP/1.1\r\nHost: api.resend.com\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: api.resend.com\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: api.resend.com\r\nConnection: close\r\n\r\n"
CLOSE = b"Connection: close\r\n"


async def through(data: bytes, talk: Talk | None = None, *, end: bool = True, port: int = 80) -> tuple[bytes, Gate, Host]:
    """Says `data` to a host through a gate; what came back, and what the two saw."""
    async with host(talk) as to, gate(direct(to, port=port)) as found:
        answer = await say(found.port, data, end=end)
        await found.finished()
    return answer, found, to


# what is refused before anybody is dialled

REFUSED_HEADS = {
    "another name": (b"GET / HTTP/1.1\r\nHost: evil.com\r\n\r\n", "other_host"),
    "another port": (b"GET / HTTP/1.1\r\nHost: api.resend.com:8080\r\n\r\n", "other_host"),
    "the name of a subdomain": (b"GET / HTTP/1.1\r\nHost: x.api.resend.com\r\n\r\n", "other_host"),
    "an address": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "other_host"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", "protocol"),
    "no Host, HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", "protocol"),
    "two Hosts": (GET + b"Host: evil.com\r\n\r\n", "protocol"),
    "the same Host twice": (GET + b"Host: api.resend.com\r\n\r\n", "protocol"),
    "an empty Host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "protocol"),
    "a Host with a user": (b"GET / HTTP/1.1\r\nHost: api.resend.com@evil.com\r\n\r\n", "protocol"),
    "a Host with a path": (b"GET / HTTP/1.1\r\nHost: api.resend.com/\r\n\r\n", "protocol"),
    "a Host with an empty port": (b"GET / HTTP/1.1\r\nHost: api.resend.com:\r\n\r\n", "protocol"),
    "a list of Hosts": (b"GET / HTTP/1.1\r\nHost: api.resend.com, evil.com\r\n\r\n", "protocol"),
    "a Host that is not ASCII": (b"GET / HTTP/1.1\r\nHost: api.res\xd0\xb5nd.com\r\n\r\n", "protocol"),
    "a folded header": (GET + b"X: a\r\n b\r\n\r\n", "protocol"),
    "a folded Host": (b"GET / HTTP/1.1\r\nHost: api.resend.com\r\n\tevil.com\r\n\r\n", "protocol"),
    "a fold before the first header": (b"GET / HTTP/1.1\r\n Host: evil.com\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "a bare line feed": (b"GET / HTTP/1.1\nHost: api.resend.com\n\n", "protocol"),
    "a bare line feed in a header": (GET + b"X: a\nHost: evil.com\r\n\r\n", "protocol"),
    "a bare carriage return": (GET + b"X: a\rHost: evil.com\r\n\r\n", "protocol"),
    "a NUL in a header": (GET + b"X: a\0b\r\n\r\n", "protocol"),
    "a NUL in the target": (b"GET /\0 HTTP/1.1\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "a NUL first": (b"\0" + GET + b"\r\n", "protocol"),
    "a control character in a header": (GET + b"X: a\x0bb\r\n\r\n", "protocol"),
    "a space before the colon": (b"GET / HTTP/1.1\r\nHost : api.resend.com\r\n\r\n", "protocol"),
    "a tab before the colon": (GET + b"Content-Length\t: 5\r\n\r\n", "protocol"),
    "a header without a colon": (GET + b"nothing\r\n\r\n", "protocol"),
    "a header without a name": (GET + b": x\r\n\r\n", "protocol"),
    "a header's name with a slash": (GET + b"a/b: x\r\n\r\n", "protocol"),
    "an empty line first": (b"\r\n" + GET + b"\r\n", "protocol"),
    "HTTP/0.9": (b"GET /\r\n", "protocol"),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "protocol"),
    "the preface as HTTP/1.1": (b"PRI / HTTP/1.1\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "HTTP in small letters": (b"GET / http/1.1\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "a tab in the request line": (b"GET\t/ HTTP/1.1\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "a space in the target": (b"GET /a b HTTP/1.1\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "a target that is not ASCII": (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "a target in absolute form": (b"GET http://evil.com/ HTTP/1.1\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "a target with a fragment": (b"GET /#x HTTP/1.1\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "a target of a star": (b"OPTIONS * HTTP/1.1\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "CONNECT": (b"CONNECT api.resend.com:80 HTTP/1.1\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "CONNECT of a path": (b"CONNECT /x HTTP/1.1\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "TRACE": (b"TRACE / HTTP/1.1\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "trace in small letters": (b"trace / HTTP/1.1\r\nHost: api.resend.com\r\n\r\n", "protocol"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "protocol"),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", "protocol"),
    "a length and chunks": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "protocol"),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "protocol"),
    "the same length twice": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "protocol"),
    "a list of lengths": (POST + b"Content-Length: 5, 5\r\n\r\nhello", "protocol"),
    "a length with a sign": (POST + b"Content-Length: +5\r\n\r\nhello", "protocol"),
    "a negative length": (POST + b"Content-Length: -5\r\n\r\nhello", "protocol"),
    "a hexadecimal length": (POST + b"Content-Length: 0x5\r\n\r\nhello", "protocol"),
    "an empty length": (POST + b"Content-Length:\r\n\r\nhello", "protocol"),
    "a length with an underscore": (POST + b"Content-Length: 1_0\r\n\r\nhello", "protocol"),
    "an endless length": (POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nhello", "protocol"),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "protocol"),
    "chunked, identity": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "protocol"),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "protocol"),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", "protocol"),
    "chunked with a vertical tab": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "protocol"),
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "protocol"),
    "chunks in HTTP/1.0": (
        b"POST / HTTP/1.0\r\nHost: api.resend.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "protocol",
    ),
    "a head that is too large": (GET + b"X: " + b"x" * http1.LARGEST_HEAD + b"\r\n\r\n", "protocol"),
    "a request line that is too long": (b"GET /" + b"x" * http1.LARGEST_HEAD, "protocol"),
    "too many headers": (GET + b"X: y\r\n" * 100 + b"\r\n", "protocol"),
    "a websocket handshake with a body": (
        GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 3\r\n\r\nabc",
        "protocol",
    ),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED_HEADS.values(), ids=REFUSED_HEADS)
async def test_nobody_is_dialled_for(data: bytes, reason: str) -> None:
    answer, found, to = await through(data, end=False)
    assert (found.refused, found.dialled, to.heard) == ([reason], 0, [])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n") and b"\r\nConnection: close" in head
    assert body.decode() == found.messages[0] + "\n"
    assert body.startswith(b"egress blocked: HTTP to host 'api.resend.com' on port 80 is refused: ")


async def test_a_client_that_sends_all_before_it_reads_still_gets_the_words() -> None:
    """Closing with bytes of it unread would be a reset, which takes the words away."""

    def post(port: int) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        connection.request("POST", "/x", body=bytes(400_000), headers={"Host": "evil.com"})
        response = connection.getresponse()
        found = response.status, response.read()
        connection.close()
        return found

    async with host() as to, gate(direct(to)) as found:
        for _ in range(20):
            status, words = await asyncio.to_thread(post, found.port)
            assert (status, b"its Host header names 'evil.com'" in words) == (403, True)
    assert to.heard == []


BROKEN_BODIES = {
    "a hexadecimal size": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size with an extension": b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "a size with a space": b"5 \r\nhello\r\n0\r\n\r\n",
    "a size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a size of nine digits": b"000000005\r\nhello\r\n0\r\n\r\n",
    "an empty size": b"\r\nhello\r\n0\r\n\r\n",
    "a size that never ends": b"0" * 5000,
    "a bare line feed behind the size": b"5\nhello\r\n0\r\n\r\n",
    "a bare line feed behind the chunk": b"5\r\nhello\n0\r\n\r\n",
    "a chunk longer than its size": b"4\r\nhello\r\n0\r\n\r\n",
    "a trailer that is no header": b"0\r\nnothing\r\n\r\n",
    "a trailer that is folded": b"0\r\nX: y\r\n z\r\n\r\n",
    "a trailer that is too large": b"0\r\n" + b"X: yyyyyyyyyyyyyyy\r\n" * 1000 + b"\r\n",
}
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: evil.com\r\n\r\n"


@pytest.mark.parametrize("body", BROKEN_BODIES.values(), ids=BROKEN_BODIES)
async def test_nothing_passes_behind_a_chunked_body_with(body: bytes) -> None:
    answer, found, to = await through(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + SMUGGLED, answering(), end=False)
    assert found.refused == ["protocol"]
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"smuggled" not in to.everything and b"evil.com" not in to.everything


@pytest.mark.parametrize(
    "first", [GET + b"\r\n", POST + b"Content-Length: 5\r\n\r\nhello"], ids=["without a body", "with a body"]
)
async def test_a_second_request_is_checked_like_the_first(first: bytes) -> None:
    answer, found, to = await through(first + SMUGGLED, end=False)
    assert answer.startswith(OK + b"HTTP/1.1 403 ")
    assert found.refused == ["other_host"]
    assert b"evil.com" not in to.everything


# what the host gets

SENT = {
    "the head as it is": (GET + b"Accept: */*\r\nX-Mixed: a  b\r\n\r\n", GET + b"Accept: */*\r\nX-Mixed: a  b\r\n\r\n"),
    "the Host in one spelling": (b"GET / HTTP/1.1\r\nhost: API.Resend.Com.:80\r\n\r\n", GET[:-2] + b":80\r\n\r\n"),
    "no hop-by-hop header": (
        GET + b"Keep-Alive: timeout=5\r\nTE: trailers\r\nTrailer: X\r\nX-Kept: 1\r\n\r\n",
        GET + b"X-Kept: 1\r\n\r\n",
    ),
    "nothing that Connection names": (GET + b"Connection: x-gone, keep-alive\r\nX-Gone: 1\r\n\r\n", GET + b"\r\n"),
    "the Host that Connection names": (GET + b"Connection: host\r\n\r\n", GET + b"\r\n"),
    "the length that Connection names": (
        POST + b"Content-Length: 2\r\nConnection: content-length\r\n\r\nhi",
        POST + b"Content-Length: 2\r\n\r\nhi",
    ),
    "the chunks that Connection names": (
        POST + b"Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ),
    "no proxy's header": (
        GET + b"Proxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\nproxy-x: 1\r\n\r\n",
        GET + b"\r\n",
    ),
    "no upgrade to HTTP/2": (
        GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        GET + b"\r\n",
    ),
    "no upgrade to one of two": (GET + b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", GET + b"\r\n"),
    "no upgrade of a POST": (
        POST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
        POST + b"Content-Length: 0\r\n\r\n",
    ),
    "a websocket's handshake": (
        GET + b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: x\r\n\r\n",
        GET + b"Sec-WebSocket-Key: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ),
    "the wish to close": (GET + b"Connection: Close\r\n\r\n", GET + CLOSE + b"\r\n"),
    "HTTP/1.0": (
        b"GET / HTTP/1.0\r\nHost: api.resend.com\r\nConnection: keep-alive\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: api.resend.com\r\n" + CLOSE + b"\r\n",
    ),
    "chunks cut anew, without a trailer": (
        POST + b"Transfer-Encoding: Chunked\r\n\r\n2\r\nhi\r\n00000003\r\n you\r\n0\r\nX: y\r\n\r\n".replace(b" you", b"you"),
        POST + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhiyou\r\n0\r\n\r\n",
    ),
    "a path of two slashes": (GET.replace(b" / ", b" //evil.com/ ") + b"\r\n", GET.replace(b" / ", b" //evil.com/ ") + b"\r\n"),
    "bytes above ASCII in a value": (GET + b"X: caf\xc3\xa9\r\n\r\n", GET + b"X: caf\xc3\xa9\r\n\r\n"),
}


@pytest.mark.parametrize(("data", "expected"), SENT.values(), ids=SENT)
async def test_the_host_gets(data: bytes, expected: bytes) -> None:
    answer, found, to = await through(data, answering(OK, close=True))
    assert (to.everything, found.refused) == (expected, [])
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"ok")


# what the client gets

RECEIVED = {
    "an answer as it is": (b"HTTP/1.1 200 Fine\r\nX: y\r\nContent-Length: 2\r\n\r\nok",) * 2,
    "no hop-by-hop header": (
        OK.replace(b"Content", b"Keep-Alive: timeout=5\r\nConnection: keep-alive, x\r\nX: y\r\nUpgrade: h2c\r\nContent"),
        OK,
    ),
    "an answer without a reason": (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n"),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;ext=1\r\nk\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    "204": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",) * 2,
    "interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
    ),
    "a redirect, which is not followed": (b"HTTP/1.1 302 Found\r\nLocation: http://evil.com/\r\nContent-Length: 0\r\n\r\n",) * 2,
    "a cookie": (b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 0\r\n\r\n",) * 2,
    "a large head": ((b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40000 + b"\r\nContent-Length: 0\r\n\r\n"),) * 2,
}


@pytest.mark.parametrize(("said", "expected"), RECEIVED.values(), ids=RECEIVED)
async def test_the_client_gets(said: bytes, expected: bytes) -> None:
    """And the connection to the host is still good for another request."""
    answer, found, to = await through(GET + b"\r\n" + LAST, answering(said, OK, close=True))
    assert answer == expected + closed(OK)
    assert (found.dialled, len(to.heard)) == (1, 1)


def closed(answer: bytes) -> bytes:
    """As it comes to a client whose connection ends."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return head + b"\r\nConnection: close\r\n\r\n" + body


async def test_an_answer_to_head_has_a_length_and_no_body() -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    answer, found, _ = await through(GET.replace(b"GET", b"HEAD") + b"\r\n" + LAST, answering(said, OK))
    assert (answer, found.dialled) == (said + closed(OK), 1)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_answer_that_ends_with_its_connection_ends_the_clients(version: bytes) -> None:
    said = b"HTTP/" + version + b" 200 OK\r\n\r\nall of it"
    answer, found, _ = await through(GET + b"\r\n" + LAST, answering(said, close=True), end=False)
    assert (answer, found.failed) == (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it", [])


async def test_a_client_keeps_its_connection_when_the_host_does_not() -> None:
    async with host(answering(closed(OK), close=True)) as to, gate(direct(to)) as found:
        assert await say(found.port, GET + b"\r\n" + GET + b"\r\n" + LAST) == OK + OK + closed(OK)
    assert (found.dialled, len(to.heard)) == (3, 3)


async def test_a_host_that_hung_up_between_two_requests_is_dialled_again() -> None:
    async with host(answering(OK, close=True)) as to, gate(direct(to)) as found:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
        async with asyncio.timeout(DEADLINE):
            for _ in range(3):
                writer.write(GET + b"\r\n")
                assert await reader.readexactly(len(OK)) == OK
                await asyncio.sleep(
                    0.05
                )  # the host's end has come by then; if not, the client is hung up on, which the next test has
        writer.close()
    assert found.dialled == 3


async def test_a_request_is_not_sent_again_when_the_kept_connection_dies_under_it() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")

    answer, found, to = await through(GET + b"\r\n" + LAST, talk, end=False)
    assert (answer, found.failed, found.refused) == (OK, [], [])
    assert (found.dialled, to.everything.count(b"/last")) == (1, 1)


async def test_what_a_host_says_unasked_is_no_answer_to_the_next_request() -> None:
    answer, found, _ = await through(GET + b"\r\n" + LAST, answering(OK + OK.replace(b"ok", b"no")))
    assert (answer, found.dialled) == (OK + closed(OK), 2)


BAD_ANSWERS = {
    "a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "a bare line feed": b"HTTP/1.1 200 OK\r\nX: y\nZ: z\r\n\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a switch nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "a head without an end": b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyyyyyyy\r\n" * 6000,
}


@pytest.mark.parametrize("said", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_an_answer_that_is_none_becomes_a_502_in_words(said: bytes) -> None:
    answer, found, _ = await through(GET + b"\r\n", answering(said, close=True), end=False)
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert found.failed[0].startswith("host 'api.resend.com' ") and found.failed[0] in answer.decode()


CUT_ANSWERS = {
    "a short body": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
    "a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n80000\r\n" + bytes(0x80000) + b"\r\nzz\r\n",
    "chunks without an end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
}


@pytest.mark.parametrize("said", CUT_ANSWERS.values(), ids=CUT_ANSWERS)
async def test_an_answer_that_is_cut_is_seen_to_be_cut(said: bytes) -> None:
    async with host(answering(said, close=True)) as to, gate(direct(to)) as found:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
        writer.write(GET + b"\r\n")
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        writer.close()
        await found.finished()
    assert len(found.failed) == 1


@pytest.mark.parametrize(
    ("raised", "start"),
    [
        (Refused(denied("private_address", NAME, 80, "host 'api.resend.com' leads to 10.0.0.1")), b"HTTP/1.1 403 "),
        (Unreachable("host 'api.resend.com' does not answer"), b"HTTP/1.1 502 "),
    ],
    ids=["by a rule", "by the network"],
)
async def test_what_stops_the_dial_is_told_the_client(raised: Exception, start: bytes) -> None:
    async def dial() -> Conn:
        raise raised

    async def serve(_: Gate, conn: Conn) -> None:
        await http1.serve(conn, NAME, 80, dial, splice)

    async with gate(serve) as found:
        answer = await say(found.port, GET + b"\r\n")
    assert answer.startswith(start)
    assert len(found.refused + found.failed) == 1


# both ways at once


async def test_an_answer_may_come_before_the_request_has_ended() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        assert await reader.readexactly(10) == b"0123456789"
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    async with host(talk) as to, gate(direct(to)) as found:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
        async with asyncio.timeout(DEADLINE):
            writer.write(POST + b"Content-Length: 10\r\n\r\n01234")
            assert await reader.readexactly(len(OK)) == OK
            writer.write(b"56789" + LAST)
            assert await reader.read() == closed(OK)
        writer.close()
    assert found.dialled == 1


async def test_a_client_that_expects_100_is_told_by_the_host() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"Expect: 100-continue" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await reader.readexactly(5) == b"hello"
        writer.write(OK)

    async with host(talk) as to, gate(direct(to)) as found:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
        async with asyncio.timeout(DEADLINE):
            writer.write(POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"hello")
            assert await reader.readexactly(len(OK)) == OK
        writer.close()


async def test_a_client_that_was_not_told_100_hears_the_end_of_an_answer_that_has_no_length() -> None:
    """It goes on waiting for the end, and never sends the body."""
    said = b"HTTP/1.1 401 Unauthorized\r\n\r\nno"
    async with host(answering(said, close=True)) as to, gate(direct(to)) as found:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
        async with asyncio.timeout(DEADLINE):
            writer.write(POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            assert await reader.read() == closed(said)
            writer.close()
            await found.finished()
    assert (found.refused, found.failed) == ([], [])


async def test_events_pass_one_by_one_in_both_directions() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (size := await reader.readline()) != b"0\r\n":
            writer.write(size + await reader.readexactly(int(size, 16) + 2))
        writer.write(b"0\r\n\r\n")

    async with host(talk) as to, gate(direct(to)) as found:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
        async with asyncio.timeout(DEADLINE):
            writer.write(POST + b"Transfer-Encoding: chunked\r\n" + CLOSE + b"\r\n")
            await reader.readuntil(b"\r\n\r\n")
            for event in (b"one", b"three", b"eleven"):
                chunk = b"%x\r\n%b\r\n" % (len(event), event)
                writer.write(chunk)
                assert await reader.readexactly(len(chunk)) == chunk
            writer.write(b"0\r\n\r\n")
            assert await reader.read() == b"0\r\n\r\n"
        writer.close()


async def test_a_host_that_answers_and_hangs_up_is_heard_though_the_body_goes_on() -> None:
    said = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    size = 3_000_000

    def upload(port: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        connection.request("POST", "/x", body=bytes(size), headers={"Host": NAME})  # reads nothing before all is sent
        status = connection.getresponse().status
        connection.close()
        return status

    async with host(answering(said, close=True), record=False) as to, gate(direct(to)) as found:
        assert await asyncio.to_thread(upload, found.port) == 413
        await found.finished()
    assert (found.failed, found.refused) == ([], [])


async def test_a_client_that_goes_away_is_seen_by_the_host() -> None:
    seen = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.read() == b""
        seen.set()

    async with host(talk) as to, gate(direct(to)) as found:
        _, writer = await asyncio.open_connection("127.0.0.1", found.port)
        writer.write(GET + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        async with asyncio.timeout(DEADLINE):
            await seen.wait()


async def test_a_client_that_resets_ends_a_long_poll_of_a_host_that_minds_no_half_closing() -> None:
    polled, ended = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        polled.set()
        await ended.wait()

    async with host(talk) as to, gate(direct(to)) as found:
        conn = await connected(found.port)
        await conn.send(GET + b"\r\n")
        async with asyncio.timeout(DEADLINE):
            await polled.wait()
            conn.reset()
            await found.finished()
        ended.set()


async def test_a_body_that_is_cut_does_not_look_finished() -> None:
    answer, found, to = await through(POST + b"Content-Length: 10\r\n\r\nhello", answering())
    assert (answer, found.refused, found.failed) == (b"", [], [])
    assert to.everything.endswith(b"\r\n\r\nhello")


# large and many


@contextlib.asynccontextmanager
async def aiohttp_server() -> AsyncIterator[Host]:
    async def echo(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"X-Method": request.method})
        if "chunked" in request.query:
            response.enable_chunked_encoding()
        elif request.content_length is not None:
            response.content_length = request.content_length
        await response.prepare(request)
        async for data in request.content.iter_any():
            await response.write(data)
        await response.write_eof()
        return response

    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"you said {message.data}")
        return socket

    async def counted(request: web.Request) -> web.Response:
        found.heard.append(bytearray(str(id(request.transport)).encode()))
        return web.Response(text=request.path_qs)

    async def not_modified(_: web.Request) -> web.Response:
        return web.Response(status=304, headers={"ETag": '"x"'})

    found = Host()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/echo", echo)
    app.router.add_get("/talk", talk)
    app.router.add_get("/304", not_modified)
    app.router.add_get("/{path:.*}", counted)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    try:
        yield found
    finally:
        await runner.cleanup()


async def test_a_hundred_requests_go_over_one_connection() -> None:
    def ask(port: int) -> list[str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        said = []
        for number in range(100):
            connection.request("GET", f"/{number}?q", headers={"Host": NAME})
            said.append(connection.getresponse().read().decode())
        connection.close()
        return said

    async with aiohttp_server() as to, gate(direct(to)) as found:
        assert await asyncio.to_thread(ask, found.port) == [f"/{number}?q" for number in range(100)]
        await found.finished()
    assert (found.done, found.dialled, len({bytes(at) for at in to.heard})) == (1, 1, 1)


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: api.resend.com\r\n\r\n" % number for number in range(50))
    async with aiohttp_server() as to, gate(direct(to)) as found:
        answer = await say(found.port, requests + LAST)
    assert [part.split(b"\r\n\r\n")[1] for part in answer.split(b"HTTP/1.1 200 OK")[1:]] == [
        *(b"/%d" % number for number in range(50)),
        b"/last",
    ]
    assert found.dialled == 1


@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
async def test_a_large_body_goes_there_and_back_whole(chunked: bool) -> None:
    block, blocks = bytes(range(256)) * 256, 320  # 20 MiB
    sent, received = hashlib.blake2b(), hashlib.blake2b()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(blocks):
            sent.update(block)
            yield block

    headers = {"Host": NAME} if chunked else {"Host": NAME, "Content-Length": str(len(block) * blocks)}
    async with aiohttp_server() as to, gate(direct(to)) as found, aiohttp.ClientSession() as client:
        url = f"http://127.0.0.1:{found.port}/echo" + ("?chunked" if chunked else "")
        async with client.post(url, data=body(), headers=headers) as response:
            assert (response.headers.get("Transfer-Encoding") == "chunked") is chunked
            async for data in response.content.iter_any():
                received.update(data)
    assert sent.digest() == received.digest()


async def test_a_slow_reader_holds_the_host_back() -> None:
    """Memory is bounded: what nobody reads stays in the host's hands."""
    written = 0
    total = 64 * 1024 * 1024

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while written < total:
            writer.write(bytes(READ))
            written += READ
            await writer.drain()

    async with host(talk, record=False) as to, gate(direct(to)) as found:
        conn = await connected(found.port)
        await conn.send(GET + b"\r\n")
        before = -1
        async with asyncio.timeout(DEADLINE):
            while written != before or not written:
                before = written
                await asyncio.sleep(0.3)
        assert 0 < written < total / 2  # the sockets' own buffers hold some
        conn.close()


async def test_curl_gets_posts_heads_and_keeps_its_connection() -> None:
    async with aiohttp_server() as to, gate(direct(to)) as found:
        url = f"http://127.0.0.1:{found.port}"
        host_header = ["-H", f"Host: {NAME}"]

        async def curl(*arguments: str) -> str:
            process = await asyncio.create_subprocess_exec(
                "/usr/bin/curl", "-sS", "--noproxy", "*", "-m", "20", *arguments, *host_header, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            assert process.returncode == 0
            return out.decode()

        assert await curl(f"{url}/a", f"{url}/b") == "/a/b"
        assert await curl("-d", "x" * 100, f"{url}/echo") == "x" * 100
        assert await curl("-d", "x" * 100, "-H", "Transfer-Encoding: chunked", f"{url}/echo?chunked") == "x" * 100
        assert await curl("-d", "x" * 5000, "-H", "Expect: 100-continue", f"{url}/echo") == "x" * 5000
        assert "200 OK" in await curl("-I", f"{url}/a")
        assert "304 Not Modified" in await curl("-i", f"{url}/304")
        assert await curl("--http1.0", f"{url}/old") == "/old"
        assert await curl("--http2", f"{url}/no-h2c") == "/no-h2c"
        assert found.dialled == 8
    assert found.refused == []


# websockets


async def test_a_websocket_opens_and_talks() -> None:
    async with aiohttp_server() as to, gate(direct(to)) as found, aiohttp.ClientSession() as client:
        async with client.ws_connect(f"http://127.0.0.1:{found.port}/talk", headers={"Host": NAME}) as ws:
            for word in ("hello", "x" * 200_000):
                await ws.send_str(word)
                assert await ws.receive_str(timeout=DEADLINE) == f"you said {word}"
        await found.finished()
    assert found.refused == []


HANDSHAKE = GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


async def test_bytes_behind_a_handshake_wait_for_the_hosts_101() -> None:
    heard_early = b""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard_early
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                heard_early = await reader.read(READ)
        writer.write(SWITCHED + b"first")
        assert await reader.readexactly(3) == b"raw"
        writer.write(b"then")

    answer, _, _ = await through(HANDSHAKE + b"raw", talk)
    assert (heard_early, answer) == (
        b"",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirstthen",
    )


NO_SWITCH = {
    "an ordinary answer": OK,
    "a refusal": b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("said", NO_SWITCH.values(), ids=NO_SWITCH)
async def test_no_raw_bytes_pass_after_any_other_answer_than_101(said: bytes) -> None:
    answer, found, to = await through(HANDSHAKE + b"raw bytes\r\n\r\n", answering(said), end=False)
    assert b"raw" not in to.everything
    assert found.refused == ["protocol"]
    assert answer.count(b"HTTP/1.1 ") >= 2 and b"HTTP/1.1 403 " in answer and b"101" not in answer


async def test_a_request_behind_a_handshake_that_failed_is_served() -> None:
    answer, found, _ = await through(HANDSHAKE + LAST, answering(OK, OK))
    assert (answer, found.dialled) == (OK + closed(OK), 1)


async def test_a_switch_to_another_protocol_than_asked_for_is_none() -> None:
    answer, found, to = await through(HANDSHAKE + b"raw", answering(SWITCHED.replace(b"websocket", b"h2c")), end=False)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"raw" not in to.everything and len(found.failed) == 1


# time


async def test_a_head_that_comes_too_slowly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "HEAD_SECONDS", 0.2)
    answer, found, to = await through(GET, end=False)
    assert (found.refused, found.dialled, to.heard) == (["protocol"], 0, [])
    assert b"not complete after" in answer


async def test_a_connection_on_which_nothing_is_asked_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "IDLE_SECONDS", 0.2)
    answer, found, _ = await through(GET + b"\r\n", end=False)
    assert (answer, found.refused, found.failed) == (OK, [], [])


async def test_a_body_that_never_ends_does_not_hold_an_answered_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "LINGER_SECONDS", 0.2)
    answer, found, _ = await through(POST + b"Content-Length: 10\r\n\r\nhello", end=False)
    assert (answer, found.refused, found.failed) == (OK, [], [])


async def test_a_client_that_says_nothing_and_goes_is_no_refusal() -> None:
    for data in (b"", b"GET / HT", GET):
        answer, found, to = await through(data)
        assert (answer, found.refused, found.failed, to.heard) == (b"", [], [], [])


async def test_a_head_may_come_byte_by_byte() -> None:
    async with host() as to, gate(direct(to)) as found:
        conn = await connected(found.port)
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in POST + b"Transfer-Encoding: chunked\r\n" + CLOSE + b"\r\n2\r\nhi\r\n0\r\n\r\n":
            await conn.send(bytes([byte]))
        async with asyncio.timeout(DEADLINE):
            while await conn.more():
                pass
        conn.close()
    assert bytes(conn.held) == closed(OK)
    assert to.everything.startswith(POST)


# pure


def either(parse: Callable[[bytes], Head | AnswerHead], data: bytes) -> Head | AnswerHead | None:
    try:
        return parse(data)
    except Malformed:
        return None


PIECES = [b"GET / HTTP/1.1", b"HTTP/1.1 200 OK", b"\r\n", b"\n", b"\r", b"Host: a", b" ", b"\t", b"\0", b":", b"x: y", b"\xff"]


@given(st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)))
def test_any_bytes_are_a_head_or_malformed(data: bytes) -> None:
    for parse in (parse_request, parse_answer):
        head = either(parse, data)
        assert head is None or all(b"\n" not in name + value and b"\0" not in name + value for name, value in head.fields)


def unchunked(pieces: list[bytes], *, extensions: bool) -> tuple[bytes, bytes] | str:
    """What is in the chunks, and what follows them."""
    body, held, out = Chunked(extensions=extensions), bytearray(), b""
    try:
        for piece in pieces:
            held += piece
            if not body.over:
                out += body.take(held)
        if not body.over:
            body.end()
    except Malformed:
        return "malformed"
    return out, bytes(held)


CHUNK_PIECES = [
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"a\r\n0123456789\r\n",
    b"1;x\r\n.\r\n",
    b"\r",
    b"\n",
    b"0",
    b"zz\r\n",
]


@given(st.lists(st.sampled_from(CHUNK_PIECES), max_size=8).map(b"".join), st.booleans(), st.data())
def test_a_chunked_body_is_the_same_however_it_is_cut(data: bytes, extensions: bool, draw: st.DataObject) -> None:
    whole = unchunked([data], extensions=extensions)
    assert unchunked([bytes([byte]) for byte in data], extensions=extensions) == whole
    cut = draw.draw(st.integers(0, len(data)))
    assert unchunked([data[:cut], data[cut:]], extensions=extensions) == whole


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=10), st.binary(max_size=20))
def test_what_was_put_into_chunks_comes_out(parts: list[bytes], behind: bytes) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n" + behind
    assert unchunked([data], extensions=False) == (b"".join(parts), behind)
