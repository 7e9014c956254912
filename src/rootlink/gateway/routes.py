"""Routes as data. One `Route` says what a path takes and gives; from the list of them come the router and `/openapi.json`.

What a body must look like is its Struct; what is said of one that does not is `shapes.words`: a decoder's own may quote it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path
from starlette.types import Receive, Scope, Send

from rootlink import shapes
from rootlink.errors import Invalid, NotFound
from rootlink.gateway.answers import Answer, WrongMethod
from rootlink.gateway.auth import Operator
from rootlink.gateway.guard import Head, read_body
from rootlink.gateway.plane import Plane, stored
from rootlink.records import Project

T = TypeVar("T")


@dataclass(slots=True)
class Call:
    """One request to a route. `body` is an instance of the route's Struct, `operator` None on an open route."""

    plane: Plane
    scope: Scope
    receive: Receive
    params: dict[str, str]
    operator: Operator | None
    body: Any = None

    @property
    def request(self) -> Request:
        return Request(self.scope, self.receive)

    @property
    def actor(self) -> str:
        return self.operator.actor if self.operator else "session"  # all an open route can change is to begin one

    def query(self, name: str) -> str | None:
        return self.request.query_params.get(name)

    async def project(self) -> Project:
        return await stored(self.plane.store.projects.get, self.params["p"])

    async def note(self, project: str | None, action: str, target: str, detail: str = "") -> None:
        """A line in the audit log."""
        await stored(self.plane.store.activity.add, project, self.actor, action, target, detail)


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` is a template with `{names}`. `answer` is the type of the envelope's `data`; a handler may also return a `Response`.
    `open` routes need no credential. `query` names the query parameters, each with what it means.
    `media`: what a `Response` is, if it is no JSON."""

    method: str
    path: str
    handler: Handler
    summary: str
    body: type | None = None
    answer: Any = Any
    status: int = 200
    open: bool = False
    streams: bool = False
    media: str | None = None
    query: dict[str, str] = field(default_factory=dict)


class Endpoint:
    """ASGI for every route with one path."""

    def __init__(self, plane: Plane, routes: Iterable[Route]) -> None:
        self._plane = plane
        self._routes = {route.method: route for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if route is None:
            raise WrongMethod(scope["method"], sorted(self._routes))
        head: Head = scope["rootlink.head"]
        scope["rootlink.route"] = route.path
        operator = None if route.open else self._plane.operators.operator(scope, head)
        call = Call(self._plane, scope, receive, scope["path_params"], operator)
        if route.body is not None:
            call.body = await self._body(call, head, route.body)
        answer = await route.handler(call)
        response = answer if isinstance(answer, Response) else Answer(answer, route.status)
        await response(scope, receive, send)

    async def _body(self, call: Call, head: Head, kind: type[T]) -> T:
        """A stranger's is so small and so short-lived that it needs no share of what those with a credential may send."""
        settings = self._plane.settings
        if call.operator is None:
            return decoded(await read_body(call.receive, head, settings.sign_in_body, settings.sign_in_secs), kind)
        with self._plane.budget.share(call.operator.actor) as share:
            return decoded(await read_body(call.receive, head, settings.control_body, settings.body_secs, share), kind)


def paths(plane: Plane, routes: Iterable[Route]) -> list[Path]:
    by_path: dict[str, list[Route]] = {}
    for route in routes:
        by_path.setdefault(route.path, []).append(route)
    return [Path(path, Endpoint(plane, same)) for path, same in by_path.items()]


async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """What the router does with a path nobody has."""
    raise NotFound("Nothing is served at this path; see /openapi.json")


def decoded(body: bytes, kind: type[T]) -> T:
    """`body` as `kind`; `Invalid` says which field is wrong and what it must be, and nothing of what it was."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Invalid(shapes.words(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid("The body is not valid JSON") from None
