"""The gateway can't open the private key, on one machine under one user (SECURITY-FIGURES 7)."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootlink.programs import landlock
from rootlink.programs.settings import Settings

GATEWAY_LIKE = """
import json, os, pathlib, socket, sqlite3, subprocess, sys, tempfile
from rootlink.programs.gateway import give_up_the_key
from rootlink.programs.settings import Settings

settings = Settings.load({"home": sys.argv[1]}, {})
settings.prepare()
key = settings.private_key_file
inside = os.open(key.parent, os.O_RDONLY | os.O_DIRECTORY) if "early" in sys.argv else None

def can(act):
    try:
        act()
        return True
    except OSError as error:
        return False

held = give_up_the_key(settings)
os.symlink(key, settings.run_dir / "link")
print(json.dumps({
    "held": held,
    "read": can(lambda: key.read_bytes()),
    "write": can(lambda: open(key, "ab")),
    "truncate": can(lambda: os.truncate(key, 0)),
    "truncate by opening": can(lambda: os.close(os.open(key, os.O_RDONLY | os.O_TRUNC))),
    "truncate what is ours": can(lambda: (open(settings.run_dir / "own", "w").close(), os.truncate(settings.run_dir / "own", 0))),
    "list": can(lambda: os.listdir(key.parent)),
    "remove": can(lambda: key.unlink()),
    "by link": can(lambda: (settings.run_dir / "link").read_bytes()),
    "by hard link": can(lambda: os.link(key, settings.run_dir / "hard")),
    "by moving": can(lambda: os.rename(key.parent, settings.run_dir / "moved")),
    "by proc": can(lambda: open(f"/proc/self/root{key}").read()),
    "by a child": subprocess.run(["/bin/cat", str(key)], capture_output=True).returncode == 0,
    "make a key": can(lambda: open(key.parent / "new.key", "w")),
    "database": can(lambda: sqlite3.connect(settings.home / "control" / "x.db").execute("create table t (x)")),
    "public key": can(lambda: settings.public_key_file.read_bytes()),
    "temporary file": can(lambda: tempfile.NamedTemporaryFile()),
    "import": can(lambda: __import__("http.cookiejar")),
    "resolver": can(lambda: open("/etc/hosts").read()),
}))
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        settings = Settings.load({"home": folder}, {})
        settings.prepare()
        settings.private_key_file.write_text("private\n")
        settings.public_key_file.write_text("public\n")
        yield settings.home
    if settings.runtime_dir.exists():
        settings.runtime_dir.rmdir()


@pytest.mark.skipif(not landlock.works(), reason="this kernel has no Landlock")
def test_a_gateway_can_neither_open_nor_empty_the_private_key_by_any_way(home: Path) -> None:
    done = subprocess.run([sys.executable, "-c", GATEWAY_LIKE, str(home)], capture_output=True, text=True, check=True)
    can = json.loads(done.stdout)
    may = {"held", "truncate what is ours", "database", "public key", "temporary file", "import", "resolver"}
    if landlock.abi() < 3:
        may |= {"truncate"}
    assert {name for name, able in can.items() if able} == may
    assert (home / "vault" / "seal.key").read_text() == "private\n"


def test_without_the_lock_it_could(home: Path) -> None:
    """The control: the test above is not green for another reason."""
    script = GATEWAY_LIKE.replace("held = give_up_the_key(settings)", "held = False")
    script = script.replace('"remove": can(lambda: key.unlink()),', "")
    done = subprocess.run([sys.executable, "-c", script, str(home)], capture_output=True, text=True, check=True)
    can = json.loads(done.stdout)
    assert can["read"] and can["by link"] and can["by moving"] and can["truncate"]


def test_a_kernel_that_can_not_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert landlock.restrict([], away=Path("/nowhere")) is False
    assert list(Path("/").iterdir())
