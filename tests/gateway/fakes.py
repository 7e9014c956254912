"""Hand-written stand-ins at the gateway's two ports: an engine and a provisioner, each a real HTTP server on a unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from rootlink.errors import RootlinkError, envelope
from rootlink.gateway.protocol import GatewayProtocol, abort_of
from rootlink.store import Store
from rootlink.wire.checks import Verdict
from rootlink.wire.engine import InstallEvent, SignedIn
from rootlink.wire.provisioner import EngineAddress, EngineView
from rootlink.wire.tools import ToolRules, ToolView


class _Quiet(uvicorn.Server):
    """Starts and ends as fast as a test likes."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ending = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.ending.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._serve(None))
        while not self.started:
            await asyncio.sleep(0.005)
        try:
            yield
        finally:
            self.should_exit = self.force_exit = True
            self.ending.set()
            await task


@asynccontextmanager
async def served(app: ASGIApp, socket: Path) -> AsyncIterator[None]:
    """`app` on a unix socket, with the gateway's own protocol, so that it can drop a connection as a dying process does."""
    config = uvicorn.Config(
        app,
        uds=str(socket),
        http=GatewayProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    async with _Quiet(config).running():
        yield
    socket.unlink(missing_ok=True)


class FakeEngine:
    """Its `act` says what it does with a request; what it got is in `requests`. `gone` counts clients that left it waiting."""

    def __init__(self, socket: Path, key: str) -> None:
        self.socket = socket
        self.key = key
        self.act: Callable[[Request], Any] = self.echo
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.gone = 0
        self.stopping = False
        self.released = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.headers.get("x-rootlink-key") != self.key:
            await _refusal(401, "unauthorized")(scope, receive, send)
            return
        if self.stopping:
            await _refusal(503, "unavailable", {"x-rootlink-engine": "stopping"})(scope, receive, send)
            return
        body = await request.body()
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        query = scope["query_string"].decode()
        self.requests.append((request.method, request.url.path + (f"?{query}" if query else ""), headers, body))
        await (await self.act(request))(scope, receive, send)

    async def echo(self, request: Request) -> Response:
        return JSONResponse(
            {"jsonrpc": "2.0", "id": 1, "result": {"path": request.url.path}},
            headers={"x-rootlink-inner": "1", "set-cookie": "a=b"},
        )

    async def hang(self, request: Request) -> Response:
        """Until the client leaves."""
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.gone += 1
        return Response()

    async def die(self, request: Request) -> ASGIApp:
        abort = abort_of(request.scope)
        assert abort is not None
        abort()

        async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
            """The connection is gone."""

        return nothing

    def events(self, *parts: bytes, then_die: bool = False) -> Callable[[Request], Any]:
        """An event stream of `parts`; then it waits for `released`, and ends or dies."""

        async def act(request: Request) -> ASGIApp:
            abort = abort_of(request.scope)

            async def body() -> AsyncIterator[bytes]:
                try:
                    for part in parts:
                        yield part
                    await self.released.wait()
                    if then_die and abort is not None:
                        abort()
                except asyncio.CancelledError:
                    self.gone += 1
                    raise

            return StreamingResponse(body(), media_type="text/event-stream")

        return act

    async def flood(self, request: Request) -> Response:
        """Events without end, as fast as they are taken."""

        async def body() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"data: " + b"x" * 16_000 + b"\n\n"
                    await asyncio.sleep(0)  # after a disconnect nothing else here would ever wait
            finally:
                self.gone += 1

        return StreamingResponse(body(), media_type="text/event-stream")


class FakeProvisioner:
    """Speaks `wire/provisioner.py`. Starts a `FakeEngine` for a project at the first `ensure`, in this process."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.socket = folder / "prov.sock"
        self.store = store
        self.calls: list[str] = []
        self.engines: dict[str, FakeEngine] = {}
        self.script: list[InstallEvent | asyncio.Event] = []  # of the next reconcile; an Event is waited for
        self.refreshing: asyncio.Event | None = None  # when set, a refresh waits for it
        self.refusal: RootlinkError | None = None
        self.decisions: Callable[[str], None] = lambda project: None
        self.tools: list[ToolView] = []  # what an engine says of a connection's tools; rules in the store change them
        self.verdict = Verdict()
        self.back: list[tuple[str, SignedIn]] = []  # what browsers brought back
        self._folder = folder
        self._stops: dict[str, list[asyncio.Event]] = {}
        self._serving: dict[str, list[asyncio.Task[None]]] = {}
        self._generation = 0
        self._router = Router(
            [
                Route("/engines/{project}/{verb}", self._engine, methods=["GET", "POST"]),
                Route("/engines/{project}", self._engine, methods=["GET", "DELETE"]),
                Route("/projects/{project}/{verb}", self._project, methods=["POST"]),
                Route("/connections/{id}/reconcile", self._reconcile, methods=["POST"]),
                Route("/connections/{id}/remove", self._remove, methods=["POST"]),
                Route("/connections/{id}/{verb}", self._asked, methods=["GET", "POST"]),
                Route("/healthz", self._health),
            ]
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeProvisioner]:
        async with served(self._router, self.socket):
            try:
                yield self
            finally:
                await asyncio.gather(*(self.kill(project) for project in self.engines))

    async def spawn(self, project: str) -> FakeEngine:
        self._generation += 1
        engine = FakeEngine(self._folder / f"e{self._generation}.sock", f"key-{self._generation}")
        before = self.engines.get(project)
        if before is not None:
            engine.act = before.act
        ready, stop = asyncio.Event(), asyncio.Event()

        async def serve() -> None:
            async with served(engine, engine.socket):
                ready.set()
                await stop.wait()

        task = asyncio.create_task(serve())
        self._serving.setdefault(project, []).append(task)
        await ready.wait()
        self.engines[project] = engine
        self._stops.setdefault(project, []).append(stop)
        return engine

    async def kill(self, project: str) -> None:
        """The engine is gone with its socket; the provisioner does not know yet which project needs it next."""
        for stop in self._stops.pop(project, []):
            stop.set()
        await asyncio.gather(*self._serving.pop(project, []))

    def of(self, project: str) -> FakeEngine:
        return self.engines[project]

    async def _engine(self, request: Request) -> Response:
        project, verb = request.path_params["project"], request.path_params.get("verb", request.method.lower())
        self.calls.append(f"{verb} {project}")
        if self.refusal is not None:
            return _error(self.refusal)
        if verb == "ensure":
            if project not in self._stops:
                await self.spawn(project)
            engine = self.engines[project]
            return _ok(EngineAddress(str(engine.socket), engine.key, self._generation))
        if verb == "logs":
            return _ok({"lines": ["one"]})
        if verb in ("stop", "restart", "delete"):
            await self.kill(project)
        return _ok(EngineView("running" if project in self._stops else "stopped", None, None, "advisory", "/files"))

    async def _project(self, request: Request) -> Response:
        self.calls.append(f"{request.path_params['verb']} {request.path_params['project']}")
        if request.path_params["verb"] == "sign-ins":
            self.back.append((request.path_params["project"], msgspec.json.decode(await request.body(), type=SignedIn)))
            return _error(self.refusal) if self.refusal is not None else _ok({"connection": "docs"})
        if request.path_params["verb"] == "decisions":
            self.decisions(request.path_params["project"])
        if self.refreshing is not None:
            await self.refreshing.wait()
        return _ok({"restarted": []})

    async def _reconcile(self, request: Request) -> Response:
        id = request.path_params["id"]
        self.calls.append(f"reconcile {id}")

        async def story() -> AsyncIterator[bytes]:
            for event in self.script:
                if isinstance(event, asyncio.Event):
                    await event.wait()
                    continue
                if event.done is not None:
                    await asyncio.to_thread(self.store.connections.set_state, id, "connected", tools=event.done.tools)
                if event.failed is not None:
                    await asyncio.to_thread(self.store.connections.undo, id)
                yield msgspec.json.encode(event) + b"\n"

        return StreamingResponse(story(), media_type="application/x-ndjson")

    async def _remove(self, request: Request) -> Response:
        self.calls.append(f"remove {request.path_params['id']}")
        if self.refusal is not None:
            return _error(self.refusal)
        await asyncio.to_thread(self.store.connections.remove, request.path_params["id"])
        return _ok({})

    async def _asked(self, request: Request) -> Response:
        id, verb = request.path_params["id"], request.path_params["verb"]
        self.calls.append(f"{verb} {id}")
        if self.refusal is not None:
            return _error(self.refusal)
        row = await asyncio.to_thread(self.store.connections.by_id, id)
        assert row is not None
        answers: dict[str, Callable[[], Any]] = {
            "tools": lambda: [judged(tool, row.rules) for tool in self.tools],
            "check": lambda: self.verdict,
            "sign-in": lambda: {"link": "https://login.example/authorize?state=x"},
        }
        return _ok(answers[verb]())

    async def _health(self, request: Request) -> Response:
        return _ok({})


def judged(tool: ToolView, rules: ToolRules) -> ToolView:
    """As an engine does it, as far as these tests care."""
    chosen = rules.modes.get(tool.tool)
    held = tool.held if rules.pins.get(tool.tool) != tool.fingerprint else None
    return msgspec.structs.replace(tool, chosen=chosen, mode=chosen or "allow", held=held)


def _ok(data: object) -> Response:
    return Response(msgspec.json.encode({"ok": True, "data": data, "error": None}), media_type="application/json")


def _error(error: RootlinkError) -> Response:
    return Response(msgspec.json.encode(envelope(error)), error.status, media_type="application/json")


def _refusal(status: int, code: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"ok": False, "data": None, "error": {"code": code, "message": code}}, status, headers)
