"""Each rule has at least one entry that breaks it, made from one that keeps them all by changing one thing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rootlink import catalog
from rootlink.catalog import folder, rules
from rootlink.catalog.folder import Folder
from rootlink.catalog.manifest import META, SCHEMA, Manifest
from rootlink.errors import Invalid

Json = dict[str, Any]

TOOL = {
    "name": "send",
    "title": "Send",
    "description": "Send one.",
    "inputSchema": {"type": "object", "properties": {}},
}
KEY = {"name": "API_KEY", "description": "The key", "isRequired": True, "isSecret": True, "placeholder": "k_…"}
KEY_FIELD = {"label": "Key", "pattern": "^k_[a-z]+$", "helpUrl": "https://example.com/keys", "steps": ["Copy it"]}

MCP: Json = {
    "$schema": SCHEMA,
    "name": "dev.rootlink/sample",
    "title": "Sample",
    "description": "A sample.",
    "version": "1.0.0",
    "websiteUrl": "https://example.com",
    "repository": {"url": "https://example.com/repo", "source": "github"},
    "icons": [{"src": "https://example.com/icon.svg"}],
    "packages": [
        {
            "registryType": "npm",
            "identifier": "@acme/sample",
            "version": "2.3.4",
            "runtimeHint": "npx",
            "transport": {"type": "stdio"},
            "environmentVariables": [KEY],
            "packageArguments": [
                {
                    "type": "positional",
                    "valueHint": "folders",
                    "description": "Where",
                    "format": "filepath",
                    "isRepeated": True,
                    "default": "{files}",
                    "variables": {"files": {"description": "The project's own"}},
                }
            ],
        }
    ],
    "_meta": {
        META: {
            "kind": "mcp",
            "slug": "sample",
            "categories": ["tests"],
            "fields": {"API_KEY": KEY_FIELD, "folders": {"label": "Folders", "paths": "write"}},
            "egress": {"hosts": ["api.example.com"]},
            "install": {"lock": "package-lock.json"},
            "tools": {
                "send": {"access": "write", "preview": "Send one"},
                "look": {"access": "read", "preview": "Look"},
                "wipe": {"access": "destructive", "preview": "Wipe all", "default": "off"},
            },
            "access": ["Sends"],
            "files": {"sample.toml": 'key = "${API_KEY}"'},
            "verify": [
                {
                    "id": "key",
                    "title": "Asks whose key it is",
                    "type": "http",
                    "url": "https://api.example.com/me",
                    "headers": {"x": "{API_KEY}"},
                    "ok": [{"status": 200, "label": "{name}"}],
                    "errors": [{"status": 401, "say": "Not a key."}],
                },
                {"id": "look", "title": "Looks", "type": "tool", "tool": "look", "severity": "warn", "error": "Nothing to see."},
            ],
        }
    },
}

REMOTE: Json = {
    **{member: MCP[member] for member in ("$schema", "name", "title", "description", "version")},
    "remotes": [
        {
            "type": "streamable-http",
            "url": "https://mcp.example.com/{place}",
            "variables": {"place": {"description": "Where", "default": "here"}},
            "headers": [{"name": "Authorization", "value": "Bearer {API_KEY}", "variables": {"API_KEY": {**KEY, "name": None}}}],
        }
    ],
    "_meta": {
        META: {
            **{m: MCP["_meta"][META][m] for m in ("kind", "slug", "categories", "access")},
            "fields": {"API_KEY": KEY_FIELD, "place": {"label": "Place"}},
            "egress": {"hosts": ["mcp.example.com"]},
            "variant": {"name": "far", "title": "Far away"},
        }
    },
}

SIGNED: Json = {
    **{member: REMOTE[member] for member in ("$schema", "name", "title", "description", "version")},
    "remotes": [{"type": "streamable-http", "url": "https://mcp.example.com/mcp"}],
    "_meta": {
        META: {
            **{m: REMOTE["_meta"][META][m] for m in ("kind", "slug", "categories", "access", "egress")},
            "inputs": [{"name": "CLIENT", "description": "Who", "isRequired": True}, {**KEY, "name": "CLIENT_SECRET"}],
            "fields": {"CLIENT": {"label": "Client"}, "CLIENT_SECRET": KEY_FIELD},
            "auth": {"kind": "oauth", "clientId": "{CLIENT}", "clientSecret": "{CLIENT_SECRET}", "scopes": ["read"]},
        }
    },
}

IDENTITY: Json = {"tokenEndpoint": "https://idp.example.com/token", "clientId": "us", "idToken": "{CLIENT_SECRET}"}
PROVIDED: Json = {"kind": "oauth", "clientId": "{CLIENT}", "clientSecret": "{CLIENT_SECRET}", "unattended": True}

ICON = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><path d="M1 1h9" fill="#abc"/></svg>'

FUNCTION: Json = {
    **{member: MCP[member] for member in ("$schema", "name", "title", "description", "version")},
    "_meta": {
        META: {
            **{m: MCP["_meta"][META][m] for m in ("slug", "categories", "egress", "access")},
            "kind": "function",
            "tools": {"send": {"access": "write", "preview": "Send one"}},
            "inputs": [KEY],
            "fields": {"API_KEY": KEY_FIELD},
            "function": {"entry": "send.js", "tool": TOOL},
        }
    },
}

INTEGRITY = "sha512-" + "A" * 86 + "=="
LOCK: Json = {
    "lockfileVersion": 3,
    "packages": {
        "": {"dependencies": {"@acme/sample": "2.3.4"}},
        "node_modules/@acme/sample": {"version": "2.3.4", "integrity": INTEGRITY},
        "node_modules/other": {"version": "1.0.0", "integrity": INTEGRITY},
    },
}
SAMPLE = ("node_modules/@acme/sample",)
PACKAGE = ("packages", 0)
OWN = ("_meta", META)
ENV = (*PACKAGE, "environmentVariables", 0)
ARGUMENT = (*PACKAGE, "packageArguments", 0)


def made(
    manifest: Json,
    *,
    slug: str = "sample",
    lock: Json | str | None = None,
    code: str | None = "async () => 1",
    icon: str | None = ICON,
    variants: dict[str, Folder] | None = None,
) -> Folder:
    text = lock if lock is None or isinstance(lock, str) else msgspec.json.encode(lock).decode()
    is_function = manifest["_meta"][META]["kind"] == "function"
    return Folder(slug, msgspec.convert(manifest, Manifest), text, code if is_function else None, icon, variants or {})


def changed(whole: Json, path: tuple[Any, ...], value: Any) -> Json:
    """A copy with one member replaced; taken out if the value is `...`."""
    result = copy.deepcopy(whole)
    place: Any = result
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return result


def mcp(*path: Any, to: Any) -> Folder:
    return made(changed(MCP, path, to))


def function(*path: Any, to: Any) -> Folder:
    return made(changed(FUNCTION, path, to))


def lock(*path: Any, to: Any) -> Folder:
    return made(MCP, lock=changed(LOCK, path, to))


def far(*path: Any, to: Any) -> Folder:
    return made(changed(REMOTE, path, to))


def signed(*path: Any, to: Any) -> Folder:
    return made(changed(SIGNED, path, to))


def varied(*path: Any, to: Any, name: str = "far") -> Folder:
    """A connector with one variant, in which something is changed."""
    whole = changed(MCP, (*OWN, "variant"), {"title": "Near"})
    return made(whole, variants={name: made(changed(REMOTE, path, to) if path else REMOTE, icon=None)})


def drawn(inside: str = "", *, attributes: str = 'viewBox="0 0 24 24"', before: str = "") -> Folder:
    return made(MCP, icon=f'{before}<svg xmlns="http://www.w3.org/2000/svg" {attributes}>{inside}</svg>')


BROKEN: dict[str, list[tuple[str, Callable[[], Folder]]]] = {
    "schema": [("another schema", lambda: mcp("$schema", to="https://example.com/schema.json"))],
    "name": [
        ("no slash", lambda: mcp("name", to="dev.rootlink.sample")),
        ("two slashes", lambda: mcp("name", to="dev.rootlink/a/sample")),
        ("no domain", lambda: mcp("name", to="rootlink/sample")),
        ("a space", lambda: mcp("name", to="dev.rootlink/sam ple")),
    ],
    "slug": [
        ("another folder", lambda: made(MCP, slug="other")),
        ("another name", lambda: mcp("name", to="dev.rootlink/other")),
        (
            "no connection's name",
            lambda: made(changed(changed(MCP, (*OWN, "slug"), "a__b"), ("name",), "dev.rootlink/a__b"), slug="a__b"),
        ),
    ],
    "texts": [
        ("no description", lambda: mcp("description", to="")),
        ("a long description", lambda: mcp("description", to="x" * 101)),
        ("a title with spaces around", lambda: mcp("title", to=" Sample")),
        ("no category", lambda: mcp(*OWN, "categories", to=[])),
    ],
    "version": [
        ("a range", lambda: mcp(*PACKAGE, "version", to="^2.3.4")),
        ("a tag", lambda: mcp(*PACKAGE, "version", to="latest")),
        ("a wildcard", lambda: mcp("version", to="1.*")),
        ("an option", lambda: mcp(*PACKAGE, "version", to="1.0.0 --registry=x")),
    ],
    "links": [
        ("http", lambda: mcp("websiteUrl", to="http://example.com")),
        ("an icon in the page", lambda: mcp("icons", to=[{"src": "data:image/svg+xml,x"}])),
        ("a script", lambda: mcp(*OWN, "fields", "API_KEY", "helpUrl", to="javascript:alert(1)")),
        ("a git link", lambda: mcp("repository", "url", to="git://example.com/x")),
    ],
    "kind": [
        ("mcp without a package", lambda: mcp("packages", to=[])),
        ("mcp with a function", lambda: mcp(*OWN, "function", to={"entry": "x.js", "tool": TOOL})),
        ("mcp without a lock's name", lambda: mcp(*OWN, "install", to=...)),
        ("function without a function", lambda: function(*OWN, "function", to=...)),
        ("function with a package", lambda: function("packages", to=MCP["packages"])),
        ("function with a file", lambda: function(*OWN, "files", to={"a": ""})),
        ("a package and a remote", lambda: mcp("remotes", to=REMOTE["remotes"])),
        ("two remotes", lambda: far("remotes", to=REMOTE["remotes"] * 2)),
        ("a remote with a lock's name", lambda: far(*OWN, "install", to={})),
        ("a remote with a file", lambda: far(*OWN, "files", to={"a": ""})),
        ("a package that is signed in to", lambda: mcp(*OWN, "auth", to={"kind": "oauth"})),
        ("an input nothing uses", lambda: mcp(*OWN, "inputs", to=[{"name": "X", "description": "x"}])),
    ],
    "remote": [
        ("no tls", lambda: far("remotes", 0, "url", to="http://mcp.example.com/{place}")),
        ("another host", lambda: far("remotes", 0, "url", to="https://evil.example/{place}")),
        ("a host to fill in", lambda: far("remotes", 0, "url", to="https://{place}.example.com/")),
        ("a secret in its address", lambda: far("remotes", 0, "variables", "place", "isSecret", to=True)),
        ("the protocol's header", lambda: far("remotes", 0, "headers", 0, "name", to="Mcp-Session-Id")),
        ("a header of the connection's", lambda: far("remotes", 0, "headers", 0, "name", to="Host")),
        ("a client from nowhere", lambda: signed(*OWN, "auth", "clientId", to="{NOBODY}")),
        ("a client's secret that is shown", lambda: signed(*OWN, "auth", "clientSecret", to="{CLIENT}")),
        ("a client's key that is shown", lambda: signed(*OWN, "auth", "privateKey", to="{CLIENT}")),
        ("a client by itself, with nothing", lambda: signed(*OWN, "auth", to={"kind": "oauth", "unattended": True})),
        ("an assertion where a person signs in", lambda: signed(*OWN, "auth", "assertion", to="{CLIENT_SECRET}")),
        ("an identity provider elsewhere", lambda: signed(*OWN, "auth", to=PROVIDED | {"identity": IDENTITY})),
    ],
    "package": [
        ("an option as a name", lambda: mcp(*PACKAGE, "identifier", to="--registry=x")),
        ("a url as a name", lambda: mcp(*PACKAGE, "identifier", to="https://example.com/x.tgz")),
        ("a path as a name", lambda: mcp(*PACKAGE, "identifier", to="../x")),
        ("not stdio", lambda: mcp(*PACKAGE, "transport", "type", to="sse")),
        ("another runner", lambda: mcp(*PACKAGE, "runtimeHint", to="docker")),
        ("node options", lambda: mcp(*PACKAGE, "runtimeArguments", to=[{"type": "positional", "value": "--inspect"}])),
        ("a secret on the command line", lambda: mcp(*ARGUMENT, "isSecret", to=True)),
        (
            "a secret within an argument",
            lambda: mcp(*ARGUMENT, to={"type": "positional", "value": "k={K}", "variables": {"K": KEY}}),
        ),
    ],
    "environment": [
        ("no variable's name", lambda: mcp(*ENV, "name", to="API-KEY")),
        ("code to load", lambda: mcp(*ENV, "name", to="NODE_OPTIONS")),
        ("a library to load", lambda: function(*OWN, "inputs", 0, "name", to="LD_PRELOAD")),
        ("a proxy", lambda: mcp(*ENV, "name", to="https_proxy")),
        (
            "a secret no vault could name",
            lambda: far("remotes", 0, "headers", 0, to={**KEY, "name": "X-Key", "value": None}),
        ),
        ("a file outside its folder", lambda: mcp(*OWN, "files", to={"../x": ""})),
        ("a file with a secret it is not given", lambda: mcp(*OWN, "files", to={"x": "${OTHER}"})),
        ("a file with a reference cut off", lambda: mcp(*OWN, "files", to={"x": "${OTHER"})),
    ],
    "templates": [
        ("a variable nobody declared", lambda: mcp(*ENV, "value", to="{state}/x")),
        ("a default with a field", lambda: mcp(*ARGUMENT, "default", to="{HOME}")),
        ("a place nobody declared", lambda: far("remotes", 0, "variables", to={})),
    ],
    "field_names": [
        ("two of one name", lambda: mcp(*ARGUMENT, "valueHint", to="API_KEY")),
        ("a hint for nothing", lambda: mcp(*OWN, "fields", "TYPO", to={"label": "x"})),
        ("a field without a hint", lambda: mcp(*OWN, "fields", "API_KEY", to=...)),
    ],
    "field_help": [
        ("no words", lambda: mcp(*ARGUMENT, "description", to="")),
        ("a secret from nowhere", lambda: mcp(*OWN, "fields", "API_KEY", "helpUrl", to=...)),
        ("a secret with a default", lambda: mcp(*ENV, "default", to="k_abc")),
    ],
    "patterns": [
        ("open at the end", lambda: mcp(*OWN, "fields", "API_KEY", "pattern", to="^k_")),
        ("no expression", lambda: mcp(*OWN, "fields", "API_KEY", "pattern", to="^(k$")),
    ],
    "defaults": [
        ("a default that is refused", lambda: mcp(*ARGUMENT, "default", to="relative/path")),
        ("a default that is no choice", lambda: mcp(*ARGUMENT, "choices", to=["/a", "/b"])),
    ],
    "egress": [
        ("hosts and none", lambda: mcp(*OWN, "egress", to={"hosts": ["a.example"], "none": True})),
        ("nothing said", lambda: mcp(*OWN, "egress", to={})),
        ("a url", lambda: mcp(*OWN, "egress", "hosts", to=["https://api.example.com"])),
        ("a wildcard", lambda: mcp(*OWN, "egress", "hosts", to=["*.example.com"])),
        ("capitals", lambda: mcp(*OWN, "egress", "hosts", to=["API.example.com"])),
        ("a field that is not there", lambda: mcp(*OWN, "egress", to={"fromUrl": ["DSN"]})),
        ("hosts that are a secret", lambda: mcp(*OWN, "egress", to={"fromHosts": ["API_KEY"]})),
        ("hosts and hosts of a field", lambda: mcp(*OWN, "egress", to={"hosts": ["a.example"], "fromHosts": ["folders"]})),
    ],
    "tools": [
        ("none", lambda: mcp(*OWN, "tools", to={})),
        ("no words", lambda: mcp(*OWN, "tools", "send", "preview", to="")),
        ("another than the function's", lambda: function(*OWN, "tools", to={"other": {"access": "read", "preview": "x"}})),
    ],
    "access": [
        ("nothing said", lambda: mcp(*OWN, "access", to=[])),
        ("an empty sentence", lambda: mcp(*OWN, "access", to=[" "])),
    ],
    "verify": [
        ("two of one id", lambda: mcp(*OWN, "verify", 1, "id", to="key")),
        ("no words for a person", lambda: mcp(*OWN, "verify", 1, "title", to=" ")),
        ("a warning of nothing", lambda: mcp(*OWN, "verify", 1, "error", to=...)),
        ("an error without words", lambda: mcp(*OWN, "verify", 0, "errors", to=[{"status": 401}])),
        ("nothing that is good", lambda: mcp(*OWN, "verify", 0, "ok", to=[])),
        ("a tool that does more than read", lambda: mcp(*OWN, "verify", 1, "tool", to="send")),
        ("a field in the address that is not there", lambda: mcp(*OWN, "verify", 0, "url", to="https://api.example.com/{OTHER}")),
        ("a host that is not allowed", lambda: mcp(*OWN, "verify", 0, "url", to="https://evil.example/me")),
        ("no tls", lambda: mcp(*OWN, "verify", 0, "url", to="http://api.example.com/me")),
        ("a field that is not there", lambda: mcp(*OWN, "verify", 0, "headers", to={"x": "{OTHER}"})),
        ("a tool that is not there", lambda: mcp(*OWN, "verify", 1, "tool", to="other")),
        (
            "a url that is not opened",
            lambda: mcp(*OWN, "verify", to=[{"id": "t", "title": "t", "type": "tcp", "fromUrl": "API_KEY", "error": "e"}]),
        ),
    ],
    "lifecycle": [("archived for no reason", lambda: mcp(*OWN, "lifecycle", to={"status": "archived"}))],
    "runtime": [
        ("no calls at once", lambda: mcp(*OWN, "runtime", to={"concurrency": 0})),
        ("no time to start", lambda: mcp(*OWN, "runtime", to={"startTimeoutS": 0})),
        ("an hour", lambda: function(*OWN, "function", "timeoutS", to=3600)),
    ],
    "variant": [
        ("another name than its folder's", lambda: varied(*OWN, "variant", "name", to="near")),
        ("no name", lambda: varied(*OWN, "variant", to=...)),
        ("no title", lambda: varied(*OWN, "variant", "title", to=" ")),
        ("another connector", lambda: varied("name", to="dev.rootlink/other")),
        ("a name no option takes", lambda: varied(*OWN, "variant", "name", to="Far Away", name="Far Away")),
        ("a connector that does not say what it is itself", lambda: made(MCP, variants={"far": made(REMOTE, icon=None)})),
    ],
    "icon": [
        ("none", lambda: made(MCP, icon=None)),
        ("no drawing", lambda: made(MCP, icon="hello")),
        ("a page", lambda: made(MCP, icon="<html/>")),
        ("large", lambda: drawn("<g/>" * 600)),
        ("a script", lambda: drawn("<script>alert(1)</script>")),
        ("a handler", lambda: drawn("<path d='M1 1' onload='alert(1)'/>")),
        ("a link", lambda: drawn("<a href='https://example.com'><path d='M1 1'/></a>")),
        ("a link to elsewhere", lambda: drawn("<path d='M1 1' xmlns:x='http://www.w3.org/1999/xlink' x:href='#a'/>")),
        ("an image", lambda: drawn("<image width='9'/>")),
        ("a style", lambda: drawn("<style>path { fill: url(x) }</style>")),
        ("a style of its own", lambda: drawn("<path d='M1 1' style='fill: red'/>")),
        ("a paint from elsewhere", lambda: drawn("<path d='M1 1' fill='url(#a)'/>")),
        ("a page inside", lambda: drawn("<foreignObject/>")),
        ("an entity", lambda: drawn("<title>x</title>", before="<!DOCTYPE svg [<!ENTITY x 'y'>]>")),
        ("no size", lambda: drawn(attributes="")),
    ],
    "function": [
        ("no file", lambda: made(FUNCTION, code=None)),
        ("an empty file", lambda: made(FUNCTION, code="\n")),
        ("another body", lambda: function(*OWN, "function", "sha256", to="0" * 64)),
        ("an input that is no object", lambda: function(*OWN, "function", "tool", "inputSchema", to={"type": "array"})),
        ("an output that is no object", lambda: function(*OWN, "function", "tool", "outputSchema", to={"type": "string"})),
        ("no words for the AI", lambda: function(*OWN, "function", "tool", "description", to=" ")),
    ],
    "lock": [
        ("no json", lambda: made(MCP, lock="{")),
        ("an old lock", lambda: lock("lockfileVersion", to=1)),
        ("another version", lambda: lock("packages", *SAMPLE, "version", to="2.3.5")),
        ("a range", lambda: lock("packages", "", "dependencies", to={"@acme/sample": "^2.3.4"})),
        ("another package", lambda: lock("packages", "", "dependencies", to={"@acme/other": "2.3.4"})),
        ("dependencies of a wrong shape", lambda: lock("packages", "", "dependencies", to=["@acme/sample"])),
        ("no integrity", lambda: lock("packages", "node_modules/other", "integrity", to=...)),
        ("a weak integrity", lambda: lock("packages", "node_modules/other", "integrity", to="sha1-abc")),
        ("a host", lambda: lock("packages", "node_modules/other", "resolved", to="https://registry.example/x.tgz")),
    ],
}
CASES = [(rule, what, make) for rule, cases in BROKEN.items() for what, make in cases]


GOOD = {
    "mcp": made(MCP),
    "locked mcp": made(MCP, lock=LOCK),
    "function": made(FUNCTION),
    "remote": made(changed(REMOTE, (*OWN, "variant"), ...)),
    "signed in": made(SIGNED),
    "with a variant": varied(to=None),
}


@pytest.mark.parametrize("whole", GOOD.values(), ids=GOOD)
def test_an_entry_that_keeps_the_rules_has_no_problem(whole: Folder) -> None:
    assert rules.problems(whole) == []


def test_every_rule_has_an_entry_that_breaks_it() -> None:
    assert list(BROKEN) == [rule.__name__ for rule in rules.RULES]


@pytest.mark.parametrize(("rule", "make"), [(rule, make) for rule, _, make in CASES], ids=[f"{r}: {w}" for r, w, _ in CASES])
def test_a_broken_rule_is_found(rule: str, make: Callable[[], Folder]) -> None:
    assert {problem.partition(":")[0] for problem in rules.problems(make())} >= {rule}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "truncated"),
        (b'{"title": "\xff"}', "utf-8"),
        (b'{"x": ' + b"[" * 100_000, "recursion"),
        (msgspec.json.encode(changed(MCP, (*OWN, "fealds"), {})), "fealds"),
        (msgspec.json.encode(changed(MCP, (*OWN, "tools", "send", "access"), "maybe")), "maybe"),
        (msgspec.json.encode(changed(MCP, ("_meta",), {})), META),
        (msgspec.json.encode(changed(MCP, (*OWN, "verify", 0, "type"), "shell")), "shell"),
    ],
    ids=["cut off", "no text", "too deep", "a misspelt member", "no such access", "not ours", "no such check"],
)
def test_a_manifest_of_another_form_is_refused_and_says_where(tmp_path: Path, text: bytes, says: str) -> None:
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "connector.json").write_bytes(text)
    with pytest.raises(Invalid, match=f"(?i)connector 'sample'.*{says}"):
        catalog.load(tmp_path)


def test_one_broken_entry_stops_the_whole_load_and_names_every_problem(tmp_path: Path) -> None:
    for slug in ("sample", "other"):
        (tmp_path / slug).mkdir()
        (tmp_path / slug / "connector.json").write_bytes(msgspec.json.encode(changed(MCP, ("version",), "latest")))
    with pytest.raises(Invalid) as refused:
        catalog.load(tmp_path)
    assert refused.value.message.count("'latest' must be exact") == 2
    assert "slug 'sample' must be the folder's name 'other'" in refused.value.message


@pytest.mark.parametrize("entry", ["../outside.js", "/etc/passwd", "sub/x.js", ""])
def test_a_manifest_reads_no_file_outside_its_folder(tmp_path: Path, entry: str) -> None:
    (tmp_path / "outside.js").write_text("async () => 1")
    here = tmp_path / "sample"
    (here / "sub").mkdir(parents=True)
    (here / "sub" / "x.js").write_text("async () => 1")
    (here / "connector.json").write_bytes(msgspec.json.encode(changed(FUNCTION, (*OWN, "function", "entry"), entry)))
    assert folder.read(here).code is None
    with pytest.raises(Invalid, match="must be a file in the connector's folder"):
        catalog.load(tmp_path)
