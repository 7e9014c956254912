"""Whether doors work here is tried, and said in words when they do not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rootlink.door.probe import probe


def test_where_doors_work_there_is_no_reason_and_it_takes_little_time() -> None:
    took = []
    for _ in range(5):
        start = time.perf_counter()
        assert probe() is None
        took.append(time.perf_counter() - start)
    assert min(took) < 0.3  # 0.15 on a machine that has nothing else to do


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a place where namespaces are refused")
def test_where_user_namespaces_are_refused_the_reason_names_what_to_change() -> None:
    """A user namespace of its own, in which no further one may be made."""
    code = "from rootlink.door.probe import probe; print(probe())"
    limit = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert "sysctl -w user.max_user_namespaces=" in done.stdout


def test_a_try_that_can_t_even_start_is_a_reason(tmp_path: Path) -> None:
    assert "could not be tried" in str(probe(str(tmp_path / "no-python")))
