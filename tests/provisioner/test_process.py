"""The launcher on real processes (SECURITY-FIGURES R4, R8)."""

from __future__ import annotations

import os
import secrets
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from rootlink.errors import Unavailable
from rootlink.provisioner.launch import hold, identity
from rootlink.provisioner.launch.identity import Family, Identity
from rootlink.provisioner.launch.launcher import Running
from rootlink.provisioner.launch.process import LOG_CAP, ProcessLauncher
from rootlink.wire.engine import EngineConfig
from tests.provisioner.stage import ENVIRON, FAKE_ENGINE, QUICK, Stage


def launcher(stage: Stage) -> ProcessLauncher:
    return ProcessLauncher(stage.layout, FAKE_ENGINE, ENVIRON, patience=QUICK)


def config(stage: Stage, project: str) -> EngineConfig:
    layout, key = stage.layout, secrets.token_hex(32)
    return EngineConfig(project, key, "", str(layout.engine(project)), str(layout.files(project)), str(layout.store(project)))


def gone_without_trace(stage: Stage, running: Running) -> bool:
    mine = Family().ended(os.getpid())
    traces = [stage.layout.record(running.project).exists(), Path(running.socket).exists(), running.process.pid in mine]
    return not any(traces) and not identity.alive(running.process)


async def test_a_stopped_engine_leaves_no_process_no_zombie_no_file(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    running = await one.start(config(stage, project), 1)
    assert one.poll(running)
    await one.stop(running)
    assert gone_without_trace(stage, running)
    await one.stop(running)  # asking again changes nothing


async def test_an_engine_deaf_to_every_word_is_killed(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    stage.knobs(project, deaf=True)
    running = await one.start(config(stage, project), 1)
    started = time.monotonic()
    await one.stop(running)
    assert gone_without_trace(stage, running)
    assert time.monotonic() - started < 3.0


async def test_a_frozen_engine_is_killed(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    running = await one.start(config(stage, project), 1)
    os.kill(running.process.pid, signal.SIGSTOP)
    await one.stop(running)
    assert gone_without_trace(stage, running)


async def test_the_record_is_for_this_user_only(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    running = await one.start(config(stage, project), 1)
    assert stat.S_IMODE(stage.layout.record(project).stat().st_mode) == 0o600
    assert stat.S_IMODE(stage.layout.log(project).stat().st_mode) == 0o600
    assert running.key not in repr(running)
    await one.stop(running)


async def test_an_engine_that_ends_at_start_is_told_with_its_last_words(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    stage.knobs(project, crash=True)
    with pytest.raises(Unavailable, match="ended before it was ready: I can't go on"):
        await one.start(config(stage, project), 1)
    assert not stage.layout.record(project).exists() and stage.engine_process(project) is None


async def test_an_engine_that_never_answers_is_ended(stage: Stage) -> None:
    project = stage.project()
    one = ProcessLauncher(stage.layout, FAKE_ENGINE, ENVIRON, patience=QUICK._replace(ready=0.5))
    stage.knobs(project, mute=True)
    with pytest.raises(Unavailable, match=r"not ready within 0\.5 s"):
        await one.start(config(stage, project), 1)
    assert not Family().children(os.getpid()) or stage.engine_process(project) is None


async def test_a_program_that_is_not_there_is_told(stage: Stage) -> None:
    project = stage.project()
    with pytest.raises(Unavailable, match="can't be started"):
        await ProcessLauncher(stage.layout, ["/nowhere/engine"], ENVIRON).start(config(stage, project), 1)


async def test_what_an_engine_started_goes_with_it(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    running = await one.start(config(stage, project), 1)
    child = Identity(running.process.pid, running.process.start)
    assert identity.descendants(child) == []
    below = subprocess.Popen(["sleep", "300"], start_new_session=True)
    known = identity.identify(below.pid)
    assert known is not None
    one._below[running.process] = [known]  # as a sweep would have found it
    await one.stop(running)
    assert below.wait(2.0) == -signal.SIGKILL


async def test_a_running_engine_is_recovered_with_its_key_only(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    running = await one.start(config(stage, project), 7)
    two = launcher(stage)
    assert await two.recover(project) == running
    forged = msgspec.structs.replace(running, key="0" * 64)
    stage.layout.record(project).write_bytes(msgspec.json.encode(forged))
    assert await launcher(stage).recover(project) is None
    assert not one.poll(running)  # an engine nobody has the key of is of no use to anyone
    one.forget(running)


async def test_a_strangers_process_is_never_touched(stage: Stage) -> None:
    """The record's pid now belongs to someone else: another moment of start says so."""
    project = stage.project()
    stranger = subprocess.Popen(["sleep", "300"])
    try:
        record = Running(project, Identity(stranger.pid, "0:1"), "k" * 64, str(stage.runtime / "x.sock"), 3, "then")
        stage.layout.record(project).write_bytes(msgspec.json.encode(record))
        assert await launcher(stage).recover(project) is None
        assert not stage.layout.record(project).exists()
        assert stranger.poll() is None
        assert not identity.send(Identity(stranger.pid, "0:1"), signal.SIGKILL)
        assert identity.end([Identity(stranger.pid, "0:1")], term=0.0) == [] and stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("content", [b"{", None])
async def test_an_engine_whose_record_is_lost_is_ended(stage: Stage, content: bytes | None) -> None:
    project, one = stage.project(), launcher(stage)
    running = await one.start(config(stage, project), 1)
    record = stage.layout.record(project)
    record.unlink() if content is None else record.write_bytes(content)
    assert await launcher(stage).recover(project) is None
    assert not one.poll(running)
    one.forget(running)


async def test_an_engine_beside_the_recorded_one_is_ended_before_the_next_starts(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    old = await one.start(config(stage, project), 1)
    other = Running(project, Identity(1, "0:1"), "k" * 64, str(stage.runtime / "x.sock"), 3, "then")
    stage.layout.record(project).write_bytes(msgspec.json.encode(other))
    two = launcher(stage)
    new = await two.start(config(stage, project), 2)
    assert not one.poll(old) and two.poll(new)
    await two.stop(new)
    one.forget(old)


async def test_a_file_that_names_a_stranger_does_not_end_him(stage: Stage) -> None:
    """Neither one that nobody holds, nor one that someone else holds."""
    project, one = stage.project(), launcher(stage)
    stranger = subprocess.Popen(["sleep", "300"])
    try:
        known = identity.identify(stranger.pid)
        lock = stage.layout.lock(project)
        lock.write_bytes(msgspec.json.encode(known))
        assert hold.holder(lock) is None and await one.recover(project) is None
        running = await one.start(config(stage, project), 1)
        lock.write_bytes(msgspec.json.encode(known))
        assert hold.holder(lock) == running.process  # the kernel knows better than the file
        stage.layout.record(project).unlink()
        assert await launcher(stage).recover(project) is None
        assert stranger.poll() is None and not one.poll(running)
        one.forget(running)
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_traceback_is_never_quoted_to_clients(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    stage.knobs(project, traceback=True)
    with pytest.raises(Unavailable, match=r"ended before it was ready; logs/engine-.* has more") as refused:
        await one.start(config(stage, project), 1)
    assert "Traceback" not in refused.value.message and "file.py" not in refused.value.message
    assert any("Traceback" in line for line in one.log(project))


async def test_the_words_of_an_earlier_start_are_not_taken_for_this_ones(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    stage.layout.log(project).write_text("rootlink engine: unavailable: long ago\n")
    stage.knobs(project, traceback=True)
    with pytest.raises(Unavailable) as refused:
        await one.start(config(stage, project), 1)
    assert "long ago" not in refused.value.message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 1}', b"\xff" * 10, b"[" * 100_000])
async def test_a_damaged_record_is_no_engine(stage: Stage, content: bytes) -> None:
    project = stage.project()
    stage.layout.record(project).write_bytes(content)
    assert await launcher(stage).recover(project) is None


async def test_a_long_log_is_put_aside_at_the_next_start(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    log = stage.layout.log(project)
    with log.open("wb") as file:
        file.truncate(LOG_CAP + 1)
    running = await one.start(config(stage, project), 1)
    assert log.stat().st_size < 1000 and log.with_suffix(".log.1").stat().st_size == LOG_CAP + 1
    await one.stop(running)


def test_a_process_is_known_by_more_than_its_number() -> None:
    process = subprocess.Popen(["sleep", "300"])
    known = identity.identify(process.pid)
    assert known is not None and identity.alive(known)
    process.kill()
    while identity.alive(known):
        time.sleep(0.005)
    assert process.returncode is None  # a zombie by now, and that is not alive
    process.wait()
    assert identity.identify(process.pid) is None


def test_ending_goes_from_asking_to_killing() -> None:
    ignores = "import signal,time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(300)"
    process = subprocess.Popen([sys.executable, "-c", ignores], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as ready:
        ready.readline()
    known = identity.identify(process.pid)
    assert known is not None
    assert identity.end([known], term=0.2) == []
    assert process.wait() == -signal.SIGKILL
