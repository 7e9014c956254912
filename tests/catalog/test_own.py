"""A folder of connectors of one's own, beside the built-in ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rootlink import catalog
from rootlink.errors import Invalid


def memory(folder: Path, **changed: str) -> Path:
    shutil.copytree(catalog.ENTRIES / "memory", folder / "memory")
    file = folder / "memory" / "connector.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    return folder


def test_an_entry_of_ones_own_takes_the_place_of_the_built_in_of_its_name(tmp_path: Path) -> None:
    found = catalog.load(own=memory(tmp_path, title="Our memory"))
    assert found.get("memory").title == "Our memory"
    assert [entry.name for entry in found.list()] == [entry.name for entry in catalog.load().list()]


def test_an_entry_of_ones_own_keeps_the_same_rules(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="version 'newest' must be exact"):
        catalog.load(own=memory(tmp_path, version="newest"))
