"""The keeper's table of doors, and its loop: one thread, no asyncio, nothing kept of an environment once its door has started.

    starting ──listeners──► made ──pid 1 known──► open ──bubblewrap and pid 1 gone──► (told, and forgotten)
        └──────────┴── refused

Only the engine speaks to it. A frame that breaks the rules ends the engine, and with it everything.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import Any

from rootlink.door import frames, namespaces, paths, seccomp, spawn
from rootlink.door.command import Command
from rootlink.door.plan import Plan
from rootlink.door.refused import Refused
from rootlink.door.view import View

ENGINE = 0
MAX_DOORS = 512
SEND_SECONDS = 10.0  # an engine that does not read for so long is broken
LAST_SECONDS = 10.0  # for an engine whose end of the socket closed to end by itself
_MAX_TEXTS = 65536
_SIGNALS = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTERM,
    signal.SIGCONT,
    signal.SIGKILL,
}


class Door:
    """`pid`: bubblewrap's. `first`: a pidfd of the namespace's pid 1, once it is known; `code` once bubblewrap was waited for."""

    def __init__(self, number: int, pid: int, ports: list[int]) -> None:
        self.number = number
        self.pid = pid
        self.ports = set(ports)
        self.listeners: list[dict[str, object]] | None = None
        self.sockets: list[int] = []
        self.namespaces: list[int] = []
        self.failure: dict[str, str] | None = None
        self.saying: socket.socket | None = None
        self.info: int | None = None
        self.told = b""
        self.first: int | None = None
        self.first_gone = False
        self.open = False
        self.killed = False
        self.code: int | None = None
        self.signals: list[int] = []  # to be sent when there is somebody to send them to

    def close(self) -> None:
        for fd in [*self.sockets, *self.namespaces]:
            os.close(fd)
        self.sockets, self.namespaces = [], []
        if self.saying is not None:
            self.saying.close()
            self.saying = None
        for own in (self.info, self.first):
            if own is not None:
                os.close(own)
        self.info = self.first = None


class Doors:
    """`engine`: our end of the socketpair whose other end, `theirs`, becomes the engine's descriptor 3."""

    def __init__(self, plan: Plan, engine: socket.socket, theirs: int) -> None:
        self._plan = plan
        self._engine = engine
        self._theirs = theirs
        self._view = View(plan.bwrap, plan.ca)
        self._filter = seccomp.this_machine()
        self._roots = paths.Roots(plan.read_roots, plan.write_roots, [plan.store], plan.write)
        self._store = paths.Roots([], [plan.store], [], plan.write)
        self._doors: dict[int, Door] = {}
        self._helpers: dict[int, Callable[[], None]] = {}  # pid → what to do when it ended
        self._unpacker = frames.Unpacker()
        self._poll = select.epoll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._code: int | None = None  # the engine's
        self._ending = False
        self._timer = False

    # -- life

    def run(self, signals: int) -> int:
        """Until the engine has ended and nothing is left; its exit code as bubblewrap says it. `signals`: has their numbers."""
        self._on(signals, lambda: self._signalled(signals))
        self._start_engine()
        self._on(self._engine.fileno(), self._heard)
        while not self._ending or self._doors or self._helpers:
            for fd, _ in self._poll.poll():
                ready = self._ready.get(fd)  # what came earlier in this round may have ended it
                if ready is not None:
                    ready()
        return 1 if self._code is None else self._code

    def _start_engine(self) -> None:
        plan = self._plan
        places = self._engines_places()
        try:
            self._start(ENGINE, plan.engine, plan.env, plan.cwd, list(plan.ports), places, (0, 1, 2), (self._theirs,))
        finally:
            _close(places)
            os.close(self._theirs)
            _forget_stdio()
        plan.env.clear()

    def _engines_places(self) -> list[paths.Place]:
        """The plan is the provisioner's, and trusted: links are followed, but for those the engine could have put."""
        places = []
        written = [*self._plan.write, *self._plan.write_roots]
        for names, write in ((self._plan.read, False), (self._plan.write, True)):
            for path in names:
                if paths.steady(path, written) is None:
                    continue
                with contextlib.suppress(OSError):
                    places.append(paths.Place(os.open(path, os.O_PATH | os.O_CLOEXEC), os.path.normpath(path), write))
        return places

    def _signalled(self, fd: int) -> None:
        numbers = set(os.read(fd, 512))
        self._reap()
        if numbers & {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
            engine = self._doors.get(ENGINE)
            if engine is not None:
                self._to_first(engine, signal.SIGTERM)
        if signal.SIGALRM in numbers:
            self._end()

    def _end(self) -> None:
        """Everything behind every door, now."""
        self._ending = True
        for door in list(self._doors.values()):
            self._kill(door)
        if self._engine.fileno() >= 0:
            self._off(self._engine.fileno())
            self._unpacker.close()
            self._engine.close()

    def _end_later(self) -> None:
        """The engine's end of the socket closed: it is ending. Its children go now, itself if it takes too long."""
        self._off(self._engine.fileno())
        for door in list(self._doors.values()):
            if door.number != ENGINE:
                self._kill(door)
        if not self._timer:
            self._timer = True
            signal.setitimer(signal.ITIMER_REAL, LAST_SECONDS)

    # -- the engine's words

    def _heard(self) -> None:
        try:
            data, fds = frames.receive(self._engine)
            messages = self._unpacker.feed(data, fds)
        except (frames.Broken, OSError):
            self._end()
            return
        for at, (payload, own) in enumerate(messages):
            try:
                self._take(json.loads(payload), own)
            except Refused as refused:
                self._say({"refused": _number_of(payload), "code": refused.code, "message": refused.message})
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                for _, rest in messages[at + 1 :]:
                    _close_all(rest)
                self._end()
                return
            finally:
                _close_all(own)
            if self._ending:
                for _, rest in messages[at + 1 :]:
                    _close_all(rest)
                return
        if not data:
            self._end_later()

    def _take(self, message: dict[str, Any], fds: list[int]) -> None:
        """Raises Refused; ValueError, TypeError or KeyError for what breaks the rules."""
        ((verb, what),) = message.items()
        number = what["id"]
        if type(number) is not int or number < ENGINE or (number == ENGINE and verb != "listen"):
            raise ValueError(verb)
        if verb == "spawn" and len(fds) == 3:
            self._spawn(number, what, fds)
        elif verb == "listen" and not fds:
            self._listen(number, _ports(what["ports"]))
        elif verb == "signal" and not fds and what["number"] in _SIGNALS:
            if number in self._doors:  # else it ended just now
                self._signal(self._doors[number], what["number"])
        else:
            raise ValueError(verb)

    def _spawn(self, number: int, what: dict[str, Any], stdio: list[int]) -> None:
        argv, env, cwd, store = _texts(what["argv"]), _environment(what["env"]), what["cwd"], what.get("store", False)
        read, write, ports = _texts(what.get("read", [])), _texts(what.get("write", [])), _ports(what.get("ports", []))
        if number in self._doors or not argv or not isinstance(cwd, str) or type(store) is not bool:
            raise ValueError("spawn")
        if len(self._doors) >= MAX_DOORS:
            raise Refused("unavailable", f"{MAX_DOORS} commands run behind doors already: stop some of them")
        places: list[paths.Place] = []
        try:
            for asked, writable in ((write, True), (read, False)):
                for path in asked:
                    places.append(self._roots.place(path, write=writable))  # noqa: PERF401 (closed if the next one is refused)
            if store:
                places.append(self._store.place(self._plan.store, write=True))
            self._start(number, argv, env, cwd, ports, places, stdio, ())
        except OSError as error:
            raise Refused("unavailable", f"no room for another command: {error.strerror}") from None
        finally:
            _close(places)

    def _start(
        self,
        number: int,
        argv: list[str],
        env: dict[str, str],
        cwd: str,
        ports: list[int],
        places: list[paths.Place],
        stdio: Any,
        keep: tuple[int, ...],
    ) -> None:
        """Raises Refused or OSError, and nothing is left then."""
        command = Command(argv[0], self._plan.path)
        shown, links = _needed(command, [place.at for place in places])
        info, told = -1, -1
        fds: list[int] = []
        try:
            _visible(cwd, [*places, *shown])
            info, told = os.pipe2(os.O_CLOEXEC)
            first = number == ENGINE
            home = env.get("HOME", "/tmp")  # noqa: S108
            around, fds = self._view.argv(
                [*places, *shown],
                links,
                env=env,
                home=home if home.isprintable() and ":" not in home else "/tmp",  # noqa: S108
                cwd=cwd,
                seccomp=self._filter,
                info=told,
                first=first,
            )
            keeping = [*keep, told, *fds, *(place.fd for place in [*places, *shown])]
            room = sum(len(name) + len(value) + 2 for name, value in env.items()) + 8 * len(env)
            start = spawn.Start([*around, command.path, *argv[1:]], room, ports, stdio, keeping)
            pid, saying = spawn.door(start)
        except BaseException:
            if info >= 0:
                os.close(info)
            raise
        finally:
            if told >= 0:
                os.close(told)
            _close_all(fds)
            _close(shown)
        door = self._doors[number] = Door(number, pid, [*namespaces.ALWAYS, namespaces.PROXY, *ports])
        door.saying, door.info = saying, info
        self._on(saying.fileno(), lambda: self._child_says(door))
        self._on(info, lambda: self._view_made(door))

    def _listen(self, number: int, ports: list[int]) -> None:
        door = self._doors.get(number)
        if door is None or not door.namespaces:
            raise Refused("unavailable", "this door is not open")
        fresh = [port for port in ports if port not in door.ports]
        try:
            pid, saying = spawn.listen(door.namespaces[0], door.namespaces[1], fresh)
        except OSError as error:
            raise Refused("unavailable", f"no room to listen for more: {error.strerror}") from None
        said: dict[str, Any] = {"code": "unavailable", "message": "the door closed meanwhile"}

        def heard() -> None:
            message, fds = _frame(saying)
            if message is not None:
                said.clear()
                said.update(message, fds=fds)

        def ended() -> None:
            self._off(saying.fileno())
            heard()
            saying.close()
            fds = said.pop("fds", [])
            if "listeners" in said:
                door.ports.update(fresh)
                self._say({"listening": number, **said}, fds)
            else:
                self._say({"refused": number, **said})
            _close_all(fds)

        self._helpers[pid] = ended

    # -- a door's life

    def _child_says(self, door: Door) -> None:
        assert door.saying is not None
        message, fds = _frame(door.saying)
        if message is None:
            self._off(door.saying.fileno())
            door.saying.close()
            door.saying = None
            return
        if "listeners" in message:
            door.listeners = message["listeners"]
            door.sockets, door.namespaces = fds[:-2], fds[-2:]
        else:
            door.failure = message
            _close_all(fds)

    def _view_made(self, door: Door) -> None:
        """bubblewrap says who is pid 1; nothing, if it or the child before it failed."""
        assert door.info is not None
        data = os.read(door.info, 65536)
        door.told += data
        if data:
            return
        self._off(door.info)
        os.close(door.info)
        door.info = None
        while door.saying is not None:
            self._child_says(door)  # what it said came before
        try:
            first = int(json.loads(door.told)["child-pid"])
        except (ValueError, KeyError, TypeError):
            return  # refused when bubblewrap is waited for
        try:
            if door.listeners is None:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))  # they came, and there was no room for them
            door.first = _child_of(first, (door.pid, os.getpid()))
        except OSError as error:
            door.failure = {"code": "unavailable", "message": f"no room for another door: {error.strerror}"}
            self._kill(door)
            return
        if door.first is None:
            door.first_gone = True
        else:
            self._on(door.first, lambda: self._first_ended(door))
        if self._ending or door.killed:
            self._kill(door)
        if not self._ending:
            self._tell_open(door)
        if door.first is None:
            return
        if os.getuid() == 0:
            self._help(lambda: spawn.limit_tasks(_known(door.first)))
        for number in door.signals:
            self._signal(door, number)

    def _tell_open(self, door: Door) -> None:
        door.open = True
        what: dict[str, Any] = {"door": ENGINE} if door.number == ENGINE else {"spawned": door.number}
        self._say({**what, "listeners": door.listeners}, door.sockets)
        _close_all(door.sockets)
        door.sockets = []

    def _first_ended(self, door: Door) -> None:
        self._off(_known(door.first))
        door.first_gone = True
        self._reap()
        self._settle(door)

    def _signal(self, door: Door, number: int) -> None:
        if number == signal.SIGKILL:
            door.killed = True
            self._kill(door)
        elif door.info is not None:
            door.signals.append(number)
        elif not door.first_gone:
            self._help(lambda: spawn.signal_all(_known(door.first), number))

    def _to_first(self, door: Door, number: int) -> None:
        if door.first is None:
            self._kill(door)
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(door.first, number)

    def _kill(self, door: Door) -> None:
        """pid 1 inside first, so that bubblewrap outside reaps it and says how it ended; without one, bubblewrap itself."""
        if door.first is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(door.first, signal.SIGKILL)
        elif door.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(door.pid, signal.SIGKILL)

    def _help(self, start: Callable[[], tuple[int, socket.socket]]) -> None:
        """A helper whose answer nobody waits for."""
        with contextlib.suppress(OSError):
            pid, saying = start()
            saying.close()
            self._helpers[pid] = lambda: None

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            helper = self._helpers.pop(pid, None)
            if helper is not None:
                helper()
                continue
            for door in list(self._doors.values()):
                if door.pid == pid and door.code is None:
                    door.code = os.waitstatus_to_exitcode(status)
                    self._settle(door)

    def _settle(self, door: Door) -> None:
        """Forget the door when all of it is gone."""
        if door.code is None or self._doors.get(door.number) is not door:
            return
        while door.info is not None:
            self._view_made(door)
        if door.first is not None and not door.first_gone:
            return
        if door.first is None:
            self._kill_strays()
        while door.saying is not None:
            self._child_says(door)
        del self._doors[door.number]
        door.close()
        if door.number == ENGINE:
            self._code = door.code if door.code >= 0 else 128 - door.code
            self._failed_engine(door)
            self._end()
        elif door.open:
            self._say({"exited": door.number, "code": _as_subprocess(door.code)})
        else:
            self._say({"refused": door.number, **(door.failure or _NO_VIEW)})

    def _kill_strays(self) -> None:
        """bubblewrap that is killed before it told its pid 1 leaves that waiting for it, for good; it was handed to us."""
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as children:
                pids = {int(pid) for pid in children.read().split()}
        except OSError:
            return  # a kernel without this list
        for pid in pids - self._helpers.keys() - {door.pid for door in self._doors.values() if door.code is None}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _failed_engine(self, door: Door) -> None:
        if not door.open:
            message = (door.failure or _NO_VIEW)["message"]
            os.write(2, f"rootlink: the engine's door could not be opened: {message}\n".encode())

    # -- the rest

    def _say(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        if self._ending:
            return
        try:
            frames.send(self._engine, json.dumps(message).encode(), fds or [])
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                self._end()  # it does not read

    def _on(self, fd: int, ready: Callable[[], None]) -> None:
        self._ready[fd] = ready
        self._poll.register(fd, select.EPOLLIN)

    def _off(self, fd: int) -> None:
        if self._ready.pop(fd, None) is not None:
            self._poll.unregister(fd)


_NO_VIEW = {
    "code": "upstream_failed",
    "message": "bubblewrap could not start the command behind its door; its own words are in the command's standard error",
}


def _child_of(pid: int, parents: tuple[int, int]) -> int | None:
    """A pidfd; None when it ended and was waited for, whoever has its number now. Raises OSError when there is no room."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fd = os.pidfd_open(pid)
            try:
                if int(stat.read().rpartition(b")")[2].split()[1]) in parents:
                    return fd
            except ProcessLookupError:
                pass
            os.close(fd)
    except (ProcessLookupError, FileNotFoundError):
        pass
    return None


def _needed(command: Command, granted: list[str]) -> tuple[list[paths.Place], dict[str, str]]:
    """What is not visible anyway, each opened and judged: `command` only looked at paths, and an engine can change a link between
    two looks. What is no program or folder of one is left out, and the command says so itself. Raises OSError when there is no
    room."""

    def hidden(at: str, among: list[str]) -> bool:
        return not any(paths.within(at, other) for other in among)

    wanted = {**command.folders, **{path: path for path in command.files}}
    shown: list[paths.Place] = []
    try:
        for at, path in sorted(wanted.items(), key=lambda item: item[0].count("/")):
            if hidden(at, [*granted, *(place.at for place in shown)]) and not paths.is_fresh(at):
                place = paths.exactly(path, at)
                if place is not None:
                    shown.append(place)
                    if not (paths.is_folder if at in command.folders else paths.is_program)(place.fd):
                        os.close(shown.pop().fd)
    except OSError:
        _close(shown)
        raise
    all_shown = [*granted, *(place.at for place in shown)]
    return shown, {at: target for at, target in command.links.items() if hidden(at, all_shown)}


def _visible(cwd: str, places: list[paths.Place]) -> None:
    fresh = ("/tmp", "/home", "/root", "/run", "/")  # noqa: S108
    if cwd in fresh or paths.is_system(cwd) or any(paths.within(os.path.normpath(cwd), place.at) for place in places):
        return
    raise Refused(
        "invalid", f"the working folder {cwd} is not among what the command may see: add it to the connection's `paths`"
    )


def _texts(given: Any) -> list[str]:
    if type(given) is not list or len(given) > _MAX_TEXTS:
        raise ValueError("texts")
    for text in given:
        if type(text) is not str or "\0" in text:
            raise ValueError("texts")
    return given


def _environment(given: Any) -> dict[str, str]:
    if type(given) is not dict:
        raise ValueError("env")
    _texts([*given.keys(), *given.values()])
    if any(not name or "=" in name for name in given):
        raise ValueError("env")
    return given


def _ports(given: Any) -> list[int]:
    if type(given) is not list or any(type(port) is not int or not 0 < port < 65536 for port in given):
        raise ValueError("ports")
    ports = [port for port in dict.fromkeys(given) if port not in namespaces.ALWAYS]
    if len(ports) > namespaces.MAX_PORTS - len(namespaces.ALWAYS):
        raise Refused("invalid", f"a door listens on at most {namespaces.MAX_PORTS} ports: name fewer in the allowlist")
    return ports


def _number_of(payload: bytes) -> int:
    (what,) = json.loads(payload).values()
    return int(what["id"])


def _frame(say: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """A child's one frame, whole, or None at the end. It was written at once and is at most some kilobytes."""
    unpacker = frames.Unpacker()
    try:
        while True:
            data, fds = frames.receive(say)
            messages = unpacker.feed(data, fds)
            if messages:
                message: dict[str, Any] = json.loads(messages[0][0])
                return message, messages[0][1]
            if not data:
                return None, []
    except (OSError, frames.Broken):
        return None, []


def _as_subprocess(code: int) -> int:
    """bubblewrap says 128 + n for a signal, as shells do."""
    return 128 - code if 128 < code <= 128 + signal.NSIG else code


def _known(fd: int | None) -> int:
    if fd is None:
        raise OSError(errno.ESRCH, "it ended")
    return fd


def _close(places: list[paths.Place]) -> None:
    _close_all([place.fd for place in places])


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _forget_stdio() -> None:
    """The engine's, which the keeper must not hold or read. What it has to say itself goes to standard error."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
