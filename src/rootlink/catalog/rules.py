"""What every entry must keep to: one function a rule, each yielding a sentence for each way it is broken. Pure; no I/O.

They run at load and in CI, and each has a fixture that breaks it (`tests/catalog/test_rules.py`). The facts of the registry's
format (reverse-DNS name with one '/', description of at most 100 characters, exact versions, https icons) are those of its
schema of 2025-12-11.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from rootlink import names
from rootlink.catalog import icon as icons
from rootlink.catalog.checking import fields_of
from rootlink.catalog.entry import fields
from rootlink.catalog.field import Field, variables
from rootlink.catalog.folder import ICON, Folder
from rootlink.catalog.manifest import ENGINE_VARIABLES, SCHEMA, HttpCheck, Input, Package, TcpCheck, ToolCheck
from rootlink.egress import hosts
from rootlink.errors import Invalid

Rule = Callable[[Folder], Iterator[str]]

_NAME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+/[A-Za-z0-9._-]+\Z")
_EXACT = re.compile(r"[0-9][0-9A-Za-z.+-]*\Z")
IDENTIFIERS = {
    "npm": re.compile(r"(@[a-z0-9-][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*\Z"),
    "pypi": re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z"),
}
_HINTS = {"npm": "npx", "pypi": "uvx"}
_INTEGRITY = re.compile(r"sha512-[A-Za-z0-9+/]{86}==\Z")
# Variables that change which code runs, or where it may connect: the engine's alone.
RESERVED_ENV = re.compile(
    r"(PATH|HOME|LD_.*|DYLD_.*|NODE_.*|NPM_CONFIG_.*|PYTHON.*|UV_.*|BASH_ENV|ENV|.*_PROXY)\Z", re.IGNORECASE
)


_VARIANT = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\Z")
_REFERENCE = re.compile(r"\$\{([^}]*)\}?")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_OWN_HEADERS = frozenset({"host", "accept", "connection", "content-length", "content-type", "te", "upgrade", "transfer-encoding"})


def problems(folder: Folder) -> list[str]:
    """Of every rule, each with the rule's name before it, those of variants as well. No problem: an entry that may be used."""
    found = [f"{rule.__name__}: {problem}" for rule in RULES for problem in rule(folder)]
    for name, one in folder.variants.items():
        found += [f"{rule.__name__}: variant {name}: {problem}" for rule in RULES if rule is not icon for problem in rule(one)]
    return found


def schema(folder: Folder) -> Iterator[str]:
    if folder.manifest.schema != SCHEMA:
        yield f"$schema must be {SCHEMA}"


def name(folder: Folder) -> Iterator[str]:
    if not _NAME.match(folder.manifest.name) or len(folder.manifest.name) > 200:
        yield "name must be reverse-DNS with one '/', like dev.rootlink/memory"


def slug(folder: Folder) -> Iterator[str]:
    own = folder.manifest.own.slug
    if own != folder.slug:
        yield f"slug {own!r} must be the folder's name {folder.slug!r}"
    if own != folder.manifest.name.rpartition("/")[2]:
        yield f"slug {own!r} must be what follows the '/' in name"
    try:
        names.mount_name(own)  # it is the connection's name unless another is given
    except Invalid as error:
        yield error.message


def texts(folder: Folder) -> Iterator[str]:
    manifest = folder.manifest
    for member, text in (("title", manifest.title), ("description", manifest.description)):
        if not 1 <= len(text) <= 100 or text != text.strip():
            yield f"{member} must have 1 to 100 characters, without space around them"
    if not manifest.own.categories:
        yield "categories must name at least one"


def version(folder: Folder) -> Iterator[str]:
    versions = [folder.manifest.version, *(package.version for package in folder.manifest.packages)]
    yield from (f"version {found!r} must be exact, not a range or a tag" for found in versions if not _EXACT.match(found))


def links(folder: Folder) -> Iterator[str]:
    manifest = folder.manifest
    found = [manifest.website_url, manifest.repository and manifest.repository.url]
    found += [icon.src for icon in manifest.icons] + [hint.help_url for hint in manifest.own.fields.values()]
    yield from (f"link {link!r} must begin with https://" for link in found if link and not link.startswith("https://"))


def kind(folder: Folder) -> Iterator[str]:
    manifest, own = folder.manifest, folder.manifest.own
    if own.kind == "mcp":
        if len(manifest.packages) + len(manifest.remotes) != 1:
            yield "an mcp connector has exactly one package or exactly one remote"
        if own.function is not None:
            yield "an mcp connector has no function"
        if bool(manifest.packages) != (own.install is not None):
            yield "a connector with a package names its lock under install; one without a package has no install"
        if own.files and not manifest.packages:
            yield "files are for a package, which finds them in its folder"
        if own.auth is not None and not manifest.remotes:
            yield "auth is for a remote, which a person signs in to"
        used = {*own.egress.from_hosts, *_auth_fields(folder)}
        yield from (f"input {each.name!r} is used by nothing" for each in own.inputs if each.name not in used)
    else:
        if own.function is None:
            yield "a function connector has a function"
        if manifest.packages or manifest.remotes or own.install is not None or own.files or own.auth is not None:
            yield "a function connector has no package, remote, install, files or auth"


def remote(folder: Folder) -> Iterator[str]:
    for each in folder.manifest.remotes:
        host = each.url.removeprefix("https://").partition("/")[0]
        if not each.url.startswith("https://") or host not in folder.manifest.own.egress.hosts:
            yield "a remote's url must be https:// and its host one of egress.hosts, without a {variable} in it"
        if any(variable.is_secret for variable in each.variables.values()):
            yield "a remote's url holds no secret: addresses are written down on the way, so give it a header"
        for header in each.headers:
            if not may_be_sent(header.name):
                yield f"header {header.name!r} is the protocol's own"
    own = folder.manifest.own.auth
    known = {each.name: each for each in _fields(folder)}
    yield from (f"auth uses {{{name}}}, which is no field" for name in _auth_fields(folder) if name not in known)
    for member, text in own.secrets.items() if own is not None else ():
        for name in variables(text):
            if name in known and not known[name].secret:
                yield f"auth.{member} is {{{name}}}, which is not a secret field"
    if own is not None and own.unattended and not (own.client_id and own.secrets):
        yield "auth is unattended, so it needs a clientId and a clientSecret, privateKey, assertion or identity"
    if own is not None and not own.unattended and (own.assertion or own.identity):
        yield "auth has an assertion or identity, which are for one that is unattended"
    place = own.identity.token_endpoint if own is not None and own.identity is not None else None
    if place is not None and (
        not place.startswith("https://") or place[8:].partition("/")[0] not in folder.manifest.own.egress.hosts
    ):
        yield "auth.identity.tokenEndpoint must be https:// and its host one of egress.hosts, without a {variable} in it"


def package(folder: Folder) -> Iterator[str]:
    for each in folder.manifest.packages:
        if not IDENTIFIERS[each.registry_type].match(each.identifier):
            yield f"package identifier {each.identifier!r} is not one of {each.registry_type}'s names"
        if each.transport.type != "stdio":
            yield "a package's transport must be stdio"
        if each.runtime_hint not in (None, _HINTS[each.registry_type]):
            yield f"runtimeHint of {each.registry_type} must be {_HINTS[each.registry_type]}"
        if each.runtime_arguments:
            yield "runtimeArguments are not allowed: how a package is started is the engine's to decide"
        for argument in each.package_arguments:
            if argument.is_secret or any(variable.is_secret for variable in argument.variables.values()):
                yield f"argument {argument.label or argument.value!r} is a secret: a command line is none, so give it a variable"


def environment(folder: Folder) -> Iterator[str]:
    own = folder.manifest.own
    found = [named.name for each in folder.manifest.packages for named in each.environment_variables]
    for each in found + [named.name for named in own.inputs]:
        if not _is_secret_name(each):
            yield f"environment variable {each!r} must be letters, digits and '_'"
        if RESERVED_ENV.match(each):
            yield f"environment variable {each!r} is the engine's own"
    for field in _fields(folder):
        if field.secret and not _is_secret_name(field.name):
            yield f"secret field {field.name!r} must be letters, digits and '_': it is the secret's name in the vault"
    for name, text in own.files.items():
        if not _FILE.match(name):
            yield f"file {name!r} must be a plain file name"
        for each in _REFERENCE.findall(text):
            if each not in found:
                yield f"file {name!r} refers to ${{{each}}}, which is no environment variable of the package"


def templates(folder: Folder) -> Iterator[str]:
    for each in _inputs(folder):
        for template in (each.value, each.default):
            for variable in variables(template or ""):
                if variable not in each.variables:
                    yield f"{{{variable}}} is used but not declared under variables"
        if any(variable.variables for variable in each.variables.values()):
            yield "a variable has no variables of its own"
        for variable in [name for one in (each, *each.variables.values()) for name in variables(one.default or "")]:
            if variable not in ENGINE_VARIABLES:
                yield f"a default may hold only {', '.join(f'{{{one}}}' for one in ENGINE_VARIABLES)}, not {{{variable}}}"


def field_names(folder: Folder) -> Iterator[str]:
    found = [each.name for each in _fields(folder)]
    yield from (f"there are two fields {each!r}" for each in dict.fromkeys(found) if found.count(each) > 1)
    yield from (f"fields.{each} is of no input" for each in folder.manifest.own.fields if each not in found)
    yield from (f"field {each!r} has no label under fields" for each in found if each not in folder.manifest.own.fields)


def field_help(folder: Folder) -> Iterator[str]:
    for each in _fields(folder):
        if not each.help:
            yield f"field {each.name!r} needs a description or help"
        if each.secret and not (each.help_url and each.steps):
            yield f"secret field {each.name!r} needs helpUrl and steps: where does one get it?"
        if each.secret and each.default is not None:
            yield f"secret field {each.name!r} must have no default"


def patterns(folder: Folder) -> Iterator[str]:
    for each in _fields(folder):
        if each.pattern is None:
            continue
        if not (each.pattern.startswith("^") and each.pattern.endswith("$")):
            yield f"pattern of {each.name!r} must begin with ^ and end with $"
        try:
            re.compile(each.pattern)
        except re.error:
            yield f"pattern of {each.name!r} is not a regular expression"


def defaults(folder: Folder) -> Iterator[str]:
    for each in _fields(folder):
        for text in each.fallback:
            try:
                each.values(text)
            except (Invalid, re.error):
                yield f"default of {each.name!r} breaks the field's own rules"


def egress(folder: Folder) -> Iterator[str]:
    own = folder.manifest.own.egress
    if sum((bool(own.hosts), bool(own.from_url), bool(own.from_hosts), own.none)) != 1:
        yield "egress must have exactly one of hosts, fromUrl, fromHosts and none"
    for host in own.hosts:
        if _canonical(host) != host:
            yield f"egress host {host!r} is not written as an allowlist's rule, like api.example.com or db.example.com:5432"
    known = {each.name: each for each in _fields(folder)}
    yield from (f"egress names the field {each!r}, which is none" for each in own.from_url + own.from_hosts if each not in known)
    for each in own.from_hosts:
        if each in known and known[each].secret:
            yield f"egress.fromHosts names {each!r}, which is a secret: hosts are shown"


def tools(folder: Folder) -> Iterator[str]:
    own = folder.manifest.own
    if not own.tools and not folder.manifest.remotes:  # what runs elsewhere is not pinned, and says of its tools what they do
        yield "tools must label at least one tool with its access"
    for each, label in own.tools.items():
        if not 1 <= len(label.preview) <= 100:
            yield f"preview of tool {each!r} must have 1 to 100 characters"
    if own.function is not None and list(own.tools) != [own.function.tool.name]:
        yield f"tools must label {own.function.tool.name!r} and nothing else: a function is one tool"


def access(folder: Folder) -> Iterator[str]:
    sentences = folder.manifest.own.access
    if not sentences or not all(sentence.strip() for sentence in sentences):
        yield "access must say in plain sentences what the connector can do"


def verify(folder: Folder) -> Iterator[str]:
    checks = folder.manifest.own.verify
    ids = [check.id for check in checks]
    yield from (f"check {check.id!r} needs a title: what does it find out?" for check in checks if not check.title.strip())
    for check in checks:
        if not isinstance(check, TcpCheck) and check.severity == "warn" and not _says(check):
            yield f"check {check.id!r} warns, so it says of what"
    yield from (f"there are two checks {each!r}" for each in dict.fromkeys(ids) if ids.count(each) > 1)
    for check in checks:
        match check:
            case HttpCheck():
                yield from _http_check(folder, check)
            case TcpCheck() if check.from_url not in folder.manifest.own.egress.from_url:
                yield f"check {check.id!r} dials {check.from_url!r}, which egress.fromUrl does not name"
            case ToolCheck() if check.tool not in folder.manifest.own.tools:
                yield f"check {check.id!r} calls tool {check.tool!r}, which is not under tools"
            case ToolCheck() if folder.manifest.own.tools[check.tool].access != "read":
                yield f"check {check.id!r} calls tool {check.tool!r}, which does more than read"
            case _:
                pass


def lifecycle(folder: Folder) -> Iterator[str]:
    own = folder.manifest.own.lifecycle
    if own.status != "active" and not (own.note or own.replaced_by):
        yield f"a connector that is {own.status} says why under note, or what replaces it under replacedBy"


def runtime(folder: Folder) -> Iterator[str]:
    own = folder.manifest.own
    numbers = [own.runtime.start_timeout_s, own.runtime.timeout_s, own.runtime.concurrency]
    numbers += [own.function.timeout_s, own.function.memory_mb] if own.function else []
    if any(number is not None and not 0 < number <= 600 for number in numbers):
        yield "timeouts (s), concurrency and memory (MB) must be above 0 and at most 600"


def variant(folder: Folder) -> Iterator[str]:
    for name, one in folder.variants.items():
        own = one.manifest.own.variant
        if not _VARIANT.match(name):
            yield f"variant {name!r} must be called by a word of small letters, digits and '-'"
        if own is None or own.name != name or not own.title.strip():
            yield f"variant {name!r} must have its folder's name, and a title, under variant"
        if one.manifest.own.kind != folder.manifest.own.kind or one.manifest.name != folder.manifest.name:
            yield f"variant {name!r} must be of the same kind and name as its connector"
    if folder.variants and (folder.manifest.own.variant is None or folder.manifest.own.variant.name):
        yield "a connector with variants says under variant, without a name, what it is itself"


def icon(folder: Folder) -> Iterator[str]:
    if folder.icon is None:
        yield f"{ICON} must be in the connector's folder"
        return
    yield from (f"{ICON} {problem}" for problem in icons.problems(folder.icon))


def function(folder: Folder) -> Iterator[str]:
    own = folder.manifest.own.function
    if own is None:
        return
    if not (folder.code or "").strip():
        yield f"function body {own.entry!r} must be a file in the connector's folder"
    elif own.sha256 is not None and hashlib.sha256((folder.code or "").encode()).hexdigest() != own.sha256:
        yield f"function body {own.entry!r} is not the one that sha256 was made of"
    if own.tool.input_schema.get("type") != "object":
        yield "a tool's inputSchema must be of type object"
    if own.tool.output_schema is not None and own.tool.output_schema.get("type") != "object":
        yield "a tool's outputSchema must be of type object"
    if not own.tool.description.strip():
        yield "a function's tool needs a description: it is what an AI goes by"


def lock(folder: Folder) -> Iterator[str]:
    """A missing lock is no broken rule here (a new entry is written before it is locked); CI asks for it."""
    if folder.lock is None or not folder.manifest.packages:
        return
    installed = _lock_packages(folder.lock)
    if installed is None:
        yield "package-lock.json must be of lockfileVersion 3"
        return
    pinned = folder.manifest.packages[0]
    extra = folder.manifest.own.install.extra if folder.manifest.own.install else {}
    if not _pins(installed, pinned, extra):
        besides = "".join(f", {name} to {found}" for name, found in extra.items())
        yield f"package-lock.json must pin {pinned.identifier} to {pinned.version}{besides}, and ask for nothing else"
    for path, each in installed.items():
        if path and not each.get("link") and not _INTEGRITY.match(str(each.get("integrity"))):
            yield f"package-lock.json: {path} has no sha512 integrity"
        if "resolved" in each:
            yield f"package-lock.json: {path} names a host under resolved; make it with --omit-lockfile-registry-resolved"


RULES: tuple[Rule, ...] = (
    schema,
    name,
    slug,
    texts,
    version,
    links,
    kind,
    remote,
    package,
    environment,
    templates,
    field_names,
    field_help,
    patterns,
    defaults,
    egress,
    tools,
    access,
    verify,
    lifecycle,
    runtime,
    variant,
    icon,
    function,
    lock,
)


def _inputs(folder: Folder) -> Iterator[Input]:
    for each in folder.manifest.packages:
        yield from each.environment_variables
        yield from each.package_arguments
    for remote in folder.manifest.remotes:
        yield Input(value=remote.url, variables=remote.variables)
        yield from remote.headers
    yield from folder.manifest.own.inputs


def _fields(folder: Folder) -> list[Field]:
    """None while a template is broken: that is `templates`' to say."""
    return [] if any(templates(folder)) else list(fields(folder.manifest))


def _canonical(host: str) -> str | None:
    try:
        return str(hosts.rule(host))
    except Invalid:
        return None


def _http_check(folder: Folder, check: HttpCheck) -> Iterator[str]:
    host = check.url.removeprefix("https://").partition("/")[0].partition("?")[0]
    if not check.url.startswith("https://") or host not in folder.manifest.own.egress.hosts:
        yield f"check {check.id!r} must ask an https:// URL of a host under egress.hosts"
    known = {each.name for each in _fields(folder)}
    yield from (f"check {check.id!r} uses {{{each}}}, which is no field" for each in fields_of(check) if each not in known)
    if not check.ok:
        yield f"check {check.id!r} must say under ok what a good answer is"
    if not all(each.say for each in check.errors):
        yield f"check {check.id!r} must say of each error what is wrong"


def _says(check: HttpCheck | ToolCheck) -> bool:
    return bool(check.errors if isinstance(check, HttpCheck) else check.error or check.note)


def may_be_sent(header: str) -> bool:
    """Whether a manifest may set this header: not one that steers the connection or the protocol."""
    return bool(_HEADER.match(header)) and header.lower() not in _OWN_HEADERS and not header.lower().startswith("mcp-")


def _auth_fields(folder: Folder) -> list[str]:
    auth = folder.manifest.own.auth
    if auth is None:
        return []
    who = auth.identity.client_id if auth.identity is not None else ""
    return variables("".join((auth.client_id or "", who, *auth.secrets.values())))


def _is_secret_name(text: str) -> bool:
    try:
        names.secret_name(text)
    except Invalid:
        return False
    return True


def _lock_packages(text: str) -> dict[str, dict[str, Any]] | None:
    try:
        whole = msgspec.json.decode(text, type=dict[str, Any])
        if whole.get("lockfileVersion") != 3:
            return None
        return msgspec.convert(whole.get("packages"), dict[str, dict[str, Any]])
    except (msgspec.DecodeError, RecursionError):
        return None


def _pins(installed: dict[str, dict[str, Any]], pinned: Package, extra: dict[str, str]) -> bool:
    wanted = {pinned.identifier: pinned.version, **extra}
    found = {name: installed.get(f"node_modules/{name}", {}).get("version") for name in wanted}
    return installed.get("", {}).get("dependencies") == wanted == found
