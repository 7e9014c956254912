"""One connector, as the gateway uses it: what to show, whether the given values will do, and what to ask of the engine.

Values of secrets never come in here but to be checked: what is made of them is `${NAME}`, which the engine resolves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from rootlink import names
from rootlink.catalog import address, checking
from rootlink.catalog.field import Field, expand, field, variables
from rootlink.catalog.folder import Folder
from rootlink.catalog.manifest import ENGINE_VARIABLES, Argument, Input, Kind, Lifecycle, Manifest, Named, Package, Remote
from rootlink.egress.hosts import Rule
from rootlink.errors import Invalid, NotFound
from rootlink.wire.checks import Check
from rootlink.wire.tools import ToolRules

_START = {"npm": ("npx", "-y"), "pypi": ("uvx",)}  # what people paste from a README; the engine makes a pinned install of it
_FROM = {"npm": "--package", "pypi": "--from"}  # before a package whose program has another name
_TRANSPORT = {"streamable-http": "http", "sse": "sse"}
_FILLED_IN = ("args", "env", "paths", "endpoint", "headers", "oauth")  # where the engine puts secrets in (`mounts/spec.py`)
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Entry:
    """`folder` keeps the rules (`rules.py`); `catalog.load()` sees to that. A variant is an entry as well, of the same name."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._manifest = folder.manifest
        self._own = folder.manifest.own
        self.fields: list[Field] = list(fields(folder.manifest))
        self.variants: dict[str, Entry] = {name: Entry(one) for name, one in folder.variants.items()}

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Entry:
        """Of a server that somebody brought: no folder, no lock."""
        return cls(Folder(manifest.own.slug, manifest))

    @property
    def variant_name(self) -> str | None:
        """None: the entry itself."""
        return (self._own.variant.name or None) if self._own.variant else None

    def variant(self, name: str | None) -> Entry:
        """The entry itself for None. `NotFound`, naming what there is."""
        if not name:
            return self
        found = self.variants.get(name)
        if found is None:
            there_are = f"there are: {', '.join(sorted(self.variants))}" if self.variants else "it has none"
            raise NotFound(f"connector {self.name} has no variant {name[:63]!r}; {there_are}")
        return found

    @property
    def name(self) -> str:
        return self._own.slug

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def kind(self) -> Kind:
        return self._own.kind

    @property
    def version(self) -> str:
        """Of the entry, not of what it installs."""
        return self._manifest.version

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
    def tools(self) -> list[dict[str, Any]]:
        """`default` "off": it is not there until somebody switches it on."""
        return [
            {"name": name, "access": tool.access, "description": tool.preview, "default": tool.default}
            for name, tool in self._own.tools.items()
        ]

    @property
    def lifecycle(self) -> Lifecycle:
        return self._own.lifecycle

    @property
    def lock(self) -> str | None:
        """The text of `package-lock.json`."""
        return self._folder.lock

    @property
    def icon(self) -> str | None:
        """SVG, as text."""
        return self._folder.icon

    def summary(self) -> dict[str, Any]:
        """One item of GET /v1/catalog."""
        return {
            "name": self.name,
            "kind": self.kind,
            "title": self.title,
            "description": self.description,
            "categories": self.categories,
            "status": self.lifecycle.status,
            "icon": f"/v1/catalog/{self.name}/icon" if self.icon is not None else None,
        }

    def detail(self) -> dict[str, Any]:
        """GET /v1/catalog/{name}: what a person decides by before connecting. `variants` have the members of the entry, and say
        under `variant`, `way` and `apart` what they are; so does the entry itself, whose `variant` is None. `hosts_from`: fields
        whose values are hosts or URLs. `checks`: what is asked before the connection is kept. Seconds are None where the engine's
        defaults apply."""
        return {
            **self._shown(),
            "variants": [one._shown() for one in self.variants.values()],
        }

    def _shown(self) -> dict[str, Any]:
        own = self._own
        return {
            **self.summary(),
            "variant": self.variant_name,
            "way": own.variant.title if own.variant else None,
            "apart": own.variant.note if own.variant else None,
            "version": self.version,
            "website": self._manifest.website_url,
            "maker": own.maker,
            "fields": [each.view() for each in self.fields],
            "hosts": self.hosts,
            "hosts_from": [*own.egress.from_url, *own.egress.from_hosts],
            "sign_in": own.auth is not None and not own.auth.unattended,
            "access": self.access,
            "tools": self.tools,
            "checks": [check.title for check in own.verify],
            "package": self._package_view(),
            "endpoint": self._remote.url if self._remote else None,
            "start_secs": own.runtime.start_timeout_s or own.runtime.timeout_s,
            "call_secs": own.function.timeout_s if own.function else own.runtime.timeout_s,
            "at_once": own.runtime.concurrency,
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
        """`hosts`, and those that the user's values name. Each is a rule of an allowlist (`egress/hosts.py`). `Invalid`."""
        own, given = self._own.egress, {**inputs, **secrets}
        named = [str(self._place(name, given.get(name))) for name in own.from_url]
        for each in self.fields:
            if each.name in own.from_hosts:
                texts = each.fallback if given.get(each.name) is None else each.values(given[each.name])
                named += [address.site(each.name, text) for text in texts]
        return list(dict.fromkeys([*self.hosts, *named]))

    def desired(
        self,
        name: str,
        inputs: Mapping[str, Any],
        secret_names: Mapping[str, str],
        hosts: Iterable[str] | None = None,
        *,
        redirect: str = "",
    ) -> dict[str, Any]:
        """`{"mount": wire.MountSpec}` or `{"function": wire.FunctionSpec}` as plain dicts, for a connection called `name`.

        `secret_names`: for each secret field that has a value, what it is called in the vault. `hosts`: of `hosts_for`, when the
        entry takes hosts from the user's values. `redirect`: where a sign-in comes back to. Call `check` first.
        """
        values = self._values(inputs, secret_names)
        egress = list(self.hosts if hosts is None else hosts)
        if self.kind == "function":
            function = self._function(names.function_name(name), values, egress)
            self._must_be_own(function.get("env"), secret_names)
            return {"function": function}
        mount = {"name": names.mount_name(name), "egress": egress, **self._limits()}
        for package in self._manifest.packages:
            mount |= self._child(package, values)
        for remote in self._manifest.remotes:
            mount |= self._far(remote, name, values, redirect)
        self._must_be_own([mount.get(member) for member in _FILLED_IN], secret_names)
        return {"mount": {member: value for member, value in mount.items() if value is not None}}

    def _must_be_own(self, texts: Any, secret_names: Mapping[str, str]) -> None:
        """Every `${NAME}` is of this connection's own secrets, however it came together. `Invalid`."""
        for name in _references(texts):
            if name not in secret_names.values():
                raise Invalid(f"connector {self.name} refers to ${{{name[:80]}}}, which is no secret field of its own")

    def checks(self, inputs: Mapping[str, Any], secret_names: Mapping[str, str], secrets: Mapping[str, str]) -> list[Check]:
        """What is asked before the connection is kept. Names are as for `desired`; `secrets` are read for nothing but the host
        and port of a URL, and what is not given there is not dialled beforehand. Call `check` first."""
        return checking.wired(self._own.verify, self._values(inputs, secret_names), {**inputs, **secrets})

    def rules(self) -> ToolRules:
        """Of the tools: the catalogue's labels, which of them are off, and that a tool nobody agreed to is held back."""
        tools = self._own.tools
        off = {name: "off" for name, tool in tools.items() if tool.default == "off"}
        plain = {"access": {name: tool.access for name, tool in tools.items()}, "modes": off, "closed": True}
        return msgspec.convert(plain, ToolRules)

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

    def _place(self, name: str, url: object) -> Rule:
        if not isinstance(url, str):
            raise Invalid(f"give {name} a value: the host it names has to be allowed", data={"field": name})
        return address.of(name, url)

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

    def _limits(self) -> dict[str, Any]:
        runtime = self._own.runtime
        return {
            "start_secs": runtime.start_timeout_s,
            "timeout_secs": runtime.timeout_s,
            "concurrency": runtime.concurrency,
            "session": runtime.session,
        }

    def _child(self, package: Package, values: dict[str, list[str]]) -> dict[str, Any]:
        command, *start = _START[package.registry_type]
        asked = f"{package.identifier}@{package.version}" if package.version else package.identifier
        program = self._own.runtime.program
        named = [asked] if program is None else [_FROM[package.registry_type], asked, program]
        return {
            "transport": "stdio",
            "command": command,
            "args": [*start, *named, *_arguments(package.package_arguments, values)],
            "env": _environment(package.environment_variables, values),
            "paths": self._paths(values),
            "files": self._own.files,
            "lock": self.lock,
        }

    def _far(self, remote: Remote, name: str, values: dict[str, list[str]], redirect: str) -> dict[str, Any]:
        return {
            "transport": _TRANSPORT[remote.type],
            "endpoint": _filled(remote.url, values),
            "headers": _environment(remote.headers, values),
            "oauth": self._oauth(name, values, redirect),
        }

    def _oauth(self, name: str, values: dict[str, list[str]], redirect: str) -> dict[str, Any] | None:
        """The grant is the connection's own, whatever else the project has of this connector."""
        auth = self._own.auth
        if auth is None:
            return None
        secret = f"{_shout(self.name)}_OAUTH" + ("" if name == self.name else f"__{_shout(name)}")

        def put(text: str | None) -> str | None:
            return text and _filled(text, values)

        who = auth.identity
        return {
            "secret": names.secret_name(secret),
            "redirect": "" if auth.unattended else redirect,
            "client_id": put(auth.client_id),
            "client_secret": put(auth.client_secret),
            "scopes": auth.scopes,
            "private_key": put(auth.private_key),
            "assertion": put(auth.assertion),
            "identity": who
            and {
                "token_endpoint": who.token_endpoint,
                "client_id": put(who.client_id),
                "id_token": put(who.id_token),
                "client_secret": put(who.client_secret),
            },
        }

    @property
    def _remote(self) -> Remote | None:
        return self._manifest.remotes[0] if self._manifest.remotes else None

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
            for variable in dict.fromkeys(variables(source.value)):
                if variable not in ENGINE_VARIABLES:
                    yield field(variable, source.variables[variable], hints.get(variable))


def _sources(manifest: Manifest) -> Iterator[tuple[str, Input, bool]]:
    for package in manifest.packages:
        yield from ((named.name, named, False) for named in package.environment_variables)
        yield from ((argument.label, argument, argument.is_repeated) for argument in package.package_arguments)
    for remote in manifest.remotes:
        yield "url", Input(value=remote.url, variables=remote.variables), False
        yield from ((named.name, named, False) for named in remote.headers)
    sites = manifest.own.egress.from_hosts
    yield from ((named.name, named, named.name in sites) for named in manifest.own.inputs)


def _references(texts: Any) -> Iterator[str]:
    """The secrets that any text in it refers to."""
    if isinstance(texts, str):
        yield from _REFERENCE.findall(texts)
    elif isinstance(texts, Mapping | list):
        for each in texts.values() if isinstance(texts, Mapping) else texts:
            yield from _references(each)


def _shout(name: str) -> str:
    """As names of secrets are written. A connection's name may begin with a digit, so it never stands first in one."""
    return name.upper().replace("-", "_")


def _filled(template: str, values: dict[str, list[str]]) -> str:
    """A template whose fields are all required; one that has no value after all leaves nothing."""
    return expand(template, {**dict.fromkeys(variables(template), ""), **{name: texts[0] for name, texts in values.items()}})


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
        word for argument in arguments for text in _rendered(argument.label, argument, values) for word in _words(argument, text)
    ]


def _words(argument: Argument, text: str) -> list[str]:
    if argument.name is None:
        return [text]
    if argument.format == "boolean":
        return [argument.name] if text == "true" else []
    return [argument.name, text]
