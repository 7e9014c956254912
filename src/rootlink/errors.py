"""Every error Rootlink raises on purpose, its code, and what each outside protocol calls it.

    RootlinkError
    ├── Invalid          invalid          HTTP 400   JSON-RPC -32602
    ├── Unauthorized     unauthorized     HTTP 401   JSON-RPC -32001
    ├── Forbidden        forbidden        HTTP 403   JSON-RPC -32003
    │   └── EgressBlocked                         (a host, port or address the policy refuses)
    ├── NotFound         not_found        HTTP 404   JSON-RPC -32602
    ├── Conflict         conflict         HTTP 409   JSON-RPC -32602
    ├── TooLarge         too_large        HTTP 413   JSON-RPC -32600
    ├── RateLimited      rate_limited     HTTP 429   JSON-RPC -32005
    ├── UpstreamFailed   upstream_failed  HTTP 502   JSON-RPC -32603
    ├── Unavailable      unavailable      HTTP 503   JSON-RPC -32603
    └── Internal         internal         HTTP 500   JSON-RPC -32603

The message of every error but `Internal` is shown to the caller, so it must name what was refused, by which rule, and
what to do, and must never hold a secret. `Internal` shows "Internal error" and a request id; its cause goes to the log.
"""

from __future__ import annotations

from typing import Any, ClassVar


class RootlinkError(Exception):
    """The root of the tree. `message` is for a person; `data` is extra for machines and holds no secret."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    rpc_code: ClassVar[int] = -32603

    def __init__(self, message: str, *, data: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class Invalid(RootlinkError):
    code, status, rpc_code = "invalid", 400, -32602


class Unauthorized(RootlinkError):
    code, status, rpc_code = "unauthorized", 401, -32001


class Forbidden(RootlinkError):
    code, status, rpc_code = "forbidden", 403, -32003


class EgressBlocked(Forbidden):
    """The message is word for word CONTRACT §4 when a host is not in the allowlist."""


class NotFound(RootlinkError):
    code, status, rpc_code = "not_found", 404, -32602


class Conflict(RootlinkError):
    code, status, rpc_code = "conflict", 409, -32602


class TooLarge(RootlinkError):
    code, status, rpc_code = "too_large", 413, -32600


class RateLimited(RootlinkError):
    """`retry_after` is in whole seconds, at least 1."""

    code, status, rpc_code = "rate_limited", 429, -32005

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UpstreamFailed(RootlinkError):
    code, status, rpc_code = "upstream_failed", 502, -32603


class Unavailable(RootlinkError):
    code, status, rpc_code = "unavailable", 503, -32603


class Internal(RootlinkError):
    code, status, rpc_code = "internal", 500, -32603


BY_CODE: dict[str, type[RootlinkError]] = {
    e.code: e
    for e in (Invalid, Unauthorized, Forbidden, NotFound, Conflict, TooLarge, RateLimited, UpstreamFailed, Unavailable, Internal)
}


def from_code(code: str, message: str) -> RootlinkError:
    """The error another program of ours answered with, as an exception again (an unknown code becomes `Internal`)."""
    return BY_CODE.get(code, Internal)(message)


def envelope(error: RootlinkError) -> dict[str, Any]:
    """The body of a failed HTTP answer (CONTRACT §3)."""
    return {"ok": False, "data": None, "error": {"code": error.code, "message": error.message}}


def rpc_error(error: RootlinkError) -> dict[str, Any]:
    """The `error` member of a failed JSON-RPC answer; `data.code` is the same code HTTP callers get."""
    return {"code": error.rpc_code, "message": error.message, "data": {"code": error.code, **(error.data or {})}}
