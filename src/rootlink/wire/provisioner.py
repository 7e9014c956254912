"""Gateway → provisioner, over its unix socket. The peer's uid is checked by the kernel (SO_PEERCRED); there is no key.

    POST   /engines/{project}/ensure    → EngineAddress; starts the engine if need be, one spawn however many wait
    GET    /engines/{project}           → EngineView (of a stopped engine too)
    POST   /engines/{project}/stop      → EngineView
    POST   /engines/{project}/restart   → EngineView
    GET    /engines/{project}/logs      → {lines: [str]}
    DELETE /engines/{project}           → {}; stops the engine and removes what it kept on disk
    POST   /projects/{project}/refresh  → {restarted: [name]}; secrets or allowlist changed; nothing to do if no engine runs
    POST   /projects/{project}/decisions → {}; pulls what the running engine refused into the store
    POST   /connections/{id}/reconcile  → NDJSON stream of `InstallEvent`; after `failed` nothing of the connection is left
    POST   /connections/{id}/update     → the same, of a row that an update or a roll back changed; after `failed` it is as before
    POST   /connections/{id}/remove     → {}; undoes the connection in the engine, then in the store
    GET    /connections/{id}/tools      → [ToolView]; starts the engine if need be, as all that follows
    POST   /connections/{id}/check      → Verdict; also kept in the row
    POST   /connections/{id}/sign-in    → {link}
    POST   /connections/{id}/trial Desired → NDJSON stream of `InstallEvent`, `tried` or `failed` last
    POST   /projects/{project}/sign-ins SignedIn → {connection: name}
    GET    /gate                        → Counts, of all projects; `unavailable` when no gate answers
    GET    /healthz                     → {}

`{project}` is a project id. Answers are the envelope of CONTRACT §3.
"""

from __future__ import annotations

import msgspec

from rootlink.wire.engine import Sandbox
from rootlink.wire.gate import Counts


class EngineAddress(msgspec.Struct, frozen=True):
    """`key` is good for this spawn only. `generation` grows with every spawn."""

    socket: str
    key: str
    generation: int


class EngineView(msgspec.Struct, frozen=True):
    """`started_at` is RFC 3339 or null; `files` an absolute directory. `pid` is the engine's own, on the host. `sandbox` is the
    tier in force, `no_stdio` why stdio mounts are refused in it. `egress`: of a running engine, when the gate tells."""

    state: str  # stopped | starting | running | stopping | failed
    pid: int | None
    started_at: str | None
    sandbox: Sandbox
    files: str
    memory_bytes: int | None = None
    mounts: int | None = None
    functions: int | None = None
    calls: int | None = None
    streams: int | None = None
    idle_secs: float | None = None
    error: str | None = None
    no_stdio: str | None = None
    egress: Counts | None = None
