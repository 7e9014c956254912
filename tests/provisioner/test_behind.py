"""Real engines behind real doors: found, measured, stopped, killed and recovered from outside, with nothing left (R4, R8)."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rootlink.door.plan import Plan
from rootlink.programs import up
from rootlink.programs.settings import Settings
from rootlink.provisioner.launch import hold, identity, kept
from rootlink.provisioner.launch.behind import Behind
from rootlink.provisioner.launch.identity import Identity
from rootlink.provisioner.launch.launcher import Running
from rootlink.provisioner.launch.process import Patience, ProcessLauncher
from rootlink.provisioner.line import Line
from rootlink.wire.engine import EgressPolicy, EngineConfig
from tests.provisioner.stage import Stage, until

pytestmark = pytest.mark.slow

PATIENT = Patience(ready=30.0, recover=5.0, ask=4.0, term=2.0, kill=3.0)
ENVIRON = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "npm_config_token": "s3cret-token"}


def behind(stage: Stage, *settings: str) -> Behind:
    program = [sys.executable, "-P", "-m", "rootlink.programs", "engine", "--home", str(stage.home)]
    return Behind(stage.layout, program, ENVIRON, settings)


def launcher(stage: Stage) -> ProcessLauncher:
    one = behind(stage)
    return ProcessLauncher(stage.layout, one.argv, ENVIRON, behind=one, patience=PATIENT)


def config(stage: Stage, project: str, **more: Any) -> EngineConfig:
    layout = stage.layout
    return EngineConfig(
        project=project,
        key=secrets.token_hex(32),
        socket="",
        state_dir=str(layout.engine(project)),
        files_dir=str(layout.files(project)),
        store_dir=str(layout.store(project)),
        sandbox="kernel",
        doors=str(layout.doors),
        **more,
    )


def engine_of(running: Running) -> Identity:
    assert running.engine is not None and running.engine != running.process
    return running.engine


def nothing_left(running: Running, everyone: list[Identity]) -> Callable[[], bool]:
    return lambda: not [one for one in everyone if identity.alive(one)] and not Path(running.socket).exists()


async def test_an_engine_behind_its_door_is_known_by_the_number_it_has_here(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    running = await one.start(config(stage, project), 1)
    engine = engine_of(running)
    assert engine in identity.descendants(running.process)
    assert b"engine" in Path(f"/proc/{engine.pid}/cmdline").read_bytes()
    assert kept.whole(engine) == running.process
    assert (await Line(running.socket, running.key).status()).pid != engine.pid  # it has another number there
    everyone = [running.process, *identity.descendants(running.process)]
    seen = one.memory(running)
    assert seen is not None and 20 << 20 < seen < 500 << 20
    for process in everyone:
        assert b"s3cret-token" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    await one.stop(running)
    await until(nothing_left(running, everyone), "nothing is left")
    assert not stage.layout.record(project).exists()


async def test_an_engine_that_is_deaf_is_killed_with_its_keeper(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    running = await one.start(config(stage, project), 1)
    everyone = [running.process, *identity.descendants(running.process)]
    os.kill(engine_of(running).pid, signal.SIGSTOP)
    await one.stop(running)
    await until(nothing_left(running, everyone), "nothing is left")


@pytest.mark.parametrize("who", ["keeper", "engine"])
async def test_whoever_of_the_two_is_killed_takes_the_other_along(stage: Stage, who: str) -> None:
    project, one = stage.project(), launcher(stage)
    running = await one.start(config(stage, project), 1)
    everyone = [running.process, *identity.descendants(running.process)]
    os.kill((running.process if who == "keeper" else engine_of(running)).pid, signal.SIGKILL)
    await until(lambda: not one.poll(running), "it is noticed")
    assert one.forget(running) == "ended by SIGKILL"
    await until(nothing_left(running, everyone), "nothing is left")


async def test_the_next_provisioner_recovers_it(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    running = await one.start(config(stage, project), 7)
    two = launcher(stage)
    assert await two.recover(project) == running
    await two.stop(running)
    assert not one.poll(running)
    one.forget(running)


@pytest.mark.parametrize("content", [b"{", None])
async def test_one_whose_record_is_lost_is_found_by_its_lock_and_ended_whole(stage: Stage, content: bytes | None) -> None:
    project, one = stage.project(), launcher(stage)
    running = await one.start(config(stage, project), 1)
    everyone = [running.process, *identity.descendants(running.process)]
    assert hold.holder(stage.layout.lock(project)) == running.engine
    record = stage.layout.record(project)
    record.unlink() if content is None else record.write_bytes(content)
    assert await launcher(stage).recover(project) is None
    assert not [process for process in everyone if identity.alive(process)]
    one.forget(running)


async def test_down_and_status_find_it_with_and_without_its_record(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    settings = Settings.load({"home": str(stage.home)}, {})
    running = await one.start(config(stage, project), 1)
    assert up.status(settings)["engine_pids"] == [running.pid]
    stage.layout.record(project).write_bytes(b"{")
    everyone = [running.process, *identity.descendants(running.process)]
    assert up.status(settings)["engine_pids"] == [running.pid]
    assert up.down(settings) == 1
    assert not [process for process in everyone if identity.alive(process)]
    one.forget(running)


async def test_its_last_words_reach_the_log_when_it_does_not_start(stage: Stage) -> None:
    project, one = stage.project(), launcher(stage)
    (stage.layout.engine(project) / "state.db").write_bytes(b"no database " * 1000)
    with pytest.raises(Exception, match=r"ended before it was ready: .*state\.db is damaged"):
        await one.start(config(stage, project), 1)
    assert stage.engine_process(project) is None


def plan(stage: Stage, *settings: str, **more: Any) -> Plan:
    return behind(stage, *settings).plan(config(stage, "prj_0123456789ab", **more))


def test_it_sees_its_own_and_nothing_of_other_projects(stage: Stage, tmp_path: Path) -> None:
    shared, npmrc = tmp_path / "shared", tmp_path / "npmrc"
    found = plan(stage, str(npmrc), allow_paths=[str(shared)])
    home = stage.home / "projects" / "prj_0123456789ab"
    assert {str(home / "engine"), str(home / "files"), str(stage.layout.store("prj_0123456789ab"))} < set(found.write)
    assert str(stage.runtime / "prj_0123456789ab") in found.write and str(stage.runtime / "doors") in found.read
    everything = {*found.read, *found.write, *found.read_roots, *found.write_roots}
    for hidden in (stage.home, stage.home / "vault", stage.home / "control", stage.runtime, stage.layout.gate):
        assert str(hidden) not in everything
    assert str(shared) in found.read and str(shared) not in found.write and str(shared) in found.write_roots
    assert str(npmrc) in found.read and str(npmrc) in found.read_roots and str(npmrc) not in found.write_roots
    assert str(home / "engine") not in {*found.read_roots, *found.write_roots}


def test_its_door_listens_on_the_ports_that_rules_name(stage: Stage) -> None:
    found = plan(stage, policy=EgressPolicy(["a.example", "db.example:5432", "b.example:443", "[::1]:9000", "bad host:1"]))
    assert found.ports == [5432, 9000]


def test_no_credential_of_the_environment_is_in_its_command_line(stage: Stage) -> None:
    found = plan(stage)
    assert found.env == {"PATH": ENVIRON["PATH"], "LANG": "C.UTF-8"} and "s3cret" not in " ".join(found.argv(sys.executable))


def test_a_ca_is_shown_to_its_children_at_the_path_of_the_bundle(stage: Stage, tmp_path: Path) -> None:
    assert plan(stage).ca is None
    found = plan(stage, policy=EgressPolicy(extra_ca=str(tmp_path / "ca.pem")))
    assert found.ca == str(stage.layout.engine("prj_0123456789ab") / "ca.pem")
    assert str(tmp_path / "ca.pem") in found.read


def test_a_link_that_an_earlier_engine_left_is_not_followed_for_what_may_be_asked_for(stage: Stage, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    mounts = stage.layout.engine("prj_0123456789ab") / "mounts"
    mounts.parent.mkdir(parents=True)
    mounts.symlink_to(private)
    found = plan(stage)
    assert str(private) not in {*found.read_roots, *found.write_roots}


async def test_what_an_engine_writes_into_its_own_folder_decides_nothing_about_processes(stage: Stage) -> None:
    """It is the one thing of ours that it can change: neither record nor lock file may make us end another."""
    project, one = stage.project(), launcher(stage)
    running = await one.start(config(stage, project), 1)
    found = behind(stage).plan(config(stage, project))
    assert not any(stage.layout.record(project).is_relative_to(path) for path in found.write)
    me = identity.identify(os.getpid())
    stage.layout.lock(project).write_bytes(msgspec.json.encode(me))
    assert hold.holder(stage.layout.lock(project)) == running.engine
    await one.stop(running)


def test_an_allowlist_with_more_ports_than_a_door_can_begin_with_keeps_no_engine_from_starting(stage: Stage) -> None:
    found = plan(stage, policy=EgressPolicy([f"a.example:{port}" for port in range(9000, 9040)]))
    assert 2 * (len(found.ports) + 2) + 8 <= 64  # descriptors of one frame: two a port, and what every door has besides
