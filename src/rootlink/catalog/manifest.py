"""A connector as data: the MCP registry's `server.json` (schema 2025-12-11) and one `_meta` object for what that lacks.

The registry's part is read leniently (it has members we do not use); our own part refuses members it does not know, so a
misspelt one fails at load. No member is an expression: what needs an `if` is a function. Rules between members are in `rules.py`.

    connector.json          this
    icon.svg                our own drawing
    package-lock.json       mcp, with a package: what exactly is installed (scripts/lock_entry.py writes it)
    <function.entry>        function: the body, a bare callable (CONTRACT §4)
    variants/<variant>/     another way to the same service: a connector.json of the same slug, and its lock

An mcp connector has one package, which is installed and started here, or one remote, which runs elsewhere and is spoken to over
HTTP.

Values may hold `{variable}`, declared in `variables`. Two are the engine's to fill in: `{files}`, the project's files folder, and
`{state}`, the connection's own folder; any other becomes a field. A named argument of format `boolean` is a flag: it is there if
the value is true, without the value.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rootlink.wire.checks import Outcome, Severity

SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
META = "dev.rootlink/v1"
ENGINE_VARIABLES = {"files": "${{files}}", "state": "${{state}}"}  # as wire/mounts.py spells them

Kind = Literal["mcp", "function"]
Access = Literal["read", "write", "destructive"]


class _Registry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Of the registry's format."""


class _Own(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Of our `_meta` object."""


class Input(_Registry, frozen=True, kw_only=True):
    description: str = ""
    is_required: bool = False
    is_secret: bool = False
    format: Literal["string", "number", "boolean", "filepath"] = "string"
    default: str | None = None
    placeholder: str | None = None
    choices: list[str] | None = None
    value: str | None = None  # fixed, but for its {variables}; None: the user's to give
    variables: dict[str, Input] = {}


class Named(Input, frozen=True, kw_only=True):
    name: str


class Argument(Input, frozen=True, kw_only=True):
    type: Literal["positional", "named"]
    name: str | None = None  # named: with its dashes
    value_hint: str | None = None
    is_repeated: bool = False

    @property
    def label(self) -> str:
        """What a field for it is called."""
        return self.value_hint or (self.name or "").lstrip("-")


class Transport(_Registry, frozen=True, kw_only=True):
    type: str


class Remote(_Registry, frozen=True, kw_only=True):
    """`variables`: those of `url`."""

    type: Literal["streamable-http", "sse"]
    url: str
    headers: list[Named] = []
    variables: dict[str, Input] = {}


class Package(_Registry, frozen=True, kw_only=True):
    registry_type: Literal["npm", "pypi"]
    identifier: str
    version: str
    transport: Transport
    runtime_hint: str | None = None
    runtime_arguments: list[Argument] = []
    package_arguments: list[Argument] = []
    environment_variables: list[Named] = []


class Icon(_Registry, frozen=True, kw_only=True):
    src: str


class Repository(_Registry, frozen=True, kw_only=True):
    url: str
    source: str


class Hint(_Own, frozen=True, kw_only=True):
    """How the form shows a field, and what its value must look like. `pattern` must be read alike by Python and JavaScript."""

    label: str
    pattern: str | None = None
    help: str = ""
    help_url: str | None = None
    steps: list[str] = []
    paths: Literal["read", "write"] | None = None  # directories of the host the mount shall see


class Egress(_Own, frozen=True, kw_only=True):
    """Exactly one is set. `from_url`: fields whose value is a URL, to whose host it goes. `from_hosts`: fields whose values are
    hosts, each with a port or without."""

    hosts: list[str] = []
    from_url: list[str] = []
    from_hosts: list[str] = []
    none: bool = False


class Install(_Own, frozen=True, kw_only=True):
    """`extra`: packages besides, by name, with their exact versions. `optional`: of the optional packages, those that stay in the
    lock; None: all. Both are read when the lock is made (scripts/lock_entry.py), so an install needs no option."""

    lock: str = "package-lock.json"
    extra: dict[str, str] = {}
    optional: list[str] | None = None


class Runtime(_Own, frozen=True, kw_only=True):
    """`start_timeout_s`: for a start, without the install; `timeout_s`: for each call, and for a start if that has none of its
    own; None: the engine's defaults. `concurrency`: calls at once; None: no limit. `session`: `client` for a server that asks its
    client something or keeps something for each; None: by transport. `program`: which of the package's; None: the one of its own
    name."""

    program: str | None = None
    start_timeout_s: float | None = None
    timeout_s: float | None = None
    concurrency: int | None = None
    session: Literal["shared", "client"] | None = None


class HttpCheck(_Own, frozen=True, kw_only=True, tag_field="type", tag="http"):
    """In `url`, `headers` and `body`, `{FIELD}` is the field's value. A check that needs a field without one is not made."""

    id: str
    title: str  # what it finds out, for a person: "Asks GitHub whose token this is"
    method: Literal["GET", "POST"] = "GET"
    url: str
    headers: dict[str, str] = {}
    body: str | None = None
    ok: list[Outcome] = []
    errors: list[Outcome] = []
    severity: Severity = "error"


class TcpCheck(_Own, frozen=True, kw_only=True, tag_field="type", tag="tcp"):
    """`from_url`: a field of `egress.from_url`. `error` may say `{host}` and `{port}`."""

    id: str
    title: str
    from_url: str
    error: str
    severity: Severity = "error"


class ToolCheck(_Own, frozen=True, kw_only=True, tag_field="type", tag="tool"):
    """`arguments` are sent as they are. `json` is as in `Outcome`."""

    id: str
    title: str
    tool: str
    arguments: dict[str, Any] = {}
    json: dict[str, Any] = {}
    label: str | None = None
    note: str | None = None
    error: str | None = None
    severity: Severity = "error"


Check = HttpCheck | TcpCheck | ToolCheck


class ToolLabel(_Own, frozen=True, kw_only=True):
    """What a person sees of a tool before connecting. `default` off: it is not there until somebody switches it on."""

    access: Access
    preview: str
    default: Literal["off"] | None = None


class Identity(_Own, frozen=True, kw_only=True):
    """As `wire.mounts.Identity`; texts may hold fields between braces."""

    token_endpoint: str
    client_id: str
    id_token: str
    client_secret: str | None = None


class SignIn(_Own, frozen=True, kw_only=True):
    """A remote that a person signs in to. `client_id`, and `client_secret` or `private_key`: of a client registered beforehand,
    as fields of `inputs` between braces; None: one registers itself. `unattended`: nobody signs in, but the client by its secret
    or key, or for an `assertion` or `identity` (wire/mounts.py)."""

    kind: Literal["oauth"]
    client_id: str | None = None
    client_secret: str | None = None
    private_key: str | None = None
    scopes: list[str] = []
    unattended: bool = False
    assertion: str | None = None
    identity: Identity | None = None

    @property
    def secrets(self) -> dict[str, str]:
        """What no plain field may fill in, by member."""
        who = self.identity
        known = {
            "clientSecret": self.client_secret,
            "privateKey": self.private_key,
            "assertion": self.assertion,
            "identity.idToken": who and who.id_token,
            "identity.clientSecret": who and who.client_secret,
        }
        return {member: text for member, text in known.items() if text}


class Variant(_Own, frozen=True, kw_only=True):
    """What sets a variant apart from the others of its connector. The connector itself may say it too, without a name."""

    name: str = ""
    title: str
    note: str = ""


class Lifecycle(_Own, frozen=True, kw_only=True):
    status: Literal["active", "deprecated", "archived"] = "active"
    replaced_by: str | None = None
    note: str | None = None


class FunctionTool(_Own, frozen=True, kw_only=True):
    name: str
    title: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None = None
    annotations: dict[str, Any] = {}


class Function(_Own, frozen=True, kw_only=True):
    """`entry` is a file in the connector's folder, `sha256` of its bytes."""

    entry: str
    sha256: str | None = None
    timeout_s: float = 30
    memory_mb: int | None = None
    tool: FunctionTool


class Own(_Own, frozen=True, kw_only=True):
    kind: Kind
    slug: str
    categories: list[str]
    egress: Egress
    tools: dict[str, ToolLabel] = {}
    access: list[str] = []  # plain sentences: what it can do with what it is given
    maker: str = ""  # who makes the server, or what is behind the function
    inputs: list[Named] = []  # function: what a package's environment variables are to mcp. mcp: asked for, and not the server's
    fields: dict[str, Hint] = {}
    install: Install | None = None
    runtime: Runtime = Runtime()
    verify: list[Check] = []
    lifecycle: Lifecycle = Lifecycle()
    function: Function | None = None
    auth: SignIn | None = None
    files: dict[str, str] = {}  # written into the connection's own folder before each start; they hold no secret
    variant: Variant | None = None


class Meta(msgspec.Struct, frozen=True):
    own: Own = msgspec.field(name=META)


class Manifest(_Registry, frozen=True, kw_only=True):
    schema: str = msgspec.field(name="$schema")
    name: str
    title: str
    description: str
    version: str
    meta: Meta = msgspec.field(name="_meta")
    website_url: str | None = None
    repository: Repository | None = None
    icons: list[Icon] = []
    packages: list[Package] = []
    remotes: list[Remote] = []

    @property
    def own(self) -> Own:
        return self.meta.own
