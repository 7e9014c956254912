"""One door: what its sockets accept is decided here, dialled and copied; what it may not do is refused, told and cut.

    tcp     whom was it for? the socket's own address says: one of ours stands for a name, any other for itself
            443: the TLS name must be the same one; 80: HTTP, every request's Host must be; other ports: bytes
    proxy   the same for clients that insist on CONNECT or an absolute URL
    dns     an allowed name has an address of ours, any other does not exist. Nothing is asked of any resolver
    watch   what the kernel behind the door refused by itself: other ports, UDP, other protocols

Rules
- Decided before anything is dialled, and once more when it is connected: a policy may have changed meanwhile.
- A policy that changes cuts what it does not allow any more; whatever waits for a decision gets the new one.
- One connection is one task of the door; the door's end is theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from rootlink.door import foreign, watch
from rootlink.egress import hosts
from rootlink.egress.policy import Decision, Policy, denied, sound
from rootlink.errors import Invalid
from rootlink.gate import dns, hello, http1, proxy
from rootlink.gate.conn import Conn
from rootlink.gate.dial import Dialer, Turns
from rootlink.gate.names import Full, Names
from rootlink.gate.refusals import Refusals
from rootlink.gate.refused import Refused, Unreachable
from rootlink.gate.room import Room
from rootlink.gate.splice import Flow, Rate, splice
from rootlink.wire.gate import Answer, Ask, Listener, Named, Open, Refusal

log = structlog.get_logger(__name__)

MOST_CONNECTIONS = 2048
MOST_UNDECIDED = 256  # connections that have not said yet what they are for
HELLO_SECS = 10.0
AT_ONCE = 32  # accepted by one door, or answered, before others get their turn
OF_ALL_AT_ONCE = 64  # accepted by all doors of a project
PAUSE_SECS = 0.1  # when there are no descriptors to be had
TTL_SECS = 30
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50  # linux/in.h, linux/in6.h
_BOTH_ENDS = 2  # descriptors of a connection through the door
_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_LOOPBACK = ("127.0.0.1", "::1")
_TWICE_SECS = 1.0  # an AAAA query so soon after the A query of the same name is the same question


@dataclass(eq=False)
class Tunnel:
    """One connection through the door, once it is known where to. `peer`: the address dialled; "" before."""

    flow: Flow
    task: asyncio.Task[None] | None = None
    host: str = ""
    port: int = 0
    peer: str = ""
    decided: bool = False

    def cut(self) -> None:
        if self.task is not None:
            self.task.cancel()


Server = Callable[[Conn, Tunnel], Awaitable[None]]


@dataclass
class Tally:
    """Of one project, over the gate's life."""

    connections: int = 0
    refused: int = 0
    names: int = 0
    up: int = 0
    down: int = 0


class Turn:
    """How many connections may begin in one round of the loop, in which each listener is asked, and a door may have many."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def take(self) -> bool:
        if self._left == self._most:
            asyncio.get_running_loop().call_soon(self._anew)
        if self._left == 0:
            return False
        self._left -= 1
        return True

    def _anew(self) -> None:
        self._left = self._most


@dataclass
class Ground:
    """What all doors of a project share. `policy` and `packages` are replaced when they change."""

    policy: Policy
    packages: Policy
    dialer: Dialer
    room: Room
    rate: int = 0
    held: int = 0  # descriptors, for `room`
    short: bool = False  # of descriptors, which was said already
    tally: Tally = field(default_factory=Tally)
    turns: Turns = field(default_factory=Turns)
    accepts: Turn = field(default_factory=lambda: Turn(OF_ALL_AT_ONCE))


class Door:
    """`tell` sends to the engine that opened it; `congested()`: the engine does not read now; `broken(why)`: it does what no
    engine of ours does."""

    def __init__(
        self,
        asked: Open,
        ground: Ground,
        tell: Callable[[Refusal | Named], None],
        congested: Callable[[], bool],
        broken: Callable[[str], None],
    ) -> None:
        self.name = asked.name
        self._ground, self._packages, self._token = ground, asked.packages, asked.token
        self._scope = (
            None
            if asked.scope is None
            else tuple(sound(asked.scope, hosts.rule, lambda why: None))  # the engine's own, and it may have many
        )
        self._loop = asyncio.get_running_loop()
        self._refusals = Refusals(asked.door, asked.name, tell, congested)
        self._names = Names(lambda address, host: self._named(asked.door, address, host, tell), asked.names)
        self._rate = Rate(ground.rate) if ground.rate else None
        self._sockets: dict[int, socket.socket] = {}
        self._ports: set[int] = set()
        self._tunnels: set[Tunnel] = set()
        self._undecided = 0
        self._broken = broken
        self._accepts = Turn(AT_ONCE)
        self._held = 0  # listeners, as the room counts them
        self._asked_last: tuple[str, float] = ("", 0.0)
        self._closed = False

    # what the engine says

    def listen(self, listeners: Sequence[Listener], fds: Sequence[int]) -> None:
        """Takes the descriptors over."""
        if self._closed or not self._ground.room.admits(self._ground, len(fds)):
            foreign.close(fds)
            if not self._ground.short:
                self._ground.short = True
                log.warning("no descriptors for more doors of this project: what is connected to there waits", door=self.name)
            return
        self._ground.room.take(self._ground, len(fds))
        self._held += len(fds)
        found = [(listener, foreign.taken(listener, fd)) for listener, fd in zip(listeners, fds, strict=True)]
        for listener, sock in found:
            if sock is not None:
                self._sockets[sock.fileno()] = sock
                self._read(sock, listener)
        if any(sock is None for _, sock in found):
            self._broken("a descriptor that is not the listener it is said to be")

    async def answer(self, ask: Ask) -> Answer:
        """Whether something may be reached from here, in words if not; the name is resolved and classified for that."""
        try:
            decision = self.policy.decide(ask.host, ask.port, self._scope)
            if not decision.allowed:
                raise Refused(decision)
            await self._ground.dialer.addresses(self.policy, decision.host, ask.port, self._ground.turns)
            return Answer(ask.n, address=self._address(decision.host))
        except Refused as refused:
            return Answer(ask.n, refusal=self._refuse(refused.decision, ask.name))
        except Unreachable as error:
            return Answer(ask.n, failed=str(error))

    def recheck(self) -> None:
        """The policy changed."""
        for tunnel in list(self._tunnels):
            decision = self._still(tunnel) if tunnel.decided else None
            if decision is not None and not decision.allowed:
                self._refuse(decision)
                tunnel.cut()

    @property
    def names(self) -> int:
        """How many have an address."""
        return len(self._names)

    @property
    def open(self) -> int:
        return len(self._tunnels)

    @property
    def moving(self) -> Iterator[Flow]:
        """Flows that are not in the tally yet."""
        return (tunnel.flow for tunnel in self._tunnels)

    async def close(self) -> None:
        """Every socket of it is closed, every connection through it cut."""
        self._closed = True
        for fd, sock in self._sockets.items():
            self._loop.remove_reader(fd)
            foreign.close([sock.detach()])
        self._sockets.clear()
        self._ground.room.give_back(self._ground, self._held)
        self._held = 0
        tasks = [tunnel.task for tunnel in self._tunnels if tunnel.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._refusals.close()

    # policy

    @property
    def policy(self) -> Policy:
        return self._ground.packages if self._packages else self._ground.policy

    def _decide(self, host: str, port: int) -> Decision:
        """Raises Refused."""
        decision = self.policy.decide(host, port, self._scope)
        if not decision.allowed:
            raise Refused(decision)
        return decision

    def _still(self, tunnel: Tunnel) -> Decision:
        policy = self.policy
        decision = policy.decide(tunnel.host, tunnel.port, self._scope)
        if not decision.allowed or not tunnel.peer:
            return decision
        pinned = policy.pin(tunnel.host, tunnel.port)
        if pinned is not None and pinned.address == tunnel.peer:
            return decision
        return policy.address(tunnel.host, tunnel.port, tunnel.peer)

    def _refuse(self, decision: Decision, name: str = "") -> Refusal:
        self._ground.tally.refused += 1
        return self._refusals.add(decision, name)

    def _address(self, host: str) -> str:
        """Raises Refused."""
        if hosts.is_address(host):
            return host
        try:
            return self._names.address(host)
        except Full:
            raise Refused(denied("limit", host, 0, f"host '{host}' is one name too many for one door")) from None

    def _named(self, door: int, address: str, host: str, tell: Callable[[Refusal | Named], None]) -> None:
        self._ground.tally.names += 1
        tell(Named(door, address, host))

    def _meant(self, address: str, port: int) -> str:
        """Whom a connection to this address is for."""
        if address in _LOOPBACK and self.policy.decide("localhost", port, self._scope).allowed:
            return "localhost"  # a name that no resolver is asked for
        return self._names.host(address)

    # sockets

    def _read(self, sock: socket.socket, listener: Listener) -> None:
        match listener.kind:
            case "tcp":
                self._ports.add(listener.port)
                self._accepting(sock, lambda conn, tunnel: self._direct(conn, tunnel, listener.port))
            case "proxy":
                self._accepting(sock, self._by_proxy)
            case "dns":
                _tell_asked_address(sock)
                self._reading(sock, lambda: self._answer_names(sock))
            case "watch":
                self._reading(sock, lambda: self._look(sock))

    def _accepting(self, listener: socket.socket, serve: Server) -> None:
        self._reading(listener, lambda: self._accept(listener, serve))

    def _reading(self, sock: socket.socket, ready: Callable[[], bool]) -> None:
        """`ready()` is called when something came, and says whether it did: an engine can make a socket seem so all the time."""

        def read() -> None:
            if not ready() and not self._closed:
                self._loop.remove_reader(sock.fileno())
                self._loop.call_later(PAUSE_SECS, again)

        def again() -> None:
            if not self._closed:
                self._loop.add_reader(sock.fileno(), read)

        again()

    def _accept(self, listener: socket.socket, serve: Server) -> bool:
        for at in range(AT_ONCE):
            if not (self._accepts.take() and self._ground.accepts.take()):
                return True
            try:
                sock = foreign.accepted(listener)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return at > 0
            except OSError as error:  # out of descriptors: what waits in the queue goes on waiting
                if error.errno in _SHORT:
                    log.warning("gate can't accept", why=error.strerror)
                return False
            except foreign.Stuck:
                self._broken("a listener that does not let go")
                return False
            self._begin(sock, serve)
        return True

    def _begin(self, sock: socket.socket, serve: Server) -> None:
        conn = Conn(sock)
        self._ground.tally.connections += 1
        if self._crowded():
            host, port = self._names.host(_local(sock)), sock.getsockname()[1]
            self._refuse(denied("limit", host, port, f"host '{host}': this door has too many connections open"))
            conn.reset()
            return
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ground.room.take(self._ground, _BOTH_ENDS)
        tunnel = Tunnel(Flow(rate=self._rate))
        self._tunnels.add(tunnel)
        self._undecided += 1
        tunnel.task = self._loop.create_task(self._whole(conn, serve, tunnel))

    def _crowded(self) -> bool:
        if len(self._tunnels) >= MOST_CONNECTIONS or self._undecided >= MOST_UNDECIDED:
            return True
        return not self._ground.room.admits(self._ground, _BOTH_ENDS)

    async def _whole(self, conn: Conn, serve: Server, tunnel: Tunnel) -> None:
        """One connection from its beginning to its end; whatever happens to it is told and stays its own."""
        clean = False
        try:
            await serve(conn, tunnel)
            clean = True
        except Refused as refused:
            self._refuse(refused.decision)
        except (Unreachable, OSError, TimeoutError, EOFError) as error:
            log.debug("not connected", door=self.name, host=tunnel.host, port=tunnel.port, why=str(error))
        except Exception:
            log.exception("connection broke", door=self.name, port=tunnel.port)
        finally:
            if not tunnel.decided:
                self._undecided -= 1
            conn.close() if clean else conn.reset()
            self._tunnels.discard(tunnel)
            self._ground.room.give_back(self._ground, _BOTH_ENDS)
            self._ground.tally.up += tunnel.flow.up
            self._ground.tally.down += tunnel.flow.down

    # what is asked for

    async def _direct(self, conn: Conn, tunnel: Tunnel, port: int) -> None:
        try:
            decision = self._decide(self._meant(_local(conn.sock), port), port)
        except Refused as refused:
            if port == 80:
                await http1.part(conn, http1.refusal(refused.decision.message))
            raise
        if port == 80:
            await self._http(conn, tunnel, decision.host, port)
        else:
            await self._bytes(conn, tunnel, decision.host, port)

    async def _by_proxy(self, conn: Conn, tunnel: Tunnel) -> None:
        asked = await proxy.target(conn, self._token)
        if asked is None:
            return
        try:
            decision = self._decide(asked.host, asked.port)
            server = None if isinstance(asked, proxy.Forward) else await self._dial(tunnel, decision.host, asked.port)
        except Refused as refused:
            await http1.part(conn, http1.refusal(refused.decision.message))
            raise
        except Unreachable as error:
            await http1.part(conn, proxy.unreachable(str(error)))
            return
        if isinstance(asked, proxy.Forward):
            await self._http(conn, tunnel, decision.host, asked.port, first=asked.head)
        else:
            await self._tunnel(conn, tunnel, decision.host, asked.port, server)

    async def _tunnel(self, conn: Conn, tunnel: Tunnel, host: str, port: int, server: Conn | None) -> None:
        try:
            await conn.send(proxy.ESTABLISHED)
            await (self._http if port == 80 else self._bytes)(conn, tunnel, host, port, server)
        finally:
            if server is not None:
                server.close()

    async def _bytes(self, conn: Conn, tunnel: Tunnel, host: str, port: int, server: Conn | None = None) -> None:
        try:
            if port == 443:
                await self._hello(conn, host)
            server = server or await self._dial(tunnel, host, port)
            await splice(conn, server, tunnel.flow)
        finally:
            if server is not None:
                server.close()

    async def _http(
        self, conn: Conn, tunnel: Tunnel, host: str, port: int, server: Conn | None = None, first: http1.Head | None = None
    ) -> None:
        dialled = [server] if server is not None else []

        async def dial() -> Conn:
            return dialled.pop() if dialled else await self._dial(tunnel, host, port)

        try:
            await http1.serve(conn, host, port, dial, lambda client, far: splice(client, far, tunnel.flow), first)
        finally:
            for unused in dialled:
                unused.close()

    async def _hello(self, conn: Conn, host: str) -> None:
        """Reads what the client begins with. Raises Refused unless it is TLS for this host."""
        try:
            async with asyncio.timeout(HELLO_SECS):
                while (found := hello.parse(bytes(conn.held))) is None:
                    if not await conn.more():
                        raise EOFError("the client ended before it had begun")
        except hello.NotTls as error:
            raise Refused(denied("protocol", host, 443, f"host '{host}' on port 443: {error}; only TLS goes there")) from None
        if found.ech:
            words = f"host '{host}' was asked with an encrypted name (ECH), which can't be looked at; turn it off in the client"
            refusal = denied("protocol", host, 443, words)
        elif found.sni is not None and not _same(found.sni, host):
            words = f"TLS for '{hosts.escaped(found.sni)}' was begun on a connection to host '{host}'"
            refusal = denied("other_host", hosts.escaped(found.sni), 443, words)
        else:
            return
        with contextlib.suppress(OSError):
            await conn.send(hello.ALERT_UNRECOGNIZED_NAME)
            await conn.finish()
        raise Refused(refusal)

    async def _dial(self, tunnel: Tunnel, host: str, port: int) -> Conn:
        """Raises Refused, Unreachable."""
        tunnel.host, tunnel.port = host, port
        sock, tunnel.peer = await self._ground.dialer.dial(self.policy, host, port, self._ground.turns)
        decision = self._still(tunnel)
        if not decision.allowed:
            sock.close()
            raise Refused(decision)
        if not tunnel.decided:
            tunnel.decided = True
            self._undecided -= 1
        return Conn(sock)

    # names

    def _answer_names(self, sock: socket.socket) -> bool:
        for at in range(AT_ONCE):
            try:
                query, ancillary, _, peer = sock.recvmsg(4096, 256, socket.MSG_DONTWAIT)
            except OSError:
                return at > 0
            if not peer:  # the socket's end, which only its engine can have brought about
                return False
            answer = self._answer_name(query)
            if answer is not None:
                with contextlib.suppress(OSError):
                    sock.sendmsg([answer], _from_asked_address(ancillary), socket.MSG_DONTWAIT, peer)
        return True

    def _answer_name(self, query: bytes) -> bytes | None:
        question = dns.question(query)
        if question is None:
            return dns.complaint(query)
        try:
            decision = self.policy.decide_name(question.name, self._scope)
            if not decision.allowed:
                raise Refused(decision)
            address = self._address(decision.host)
        except Refused as refused:
            self._not_twice(question, refused.decision)
            return dns.no_such_name(question)
        if question.type != dns.A or ":" in address:
            return dns.nothing(question)
        return dns.address(question, address, TTL_SECS)

    def _not_twice(self, question: dns.Question, decision: Decision) -> None:
        """A resolver asks for both kinds of address at once: that is one refusal."""
        now = self._loop.time()
        name, since = self._asked_last
        if question.type == dns.AAAA and name == decision.host and now - since < _TWICE_SECS:
            return
        if question.type == dns.A:
            self._asked_last = (decision.host, now)
        self._refuse(decision)

    # what the kernel refused

    def _look(self, sock: socket.socket) -> bool:
        for at in range(AT_ONCE):
            try:
                packet = sock.recv(2048, socket.MSG_DONTWAIT)
            except OSError:
                return at > 0
            seen = watch.parse(packet)
            if seen is None:
                continue
            host = self._names.host(seen.address)
            decision = self.policy.decide(host, seen.port, self._scope)
            if decision.allowed and (seen.protocol != "tcp" or seen.port not in self._ports):
                words = (
                    f"host '{host}' port {seen.port} was asked over {seen.protocol.upper()}: only TCP to an allowed port goes out"
                )
                decision = denied("protocol" if seen.protocol != "tcp" else "port", host, seen.port, words)
            if not decision.allowed:
                self._refuse(decision)
        return True


def _same(asked: str, host: str) -> bool:
    try:
        return hosts.canonical(asked) == host
    except Invalid:
        return False


def _local(sock: socket.socket) -> str:
    """The address that was connected to, in the spelling of `hosts`."""
    return str(ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]))


def _tell_asked_address(sock: socket.socket) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def _from_asked_address(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """So that an answer leaves from the address that was asked: the socket listens on all of them."""
    for level, kind, content in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            return [(level, kind, struct.pack("i", 0) + content[8:12] + bytes(4))]  # struct in_pktinfo: index, source, –
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
            return [(level, kind, content[:16] + struct.pack("i", 0))]
    return []
