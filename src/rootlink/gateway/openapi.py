"""`/openapi.json`, made from the routes themselves, and from `engine_api.py` for what is passed on to engines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

import rootlink
from rootlink.errors import BY_CODE
from rootlink.gateway import engine_api
from rootlink.gateway.engine_api import Operation
from rootlink.gateway.routes import Route

_REF = "#/components/schemas/{name}"
_LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
_PARAM = re.compile(r"\{(\w+)\}")
_NOTHING: Final = object()  # no body; None is a type
_OPERATOR: Final[list[dict[str, list[str]]]] = [{"admin": []}, {"session": []}]
_SCHEMES = {
    "admin": {"type": "http", "scheme": "bearer", "description": "The admin token, for /v1"},
    "session": {"type": "apiKey", "in": "cookie", "name": "rootlink_session", "description": "A sign-in's cookie, for /v1"},
    "key": {"type": "http", "scheme": "bearer", "description": "A project key (rl_sk_…), for /engine and /mcp"},
}


def document(routes: Iterable[Route], public_url: str) -> bytes:
    """OpenAPI 3.1 as JSON: `routes`, and what engines serve."""
    listed = [
        *(_Entry.of_route(route) for route in routes),
        *(_Entry.of_operation(one) for one in engine_api.OPERATIONS),
        *(_Entry.for_operators(one) for one in engine_api.REST),
    ]
    types = [kind for entry in listed for kind in (entry.body, entry.answer) if kind is not _NOTHING]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    described = iter(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for entry in listed:
        body = next(described) if entry.body is not _NOTHING else None
        paths.setdefault(entry.path, {})[entry.method.lower()] = _operation(entry, body, next(described))
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Rootlink", "version": rootlink.__version__, "license": _LICENSE},
            "servers": [{"url": public_url}],
            "paths": paths,
            "components": {
                "schemas": {**components, "Refusal": _refusal()},
                "securitySchemes": _SCHEMES,
            },
        }
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """A route of ours or an operation of an engine, as far as the document cares."""

    method: str
    path: str
    name: str
    summary: str
    body: Any
    answer: Any
    status: int
    security: list[dict[str, list[str]]]
    query: dict[str, str]
    enveloped: bool
    streams: bool
    media: str | None = None

    @staticmethod
    def of_route(route: Route) -> _Entry:
        name = f"{route.handler.__module__.rpartition('.')[2]}_{route.handler.__name__}"
        body = _NOTHING if route.body is None else route.body
        security: list[dict[str, list[str]]] = [] if route.open else _OPERATOR
        shown = route.method, route.path, name, route.summary, body, route.answer, route.status
        return _Entry(*shown, security, route.query, enveloped=True, streams=route.streams, media=route.media)

    @staticmethod
    def of_operation(one: Operation) -> _Entry:
        body = _NOTHING if one.body is None else one.body
        summary = f"{one.summary} (scope `{one.scope}`)"
        shown = one.method, one.path, f"engine_{one.name}", summary, body, one.answer, one.status
        return _Entry(*shown, [{"key": []}], one.query, enveloped=one.enveloped, streams=one.streams)

    @staticmethod
    def for_operators(one: Operation) -> _Entry:
        """The same for who is signed in: of a project that the path names."""
        path = "/v1/projects/{p}" + one.path.removeprefix("/engine/api/v1")
        same = _Entry.of_operation(one)
        return replace(same, path=path, name=f"project_{one.name}", summary=one.summary, security=_OPERATOR)


def _operation(entry: _Entry, body: dict[str, Any] | None, answer: dict[str, Any]) -> dict[str, Any]:
    refusal = {"description": "Refused", "content": _json({"$ref": _REF.format(name="Refusal")})}
    content = _json(_envelope(answer) if entry.enveloped else answer)
    if entry.media is not None:
        content = {entry.media: {"schema": {"type": "string"}}}
    if entry.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    operation: dict[str, Any] = {
        "operationId": entry.name,
        "summary": entry.summary,
        "parameters": [
            *(_parameter(name, "path", required=True) for name in _PARAM.findall(entry.path)),
            *(_parameter(name, "query", description=words) for name, words in entry.query.items()),
        ],
        "responses": {str(entry.status): {"description": "Done", "content": content}, "default": refusal},
        "security": entry.security,
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _json(body)}
    return operation


def _parameter(name: str, where: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": where, "schema": {"type": "string"}, **more}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _envelope(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["ok", "data", "error"],
        "properties": {"ok": {"const": True}, "data": data, "error": {"type": "null"}},
    }


def _refusal() -> dict[str, Any]:
    error = {
        "type": "object",
        "required": ["code", "message"],
        "properties": {"code": {"enum": sorted(BY_CODE)}, "message": {"type": "string"}},
    }
    return {
        "type": "object",
        "required": ["ok", "data", "error"],
        "properties": {"ok": {"const": False}, "data": {"type": "null"}, "error": error},
    }


if __name__ == "__main__":  # `scripts/console types`
    import sys

    from rootlink.gateway import health, v1

    sys.stdout.buffer.write(document([*v1.ROUTES, *health.ROUTES], "http://127.0.0.1:7300"))
