"""The engine's one way out over HTTP: every request of a function or of a remote mount is decided here, and connected here.

    url ─ read once ─► policy: host, port, connection's own hosts ─► where does it lead? ─► dial just that
                          │ refused: no packet, not even DNS             │
                          │                       Direct: resolve ─► policy: every address; one refused: none is dialled
                          │                       Behind: ask the gate, which resolves and classifies; dial the address it names

Rules
- Decide and connect on the same parsed URL. Redirects are followed by hand, each hop decided like a first request.
- What is dialled is what was classified: a resolver of our own hands the vetted addresses over, and the socket's address is
  looked at once more when the socket is made (so an address written in the URL passes there too).
- Behind a door the last look admits what the gate named, and addresses written in a URL: the gate decides on those by itself.
- A change of policy opens a new `_Line` (session and sockets). Nothing of the old one is reused; what is in flight on it goes
  on if the new policy still allows it, and is cut if not.
- No proxy variables, no netrc, no cookies kept. Headers that steer the connection (`Host`, `Connection`, …) are ours alone.
- Messages name host and port, never a URL: it may carry a secret.
"""

from __future__ import annotations

import asyncio
import io
import re
import socket
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import structlog

from rootlink.egress import addresses, hosts, urls
from rootlink.egress.policy import Decision, Policy, Reason, sound
from rootlink.egress.urls import Target
from rootlink.errors import EgressBlocked, Invalid, RootlinkError, TooLarge, Unavailable, UpstreamFailed
from rootlink.wire.engine import EgressPolicy

if TYPE_CHECKING:
    import ssl

    import aiohttp
    from aiohttp.abc import ResolveResult

log = structlog.get_logger(__name__)

Body = bytes | str | AsyncIterable[bytes] | None
Record = Callable[[str, Decision], None]
Lookup = Callable[[str, int], Awaitable[list[str]]]

MAX_REDIRECTS = 10
LARGE_BODY = 1 << 20  # bytes
CONNECT_SECS = 30.0
KNOCK_SECS = 10.5  # a gate dials for ten, and then cuts
TIMER_SLACK_SECS = 0.1  # a timer may fire this much before the clock says so (uvloop's time is cached)
_DOOR_NAMES = addresses.networks(["198.18.0.0/15"])  # the gate's addresses for names (gate/names.py)
MAX_SOCKETS, MAX_OF_ONE_HOST = 1024, 512  # of one engine; streams of remote mounts hold theirs, and a hung host holds its own

_BREAKS = re.compile(r"[\r\n\0]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110 §5.6.2
_NORMALISED_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_FORBIDDEN_METHODS = frozenset({"CONNECT", "TRACE", "TRACK"})
_HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", "expect"}
_PROXY = {"proxy-connection", "proxy-authorization", "proxy-authenticate"}
_OWN_HEADERS = frozenset(  # set by the connection, not by the caller: they could contradict the URL that was decided on
    {"host", "content-length", "accept-encoding"} | _HOP_BY_HOP | _PROXY
)
_CONDITIONS = {"if-match", "if-none-match", "if-modified-since", "range"}
_ACROSS_ORIGINS = frozenset(  # all that goes along to another origin; any other header may be a credential
    {"accept", "accept-language", "content-type", "content-language", "user-agent"} | _CONDITIONS
)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_asking: ContextVar[str] = ContextVar("asking", default="")  # the connection whose request is being sent: aiohttp's resolver asks


class Way(Protocol):
    """How a host and port that were allowed are dialled."""

    @property
    def real(self) -> bool:
        """Whether the addresses dialled are those of the other side."""
        ...

    async def ready(self, port: int) -> None: ...
    async def leads(self, policy: Policy, host: str, port: int) -> list[tuple[str, int]]:
        """Addresses and ports. Raises _Refused; OSError for an unknown name, UpstreamFailed, Unavailable."""
        ...

    def admits(self, policy: Policy, address: str, port: int) -> bool: ...


class Gate(Protocol):
    """What `Behind` needs of `doors.Doors`."""

    async def ask(self, door: int, host: str, port: int, name: str = "") -> str: ...
    async def ready(self, number: int, port: int) -> None: ...


async def system_lookup(host: str, port: int) -> list[str]:
    """The machine's resolver. Raises `OSError` for an unknown name."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


class Direct:
    """Resolved here, and every address classified here."""

    real = True

    def __init__(self, lookup: Lookup = system_lookup) -> None:
        self._lookup = lookup

    async def ready(self, port: int) -> None:
        pass

    async def leads(self, policy: Policy, host: str, port: int) -> list[tuple[str, int]]:
        pinned = policy.pin(host, port)
        if pinned is not None:
            return [(pinned.address, pinned.port)]
        found = await self._lookup(host, port)
        for address in found:  # one that is refused refuses the name: a mixed answer is how rebinding begins
            decision = policy.address(host, port, address)
            if not decision.allowed:
                raise _Refused(decision)
        return [(address, port) for address in found]

    def admits(self, policy: Policy, address: str, port: int) -> bool:
        return policy.dials(address, port)


class Behind:
    """Through door `number`: the gate resolves, classifies and dials; here its address for the name is dialled.

    Pins and rule 6 of the policy are the gate's. What it refuses it records itself.
    """

    real = False

    def __init__(self, gate: Gate, number: int) -> None:
        self._gate, self._number = gate, number
        self._named: set[str] = set()

    async def ready(self, port: int) -> None:
        if port not in hosts.WEB_PORTS:
            await self._gate.ready(self._number, port)

    async def leads(self, policy: Policy, host: str, port: int) -> list[tuple[str, int]]:
        try:
            address = await self._gate.ask(self._number, host, port, _asking.get())
        except EgressBlocked as blocked:
            data = blocked.data or {}
            reason = cast(Reason, data.get("reason"))
            refusal = Decision("denied", reason, str(data.get("host", host)), int(data.get("port", port)), blocked.message)
            raise _Refused(refusal, recorded=True) from None
        if not _stands_for_names(address):
            raise Unavailable(f"the gate named an address for host '{host}' that is not one of the door's")
        self._named.add(address)
        return [(address, port)]

    def admits(self, policy: Policy, address: str, port: int) -> bool:
        return address in self._named if _stands_for_names(address) else policy.dials(address, port)


def _stands_for_names(address: str) -> bool:
    return addresses.within(address, _DOOR_NAMES)


class Outbound:
    """`record(connection, decision)` is called for every decision, allowed and denied, that was not recorded elsewhere."""

    def __init__(self, policy: EgressPolicy, record: Record, *, way: Way | None = None) -> None:
        self._asked = policy
        self._policy = _sound(policy)
        self._record = record
        self._way = way or Direct()
        self._line: _Line | None = None
        self._lines: set[_Line] = set()  # the one in use, and older ones with something in flight
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    def update(self, policy: EgressPolicy) -> None:
        """In force from here on: no new request, no idle connection and no open stream gets by the new policy."""
        if policy == self._asked:
            return
        self._asked, self._policy = policy, _sound(policy)
        self._line = None
        for line in list(self._lines):
            for exchange in list(line.exchanges):
                exchange.recheck(self._policy)
            self._drop_if_idle(line)

    def check(self, url: str, connection: str, hosts: list[str] | None) -> None:
        """Raises `EgressBlocked` if the URL may not be asked. No I/O: addresses of a name are looked at when it is dialled."""
        decision = self.scope(connection, hosts).decide(urls.read(url))[1]
        self._record(connection, decision)
        decision.raise_if_denied(connection)

    def scope(self, connection: str, hosts: list[str] | None) -> Scope:
        """What one mount or function goes out by. `hosts`: its own (rules), within the project's; None: all the project's."""
        return Scope(self, connection, hosts)

    async def close(self) -> None:
        """Ends everything in flight."""
        self._closed = True
        self._line = None
        for line in list(self._lines):
            self._drop(line)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _current(self) -> _Line:
        if self._closed:
            raise Unavailable("the engine is stopping; no request leaves it any more")
        if self._line is None:
            self._line = _Line(self._policy, self._asked.extra_ca, self._way)
            self._lines.add(self._line)
        return self._line

    @contextmanager
    def _held(self, exchange: _Exchange) -> Iterator[_Line]:
        """The line for one exchange; an old line is closed by the last one that leaves it."""
        line = self._current()
        line.exchanges.add(exchange)
        try:
            yield line
        finally:
            line.exchanges.discard(exchange)
            self._drop_if_idle(line)

    def _drop_if_idle(self, line: _Line) -> None:
        if line is not self._line and not line.exchanges:
            self._drop(line)

    def _drop(self, line: _Line) -> None:
        if line in self._lines:
            self._lines.discard(line)
            task = asyncio.get_running_loop().create_task(line.close())  # awaited by close()
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


class Scope:
    """One connection's way out: the project's policy, narrowed to the connection's own hosts."""

    def __init__(self, outbound: Outbound, connection: str, own: list[str] | None) -> None:
        self.connection = connection
        self._outbound = outbound
        self._own = None if own is None else tuple(sound(own, hosts.rule, _ignored))
        self._read: tuple[str, Target | Decision] | None = None  # the last URL: a mount asks the same one again and again
        self._decided: tuple[Policy, Target, Decision] | None = None

    def check(self, url: str) -> None:
        """As `Outbound.check`."""
        decision = self.decide(self._target(url))[1]
        self.record(decision)
        decision.raise_if_denied(self.connection)

    def _target(self, url: str) -> Target | Decision:
        """`urls.read`, once for a URL that is asked again."""
        if self._read is None or self._read[0] != url:
            self._read = (url, urls.read(url))
        return self._read[1]

    def decide(self, read: Target | Decision, by: Policy | None = None) -> tuple[Target | None, Decision]:
        """The decision on a URL that was read; neither recorded nor raised."""
        if isinstance(read, Decision):
            return None, read
        policy, held = by or self._outbound._policy, self._decided
        if held is None or held[0] is not policy or held[1] is not read:  # one policy decides one target one way
            held = self._decided = (policy, read, policy.decide(read.host, read.port, self._own))
        return read, held[2]

    def record(self, decision: Decision) -> None:
        self._outbound._record(self.connection, decision)

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        data: Body = None,
        timeout: float | None = None,
        follow: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One exchange: `async with scope.request("GET", url) as response`.

        `timeout` is in seconds, over redirects and the reading of the body; None bounds only the connecting (`CONNECT_SECS`).
        `follow` follows up to `MAX_REDIRECTS` redirects; method and body change as in the Fetch standard, and only harmless
        headers go along to another origin. Read bodies of unknown size with `read_capped`.
        Raises `EgressBlocked` (before any packet for a refused name; also when a change of policy cuts the exchange), `Invalid`
        for a malformed method or header, `UpstreamFailed` when the other side cannot be reached or breaks off.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        hop = _Hop(_method(method), self._allowed(self._target(url)), _sendable(headers), data)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._exchange(hop, deadline) as response:
                onward = _onward(hop, response) if follow else None
                if onward is None:
                    yield response
                    return
            hop = replace(onward[0], target=self._allowed(onward[1]))
        raise UpstreamFailed(f"host '{hop.target.host}' redirects more than {MAX_REDIRECTS} times")

    async def knock(self, host: str, port: int, seconds: float) -> None:
        """Whether anybody answers there over TCP: dialled as a request is, and hung up. Behind a door the gate answers by itself
        at ports 443 and 80, so there it is only whether the name leads anywhere.

        Raises `EgressBlocked`; `UpstreamFailed` when nobody answers; `Unavailable`.
        """
        decision = self._outbound._policy.decide(host, port, self._own)
        try:
            if not decision.allowed:
                raise _Refused(decision)
            async with asyncio.timeout(seconds):
                await self._outbound._current().knock(decision.host, port, self.connection)
        except _Refused as refused:
            if not refused.recorded:
                self.record(refused.decision)
            refused.decision.raise_if_denied(self.connection)
        except TimeoutError:
            raise UpstreamFailed(f"host '{decision.host}' port {port} did not answer in time") from None
        except socket.gaierror:
            raise UpstreamFailed(f"host '{decision.host}' is not known to DNS") from None
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise UpstreamFailed(f"host '{decision.host}' port {port} cannot be reached: {why}") from None
        self.record(decision)

    def _allowed(self, read: Target | Decision) -> Target:
        target, decision = self.decide(read)
        if target is None or not decision.allowed:
            self.record(decision)
            decision.raise_if_denied(self.connection)
        assert target is not None
        return target

    @asynccontextmanager
    async def _exchange(self, hop: _Hop, deadline: float | None) -> AsyncIterator[aiohttp.ClientResponse]:
        exchange = _Exchange(self, hop.target)
        with self._outbound._held(exchange) as line, exchange.translated(deadline):
            async with line.send(hop, deadline, self.connection) as response:
                exchange.begin(response, line, self._outbound._policy)
                yield response


@dataclass(frozen=True, slots=True)
class _Hop:
    """One request of a chain of redirects."""

    method: str
    target: Target
    headers: tuple[tuple[str, str], ...]
    body: Body


@dataclass(eq=False, slots=True)
class _Exchange:
    """A request in flight, as the policy sees it."""

    scope: Scope
    target: Target
    response: aiohttp.ClientResponse | None = None
    peer: str = ""
    refused: Decision | None = None
    recorded: bool = field(default=False)

    def begin(self, response: aiohttp.ClientResponse, line: _Line, in_force: Policy) -> None:
        """The head of the answer is here. Refuses it if the policy was changed while it was on its way."""
        self.response = response
        sent_under = line.policy
        transport = response.connection.transport if response.connection is not None and line.way.real else None
        self.peer = (transport.get_extra_info("peername") or ("",))[0] if transport is not None else ""
        self._note(self.scope.decide(self.target, sent_under)[1])
        if in_force is not sent_under:
            self.recheck(in_force)
            self._raise_if_refused(None)

    def recheck(self, in_force: Policy) -> None:
        """Cuts the exchange if the new policy does not allow it. One whose head is not here yet is checked by `begin`."""
        if self.response is None or self.refused is not None:
            return
        decision = self.scope.decide(self.target, in_force)[1]
        if decision.allowed and self.peer:
            decision = self._by_peer(in_force, decision)
        if not decision.allowed:
            self.refused = decision
            self.scope.record(decision)
            self.response.close()

    def _by_peer(self, in_force: Policy, decision: Decision) -> Decision:
        pinned = in_force.pin(self.target.host, self.target.port)
        if pinned is not None and pinned.address == self.peer:
            return decision
        return in_force.address(self.target.host, self.target.port, self.peer)

    @contextmanager
    def translated(self, deadline: float | None) -> Iterator[None]:
        """aiohttp's errors as ours."""
        import aiohttp

        try:
            yield
        except _Refused as refused:
            self.refused = refused.decision
            if not refused.recorded:
                self.scope.record(refused.decision)
            self._raise_if_refused(refused)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self._raise_if_refused(error)
            if self._foreign(error, deadline):
                raise
            raise _failure(error, self.target) from error
        finally:
            if self.refused is None:
                self._note(Decision("allowed", "in_allowlist", self.target.host, self.target.port))

    def _foreign(self, error: Exception, deadline: float | None) -> bool:
        """Whether the caller raised it in its own block: neither our deadline nor aiohttp did."""
        import aiohttp

        if isinstance(error, aiohttp.ClientError) or self.response is None:
            return False
        if not isinstance(error, TimeoutError) or deadline is None:
            return True
        return asyncio.get_running_loop().time() < deadline - TIMER_SLACK_SECS

    def _note(self, decision: Decision) -> None:
        if not self.recorded:
            self.recorded = True
            self.scope.record(decision)

    def _raise_if_refused(self, cause: Exception | None) -> None:
        if self.refused is not None:
            try:
                self.refused.raise_if_denied(self.scope.connection)
            except EgressBlocked as blocked:
                raise blocked from cause


class _Refused(Exception):
    """Raised where a name's addresses are known, inside aiohttp, and caught in `_Exchange.translated`."""

    def __init__(self, decision: Decision, *, recorded: bool = False) -> None:
        super().__init__(decision.message)
        self.decision, self.recorded = decision, recorded


class _Line:
    """A session and its sockets, all opened under one policy. Made on the engine's loop; cheap until the first request."""

    def __init__(self, policy: Policy, extra_ca: str | None, way: Way) -> None:
        self.policy, self.way = policy, way
        self.exchanges: set[_Exchange] = set()
        self._extra_ca = extra_ca
        self._opened: aiohttp.ClientSession | None = None
        self._no_limit: aiohttp.ClientTimeout | None = None

    @asynccontextmanager
    async def send(self, hop: _Hop, deadline: float | None, connection: str) -> AsyncIterator[aiohttp.ClientResponse]:
        await self.way.ready(hop.target.port)
        asking = _asking.set(connection)
        try:
            response = await self._session().request(
                hop.method,
                hop.target.url,
                headers=hop.headers,
                data=_in_pieces(hop.body),
                allow_redirects=False,
                timeout=self._unlimited() if deadline is None else _timeout(deadline - asyncio.get_running_loop().time()),
            )
        finally:
            _asking.reset(asking)
        async with response:
            yield response

    async def knock(self, host: str, port: int, connection: str) -> None:
        """Raises _Refused, OSError, UpstreamFailed, Unavailable."""
        await self.way.ready(port)
        asking = _asking.set(connection)
        try:
            leads = [(host, port)] if hosts.is_address(host) else await self.way.leads(self.policy, host, port)
        finally:
            _asking.reset(asking)
        failed = OSError("it has no address")
        for address, at in leads:
            if not self.way.admits(self.policy, address, at):
                raise _Refused(self.policy.address(host, port, address))
            if not self.way.real and port in hosts.WEB_PORTS:
                return
            try:
                await _answered(address, at, heard=self.way.real)
            except OSError as error:
                failed = error
            else:
                return
        raise failed

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    def _unlimited(self) -> aiohttp.ClientTimeout:
        if self._no_limit is None:
            self._no_limit = _timeout(None)
        return self._no_limit

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            import aiohttp

            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=_resolver(self.policy, self.way),
                    socket_factory=self._socket,
                    use_dns_cache=False,  # every dial is resolved and classified
                    ssl=_trust(self._extra_ca),
                    limit=MAX_SOCKETS,
                    limit_per_host=MAX_OF_ONE_HOST,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "rootlink"},
                skip_auto_headers=["Content-Type"],
                trust_env=False,
            )
        return self._opened

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """The last look: aiohttp is about to dial exactly this address."""
        family, kind, proto, _, address = info
        if not self.way.admits(self.policy, address[0], address[1]):
            raise _Refused(self.policy.address(address[0], address[1], address[0]))
        return socket.socket(family, kind, proto)


async def _answered(address: str, port: int, *, heard: bool) -> None:
    """Whether a connection is taken. `heard`: whoever takes it is the other side. A gate takes it first, dials then, and cuts it
    if nobody answers; else it hands our end on, to which the other side says something, or ends too, or says nothing at all.
    Raises OSError."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        if not heard:
            writer.write_eof()
            async with asyncio.timeout(KNOCK_SECS):
                await reader.read(1)
    except TimeoutError:
        return
    finally:
        writer.transport.abort()


def _resolver(policy: Policy, way: Way) -> Any:
    """aiohttp's resolver that answers with vetted addresses only (a class inside, because aiohttp is imported late)."""
    from aiohttp.abc import AbstractResolver

    class Vetted(AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[ResolveResult]:
            return [_resolved(host, address, at) for address, at in await way.leads(policy, host, port)]

        async def close(self) -> None:
            pass

    return Vetted()


def _resolved(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return {
        "hostname": host,
        "host": address,
        "port": port,
        "family": family,
        "proto": socket.IPPROTO_TCP,
        "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    }


def _timeout(left: float | None) -> aiohttp.ClientTimeout:
    import aiohttp

    total = None if left is None else max(left, 0.001)
    return aiohttp.ClientTimeout(total=total, connect=CONNECT_SECS, ceil_threshold=float("inf"))


def _trust(extra_ca: str | None) -> ssl.SSLContext:
    """The machine's roots, and the operator's own CA besides."""
    import ssl

    context = ssl.create_default_context()
    if extra_ca is not None:
        try:
            context.load_verify_locations(cafile=extra_ca)
        except (OSError, ssl.SSLError) as error:
            raise Unavailable(f"the CA file {extra_ca!r} (--extra-ca) cannot be used: {error.strerror or 'not PEM'}") from error
    return context


def _sound(asked: EgressPolicy) -> Policy:
    return Policy.sound(asked.allow, asked.private, asked.resolve, _ignored)


def _ignored(why: str) -> None:
    log.error("egress_rule_ignored", why=why)


def _in_pieces(body: Body) -> Body | io.BytesIO:
    """A large body as aiohttp sends it without holding the loop up."""
    return io.BytesIO(body) if isinstance(body, bytes) and len(body) > LARGE_BODY else body


def _method(method: str) -> str:
    upper = method.upper()
    if not _TOKEN.match(method) or upper in _FORBIDDEN_METHODS:
        raise Invalid(f"method {hosts.shown(method)} is not allowed")
    return upper if upper in _NORMALISED_METHODS else method


def _sendable(headers: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> tuple[tuple[str, str], ...]:
    if headers is None:
        return ()
    pairs = tuple(headers.items()) if isinstance(headers, Mapping) else tuple(headers)
    for name, value in pairs:
        if not _TOKEN.match(name) or _BREAKS.search(value):
            raise Invalid(f"header {hosts.shown(name)} is malformed: a name is a token, a value has no line breaks or NUL")
    return tuple((name, value) for name, value in pairs if name.lower() not in _OWN_HEADERS)


def _onward(hop: _Hop, response: aiohttp.ClientResponse) -> tuple[_Hop, Target | Decision] | None:
    """The request a redirect asks for (its target not decided yet), or None if the answer is no redirect."""
    location = response.headers.get("Location") if response.status in _REDIRECTS else None
    if location is None:
        return None
    read = urls.join(hop.target, location)
    method, body, headers = hop.method, hop.body, hop.headers
    if _becomes_get(response.status, method):
        method, body = "GET", None
        headers = tuple((name, value) for name, value in headers if not name.lower().startswith("content-"))
    elif isinstance(body, AsyncIterable):
        raise UpstreamFailed(f"host '{hop.target.host}' redirects a request whose body was a stream and cannot be sent again")
    if isinstance(read, Decision) or read.origin != hop.target.origin:
        headers = tuple((name, value) for name, value in headers if name.lower() in _ACROSS_ORIGINS)
    return _Hop(method, hop.target, headers, body), read


def _becomes_get(status: int, method: str) -> bool:
    return (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST")


async def read_capped(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body, decompressed, of at most `limit` bytes. Raises `TooLarge`; the connection is then closed."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > limit:
            response.close()
            raise TooLarge(f"the answer of host '{response.url.raw_host}' is larger than {limit} bytes")
        parts.append(part)
    return b"".join(parts)


def _failure(error: Exception, target: Target) -> RootlinkError:
    """What went wrong with the other side, in words: host, port, cause; nothing of the URL, the headers or the body."""
    import aiohttp

    place = f"host '{target.host}' port {target.port}"
    match error:
        case TimeoutError():
            return UpstreamFailed(f"{place} did not answer in time")
        case aiohttp.ClientConnectorDNSError():
            return UpstreamFailed(f"host '{target.host}' is not known to DNS")
        case aiohttp.ClientConnectorCertificateError(certificate_error=cause):
            return UpstreamFailed(f"the certificate of {place} is not trusted: {getattr(cause, 'verify_message', 'not valid')}")
        case aiohttp.ClientConnectorSSLError():
            return UpstreamFailed(f"{place} does not speak TLS as expected")
        case aiohttp.ClientConnectorError(os_error=cause):
            return UpstreamFailed(f"{place} cannot be reached: {cause.strerror or type(cause).__name__}")
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError():
            return UpstreamFailed(f"{place} broke the connection off before its answer was whole")
        case aiohttp.ClientError():
            return UpstreamFailed(f"{place} sent an answer that is not proper HTTP")
        case _:
            return Invalid(f"the request to {place} cannot be sent: a header or the body is malformed")
