"""Resolve, classify, dial: once, in this order, for every connection.

    host ─► a pin of the operator's?  that address, nothing is asked
         ─► an address?               classified as it is
         ─► a name                    looked up ─► every address classified: one refused refuses the name ─► dialled, just those

Rules
- Only what was classified in this very call, under the policy of this very call, is dialled. Answers of the resolver are kept a
  few seconds; verdicts never are.
- Whether the host and port may be reached at all (`Policy.decide`) was asked before; here it is only about addresses.
- Lookups run in threads of our own: uvloop's has two at a time (libuv gives lookups half of its four threads), and
  two names whose servers do not answer would hold up every project.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from rootlink.egress import hosts
from rootlink.egress.policy import Policy
from rootlink.gate.refused import Refused, Unreachable

Lookup = Callable[[str, int], Awaitable[list[str]]]
Clock = Callable[[], float]

LIMIT_SECS = 10.0  # for all of it: the name, and every address it has
LOOKUP_SECS = 8.0
STAGGER_SECS = 0.25  # an address that is silent this long gets the next one beside it (RFC 8305 §5)
KEPT_SECS = 5.0
KEPT_NAMES = 4096
LOOKUPS = 32  # in flight
LOOKUPS_OF_ONE = 8  # for one project: names whose servers do not answer must not hold up the others
WAITING_OF_ONE = 100  # names of one project, those in flight included
_UNKNOWN = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_CONNECTED = frozenset({0, errno.EISCONN})
_PENDING = frozenset({errno.EINPROGRESS, errno.EALREADY, errno.EINTR})
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))

_threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="lookup")  # starts none before the first lookup


async def system_lookup(host: str, port: int) -> list[str]:
    """The machine's resolver. Raises `OSError`, for an unknown name `socket.gaierror`."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _system_lookup, host, port)


def _system_lookup(host: str, port: int) -> list[str]:
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


class Turns:
    """Of one project: its share of the lookups."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(LOOKUPS_OF_ONE)
        self.names = 0


class Dialer:
    """`lookup` gives a name's addresses, and raises `OSError` when it has none."""

    def __init__(self, lookup: Lookup = system_lookup, *, clock: Clock = time.monotonic) -> None:
        self._names = _Names(lookup, clock)

    async def addresses(self, policy: Policy, host: str, port: int, turns: Turns | None = None) -> list[tuple[str, int]]:
        """Where `host` (canonical) may be dialled. Raises `Refused` if any of its addresses is not allowed, `Unreachable`."""
        pinned = policy.pin(host, port)
        if pinned is not None:
            return [(pinned.address, pinned.port)]
        found = [host] if hosts.is_address(host) else await self._looked_up(host, port, turns or Turns())
        for address in found:  # a mixed answer is how rebinding begins: one refused address refuses all
            decision = policy.address(host, port, address)
            if not decision.allowed:
                raise Refused(decision)
        return [(address, port) for address in found]

    async def dial(self, policy: Policy, host: str, port: int, turns: Turns | None = None) -> tuple[socket.socket, str]:
        """A connected, non-blocking socket, and the address it leads to. Raises as `addresses`; `Unreachable` too when none of
        them answers."""
        try:
            async with asyncio.timeout(LIMIT_SECS):
                addresses = await self.addresses(policy, host, port, turns)
                race = _Race()
                try:
                    return await race.run(addresses)
                except OSError as error:
                    raise _unreachable(host, port, _words(error)) from error
                finally:
                    race.end()
        except TimeoutError as error:
            raise _unreachable(host, port, "timed out") from error

    async def _looked_up(self, host: str, port: int, turns: Turns) -> list[str]:
        try:
            async with asyncio.timeout(LOOKUP_SECS):
                found = await self._names.addresses(host, port, turns)
        except TimeoutError as error:
            raise Unreachable(f"host '{host}' cannot be looked up: DNS timed out") from error
        except (OSError, UnicodeError) as error:
            if not isinstance(error, socket.gaierror) or error.errno in _UNKNOWN:
                raise Unreachable(f"host '{host}' is not known to DNS") from error
            raise Unreachable(f"host '{host}' cannot be looked up: {_words(error)}") from error
        if not found:
            raise Unreachable(f"host '{host}' is not known to DNS")
        return found


def _unreachable(host: str, port: int, why: str) -> Unreachable:
    return Unreachable(f"host '{host}' port {port} cannot be reached: {why}")


def _words(error: OSError) -> str:
    text = error.strerror or type(error).__name__
    return text[:1].lower() + text[1:]


class _Names:
    """Answers of the resolver, kept for `KEPT_SECS`; who asks for a name that is being looked up waits for the same answer."""

    def __init__(self, lookup: Lookup, clock: Clock) -> None:
        self._lookup, self._clock = lookup, clock
        self._kept: dict[str, tuple[float, list[str]]] = {}  # oldest first
        self._flights: dict[str, asyncio.Task[list[str]]] = {}
        self._slots = asyncio.Semaphore(LOOKUPS)

    async def addresses(self, host: str, port: int, turns: Turns) -> list[str]:
        until, found = self._kept.get(host, (0.0, []))
        if found and self._clock() < until:
            return list(found)
        flight = self._flights.get(host)
        if flight is None:
            if turns.names >= WAITING_OF_ONE:
                raise socket.gaierror(socket.EAI_AGAIN, "too many names are being looked up for this project")
            turns.names += 1
            flight = self._flights[host] = asyncio.get_running_loop().create_task(self._fly(host, port, turns))
            flight.add_done_callback(lambda done: self._landed(host, done, turns))
        return list(await asyncio.shield(flight))  # who gives up leaves the others their answer

    async def _fly(self, host: str, port: int, turns: Turns) -> list[str]:
        async with turns.slots, self._slots:
            return await self._lookup(host, port)

    def _landed(self, host: str, flight: asyncio.Task[list[str]], turns: Turns) -> None:
        del self._flights[host]
        turns.names -= 1
        if flight.cancelled() or flight.exception() is not None:
            return
        self._kept.pop(host, None)
        while len(self._kept) >= KEPT_NAMES:
            del self._kept[next(iter(self._kept))]
        self._kept[host] = (self._clock() + KEPT_SECS, flight.result())


class _Race:
    """Connects to addresses in turn: the next begins when the last failed, or was silent for `STAGGER_SECS`. The first wins."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running: dict[socket.socket, str] = {}
        self._won: tuple[socket.socket, str] | None = None
        self._error: OSError | None = None  # the first one: of the address the resolver put first
        self._stir: asyncio.Future[None] | None = None  # something was won, or lost

    async def run(self, addresses: list[tuple[str, int]]) -> tuple[socket.socket, str]:
        """Raises the first address's `OSError` when all fail. Whatever happens, call `end()` after."""
        for address, port in addresses:
            self._begin(address, port)
            await self._stirred(STAGGER_SECS)
            if self._won is not None:
                break
        while self._won is None and self._running:
            await self._stirred(None)
        won, self._won = self._won, None
        if won is None:
            raise self._error or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        return won

    def end(self) -> None:
        for sock in list(self._running):
            self._loop.remove_writer(sock)
            sock.close()
        self._running.clear()
        if self._won is not None:
            self._won[0].close()

    def _begin(self, address: str, port: int) -> None:
        try:
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:  # no IPv6 here, or no descriptors left
            self._error = self._error or error
            return
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
            number = sock.connect_ex((address, port))
            if number == errno.EINPROGRESS:  # to an address of this machine it is done: asking again costs less than waiting
                number = sock.connect_ex((address, port))
        except BaseException:
            sock.close()
            raise
        if number in _CONNECTED:
            self._won = (sock, address)
            return
        self._running[sock] = address
        if number in _PENDING:
            self._loop.add_writer(sock, self._settled, sock)
        else:
            self._lost(sock, number)

    def _settled(self, sock: socket.socket) -> None:
        self._loop.remove_writer(sock)
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._lost(sock, number)
        elif self._won is None:
            self._won = (sock, self._running.pop(sock))
        if self._stir is not None and not self._stir.done():
            self._stir.set_result(None)

    def _lost(self, sock: socket.socket, number: int) -> None:
        del self._running[sock]
        sock.close()
        self._error = self._error or OSError(number, os.strerror(number))

    async def _stirred(self, wait: float | None) -> None:
        """Until one of those that run has won or lost, at most `wait` seconds."""
        if self._won is not None or not self._running:
            return
        self._stir = self._loop.create_future()
        timer = None if wait is None else self._loop.call_later(wait, _wake, self._stir)
        try:
            await self._stir
        finally:
            if timer is not None:
                timer.cancel()


def _wake(stir: asyncio.Future[None]) -> None:
    if not stir.done():
        stir.set_result(None)
