"""What may be deployed, and a deployed function: its spec, version, MCP tool, and the schemas of its input and output."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Final, Literal

import msgspec

from rootlink import names
from rootlink.egress import hosts
from rootlink.engine.functions import schemas
from rootlink.engine.functions.isolates.frames import Definition
from rootlink.engine.functions.schemas import Schema
from rootlink.errors import Invalid
from rootlink.wire.mounts import FunctionSpec

TOOL_PREFIX = "function__"
DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS = 10_000, 300_000
DEFAULT_MEMORY_MB, MIN_MEMORY_MB, MAX_MEMORY_MB = 64, 8, 256
MAX_CPU_SECS = 30.0
MAX_DESCRIPTION, MAX_TITLE = 8192, 200
MAX_CONCURRENCY, MAX_TOOLS, MAX_HOSTS = 1000, 100, 100
MAX_ENV, MAX_ENV_CHARS = 100, 32 << 10  # variables, and characters of all of them
ANNOTATIONS: Final[dict[str, type]] = {
    "title": str,
    "readOnlyHint": bool,
    "destructiveHint": bool,
    "idempotentHint": bool,
    "openWorldHint": bool,
}
_TOOL_PATTERN = re.compile(r"[A-Za-z0-9_.*-]{1,128}\Z")


class Deployed(msgspec.Struct, frozen=True):
    """The answer of PUT …/functions. `tool` is the name of its MCP tool."""

    name: str
    version: int
    tool: str


class Version(msgspec.Struct, frozen=True):
    """One version of a function that is kept. `live`: it is the one that runs. `deployed_at` is RFC 3339."""

    version: int
    live: bool
    deployed_at: str


class Function(msgspec.Struct, frozen=True):
    """A deployed function as REST shows it. `deployed_at` is RFC 3339. `env`, `egress`, `concurrency` and `tools` null: no limit
    of its own, as in FunctionSpec."""

    ws: str
    name: str
    version: int
    tool: str
    description: str
    title: str | None
    code: str
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    annotations: dict[str, Any] | None
    timeout_ms: int
    memory_mb: int
    env: dict[str, str] | None
    egress: list[str] | None
    language: Literal["javascript", "typescript"] | None
    isolation: Literal["reuse", "fresh"]
    concurrency: int | None
    tools: list[str] | None
    connection: str | None
    deployed_at: str


class Held:
    """A function as an engine holds it. `handle` is its number in frames, new with every version and every start."""

    def __init__(
        self, handle: int, ws: str, spec: FunctionSpec, source: str, version: int, connection: str | None, deployed_at: str
    ) -> None:
        self.handle, self.ws, self.spec, self.source, self.version = handle, ws, spec, source, version
        self.connection, self.deployed_at = connection, deployed_at
        self.timeout = (spec.timeout_ms or DEFAULT_TIMEOUT_MS) / 1000
        self.memory_mb = spec.memory_mb or DEFAULT_MEMORY_MB

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def cpu(self) -> float:
        return min(self.timeout, MAX_CPU_SECS)

    @property
    def file(self) -> str:
        """The author's, as stacks name it."""
        return f"{self.name}.{'ts' if self.spec.language == 'typescript' else 'js'}"

    def definition(self, *, check: bool) -> Definition:
        fresh = self.spec.isolation == "fresh"
        return Definition(name=self.file, source=self.source, heap=self.memory_mb << 20, cpu=self.cpu, check=check, fresh=fresh)

    @property
    def deployed(self) -> Deployed:
        return Deployed(self.name, self.version, TOOL_PREFIX + self.name)

    @cached_property
    def view(self) -> Function:
        spec = self.spec
        return Function(
            ws=self.ws,
            name=spec.name,
            version=self.version,
            tool=TOOL_PREFIX + spec.name,
            description=spec.description,
            title=spec.title,
            code=spec.code,
            input_schema=spec.input_schema,
            output_schema=spec.output_schema,
            annotations=spec.annotations,
            timeout_ms=spec.timeout_ms or DEFAULT_TIMEOUT_MS,
            memory_mb=self.memory_mb,
            env=spec.env,
            egress=spec.egress,
            language=spec.language,
            isolation=spec.isolation or "reuse",
            concurrency=spec.concurrency,
            tools=spec.tools,
            connection=self.connection,
            deployed_at=self.deployed_at,
        )

    @cached_property
    def tool(self) -> dict[str, Any]:
        """Its MCP tool definition. The schemas of a tool say `object`, whatever the author left out."""
        spec = self.spec
        tool: dict[str, Any] = {"name": TOOL_PREFIX + spec.name}
        if spec.title is not None:
            tool["title"] = spec.title
        tool["description"] = spec.description
        tool["inputSchema"] = schemas.of_object(spec.input_schema or {})
        if spec.output_schema is not None:
            tool["outputSchema"] = schemas.of_object(spec.output_schema)
        if spec.annotations is not None:
            tool["annotations"] = spec.annotations
        return tool

    @cached_property
    def input_schema(self) -> Schema | None:
        """Raises Invalid: it was deployed when more was allowed."""
        schema = self.spec.input_schema
        return None if schema is None else schemas.compile("input_schema", schema)

    @cached_property
    def output_schema(self) -> Schema | None:
        """Raises Invalid, as `input_schema`."""
        schema = self.spec.output_schema
        return None if schema is None else schemas.compile("output_schema", schemas.of_object(schema))


def check(spec: FunctionSpec) -> None:
    """Everything about a spec that needs no isolate. Raises Invalid naming the member and the rule."""
    names.function_name(spec.name)
    if len(spec.description) > MAX_DESCRIPTION:
        raise Invalid(f"description is longer than {MAX_DESCRIPTION} characters")
    _within("timeout_ms", spec.timeout_ms, 1, MAX_TIMEOUT_MS)
    _within("memory_mb", spec.memory_mb, MIN_MEMORY_MB, MAX_MEMORY_MB)
    _within("concurrency", spec.concurrency, 1, MAX_CONCURRENCY)
    _one_of("language", spec.language, "javascript", "typescript")
    _one_of("isolation", spec.isolation, "reuse", "fresh")
    if spec.title is not None and len(spec.title) > MAX_TITLE:
        raise Invalid(f"title is longer than {MAX_TITLE} characters")
    _check_annotations(spec.annotations or {})
    _check_env(spec.env or {})
    _check_egress(spec.egress or [])
    _check_tools(spec.tools or [])
    for member, schema in (("input_schema", spec.input_schema), ("output_schema", spec.output_schema)):
        if schema is not None:
            schemas.compile(member, schema)


def _check_annotations(annotations: dict[str, Any]) -> None:
    """MCP's ToolAnnotations, and nothing else: a hint that is misspelt is no hint."""
    for name, value in annotations.items():
        if name not in ANNOTATIONS:
            raise Invalid(f"annotations: there is no {name[:80]!r}; there are {', '.join(ANNOTATIONS)}")
        if not isinstance(value, ANNOTATIONS[name]):
            raise Invalid(f"annotations: {name} must be {'a string' if name == 'title' else 'true or false'}")
    if len(annotations.get("title", "")) > MAX_TITLE:
        raise Invalid(f"annotations: title is longer than {MAX_TITLE} characters")


def _check_env(env: dict[str, str]) -> None:
    for name in env:
        names.secret_name(name)
    if len(env) > MAX_ENV or sum(map(len, env.values())) > MAX_ENV_CHARS:
        raise Invalid(f"env is too large: at most {MAX_ENV} names, with values of {MAX_ENV_CHARS} characters together")


def _check_egress(egress: list[str]) -> None:
    if len(egress) > MAX_HOSTS:
        raise Invalid(f"egress names {len(egress)} hosts; at most {MAX_HOSTS} are allowed")
    for host in egress:
        hosts.rule(host)


def _check_tools(tools: list[str]) -> None:
    if len(tools) > MAX_TOOLS:
        raise Invalid(f"tools holds {len(tools)} patterns; at most {MAX_TOOLS} are allowed")
    for pattern in tools:
        if not _TOOL_PATTERN.match(pattern):
            raise Invalid(
                f"tools: {pattern[:80]!r} is no tool's name: 1 to 128 letters, digits, '_', '-' or '.', and '*' for any of them, "
                "such as memory__read_graph or slack__*"
            )


def _one_of(member: str, value: str | None, *allowed: str) -> None:
    if value is not None and value not in allowed:
        raise Invalid(f"{member} is {value[:80]!r}; it must be {' or '.join(allowed)}")


def _within(member: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise Invalid(f"{member} is {value}; it must be {least} to {most}")
