"""What a browser gets at `/` until the Console is built: one honest page, without scripts, that names the commands instead.

It says nothing that is not in the README of the instance's version, so it needs no sign-in.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rootlink.errors import NotFound

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


def build(public_url: str, version: str) -> ASGIApp:
    """ASGI for `/` and `/console/…`. `public_url` is how clients reach this instance. Raises `NotFound` for any other path."""
    folder = files("rootlink.console")
    page = folder.joinpath("page.html").read_text("utf-8")
    page = page.replace("{{mcp}}", escape(f"{public_url.rstrip('/')}/mcp")).replace("{{version}}", escape(version))
    served = {
        "/": Response(page, headers=HEADERS, media_type="text/html"),
        "/console/style.css": Response(folder.joinpath("style.css").read_bytes(), headers=HEADERS, media_type="text/css"),
    }

    async def console(scope: Scope, receive: Receive, send: Send) -> None:
        response = served.get(scope["path"])
        if response is None or scope["method"] not in ("GET", "HEAD"):
            raise NotFound("There is no such page")
        await response(scope, receive, send)

    return console
