"""The engine's link to the gate: its open doors, questions of who can wait for words, and what was refused.

    open ─► kept here with its descriptors ─► handed to the gate, and to the next one, whenever there is one
    ask ──► answered by the gate there is, or by the one that comes within 10 s
    Refusal ─► recorded for the store, and told to whose door it was

Rules
- The link is tried for ever. While there is no gate nothing passes: what is connected to waits in the listeners.
- A door has a listener for every port that the project's policy or its own scope names, also for those that are named later.
- Who may reach what is the gate's to decide: nothing said here opens anything.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import structlog

from rootlink.door.channel import Channel
from rootlink.door.frames import MAX_FDS
from rootlink.egress import hosts
from rootlink.egress.policy import Decision, Reason
from rootlink.errors import EgressBlocked, RootlinkError, Unavailable, UpstreamFailed
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.gate import Answer, Ask, Close, Hello, Listen, Listener, Named, Open, Refusal, ToEngine, Welcome

log = structlog.get_logger(__name__)

OWN = 0  # the door the engine itself is behind
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25  # seconds between attempts to find the gate
GATE_SECS = 10.0  # that a question waits for a gate which is just being started
MOST_ASKED = 500  # questions at once; a gate cuts off who asks twice as many
MOST_PORTS = 200  # of one door, besides 443 and 80
AT_ONCE = 26  # ports that a keeper opens at once: two descriptors each, in one frame (door/namespaces.py)
MOST_NAMES = 4096  # of one door, as the gate has it

Opened = tuple[list[Listener], list[int]]
More = Callable[[int, Sequence[int]], Awaitable[Opened]]
"""More listeners for a door, from whoever made it: (door, ports). Raises RootlinkError."""
Record = Callable[[str, Decision, int], None]


def unminded(refusal: Refusal) -> None:
    """Nobody waits for it."""


@dataclass(eq=False)
class Door:
    """`fds` are this engine's copies, in the listeners' order, and are closed with the door. The rest as in `wire.gate.Open`."""

    number: int
    name: str
    listeners: list[Listener]
    fds: list[int]
    scope: list[str] | None = None
    packages: bool = False
    token: str | None = field(default=None, repr=False)
    refused: Callable[[Refusal], None] = unminded
    names: dict[str, str] = field(default_factory=dict)
    tried: set[int] = field(default_factory=set)  # ports that were asked for since the policy last changed

    @property
    def ports(self) -> set[int]:
        return {listener.port for listener in self.listeners if listener.kind == "tcp"}

    @property
    def grows(self) -> bool:
        """Whether it takes more ports: not one for packages, whose hosts the gate alone knows, and not a mere proxy."""
        return not self.packages and self.token is None


class _Gone(Exception):
    """The gate went away before it answered."""


class Doors:
    """`path` is the gate's socket for engines. `start()` on the engine's loop; `close()` closes every door."""

    def __init__(
        self, path: str, project: str, key: str, policy: EgressPolicy, *, record: Record, more: More | None = None
    ) -> None:
        self._path, self._hello = path, Hello(project, key)
        self._policy_ports = set(hosts.named_ports(policy.allow))
        self._record, self._more = record, more
        self._doors: dict[int, Door] = {}
        self._growing: dict[int, asyncio.Task[None]] = {}
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._slots = asyncio.Semaphore(MOST_ASKED)
        self._link: Channel[ToEngine] | None = None  # since it said Welcome
        self._trying: Channel[ToEngine] | None = None
        self._ended = asyncio.Event()
        self._news = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._link is not None

    def start(self) -> None:
        self._life = asyncio.get_running_loop().create_task(self._live())  # ended by close()

    async def close(self) -> None:
        tasks = [task for task in (self._life, *self._growing.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for channel in (self._trying, self._link):
            if channel is not None:
                channel.close()
        self._trying = self._link = None
        for number in list(self._doors):
            self.shut(number)
        self._fail_asked()

    # doors

    def open(self, door: Door) -> None:
        """The door and its descriptors are ours from here on."""
        self._doors[door.number] = door
        if self._link is not None:
            self._hand_over(door)
        self._news.set()
        self._grow(door)

    def shut(self, number: int) -> None:
        """Safe to repeat."""
        door = self._doors.pop(number, None)
        if door is None:
            return
        if self._link is not None:
            self._link.send(Close(number))
        for fd in door.fds:
            os.close(fd)

    def ports(self, scope: Iterable[str] | None) -> list[int]:
        """What a new door listens on at first, besides 443 and 80."""
        return self._wanted(scope)[:AT_ONCE]

    def _wanted(self, scope: Iterable[str] | None) -> list[int]:
        return sorted(self._policy_ports.union(hosts.named_ports(scope or ())))[:MOST_PORTS]

    def update(self, policy: EgressPolicy) -> None:
        """New ports are on their way; `settled()` says when they are there."""
        self._policy_ports = set(hosts.named_ports(policy.allow))
        for door in list(self._doors.values()):
            door.tried.clear()
            self._grow(door)

    async def settled(self) -> None:
        """Returns when every port that was named has its listeners, or could not get them."""
        if self._growing:
            await asyncio.wait(list(self._growing.values()))

    async def ready(self, number: int, port: int) -> None:
        """Returns when the door listens on `port`, if it is to."""
        door, task = self._doors.get(number), self._growing.get(number)
        if task is not None and (door is None or port not in door.ports):
            await asyncio.wait({task}, timeout=GATE_SECS)

    def _grow(self, door: Door) -> None:
        if self._more is not None and door.number not in self._growing and self._missing(door):
            task = self._growing[door.number] = asyncio.get_running_loop().create_task(self._grown(door, self._more))
            task.add_done_callback(lambda _: self._growing.pop(door.number, None))

    def _missing(self, door: Door) -> list[int]:
        return sorted(set(self._wanted(door.scope)) - door.ports - door.tried)[:AT_ONCE] if door.grows else []

    async def _grown(self, door: Door, more: More) -> None:
        while missing := self._missing(door):
            door.tried.update(missing)
            try:
                listeners, fds = await more(door.number, missing)
            except RootlinkError as error:
                log.warning("ports_not_opened", door=door.name, ports=missing, why=error.message)
                continue
            self._listen(door, listeners, fds)

    def _listen(self, door: Door, listeners: list[Listener], fds: list[int]) -> None:
        if self._doors.get(door.number) is not door:
            for fd in fds:
                os.close(fd)
            return
        door.listeners += listeners
        door.fds += fds
        if self._link is not None:
            for some, some_fds in _pieces(listeners, fds):
                self._link.send(Listen(door.number, some), some_fds)

    def _hand_over(self, door: Door) -> None:
        assert self._link is not None
        first, *more = _pieces(door.listeners, door.fds) or [([], [])]
        asked = Open(
            door.number, door.name, first[0], scope=door.scope, packages=door.packages, token=door.token, names=dict(door.names)
        )
        self._link.send(asked, first[1])
        for listeners, fds in more:
            self._link.send(Listen(door.number, listeners), fds)

    # questions

    async def ask(self, door: int, host: str, port: int, name: str = "") -> str:
        """The address of the door by which `host` is reached; `host` is canonical, `name` the connection it is for.

        Raises EgressBlocked with the refusal's data, UpstreamFailed when the name leads nowhere, Unavailable without a gate.
        A refusal is recorded by the `Refusal` that the gate tells besides, not here.
        """
        async with self._slots:
            answer = await self._answer(Ask(next(self._ids), door, host, port, name))
        if answer.refusal is not None:
            refusal = answer.refusal
            data = {"host": refusal.host, "port": refusal.port, "reason": refusal.reason, "connection": name}
            raise EgressBlocked(refusal.message, data=data)
        if answer.address is None:
            raise UpstreamFailed(answer.failed or f"host '{host}' leads nowhere")
        return answer.address

    async def _answer(self, ask: Ask) -> Answer:
        while True:
            link = await self._gate(ask.door)
            waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            self._asked[ask.n] = waiting
            try:
                link.send(ask)
                return await waiting
            except _Gone:
                continue
            finally:
                self._asked.pop(ask.n, None)

    async def _gate(self, door: int) -> Channel[ToEngine]:
        try:
            async with asyncio.timeout(GATE_SECS):
                while self._link is None or door not in self._doors:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise Unavailable("the gate, through which everything goes out, is not running; see: rootlink doctor") from None
        return self._link

    def _fail_asked(self) -> None:
        for waiting in list(self._asked.values()):
            if not waiting.done():
                waiting.set_exception(_Gone())

    # the link

    async def _live(self) -> None:
        pause = FIRST_PAUSE
        while True:
            if self._connect():
                await self._ended.wait()
                if self._link is not None:
                    log.info("gate_gone")
                    self._link, pause = None, FIRST_PAUSE
                self._trying = None
                self._fail_asked()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _connect(self) -> bool:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            return False
        self._ended.clear()
        self._trying = Channel(sock, ToEngine, self._heard, self._ended.set)
        self._trying.send(self._hello)
        return True

    def _heard(self, message: ToEngine, fds: list[int]) -> None:
        for fd in fds:  # none belong to these
            os.close(fd)
        match message:
            case Welcome():
                self._welcomed()
            case Refusal():
                self._refused(message)
            case Named():
                self._named(message)
            case Answer():
                waiting = self._asked.get(message.n)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)

    def _welcomed(self) -> None:
        self._link = self._trying
        try:
            for door in self._doors.values():
                self._hand_over(door)
        except OSError as error:  # out of descriptors: again, with the next link
            log.warning("doors_not_handed_over", why=error.strerror)
            if self._link is not None:
                self._link.close()
            self._ended.set()
            return
        self._news.set()

    def _refused(self, refusal: Refusal) -> None:
        decision = Decision("denied", cast(Reason, refusal.reason), refusal.host, refusal.port, refusal.message)
        self._record(refusal.name, decision, refusal.count)
        door = self._doors.get(refusal.door)
        if door is not None:
            door.refused(refusal)

    def _named(self, named: Named) -> None:
        door = self._doors.get(named.door)
        if door is not None and len(door.names) < MOST_NAMES:
            door.names[named.address] = named.host


def _pieces(listeners: Sequence[Listener], fds: Sequence[int]) -> list[tuple[list[Listener], list[int]]]:
    """As many as one frame carries."""
    starts = range(0, len(listeners), MAX_FDS)
    return [(list(listeners[start : start + MAX_FDS]), list(fds[start : start + MAX_FDS])) for start in starts]
