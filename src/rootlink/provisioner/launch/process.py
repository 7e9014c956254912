"""Engines as processes of this machine.

An engine starts in a session of its own, with an almost empty environment, its log as output, and its configuration (secrets
included) on standard input, so that none of it is in argv or environment. Its record, run.json, is on disk before it has the
configuration: a provisioner that dies in between leaves a process that reads half a document and ends.

Nothing may get away. The provisioner adopts orphans (`programs/prctl.py`), so what an engine leaves behind becomes a child of
ours; a child of ours that is no engine we know is therefore ended on sight. What an engine that outlived its provisioner leaves
can't come to us, so the processes below every engine are also written down at each sweep. An engine whose record is lost is found
by the lock it holds, and ended: nobody has its key any more.

Behind a door (`sandbox` "kernel") the process that is started is the engine's keeper (`door/keeper.py`), and everything of the
project is below it. It gets the engine's input and output, and ends with it; so a record names both (`launcher.py: Running`),
words go to the engine, KILL to both, and what is waited for is the keeper's end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from rootlink.errors import Internal, RootlinkError, Unavailable
from rootlink.provisioner.launch import hold, identity, kept
from rootlink.provisioner.launch.identity import Identity
from rootlink.provisioner.launch.launcher import Running
from rootlink.provisioner.layout import Layout
from rootlink.provisioner.line import UNREADABLE, Line
from rootlink.wire.engine import EngineConfig

log = structlog.get_logger(__name__)
LOG_CAP = 8 * 1024 * 1024  # bytes; a longer log becomes `.1` at the next start
TAIL = 64 * 1024
_OURS = re.compile(r"rootlink engine: [a-z_]+: (.+)")  # how a program of ours ends with an error of ours (programs/__main__.py)
LAST_WORDS = 20  # lines of an engine's log that ours repeats when it does not start
TICK = 0.02  # seconds between two looks at a process


class Patience(NamedTuple):
    """Seconds to wait for each step of a start or a stop. A stop takes at most the sum of the last three."""

    ready: float = 20.0
    recover: float = 5.0
    ask: float = 4.0
    term: float = 1.0
    kill: float = 0.5


PATIENCE = Patience()


class ProcessLauncher:
    """`argv` starts an engine program; `environ` is all the environment it gets. `behind`: the command line that starts such an
    engine behind a door (`launch/behind.py`).

    `sweeping`: this process is a subreaper and starts nothing but engines, so any other child of it is an orphan to be ended.
    """

    def __init__(
        self,
        layout: Layout,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        behind: Callable[[EngineConfig], list[str]] | None = None,
        sweeping: bool = False,
        patience: Patience = PATIENCE,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._layout, self._argv, self._environ, self._patience, self._now = layout, list(argv), dict(environ), patience, now
        self._sweeping, self._behind, self._aside = sweeping, behind, 0
        self._started: dict[int, subprocess.Popen[bytes]] = {}  # ours to wait for, until they have ended
        self._said_before: dict[int, int] = {}  # pid → bytes in its log that others wrote
        self._below: dict[Identity, list[Identity]] = {}  # every engine we know → what was below it at the last look

    # Launcher

    async def start(self, config: EngineConfig, generation: int) -> Running:
        layout, project = self._layout, config.project
        socket = layout.socket(project, generation)
        folders = [layout.files(project), layout.engine(project), layout.log(project).parent, socket.parent]
        if config.sandbox == "kernel":  # what is not there yet can't be shown to it
            folders += [layout.doors.parent, Path(config.store_dir)]
        try:
            for folder in folders:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            socket.unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable(f"the engine can't be started: {error.strerror}") from None
        await self._end_unknown(project)
        config = msgspec.structs.replace(config, socket=str(socket), environ=self._environ if config.sandbox == "kernel" else {})
        running, process = self._spawn(config, generation)
        try:
            _write_private(layout.record(project), msgspec.json.encode(running))
            await self._configure(process, msgspec.json.encode(config))
            await self._ready(running)
            running = self._with_engine(running)
        except OSError as error:
            self._abort(running, error)
            raise Unavailable(f"the engine can't be started: {error.strerror}") from None
        except BaseException as error:
            self._abort(running, error)
            raise
        log.info("engine ready", project=project, pid=running.pid, generation=generation, sandbox=running.sandbox)
        return running

    async def stop(self, running: Running) -> None:
        below: set[Identity] = set(self._below.get(running.process, ()))
        wait = self._patience
        for step, patience in ((self._ask, wait.ask), (self._term, wait.term), (self._kill, wait.kill)):
            below |= set(identity.descendants(running.process))
            if await self._gone(running, patience if await step(running) else 0.0):
                break
        else:
            raise Unavailable(f"the engine (pid {running.pid}) can't be ended: the kernel does not let go of it")
        self._below[running.process] = list(below)
        words = self.forget(running)
        log.info("engine stopped", project=running.project, pid=running.pid, how=words or "by itself")

    def poll(self, running: Running) -> bool:
        process = self._started.get(running.process.pid)
        if process is not None and process.poll() is not None:
            return False
        if running.engine is not None and not identity.alive(running.engine):
            return False  # its keeper is just tidying up: nobody is to be sent there any more
        return identity.alive(running.process)

    async def recover(self, project: str) -> Running | None:
        running = self._recorded(project)
        if running is None or not self.poll(running):
            await self._end_unknown(project)
        if running is None:
            return None
        if self.poll(running):
            self._below[running.process] = identity.descendants(running.process)
            if await self._is_ours(running):
                return self._with_engine(running)
            log.warning("engine of another time ended", project=project, pid=running.pid)
            await self.stop(running)
        else:
            self.forget(running)
        return None

    def forget(self, running: Running) -> str | None:
        below = self._below.pop(running.process, [])
        process = self._started.pop(running.process.pid, None)
        self._said_before.pop(running.process.pid, None)
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # it has ended; whether it was reaped is another matter
                process.wait(1.0)
        for one in below:
            identity.send(one, signal.SIGKILL)
        self._sweep_orphans()
        Path(running.socket).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds something else, or is gone
            self._layout.sockets(running.project).rmdir()
        recorded = self._recorded(running.project)
        if recorded is not None and recorded.process == running.process:
            self._layout.record(running.project).unlink(missing_ok=True)
        return _ending(process.returncode if process is not None else None)

    def sweep(self) -> None:
        family = identity.Family()
        for engine, before in self._below.items():
            now = family.below(engine)
            escaped = [one for one in before if one not in now and identity.alive(one)]
            self._below[engine] = now + escaped
        self._sweep_orphans()

    def log(self, project: str, lines: int = 200) -> list[str]:
        return _tail(self._layout.log(project), lines)

    def projects(self) -> list[str]:
        return self._layout.projects()

    async def erase(self, project: str) -> None:
        log_file = self._layout.log(project)
        await asyncio.to_thread(shutil.rmtree, self._layout.project(project), ignore_errors=True)
        await asyncio.to_thread(shutil.rmtree, self._layout.sockets(project), ignore_errors=True)
        for file in (log_file, log_file.with_suffix(".log.1")):
            file.unlink(missing_ok=True)

    def memory(self, running: Running) -> int | None:
        if running.sandbox != "kernel":
            return None
        return kept.memory([running.process, *identity.descendants(running.process)])

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        self._aside += 1
        try:
            yield
        finally:
            self._aside -= 1

    # start

    def _command(self, config: EngineConfig) -> list[str]:
        if config.sandbox != "kernel":
            return self._argv
        if self._behind is None:
            raise Internal("this provisioner was not told how to start an engine behind a door")
        return self._behind(config)

    def _spawn(self, config: EngineConfig, generation: int) -> tuple[Running, subprocess.Popen[bytes]]:
        command = self._command(config)
        log_file = self._layout.log(config.project)
        try:
            if log_file.exists() and log_file.stat().st_size > LOG_CAP:
                log_file.replace(log_file.with_suffix(".log.1"))
            out = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(f"the engine can't be started: {log_file}: {error.strerror}") from None
        said_before = os.fstat(out).st_size
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=self._environ,
                cwd=config.state_dir,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"the engine can't be started: {error.strerror}") from None
        finally:
            os.close(out)
        self._started[process.pid], self._said_before[process.pid] = process, said_before
        known = identity.identify(process.pid) or Identity(process.pid, "ended")
        running = Running(config.project, known, config.key, config.socket, generation, self._stamp(), config.sandbox)
        self._below[known] = []
        return running, process

    async def _configure(self, process: subprocess.Popen[bytes], config: bytes) -> None:
        pipe = process.stdin
        assert pipe is not None

        def write() -> None:
            with contextlib.suppress(BrokenPipeError), pipe:
                pipe.write(config)

        await asyncio.to_thread(write)

    async def _ready(self, running: Running) -> None:
        line = Line(running.socket, running.key)
        deadline = time.monotonic() + self._patience.ready
        while time.monotonic() < deadline:
            if not self.poll(running):
                raise Unavailable(self._failure(running, "ended before it was ready"))
            with contextlib.suppress(Unavailable):
                await line.status(within=1.0)
                return
            await asyncio.sleep(TICK)
        raise Unavailable(self._failure(running, f"was not ready within {self._patience.ready:g} s"))

    def _with_engine(self, running: Running) -> Running:
        """With the engine's own process in its record."""
        if running.engine is not None:
            return running
        whole = [running.process, *identity.descendants(running.process)]
        engine = kept.listener(running.socket)
        if engine in whole:
            running = msgspec.structs.replace(running, engine=engine)
            with contextlib.suppress(OSError):  # the next provisioner asks again
                _write_private(self._layout.record(running.project), msgspec.json.encode(running))
        return running

    def _failure(self, running: Running, what: str) -> str:
        """Clients read this: what the engine said is quoted only when it is an error of ours, made to be read by anyone."""
        path = self._layout.log(running.project)
        said = _since(path, self._said_before.get(running.process.pid, 0))
        ours = [found[1] for line in said if (found := _OURS.fullmatch(line))]
        log.error("engine failed", project=running.project, what=what, said=said[-LAST_WORDS:])
        return f"the engine {what}: {ours[-1][:1000]}" if ours else f"the engine {what}; logs/{path.name} in the home has more"

    def _abort(self, running: Running, error: BaseException) -> None:
        self._below[running.process] = identity.descendants(running.process)
        identity.send(running.process, signal.SIGKILL)
        deadline = time.monotonic() + self._patience.kill
        while self.poll(running) and time.monotonic() < deadline:
            time.sleep(0.005)  # may run while being cancelled, when nothing can be awaited; KILL takes a moment only
        words = self.forget(running)
        why = type(error).__name__
        log.warning("engine not started", project=running.project, pid=running.pid, how=words, why=why)

    async def _end_unknown(self, project: str) -> None:
        """An engine that nobody has a record of, but that holds the project's lock: it has secrets, and keeps others out."""
        found = hold.holder(self._layout.lock(project))
        if found is None or found.pid == os.getpid():
            return
        log.warning("engine without a record ended", project=project, pid=found.pid)
        whole, wait = kept.whole(found), self._patience
        below = identity.descendants(whole)
        left = await asyncio.to_thread(identity.end, [found], term=wait.term + wait.ask, kill=wait.kill)
        left += await asyncio.to_thread(_ended_within, whole, wait.kill)
        for one in below:
            identity.send(one, signal.SIGKILL)
        if left:
            raise Unavailable(f"an earlier engine of this project (pid {found.pid}) can't be ended: the kernel keeps it")

    # stop

    async def _ask(self, running: Running) -> bool:
        try:
            await Line(running.socket, running.key).stop(within=1.0)
        except RootlinkError:
            return False  # one that can't be asked is signalled at once
        return True

    async def _term(self, running: Running) -> bool:
        return identity.send(running.engine or running.process, signal.SIGTERM)

    async def _kill(self, running: Running) -> bool:
        if running.engine is not None:
            identity.send(running.engine, signal.SIGKILL)
        return identity.send(running.process, signal.SIGKILL)

    async def _gone(self, running: Running, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while self.poll(running):
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(TICK)
        return True

    def _sweep_orphans(self) -> None:
        for _ in range(10 if self._sweeping and not self._aside else 0):  # ending one may bring its children to us
            known = {*self._started, *(engine.pid for engine in self._below)}
            family = identity.Family()
            identity.reap(family, known)
            orphans = [child for child in family.children(os.getpid()) if child.pid not in known]
            if not orphans:
                return
            for orphan in orphans:
                for process in (*family.below(orphan), orphan):
                    identity.send(process, signal.SIGKILL)
            log.warning("orphans ended", count=len(orphans))
            time.sleep(0.005)

    # state

    def _recorded(self, project: str) -> Running | None:
        try:
            running = msgspec.json.decode(self._layout.record(project).read_bytes(), type=Running)
        except (OSError, *UNREADABLE):
            return None
        return running if running.project == project else None

    async def _is_ours(self, running: Running) -> bool:
        """Whether it accepts the key of its record. It may still be starting; one that can't be asked in time is not kept."""
        deadline = time.monotonic() + self._patience.recover
        while self.poll(running) and time.monotonic() < deadline:
            try:
                await Line(running.socket, running.key).status(within=1.0)
                return True
            except Unavailable:
                await asyncio.sleep(TICK)
            except RootlinkError:
                return False
        return False

    def _stamp(self) -> str:
        return self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ended_within(process: Identity, secs: float) -> list[Identity]:
    """It is just ending by itself; KILL when it takes longer. What is there still after that. Blocks."""
    deadline = time.monotonic() + secs
    while identity.alive(process) and time.monotonic() < deadline:
        time.sleep(0.01)
    return identity.end([process], term=0.0, kill=secs)


def _ending(code: int | None) -> str | None:
    if code is None or code == 0:
        return None if code == 0 else "ended"
    number = -code if code < 0 else code - 128  # 128 + n: so a keeper tells of its engine, as shells do
    try:
        return f"ended by {signal.Signals(number).name}"
    except ValueError:
        return f"ended with exit code {code}"


def _tail(path: Path, lines: int) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return [line.decode(errors="replace") for line in deque(file, lines) if line.strip()]
    except OSError:
        return []


def _since(path: Path, start: int) -> list[str]:
    """The last lines of those written from byte `start` on."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= size else 0, size - TAIL))
            return [line for part in file if (line := part.decode(errors="replace").strip())]
    except OSError:
        return []


def _write_private(path: Path, content: bytes) -> None:
    """Whole or not at all, readable by this user only."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
