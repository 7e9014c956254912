"""A registry's `server.json` (schema 2025-12-11, and what the registry's API answers around it): nearly a manifest already.

What it may start is what the catalogue may: an npm or PyPI package that speaks on stdio, or a server elsewhere. Each of them that
it offers is one to choose from. Its own members for Rootlink (`_meta`) keep how the form looks, and nothing that only an entry of
the catalogue may say: no lock, no function, no checks, no files, no patterns, no labels of tools.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rootlink import shapes
from rootlink.catalog import rules
from rootlink.catalog.field import variables
from rootlink.catalog.folder import Folder
from rootlink.catalog.foreign import guess
from rootlink.catalog.foreign.form import NAMESPACE, Pasted, connection_name
from rootlink.catalog.manifest import META, SCHEMA, Manifest
from rootlink.egress import hosts
from rootlink.errors import Invalid

_STARTED = ("npm", "pypi")
_KEPT = ("fields", "access", "egress", "runtime", "inputs")
_LONGEST = 100


def is_one(value: dict[str, Any]) -> bool:
    return ("packages" in value or "remotes" in value) and isinstance(value.get("name"), str)


def read(value: dict[str, Any]) -> list[Pasted]:
    """`Invalid` when it offers nothing that can be connected, saying what it does offer."""
    packages = [each for each in _listed(value, "packages") if _usable(each)]
    remotes = [each for each in _listed(value, "remotes") if each.get("type") in ("streamable-http", "sse")]
    if not packages and not remotes:
        every = (*_listed(value, "packages"), *_listed(value, "remotes"))
        offers = ", ".join(sorted({str(each.get("registryType") or each.get("type"))[:40] for each in every})) or "nothing"
        raise Invalid(f"this server.json offers {offers}: npm and pypi packages on stdio are taken, and remotes by HTTP")
    alternatives = [("packages", each) for each in packages] + [("remotes", each) for each in remotes]
    return [_one(value, member, each) for member, each in alternatives]


def _listed(value: dict[str, Any], member: str) -> list[dict[str, Any]]:
    found = value.get(member) or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Invalid(f"`{member}` of a server.json must be a list of objects")
    return found


def _object(value: dict[str, Any], member: str) -> dict[str, Any]:
    found = value.get(member) or {}
    if not isinstance(found, dict):
        raise Invalid(f"`{member}` of a server.json must be an object")
    return found


def _usable(package: dict[str, Any]) -> bool:
    transport = package.get("transport")
    return package.get("registryType") in _STARTED and (
        not isinstance(transport, dict) or transport.get("type", "stdio") == "stdio"
    )


def _one(value: dict[str, Any], member: str, each: dict[str, Any]) -> Pasted:
    name = str(value["name"])
    slug = connection_name(name, set())
    own = (value.get("_meta") or {}).get(META) if isinstance(value.get("_meta"), dict) else None
    own = own if isinstance(own, dict) else {}
    warnings: list[str] = []
    if member == "packages":
        each = _package(each, warnings)
    else:
        each = {**each, "headers": [_named(one) for one in _listed(each, "headers")], "variables": _object(each, "variables")}
    reached = _hosts(each, own)
    kept = {key: own[key] for key in _KEPT if key in own} | {"egress": {"hosts": reached} if reached else {"none": True}}
    sites = _sites(own)  # hosts are asked for by themselves
    kept["inputs"] = [one for one in _listed(kept, "inputs") if one.get("name") not in sites]
    kept["fields"] = {
        field: {key: said for key, said in hint.items() if key != "pattern"}
        for field, hint in _object(kept, "fields").items()
        if isinstance(hint, dict) and field not in sites
    }
    if member == "remotes" and not any(_asks_secret(one) for one in (*each["headers"], *each["variables"].values())):
        kept["auth"] = {"kind": "oauth"}
    whole = {
        "$schema": SCHEMA,
        "name": f"{NAMESPACE}/{slug}",
        "title": str(value.get("title") or slug)[:_LONGEST].strip(),
        "description": str(value.get("description") or name)[:_LONGEST].strip(),
        "version": str(value.get("version") or "1.0.0"),
        member: [each],
        "_meta": {META: {"access": _access(member), **kept, "kind": "mcp", "slug": slug, "categories": ["custom"]}},
    }
    try:
        manifest = msgspec.convert(whole, Manifest)
    except msgspec.ValidationError as error:
        raise Invalid(f"this server.json can't be read: {shapes.words(str(error))}") from None
    if wrong := next(rules.templates(Folder(slug, manifest)), None):
        raise Invalid(f"this server.json can't be read: {wrong[:200]}")
    return Pasted(name=slug, manifest=manifest, hosts=reached, warnings=warnings)


def _sites(own: dict[str, Any]) -> list[Any]:
    egress = own.get("egress")
    named = egress.get("fromHosts") if isinstance(egress, dict) else None
    return named if isinstance(named, list) else []


def _asks_secret(one: Any) -> bool:
    return isinstance(one, dict) and (
        bool(one.get("isSecret")) or any(_asks_secret(each) for each in _object(one, "variables").values())
    )


def _access(member: str) -> list[str]:
    where = (
        "Is a server that somebody else runs: what the AI sends to its tools goes there"
        if member == "remotes"
        else "Runs a program that nobody here has looked at, kept behind a door of its own"
    )
    return [where, "Reaches the hosts you allow it, and no other"]


def _package(package: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    if package.get("runtimeArguments"):
        warnings.append("its runtimeArguments are left out: how a package is started is Rootlink's to decide")
    return {
        "registryType": package["registryType"],
        "identifier": str(package.get("identifier") or ""),
        "version": str(package.get("version") or ""),
        "transport": {"type": "stdio"},
        "packageArguments": [_argument(one) for one in _listed(package, "packageArguments")],
        "environmentVariables": [_named(one) for one in _listed(package, "environmentVariables")],
    }


def _argument(one: Any) -> Any:
    """A positional argument without a name of its own gets one, for the form."""
    if not isinstance(one, dict):
        return one
    bare = not one.get("valueHint") and not one.get("name") and one.get("value") is None
    return _named({**one, **({"valueHint": "value"} if bare else {})})


def _named(one: Any) -> Any:
    """A fixed value with a credential in it is not the publisher's to hand out; a default is none of a secret's."""
    if not isinstance(one, dict):
        return one
    value = one.get("value")
    if isinstance(value, str) and not variables(value) and guess.looks_secret(value):
        raise Invalid(f"this server.json has a credential in it, as the value of {str(one.get('name'))[:60]!r}")
    return {key: said for key, said in one.items() if not (key == "default" and one.get("isSecret"))}


def _hosts(each: dict[str, Any], own: dict[str, Any]) -> list[str]:
    egress = own.get("egress")
    said = egress.get("hosts") if isinstance(egress, dict) else None
    found = dict.fromkeys(host for host in said if _is_rule(host)) if isinstance(said, list) else {}
    url = str(each.get("url") or "")
    for text in (url, *(str(one.get("default") or one.get("value") or "") for one in each.get("environmentVariables") or [])):
        if not variables(text.partition("://")[2].partition("/")[0]):
            found |= dict.fromkeys(guess.hosts_in(text))
    return list(found)


def _is_rule(host: Any) -> bool:
    try:
        hosts.rule(host)
    except Invalid:
        return False
    return True
