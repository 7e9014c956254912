"""All of it as an ordinary user who may not even see root's folders, and as root: the same."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.instance import KERNEL, SERVERS, Instance, closing, eventually
from tests.harness.standin import standin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.usefixtures("doors")]
HOST, UID = "api.user.example", 1001
# An interpreter below /root is out of others' reach, so in a mount namespace of its own /root holds nothing but that.
BEFORE = """
set -e
if [ -n "$SHOWN" ]; then
    aside=$(mktemp -d) && mount --bind "$SHOWN" "$aside"
    mount -t tmpfs -o mode=755 tmpfs /root && mkdir -p "$SHOWN"
    mount --bind "$aside" "$SHOWN" && umount "$aside" && rmdir "$aside"
fi
exec setpriv --reuid="$UID_" --regid="$UID_" --clear-groups --bounding-set=-all --no-new-privs "$@"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where somebody else may write: pytest's own folders are closed to others."""
    made = Path(tempfile.mkdtemp(prefix="rl-user-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def somebody_else(folder: Path) -> Instance:
    os.chown(folder, UID, UID)
    real = Path(sys.executable).resolve()
    below = [parent for parent in real.parents if parent.parent == Path("/root")]
    user = {"HOME": str(folder), "UID_": str(UID), "SHOWN": str(below[0]) if below else "", "TMPDIR": "/tmp"}
    user |= {"ROOTLINK_PACKAGE_STORE": str(folder / "store")}
    return Instance(folder / "home", before=("unshare", "-m", "sh", "-c", BEFORE, "sh"), environ=user)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; the other suites run as this user")
@pytest.mark.parametrize("who", ["an ordinary user", "root"])
def test_up_mount_reach_and_refuse(who: str, folder: Path) -> None:
    with standin(HOST, lambda _: (200, {"reached": True}), folder) as server:
        server.ca.chmod(0o644)
        instance = somebody_else(folder) if who != "root" else Instance(folder / "home")
        instance.flags = (*KERNEL, *server.flags)
        for up in closing(instance):
            uids = {process.uids().real for process in up.processes()}
            assert uids == {UID if who != "root" else 0}
            up.allow(HOST)
            up.mount("reach", SERVERS / "reach.py")
            assert up.project("GET", "/engine").data["sandbox"] == "kernel"
            reached = up.call("reach__curl", {"url": f"https://{HOST}/"})
            assert not reached["isError"], reached
            away = up.call("reach__curl", {"url": "https://refused.example/"})
            assert away["isError"]
            assert "egress blocked: host 'refused.example'" in str(away["content"])
            eventually(lambda up=up: "refused.example" in {row["host"] for row in up.denied()}, what="the record")
            assert up.call("reach__read", {"path": str(up.home / "admin-token")})["isError"]
            assert {process.uids().real for process in up.processes()} == uids
