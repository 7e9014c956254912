"""A found server as a manifest: what is a credential becomes a secret field, a folder a folder, other settings a field each.

Rule 1. No credential stays in the manifest, which is kept as it is: its value is handed back beside it, to fill the form in.
Rule 2. Every text of the foreign configuration is split into what is fixed and what is to be filled in; nothing else decides.
Rule 3. Field names are made once and told apart; a variable of the environment keeps its own name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import msgspec

from rootlink import names
from rootlink.catalog import rules
from rootlink.catalog.field import MAX_INPUT, variables
from rootlink.catalog.foreign import guess
from rootlink.catalog.foreign.found import Found
from rootlink.catalog.manifest import META, SCHEMA, Manifest
from rootlink.errors import Invalid

NAMESPACE = "custom.local"
_REFERENCE = re.compile(
    r"\$\{\{(?P<engine>files|state)\}\}|\$\{(?:(?P<kind>input|env):)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)(?::-(?P<default>[^}]*))?\}"
)
_OWN_NAME = re.compile(r"[A-Z][A-Z0-9_]*\Z")  # a reference that says what a field may be called
_FOLDERS = {"HOME", "userHome", "workspaceFolder", "USERPROFILE", "cwd", "pwd", "PWD"}
_LONGEST = 100
_OWN_HEADERS = ("host", "accept", "content-type", "content-length", "connection", "user-agent", "transfer-encoding")


class Pasted(msgspec.Struct, kw_only=True):
    """`secrets` are the values that were pasted, by field; `hosts` what its URLs name; `warnings` words for a person."""

    name: str
    manifest: Manifest
    secrets: dict[str, str] = {}
    hosts: list[str] = []
    warnings: list[str] = []

    def __repr__(self) -> str:
        return f"Pasted({self.name!r})"


def pasted(found: Found) -> Pasted:
    """Raises `Invalid` for what no connection can be."""
    return _Form(found).made()


def connection_name(text: str, taken: set[str]) -> str:
    """A name that a connection may have and none of `taken` has, as like to `text` as can be."""
    slug = re.sub(r"_{2,}", "_", re.sub(r"[^A-Za-z0-9_-]+", "-", text.rpartition("/")[2].strip())).strip("-_")[:56].strip("-_")
    if not slug or slug in names.RESERVED_MOUNTS:
        slug = f"{slug}-server".lstrip("-")
    if slug[0].isdigit():  # secrets are called after it, and their names begin with no digit
        slug = f"mcp-{slug}"
    chosen, number = slug, 1
    while chosen in taken:
        number += 1
        chosen = f"{slug}-{number}"
    return chosen


class _Form:
    def __init__(self, found: Found) -> None:
        self._found = found
        self._names: set[str] = set()
        self._labels: dict[str, dict[str, Any]] = {}
        self._secrets: dict[str, str] = {}
        self._hosts: dict[str, None] = {}
        self._warnings = list(found.warnings)
        self._folders = False
        self._secrets_asked: list[str] = []
        self._plain = {name for name, value in found.env.items() if not _REFERENCE.fullmatch(value.strip())}  # fields themselves

    def made(self) -> Pasted:
        found = self._found
        slug = connection_name(found.name, set())
        whole: dict[str, Any] = {
            "$schema": SCHEMA,
            "name": f"{NAMESPACE}/{slug}",
            "title": found.name[:_LONGEST].strip() or slug,
            "version": "1.0.0",
        }
        if found.url is not None:
            whole["remotes"] = [self._remote(found.url)]
            whole["description"] = f"A server elsewhere, spoken to by HTTP: {next(iter(self._hosts), 'its host is asked for')}"
        else:
            whole["packages"] = [self._package()]
            whole["description"] = f"A server of the {found.registry} package {found.package}"
        whole["description"] = whole["description"][:_LONGEST].strip()
        if not found.version and found.url is None:
            self._warnings.append(f"{found.package} has no version: the newest there is at the connect is kept from then on")
        whole["_meta"] = {META: self._own(slug)}
        return Pasted(
            name=slug,
            manifest=msgspec.convert(whole, Manifest),
            secrets=self._secrets,
            hosts=list(self._hosts),
            warnings=self._warnings,
        )

    def _own(self, slug: str) -> dict[str, Any]:
        hosts = list(self._hosts)
        own: dict[str, Any] = {
            "kind": "mcp",
            "slug": slug,
            "categories": ["custom"],
            "egress": {"hosts": hosts} if hosts else {"none": True},
            "access": list(self._access()),
            "fields": self._labels,
        }
        if self._found.url is not None and not self._secrets_asked:
            own["auth"] = {"kind": "oauth"}  # it may let everybody in; if it does not, somebody signs in
        if self._found.program is not None:
            own["runtime"] = {"program": self._found.program}
        return own

    def _access(self) -> Iterator[str]:
        if self._found.url is None:
            yield "Runs a program that nobody here has looked at, kept behind a door of its own"
            yield "Reads and changes the folders you name, and no other files" if self._folders else "Sees none of your files"
        else:
            yield "Is a server that somebody else runs: what the AI sends to its tools goes there"
        if self._secrets_asked:
            yield f"Can do whatever {', '.join(self._secrets_asked)} may do"
        yield "Reaches the hosts you allow it, and no other"

    # where it runs

    def _package(self) -> dict[str, Any]:
        found = self._found
        return {
            "registryType": found.registry,
            "identifier": found.package,
            "version": found.version,
            "transport": {"type": "stdio"},
            "packageArguments": list(self._arguments()),
            "environmentVariables": [each for name, value in found.env.items() if (each := self._variable(name, value))],
        }

    def _remote(self, url: str) -> dict[str, Any]:
        base, variables_ = self._url(url)
        headers = [each for name, value in self._found.headers.items() if (each := self._header(name, value))]
        return {"type": self._found.transport, "url": base, "variables": variables_, "headers": headers}

    # its environment

    def _variable(self, name: str, value: str) -> dict[str, Any] | None:
        try:
            names.secret_name(name)
        except Invalid:
            self._warnings.append(f"the variable {name[:60]!r} is left out: it is no name for one")
            return None
        if rules.RESERVED_ENV.match(name):
            self._warnings.append(f"the variable {name} is left out: how a server is started is Rootlink's to decide")
            return None
        whole = _REFERENCE.fullmatch(value.strip())
        if whole is None and _REFERENCE.search(value) and not guess.is_path(value):
            return {"name": name, **self._template(value, name)}
        if whole is not None and whole["engine"]:
            return {"name": name, **self._template(value, name)}
        if whole is not None and whole["name"] in _FOLDERS:
            whole = None
        if whole is None and "${{" in value:
            return {"name": name, **self._template(value, name)}
        if whole is not None and _OWN_NAME.match(whole["name"]):
            return {"name": name, **self._template(value, name)}
        field = self._referred(whole, name) if whole is not None else self._literal(name, name, value)
        return {"name": name, **field}

    # its headers

    def _header(self, name: str, value: str) -> dict[str, Any] | None:
        if name.lower() in _OWN_HEADERS or name.lower().startswith("mcp-"):
            self._warnings.append(f"the header {name[:60]!r} is left out: it is the protocol's own")
            return None
        if _REFERENCE.search(value):
            return {"name": name, **self._template(value, "TOKEN" if name.lower() == "authorization" else name)}
        scheme = re.match(r"(bearer|basic|token|bot) +", value, re.IGNORECASE)
        fixed, rest = (scheme[0], value[scheme.end() :]) if scheme else ("", value)
        if scheme or guess.is_secret(name, value) or guess.left_open(value):
            variable = self._free("TOKEN" if name.lower() == "authorization" else _upper(name))
            return {"name": name, "value": f"{fixed}{{{variable}}}", "variables": {variable: self._secret(variable, name, rest)}}
        if variables(value):
            variable = self._free(_upper(name))
            return {"name": name, "value": f"{{{variable}}}", "variables": {variable: self._literal(variable, name, value)}}
        return {"name": name, "value": value}

    # its arguments

    def _arguments(self) -> Iterator[dict[str, Any]]:
        before = ""  # the option whose value comes next
        for word in self._found.args:
            option, equals, value = word.partition("=")
            if word.startswith("-") and equals and value:
                yield self._argument(value, option.lstrip("-"), fixed=f"{option}=")
            elif word.startswith("-") and not word.lstrip("-").isdigit() and not guess.looks_secret(word):
                yield {"type": "positional", "value": word} if not variables(word) else self._argument(word, "option")
                before = word.lstrip("-")
                continue
            else:
                yield self._argument(word, before)
            before = ""

    def _argument(self, value: str, name: str, fixed: str = "") -> dict[str, Any]:
        template = self._argument_template(value, name)
        template["value"] = f"{fixed}{template['value']}"
        return {"type": "positional", **template}

    def _argument_template(self, value: str, name: str) -> dict[str, Any]:
        header = re.match(r"([A-Za-z][A-Za-z0-9-]*): *(?=\S)", value) if "header" in name.lower() else None
        if header is not None and guess.is_secret(header[1], value[header.end() :]) and not _REFERENCE.search(value):
            inner = self._argument_template(value[header.end() :], header[1])
            return {**inner, "value": header[0] + inner["value"]}
        if _REFERENCE.search(value) and not guess.is_path(value):
            return self._template(value, name or "value")
        if guess.is_path(value) and not value.startswith("${{"):
            variable = self._free(_upper(name) if name else "FOLDER" if guess.is_folder(value) else "FILE")
            return {"value": f"{{{variable}}}", "variables": {variable: self._path(variable, name, value)}}
        if "${{" in value:
            return self._template(value, name or "value")
        if guess.is_secret(name, value) if name else guess.looks_secret(value):
            variable = self._free(_secret_name(name, value))
            self._warn_of_argv(variable)
            return {"value": f"{{{variable}}}", "variables": {variable: self._secret(variable, name, value)}}
        if variables(value) or guess.left_open(value):
            variable = self._free(_upper(name) if name else "VALUE")
            return {"value": f"{{{variable}}}", "variables": {variable: self._literal(variable, name, value)}}
        self._note_hosts(value)
        return {"value": value}

    # a URL

    def _url(self, url: str) -> tuple[str, dict[str, Any]]:
        """The URL with a variable in the place of each credential, and what the variables are."""
        host = guess.host_of(_REFERENCE.sub("x", url))
        if re.match(r"https?://[^/?#]*@", url):
            raise Invalid("a URL with a user and a password before its host is not taken: put the credential into a header")
        if host is not None and not _REFERENCE.search(url.partition("://")[2].partition("/")[0]):
            self._hosts[host] = None
        made: dict[str, Any] = {}
        path, question, query = url.partition("?")
        scheme, _, rest = path.partition("://")
        segments = [self._part(part, "TOKEN", made) for part in rest.split("/")[1:]]
        pairs = [self._pair(pair, made) for pair in query.split("&")] if question else []
        head = self._part(rest.split("/")[0], "HOST", made) if _REFERENCE.search(rest.split("/")[0]) else rest.split("/")[0]
        return "/".join([f"{scheme}://{head}", *segments]) + (f"?{'&'.join(pairs)}" if pairs else ""), made

    def _part(self, text: str, name: str, made: dict[str, Any]) -> str:
        if _REFERENCE.search(text):
            template = self._template(text, "")
            made |= template["variables"]
            return str(template["value"])
        if text and (guess.looks_secret(text) or variables(text)):
            variable = self._free(name)
            made[variable] = self._secret(variable, "", text) if not variables(text) else self._literal(variable, "", text)
            return f"{{{variable}}}"
        return text

    def _pair(self, pair: str, made: dict[str, Any]) -> str:
        name, sign, value = pair.partition("=")
        plain = unquote(value)
        if _REFERENCE.search(value):
            template = self._template(value, name)
            made |= template["variables"]
            return f"{name}={template['value']}"
        if sign and (guess.is_secret(name, plain) or guess.looks_secret(plain) or variables(value)):
            variable = self._free(_upper(name))
            made[variable] = self._secret(variable, name, value)  # as it stands in the URL, encoded
            return f"{name}={{{variable}}}"
        return pair

    # one field

    def _template(self, text: str, name: str) -> dict[str, Any]:
        """A text with references in it: each is a variable, the engine's folders are its own."""
        made: dict[str, Any] = {}
        bare = _REFERENCE.sub("", text)
        if variables(bare):
            raise Invalid(f"{name[:60]!r} mixes ${{…}} with other braces, which can't be told apart: write the value out")

        def put(reference: re.Match[str]) -> str:
            if reference["engine"]:
                made[reference["engine"]] = {"description": "Filled in by the engine"}
                return f"{{{reference['engine']}}}"
            variable = self._free(_upper(reference["name"]))
            made[variable] = self._referred(reference, variable, like=name)
            return f"{{{variable}}}"

        value = _REFERENCE.sub(put, text)
        self._note_hosts(bare)
        return {"value": value, "variables": made}

    def _referred(self, reference: re.Match[str], field: str, like: str = "") -> dict[str, Any]:
        """The field for one `${…}`. `like`: names that tell whether it is a secret, if the field's own does not."""
        name, default = reference["name"], reference["default"]
        asked = self._found.inputs.get(name) if reference["kind"] == "input" else None
        if reference["kind"] == "input" and asked is None:
            raise Invalid(f"${{input:{name[:60]}}} is used, but `inputs` has none of this id")
        described = str((asked or {}).get("description") or "")
        if asked is not None:
            default = asked.get("default") if isinstance(asked.get("default"), str) else None
        named = guess.names_a_secret(field) or guess.names_a_secret(name) or (bool(like) and guess.names_a_secret(like))
        if (asked or {}).get("password") is True or named:
            return self._secret(field, name, default or "", described)
        given_options = (asked or {}).get("options")
        options = given_options if isinstance(given_options, list) else []
        choices = [str(one.get("value", one.get("label", ""))) if isinstance(one, dict) else str(one) for one in options]
        if default and not choices:
            return self._literal(field, name, default, described)
        self._label(field, name)
        given: dict[str, Any] = {"default": default} if default in choices else {}
        return {
            "description": described or f"What {name} stands for",
            "isRequired": True,
            **given,
            **({"choices": choices} if choices else {}),
        }

    def _literal(self, field: str, name: str, value: str, described: str = "") -> dict[str, Any]:
        if guess.is_secret(name or field, value) or (guess.left_open(value) and guess.names_a_secret(name or field)):
            return self._secret(field, name, value, described)
        if guess.is_path(value):
            return self._path(field, name, value)
        self._label(field, name)
        about = described or f"As the server knows it: {name or field}"
        if guess.left_open(value) or variables(value) or "${" in value or len(value) > MAX_INPUT:
            return {"description": about, "isRequired": True, **({"placeholder": value[:_LONGEST]} if value.strip() else {})}
        self._note_hosts(value)
        return {"description": about, "default": value}

    def _path(self, field: str, name: str, value: str) -> dict[str, Any]:
        """A folder is shown to the server; a file is, if it stands in its arguments and its folder is open."""
        self._folders = True
        self._label(field, name, paths="write" if guess.is_folder(value) else None)
        about = "A folder or file of this machine; it must be under what Rootlink was started with (--allow-path)"
        if guess.is_absolute(value):
            return {"description": about, "format": "filepath", "default": value}
        self._warnings.append(f"{field}: {value[:80]!r} means another place on every machine; give the folder of this one")
        return {"description": about, "format": "filepath", "isRequired": True, "placeholder": "/home/me/documents"}

    def _secret(self, field: str, name: str, value: str, described: str = "") -> dict[str, Any]:
        self._label(field, name)
        self._secrets_asked.append(field)
        if value and not guess.left_open(value):
            self._secrets[field] = value
            self._note_hosts(value)
        return {"description": described or f"A credential: {name or field}", "isSecret": True, "isRequired": True}

    def _label(self, field: str, name: str, **more: Any) -> None:
        self._labels[field] = {"label": (name or field)[:60], **{key: value for key, value in more.items() if value}}

    def _free(self, name: str) -> str:
        """`name`, or with a number behind it while there is such a field."""
        chosen, number = name, 1
        while chosen in self._names or chosen in self._labels or chosen in ("files", "state", *self._plain):
            number += 1
            chosen = f"{name}_{number}"
        self._names.add(chosen)
        return chosen

    def _note_hosts(self, text: str) -> None:
        self._hosts |= dict.fromkeys(guess.hosts_in(text))

    def _warn_of_argv(self, field: str) -> None:
        self._warnings.append(
            f"{field} stands in the server's command line, which other programs of its own door can read; "
            "if the server takes it from a variable of the environment, write it under `env` instead"
        )


def _upper(name: str) -> str:
    made = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").upper()[:80]
    return made if re.match(r"[A-Z_]", made) else f"VALUE_{made}".rstrip("_")


def _secret_name(name: str, value: str) -> str:
    if name:
        return _upper(name)
    return "CONNECTION_URL" if "://" in value else "SECRET"
