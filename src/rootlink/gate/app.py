"""The gate: every way out of every project of this machine.

    provisioner ──gate.sock──► which project may reach what
    engine ──doors.sock──► sockets of its doors, narrowed as it likes            (wire/gate.py)

Rules
- A project that nobody told the gate of is not served. What is served goes on when the provisioner goes away.
- An engine's connection is its doors' life. It proves itself with the key of its spawn, known from the provisioner.
- Whoever connects must be this user (SO_PEERCRED); the control socket is in no engine's view.
- An engine may be anybody by now: what it says and what it hands over holds up and uses up what is its own. One that breaks the
  rules is cut off, and after `MOST_BREAKS` times not listened to any more: only another spawn has another key.
- There is no state on disk: a gate that ends is handed everything again, by those who know it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import structlog

from rootlink.door import foreign
from rootlink.door.channel import Channel
from rootlink.egress.policy import Policy
from rootlink.errors import Unavailable
from rootlink.gate import room
from rootlink.gate.dial import Dialer
from rootlink.gate.door import PAUSE_SECS, Door, Ground
from rootlink.wire.engine import EgressPolicy
from rootlink.wire.gate import (
    Ask,
    Close,
    Count,
    Counted,
    Counts,
    Done,
    Forget,
    FromEngine,
    FromProvisioner,
    Hello,
    Listen,
    Open,
    Serve,
    Welcome,
)

log = structlog.get_logger(__name__)
GREETING_SECS = 5.0
MOST_DOORS = 1000  # of one engine
MOST_ASKED = 1000  # questions of one engine at once
MOST_LINKS = 4  # of one project; an engine has one, and another while the gate has not seen yet that the first has ended
MOST_STRANGERS = 128  # that did not say yet who they are; then the oldest goes
MOST_BREAKS = 3
MOST_RULES = 2000  # of one door's scope
MOST_NAMES = 200_000  # of all doors of one engine, as it hands them over
LONGEST_NAME = 300  # of whoever a refusal is told of
LONGEST_HELLO = 4096  # bytes


class Project:
    """What is known of one project, and the engine that is connected for it."""

    def __init__(self, serve: Serve, dialer: Dialer, space: room.Room) -> None:
        self.key = serve.key
        self.ground = Ground(_policy(serve.policy), _policy(serve.packages), dialer, space, serve.rate)
        self.engines: dict[Engine, None] = {}  # the oldest first
        self.breaks = 0

    def update(self, serve: Serve) -> None:
        if serve.key != self.key:
            self.breaks = 0
        self.key, self.ground.rate = serve.key, serve.rate
        self.ground.policy, self.ground.packages = _policy(serve.policy), _policy(serve.packages)
        for engine in list(self.engines):
            if engine.key != self.key:
                engine.end("the engine was started anew")
            else:
                engine.recheck()

    def counts(self) -> Counts:
        tally = self.ground.tally
        doors = [door for engine in self.engines for door in engine.doors.values()]
        moving = [flow for door in doors for flow in door.moving]
        return Counts(
            doors=len(doors),
            open=sum(door.open for door in doors),
            connections=tally.connections,
            refused=tally.refused,
            names=tally.names,
            up=tally.up + sum(flow.up for flow in moving),
            down=tally.down + sum(flow.down for flow in moving),
        )


class Engine:
    """One connection on the doors' socket."""

    def __init__(self, gate: Gate, sock: socket.socket) -> None:
        self._gate = gate
        self._channel: Channel[FromEngine] = Channel(
            sock, FromEngine, self._heard, lambda: self.end("the engine went away"), most=LONGEST_HELLO, most_fds=0
        )
        self._project: Project | None = None
        self._name = ""
        self._asked: set[asyncio.Task[None]] = set()
        self._late = asyncio.get_running_loop().call_later(GREETING_SECS, self.end, "nothing was said")
        self.key = ""
        self.doors: dict[int, Door] = {}

    @property
    def known(self) -> bool:
        return self._project is not None

    def broke(self, why: str) -> None:
        """It did what no engine of ours does."""
        if self._project is not None and self in self._project.engines:
            self._project.breaks += 1
            log.warning("an engine breaks the rules", project=self._name, times=self._project.breaks)
        self.end(why)

    def recheck(self) -> None:
        for door in self.doors.values():
            door.recheck()

    def end(self, why: str) -> None:
        """Its doors close; a task of the gate's sees to it."""
        self._late.cancel()
        self._channel.close()
        self._gate.engines.pop(self, None)
        if self._project is not None and self._project.engines.pop(self, self) is None:
            log.info("engine gone", doors=len(self.doors), why=why)
        for task in self._asked:
            task.cancel()
        doors, self.doors = list(self.doors.values()), {}
        for door in doors:
            self._gate.spawn(door.close())

    def _heard(self, message: FromEngine, fds: list[int]) -> None:
        match message:
            case Hello() if self._project is None:
                self._greet(message)
            case _ if self._project is None:
                self.end("it did not say who it is")
            case Open() if len(fds) == len(message.listeners) and len(self.doors) < MOST_DOORS and self._modest(message):
                self._open(message, fds, self._project)
            case Listen() if len(fds) == len(message.listeners) and message.door in self.doors:
                self.doors[message.door].listen(message.listeners, fds)
            case Close():
                foreign.close(fds)
                door = self.doors.pop(message.door, None)
                if door is not None:
                    self._gate.spawn(door.close())
            case Ask() if message.door in self.doors and len(self._asked) < MOST_ASKED and len(message.name) <= LONGEST_NAME:
                foreign.close(fds)
                self._answer(message)
            case _:
                foreign.close(fds)
                self.broke(f"it said what it may not: {type(message).__name__}")

    def _greet(self, hello: Hello) -> None:
        project = self._gate.projects.get(hello.project)
        if project is None or not hmac.compare_digest(project.key.encode(), hello.key.encode()) or project.breaks >= MOST_BREAKS:
            self.end("not served")  # it asks again: the provisioner may be about to tell us
            return
        self._late.cancel()
        self._project, self._name, self.key = project, hello.project, hello.key
        self._channel.trust()
        project.engines[self] = None
        while len(project.engines) > MOST_LINKS:
            next(iter(project.engines)).end("its engine has come again")
        self._channel.send(Welcome())

    def _open(self, asked: Open, fds: Sequence[int], project: Project) -> None:
        known = self.doors.pop(asked.door, None)
        if known is not None:
            self._gate.spawn(known.close())
        door = Door(asked, project.ground, self._channel.send, lambda: self._channel.congested, self._told_of_breaks())
        self.doors[asked.door] = door
        door.listen(asked.listeners, fds)

    def _modest(self, asked: Open) -> bool:
        names = len(asked.names) + sum(door.names for number, door in self.doors.items() if number != asked.door)
        return len(asked.scope or ()) <= MOST_RULES and len(asked.name) <= LONGEST_NAME and names <= MOST_NAMES

    def _told_of_breaks(self) -> Callable[[str], None]:
        """A door is closed after the step in which it finds that out."""

        def broken(why: str) -> None:
            asyncio.get_running_loop().call_soon(self.broke, why)

        return broken

    def _answer(self, ask: Ask) -> None:
        async def answer(door: Door) -> None:
            self._channel.send(await door.answer(ask))

        task = asyncio.get_running_loop().create_task(answer(self.doors[ask.door]))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)


class Gate:
    """Owns everything that is open. `spawn` runs what must be finished before the gate may end."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._tasks: set[asyncio.Task[None]] = set()
        self._provisioners: set[Channel[FromProvisioner]] = set()
        self.projects: dict[str, Project] = {}
        self.engines: dict[Engine, None] = {}  # the oldest first
        self._room = room.of_this_process()

    def spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def engine_came(self, sock: socket.socket) -> None:
        strangers = [engine for engine in self.engines if not engine.known]
        if len(strangers) >= MOST_STRANGERS:
            strangers[0].end("too many came after it")
        self.engines[Engine(self, sock)] = None

    def provisioner_came(self, sock: socket.socket) -> None:
        def heard(message: FromProvisioner, fds: list[int]) -> None:
            foreign.close(fds)
            channel.send(self._told(message))

        channel: Channel[FromProvisioner] = Channel(sock, FromProvisioner, heard, lambda: self._provisioners.discard(channel))
        self._provisioners.add(channel)

    async def close(self) -> None:
        for channel in self._provisioners:
            channel.close()
        for engine in list(self.engines):
            engine.end("the gate ends")
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _told(self, message: FromProvisioner) -> Done | Counted:
        match message:
            case Serve():
                known = self.projects.get(message.project)
                if known is None:
                    self.projects[message.project] = Project(message, self._dialer, self._room)
                else:
                    known.update(message)
                return Done(message.n)
            case Forget():
                gone = self.projects.pop(message.project, None)
                for engine in list(gone.engines) if gone is not None else ():
                    engine.end("the project is not served any more")
                return Done(message.n)
            case Count():
                return Counted(message.n, {name: project.counts() for name, project in self.projects.items()})


async def serve(control: Path, doors: Path, stop: asyncio.Event, *, dialer: Dialer | None = None) -> None:
    """Until `stop`. Raises Unavailable when it can't listen."""
    gate = Gate(dialer or Dialer())
    with foreign.guarded():
        with _listening(doors, gate.engine_came), _listening(control, gate.provisioner_came):
            log.info("gate ready")
            await stop.wait()
        await gate.close()


def _policy(asked: EgressPolicy) -> Policy:
    return Policy.sound(asked.allow, asked.private, asked.resolve, lambda why: log.error("egress rule ignored", why=why))


@contextlib.contextmanager
def _listening(path: Path, came: Callable[[socket.socket], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    listener = _bound(path)

    def accept() -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:  # out of descriptors
            log.warning("gate can't accept", why=error.strerror)
            loop.remove_reader(listener.fileno())
            loop.call_later(PAUSE_SECS, begin)
            return
        if _is_this_user(sock):
            came(sock)
        else:
            log.warning("a stranger was sent away", socket=path.name)
            sock.close()

    def begin() -> None:
        if listener.fileno() >= 0:
            loop.add_reader(listener.fileno(), accept)

    begin()
    try:
        yield
    finally:
        loop.remove_reader(listener.fileno())
        listener.close()
        path.unlink(missing_ok=True)


def _bound(path: Path) -> socket.socket:
    """A listening socket, mode 0600 from the start. Raises Unavailable."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise Unavailable(f"the gate can't listen at {path}: {error.strerror}") from None
    finally:
        os.umask(before)
    listener.setblocking(False)
    return listener


def _is_this_user(sock: socket.socket) -> bool:
    if not hasattr(socket, "SO_PEERCRED"):  # macOS: the socket's mode and its folder's are what keeps others away
        return True
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.getuid())
