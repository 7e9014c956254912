"""The laws of the store's folders."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path

import pytest

from rootlink.engine.packages.shelf import Shelf, digest, remove_tree
from rootlink.errors import Unavailable


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    found = Shelf(tmp_path / "store", "npm")
    found.prepare()
    return found


async def make(shelf: Shelf, key: str) -> None:
    async with shelf.locked(key), shelf.draft(key) as draft:
        (draft / "sub").mkdir()
        (draft / "sub" / "file").write_text("x")
        assert shelf.install(key) is None


async def test_an_install_is_there_only_when_it_is_whole_and_then_read_only(shelf: Shelf) -> None:
    await make(shelf, "k")
    folder = shelf.install("k")
    assert folder is not None
    for path in (folder, folder / "sub", folder / "sub" / "file"):
        assert not stat.S_IMODE(path.lstat().st_mode) & 0o222
    remove_tree(folder)
    assert not folder.exists()


def test_a_store_that_can_not_be_used_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(Unavailable, match=r"the package store .*/file/store can't be written to: .*: rootlink engine restart"):
        Shelf(tmp_path / "file" / "store", "npm").prepare()


async def test_read_only_does_not_reach_through_links(shelf: Shelf, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    outside.chmod(0o644)
    async with shelf.locked("k"), shelf.draft("k") as draft:
        (draft / "link").symlink_to(outside)
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644


async def test_a_failed_install_leaves_nothing(shelf: Shelf) -> None:
    async def fail() -> None:
        async with shelf.locked("k"), shelf.draft("k") as draft:
            (draft / "file").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert [path.name for path in shelf.folder.glob("k*")] == []


async def test_what_a_killed_install_left_is_removed_by_the_next_one(shelf: Shelf) -> None:
    left = shelf.folder / "k.tmp-1-abcd"  # whatever its pid: nobody holds the lock
    (left / "sub").mkdir(parents=True)
    (left / "sub").chmod(0o500)
    await make(shelf, "k")
    assert not left.exists()


async def test_a_sweep_removes_what_was_left_of_any_key_but_not_what_is_being_made(shelf: Shelf, tmp_path: Path) -> None:
    left = shelf.folder / "old.tmp-1-abcd"
    left.mkdir()
    other = Shelf(tmp_path / "store", "npm")
    async with shelf.locked("k"), shelf.draft("k") as draft:
        other.sweep_once()
        assert draft.exists()
    assert not left.exists()


async def test_two_makers_of_one_key_take_turns_and_the_second_is_told(shelf: Shelf, tmp_path: Path) -> None:
    inside: list[str] = []
    told = asyncio.Event()

    async def second() -> None:
        async with Shelf(tmp_path / "store", "npm").locked("k", told.set):
            inside.append("second")

    async with shelf.locked("k"):
        task = asyncio.create_task(second())
        await asyncio.wait_for(told.wait(), 5)
        inside.append("first")
    await task
    assert inside == ["first", "second"]


async def test_waiting_for_a_lock_does_not_hold_up_the_loop(shelf: Shelf, tmp_path: Path) -> None:
    async with shelf.locked("k"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), Shelf(tmp_path / "store", "npm").locked("k"):
                pass


HOLDER = """
import asyncio, sys
from pathlib import Path
from rootlink.engine.packages.shelf import Shelf
async def hold():
    async with Shelf(Path(sys.argv[1]), "npm").locked("k"):
        print("held", flush=True)
        await asyncio.sleep(60)
asyncio.run(hold())
"""


async def test_a_lock_ends_with_its_process(shelf: Shelf, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "store")]
    holder = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    told = asyncio.Event()

    async def take() -> None:
        async with shelf.locked("k", told.set):
            pass

    task = asyncio.create_task(take())
    await asyncio.wait_for(told.wait(), 5)
    holder.kill()
    await holder.communicate()
    await asyncio.wait_for(task, 5)


def test_a_pin_is_kept_whole(shelf: Shelf) -> None:
    assert shelf.pin("a") is None
    shelf.put_pin("a", b"one")
    shelf.put_pin("a", b"two")
    assert shelf.pin("a") == b"two"


def test_parts_of_a_digest_are_told_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert len(digest("a")) == 64
