"""Provisioner → engine: what an engine is started with, and what is asked of it while it runs.

The engine reads one `EngineConfig` as JSON from standard input until EOF (so no secret is in its argv or environment), then
serves HTTP on the unix socket `socket`. Every request carries `x-rootlink-key: <key>`; without it the answer is 401.

    GET    /internal/status                     → EngineStatus
    POST   /internal/stop-if-idle {idle_secs}   → {stopping: bool}; when true, it refuses new work (503, header
                                                  `x-rootlink-engine: stopping`) from that moment on, and ends
    POST   /internal/stop                       → {stopping: true}
    PUT    /internal/environment {secrets, policy} → {restarted: [name]}; only mounts that use a changed value restart;
                                                  in force at once, answered after 3 s even if some are not back yet
    GET    /internal/connections                → [Actual]
    PUT    /internal/connections/{id} Desired   → NDJSON stream of `InstallEvent`, one a line
    DELETE /internal/connections/{id}           → {removed: bool}
    POST   /internal/decisions                  → [Decision]; each is handed over once

With `sandbox` "kernel" the engine is behind a door of its own, and file descriptor 3 is its keeper's socket (`door/keeper.py`):
frames of `door/frames.py` that start, signal and end what is behind other doors of the project. In the other tier there is none.

Answers are the envelope of CONTRACT §3. The gateway forwards `/mcp*` and `/engine/*` to the same socket unchanged, adding
`x-rootlink-key`, `x-rootlink-principal` (id of the project key) and `x-rootlink-scopes` (comma-separated), after removing any
header of the client's that begins with `x-rootlink-`, and its `Authorization` and `Cookie`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rootlink.wire.mounts import Actual, Step

KEY_HEADER = "x-rootlink-key"
PRINCIPAL_HEADER = "x-rootlink-principal"
SCOPES_HEADER = "x-rootlink-scopes"
ENGINE_HEADER = "x-rootlink-engine"
STREAM_HEADER = "x-rootlink-stream"  # asked with `again`: the client had this stream from before; answered `call`: a call's rest

Sandbox = Literal["kernel", "advisory"]


class EgressPolicy(msgspec.Struct, frozen=True):
    """`allow`: domains, each optionally `:port`. `private`: CIDRs the operator opened. `resolve`: `NAME:PORT=ADDRESS:PORT`."""

    allow: list[str] = []
    private: list[str] = []
    resolve: list[str] = []
    extra_ca: str | None = None


class EngineConfig(msgspec.Struct, frozen=True):
    """Directories are absolute. `catalog` is what `connector_catalog` answers: the engine knows no catalogue of its own.

    `sandbox` is what is in force. `doors`: path of the gate's socket for engines, "": there is no gate. `no_stdio`: why stdio
    mounts are refused, in words; "": they are not. `package_ports`: of package registries and proxies, besides 443 and 80.
    `environ`: for package installers, besides the engine's own environment; it may hold credentials.
    """

    project: str
    key: str
    socket: str
    state_dir: str
    files_dir: str
    store_dir: str
    secrets: dict[str, str] = {}
    policy: EgressPolicy = EgressPolicy()
    allow_paths: list[str] = []
    sandbox: Sandbox = "advisory"
    catalog: list[dict[str, Any]] = []
    doors: str = ""
    no_stdio: str = ""
    package_ports: list[int] = []
    environ: dict[str, str] = {}


class Environment(msgspec.Struct, frozen=True):
    secrets: dict[str, str]
    policy: EgressPolicy


class EngineStatus(msgspec.Struct, frozen=True):
    pid: int
    idle_secs: float  # since the last call or stream ended; 0 while one is open
    calls: int
    streams: int
    memory_bytes: int  # of the whole process tree, PSS where the kernel tells it
    mounts: int
    functions: int
    sandbox: Sandbox = "advisory"


class InstallEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one member is set; `done` or `failed` comes last. `failed` is {code, message}."""

    step: Step | None = None
    done: Actual | None = None
    failed: dict[str, str] | None = None


class Decision(msgspec.Struct, frozen=True):
    """`time`: Unix seconds of the latest. `count`: since the last hand-over. `connection`: a mount's or function's name."""

    time: float
    connection: str
    host: str
    port: int
    verdict: Literal["allowed", "denied"]
    reason: str
    count: int = 1
