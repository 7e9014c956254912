"""What `scripts/lock_entry.py` leaves out of a lock, and that an install of what is left needs nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).resolve().parents[2]


def script() -> Any:
    spec = importlib.util.spec_from_file_location("lock_entry", ROOT / "scripts" / "lock_entry.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


LOCK = {
    "lockfileVersion": 3,
    "packages": {
        "": {"dependencies": {"a": "1.0.0", "driver": "1.0.0"}},
        "node_modules/a": {
            "dependencies": {"b": "^1"},
            "optionalDependencies": {"driver": "1", "linux": "1", "mac": "1", "gone": "1"},
        },
        "node_modules/a/node_modules/b": {"dependencies": {"c": "^1"}},
        "node_modules/b": {"dependencies": {"c": "^2"}},
        "node_modules/c": {},
        "node_modules/driver": {"peerDependencies": {"peer": "*"}},
        "node_modules/peer": {},
        "node_modules/linux": {"optional": True, "dependencies": {"of-linux": "1"}},
        "node_modules/of-linux": {"optional": True},
        "node_modules/mac": {"optional": True, "dependencies": {"of-mac": "1"}},
        "node_modules/of-mac": {"optional": True},
    },
}
ALWAYS = {"", "node_modules/a", "node_modules/a/node_modules/b", "node_modules/c", "node_modules/driver", "node_modules/peer"}


@pytest.mark.parametrize(
    ("kept", "more", "named"),
    [
        (set(), set(), None),
        ({"linux", "gone"}, {"node_modules/linux", "node_modules/of-linux"}, {"linux": "1"}),
    ],
)
def test_only_the_optional_packages_that_are_kept_stay_and_what_they_need(
    kept: set[str], more: set[str], named: dict[str, str] | None
) -> None:
    left = msgspec.json.decode(script().without_optional(msgspec.json.encode(LOCK).decode(), kept))
    assert set(left["packages"]) == ALWAYS | more
    assert left["packages"]["node_modules/a"].get("optionalDependencies") == named


def test_what_is_in_no_entry_is_never_asked_for() -> None:
    """npm asks the registry about every optional dependency that a lock names and does not hold, which needs the network."""
    for path in (ROOT / "src" / "rootlink" / "catalog" / "entries").rglob("package-lock.json"):
        places = msgspec.json.decode(path.read_bytes())["packages"]
        held = {place.rpartition("node_modules/")[2] for place in places}
        named = {name for entry in places.values() for name in entry.get("optionalDependencies", {})}
        assert named <= held, path
