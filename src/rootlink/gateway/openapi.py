"""`/openapi.json`, made from the routes themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

import rootlink
from rootlink.errors import BY_CODE
from rootlink.gateway.routes import Route

_REF = "#/components/schemas/{name}"
_LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
_PARAM = re.compile(r"\{(\w+)\}")


def document(routes: Iterable[Route], public_url: str) -> bytes:
    """OpenAPI 3.1 as JSON."""
    listed = list(routes)
    types = [kind for route in listed for kind in (route.body, route.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    described = iter(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for route in listed:
        body = next(described) if route.body is not None else None
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, body, next(described))
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Rootlink", "version": rootlink.__version__, "license": _LICENSE},
            "servers": [{"url": public_url}],
            "paths": paths,
            "components": {
                "schemas": {**components, "Refusal": _refusal()},
                "securitySchemes": {
                    "admin": {"type": "http", "scheme": "bearer", "description": "The admin token"},
                    "session": {"type": "apiKey", "in": "cookie", "name": "rootlink_session"},
                },
            },
        }
    )


def _operation(route: Route, body: dict[str, Any] | None, answer: dict[str, Any]) -> dict[str, Any]:
    refusal = {"description": "Refused", "content": _json({"$ref": _REF.format(name="Refusal")})}
    content = _json(_envelope(answer))
    if route.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    operation: dict[str, Any] = {
        "operationId": f"{route.handler.__module__.rpartition('.')[2]}_{route.handler.__name__}",
        "summary": route.summary,
        "parameters": [
            *(_parameter(name, "path", required=True) for name in _PARAM.findall(route.path)),
            *(_parameter(name, "query", description=words) for name, words in route.query.items()),
        ],
        "responses": {str(route.status): {"description": "Done", "content": content}, "default": refusal},
        "security": [] if route.open else [{"admin": []}, {"session": []}],
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
