"""Pins the npm packages of a catalogue entry: `scripts/lock_entry.py NAME PKG@VERSION…`

Writes package.json and package-lock.json (integrity on every entry, no hosts) into src/rootlink/catalog/entries/NAME/. Review the
diff of the lock, and of the tools the new version lists, before committing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from rootlink.engine.packages import asks, installer
from rootlink.engine.packages.npm import Npm
from rootlink.errors import RootlinkError

ENTRIES = Path(__file__).resolve().parent.parent / "src" / "rootlink" / "catalog" / "entries"


def pin(name: str, packages: list[str]) -> str:
    """Writes the two files; answers what was pinned, in words. Raises `RootlinkError`."""
    specs = [asks.npm_spec(text) for text in packages]
    folder = ENTRIES / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        work, home = Path(scratch, "work"), Path(scratch, "home")
        work.mkdir()
        home.mkdir()
        npm = Npm(Path(scratch, "cache"), installer.environment(os.environ, home))
        lock = asyncio.run(npm.resolve(specs, ", ".join(packages), work, name=name))
        for file in ("package.json", "package-lock.json"):
            (folder / file).write_bytes((work / file).read_bytes())
    pinned = ", ".join(f"{package}@{version}" for package, version in lock.versions.items())
    return f"{folder}: {pinned}; {lock.count} packages"


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(pin(sys.argv[1], sys.argv[2:]))
    except RootlinkError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
