"""What may be deployed, and a deployed function: its spec, version, MCP tool and the schema its input must fit.

Foreign JSON Schemas are evaluated here, so with a linear regex engine and with no retrieval of any `$ref`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import jsonschema_rs
import msgspec

from rootlink import names
from rootlink.engine.functions.isolates.frames import Definition
from rootlink.errors import Invalid
from rootlink.wire.mounts import FunctionSpec

TOOL_PREFIX = "function__"
DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS = 10_000, 300_000
DEFAULT_MEMORY_MB, MIN_MEMORY_MB, MAX_MEMORY_MB = 64, 8, 256
MAX_CPU_SECS = 30.0
MAX_DESCRIPTION, MAX_SCHEMA_BYTES = 8192, 64 << 10
_SHOWN = 500  # characters of a schema's complaint


class Deployed(msgspec.Struct, frozen=True):
    """The answer of PUT …/functions. `tool` is the name of its MCP tool."""

    name: str
    version: int
    tool: str


class Function(msgspec.Struct, frozen=True):
    """A deployed function as REST shows it. `deployed_at` is RFC 3339."""

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

    def definition(self, *, check: bool) -> Definition:
        fresh = self.spec.isolation == "fresh"
        return Definition(name=self.name, source=self.source, heap=self.memory_mb << 20, cpu=self.cpu, check=check, fresh=fresh)

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
            connection=self.connection,
            deployed_at=self.deployed_at,
        )

    @cached_property
    def tool(self) -> dict[str, Any]:
        """Its MCP tool definition. The input schema of a tool says `object`, whatever the author left out."""
        spec = self.spec
        tool: dict[str, Any] = {"name": TOOL_PREFIX + spec.name}
        if spec.title is not None:
            tool["title"] = spec.title
        tool["description"] = spec.description
        tool["inputSchema"] = {"type": "object", **(spec.input_schema or {})}
        if spec.output_schema is not None:
            tool["outputSchema"] = spec.output_schema
        if spec.annotations is not None:
            tool["annotations"] = spec.annotations
        return tool

    @cached_property
    def _validator(self) -> jsonschema_rs.Validator | None:
        return None if self.spec.input_schema is None else _compile("input_schema", self.spec.input_schema)

    def refusal(self, input: Any) -> str | None:
        """Why the input does not fit its schema, naming the path; None when it does."""
        if self._validator is None:
            return None
        try:
            self._validator.validate(input)
        except jsonschema_rs.ValidationError as error:
            path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
            return f"input{path}: {error.message[:_SHOWN]}"
        except (ValueError, RecursionError):
            return "input: nested too deeply, or with a value JSON does not have"
        return None


def check(spec: FunctionSpec) -> None:
    """Everything about a spec that needs no isolate. Raises Invalid naming the member and the rule."""
    names.function_name(spec.name)
    if len(spec.description) > MAX_DESCRIPTION:
        raise Invalid(f"description is longer than {MAX_DESCRIPTION} characters")
    _within("timeout_ms", spec.timeout_ms, 1, MAX_TIMEOUT_MS)
    _within("memory_mb", spec.memory_mb, MIN_MEMORY_MB, MAX_MEMORY_MB)
    for name in spec.env or {}:
        names.secret_name(name)
    for member, schema in (("input_schema", spec.input_schema), ("output_schema", spec.output_schema)):
        if schema is not None:
            _compile(member, schema)


def _within(member: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise Invalid(f"{member} is {value}; it must be {least} to {most}")


def _compile(member: str, schema: dict[str, Any]) -> jsonschema_rs.Validator:
    if schema.get("type", "object") != "object":
        raise Invalid(f"{member} must describe an object: its type can't be {str(schema['type'])[:80]}")
    try:
        if len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
            raise Invalid(f"{member} is larger than {MAX_SCHEMA_BYTES} bytes")
        return jsonschema_rs.validator_for(
            schema,
            retriever=_retrieve_nothing,
            pattern_options=jsonschema_rs.RegexOptions(),
            validate_formats=False,
            mask="the value",
        )
    except (ValueError, RecursionError, jsonschema_rs.ReferencingError, UnicodeEncodeError) as error:
        words = next(iter(str(error).splitlines()), "too deep")[:_SHOWN]
        raise Invalid(f"{member} is not a valid JSON Schema: {words}") from None


def _retrieve_nothing(uri: str) -> Any:
    raise ValueError(f"$ref to {uri[:200]} is not fetched; put the definition into the schema's own $defs")
