"""A server that somebody brought: the manifest they pasted becomes an `Entry`, as if the catalogue had it.

Rule 1. A stranger's manifest gets no more than a stranger: no lock, no code, no files, no checks, no patterns, and no labels that
        would let a tool write without asking. What it may reach is the hosts that whoever connects it names.
Rule 2. It is judged by the catalogue's own rules, as far as they are not about an entry's being complete; its size is limited.
Rule 3. No credential is in it: `catalog/foreign/` has put a field in the place of each. One that is there all the same is
        refused, since the row keeps the manifest as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from rootlink import shapes
from rootlink.catalog import Entry, rules
from rootlink.catalog.folder import Folder
from rootlink.catalog.foreign import guess
from rootlink.catalog.manifest import META, Egress, Input, Manifest, SignIn
from rootlink.egress import hosts as egress_hosts
from rootlink.errors import Invalid, TooLarge

if TYPE_CHECKING:
    from rootlink.gateway.connect import Wish

CONNECTOR = "custom"
MOST = 64 * 1024  # bytes of a manifest
MOST_FIELDS, MOST_HOSTS = 100, 50
_RULES: tuple[rules.Rule, ...] = (
    *(
        rules.schema,
        rules.slug,
        rules.name,
        rules.links,
        rules.environment,
        rules.templates,
        rules.defaults,
        rules.egress,
        rules.runtime,
    ),
)
_NOT_A_STRANGERS = ("install", "function", "files", "verify", "tools")
_VERSION = re.compile(r"([~^]?[0-9A-Za-z][0-9A-Za-z.+!-]*)?\Z")
_PROGRAM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_EXTRAS = re.compile(r"\[[A-Za-z0-9,._-]+\]\Z")
_GIVE = "give what POST …/paste answers as `manifest`"
_REMOTE = re.compile(r"https?://[^\s/?#@\\]+(?:[/?][^\s\\]*)?\Z")


def entry(wish: Wish) -> tuple[Entry, bytes]:
    """The entry for a wish with connector `custom`, and the manifest as the row keeps it. Raises `Invalid`, `TooLarge`."""
    server = getattr(wish, "server", None)
    if server is None:
        raise Invalid(f"connector custom needs `server`; {_GIVE}, or: rootlink import FILE", data={"field": "server"})
    try:
        manifest = checked(decoded(server), getattr(wish, "hosts", None) or [])
        return Entry.from_manifest(manifest), msgspec.json.encode(manifest)
    except RecursionError:
        raise Invalid(f"`server` is nested deeper than any manifest; {_GIVE}", data={"field": "server"}) from None


def kept(manifest: bytes) -> Manifest:
    """A row's own, decoded. `Invalid` when it can't be."""
    try:
        return msgspec.json.decode(manifest, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid("what this connection was made from can't be read any more; disconnect it and paste it again") from None


def decoded(server: object) -> Manifest:
    try:
        size = len(msgspec.json.encode(server))
        if size > MOST:
            raise TooLarge(f"`server` is too large for a manifest: at most {MOST // 1024} KiB")
        return msgspec.convert(server, Manifest)
    except msgspec.ValidationError as error:
        raise Invalid(
            f"`server` is no manifest: {shapes.words(str(error))}; give what POST …/paste answers as `manifest`"
        ) from None
    except (TypeError, RecursionError):
        raise Invalid(f"`server` is no manifest; {_GIVE}") from None


def checked(manifest: Manifest, hosts: list[str]) -> Manifest:
    """`manifest` as it is kept, with `hosts` in the place of its own, which open nothing. `Invalid` with what is wrong."""
    chosen = list(dict.fromkeys(str(egress_hosts.rule(host)) for host in hosts))
    if len(chosen) > MOST_HOSTS:
        raise Invalid(f"a server may be given at most {MOST_HOSTS} hosts", data={"field": "hosts"})
    manifest = _with_egress(manifest, Egress(hosts=chosen) if chosen else Egress(none=True))
    folder = Folder(manifest.own.slug, manifest)
    problems = [*_shape(manifest), *(problem for rule in _RULES for problem in rule(folder))]
    if not problems:
        problems = [*_credentials(manifest), *_fields(manifest)]
    if problems:
        raise Invalid(f"this server can't be connected: {'; '.join(problems[:5])}", data={"field": "server"})
    return manifest


def _with_egress(manifest: Manifest, egress: Egress) -> Manifest:
    own = msgspec.structs.replace(manifest.own, egress=egress)
    return msgspec.structs.replace(manifest, meta=msgspec.structs.replace(manifest.meta, own=own))


def _shape(manifest: Manifest) -> Iterator[str]:
    own = manifest.own
    if own.kind != "mcp" or len(manifest.packages) + len(manifest.remotes) != 1:
        yield "it must be one package or one remote"
    yield from (
        f"`{META}` may not say `{member}`: that is the catalogue's" for member in _NOT_A_STRANGERS if getattr(own, member)
    )
    if any(hint.pattern is not None for hint in own.fields.values()):
        yield "fields may have no `pattern`: that is the catalogue's"
    if own.auth is not None and (not manifest.remotes or own.auth != SignIn(kind=own.auth.kind, scopes=own.auth.scopes)):
        yield "`auth` is for a remote, and says no client of its own: one registers itself"
    for package in manifest.packages:
        bare = _EXTRAS.sub("", package.identifier) if package.registry_type == "pypi" else package.identifier
        if not rules.IDENTIFIERS[package.registry_type].match(bare) or len(package.identifier) > 214:
            yield f"{package.identifier[:80]!r} is not one of {package.registry_type}'s names"
        if not _VERSION.match(package.version):
            yield f"{package.version[:40]!r} is no version"
        if package.transport.type != "stdio" or package.runtime_arguments:
            yield "a package speaks on stdio, and how it is started is Rootlink's to decide"
    if own.runtime.program is not None and not _PROGRAM.match(own.runtime.program):
        yield "`program` is not the name of a package's program"
    for remote in manifest.remotes:
        if not own.egress.hosts:
            yield "it is a server elsewhere: name its host under `hosts`, or nothing can be asked of it"
        if not _REMOTE.match(remote.url):
            yield "the url of a remote must begin with https:// (or http://), name its host, and hold no spaces and no user"
        for header in remote.headers:
            if not rules.may_be_sent(header.name):
                yield f"the header {header.name[:60]!r} is the protocol's own"


def _credentials(manifest: Manifest) -> Iterator[str]:
    """Rule 3."""
    for name, each in _inputs(manifest):
        for text in (each.value, each.default):
            if text and not guess.left_open(text) and guess.looks_secret(_bare(text)):
                yield f"a credential stands in {name[:60]!r} itself: paste the whole again, so that it becomes a field"
    for remote in manifest.remotes:
        if guess.url_holds_secret(_bare(remote.url)):
            yield "a credential stands in the url itself: paste the whole again, so that it becomes a field"


def _fields(manifest: Manifest) -> Iterator[str]:
    fields = Entry.from_manifest(manifest).fields
    if len(fields) > MOST_FIELDS:
        yield f"it asks for {len(fields)} fields, and at most {MOST_FIELDS} are taken"
    names = [field.name for field in fields]
    yield from (f"there are two fields {name[:60]!r}" for name in dict.fromkeys(names) if names.count(name) > 1)
    yield from (f"a secret must have no default ({field.name[:60]!r})" for field in fields if field.secret and field.default)


def _inputs(manifest: Manifest) -> Iterator[tuple[str, Input]]:
    def all_of(name: str, each: Input) -> Iterator[tuple[str, Input]]:
        yield name, each
        for variable, inner in each.variables.items():
            yield from all_of(variable, inner)

    for package in manifest.packages:
        for named in package.environment_variables:
            yield from all_of(named.name, named)
        for argument in package.package_arguments:
            yield from all_of(argument.label, argument)
    for remote in manifest.remotes:
        for header in remote.headers:
            yield from all_of(header.name, header)
        for variable, inner in remote.variables.items():
            yield from all_of(variable, inner)
    for named in manifest.own.inputs:
        yield from all_of(named.name, named)


def _bare(template: str) -> str:
    """Without the places of its variables, which are no credential though they stand where one would."""
    return re.sub(r"\{[A-Za-z_][A-Za-z0-9_]*\}", "", template)
