"""What an OAuth client is told about `/mcp`: the protected-resource metadata of RFC 9728, and the challenge of a 401.

    GET  /.well-known/oauth-protected-resource[/mcp[/{ws}][/sse]]    what is protected, and how: a bearer in the header
    401 on /mcp…                 `WWW-Authenticate: Bearer resource_metadata="…"` names the document of that very endpoint
    POST /register               where clients go that know no other way (below); says in OAuth's words what is needed instead

Rules
- No `authorization_servers`: the one credential taken here is a project key, which is made in the console or with the command
  line. Whoever named an authorization server would promise that its tokens are good here. RFC 9728 lets the member be absent.
  MCP wants it, so what the official clients do without it was looked up: they take it that the origin itself is a server of
  2025-03-26, find no metadata there (404), try to register at `/register`, and stop with what that says. None of them goes round
  in a loop, and one that has a key never comes this way.
- `resource` is made from the Host the guard admitted: the name this client knows us by, which it compares with the URL it uses.
  The scheme is that of `public_url`; no forwarding header is believed (anybody can send one).
- What a client sent beside the Host is never in an answer.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.responses import Response

from rootlink.errors import NotFound, Unauthorized
from rootlink.gateway.answers import KeyNeeded
from rootlink.gateway.guard import Head
from rootlink.gateway.routes import Call, Route
from rootlink.gateway.settings import GatewaySettings

WELL_KNOWN = "/.well-known/oauth-protected-resource"
SCOPES = ["use", "manage"]  # of project keys (`records`)

_ENDPOINT = re.compile(r"/mcp(?:/[A-Za-z0-9][A-Za-z0-9_-]{0,62})?(?:/sse)?")  # the name of a workspace: `names.py`


def origin(settings: GatewaySettings, head: Head) -> str:
    """How the client that sent `head` reaches this gateway: scheme, name and port."""
    scheme = "https" if settings.secure_cookies else urlsplit(settings.public_url).scheme
    return f"{scheme}://{head.host}"


def challenged(error: Unauthorized, settings: GatewaySettings, head: Head, path: str) -> KeyNeeded:
    """`error` of a request to `path`, with where the metadata of that endpoint is. RFC 6750: `error` only if there was a
    credential, so that a client knows that another of the same kind would not help."""
    endpoint = _ENDPOINT.fullmatch(path.removesuffix("/messages"))
    where = f'Bearer resource_metadata="{origin(settings, head)}{WELL_KNOWN}{endpoint[0] if endpoint else "/mcp"}"'
    return KeyNeeded(error.message, where if head.authorization is None else f'{where}, error="invalid_token"')


async def metadata(call: Call) -> Response:
    """RFC 9728 §3.2. `resource` is the path after the well-known one, as §3.3 wants it; of none, the origin."""
    path = call.scope["path"].removeprefix(WELL_KNOWN)
    if path and not _ENDPOINT.fullmatch(path):
        raise NotFound("There is no such endpoint; MCP is at /mcp and /mcp/WORKSPACE")
    settings, head = call.plane.settings, call.scope["rootlink.head"]
    return _json(
        {
            "resource": origin(settings, head) + path,
            "resource_name": "Rootlink",
            "bearer_methods_supported": ["header"],
            "scopes_supported": SCOPES,
        }
    )


async def register(call: Call) -> Response:
    """RFC 7591's form of an error, since clients show its words to their user."""
    words = "Rootlink registers no OAuth clients. It takes a project key: send the header Authorization: Bearer rl_sk_…"
    return _json({"error": "access_denied", "error_description": words}, 403)


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, {"cache-control": "no-store"}, "application/json")


ROUTES = [
    *(
        Route("GET", WELL_KNOWN + path, metadata, "OAuth protected-resource metadata (RFC 9728)", open=True)
        for path in ("", "/mcp", "/mcp/{ws}", "/mcp/{ws}/sse")
    ),
    Route("POST", "/register", register, "Says that no OAuth client is registered here", open=True),
]
