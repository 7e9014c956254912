"""`GET /oauth/callback`: where a browser comes back to from a sign-in, and is told in words how it ended.

Whoever comes here has no credential of ours and needs none: what counts is `state`, `<project id>.<random>`, which an engine made
for one sign-in and which nobody guesses. So no cookie is read, and nothing is limited by address.

Rule 1. Only what is well-formed reaches the provisioner: a state of our form, no member twice, a code or an error, a small query.
Rule 2. The page is words: no script, nothing fetched, no frame, not kept, and no referrer, since the code stands in the address.
        Of the query nothing is shown; what the engine says may quote the service's error, and is escaped.
Rule 3. HEAD ends no sign-in: previews of links ask so, and a code is good once.
Rule 4. That a sign-in or its project is not known is one answer: nothing here tells which projects there are.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re

from starlette.responses import Response

from rootlink.errors import Invalid, NotFound, RootlinkError
from rootlink.gateway.connect import CALLBACK
from rootlink.gateway.plane import stored
from rootlink.gateway.routes import Call, Route
from rootlink.wire.engine import SignedIn

MOST_QUERY = 8 * 1024  # bytes
WITHIN = 60.0  # seconds for the exchange of the code, besides an engine's start

_STATE = re.compile(r"(prj_[0-9a-f]{12})\.[A-Za-z0-9_-]{22,200}")
_MEMBERS = ("state", "code", "iss", "error", "error_description")
_STYLE = "body{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:4em auto;padding:0 1em}"
_STYLED = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLED}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}
_AGAIN = "Begin again where you started it, in the console or with: rootlink sign-in NAME."


async def callback(call: Call) -> Response:
    if call.scope["method"] == "HEAD":
        return _page("Rootlink", "A sign-in ends here.", 200)
    try:
        project, back = _back(call)
        within = call.plane.settings.ensure_secs + WITHIN
        connection = await call.plane.provisioner.signed_in(project, back, within)
        await stored(call.plane.store.activity.add, project, "browser", "connection.signed_in", connection)
    except NotFound:
        return _page("Not signed in", f"This sign-in is not known here, or is over. {_AGAIN}", NotFound.status)
    except RootlinkError as error:
        return _page("Not signed in", f"{error.message}. {_AGAIN}".replace("..", "."), error.status)
    return _page("Signed in", f"{connection} is signed in. You can close this page.", 200)


def _back(call: Call) -> tuple[str, SignedIn]:
    """Rule 1. The project, and what came back."""
    if len(call.scope["query_string"]) > MOST_QUERY:
        raise Invalid("What came back from the sign-in is too long")
    given = [(name, value) for name, value in call.request.query_params.multi_items() if name in _MEMBERS]
    members = dict(given)
    if len(members) != len(given):
        raise Invalid("What came back from the sign-in names something twice")
    state = _STATE.fullmatch(members.get("state", ""))
    if state is None:
        raise NotFound("no sign-in of ours")
    if ("code" in members) == ("error" in members):
        raise Invalid("What came back from the sign-in is neither a code nor an error")
    return state[1], SignedIn(**members)


def _page(title: str, words: str, status: int) -> Response:
    body = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
        f"</head><body><h1>{html.escape(title)}</h1><p>{html.escape(words)}</p></body></html>\n"
    )
    return Response(body, status, _HEADERS, "text/html")


ROUTES = [Route("GET", CALLBACK, callback, "Where a browser comes back to from a sign-in", open=True)]
