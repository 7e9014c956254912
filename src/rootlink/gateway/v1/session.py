"""`/v1/session`: signing in and out of the Console, and the one-time link that does it from a terminal."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from rootlink.errors import Forbidden
from rootlink.gateway.answers import Answer
from rootlink.gateway.routes import Call, Route


class SignIn(msgspec.Struct):
    """`token`: the admin token, or a one-time token."""

    token: str

    def __repr__(self) -> str:
        return "SignIn(…)"


class SessionView(msgspec.Struct):
    """`expires_in` in seconds; null for the admin token, which does not end."""

    actor: str
    expires_in: int | None


class Link(msgspec.Struct):
    """`token` opens one session within `expires_in` seconds; so does opening `url` in a browser."""

    token: str
    url: str
    expires_in: int


async def sign_in(call: Call) -> Response:
    cookie = call.plane.operators.sign_in(call.scope, call.body.token)
    await call.note(None, "session.begin", "console")
    return Answer(SessionView("session", int(call.plane.settings.session_secs)), 201, {"set-cookie": cookie})


async def view(call: Call) -> SessionView:
    return SessionView(call.actor, call.operator.expires_in if call.operator else None)


async def sign_out(call: Call) -> Response:
    assert call.operator is not None
    cookie = call.plane.operators.sign_out(call.operator)
    await call.note(None, "session.end", "console")
    return Answer(None, 200, {"set-cookie": cookie})


async def link(call: Call) -> Link:
    if call.actor != "admin":
        raise Forbidden("Only the admin token makes sign-in links")
    token, expires_in = call.plane.operators.link()
    return Link(token, f"{call.plane.settings.public_url}/signin?token={token}", expires_in)


ROUTES = [
    Route("POST", "/v1/session", sign_in, "Sign in", body=SignIn, answer=SessionView, status=201, open=True),
    Route("GET", "/v1/session", view, "Who is signed in", answer=SessionView),
    Route("DELETE", "/v1/session", sign_out, "Sign out"),
    Route("POST", "/v1/session/link", link, "Make a one-time sign-in link", answer=Link, status=201),
]
