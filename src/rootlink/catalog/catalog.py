"""All connectors, loaded and checked as a whole: an entry that breaks a rule stops the start, not the first user."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rootlink.catalog import folder, rules
from rootlink.catalog.entry import Entry
from rootlink.errors import Invalid, NotFound

ENTRIES = Path(__file__).parent / "entries"


class Catalog:
    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = {entry.name: entry for entry in entries}

    def list(self) -> list[Entry]:
        """By name."""
        return [self._entries[name] for name in sorted(self._entries)]

    def get(self, name: str) -> Entry:
        """`NotFound`, naming what there is."""
        entry = self._entries.get(name)
        if entry is None:
            raise NotFound(f"no connector {name[:63]!r} in the catalogue; there are: {', '.join(sorted(self._entries))}")
        return entry


def load(path: Path = ENTRIES, own: Path | None = None) -> Catalog:
    """Every folder under `path` that holds a `connector.json`. `own`: a folder of the operator's, of which an entry takes the
    place of the one of the same name. `Invalid` with every broken rule of every entry."""
    folders = [folder.read(found.parent) for found in sorted(path.glob(f"*/{folder.MANIFEST}"))]
    if own is not None:
        added = [folder.read(found.parent) for found in sorted(own.glob(f"*/{folder.MANIFEST}"))]
        folders = list({one.slug: one for one in [*folders, *added]}.values())
    problems = [f"connector {one.slug!r}: {problem}" for one in folders for problem in rules.problems(one)]
    if problems:
        raise Invalid("the catalogue breaks its rules:\n" + "\n".join(problems))
    return Catalog(Entry(one) for one in folders)
