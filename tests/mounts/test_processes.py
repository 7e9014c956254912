"""No process outlives its mount: not a grandchild in a session of its own, not an orphan, not after kill -9 of the engine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from pathlib import Path

import pytest

from rootlink.engine.mounts import launch
from tests.mounts.conftest import MakeMounts
from tests.mounts.ground import call, marked, plain, tree, until

ROOT = Path(__file__).resolve().parents[2]
FORMS = [launch.probe(), launch.Plain()]


@pytest.fixture
def mark() -> str:
    return f"mark-{uuid.uuid4().hex}"


def test_this_machine_has_the_contained_form() -> None:
    if not Path("/proc/self/ns/user").exists():
        pytest.skip("no user namespaces in this kernel")
    assert launch.probe().form in ("contained", "plain")


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.form)
@pytest.mark.parametrize("kind", ["session", "orphan", "with-pipes"])
async def test_grandchildren_end_with_their_mount(make: MakeMounts, form: launch.Launch, kind: str, mark: str) -> None:
    mounts, before = make(launch=form), tree()
    mount = await mounts.add("main", plain(env={"MARK": mark}))
    await call(mount, "children", detached=kind)
    assert len(marked(mark)) == 1
    assert await mounts.remove("main", "plain")
    assert marked(mark) == []
    assert tree() == before


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.form)
async def test_grandchildren_end_when_their_parent_crashes(make: MakeMounts, form: launch.Launch, mark: str) -> None:
    mount = await make(launch=form).add("main", plain(env={"MARK": mark}))
    for kind in ("session", "orphan", "with-pipes"):
        await call(mount, "children", detached=kind)
    assert len(marked(mark)) == 3
    with pytest.raises(Exception, match="exit code 3"):
        await call(mount, "crash")
    await until(lambda: not marked(mark), "the grandchildren are gone")


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.form)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_nothing_outlives_an_engine_that_was_killed(form: launch.Launch, loop: str, mark: str, tmp_path: Path) -> None:
    host = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.mounts.engine_host", form.form, mark.removeprefix("mark-"), str(tmp_path), loop),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert host.stdout is not None
    assert await asyncio.wait_for(host.stdout.readline(), 30) == b"ready\n"
    assert len(marked(mark)) == 3
    os.kill(host.pid, signal.SIGKILL)
    await host.wait()
    await until(lambda: not marked(mark), "the grandchildren are gone", 5)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.form)
async def test_exit_codes_and_signals_come_through(make: MakeMounts, form: launch.Launch) -> None:
    mounts = make(launch=form)
    mount = await mounts.add("main", plain())
    with pytest.raises(Exception, match="plain ended with exit code 42 before it answered tools/call: gone fishing"):
        await call(mount, "crash", code=42, words="gone fishing")


def test_no_signal_ever_goes_to_a_whole_group() -> None:
    for pid in (0, -1, 1):
        with pytest.raises(ValueError, match="no child of ours"):
            launch._send(pid, signal.SIGKILL)
