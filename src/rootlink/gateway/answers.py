"""Every answer of the gateway's own is the envelope of CONTRACT §3; this is the one place that writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from rootlink.errors import Internal, Invalid, RateLimited, RootlinkError, Unauthorized, Unavailable, envelope

RETRY_SECS = 1  # what a 503 tells the caller to wait


class WrongMethod(Invalid):
    """405. `allowed` are the methods this path has."""

    status = 405

    def __init__(self, method: str, allowed: list[str]) -> None:
        super().__init__(f"{method[:20]} is not served here; allowed: {', '.join(allowed)}")
        self.allowed = allowed


class KeyNeeded(Unauthorized):
    """401 of `/mcp`. `challenge` is the value of `WWW-Authenticate` (`protected.py`)."""

    def __init__(self, message: str, challenge: str) -> None:
        super().__init__(message)
        self.challenge = challenge


class Gone(Exception):
    """The client went away before its request was whole; there is nobody to answer."""


class Answer(Response):
    """`{"ok": true, "data": …, "error": null}`."""

    media_type = "application/json"

    def __init__(self, data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        body = msgspec.json.encode({"ok": True, "data": data, "error": None})
        super().__init__(body, status, {"cache-control": "no-store", **(headers or {})})


class Refusal(Response):
    """The envelope of an error; an `Internal` shows the request id and nothing else."""

    media_type = "application/json"

    def __init__(self, error: RootlinkError, request_id: str) -> None:
        shown = Internal(f"Internal error (request id {request_id})") if isinstance(error, Internal) else error
        super().__init__(msgspec.json.encode(envelope(shown)), error.status, _headers(error))


def _headers(error: RootlinkError) -> dict[str, str]:
    headers = {"cache-control": "no-store"}
    if isinstance(error, WrongMethod):
        headers["allow"] = ", ".join(error.allowed)
    elif isinstance(error, Unauthorized):
        headers["www-authenticate"] = error.challenge if isinstance(error, KeyNeeded) else "Bearer"
    elif isinstance(error, RateLimited):
        headers["retry-after"] = str(error.retry_after)
    elif isinstance(error, Unavailable):
        headers["retry-after"] = str(RETRY_SECS)
    return headers
