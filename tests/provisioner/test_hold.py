"""Who holds a lock is found by anyone of the same user, and nobody else is taken for him."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootlink.errors import Conflict
from rootlink.provisioner.launch import hold, identity

HOLDER = """
import os, sys, time
from pathlib import Path
from rootlink.programs import prctl
from rootlink.provisioner.launch import hold
if len(sys.argv) > 2:
    os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
prctl.seal_memory()
hold.take(Path(sys.argv[1]), "held")
print("held", flush=True)
time.sleep(300)
"""
ASKER = """
import os, sys
from pathlib import Path
from rootlink.provisioner.launch import hold
os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
found = hold.holder(Path(sys.argv[1]))
print(found.pid if found else None)
"""
NOBODY = "65534"


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder) / "x.lock"


@pytest.fixture
def holding(path: Path) -> Iterator[Callable[..., int]]:
    started: list[subprocess.Popen[str]] = []

    def start(*user: str) -> int:
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), *user], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"pid": 1, "start": "0:1"}'])
def test_the_holder_is_found_whatever_became_of_the_files_content(
    path: Path, holding: Callable[..., int], content: bytes | None
) -> None:
    pid = holding()
    if content is not None:
        path.write_bytes(content)
    assert hold.held(path)
    assert hold.holder(path) == identity.identify(pid)
    with pytest.raises(Conflict, match="by another"):
        hold.take(path, "by another")


@pytest.mark.skipif(os.getuid() != 0, reason="needs to become another user")
@pytest.mark.parametrize("content", [None, b"{"])
def test_one_with_closed_memory_is_found_without_any_right_but_its_users(
    path: Path, holding: Callable[..., int], content: bytes | None
) -> None:
    pid = holding(NOBODY)
    if content is not None:
        path.write_bytes(content)
    asked = subprocess.run([sys.executable, "-c", ASKER, str(path), NOBODY], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == str(pid)


def test_nobody_holds_what_its_holder_left_behind(path: Path, holding: Callable[..., int]) -> None:
    process = identity.identify(holding())
    assert process is not None and identity.end([process], term=0.0) == []
    assert path.exists() and not hold.held(path) and hold.holder(path) is None
    os.close(hold.take(path, "held"))


def test_a_file_that_is_not_there_is_held_by_nobody(path: Path) -> None:
    assert not hold.held(path) and hold.holder(path) is None
