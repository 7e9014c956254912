"""One connector, as the gateway uses it: what to show, whether the given values will do, and what to ask of the engine.

Values of secrets never come in here but to be checked: what is made of them is `${NAME}`, which the engine resolves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from rootlink import names
from rootlink.catalog.field import Field, expand, field, variables
from rootlink.catalog.folder import Folder
from rootlink.catalog.manifest import ENGINE_VARIABLES, Argument, Check, Input, Kind, Lifecycle, Manifest, Named
from rootlink.egress import hosts as egress_hosts
from rootlink.errors import Invalid

_START = {"npm": ("npx", "-y"), "pypi": ("uvx",)}  # what people paste from a README; the engine makes a pinned install of it
_PORTS = {"https": 443, "http": 80, "postgres": 5432, "postgresql": 5432}


class Entry:
    """`folder` keeps the rules (`rules.py`); `catalog.load()` sees to that."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._manifest = folder.manifest
        self._own = folder.manifest.own
        self.fields: list[Field] = list(fields(folder.manifest))

    @property
    def name(self) -> str:
        return self._own.slug

    @property
    def kind(self) -> Kind:
        return self._own.kind

    @property
    def title(self) -> str:
        return self._manifest.title

    @property
    def description(self) -> str:
        return self._manifest.description

    @property
    def categories(self) -> list[str]:
        return self._own.categories

    @property
    def access(self) -> list[str]:
        return self._own.access

    @property
    def hosts(self) -> list[str]:
        """Those that are known beforehand; `hosts_for` adds the ones that the user's values name."""
        return self._own.egress.hosts

    @property
    def tools(self) -> list[dict[str, str]]:
        return [{"name": name, "access": tool.access, "description": tool.preview} for name, tool in self._own.tools.items()]

    @property
    def lifecycle(self) -> Lifecycle:
        return self._own.lifecycle

    @property
    def verify(self) -> list[Check]:
        return self._own.verify

    @property
    def lock(self) -> str | None:
        """The text of `package-lock.json`."""
        return self._folder.lock

    def summary(self) -> dict[str, Any]:
        """One item of GET /v1/catalog."""
        return {
            "name": self.name,
            "kind": self.kind,
            "title": self.title,
            "description": self.description,
            "categories": self.categories,
            "status": self.lifecycle.status,
        }

    def detail(self) -> dict[str, Any]:
        """GET /v1/catalog/{name}."""
        return {
            **self.summary(),
            "version": self._manifest.version,
            "website": self._manifest.website_url,
            "fields": [each.view() for each in self.fields],
            "hosts": self.hosts,
            "access": self.access,
            "tools": self.tools,
            "package": self._package_view(),
            "note": self.lifecycle.note,
            "replaced_by": self.lifecycle.replaced_by,
        }

    def check(self, inputs: Mapping[str, Any], secrets: Mapping[str, Any], existing: Collection[str]) -> None:
        """Whether a connect with these values can work. `existing`: names of the vault's secrets; one that is called as a secret
        field is used when no value is given. Raises `Invalid` or `TooLarge`, naming the field and never its value."""
        self._check_known(inputs, secrets)
        for each in self.fields:
            given = (secrets if each.secret else inputs).get(each.name)
            if given is None:
                self._check_missing(each, existing)
            elif each.secret:
                each.check_secret(given)
            else:
                each.values(given)

    def hosts_for(self, inputs: Mapping[str, Any], secrets: Mapping[str, str]) -> list[str]:
        """`hosts`, and those of the URLs the user gave. Each is a rule of an allowlist (`egress/hosts.py`)."""
        given = {**inputs, **secrets}
        return list(dict.fromkeys([*self.hosts, *(self._host_of(name, given.get(name)) for name in self._own.egress.from_url)]))

    def desired(
        self, name: str, inputs: Mapping[str, Any], secret_names: Mapping[str, str], hosts: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """`{"mount": wire.MountSpec}` or `{"function": wire.FunctionSpec}` as plain dicts, for a connection called `name`.

        `secret_names`: for each secret field that has a value, what it is called in the vault. `hosts`: of `hosts_for`, when the
        entry takes hosts from the user's values. Call `check` first.
        """
        values = self._values(inputs, secret_names)
        egress = list(self.hosts if hosts is None else hosts)
        if self.kind == "function":
            return {"function": self._function(names.function_name(name), values, egress)}
        return {"mount": self._mount(names.mount_name(name), values, egress)}

    def _check_known(self, inputs: Mapping[str, Any], secrets: Mapping[str, Any]) -> None:
        known = {each.name: each for each in self.fields}
        for name in (*inputs, *secrets):
            if name not in known:
                there_are = f"it has: {', '.join(known)}" if known else "it needs nothing to be filled in"
                raise Invalid(f"connector {self.name} has no field {name[:80]!r}; {there_are}", data={"field": name[:80]})
        for name in inputs:
            if known[name].secret:
                raise Invalid(f"{name} is a secret: give it under `secrets`, not `inputs`", data={"field": name})
        for name in secrets:
            if not known[name].secret:
                raise Invalid(f"{name} is not a secret: give it under `inputs`, not `secrets`", data={"field": name})

    def _check_missing(self, each: Field, existing: Collection[str]) -> None:
        if each.required and not (each.secret and each.name in existing):
            where = "secrets" if each.secret else "inputs"
            raise Invalid(
                f"connector {self.name} needs {each.name} ({each.label}) under `{where}`: {each.wanted()}",
                data={"field": each.name},
            )

    def _host_of(self, name: str, url: object) -> str:
        if not isinstance(url, str):
            raise Invalid(f"give {name} a value: the host it names has to be allowed", data={"field": name})
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
        except ValueError:
            host, port = "", None
        if not host or port is None:
            raise Invalid(f"{name} must be a URL that names a host and a port", data={"field": name})
        return str(egress_hosts.Rule(egress_hosts.canonical(host), port))

    def _values(self, inputs: Mapping[str, Any], secret_names: Mapping[str, str]) -> dict[str, list[str]]:
        """Of each field that has any: its texts, of which a secret's are references."""
        values = {}
        for each in self.fields:
            if each.secret:
                found = [f"${{{names.secret_name(secret_names[each.name])}}}"] if each.name in secret_names else []
            else:
                found = each.fallback if inputs.get(each.name) is None else each.values(inputs[each.name])
            if found:
                values[each.name] = found
            elif each.required:
                self._check_missing(each, ())
        return values

    def _mount(self, name: str, values: dict[str, list[str]], egress: list[str]) -> dict[str, Any]:
        package = self._manifest.packages[0]
        command, *start = _START[package.registry_type]
        spec: dict[str, Any] = {
            "name": name,
            "transport": "stdio",
            "command": command,
            "args": [*start, f"{package.identifier}@{package.version}", *_arguments(package.package_arguments, values)],
            "env": _environment(package.environment_variables, values),
            "egress": egress,
            "paths": self._paths(values),
            "lock": self.lock,
            "timeout_secs": self._own.runtime.timeout_s,
            "concurrency": self._own.runtime.concurrency,
            "session": self._own.runtime.session,
        }
        return {member: value for member, value in spec.items() if value is not None}

    def _paths(self, values: dict[str, list[str]]) -> dict[str, list[str]]:
        """Which directories the mount may see: of the host's (the operator must have opened them) and of the engine's."""
        seen: dict[str, list[str]] = {"read": [], "write": []}
        for each in self.fields:
            if each.paths is not None:
                seen[each.paths] += values.get(each.name, [])
        return seen

    def _function(self, name: str, values: dict[str, list[str]], egress: list[str]) -> dict[str, Any]:
        function = self._own.function
        assert function is not None  # a rule of the kind
        tool = function.tool
        spec: dict[str, Any] = {
            "name": name,
            "code": self._folder.code,
            "title": tool.title,
            "description": tool.description,
            "input_schema": tool.input_schema,
            "output_schema": tool.output_schema,
            "annotations": tool.annotations,
            "timeout_ms": int(function.timeout_s * 1000),
            "memory_mb": function.memory_mb,
            "env": _environment(self._own.inputs, values),
            "egress": egress,
        }
        return {member: value for member, value in spec.items() if value is not None}

    def _package_view(self) -> dict[str, str] | None:
        for package in self._manifest.packages:
            return {"registry": package.registry_type, "identifier": package.identifier, "version": package.version}
        return None


def fields(manifest: Manifest) -> Iterator[Field]:
    """What the user is asked for, in the manifest's order: inputs without a fixed value, and the variables of those with one."""
    hints = manifest.own.fields
    for name, source, multiple in _sources(manifest):
        if source.value is None:
            yield field(name, source, hints.get(name), multiple=multiple)
        else:
            for variable in variables(source.value):
                if variable not in ENGINE_VARIABLES:
                    yield field(variable, source.variables[variable], hints.get(variable))


def _sources(manifest: Manifest) -> Iterator[tuple[str, Input, bool]]:
    for package in manifest.packages:
        yield from ((named.name, named, False) for named in package.environment_variables)
        yield from ((argument.label, argument, argument.is_repeated) for argument in package.package_arguments)
    yield from ((named.name, named, False) for named in manifest.own.inputs)


def _rendered(name: str, source: Input, values: dict[str, list[str]]) -> list[str]:
    """The texts of one input; none if it, or a variable in it, has no value."""
    if source.value is None:
        return values.get(name, [])
    known = ENGINE_VARIABLES | {variable: texts[0] for variable, texts in values.items()}
    if any(variable not in known for variable in variables(source.value)):
        return []
    return [expand(source.value, known)]


def _environment(inputs: list[Named], values: dict[str, list[str]]) -> dict[str, str]:
    return {each.name: texts[0] for each in inputs if (texts := _rendered(each.name, each, values))}


def _arguments(arguments: list[Argument], values: dict[str, list[str]]) -> list[str]:
    return [
        word
        for argument in arguments
        for text in _rendered(argument.label, argument, values)
        for word in ([text] if argument.name is None else [argument.name, text])
    ]
