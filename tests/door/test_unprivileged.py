"""The same, all of it, for a user without any privilege."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# 1001 need not exist. The interpreter may lie below a folder that only root may enter: in a mount namespace of its own it is put
# where all may go
REACHABLE = """
set -e
base=$1; keep=$2; top=/$(echo "$base" | cut -d/ -f2)
if [ "$(stat -c %a "$top" | tail -c 2)" = 0 ]; then
    mount --bind "$base" "$keep"
    mount -t tmpfs -o mode=755 tmpfs "$top"
    mkdir -p "$base"
    mount --bind "$keep" "$base"
fi
mount -t tmpfs -o mode=755,uid=1001,gid=1001 tmpfs /mnt  # short names, for sockets; nobody else sees it
shift 2
exec setpriv --reuid=1001 --regid=1001 --clear-groups --bounding-set=-all --inh-caps=-all "$@"
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(shutil.which("unshare") is None or shutil.which("setpriv") is None, reason="util-linux is not installed")
def test_every_other_test_of_doors_passes_as_an_ordinary_user(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    argv = ["unshare", "--mount", "sh", "-c", REACHABLE, "sh", sys.base_prefix, str(keep)]
    own = [
        str(path)
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
        if path.name not in (Path(__file__).name, "test_frames.py")
    ]
    pytest_argv = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "--basetemp=/mnt/own", "-rs", *own]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/mnt", "TMPDIR": "/mnt"}
    done = subprocess.run(
        [*argv, *pytest_argv], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " skipped" not in done.stdout or "bubblewrap" not in done.stdout  # a skip for want of doors says so
