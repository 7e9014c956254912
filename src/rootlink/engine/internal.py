"""`/internal`: what the provisioner asks of an engine (wire/engine.py). Not reachable through the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import psutil
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from rootlink import shapes
from rootlink.engine.decisions import Decisions
from rootlink.engine.functions.host import FunctionHost
from rootlink.engine.functions.scheduler import Scheduler
from rootlink.engine.functions.triggers import Triggers
from rootlink.engine.installer import Installer, Redact
from rootlink.engine.lease import Lease
from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.oauth.accounts import Accounts
from rootlink.engine.rest import body_of, ok, refused
from rootlink.engine.trials import Trials
from rootlink.errors import Invalid, RootlinkError
from rootlink.wire.engine import Checking, EngineConfig, EngineStatus, Environment, InstallEvent, SignedIn
from rootlink.wire.mounts import Desired

T = TypeVar("T")
SOON = 60.0  # seconds before a schedule is due in which an engine does not stop


class Internal:
    """`stop` ends the engine; `environment` puts new secrets and a new policy in force and answers what restarted."""

    def __init__(
        self,
        *,
        config: EngineConfig,
        mounts: Mounts,
        functions: FunctionHost,
        installer: Installer,
        trials: Trials,
        accounts: Accounts,
        decisions: Decisions,
        triggers: Triggers,
        scheduler: Scheduler,
        lease: Lease,
        stop: Callable[[], None],
        environment: Callable[[Environment], Awaitable[list[str]]],
        tasks: asyncio.TaskGroup,
        redact: Redact,
    ) -> None:
        self._config, self._mounts, self._functions, self._installer = config, mounts, functions, installer
        self._decisions, self._lease, self._stop, self._environment = decisions, lease, stop, environment
        self._accounts, self._tasks, self._redact = accounts, tasks, redact
        self._trials, self._triggers, self._scheduler = trials, triggers, scheduler

    def routes(self) -> list[Route]:
        table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
            ("GET", "/status", self.status),
            ("POST", "/stop-if-idle", self.stop_if_idle),
            ("POST", "/stop", self.stop),
            ("PUT", "/environment", self.environment),
            ("GET", "/connections", self.connections),
            ("PUT", "/connections/{id}", self.apply),
            ("DELETE", "/connections/{id}", self.release),
            ("GET", "/connections/{id}/tools", self.tools),
            ("POST", "/connections/{id}/check", self.check),
            ("POST", "/connections/{id}/sign-in", self.sign_in),
            ("POST", "/sign-ins", self.signed_in),
            ("POST", "/grants", self.grants),
            ("POST", "/trials", self.trial),
            ("POST", "/decisions", self.decisions),
        ]
        return [Route("/internal" + path, self._enveloped(act), methods=[method]) for method, path, act in table]

    def _enveloped(self, act: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                return await act(request)
            except RootlinkError as error:
                return refused(error, self._redact)

        return endpoint

    async def status(self, request: Request) -> Response:
        return ok(
            EngineStatus(
                pid=os.getpid(),
                idle_secs=self._lease.idle_secs,
                calls=self._lease.calls,
                streams=self._lease.streams,
                memory_bytes=tree_memory(),
                mounts=len(self._mounts.all()),
                functions=len(self._functions.all()),
                sandbox=self._config.sandbox,
                wake=self._triggers.wake,
            )
        )

    async def stop_if_idle(self, request: Request) -> Response:
        idle_secs = (await body_of(request)).get("idle_secs")
        if not isinstance(idle_secs, (int, float)):
            raise Invalid("stop-if-idle needs `idle_secs`, a number")
        needed = self._accounts.waiting or self._scheduler.needed(SOON)
        stopping = not needed and self._lease.agree_to_stop(idle_secs)
        if stopping:
            self._stop()
        return ok({"stopping": stopping})

    async def stop(self, request: Request) -> Response:
        self._lease.stopping = True
        self._stop()
        return ok({"stopping": True})

    async def environment(self, request: Request) -> Response:
        return ok({"restarted": await self._environment(await _decoded(request, Environment))})

    async def connections(self, request: Request) -> Response:
        return ok(self._installer.actual())

    async def apply(self, request: Request) -> Response:
        """The work belongs to the engine: it goes on when the provisioner goes away."""
        desired = await _decoded(request, Desired)
        if desired.id != request.path_params["id"]:
            raise Invalid("the connection's id in the path and in the body differ")
        events: asyncio.Queue[InstallEvent] = asyncio.Queue()
        self._tasks.create_task(self._apply(desired, events.put_nowait))
        return StreamingResponse(_lines(events), media_type="application/x-ndjson")

    async def _apply(self, desired: Desired, emit: Callable[[InstallEvent], None]) -> None:
        """An install is a call: it keeps the engine from being stopped as idle."""
        with self._lease.call():
            await self._installer.apply(desired, emit)

    async def trial(self, request: Request) -> Response:
        """As `apply`, of what nobody has agreed to yet."""
        desired = await _decoded(request, Desired)
        events: asyncio.Queue[InstallEvent] = asyncio.Queue()
        self._tasks.create_task(self._try(desired, events.put_nowait))
        return StreamingResponse(_lines(events), media_type="application/x-ndjson")

    async def _try(self, desired: Desired, emit: Callable[[InstallEvent], None]) -> None:
        with self._lease.call():
            await self._trials.run(desired, emit)

    async def release(self, request: Request) -> Response:
        return ok({"removed": await self._installer.release(request.path_params["id"])})

    async def tools(self, request: Request) -> Response:
        return ok(self._installer.tools_of(request.path_params["id"]))

    async def check(self, request: Request) -> Response:
        """A check is a call too."""
        with self._lease.call():
            asked = await _decoded(request, Checking)
            return ok(await self._installer.check(request.path_params["id"], asked.checks))

    async def sign_in(self, request: Request) -> Response:
        with self._lease.call():
            return ok({"link": await self._accounts.begin(request.path_params["id"])})

    async def signed_in(self, request: Request) -> Response:
        """Anybody may say so: what is no sign-in of ours is no use of this engine, and keeps it from no sleep."""
        answer = await _decoded(request, SignedIn)
        with self._lease.call() if self._accounts.knows(answer.state) else contextlib.nullcontext():
            return ok({"connection": await self._accounts.end(answer)})

    async def grants(self, request: Request) -> Response:
        taken = (await body_of(request)).get("taken", [])
        if not isinstance(taken, list) or not all(isinstance(id, str) for id in taken):
            raise Invalid("grants needs `taken`, a list of ids")
        return ok(self._accounts.hand_over(taken))

    async def decisions(self, request: Request) -> Response:
        return ok(self._decisions.hand_over())


async def _lines(events: asyncio.Queue[InstallEvent]) -> AsyncIterator[bytes]:
    while True:
        event = await events.get()
        yield msgspec.json.encode(event) + b"\n"
        if event.step is None:
            return


async def _decoded(request: Request, shape: type[T]) -> T:
    try:
        return msgspec.convert(await body_of(request), shape)
    except msgspec.ValidationError as error:
        raise Invalid(f"not a {shape.__name__}: {shapes.words(str(error))}") from None


def tree_memory() -> int:
    """Bytes of this process and all below it, shared pages counted once (PSS) where the kernel tells."""
    this = psutil.Process()
    return sum(_memory(process) for process in [this, *this.children(recursive=True)])


def _memory(process: psutil.Process) -> int:
    try:
        full: Any = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    except psutil.Error:
        return 0
