"""The provisioner's door: `wire/provisioner.py` over a unix socket, for processes of this user only.

Who is on the other end is asked of the kernel before a byte is read (SO_PEERCRED, unix(7)); the socket's mode and its
directory's say the same, so that two things must be wrong before a stranger gets in. Elsewhere than Linux only they say it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rootlink import shapes
from rootlink.errors import Internal, Invalid, NotFound, RootlinkError, Unavailable, envelope
from rootlink.provisioner.connected import Connected
from rootlink.provisioner.crew import Crew
from rootlink.provisioner.engines import Engines, Operator
from rootlink.provisioner.gate import GateLine
from rootlink.provisioner.launch.launcher import Launcher
from rootlink.provisioner.layout import Layout
from rootlink.provisioner.reconcile import Reconciler
from rootlink.sealing.unseal import Unsealer
from rootlink.store.store import Store
from rootlink.wire.engine import InstallEvent, SignedIn
from rootlink.wire.mounts import Desired

log = structlog.get_logger(__name__)
DRAIN_SECS = 1
Answer = Callable[[Request], Awaitable[Any]]
T = TypeVar("T")


class PeerProtocol(HttpToolsProtocol):
    """HTTP for peers of our own uid; any other is dropped unread."""

    uid = os.getuid()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = _peer_uid(transport.get_extra_info("socket"))
        if peer is not None and peer != self.uid:
            log.warning("stranger dropped", uid=peer)
            self.transport = transport
            transport.abort()
            return
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)


def _peer_uid(peer: Any) -> int | None:
    if sys.platform != "linux":
        return None
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def build(engines: Engines, reconciler: Reconciler, connected: Connected) -> Starlette:
    """Routes as data; every answer in the envelope of CONTRACT §3."""

    async def ensure(request: Request) -> Any:
        return await engines.ensure(request.path_params["project"])

    async def view(request: Request) -> Any:
        return await engines.view(request.path_params["project"])

    async def stop(request: Request) -> Any:
        return await engines.stop(request.path_params["project"])

    async def restart(request: Request) -> Any:
        return await engines.restart(request.path_params["project"])

    async def logs(request: Request) -> Any:
        return {"lines": await engines.logs(request.path_params["project"])}

    async def delete(request: Request) -> Any:
        await engines.delete(request.path_params["project"])
        return {}

    async def refresh(request: Request) -> Any:
        return {"restarted": await engines.refresh(request.path_params["project"])}

    async def decisions(request: Request) -> Any:
        await engines.pull_decisions(request.path_params["project"])
        return {}

    async def reconcile(request: Request) -> Any:
        install = reconciler.install(request.path_params["id"])
        return StreamingResponse(_lines(install.story()), media_type="application/x-ndjson")

    async def update(request: Request) -> Any:
        install = reconciler.install(request.path_params["id"], anew=True)
        return StreamingResponse(_lines(install.story()), media_type="application/x-ndjson")

    async def remove(request: Request) -> Any:
        await reconciler.remove(request.path_params["id"])
        return {}

    async def tools(request: Request) -> Any:
        return await connected.tools(request.path_params["id"])

    async def check(request: Request) -> Any:
        return await connected.check(request.path_params["id"])

    async def sign_in(request: Request) -> Any:
        return {"link": await connected.sign_in(request.path_params["id"])}

    async def trial(request: Request) -> Any:
        trial = await connected.trial(request.path_params["id"], await _decoded(request, Desired))
        return StreamingResponse(_lines(trial), media_type="application/x-ndjson")

    async def signed_in(request: Request) -> Any:
        return {"connection": await engines.signed_in(request.path_params["project"], await _decoded(request, SignedIn))}

    async def gate(request: Request) -> Any:
        return await engines.traffic()

    async def health(request: Request) -> Any:
        return {}

    table: list[tuple[str, str, Answer]] = [
        ("POST", "/engines/{project}/ensure", ensure),
        ("GET", "/engines/{project}", view),
        ("POST", "/engines/{project}/stop", stop),
        ("POST", "/engines/{project}/restart", restart),
        ("GET", "/engines/{project}/logs", logs),
        ("DELETE", "/engines/{project}", delete),
        ("POST", "/projects/{project}/refresh", refresh),
        ("POST", "/projects/{project}/decisions", decisions),
        ("POST", "/connections/{id}/reconcile", reconcile),
        ("POST", "/projects/{project}/sign-ins", signed_in),
        ("POST", "/connections/{id}/update", update),
        ("POST", "/connections/{id}/remove", remove),
        ("GET", "/connections/{id}/tools", tools),
        ("POST", "/connections/{id}/check", check),
        ("POST", "/connections/{id}/sign-in", sign_in),
        ("POST", "/connections/{id}/trial", trial),
        ("GET", "/gate", gate),
        ("GET", "/healthz", health),
    ]
    nowhere = {404: _refused(NotFound("the provisioner serves nothing here")), 405: _refused(NotFound("not with this method"))}
    return Starlette(
        routes=[Route(path, _enveloped(answer), methods=[method]) for method, path, answer in table],
        exception_handlers={status: _always(answer) for status, answer in nowhere.items()},
    )


async def _lines(story: AsyncIterator[InstallEvent]) -> AsyncIterator[bytes]:
    async for event in story:
        yield msgspec.json.encode(event) + b"\n"


async def _decoded(request: Request, shape: type[T]) -> T:
    """The body. What it held is in no error: it may be a sign-in's code."""
    try:
        return msgspec.json.decode(await request.body(), type=shape)
    except msgspec.ValidationError as error:
        raise Invalid(f"not a {shape.__name__}: {shapes.words(str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid(f"not a {shape.__name__}: not JSON") from None


def _enveloped(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            data = await answer(request)
        except RootlinkError as error:
            return _refused(error)
        except Exception:
            log.exception("request failed", path=request.url.path)
            return _refused(Internal("Internal error; the provisioner's log has more"))
        if isinstance(data, Response):
            return data
        return _json({"ok": True, "data": data, "error": None}, 200)

    return endpoint


def _refused(error: RootlinkError) -> Response:
    return _json(envelope(error), error.status)


def _json(body: Any, status: int) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def _always(answer: Response) -> Callable[[Request, Exception], Response]:
    return lambda request, error: answer


class KeyFiles(NamedTuple):
    private: Path
    public: Path


class Server(uvicorn.Server):
    """uvicorn without its way with signals: ours first stop the engines."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def bind(path: Path) -> socket.socket:
    """A listening socket at `path`, mode 0600 from the start. Raises Unavailable."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise Unavailable(f"the provisioner can't listen at {path}: {error.strerror}") from None
    finally:
        os.umask(before)
    return listener


async def serve(
    *,
    store: Store,
    launcher: Launcher,
    keys: KeyFiles,
    layout: Layout,
    operator: Operator,
    socket_path: Path,
    gate: Callable[[], GateLine] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; then stop every engine and return. The key pair is made at the first start;
    raises Unavailable when it is lost. `gate` is called on the running loop; without it there is no gate."""
    unsealer = await asyncio.to_thread(Unsealer.open_or_create, keys.private, keys.public, sealed=lambda: _any_secret(store))
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with Crew() as crew:
        line = gate() if gate is not None else None
        engines = Engines(store, launcher, unsealer, layout, crew, operator, gate=line)
        reconciler = Reconciler(store, engines, crew)
        if line is not None:
            crew.start(line.keep(), "gate")
        await engines.adopt()
        loop.add_signal_handler(signal.SIGCHLD, _look_at_engines, crew, engines)
        crew.start(engines.keep_polling(reconciler.watch), "poll")
        crew.start(reconciler.catch_up(), "catch up")
        crew.start(engines.warm_up(), "warm up")
        server = Server(_config(build(engines, reconciler, Connected(store, engines))))
        serving = asyncio.create_task(server.serve([bind(socket_path)]))
        serving.add_done_callback(lambda ended: told.set())  # whatever ends it ends us
        await told.wait()
        log.info("stopping")
        server.should_exit = True
        await crew.close()  # what is half done stays in its row, for the next provisioner
        await engines.close()
        await serving
    socket_path.unlink(missing_ok=True)  # noqa: ASYNC240  nothing else runs on the loop any more


def _any_secret(store: Store) -> bool:
    return any(store.secrets.list(project.id) for project in store.projects.list())


def _look_at_engines(crew: Crew, engines: Engines) -> None:
    with contextlib.suppress(Unavailable):
        crew.start(engines.notice(), "notice")


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=PeerProtocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECS,
    )
