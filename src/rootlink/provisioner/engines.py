"""The engines: one a project, started when someone needs it, stopped when nobody does.

Rule 1. One lock an engine. Who starts, stops or retires it holds the lock, so a thousand callers of `ensure` cost one spawn.
Rule 2. `ensure` answers without the lock only while nobody holds it: an engine that is being asked whether it may stop is not
        handed out. One that agreed to stop answers 503 from that moment on, and the gateway comes here again: no request is lost.
Rule 3. Starts and stops are the crew's work, not the caller's: a caller that goes away changes nothing.
Rule 4. The row in the store is for others to read. It never decides anything here, so failing to write it stops nothing.
Rule 5. What an engine was given last is remembered, and compared with the store at every poll: a change that did not get
        through is pushed again until it has.
Rule 6. After a start that failed, the next is refused until `lifecycle.delay` has passed; a person's `restart` asks at once.
Rule 7. The gate hears of a policy before the engine does: what is no longer allowed is cut, not only forgotten. So the key of
        a spawn is chosen before its start.
Rule 8. An engine never runs in another tier than the one in force: one that is found in another is ended, not adopted.
Rule 9. What an engine is needed for while it is stopped (schedules, webhooks) it says with its status, the last time as it stops,
        and the store has it from then on: one that is due is started a little before its time, also by the next provisioner.
        Whoever asks for a `view` may count on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import structlog

from rootlink.egress import hosts
from rootlink.errors import NotFound, RootlinkError, Unavailable
from rootlink.provisioner.crew import Crew
from rootlink.provisioner.environment import Opened, unsealed
from rootlink.provisioner.gate import GateLine
from rootlink.provisioner.grants import Grants, quietly
from rootlink.provisioner.launch import logfile
from rootlink.provisioner.launch.launcher import Launcher, Running
from rootlink.provisioner.layout import Layout
from rootlink.provisioner.lifecycle import Event, State, after, delay
from rootlink.provisioner.line import Line
from rootlink.provisioner.once import Once
from rootlink.records.connection import Previous
from rootlink.records.engine import EngineRow
from rootlink.records.secret import Secret
from rootlink.records.wake import WakeRow
from rootlink.sealing.unseal import Unsealer
from rootlink.store.store import Store
from rootlink.wire.engine import Decision, EgressPolicy, EngineConfig, EngineStatus, Environment, Sandbox, SignedIn, Wake
from rootlink.wire.gate import Counts
from rootlink.wire.mounts import Desired, MountSpec
from rootlink.wire.provisioner import EngineAddress, EngineView
from rootlink.wire.tools import ToolRules

T = TypeVar("T")
# (name, version, hash of the ciphertext) of secrets; domains; (connection, hash) of rules for tools
Mark = tuple[frozenset[tuple[str, int, int]], tuple[str, ...], frozenset[tuple[str, int]]]
log = structlog.get_logger(__name__)

POLL = 5.0  # seconds between two looks at every engine
AHEAD = 10.0  # seconds before something is due in which its engine is started: a look, and a start, take their time
WARM_UP = 1.0  # seconds after which nobody waits for our own start any more
WEDGED = 6  # looks in a row without an answer, after which an engine is ended
NUMBERS = ("memory_bytes", "mounts", "functions", "calls", "streams", "idle_secs")  # of EngineStatus, shown in EngineView
KEPT_DECISIONS = 2_000  # handed over by an engine while the store could not take them


@dataclass(frozen=True)
class Operator:
    """What the operator decided for every engine. `idle_stop` in seconds; 0: engines are not stopped for being idle.

    `sandbox` is what was asked for. `probe`: why this machine can't do the kernel tier, None: it can. `registries`: the policy of
    doors for packages. Both block, may start processes, and are asked once.
    """

    idle_stop: float = 900.0
    private: tuple[str, ...] = ()
    resolve: tuple[str, ...] = ()
    extra_ca: str | None = None
    allow_paths: tuple[str, ...] = ()
    sandbox: Sandbox = "advisory"
    catalog: Callable[[], list[dict[str, Any]]] = list
    probe: Callable[[], str | None] = lambda: None
    registries: Callable[[], EgressPolicy] = EgressPolicy


class Tier(NamedTuple):
    """What is in force. `no_stdio`: why stdio mounts are refused in it; "": they are not."""

    sandbox: Sandbox
    no_stdio: str = ""


class Given(NamedTuple):
    """What an engine is given: `mark` tells two states of the store apart, and holds no secret."""

    opened: Opened
    policy: EgressPolicy
    rules: dict[str, ToolRules]
    mark: Mark


class Stored(NamedTuple):
    """What the store has for an engine. `rules`: by connection."""

    secrets: list[Secret]
    domains: list[str]
    rules: dict[str, ToolRules]

    @property
    def mark(self) -> Mark:
        secrets = frozenset((secret.name, secret.version, hash(secret.ciphertext)) for secret in self.secrets)
        rules = frozenset((id, hash(msgspec.json.encode(one, order="sorted"))) for id, one in self.rules.items())
        return secrets, tuple(sorted(self.domains)), rules


@dataclass
class Seat:
    """One project's place: what is known of its engine. `retry_at` is monotonic seconds."""

    project: str
    state: State = State.STOPPED
    running: Running | None = None
    generation: int = 0
    failures: int = 0
    retry_at: float = 0.0
    error: str | None = None
    status: EngineStatus | None = None
    missed: int = 0
    given: Mark | None = None  # what the running engine has for sure; None: unknown
    wake: Wake | None = None  # what the store has for sure; None: unknown
    decisions: list[Decision] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    pushing: asyncio.Lock = field(default_factory=asyncio.Lock)  # so that an older environment never overtakes a newer one
    noting: asyncio.Lock = field(default_factory=asyncio.Lock)  # … nor an older `wake`

    def move(self, event: Event) -> None:
        self.state = after(self.state, event)

    @property
    def line(self) -> Line | None:
        return Line(self.running.socket, self.running.key) if self.running is not None else None

    @property
    def address(self) -> EngineAddress:
        assert self.running is not None
        return EngineAddress(self.running.socket, self.running.key, self.running.generation)

    def row(self) -> EngineRow:
        running = self.running
        pid, since = (running.pid, running.started_at) if running is not None else (None, None)
        return EngineRow(self.project, str(self.state), pid, since, self.generation, self.error)


class Engines:
    """`clock` is monotonic seconds, `now` Unix seconds. `spawned` is called with the project after every start and every
    sign-in. Without `gate` there is none."""

    def __init__(
        self,
        store: Store,
        launcher: Launcher,
        unsealer: Unsealer,
        layout: Layout,
        crew: Crew,
        operator: Operator,
        *,
        gate: GateLine | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._launcher, self._unsealer, self._layout = store, launcher, unsealer, layout
        self._crew, self._operator, self._clock, self._now, self._gate = crew, operator, clock, now, gate
        self._grants = Grants(store, unsealer)
        self._probed = Once(operator.probe, launcher.aside)
        self._registries = Once(operator.registries, launcher.aside)
        self._seats: dict[str, Seat] = {}
        self._closing = False
        self.spawned: Callable[[str], None] = lambda project: None

    # what the gateway asks

    async def ensure(self, project: str) -> EngineAddress:
        """Raises NotFound, and Unavailable when the engine does not start or may not be tried again yet."""
        seat = await self._seat(project)
        if self._handed_out(seat):
            return seat.address
        return await self._crew.finish(self._ensure(seat), f"ensure {project}")

    async def view(self, project: str) -> EngineView:
        """Of a stopped engine too. Raises NotFound."""
        seat = await self._seat(project)
        await self._notice(seat)
        if seat.line is not None and seat.state is State.RUNNING:
            with contextlib.suppress(RootlinkError):
                seat.status = await seat.line.status(within=1.5)
                await self._keep_wake(seat)
        files = self._layout.files(project)
        await asyncio.to_thread(_make_folder, files)
        tier, traffic = await self._tier(), await self._traffic(seat)
        row, numbers = seat.row(), await self._numbers(seat)
        shown = {"error": row.error, "no_stdio": tier.no_stdio or None, "egress": traffic, **numbers}
        return EngineView(row.state, row.pid, row.started_at, tier.sandbox, str(files), **shown)

    async def stop(self, project: str) -> EngineView:
        seat = await self._seat(project)
        await self._crew.finish(self._locked(seat, self._stop), f"stop {project}")
        return await self.view(project)

    async def restart(self, project: str) -> EngineView:
        seat = await self._seat(project)
        await self._crew.finish(self._locked(seat, self._restart), f"restart {project}")
        return await self.view(project)

    async def logs(self, project: str) -> list[str]:
        seat = await self._seat(project)
        if seat.line is not None:
            with contextlib.suppress(RootlinkError):
                return await seat.line.logs()
        return await asyncio.to_thread(self._launcher.log, project)

    async def delete(self, project: str) -> None:
        """Stop the engine and remove all it kept. The project may be gone from the store already."""
        seat = self._seats.get(project) or Seat(project)
        await self._crew.finish(self._locked(seat, self._erase), f"delete {project}")

    async def refresh(self, project: str) -> list[str]:
        """Give a running engine the secrets and the allowlist as they are now; names of what it restarted."""
        seat = await self._seat(project)
        return await self._crew.finish(self._refresh(seat), f"refresh {project}")

    async def pull_decisions(self, project: str) -> None:
        await self._pull(await self._seat(project))

    async def signed_in(self, project: str, back: SignedIn) -> str:
        """What a browser brought back from a sign-in; the connection's name. What it was given is in the vault then, unless the
        store can't take it now. Raises NotFound when no engine runs, and what the engine refuses it with."""
        return await self._crew.finish(self._signed_in(project, back), f"sign-in {project}")

    async def traffic(self) -> Counts:
        """Of all projects. Raises Unavailable when no gate answers."""
        if self._gate is None:
            raise Unavailable("there is no gate here")
        return _traffic(*(await self._gate.counts()).values())

    # what the reconciler asks

    async def line(self, project: str) -> Line:
        """To a running engine, started if need be. Raises as `ensure`."""
        address = await self.ensure(project)
        return Line(address.socket, address.key)

    async def take_grants(self, project: str, line: Line) -> None:
        """Into the vault, what sign-ins came to since; what fails now is taken at the next poll."""
        await quietly(self._grants, project, line)

    def live(self, project: str) -> Line | None:
        """To the engine if it runs; None when it does not."""
        seat = self._seats.get(project)
        return seat.line if seat is not None and self._handed_out(seat) else None

    def projects(self) -> list[str]:
        """Those whose engine runs."""
        return [project for project in self._seats if self.live(project) is not None]

    # what the owner calls

    async def adopt(self) -> None:
        """Take over what runs already, and put right the rows of what does not. Once, before anything else."""
        if reason := (await self._tier()).no_stdio:
            log.warning("no kernel sandbox here", what="stdio servers are refused", reason=reason)
        known = {project.id for project in await asyncio.to_thread(self._store.projects.list)}
        rows = {row.project: row for row in await asyncio.to_thread(self._store.engines.list)}
        for project in known & rows.keys():
            self._seats[project] = Seat(project, generation=rows[project].generation, error=rows[project].error)
        await asyncio.gather(*(self._adopt(project, project in known) for project in self._launcher.projects()))
        for project in known & rows.keys():
            if rows[project].state != State.STOPPED and self._seats[project].running is None:
                await self._write_row(self._seats[project])
        self._launcher.sweep()

    async def keep_polling(self, round_done: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """For ever: a look at every engine, then `round_done`, every `POLL` seconds."""
        while True:
            await asyncio.sleep(POLL)
            for work in (self.poll, round_done, self._cap_logs):
                try:
                    await work()
                except RootlinkError as error:
                    log.warning("poll", reason=error.message)
                except Exception:
                    log.exception("poll failed")

    async def warm_up(self) -> None:
        """Ask what the first spawn would have to wait for."""
        await asyncio.sleep(WARM_UP)
        await self._packages()

    async def poll(self) -> None:
        """One look at every engine, and at what is due of those that are stopped."""
        self._launcher.sweep()
        seats = list(self._seats.values())  # before the store is asked: a project made in between is not taken for a deleted one
        known = {project.id for project in await asyncio.to_thread(self._store.projects.list)}
        await asyncio.gather(*(self._look(seat, seat.project in known) for seat in seats))
        for project in await asyncio.to_thread(self._store.wakes.due, self._now() + AHEAD):
            if project in known:
                with contextlib.suppress(NotFound):  # it was deleted just now
                    self._wake(await self._seat(project))

    async def notice(self) -> None:
        """Only which engines have ended: cheap, called whenever a child of ours has."""
        for seat in list(self._seats.values()):
            await self._notice(seat)
        self._launcher.sweep()

    async def close(self) -> None:
        """Stop every engine, all at once. Nothing is started from here on."""
        self._closing = True
        seats = [seat for seat in self._seats.values() if seat.running is not None]
        for result in await asyncio.gather(*(self._locked(seat, self._stop) for seat in seats), return_exceptions=True):
            if isinstance(result, BaseException):
                log.error("engine not stopped", exc_info=result)

    async def _cap_logs(self) -> None:
        await asyncio.to_thread(logfile.cap, self._layout.home / "logs")

    # the seat

    async def _seat(self, project: str) -> Seat:
        if project not in self._seats:
            if (await asyncio.to_thread(self._store.projects.get, project)).id != project:
                raise NotFound(f"no project {project!r}")
            row = await asyncio.to_thread(self._store.engines.get, project)
            self._seats.setdefault(project, Seat(project, generation=row.generation if row is not None else 0))
        return self._seats[project]

    def _handed_out(self, seat: Seat) -> bool:
        return (
            seat.state is State.RUNNING
            and not seat.lock.locked()
            and seat.running is not None
            and self._launcher.poll(seat.running)
        )

    async def _locked(self, seat: Seat, work: Callable[[Seat], Coroutine[Any, Any, T]]) -> T:
        async with seat.lock:
            return await work(seat)

    async def _write_row(self, seat: Seat) -> None:
        """Rule 4."""
        try:
            await asyncio.to_thread(self._store.engines.put, seat.row())
        except RootlinkError as error:
            log.warning("engine row not written", project=seat.project, reason=error.message)

    # start

    async def _ensure(self, seat: Seat) -> EngineAddress:
        async with seat.lock:
            await self._gone(seat)
            if seat.state is State.STOPPING:
                await self._stop(seat)
            if seat.running is None:
                await self._spawn(seat)
            return seat.address

    async def _spawn(self, seat: Seat) -> None:
        self._refuse_early(seat)
        seat.move(Event.START)
        seat.error = None
        await self._write_row(seat)
        try:
            packages = await self._packages()
            given = await self._environment(seat.project)
            config = await self._config(seat.project, given, packages)
            await self._tell_gate(seat.project, config.key, given.policy, packages)
            seat.running = await self._launcher.start(config, seat.generation + 1)
        except RootlinkError as error:
            self._failed(seat, error.message)
            raise
        except BaseException:
            self._failed(seat, "the start was broken off")
            raise
        finally:
            seat.generation += 1
            if seat.running is None:
                await asyncio.shield(self._write_row(seat))
        seat.move(Event.READY)
        seat.failures, seat.retry_at, seat.missed, seat.status = 0, 0.0, 0, None
        seat.given, seat.error = given.mark, _broken(given.opened)
        await self._write_row(seat)
        self.spawned(seat.project)

    def _refuse_early(self, seat: Seat) -> None:
        if self._closing:
            raise Unavailable("the provisioner is stopping; try again in a moment")
        if self._seats.get(seat.project) is not seat:
            raise NotFound(f"project {seat.project!r} has just been deleted")
        left = seat.retry_at - self._clock()
        if left > 0:
            raise Unavailable(f"{seat.error or 'the engine did not start'}; the next try is in {left:.0f} s")

    def _failed(self, seat: Seat, words: str) -> None:
        seat.move(Event.BROKE)
        seat.failures += 1
        seat.retry_at = self._clock() + delay(seat.failures)
        seat.error = words
        self._forget_at_gate(seat)
        log.warning("engine start failed", project=seat.project, failures=seat.failures, retry_in=delay(seat.failures))

    async def _environment(self, project: str) -> Given:
        stored = await asyncio.to_thread(self._stored, project)
        operator = self._operator
        policy = EgressPolicy(stored.domains, list(operator.private), list(operator.resolve), operator.extra_ca)
        opened = await asyncio.to_thread(unsealed, project, stored.secrets, self._unsealer)
        return Given(opened, policy, stored.rules, stored.mark)

    def _stored(self, project: str) -> Stored:
        store = self._store
        return Stored(store.secrets.sealed(project), store.egress.domains(project), store.connections.rules(project))

    def _kept(self, project: str) -> list[MountSpec]:
        """What its connections can be gone back to."""
        rows = [row.previous for row in self._store.connections.list(project) if row.previous is not None]
        before = [msgspec.json.decode(row, type=Previous).version.desired for row in rows]
        mounts = [msgspec.json.decode(desired, type=Desired).mount for desired in before]
        return [mount for mount in mounts if mount is not None]

    async def _config(self, project: str, given: Given, packages: EgressPolicy) -> EngineConfig:
        tier = await self._tier()
        return EngineConfig(
            project=project,
            key=secrets.token_hex(32),
            socket="",
            state_dir=str(self._layout.engine(project)),
            files_dir=str(self._layout.files(project)),
            store_dir=str(self._layout.store(project)),
            secrets=dict(given.opened.values),
            policy=given.policy,
            allow_paths=list(self._operator.allow_paths),
            sandbox=tier.sandbox,
            catalog=self._operator.catalog(),
            doors=str(self._layout.doors) if self._gate is not None else "",
            no_stdio=tier.no_stdio,
            rules=given.rules,
            seal=self._unsealer.public.hex(),
            package_ports=hosts.named_ports(packages.allow),
            keep=await asyncio.to_thread(self._kept, project),
            store_shared=self._layout.packages is not None,
        )

    async def _tier(self) -> Tier:
        if self._operator.sandbox != "kernel":
            return Tier("advisory")
        reason = await self._probed.get()
        if reason is None:
            return Tier("kernel")
        return Tier("advisory", f"{reason}; choose --sandbox=advisory to run them without a kernel sandbox")

    # the gate

    async def _packages(self) -> EgressPolicy:
        """Nothing may be installed while the registries can't be told, and everything else goes on."""
        try:
            return await self._registries.get()
        except Exception as error:
            log.exception("package registries not known", kind=type(error).__name__)
            return EgressPolicy()

    async def _tell_gate(self, project: str, key: str, policy: EgressPolicy, packages: EgressPolicy) -> None:
        """Rule 7. It is what the gate is to have before this first waits for anything."""
        if self._gate is not None:
            await self._gate.serve(project, key, policy, packages)

    def _forget_at_gate(self, seat: Seat) -> None:
        if self._gate is not None:
            self._gate.forget(seat.project)

    async def _traffic(self, seat: Seat) -> Counts | None:
        if self._gate is None or seat.running is None or not self._gate.connected:
            return None
        with contextlib.suppress(Unavailable):
            counts = (await self._gate.counts()).get(seat.project)
            return _traffic(counts) if counts is not None else None
        return None

    async def _numbers(self, seat: Seat) -> dict[str, Any]:
        running, status = seat.running, seat.status
        if running is None or status is None:
            return {}
        seen = await asyncio.to_thread(self._launcher.memory, running)
        return {name: getattr(status, name) for name in NUMBERS} | ({"memory_bytes": seen} if seen is not None else {})

    # stop

    async def _stop(self, seat: Seat) -> None:
        if seat.running is None:
            return
        if seat.state is State.RUNNING:
            await self._pull(seat, within=1.0)
            if seat.line is not None:
                grants = quietly(self._grants, seat.project, seat.line, within=1.0)
                await asyncio.gather(grants, self._ask_wake(seat, seat.line))
            seat.move(Event.STOP)
            await self._write_row(seat)
        await self._launcher.stop(seat.running)
        self._forget_at_gate(seat)
        seat.move(Event.GONE)
        seat.running = None
        await self._write_row(seat)

    async def _ask_wake(self, seat: Seat, line: Line) -> None:
        with contextlib.suppress(RootlinkError):  # it is ending already, or hangs; then what it said last is good enough
            seat.status = await line.status(within=1.0)
            await self._keep_wake(seat)

    async def _restart(self, seat: Seat) -> None:
        await self._stop(seat)
        seat.failures, seat.retry_at = 0, 0.0
        await self._spawn(seat)

    async def _erase(self, seat: Seat) -> None:
        await self._stop(seat)
        await self._launcher.erase(seat.project)
        self._forget_at_gate(seat)
        self._seats.pop(seat.project, None)

    async def _notice(self, seat: Seat) -> None:
        if seat.running is not None and not seat.lock.locked():
            async with seat.lock:
                await self._gone(seat)

    async def _gone(self, seat: Seat) -> None:
        """The engine ended by itself, if it has."""
        if seat.state is State.RUNNING and seat.running is not None and not self._launcher.poll(seat.running):
            words = self._launcher.forget(seat.running)
            self._forget_at_gate(seat)
            log.warning("engine gone", project=seat.project, pid=seat.running.pid, how=words or "by itself")
            seat.error = f"the engine {words}; it starts again with the next call" if words else None
            seat.running = None
            seat.move(Event.GONE)
            await self._write_row(seat)

    # poll

    async def _look(self, seat: Seat, known: bool) -> None:
        if seat.lock.locked() or (known and seat.running is None):
            return
        if not known:
            await self._locked(seat, self._erase)
            return
        await self._notice(seat)
        line = seat.line
        if line is None or not await self._asked(seat, line):
            return
        await self._pull(seat)
        await self.take_grants(seat.project, line)
        await self._refresh_late(seat)
        idle = self._operator.idle_stop
        if idle and seat.status is not None and seat.status.idle_secs >= idle:
            await self._locked(seat, self._retire)

    async def _asked(self, seat: Seat, line: Line) -> bool:
        try:
            seat.status = await line.status()
        except RootlinkError as error:
            seat.missed += 1
            log.warning("engine does not answer", project=seat.project, times=seat.missed, reason=error.message)
            if seat.missed >= WEDGED:
                await self._locked(seat, self._end_wedged)
            return False
        seat.missed = 0
        await self._keep_wake(seat)
        return True

    async def _keep_wake(self, seat: Seat) -> None:
        """Rule 9."""
        async with seat.noting:
            wake = seat.status.wake if seat.status is not None else None
            if wake is None or wake == seat.wake:
                return
            try:
                await asyncio.to_thread(self._store.wakes.put, WakeRow(seat.project, wake.due, wake.hooks))
                seat.wake = wake
            except RootlinkError as error:
                log.warning("what an engine is needed for is not written", project=seat.project, reason=error.message)

    def _wake(self, seat: Seat) -> None:
        if seat.running is None and not seat.lock.locked() and not self._closing and self._clock() >= seat.retry_at:
            log.info("engine started for its schedule", project=seat.project)
            self._crew.start(self._ensure(seat), f"wake {seat.project}")

    async def _end_wedged(self, seat: Seat) -> None:
        await self._stop(seat)
        seat.error = f"the engine did not answer for {POLL * WEDGED:.0f} s and was ended; it starts again with the next call"
        await self._write_row(seat)

    async def _retire(self, seat: Seat) -> None:
        """Rule 2: the engine itself decides, since only it knows whether a call has just come."""
        line = seat.line
        if line is None or seat.state is not State.RUNNING:
            return
        with contextlib.suppress(Unavailable):  # then it is busy, or ending; the next look will tell
            if await line.stop_if_idle(self._operator.idle_stop):
                log.info("engine idle", project=seat.project)
                await self._stop(seat)

    async def _pull(self, seat: Seat, within: float = 5.0) -> None:
        """What the engine refused and allowed, into the store; kept here for the next time when the store can't take it."""
        if seat.line is not None:
            with contextlib.suppress(RootlinkError):
                seat.decisions += await seat.line.decisions(within=within)
        taken, seat.decisions = seat.decisions, []
        if not taken:
            return
        try:
            await asyncio.to_thread(self._store.decisions.record, seat.project, taken)
        except RootlinkError as error:
            seat.decisions = (taken + seat.decisions)[-KEPT_DECISIONS:]
            log.warning("decisions not written", project=seat.project, reason=error.message)

    # sign-ins

    async def _signed_in(self, project: str, back: SignedIn) -> str:
        """Anybody may bring anything back, so it starts no engine: a sign-in under way is in a running one's memory."""
        seat = self._seats.get(project)
        if seat is not None:
            async with seat.lock:  # it is just being started, or looked at
                pass
        line = self.live(project)
        if line is None:
            raise NotFound("this sign-in is not known: it was ended before, or took too long; begin it again")
        connection = await line.signed_in(back)
        await self.take_grants(project, line)
        self.spawned(project)  # a connection that could not be put back without it can be now
        return connection

    # refresh

    async def _refresh(self, seat: Seat) -> list[str]:
        async with seat.lock:  # an engine that is starting has read its secrets already, maybe before the change
            pass
        async with seat.pushing:
            line = seat.line
            if line is None or seat.state is not State.RUNNING:
                return []
            packages = await self._packages()
            given = await self._environment(seat.project)
            if seat.line is None or not seat.line.same(line):
                return []  # ended meanwhile: the gate must not hear its key after the next one's, which read the change itself
            seat.given = None  # until it has said so: a push that fails may have got through
            await self._tell_gate(seat.project, line.key, given.policy, packages)
            restarted = await line.environment(Environment(dict(given.opened.values), given.policy, given.rules))
            if seat.line is not None and seat.line.same(line):
                seat.given, seat.error = given.mark, _broken(given.opened)
            return restarted

    async def _refresh_late(self, seat: Seat) -> None:
        """Rule 5."""
        if seat.pushing.locked() or seat.state is not State.RUNNING:
            return
        with contextlib.suppress(RootlinkError):  # the store can't be asked, or we are stopping: the next poll comes
            stored = await asyncio.to_thread(self._stored, seat.project)
            if stored.mark != seat.given and not seat.pushing.locked():
                log.info("environment pushed again", project=seat.project)
                self._crew.start(self._refresh(seat), f"refresh {seat.project}")

    # adopt

    async def _adopt(self, project: str, known: bool) -> None:
        try:
            await self._take_over(project, known)
        except RootlinkError as error:  # one engine that can't be ended must not keep all others from being served
            log.error("engine not adopted", project=project, reason=error.message)

    async def _take_over(self, project: str, known: bool) -> None:
        running = await self._launcher.recover(project)
        if running is not None and known and running.sandbox != (await self._tier()).sandbox:
            log.info("engine of another tier ended", project=project, tier=running.sandbox)
            await self._launcher.stop(running)
            running = None
        if not known:
            if running is not None:
                await self._launcher.stop(running)
            await self._launcher.erase(project)
            log.info("leftovers of a deleted project removed", project=project)
        elif running is not None:
            seat = self._seats.setdefault(project, Seat(project))
            seat.running, seat.given, seat.generation = running, None, max(seat.generation, running.generation)
            seat.move(Event.FOUND)
            await self._write_row(seat)
            self._crew.start(self._refresh(seat), f"refresh {project}")  # what changed while nobody could tell it
            log.info("engine adopted", project=project, pid=running.pid, generation=running.generation)


def _broken(opened: Opened) -> str | None:
    if not opened.broken:
        return None
    names = ", ".join(opened.broken)
    return f"left out, since they can't be opened: {names}; set them again with: rootlink secrets set NAME"


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{path} can't be made: {error.strerror}") from None


def _traffic(*counts: Counts) -> Counts:
    return Counts(**{name: sum(getattr(one, name) for one in counts) for name in Counts.__struct_fields__})
