"""A project's group: what is in it, what it limits, and that nothing of it is left.

Groups are made only where `cgroups.tops` finds a top, which on many machines is nowhere, or for one controller alone. What needs
another is skipped there, and says so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rootlink.door import cgroups
from tests.door.kept import ENGINES_CODE, SOURCE, Kept, kill, until

V1 = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
35 31 0:32 / {at}/memory rw,relatime shared:4 - cgroup cgroup rw,memory
39 31 0:36 / {at}/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / {at}/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
V2 = "41 31 0:38 {root} {at} rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
LIMITS = cgroups.Limits(4096, 8_000, 2_000)
FOREVER = "import time; print('up'); time.sleep(1000)"


def _tops() -> dict[str, str]:
    """Those of this process, where this user can make a group and the controller is there in v1."""
    found = cgroups.tops(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    return {name: top for name, top in found.items() if name in ("pids", "memory") and os.access(top, os.W_OK)}


def _group(kept: Kept, controller: str) -> Path:
    top = _tops().get(controller)
    if top is None:
        pytest.skip(f"no group can be made here for {controller}: this user may not, or its group was made by somebody else")
    (found,) = Path(top).glob(f"rootlink-*-{kept.pid}")
    return found


def _of(pid: int, controller: str) -> str:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    (path,) = [line.split(":", 2)[2] for line in lines if controller in line.split(":")[1].split(",")]
    return path


@pytest.mark.parametrize("controller", ["pids", "memory"])
def test_the_keeper_its_engine_and_every_command_are_in_one_group(kept: Kept, controller: str) -> None:
    group = _group(kept, controller)
    for _ in range(2):
        assert kept.python(FOREVER).line() == "up"
    tree = kept.tree()
    assert len(tree) == 9  # keeper; bubblewrap and the engine; bubblewrap, its pid 1 and the command, twice
    assert {Path(_of(process.pid, controller)).name for process in tree} == {group.name}
    assert _of(os.getpid(), controller) == "/"  # nobody else was moved


def test_the_group_has_its_limit_of_processes(kept: Kept) -> None:
    assert int((_group(kept, "pids") / "pids.max").read_text()) == cgroups.MAX_TASKS


def test_the_group_has_its_limit_of_memory(kept: Kept) -> None:
    limit = int((_group(kept, "memory") / "memory.limit_in_bytes").read_text())
    assert abs(limit - psutil.virtual_memory().total * cgroups.MEMORY_PERCENT // 100) < 1 << 20


def test_a_project_at_its_limit_of_processes_is_refused_more_and_goes_on(kept: Kept) -> None:
    group = _group(kept, "pids")
    other = kept.python("import sys; print('up'); sys.stdin.readline(); print('on')")
    assert other.line() == "up"
    code = """
import os, sys, time
print("up")
sys.stdin.readline()
try:
    for made in range(100):
        if os.fork() == 0:
            time.sleep(1000)
except OSError:
    print("stopped", made)
os._exit(0)
"""
    way = kept.python(code)
    assert way.line() == "up"
    (group / "pids.max").write_text(str(int((group / "pids.current").read_text()) + 20))
    way.go_on()
    word, made = way.line().split()
    assert word == "stopped" and int(made) <= 20
    assert kept.ended(way) == 0
    other.go_on()
    assert other.line() == "on"
    assert kept.ended(other) == 0
    (group / "pids.max").write_text(str(cgroups.MAX_TASKS))
    assert kept.run("print(1)") == "1\n"


def test_what_takes_too_much_memory_is_killed_and_the_others_go_on(kept: Kept) -> None:
    group = _group(kept, "memory")
    other = kept.python("import sys; print('up'); sys.stdin.readline(); print('on')")
    assert other.line() == "up"
    usage = int((group / "memory.usage_in_bytes").read_text())
    (group / "memory.limit_in_bytes").write_text(str(usage + (64 << 20)))
    way = kept.python("kept = [bytearray(b'x' * (1 << 20)) for _ in range(1024)]; print(len(kept))")
    assert kept.ended(way) == -signal.SIGKILL
    other.go_on()
    assert other.line() == "on"
    assert kept.ended(other) == 0
    assert kept.run("print(1)") == "1\n"


@pytest.mark.parametrize("controller", ["pids", "memory"])
def test_nothing_is_left_when_the_keeper_ends(kept: Kept, controller: str) -> None:
    group = _group(kept, controller)
    assert kept.python(FOREVER).line() == "up"
    kept.sock.close()
    assert kept.process.wait(20) == ENGINES_CODE
    assert not group.exists()


def test_what_a_killed_keeper_left_the_next_one_removes(kept: Kept, tmp_path: Path) -> None:
    group = _group(kept, "pids")
    kill(kept.pid)
    kept.process.wait(20)
    until(lambda: not (group / "cgroup.procs").read_text())
    folder = tmp_path / "next"
    folder.mkdir()
    following = Kept(folder)
    try:
        assert not group.exists()
        assert _group(following, "pids").exists()
    finally:
        following.close()


def test_the_group_of_a_keeper_that_lives_stays(kept: Kept, tmp_path: Path) -> None:
    group = _group(kept, "pids")
    empty = group.with_name(f"{group.name.rpartition('-')[0]}-{os.getpid()}")  # ours: made, and nothing in it yet
    empty.mkdir()
    folder = tmp_path / "next"
    folder.mkdir()
    following = Kept(folder)
    try:
        assert group.exists() and empty.exists()
    finally:
        following.close()
        empty.rmdir()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_makes_none_and_is_told_nothing(tmp_path: Path) -> None:
    # cgroups.py alone: the interpreter's own folder may be closed to others after the start (all else: test_unprivileged.py)
    code = f"""
import os, sys
sys.path.append({str(SOURCE)!r})
from rootlink.door import cgroups
os.setgroups([]); os.setgid(1001); os.setuid(1001)
made = cgroups.enter()
cgroups.leave(made)
print(made)
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False, timeout=20)
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)


def test_only_a_group_that_is_the_top_of_its_mount_is_ours_to_divide() -> None:
    mounts = V1.format(at="/c") + V2.format(root="/", at="/c/unified")
    assert cgroups.tops("8:pids:/\n4:memory:/supervisor/7\n9:name=systemd:/\n0::/\n", mounts) == {
        "pids": "/c/pids",
        "name=systemd": "/c/systemd",
        "": "/c/unified",
    }
    assert cgroups.tops("0::/user.slice/user-0.slice\n", V2.format(root="/", at="/c")) == {}
    assert cgroups.tops("0::/../outside\n", V2.format(root="/", at="/c")) == {}


def test_a_container_s_group_is_its_top() -> None:
    assert cgroups.tops("0::/docker/7\n", V2.format(root="/docker/7", at="/with\\040space")) == {"": "/with space"}


def _unified(folder: Path, controllers: str, given: str) -> Path:
    (folder / "cgroup.controllers").write_text(controllers)
    (folder / "cgroup.subtree_control").write_text(given)
    return folder


def _values(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_group_of_v2_has_the_limits_of_the_controllers_that_are_given(tmp_path: Path) -> None:
    top = _unified(tmp_path, "cpu memory pids\n", "memory pids\n")
    assert cgroups.make({"": str(top)}, LIMITS, "rootlink-1-2") == [str(top / "rootlink-1-2")]
    assert _values(top / "rootlink-1-2") == {
        "pids.max": "4096",
        "memory.max": "8000",
        "memory.swap.max": "2000",
        "cgroup.procs": "0",
    }
    assert (top / "cgroup.subtree_control").read_text() == "memory pids\n"


def test_a_controller_of_v2_that_is_there_is_asked_for(tmp_path: Path) -> None:
    top = _unified(tmp_path, "cpu pids\n", "cpu\n")
    assert cgroups.make({"": str(top)}, LIMITS, "rootlink-1-2") == [str(top / "rootlink-1-2")]
    assert (top / "cgroup.subtree_control").read_text() == "+pids"
    assert _values(top / "rootlink-1-2") == {"pids.max": "4096", "cgroup.procs": "0"}


def test_v2_without_either_controller_gets_no_group(tmp_path: Path) -> None:
    top = _unified(tmp_path, "hugetlb\n", "")
    assert cgroups.make({"": str(top)}, LIMITS, "rootlink-1-2") == []
    assert sorted(_values(top)) == ["cgroup.controllers", "cgroup.subtree_control"]


def test_v2_whose_processes_keep_it_from_giving_controllers_gets_no_group(tmp_path: Path) -> None:
    top = _unified(tmp_path, "memory pids\n", "")
    (top / "cgroup.subtree_control").unlink()
    (top / "cgroup.subtree_control").symlink_to("/proc/version")  # may be read, and a write fails
    assert cgroups.make({"": str(top)}, LIMITS, "rootlink-1-2") == []
    assert not (top / "rootlink-1-2").exists()


def test_groups_of_v1_have_their_limits(tmp_path: Path) -> None:
    for name in ("pids", "memory"):
        (tmp_path / name).mkdir()
    within = {name: str(tmp_path / name) for name in ("pids", "memory", "name=systemd")}
    assert cgroups.make(within, LIMITS, "rootlink-1-2") == [str(tmp_path / name / "rootlink-1-2") for name in ("pids", "memory")]
    assert _values(tmp_path / "pids" / "rootlink-1-2") == {"pids.max": "4096", "cgroup.procs": "0"}
    assert _values(tmp_path / "memory" / "rootlink-1-2") == {
        "memory.limit_in_bytes": "8000",
        "memory.memsw.limit_in_bytes": "10000",
        "cgroup.procs": "0",
    }


def test_the_limits_follow_from_the_machine_s_memory() -> None:
    text = "MemTotal:       1000 kB\nMemFree: 5 kB\nSwapTotal: 500 kB\nHugePages_Total:       0\n"
    assert cgroups.limits(text) == cgroups.Limits(cgroups.MAX_TASKS, 800 * 1024, 400 * 1024)
