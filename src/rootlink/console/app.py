"""The Console in a browser: `/` and `/console/…`, from what `scripts/console` built out of `console/`.

Every path that is no file is the one page: its own router knows what it means. The page may load our own files and nothing else,
run no script that is not one of them, and be in no frame; the styles that its libraries add carry a nonce.
"""

from __future__ import annotations

import mimetypes
import secrets
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rootlink.errors import NotFound, Unavailable

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'nonce-{nonce}'",
        "img-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_FOREVER = "public, max-age=31536000, immutable"  # a file's name holds its hash


def build() -> ASGIApp:
    """ASGI for `/` and `/console/…`. Raises `NotFound` for a file there is not, `Unavailable` where nothing was built."""

    async def console(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise NotFound("There is no such page")
        await _answer(scope["path"].removeprefix("/console/").lstrip("/"))(scope, receive, send)

    return console


def _answer(name: str) -> Response:
    built = _built()
    if name in built and name != "index.html":
        body, media = built[name]
        lasts = _FOREVER if name.startswith("assets/") else "no-cache"
        return Response(body, 200, {**_HEADERS, "cache-control": lasts}, media)
    if name.startswith("assets/"):
        raise NotFound("There is no such file; load the page again")
    nonce = secrets.token_urlsafe(16)
    page = built["index.html"][0].replace(b"{{nonce}}", nonce.encode())
    headers = {**_HEADERS, "content-security-policy": _POLICY.format(nonce=nonce), "cache-control": "no-store"}
    return Response(page, 200, headers, "text/html")


@cache
def _built() -> dict[str, tuple[bytes, str]]:
    """Every file, at the first page: a build that replaces them later is not mixed with them."""
    found = dict(_files(files("rootlink.console").joinpath("dist"), ""))
    if "index.html" not in found:
        raise Unavailable("The Console was not built: run make install")
    return found


def _files(folder: Traversable, prefix: str) -> list[tuple[str, tuple[bytes, str]]]:
    if not folder.is_dir():
        return []
    found = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _files(each, f"{prefix}{each.name}/")
        else:
            media = mimetypes.guess_type(each.name)[0] or "application/octet-stream"
            found.append((prefix + each.name, (each.read_bytes(), media)))
    return found
