"""What nothing uses any more goes from the store after a while; what anything might still start from stays, whatever its age."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootlink.engine.packages import asks
from rootlink.engine.packages.shelf import Shelf, digest
from rootlink.engine.packages.store import KEPT_SECS, KEPT_SECS_SHARED
from tests.packages.conftest import MEMORY_AT, MakePackages

NOW = time.time()
LONG_AGO = NOW - KEPT_SECS_SHARED - 3600
LATELY = NOW - KEPT_SECS / 2
ONE, TWO = digest("one"), digest("two")


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "store", "npm")
    shelf.prepare()
    yield shelf
    shelf.close()


def install(shelf: Shelf, key: str, used: float) -> Path:
    folder = shelf.folder / key
    (folder / "node_modules").mkdir(parents=True)
    (folder / "node_modules" / "index.js").write_text("x")
    for path in (folder / "node_modules" / "index.js", folder / "node_modules", folder):
        path.chmod(0o555)
    os.utime(folder, (used, used))
    return folder


def test_an_install_nobody_used_for_long_goes_and_others_stay(shelf: Shelf) -> None:
    old, lately = install(shelf, ONE, LONG_AGO), install(shelf, TWO, LATELY)
    assert shelf.discard_installs(set(), NOW - KEPT_SECS) == [ONE]
    assert not old.exists()
    assert lately.is_dir()
    assert [found.name for found in shelf.folder.glob("*.tmp-*")] == []


def test_an_install_that_is_kept_stays_however_old(shelf: Shelf) -> None:
    folder = install(shelf, ONE, LONG_AGO)
    assert shelf.discard_installs({ONE}, NOW) == []
    assert folder.is_dir()


def test_an_install_an_engine_started_from_stays_while_that_engine_lives(shelf: Shelf, tmp_path: Path) -> None:
    folder = install(shelf, ONE, LONG_AGO)
    other = Shelf(tmp_path / "store", "npm")  # as another engine on the same store has it
    assert other.use(ONE) == folder
    os.utime(folder, (LONG_AGO, LONG_AGO))
    assert shelf.discard_installs(set(), NOW) == []
    other.close()
    assert shelf.discard_installs(set(), NOW) == [ONE]


async def test_an_install_that_is_being_made_stays(shelf: Shelf, tmp_path: Path) -> None:
    install(shelf, ONE, LONG_AGO)
    other = Shelf(tmp_path / "store", "npm")
    async with other.locked(ONE):
        assert shelf.discard_installs(set(), NOW) == []


def test_a_use_makes_an_install_young_again(shelf: Shelf) -> None:
    folder = install(shelf, ONE, LONG_AGO)
    shelf.use(ONE)
    assert folder.stat().st_mtime > NOW - 60


def test_nothing_but_installs_is_taken_for_one(shelf: Shelf) -> None:
    for name in ("cache", "pins"):
        os.utime(shelf.folder / name, (LONG_AGO, LONG_AGO))
    (shelf.folder / "somebody's").mkdir()
    os.utime(shelf.folder / "somebody's", (LONG_AGO, LONG_AGO))
    assert shelf.discard_installs(set(), NOW) == []
    assert (shelf.folder / "somebody's").is_dir()


def test_a_pin_goes_by_the_same_rule(shelf: Shelf) -> None:
    for name in (ONE, TWO):
        shelf.put_pin(name, b"{}")
        os.utime(shelf.folder / "pins" / f"{name}.json", (LONG_AGO, LONG_AGO))
    assert shelf.discard_pins({ONE}, NOW) == [TWO]
    assert shelf.pin(ONE) == b"{}"
    assert shelf.pin(TWO) is None


async def test_the_packages_of_mounts_and_of_what_can_be_gone_back_to_stay(
    make_packages: MakePackages, tmp_path: Path, memory_lock: str
) -> None:
    packages = make_packages(cap_secs=60)
    mounted, gone = ("npx", ["-y", MEMORY_AT, "--more"], memory_lock), ("npx", ["-y", MEMORY_AT], None)
    npm = packages._registries["npm"]
    shelf = packages._shelves["npm"]
    shelf.prepare()
    key = npm.key(asks.npx(mounted[1]), npm.read(memory_lock))
    kept, old = install(shelf, key, LONG_AGO), install(shelf, ONE, LONG_AGO)
    name = npm.pin_name(asks.npx(gone[1]))
    shelf.put_pin(name, b"{}")
    os.utime(shelf.folder / "pins" / f"{name}.json", (LONG_AGO, LONG_AGO))
    broken = ("npx", ["-y", "github:a/b"], None)
    assert packages.sweep([mounted, broken, ("node", ["x.js"], None)], now=NOW, shared=False) == 1
    assert kept.is_dir()
    assert not old.exists()
    assert shelf.pin(name) is None


async def test_a_shared_store_goes_by_age_alone_and_waits_longer(make_packages: MakePackages) -> None:
    packages = make_packages()
    shelf = packages._shelves["npm"]
    shelf.prepare()
    theirs = install(shelf, ONE, NOW - KEPT_SECS * 2)  # of another project, as far as we know
    assert packages.sweep([], now=NOW, shared=True) == 0
    assert theirs.is_dir()
    assert packages.sweep([], now=NOW + KEPT_SECS_SHARED, shared=True) == 1


async def test_a_package_is_asked_for_anew_without_forgetting_what_is_pinned(make_packages: MakePackages) -> None:
    packages = make_packages()
    args = ["-y", "@modelcontextprotocol/server-memory@2025.8.4", "--flag"]
    before = packages.pinned("npx", args)
    renewed = await packages.renewed("npx", args)
    assert renewed is not None
    assert before is None
    assert packages.pinned("npx", args) is None
    newest = packages.pinned("npx", renewed.args, lock=renewed.lock)
    assert newest is not None
    assert newest > "@modelcontextprotocol/server-memory@2025.8.4"
    assert renewed.args == ["-y", newest, "--flag"]


@pytest.mark.parametrize(
    ("command", "line", "versions", "after"),
    [
        ("npx", "-y a@1.0.0 b@1.0.0", {"a": "2.0.0"}, "-y a@2.0.0 b@1.0.0"),
        ("npx", "-y a", {"a": "2.0.0"}, "-y a"),
        ("npx", "-y a@^1.0.0", {"a": "1.2.0"}, "-y a@^1.0.0"),
        ("npx", "--package=@s/a@1.0.0 run 1.0.0", {"@s/a": "2.0.0"}, "--package=@s/a@2.0.0 run 1.0.0"),
        ("uvx", "a_b==1.0 x", {"a-b": "2.0"}, "a_b==2.0 x"),
        ("uvx", "--from a[e]@1.0 run", {"a": "2.0"}, "--from a[e]@2.0 run"),
    ],
)
def test_only_an_exact_version_is_written_anew(command: str, line: str, versions: dict[str, str], after: str) -> None:
    ask = (asks.npx if command == "npx" else asks.uvx)(line.split())
    assert ask.at(versions, line.split()) == after.split()
