"""Pins the npm packages of a catalogue entry: `scripts/lock_entry.py NAME [VARIANT]`

Which packages: that of its connector.json, `install.extra` besides. Writes package.json and package-lock.json next to it:
integrity on every entry, no hosts, and of the optional packages only those that `install.optional` keeps (and what they need), so
that an install needs no option and brings nothing that is not wanted. Review the diff of the lock, and of the tools the new
version lists, before committing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from rootlink.catalog import folder
from rootlink.engine.packages import asks, installer, locks
from rootlink.engine.packages.npm import Npm
from rootlink.errors import Invalid, RootlinkError

ENTRIES = Path(__file__).resolve().parent.parent / "src" / "rootlink" / "catalog" / "entries"
Places = dict[str, dict[str, Any]]


def pin(place: Path) -> str:
    """Writes the two files; answers what was pinned, in words. Raises `RootlinkError`."""
    manifest = folder.read(place).manifest
    if manifest.own.install is None or not manifest.packages or manifest.packages[0].registry_type != "npm":
        raise Invalid(f"{place.name} installs no npm package")
    wanted = {manifest.packages[0].identifier: manifest.packages[0].version, **manifest.own.install.extra}
    specs = [asks.npm_spec(f"{name}@{version}") for name, version in wanted.items()]
    with tempfile.TemporaryDirectory() as scratch:
        work, home = Path(scratch, "work"), Path(scratch, "home")
        work.mkdir()
        home.mkdir()
        npm = Npm(Path(scratch, "cache"), installer.environment(os.environ, home))
        lock = asyncio.run(npm.resolve(specs, ", ".join(wanted), work, name=manifest.own.slug))
        (place / "package.json").write_bytes((work / "package.json").read_bytes())
    kept = manifest.own.install.optional
    text = lock.text if kept is None else without_optional(lock.text, set(kept))
    (place / manifest.own.install.lock).write_text(text, encoding="utf-8")
    pinned = ", ".join(f"{name}@{version}" for name, version in lock.versions.items())
    missing = [name for name in kept or () if f'"node_modules/{name}"' not in text]
    lacks = f"; NOT IN THE REGISTRY ASKED: {', '.join(missing)}" if missing else ""
    return f"{place}: {pinned}; {locks.npm_lock(text).count} packages{lacks}"


def without_optional(text: str, kept: set[str]) -> str:
    """The lock without what only optional dependencies lead to, but for those that are kept."""
    lock = msgspec.json.decode(text)
    places: Places = lock["packages"]
    there = {place.rpartition("node_modules/")[2] for place in places}  # npm would ask the registry about one that is not
    for entry in places.values():
        _drop(entry, "optionalDependencies", kept & there)
    reached, waiting = {""}, [""]
    while waiting:
        for found in _needed(places, waiting.pop()):
            if found not in reached:
                reached.add(found)
                waiting.append(found)
    lock["packages"] = {place: entry for place, entry in places.items() if place in reached}
    return msgspec.json.format(msgspec.json.encode(lock), indent=2).decode() + "\n"


def _drop(entry: dict[str, Any], member: str, kept: set[str]) -> None:
    left = {name: wanted for name, wanted in entry.get(member, {}).items() if name in kept}
    if left:
        entry[member] = left
    else:
        entry.pop(member, None)


def _needed(places: Places, place: str) -> Iterator[str]:
    """Where npm finds what the package at `place` depends on: in its own node_modules, or the nearest above."""
    for member in ("dependencies", "optionalDependencies", "peerDependencies"):
        for name in places[place].get(member, {}):
            found = _found(places, place, name)
            if found is not None:
                yield found


def _found(places: Mapping[str, object], place: str, name: str) -> str | None:
    while True:
        there = f"{place}/node_modules/{name}" if place else f"node_modules/{name}"
        if there in places:
            return there
        if not place:
            return None
        place = place.rpartition("/node_modules/")[0] if "/node_modules/" in place else ""


def main() -> int:
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    place = ENTRIES / sys.argv[1]
    if len(sys.argv) == 3:
        place = place / folder.VARIANTS / sys.argv[2]
    try:
        print(pin(place))
    except RootlinkError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
