"""Which locks are trusted: every package pinned to one version with a strong hash, all of them the registry's.

npm: package-lock.json, lockfileVersion 3, written with `--omit-lockfile-registry-resolved`; so an entry that still has
`resolved` is from elsewhere (git, a URL, a folder) and is refused. PyPI: requirements, each with `==` and `--hash=sha256:`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from rootlink.egress.hosts import shown
from rootlink.engine.packages.asks import Spec, normal_name
from rootlink.errors import Invalid

_STRONG = re.compile(r"sha(?:256|384|512)-[A-Za-z0-9+/=]{40,}")
_PLACE = re.compile(r"(?:node_modules/(?:@[A-Za-z0-9._~-]+/)?[A-Za-z0-9~][A-Za-z0-9._~-]*/?)+(?<!/)\Z")
_PINNED = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[A-Za-z0-9,._-]+\])?==(?P<version>[A-Za-z0-9.!+_-]+)(?:\s*;(?P<marker>.*))?\Z"
)
_MARKER = re.compile(r"[A-Za-z0-9_.'\"<>=!~ ()-]*\Z")
_HASH = re.compile(r"--hash=sha(?:256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})\Z")


@dataclass(frozen=True, slots=True)
class NpmLock:
    """A checked package-lock.json. `text` is what npm gets; `root` the dependencies asked for; `versions` theirs, by name."""

    text: str
    root: dict[str, str]
    versions: dict[str, str]
    count: int

    @property
    def contents(self) -> object:
        """What it installs, however it was asked for: equal for locks of the same packages."""
        return {place: entry for place, entry in _packages(self.text).items() if place != ""}

    def require(self, specs: tuple[Spec, ...]) -> None:
        """Raises `Invalid` unless the lock is of the packages that are asked for."""
        _require(self.versions, specs)


def npm_lock(text: str) -> NpmLock:
    """Raises `Invalid` naming the entry and the rule it breaks."""
    packages = _packages(text)
    top = packages.get("")
    root = top.get("dependencies") if isinstance(top, dict) else None
    if not isinstance(root, dict) or not root:
        raise Invalid("the package lock names no dependencies of its own")
    entries = {place: entry for place, entry in packages.items() if place != ""}
    for place, entry in entries.items():
        _check_entry(place, entry)
    versions = {name: str(entries.get(f"node_modules/{name}", {}).get("version", "")) for name in root}
    return NpmLock(text, {str(name): str(wanted) for name, wanted in root.items()}, versions, len(entries))


def _packages(text: str) -> dict[str, Any]:
    try:
        lock = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Invalid("the package lock is not JSON") from None
    if not isinstance(lock, dict) or lock.get("lockfileVersion") != 3 or not isinstance(lock.get("packages"), dict):
        raise Invalid("the package lock is not a package-lock.json of lockfileVersion 3")
    packages: dict[str, Any] = lock["packages"]
    return packages


def _check_entry(place: str, entry: object) -> None:
    if not _PLACE.match(place) or ".." in place or not isinstance(entry, dict):
        raise Invalid(f"the package lock's entry {shown(place)} is not a package of the registry")
    if entry.get("link") or "resolved" in entry:
        raise Invalid(f"the package lock's entry {shown(place)} comes from outside the registry (a link, git, URL or folder)")
    integrity = entry.get("integrity")
    if entry.get("inBundle") and integrity is None:  # inside its parent's tarball, so under its parent's hash
        return
    if not isinstance(integrity, str) or not _STRONG.search(integrity):
        raise Invalid(f"the package lock's entry {shown(place)} has no integrity (sha256 or stronger)")


@dataclass(frozen=True, slots=True)
class PypiLock:
    """Checked requirements. `versions` by normalised name."""

    text: str
    versions: dict[str, str]

    @property
    def count(self) -> int:
        return len(self.versions)

    @property
    def contents(self) -> object:
        """As of npm's."""
        lines = (line.strip() for line in self.text.splitlines())
        return [line for line in lines if line and not line.startswith("#")]

    def require(self, specs: tuple[Spec, ...]) -> None:
        """Raises `Invalid` unless the lock is of the packages that are asked for."""
        _require(self.versions, specs)


def pypi_lock(text: str) -> PypiLock:
    """Raises `Invalid` naming the line and the rule it breaks."""
    versions: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, version = _requirement(line)
        versions[name] = version
    if not versions:
        raise Invalid("the requirements name no package")
    return PypiLock(text, versions)


def _requirement(line: str) -> tuple[str, str]:
    words, *hashes = re.split(r"\s+(?=--)", line.strip())
    match = _PINNED.match(words)
    if match is None or not hashes or not all(_HASH.match(text) for text in hashes) or not _MARKER.match(match["marker"] or ""):
        raise Invalid(f"the requirement {shown(line.strip())} is not of the form name==version --hash=sha256:…")
    return normal_name(match["name"]), match["version"]


def _require(versions: Mapping[str, str], specs: tuple[Spec, ...]) -> None:
    for spec in specs:
        version = versions.get(spec.name)
        if not version:
            raise Invalid(f"the lock does not hold {spec.name}")
        if not spec.meets(version):
            raise Invalid(f"the lock holds {spec.name} {version}, not {spec.exact}")
