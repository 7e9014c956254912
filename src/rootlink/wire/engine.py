"""Provisioner → engine: what an engine is started with, and what is asked of it while it runs.

The engine reads one `EngineConfig` as JSON from standard input until EOF (so no secret is in its argv or environment), then
serves HTTP on the unix socket `socket`. Every request carries `x-rootlink-key: <key>`; without it the answer is 401.

    GET    /internal/status                     → EngineStatus
    POST   /internal/stop-if-idle {idle_secs}   → {stopping: bool}; when true, it refuses new work (503, header
                                                  `x-rootlink-engine: stopping`) from that moment on, and ends
    POST   /internal/stop                       → {stopping: true}
    PUT    /internal/environment Environment → {restarted: [name]}; only mounts that use a changed value restart;
                                                  in force at once, answered after 3 s even if some are not back yet
    GET    /internal/connections                → [Actual]
    PUT    /internal/connections/{id} Desired   → NDJSON stream of `InstallEvent`, one a line
    DELETE /internal/connections/{id}           → {removed: bool}
    GET    /internal/connections/{id}/tools     → [ToolView]
    POST   /internal/connections/{id}/check     → Verdict; its checks (`Checking`) made again, whatever comes out
    POST   /internal/connections/{id}/sign-in   → {link}: a page to open; what comes back from there ends it
    POST   /internal/sign-ins SignedIn          → {connection: name}; the mount restarts with the new grant
    POST   /internal/grants {taken: [id]}       → [Grant]; each is handed over until it is named in `taken`
    POST   /internal/trials Desired             → NDJSON stream of `InstallEvent`, `tried` last: started beside what runs, asked
                                                  for its tools, ended; nothing of it is kept but the installed package
    POST   /internal/decisions                  → [Decision]; each is handed over once

With `sandbox` "kernel" the engine is behind a door of its own, and file descriptor 3 is its keeper's socket (`door/keeper.py`):
frames of `door/frames.py` that start, signal and end what is behind other doors of the project. In the other tier there is none.

`POST /hooks/{ws}/{name} HookCall` → HookAnswer is the gateway's: one call of a webhook URL. 404 when the token is not the
function's; 503 with `x-rootlink-engine: stopping` as above. A stranger may cause it, so it is no use of the engine until the
token is known.

Answers are the envelope of CONTRACT §3. The gateway forwards `/mcp*` and `/engine/*` to the same socket unchanged, adding
`x-rootlink-key`, `x-rootlink-principal` (id of the project key) and `x-rootlink-scopes` (comma-separated), after removing any
header of the client's that begins with `x-rootlink-`, and its `Authorization` and `Cookie`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rootlink.wire.checks import Check
from rootlink.wire.mounts import Actual, MountSpec, Step
from rootlink.wire.tools import ToolRules, ToolView

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
    `rules`: by connection id. `seal`: the vault's public key in hex, to seal grants with; "": no server can be signed in to.
    `keep`: what updates can be gone back to, whose packages stay in the store. `store_shared`: with other projects' engines.
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
    rules: dict[str, ToolRules] = {}
    seal: str = ""
    package_ports: list[int] = []
    environ: dict[str, str] = {}
    keep: list[MountSpec] = []
    store_shared: bool = False


class Environment(msgspec.Struct, frozen=True):
    """`rules`: by connection id, all of them; one that is not named keeps what it has."""

    secrets: dict[str, str]
    policy: EgressPolicy
    rules: dict[str, ToolRules] = {}


class Checking(msgspec.Struct, frozen=True):
    checks: list[Check]


class SignedIn(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the browser brought back to `/oauth/callback`: the query's members, as they are."""

    state: str
    code: str | None = None
    iss: str | None = None
    error: str | None = None
    error_description: str | None = None


class Grant(msgspec.Struct, frozen=True):
    """A sign-in's tokens, sealed for the provisioner: `Envelope` of name `secret` and version 0, which no row of the vault has.
    `ciphertext` in base64."""

    id: str
    connection: str
    secret: str
    ciphertext: bytes
    key_id: str


class Runs(msgspec.Struct, frozen=True):
    """What a server is: its name and version of itself, its tools as MCP lists them, each one's fingerprint by name. `package`:
    `name@version` that was installed for it, None: none was."""

    server: dict[str, Any] = {}
    tools: list[dict[str, Any]] = []
    pins: dict[str, str] = {}
    package: str | None = None


class Trial(msgspec.Struct, frozen=True):
    """What a server would be; what the connection's own is now. `mount`: what to keep so that exactly this runs: a package that
    had no lock was resolved anew, and has one now. `views`: its tools as its rules would have them."""

    would: Runs
    now: Runs
    mount: MountSpec
    views: list[ToolView] = []


class Wake(msgspec.Struct, frozen=True):
    """Why a stopped engine has to be started. `due`: Unix seconds of the next schedule. `hooks`: BLAKE3, in hex, of the token of
    each webhook that is live."""

    due: float | None = None
    hooks: list[str] = []


class EngineStatus(msgspec.Struct, frozen=True):
    pid: int
    idle_secs: float  # since the last call or stream ended; 0 while one is open
    calls: int
    streams: int
    memory_bytes: int  # of the whole process tree, PSS where the kernel tells it
    mounts: int
    functions: int
    sandbox: Sandbox = "advisory"
    wake: Wake = Wake()


class InstallEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one member is set; `done` (`tried`) or `failed` comes last. `failed` is {code, message}."""

    step: Step | None = None
    done: Actual | None = None
    failed: dict[str, str] | None = None
    tried: Trial | None = None


class Decision(msgspec.Struct, frozen=True):
    """`time`: Unix seconds of the latest. `count`: since the last hand-over. `connection`: a mount's or function's name."""

    time: float
    connection: str
    host: str
    port: int
    verdict: Literal["allowed", "denied"]
    reason: str
    count: int = 1


class HookCall(msgspec.Struct, frozen=True):
    """`input` is what the function gets; None: it is only asked whether the token is known. `delivery`: the sender's id of it;
    what comes again under the same one is run once."""

    token: str
    input: dict[str, Any] | None = None
    delivery: str | None = None


class HookAnswer(msgspec.Struct, frozen=True):
    """What the function answers its caller; which of it may go out is the gateway's to say. `failed`: the id of a run that came
    to nothing, "" when there is none."""

    status: int = 200
    headers: dict[str, str] = {}
    body: bytes = b""
    failed: str | None = None
