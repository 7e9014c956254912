"""HTTP/1.1 between what is behind a door and ONE vetted host: parsed, checked, written anew, request by request.

Rule 1: nothing of a request is passed on as it came. The head is read strictly and written by us, a body is counted or its chunks
        are cut anew; so whoever reads it next cannot find a second request, or another host, in it.
Rule 2: a request is looked at when the one before has its whole answer; until then what was sent of it waits in `Conn.held`.
Rule 3: request body and answer run at the same time: a server may answer, or say 100, before it has the body.
Rule 4: raw bytes pass only after the server's own 101 to a websocket handshake.
Rule 5: a request is sent once. If a kept connection turns out to be dead, the client is hung up on, and does what it does then.
Rule 6: at most a head, or a read (`conn.READ`), of each side is held.

Why no parser of a library for the answers: httptools neither tells where a head ends nor can be told that HEAD has no body, and
one strict reading of heads and chunks serves both directions. Answers are read a little more kindly than requests: extensions
of chunks are dropped, heads may be larger, the reason may be missing.

Names as in RFC 9112. A TCP end is passed on as one: who half-closes after a request is still answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from rootlink.egress import hosts
from rootlink.egress.policy import Reason, denied
from rootlink.errors import Invalid
from rootlink.gate.conn import Conn
from rootlink.gate.refused import Refused, Unreachable

LARGEST_HEAD = 16 * 1024  # bytes of a request's head
MOST_FIELDS = 100
LARGEST_ANSWER_HEAD = 64 * 1024
MOST_ANSWER_FIELDS = 300
HEAD_SECONDS = 15.0  # from a head's first byte to its last
IDLE_SECONDS = 300.0  # for the next head's first byte
LINGER_SECONDS = 30.0  # a request body may go on after its answer is complete
PARTING_SECONDS = 2.0  # for a client that does not read to make room for our last words

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb"{1,32}) ([!-~]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?")
_NAME = re.compile(_TOKEN + rb"+")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
_BARE = re.compile(rb"(?:\A|[^\r])\n|\r[^\n]")
_BEGINNING = re.compile(_TOKEN)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,8}")
_CHUNK_WITH_EXTENSION = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t -~\x80-\xff]*)?")
_LONGEST_CHUNK_LINE = 1024
_LARGEST_TRAILER = 16 * 1024
_NEVER = {b"CONNECT", b"TRACE", b"TRACK", b"PRI"}
_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"http2-settings"}  # and proxy-*
_FRAMING = {b"content-length", b"transfer-encoding"}
_NOT_BY_CONNECTION = _FRAMING | {b"host"}  # what `Connection: NAME` cannot take away
_PHRASES = {403: "Forbidden", 407: "Proxy Authentication Required", 502: "Bad Gateway"}

Field = tuple[bytes, bytes]
Dial = Callable[[], Awaitable[Conn]]
Splice = Callable[[Conn, Conn], Awaitable[None]]


class Malformed(Exception):
    """Not the HTTP/1.1 that is spoken here: the words say what, without what was sent."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head. `minor`: of the version. `fields`: names as written, values without the white space around them."""

    method: bytes
    target: bytes
    minor: int
    fields: list[Field]

    def all(self, name: bytes) -> list[bytes]:
        """The values of a field, given in lower case."""
        return _all(self.fields, name)


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """As `Head`, of an answer."""

    status: int
    reason: bytes
    minor: int
    fields: list[Field]

    def all(self, name: bytes) -> list[bytes]:
        return _all(self.fields, name)


def _all(fields: list[Field], name: bytes) -> list[bytes]:
    return [value for found, value in fields if found.lower() == name]


# heads


def parse_request(block: bytes) -> Head:
    """`block`: a head without the empty line that ends it. Raises `Malformed`."""
    line, *lines = block.split(b"\r\n")
    method, target, minor = _request_line(line)
    return Head(method, target, minor, _fields(lines, MOST_FIELDS))


def parse_answer(block: bytes) -> AnswerHead:
    """As `parse_request`."""
    line, *lines = block.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise Malformed("the answer does not begin with an HTTP/1.1 status line")
    return AnswerHead(int(match[2]), match[3] or b"", int(match[1]), _fields(lines, MOST_ANSWER_FIELDS))


def _request_line(line: bytes) -> tuple[bytes, bytes, int]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise Malformed("it does not begin with a request line of HTTP/1.1 ('METHOD TARGET HTTP/1.1')")
    return match[1], match[2], int(match[3])


def _fields(lines: list[bytes], most: int) -> list[Field]:
    if len(lines) > most:
        raise Malformed(f"it has more than {most} headers")
    return [_field(line) for line in lines]


def _field(line: bytes) -> Field:
    if line[:1] in (b" ", b"\t"):
        raise Malformed("a header is folded over two lines")
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.fullmatch(name):
        raise Malformed("a header's name is malformed")
    if not _VALUE.fullmatch(value):
        raise Malformed("a header's value holds a control character")
    return name, value.strip(b" \t")


async def read_request(client: Conn) -> Head | None:
    """The next request's head; None when the client ended, or sent nothing for `IDLE_SECONDS`. Raises `Malformed`, OSError."""
    if not client.held and not await _wait(client):
        return None
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            block = await _block(client, LARGEST_HEAD, _check_beginning)
    except TimeoutError:
        raise Malformed(f"a request's head was not complete after {HEAD_SECONDS:.0f} s") from None
    return None if block is None else parse_request(block)


async def _wait(client: Conn) -> bool:
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            return await client.more()
    except TimeoutError:
        return False


async def _block(conn: Conn, most: int, check: Callable[[bytearray, int], None]) -> bytes | None:
    """A head, taken out of what is held, without its last two line ends. None: the end came first."""
    seen = 0
    while (end := conn.held.find(b"\r\n\r\n", max(0, seen - 3), most)) < 0:
        check(conn.held, seen)
        if len(conn.held) >= most:
            raise Malformed(f"its head is larger than {most} bytes")
        seen = len(conn.held)
        if not await conn.more():
            return None
    return conn.take(end + 4)[:-4]


def _check_beginning(held: bytearray, seen: int) -> None:
    """Refuses at once what can become no request, instead of waiting for its end. `seen`: how much was checked before."""
    if _BARE.search(held, max(0, seen - 1)):
        raise Malformed("a line does not end with CR LF")
    end = held.find(b"\r\n", 0, LARGEST_HEAD)
    if end < 0 and held and not _BEGINNING.match(held):
        raise Malformed("what is sent is not HTTP")
    if end >= max(0, seen - 1):
        _request_line(bytes(held[:end]))


def _check_nothing(held: bytearray, seen: int) -> None:
    """Answers are looked at when they are whole."""


# bodies


class Body(Protocol):
    """A body's framing. `take` moves what it can of it out of `held`; `over`: all of it is taken; `end`: no more will come."""

    over: bool
    chunked: bool

    def take(self, held: bytearray) -> bytes: ...
    def end(self) -> None: ...


class Counted:
    """Content-Length; 0: no body."""

    chunked = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.over = length == 0

    def take(self, held: bytearray) -> bytes:
        data = bytes(held[: self._left])
        del held[: len(data)]
        self._left -= len(data)
        self.over = self._left == 0
        return data

    def end(self) -> None:
        raise Malformed("its body ended early")


class ToTheEnd:
    """All that comes until the connection ends."""

    chunked = False

    def __init__(self) -> None:
        self.over = False

    def take(self, held: bytearray) -> bytes:
        data = bytes(held)
        held.clear()
        return data

    def end(self) -> None:
        self.over = True


class Chunked:
    """Transfer-Encoding: chunked; trailers are checked and dropped. `take` gives the bytes in the chunks. Raises `Malformed`."""

    chunked = True

    def __init__(self, *, extensions: bool = False) -> None:
        self.over = False
        self._extensions = extensions
        self._step = self._size
        self._left = 0
        self._trailer = 0
        self._parts: list[bytes] = []

    def take(self, held: bytearray) -> bytes:
        while not self.over and self._step(held):
            pass
        data = b"".join(self._parts)
        self._parts.clear()
        return data

    def end(self) -> None:
        raise Malformed("its body ended early")

    def _size(self, held: bytearray) -> bool:
        line = self._line(held)
        if line is None:
            return False
        self._left = self._number(line)
        self._step = self._data if self._left else self._last
        return True

    def _number(self, line: bytes) -> int:
        if self._extensions and (match := _CHUNK_WITH_EXTENSION.fullmatch(line)):
            return int(match[1], 16)
        if not _CHUNK.fullmatch(line):
            raise Malformed("a chunk's size is malformed")
        return int(line, 16)

    def _data(self, held: bytearray) -> bool:
        data = bytes(held[: self._left])
        del held[: len(data)]
        self._parts.append(data)
        self._left -= len(data)
        if not self._left:
            self._step = self._after
        return bool(data)

    def _after(self, held: bytearray) -> bool:
        if held and not b"\r\n".startswith(held[:2]):
            raise Malformed("a chunk is not as long as its size says")
        if len(held) < 2:
            return False
        del held[:2]
        self._step = self._size
        return True

    def _last(self, held: bytearray) -> bool:
        line = self._line(held, _LARGEST_TRAILER)
        if line is None:
            return False
        self._trailer += len(line) + 2
        if self._trailer > _LARGEST_TRAILER:
            raise Malformed("its trailer is too large")
        if line:
            _field(line)
        else:
            self.over = True
        return True

    def _line(self, held: bytearray, most: int = _LONGEST_CHUNK_LINE) -> bytes | None:
        end = held.find(b"\r\n", 0, most)
        if end >= 0:
            line = bytes(held[:end])
            del held[: end + 2]
            return line
        if len(held) >= most or _BARE.search(held):
            raise Malformed("a line of a chunked body is malformed")
        return None


def body_of(head: Head) -> Body:
    """The framing of a request's body. Raises `Malformed` for whatever could be read in two ways."""
    lengths, codings = head.all(b"content-length"), head.all(b"transfer-encoding")
    if codings and head.minor == 0:
        raise Malformed("HTTP/1.0 has no Transfer-Encoding")
    return _framing(lengths, codings, extensions=False) or Counted(0)


def body_of_answer(answer: AnswerHead, method: bytes) -> Body:
    """The framing of an answer's body. Raises `Malformed`."""
    if method == b"HEAD" or answer.status in (204, 304):
        return Counted(0)
    return _framing(answer.all(b"content-length"), answer.all(b"transfer-encoding"), extensions=True) or ToTheEnd()


def _framing(lengths: list[bytes], codings: list[bytes], *, extensions: bool) -> Body | None:
    if len(lengths) + len(codings) > 1:
        raise Malformed("it has more than one Content-Length or Transfer-Encoding")
    if codings:
        if codings[0].lower() != b"chunked":
            raise Malformed("its Transfer-Encoding is another than 'chunked'")
        return Chunked(extensions=extensions)
    if lengths:
        if not _LENGTH.fullmatch(lengths[0]):
            raise Malformed("its Content-Length is not a number")
        return Counted(int(lengths[0]))
    return None


async def _relay(
    body: Body, held: bytearray, more: Callable[[], Awaitable[bool]], send: Callable[[bytes], Awaitable[None]], head: bytes = b""
) -> None:
    """`head`, then the body framed anew. Raises `Malformed` and what `more` and `send` raise."""
    out = head
    while True:
        out += _framed(body, body.take(held))
        if out:
            await send(out)
        if body.over:
            return
        if not await more():
            body.end()
        out = b""


def _framed(body: Body, data: bytes) -> bytes:
    if not body.chunked:
        return data
    chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return chunk + b"0\r\n\r\n" if body.over else chunk


# one request


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request. `head`: as it is sent on. `keep`: the client keeps its connection. `upgrade`: a websocket handshake."""

    method: bytes
    minor: int
    head: bytes
    body: Body
    keep: bool
    upgrade: bool


def named(value: bytes) -> tuple[str, int | None]:
    """The canonical host and the port of a Host header. Raises `Malformed`."""
    try:
        rule = hosts.rule(value.decode("ascii"))
    except (Invalid, UnicodeDecodeError):
        raise Malformed("its Host header is no host") from None
    return rule.host, rule.port


def authority(host: str, port: int | None) -> str:
    """As a Host header has it."""
    written = f"[{host}]" if ":" in host else host
    return written if port is None else f"{written}:{port}"


def _host(head: Head, host: str, port: int) -> str:
    """The Host header to send on. Raises `Malformed`, and `Refused` when it names another than the vetted host."""
    values = head.all(b"host")
    if len(values) != 1:
        raise Malformed("it has no Host header" if not values else "it has several Host headers")
    asked, asked_port = named(values[0])
    if asked != host or asked_port not in (None, port):
        raise _refused("other_host", host, port, f"its Host header names '{authority(asked, asked_port)}'")
    return authority(host, asked_port)


def _checked(head: Head, host: str, port: int, *, only: bool) -> Request:
    """`only`: no request may follow. Raises `Malformed`, `Refused`."""
    if head.method.upper() in _NEVER:
        raise Malformed(f"method {head.method.decode('ascii').upper()} is not passed on")
    if head.target[:1] != b"/" or b"#" in head.target:
        raise Malformed("its target is no path")
    to = _host(head, host, port)
    body = body_of(head)
    options = _options(head.fields)
    upgrade = [value.lower() for value in head.all(b"upgrade")] == [b"websocket"] and b"upgrade" in options
    upgrade = upgrade and head.method == b"GET" and head.minor == 1
    if upgrade and not body.over:
        raise Malformed("a websocket handshake has a body")
    keep = head.minor == 1 and b"close" not in options and not only
    lines = [b"%b %b HTTP/1.%d" % (head.method, head.target, head.minor), b"Host: " + to.encode("ascii")]
    lines += _lines(head.fields, {b"host"}) + _connection(keep, upgrade)
    return Request(head.method, head.minor, b"\r\n".join(lines) + b"\r\n\r\n", body, keep, upgrade)


def _answer(answer: AnswerHead, *, keep: bool, upgrade: bool = False) -> bytes:
    """The head to send to the client. 1xx and 204 have no framing, whatever they say."""
    bare = _FRAMING if answer.status < 200 or answer.status == 204 else set()
    lines = [b"HTTP/1.1 %d %b" % (answer.status, answer.reason), *_lines(answer.fields, bare)]
    return b"\r\n".join(lines + _connection(keep, upgrade)) + b"\r\n\r\n"


def _lines(fields: list[Field], drop: set[bytes]) -> list[bytes]:
    """The end-to-end fields."""
    gone = _HOP | drop | (_options(fields) - _NOT_BY_CONNECTION)
    kept = [(name, value) for name, value in fields if name.lower() not in gone and not name.lower().startswith(b"proxy-")]
    return [name + b": " + value for name, value in kept]


def _connection(keep: bool, upgrade: bool) -> list[bytes]:
    if upgrade:
        return [b"Connection: Upgrade", b"Upgrade: websocket"]
    return [] if keep else [b"Connection: close"]


def _options(fields: list[Field]) -> set[bytes]:
    """What the Connection headers name, in lower case."""
    return {option.strip(b" \t").lower() for value in _all(fields, b"connection") for option in value.split(b",")}


def _refused(reason: Reason, host: str, port: int, why: str) -> Refused:
    return Refused(denied(reason, host, port, f"HTTP to host '{host}' on port {port} is refused: {why}"))


# last words


def message(status: int, words: str, fields: tuple[str, ...] = ()) -> bytes:
    """A whole answer of ours, after which the connection ends."""
    body = words.encode() + b"\n"
    lines = [f"HTTP/1.1 {status} {_PHRASES[status]}", "Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *fields, "Connection: close", "", ""]).encode("ascii") + body


def refusal(words: str) -> bytes:
    """The answer to a request that is refused; `words`: the decision's message."""
    return message(403, words)


async def part(client: Conn, words: bytes = b"") -> None:
    """Say the last words to a client, and close."""
    with contextlib.suppress(OSError):  # TimeoutError is one
        async with asyncio.timeout(PARTING_SECONDS):
            await client.send(words)
    await client.finish()


# the connection


class _Gone(Exception):
    """The client is."""


class _Stale(Exception):
    """The kept connection to the host was dead."""


class _Watch:
    """Passes the client's end on to the host while nothing is read from the client, without taking bytes of a next request."""

    def __init__(self, client: Conn, upstream: Conn) -> None:
        self._client, self._upstream = client, upstream
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        self._loop.add_reader(self._client.sock, self._look)

    def stop(self) -> None:
        if self._client.sock.fileno() >= 0:
            self._loop.remove_reader(self._client.sock)

    def _look(self) -> None:
        try:
            ended = self._client.sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return
        except OSError:  # reset: nobody waits for the answer any more
            with contextlib.suppress(OSError):
                self._upstream.sock.shutdown(socket.SHUT_RDWR)
        else:
            if ended and not self._client.held:  # else there is another request to come, over this connection
                self._upstream.end_sending()
        self.stop()


class _Forwarder:
    """One client's connection."""

    def __init__(self, client: Conn, host: str, port: int, dial: Dial, splice: Splice) -> None:
        self._client = client
        self._host = host
        self._port = port
        self._dial = dial
        self._splice = splice
        self._upstream: Conn | None = None
        self._used = False  # whether `_upstream` has answered before
        self._lasts = False  # whether it stays open after this answer
        self._begun = False  # of the answer to this request, something was sent
        self._whole = False  # all of it was

    async def run(self, first: Head | None) -> None:
        try:
            await self._requests(first)
            await self._end(b"")
        except (_Gone, _Stale):
            pass
        except Refused as refused:
            await self._end(refusal(refused.decision.message))
            raise
        except Unreachable as failed:
            await self._end(message(502, str(failed)))
            raise
        except Malformed as error:
            by_protocol = _refused("protocol", self._host, self._port, str(error))
            await self._end(refusal(by_protocol.decision.message))
            raise by_protocol from None
        finally:
            self._hang_up()

    async def _requests(self, first: Head | None) -> None:
        head = first or await self._next()
        while head is not None:
            self._begun = self._whole = False
            request = _checked(head, self._host, self._port, only=first is not None)
            if not await self._exchange(request):
                return
            if not self._lasts:
                self._hang_up()
            head = await self._next()

    async def _next(self) -> Head | None:
        self._begun = self._whole = False
        try:
            return await read_request(self._client)
        except OSError:
            raise _Gone from None

    async def _exchange(self, request: Request) -> bool:
        """One request and its answer; whether another may follow."""
        upstream = await self._connected()
        watch = _Watch(self._client, upstream)
        try:
            if not request.body.over:
                return await self._both_ways(request, upstream, watch)
            try:
                await upstream.send(request.head)
            except OSError:
                raise self._silent() from None
            watch.start()
            return await self._answer(request, upstream, watch)
        finally:
            watch.stop()

    async def _connected(self) -> Conn:
        """The kept connection if it is alive, else a new one. Raises what `dial` does."""
        if self._upstream is not None and not _quiet(self._upstream):
            self._hang_up()
        if self._upstream is None:
            self._upstream, self._used = await self._dial(), False
        return self._upstream

    async def _both_ways(self, request: Request, upstream: Conn, watch: _Watch) -> bool:
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send(request, upstream, watch))
                keep = await self._answer(request, upstream, watch)
                if not keep:
                    self._client.end_sending()  # a client may wait for the end, with its body not sent
                await asyncio.wait({sending}, timeout=LINGER_SECONDS)
                if not sending.done():
                    sending.cancel()
                    keep = False
        except BaseExceptionGroup as failed:
            raise _gravest(failed) from None
        return keep and sending.result()

    async def _send(self, request: Request, upstream: Conn, watch: _Watch) -> bool:
        """The request with its body; whether the host took it all. If it does not want it, the client still gets rid of it."""
        taken = True

        async def send(data: bytes) -> None:
            nonlocal taken
            if taken:
                try:
                    await upstream.send(data)
                except OSError:
                    taken = False

        await _relay(request.body, self._client.held, self._more, send, request.head)
        watch.start()
        return taken

    async def _answer(self, request: Request, upstream: Conn, watch: _Watch) -> bool:
        """Relays the answer; whether both connections may be used again. Raises `Unreachable` for an answer that is none."""
        try:
            answer = await self._final(request, upstream)
            if answer.status == 101:
                return await self._switch(request, answer, upstream, watch)
            body = body_of_answer(answer, request.method)
            self._lasts = answer.minor == 1 and b"close" not in _options(answer.fields) and not isinstance(body, ToTheEnd)
            self._used = True
            keep = request.keep and not isinstance(body, ToTheEnd)

            async def more() -> bool:
                try:
                    return await upstream.more()
                except OSError:
                    raise Malformed("the connection was cut") from None

            await _relay(body, upstream.held, more, self._to_client, _answer(answer, keep=keep))
        except Malformed as error:
            raise Unreachable(f"host '{self._host}' did not answer in HTTP/1.1: {error}") from None
        self._whole = True
        return keep

    async def _final(self, request: Request, upstream: Conn) -> AnswerHead:
        """The answer's head; interim ones are passed on. 101 only where it was asked for."""
        while True:
            try:
                block = await _block(upstream, LARGEST_ANSWER_HEAD, _check_nothing)
            except OSError:
                block = None
            if block is None:
                raise self._silent()
            answer = parse_answer(block)
            if answer.status >= 200 or (answer.status == 101 and request.upgrade):
                return answer
            if answer.status == 101:
                raise Malformed("it switches to a protocol that was not asked for")
            if request.minor == 1:
                await self._client_send(_answer(answer, keep=True))

    def _silent(self) -> Exception:
        """There will be no answer on this connection."""
        return _Stale() if self._used else Unreachable(f"host '{self._host}' closed the connection without an answer")

    async def _switch(self, request: Request, answer: AnswerHead, upstream: Conn, watch: _Watch) -> bool:
        if [value.lower() for value in answer.all(b"upgrade")] != [b"websocket"]:
            raise Malformed("it switches to a protocol that was not asked for")
        watch.stop()
        await self._to_client(_answer(answer, keep=True, upgrade=True))
        await self._splice(self._client, upstream)
        raise _Gone  # whoever is left has nothing more to say in HTTP

    async def _more(self) -> bool:
        """Raises `_Gone` also at the end: it is asked within a body only."""
        try:
            if await self._client.more():
                return True
        except OSError:
            pass
        raise _Gone

    async def _to_client(self, data: bytes) -> None:
        self._begun = True
        await self._client_send(data)

    async def _client_send(self, data: bytes) -> None:
        try:
            await self._client.send(data)
        except OSError:
            raise _Gone from None

    def _hang_up(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None

    async def _end(self, words: bytes) -> None:
        """The last words, where there is room for them; an answer that is cut is seen to be cut."""
        self._hang_up()
        if self._begun and not self._whole:
            self._client.reset()
        else:
            await part(self._client, b"" if self._whole else words)


def _quiet(conn: Conn) -> bool:
    """Whether a kept connection is alive and has said nothing that nobody asked for."""
    if conn.held:
        return False
    try:
        conn.sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _gravest(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of what went wrong at the same time: a rule that was broken first."""
    for kind in (Malformed, Refused, _Gone, _Stale, Unreachable):
        found = failed.subgroup(kind)
        if found is not None:
            return found.exceptions[0]
    return failed


async def serve(client: Conn, host: str, port: int, dial: Dial, splice: Splice, first: Head | None = None) -> None:
    """Forward the client's requests to `host` (canonical, vetted) until one side is done; `client` may be closed then, or not.

    `dial`: a new connection to that host and no other; it is asked again when a kept one has ended, and may raise `Refused` or
    `Unreachable`. `splice`: copies both ways until the end; called after a websocket's 101. `first`: a head that was read from
    `client` already (an HTTP proxy's, in origin form): then it is the only request, for the next may name another host.
    Raises `Refused` (`other_host`, `protocol`, and what `dial` raises) and `Unreachable` when the client was told already, if
    no answer had begun: nothing more may be sent to it."""
    await _Forwarder(client, host, port, dial, splice).run(first)
