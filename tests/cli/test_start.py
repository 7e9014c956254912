"""What a start of the command line loads: a third of a second is what people feel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LOADED = "import sys; from rootlink.cli.app import main; main({argv!r}); print(*sorted(sys.modules))"
HEAVY = {
    "rich",
    "pydantic",
    "sqlalchemy",
    "uvicorn",
    "starlette",
    "aiohttp",
    "psutil",
    "nacl",
    "rootlink.store",
    "rootlink.gateway",
}


@pytest.mark.parametrize("argv", [["--help"], ["tools"], ["connect", "memory"], ["secrets", "list"]], ids=" ".join)
def test_a_command_loads_nothing_heavy(tmp_path: Path, argv: list[str]) -> None:
    code = LOADED.format(argv=argv)
    done = subprocess.run(
        [sys.executable, "-c", code], env={"ROOTLINK_HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(done.stdout.splitlines()[-1].split())


def test_the_script_and_the_module_are_the_same_program(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("rootlink")
    for command in ([str(script)], [sys.executable, "-m", "rootlink"]):
        done = subprocess.run(
            [*command, "nothing"], env={"ROOTLINK_HOME": str(tmp_path)}, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (2, "rootlink: invalid: No such command 'nothing'. Try: rootlink --help\n")


def test_a_reader_that_leaves_early_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m rootlink doctor | head -c 3"
    done = subprocess.run(
        ["bash", "-c", command],
        env={"ROOTLINK_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in done.stderr
