"""The gateway as one ASGI application.

    every request   guard → relay (/mcp, /engine, and what of an engine's a signed-in person asks for)     raw ASGI: the hot path
                          → router (/v1, health, openapi)      routes as data
                          → console (everything else that is a page)

Whatever is raised on the way becomes the envelope here, and nowhere else. What nobody raised on purpose becomes "Internal error"
with a request id; its kind and place go to the log, its words and the bodies do not, since they may hold what a caller sent.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.responses import RedirectResponse, Response
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rootlink.catalog import Catalog
from rootlink.errors import Internal, RootlinkError
from rootlink.gateway import access, health, incidents, oauth, openapi, protected, v1
from rootlink.gateway.answers import Gone, Refusal
from rootlink.gateway.auth import READS, Guesses, KeyRing, Operators
from rootlink.gateway.budget import Budget
from rootlink.gateway.engines import Engines
from rootlink.gateway.guard import Guard, Head
from rootlink.gateway.hooks import Hooks
from rootlink.gateway.metrics import Metrics
from rootlink.gateway.plane import Errands, Plane
from rootlink.gateway.protocol import abort_of, linger, unread
from rootlink.gateway.provisioner import ProvisionerClient
from rootlink.gateway.relay import Relay, is_relayed
from rootlink.gateway.routes import Call, Route, nowhere, paths
from rootlink.gateway.settings import GatewaySettings
from rootlink.records import Key
from rootlink.sealing.seal import Sealer
from rootlink.store import Store


def build(
    store: Store,
    sealer: Sealer,
    catalog: Catalog,
    provisioner: ProvisionerClient,
    settings: GatewaySettings,
    *,
    console: ASGIApp | None = None,
) -> Gateway:
    """`console` serves `/` and what is under `/console`; without one there is nothing there."""
    guesses = Guesses(settings, time.monotonic)
    keys = KeyRing(store.keys, settings)
    engines = Engines(provisioner, settings.ensure_secs)
    operators = Operators(settings, guesses)
    budget = Budget(settings.bodies, settings.bodies_each)
    plane = Plane(store, sealer, catalog, provisioner, engines, keys, operators, Errands(), budget, settings)
    return Gateway(plane, console)


class Gateway:
    """ASGI. `end_streams` when a shutdown begins; the lifespan's end closes everything it opened."""

    def __init__(self, plane: Plane, console: ASGIApp | None = None) -> None:
        self.plane = plane
        self.metrics = Metrics()
        self._guard = Guard(plane.settings.allowed_hosts)
        self._relay = Relay(plane.keys, plane.engines, plane.budget, plane.settings, self.metrics, self._admit)
        self._console = console
        self._router = Router(paths(plane, self._routes()), redirect_slashes=False, default=nowhere, lifespan=self._lifespan)

    def end_streams(self) -> None:
        self._relay.end_streams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        exchange = Exchange(scope, send)
        try:
            scope["rootlink.head"] = self._guard.admit(scope)
            await self._served_by(scope)(scope, receive, exchange.send)
        except Gone:
            pass
        except RootlinkError as error:
            await exchange.refuse(error, receive)
        except Exception as error:  # noqa: BLE001 (the one place where everything ends up)
            incidents.record(error, request_id=exchange.id)
            await exchange.refuse(Internal("Internal error"), receive)
        self.metrics.answered(scope["rootlink.route"], exchange.status)

    async def _admit(self, scope: Scope, head: Head, project: str) -> Key:
        """An operator at an engine's API: a viewer may look, an editor may do."""
        operator = self.plane.operators.operator(scope, head)
        found = await access.reached(self.plane, operator, project, "viewer" if scope["method"] in READS else "editor")
        return access.as_key(operator, found)

    def _served_by(self, scope: Scope) -> ASGIApp:
        path: str = scope["path"]
        if is_relayed(path):
            scope["rootlink.route"] = "/mcp" if path.startswith("/mcp") else "/engine"  # an operator's too
            return self._relay
        if self._console is not None and (path == "/" or path.startswith("/console/")):
            scope["rootlink.route"] = "/"
            return self._console
        return self._router

    def _routes(self) -> list[Route]:
        documented = [*v1.ROUTES, *health.ROUTES]
        document = openapi.document(documented, self.plane.settings.public_url)

        async def metrics(call: Call) -> Response:
            try:
                gate = await self.plane.provisioner.traffic(within=1.0)
            except RootlinkError:  # what the gateway itself counts is still worth telling
                gate = None
            return self.metrics.page(gate)

        async def described(call: Call) -> Response:
            return Response(document, media_type="application/json")

        return [
            *documented,
            *protected.ROUTES,
            *oauth.ROUTES,
            Route("GET", "/metrics", metrics, "Prometheus metrics", open=True),
            Route("GET", "/openapi.json", described, "This API", open=True),
            Hooks(self.plane).route,
            Route("GET", "/signin", sign_in_by_link, "Sign in with a one-time link", open=True),
        ]

    @asynccontextmanager
    async def _lifespan(self, app: object) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.plane.errands.close()
            await self.plane.engines.close()
            self.plane.provisioner.close()


async def sign_in_by_link(call: Call) -> Response:
    """A link from the terminal, opened in a browser: the token in it is good once, so it is worth nothing in a history."""
    cookie = call.plane.operators.redeem(call.scope, call.query("token") or "")
    await call.note(None, "session.begin", "console", "by link")
    return RedirectResponse("/", 303, {"set-cookie": cookie, "cache-control": "no-store", "referrer-policy": "no-referrer"})


class Exchange:
    """One request's answer: every one carries the request id and `nosniff`."""

    __slots__ = ("_receive", "_scope", "_send", "id", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self.id = scope["rootlink.id"] = secrets.token_hex(8)
        self.status = 0
        scope["rootlink.route"] = "none"
        self._scope = scope
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.id.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
        await self._send(message)

    async def _send_refusal(self, message: Message) -> None:
        """What is left of the request's body is thrown away, and then the connection ends: the client is told so, and has time
        to read it, since many write all of their body first and would see a reset instead."""
        if unread(self._scope):
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            else:
                linger(self._scope)
        await self.send(message)

    async def refuse(self, error: RootlinkError, receive: Receive) -> None:
        if not self.status:
            await Refusal(error, self.id)(self._scope, receive, self._send_refusal)
            return
        abort = abort_of(self._scope)  # half an answer is out; only the end of the connection can say that it is not whole
        if abort is not None:
            abort()
