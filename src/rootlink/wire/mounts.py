"""The shape of what an engine holds: an MCP server to mount, a function to deploy, and a connection's wish for either.

`MountSpec` is the body of POST …/mcp-servers (CONTRACT §3) plus `lock`, which only the catalogue sets.
Values of `env`, `headers`, `args`, `endpoint` and `auth.token` may refer to secrets as `${NAME}`; `${{files}}` and `${{state}}`
are the project's files folder and this mount's own state folder (absolute paths, known to the engine only).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rootlink.wire.checks import Check
from rootlink.wire.tools import ToolRules

Transport = Literal["stdio", "http", "sse"]


class Auth(msgspec.Struct, frozen=True):
    """`bearer`: `Authorization: Bearer TOKEN`. `api_key`: `X-API-Key: TOKEN`."""

    kind: Literal["bearer", "api_key"]
    token: str


class Paths(msgspec.Struct, frozen=True):
    """Host directories a mount may see. Absolute, under what the operator allowed."""

    read: list[str] = []
    write: list[str] = []


class Identity(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who a person is to their company: an ID token (OpenID Connect), and where the identity provider exchanges it (RFC 8693)
    for one that another authorization server believes (ID-JAG). `client_id`: ours at that provider."""

    token_endpoint: str
    client_id: str
    id_token: str
    client_secret: str | None = None


class OAuth(msgspec.Struct, frozen=True, omit_defaults=True):
    """A server that a person signs in to. `secret`: the vault's name for the grant (`engine/oauth/`), which may not be there yet.
    `client_id`, and `client_secret` or `private_key` (PEM): of a client registered beforehand; None: one registers itself.
    `scopes`: asked for besides what the server asks for. `redirect`: where the browser comes back to: this Rootlink's
    `/oauth/callback`; "": nobody signs in, the client has a token by itself: by its own secret or key, or for an `assertion` that
    somebody else signed (a workload's JWT, RFC 7523), or for an `identity`."""

    secret: str
    redirect: str
    client_id: str | None = None
    client_secret: str | None = None
    scopes: list[str] = []
    private_key: str | None = None
    assertion: str | None = None
    identity: Identity | None = None


class MountSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """`lock`, `files`, `oauth` and `start_secs` are for connections alone: whoever pastes a server can't set them. `files`:
    written into the mount's own folder before each start (0600), by plain name; they hold no secret, but may name a variable of
    its environment. `start_secs`: deadline of a start, without the install; `timeout_secs`: of each call, and of a start if
    there is no other."""

    name: str
    transport: Transport
    command: str | None = None
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: str | None = None
    endpoint: str | None = None
    headers: dict[str, str] = {}
    timeout_secs: float | None = None
    auth: Auth | None = None
    egress: list[str] | None = None  # which allowed hosts this mount may reach; None: all the project's, []: none
    paths: Paths = Paths()
    lock: str | None = None  # package-lock.json of the catalogue's entry; None: resolved at first install
    concurrency: int | None = None  # calls in flight at once; None: no limit. 1: for a server that loses data otherwise
    files: dict[str, str] = {}
    start_secs: float | None = None
    oauth: OAuth | None = None
    session: Literal["shared", "client"] | None = None  # a session-era server: one for all, or one a client; None: by transport


class FunctionSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """`language` None: JavaScript, or TypeScript if only that compiles. `isolation`: `reuse` (None) keeps one locked-down isolate
    for all runs, `fresh` gives each run one that nothing ran in. `concurrency`: runs at once, more wait; None: no limit of its
    own. `tools`: names, or patterns with `*`, of the workspace's tools that `ctx.tools.call` may call; None: all of them, but
    none for a connection's function."""

    name: str
    code: str
    description: str = ""
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    annotations: dict[str, Any] | None = None
    title: str | None = None
    timeout_ms: int | None = None
    memory_mb: int | None = None
    env: dict[str, str] | None = None  # name in ctx.env → value with ${NAME}; None: every secret of the project
    egress: list[str] | None = None  # as MountSpec.egress
    language: Literal["javascript", "typescript"] | None = None
    isolation: Literal["reuse", "fresh"] | None = None
    concurrency: int | None = None
    tools: list[str] | None = None


class Desired(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one connection wants of its engine: exactly one of `mount` and `function`.

    `checks` are made at the connect, not when a connection is only put back. `rules` as they are at that moment; later ones come
    with the environment (`wire/engine.py`). `inputs`: what a person filled in that is no secret, by field, for the day the
    catalogue has another version of the entry; nobody but an update reads them."""

    id: str
    ws: str
    name: str
    mount: MountSpec | None = None
    function: FunctionSpec | None = None
    checks: list[Check] = []
    rules: ToolRules = ToolRules()
    inputs: dict[str, Any] = {}


class Step(msgspec.Struct, frozen=True):
    """One step of a connect (CONTRACT §3). `detail` is words for a person, never a secret. `link`: a page that the person must
    open to go on (a sign-in)."""

    step: Literal["seal", "egress", "install", "deploy"]
    state: Literal["running", "done", "failed"]
    detail: str = ""
    link: str | msgspec.UnsetType = msgspec.UNSET


class Actual(msgspec.Struct, frozen=True):
    """What an engine holds for one connection. `digest` is of the `Desired` it was made from (`digest()` below). `label` and
    `notes` are what its checks found. `pins`: fingerprint of every tool that was agreed to; `held`: public names of tools that
    are held back."""

    id: str
    ws: str
    name: str
    kind: Literal["mount", "function"]
    digest: str
    state: str
    tools: list[str] = []
    error: str | None = None
    label: str | None = None
    notes: list[str] = []
    pins: dict[str, str] = {}
    held: list[str] = []


class _Runs(msgspec.Struct, frozen=True):
    """What of a `Desired` is to run. It has no more members than this, with their nulls: digests outlive an upgrade, or every
    connection would be made anew at the first start after one."""

    id: str
    ws: str
    name: str
    mount: MountSpec | None
    function: FunctionSpec | None


def digest(desired: Desired) -> str:
    """Equal digests: nothing to do. 32 hex digits over the canonical JSON of what is to run: checks, rules and inputs are not."""
    import blake3

    runs = _Runs(desired.id, desired.ws, desired.name, desired.mount, desired.function)
    return blake3.blake3(msgspec.json.encode(runs, order="sorted")).hexdigest(16)
