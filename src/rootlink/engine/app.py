"""One engine: everything a project holds, behind one unix socket.

    serve(config)   reads nothing but `config`; returns when the engine has stopped and left no process behind

The socket answers only who knows the key of this spawn. `/mcp` is raw ASGI (the hot path), the rest is Starlette. Start-up does
what the first request needs and no more: mounts come up in the background, V8 and the HTTP client at their first use.
"""

from __future__ import annotations

import asyncio
import hmac
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import structlog
import uvicorn
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from rootlink.engine import tokens
from rootlink.engine.changes import Changes
from rootlink.engine.checks import Checks
from rootlink.engine.decisions import Decisions
from rootlink.engine.dispatch import Dispatch
from rootlink.engine.doors import OWN, Door, Doors
from rootlink.engine.eras.endpoint import McpEndpoint
from rootlink.engine.functions.host import FunctionHost
from rootlink.engine.functions.scheduler import Scheduler
from rootlink.engine.functions.triggers import Triggers
from rootlink.engine.hooks import Hooks
from rootlink.engine.installer import Installer
from rootlink.engine.internal import Internal as InternalApi
from rootlink.engine.keeper import FD as KEEPER_FD
from rootlink.engine.keeper import Keeper
from rootlink.engine.lease import Lease
from rootlink.engine.mounts import launch
from rootlink.engine.mounts.launch import Launch
from rootlink.engine.mounts.supervisor import Mounts
from rootlink.engine.oauth.accounts import Accounts
from rootlink.engine.oauth.grant import apart
from rootlink.engine.outbound import Behind, Outbound
from rootlink.engine.own_tools import EngineTools
from rootlink.engine.packages import installer
from rootlink.engine.packages.kept import KeptInstalls
from rootlink.engine.packages.store import Packages
from rootlink.engine.rest import Json, Rest
from rootlink.engine.state import State
from rootlink.engine.toolcalls import WorkspaceTools
from rootlink.engine.tools.guard import Guard, Owner, own_definition
from rootlink.engine.trials import Trials
from rootlink.engine.trust import Trust
from rootlink.errors import Internal, Invalid, NotFound, Unauthorized, Unavailable, UpstreamFailed, envelope
from rootlink.http_server import ServerProtocol
from rootlink.redaction import Redactor
from rootlink.wire.engine import ENGINE_HEADER, KEY_HEADER, EngineConfig, Environment
from rootlink.wire.gate import Listener

DRAIN_SECS = 2
TIDY_LATER_SECS, TIDY_SECS = 60.0, 86400.0
WARM_SECS = 1.0  # an engine that was started for a call answers that first
RESTART_SECS = 3.0  # an answer to new secrets waits so long for mounts to be back; the policy is in force before it

log = structlog.get_logger(__name__)


class Engine:
    """The parts of one engine, wired once."""

    def __init__(self, config: EngineConfig, environ: Mapping[str, str], redactor: Redactor, tasks: asyncio.TaskGroup) -> None:
        state_dir = Path(config.state_dir)
        self.config = config
        self._redactor, self._tasks = redactor, tasks
        self.stopped = asyncio.Event()
        self.lease = Lease(time.monotonic)
        self.state = State(state_dir / "state.db")
        self.state.forget_old_sessions()
        self.decisions = Decisions(redactor)
        self.keeper = self._keeper() if config.sandbox == "kernel" else None
        self.doors = self._doors(self.keeper) if config.doors else None
        self.trust = Trust(state_dir / "ca.pem", config.policy.extra_ca)
        behind = Behind(self.doors, OWN) if self.doors is not None and self.keeper is not None else None
        self.outbound = Outbound(config.policy, self.decisions.record, way=behind)
        children = self._launch()
        self.packages = Packages(
            Path(config.store_dir),
            environ={**environ, **config.environ},
            run=KeptInstalls(children, config.package_ports) if self.keeper is not None else installer.run,
            found_elsewhere=self.keeper is not None,
        )
        self.changes = Changes()
        grants, given = apart(config.secrets)
        self.accounts = Accounts(
            project=config.project,
            seal=config.seal,
            state=self.state,
            outbound=self.outbound,
            private=list(config.policy.private),
            redactor=redactor,
            grants=grants,
            mounts=lambda: self.mounts,
        )
        self.mounts = Mounts(
            launch=children,
            outbound=self.outbound,
            packages=self.packages,
            files_dir=Path(config.files_dir),
            mounts_dir=state_dir / "mounts",
            secrets=given,
            allow_paths=[Path(path) for path in config.allow_paths],
            on_change=lambda ws, kinds: self.installer.changed(ws, kinds),
            on_updated=self.changes.updated,
            trust=self.trust,
            no_stdio=config.no_stdio,
            credential=self.accounts.credential,
        )
        self.functions = FunctionHost(self.state.db, self.outbound, given)
        self.guard = Guard(self.state.put_kept, redactor)
        self.installer = Installer(
            self.mounts,
            self.functions,
            self.state,
            self.changes,
            redactor,
            Checks(self.outbound, lambda: self.mounts.secrets, redactor),
            self.accounts,
            self.guard,
        )
        kept = tokens.keep(state_dir / "tokens.key")
        self.triggers = Triggers(
            self.state.db, self.functions, project=config.project, secret=kept.seal("triggers", b"").encode()
        )
        self.installer.function_gone = self.triggers.forget
        self.scheduler = Scheduler(self.triggers, self.functions.invoke, self.lease, tasks, self._admit)
        own = EngineTools(self.installer, config.catalog, redactor)
        self.dispatch = Dispatch(self.mounts, self.functions, own, redactor, self.guard, kept)
        self.functions.tools = WorkspaceTools(self.dispatch, self.functions)
        self.mcp = McpEndpoint(self.dispatch, self.state, self.changes, self.lease, kept)
        self.changes.before, self.changes.aliases = self.dispatch.forget, self.dispatch.aliases
        internal = InternalApi(
            config=config,
            mounts=self.mounts,
            functions=self.functions,
            installer=self.installer,
            trials=Trials(self.mounts, self.packages, redactor),
            accounts=self.accounts,
            decisions=self.decisions,
            triggers=self.triggers,
            scheduler=self.scheduler,
            lease=self.lease,
            stop=self.stopped.set,
            environment=self._environment,
            tasks=tasks,
            redact=redactor,
        )
        rest = Rest(self.mounts, self.functions, self.installer, self.dispatch, self.guard, redactor, self.triggers)
        hooks = Hooks(self.triggers, self.scheduler, self.lease)
        routes = [*rest.routes(), *internal.routes(), *hooks.routes()]
        # A redirect to the path without its slash would name http, whatever proxy is in front.
        self._router = Router(routes, redirect_slashes=False, default=_nothing_here)
        if self.doors is not None:
            self.doors.start()

    def _keeper(self) -> Keeper:
        if not self.config.doors:
            raise Invalid("an engine behind a door needs the gate's socket (`doors`)")

        def own(listeners: list[Listener], fds: list[int]) -> None:
            assert self.doors is not None
            self.doors.open(Door(OWN, "engine", listeners, fds))

        return Keeper(socket.socket(fileno=KEEPER_FD), own, self.stopped.set)

    def _doors(self, kept: Keeper | None) -> Doors:
        config, more = self.config, kept.listen if kept is not None else None
        return Doors(config.doors, config.project, config.key, config.policy, record=self.decisions.record, more=more)

    def _launch(self) -> Launch:
        if self.keeper is not None and self.doors is not None:
            return launch.Kept(self.keeper, self.doors)
        if self.config.no_stdio:
            return launch.Plain()  # which is never asked
        return launch.probe() if self.doors is None else launch.Proxied(launch.probe(), self.doors)

    def _admit(self, ws: str, name: str) -> None:
        """A trigger runs no function that a person withheld. Raises NotFound, Forbidden."""
        tool = [own_definition(self.functions.tool(ws, name), name)]
        self.guard.refuse_withheld(Owner(ws, "function", name), tool, tool, name, f"function__{name}")

    async def _environment(self, environment: Environment) -> list[str]:
        grants, given = apart(environment.secrets)
        self._redactor.learn(given)  # a grant's tokens are hidden, and forgotten, by `accounts`
        self.installer.rules(environment.rules)
        self.outbound.update(environment.policy)
        self.trust.update(environment.policy.extra_ca)
        if self.doors is not None:
            self.doors.update(environment.policy)
        self.accounts.environment(grants, environment.policy.private)
        self.functions.environment(given)
        restarting = self._tasks.create_task(self._restart(given))
        await asyncio.wait({restarting}, timeout=RESTART_SECS)
        return restarting.result() if restarting.done() else []

    async def _restart(self, secrets: Mapping[str, str]) -> list[str]:
        try:
            if self.doors is not None:
                await self.doors.settled()
            return await self.mounts.environment(secrets)
        except Exception:
            log.exception("mounts did not restart")
            return []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if not self._knows_the_key(scope):
            error = Unauthorized("this engine answers its gateway and its provisioner only")
            await Json(envelope(error), error.status)(scope, receive, send)
        elif scope["path"].startswith(("/internal/", "/hooks/")):
            await self._router(scope, receive, send)
        elif self.lease.stopping:
            body = Json(envelope(Unavailable("the engine is stopping; ask again")), 503, {ENGINE_HEADER: "stopping"})
            await body(scope, receive, send)
        else:
            with self.lease.call():
                await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A client's request. What nobody expected goes to the log; the client learns that it happened and nothing more."""
        path, started = scope["path"], False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await (self.mcp if path == "/mcp" or path.startswith("/mcp/") else self._router)(scope, receive, watched)
        except asyncio.CancelledError:  # by the server, whose patience with what is in flight is over
            if started or not self.lease.stopping:
                raise
            await Json(envelope(UpstreamFailed("The engine was stopped while it worked on this")), 502)(scope, receive, send)
        except Exception:
            log.exception("request broke", path=path)
            if not started:
                await Json(envelope(Internal("Internal error; see the engine's log")), 500)(scope, receive, send)

    def _knows_the_key(self, scope: Scope) -> bool:
        header = KEY_HEADER.encode()
        given = next((value for name, value in scope["headers"] if name == header), b"")
        return hmac.compare_digest(given, self.config.key.encode())

    async def tidy(self) -> None:
        """Soon, and once a day: what functions need is there before their first call; old runs, and packages that nothing uses
        any more, go."""
        await asyncio.sleep(WARM_SECS)
        await self.functions.warm()
        while True:
            await asyncio.sleep(TIDY_LATER_SECS)  # not while mounts come up
            try:
                self.functions.prune()
            except Unavailable as error:
                log.warning("runs not tidied", why=error.message)
            specs = [*(mount.spec for mount in self.mounts.all()), *self.config.keep]
            keep = [(spec.command or "", spec.args, spec.lock) for spec in specs]
            try:
                await asyncio.to_thread(self.packages.sweep, keep, now=time.time(), shared=self.config.store_shared)
            except OSError as error:
                log.warning("packages not tidied", why=error.strerror)
            await asyncio.sleep(TIDY_SECS)

    async def close(self) -> None:
        """End every stream, every mounted process, every isolate; what is written down stays."""
        self.mcp.close()
        await self.mounts.close()
        await self.accounts.close()
        await self.packages.close()
        await self.functions.close()
        await self.scheduler.close()
        await self.outbound.close()
        if self.doors is not None:
            await self.doors.close()
        if self.keeper is not None:
            self.keeper.close()
        self.state.close()


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    error = NotFound(f"nothing is served at {scope['method']} {scope['path'][:200]}")
    await Json(envelope(error), error.status)(scope, receive, send)


def _socket(path: str) -> socket.socket:
    """Listens at `path`, for this user only."""
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    Path(path).chmod(0o600)
    listener.listen(2048)
    listener.setblocking(False)
    return listener


async def serve(config: EngineConfig, *, environ: Mapping[str, str], redactor: Redactor) -> None:
    """Run one engine until it is told to stop (`/internal/stop`, an agreed idle stop, SIGTERM).

    `environ` is the package installer's; `redactor` is told of every secret this engine comes to hold.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        engine = Engine(config, environ, redactor, tasks)
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, engine.stopped.set)
        engine.installer.restore(config.rules)
        tidying = tasks.create_task(engine.tidy())
        scheduling = tasks.create_task(engine.scheduler.keep())
        server = uvicorn.Server(
            uvicorn.Config(
                engine,
                http=ServerProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=3600,
                timeout_graceful_shutdown=DRAIN_SECS,
            )
        )
        # not `serve()`, which would take the signals over; and a socket of our own, because uvicorn opens its to everybody
        serving = tasks.create_task(server._serve([_socket(config.socket)]))
        await engine.stopped.wait()
        engine.lease.stopping = True
        engine.mcp.close()
        tidying.cancel()
        scheduling.cancel()
        server.should_exit = True
        await serving
        await engine.close()
    Path(config.socket).unlink(missing_ok=True)  # noqa: ASYNC240 - nothing else runs any more
