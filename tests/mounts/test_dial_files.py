"""Files of the catalogue that a server finds in its own folder, and how long a start may take."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest

from rootlink.engine.mounts.spec import START_SECONDS, start_seconds
from rootlink.errors import UpstreamFailed
from rootlink.wire.mounts import MountSpec
from tests.mounts.conftest import MakeMounts
from tests.mounts.ground import SERVERS, plain

TEXT = 'dsn = "${PG_DSN}"\n'


async def test_a_servers_files_are_there_at_each_start_and_for_it_alone(make: MakeMounts, tmp_path: Path) -> None:
    mounts, file = make(secrets={"PG_DSN": "a-secret"}), tmp_path / "mounts" / "main" / "plain" / "sample.toml"
    mount = await mounts.add("main", plain(files={"sample.toml": TEXT}))
    assert file.read_text() == TEXT, "what it refers to is the server's to fill in; no secret is written down"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("something else")
    await mount.restart()
    assert file.read_text() == TEXT


async def test_a_link_that_a_server_left_there_is_replaced_and_not_followed(make: MakeMounts, tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "mounts" / "main" / "plain" / "sample.toml"
    victim.write_text("as it was")
    mount = await make().add("main", plain(files={"sample.toml": TEXT}))
    file.unlink()
    file.symlink_to(victim)
    await mount.restart()
    assert (file.is_symlink(), file.read_text(), victim.read_text()) == (False, TEXT, "as it was")
    assert [path.name for path in file.parent.glob(".*") if path.is_file()] == []


def test_a_start_has_its_own_time_else_that_of_a_call_else_the_engines() -> None:
    assert start_seconds(plain()) == START_SECONDS
    assert start_seconds(plain(timeout_secs=5)) == 5
    assert start_seconds(plain(timeout_secs=5, start_secs=45)) == 45


async def test_a_start_is_given_up_at_its_own_time_and_not_at_that_of_a_call(make: MakeMounts) -> None:
    argv = ["-S", str(SERVERS / "failing.py"), "list_hangs"]
    spec = MountSpec("failing", "stdio", command="python", args=argv, timeout_secs=60, start_secs=1)
    began = time.monotonic()
    with pytest.raises(UpstreamFailed, match="within 1 s"):
        await make().add("main", spec)
    assert time.monotonic() - began < 30
