"""Rules about the repository's own files."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# spelled in parts, so that this file passes its own rule
REGISTRIES = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("registry", "npmjs"), ("proxy", "golang"))]


def tracked() -> list[Path]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is no git checkout")
    return [path for name in done.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_names_a_package_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {host}" for path in tracked() for host in REGISTRIES if host.encode() in path.read_bytes()
    ]
    assert found == []


@pytest.mark.parametrize("lock", ["run", "test", "bench"])
def test_a_lock_pins_every_package_with_hashes_and_holds_no_host(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    entries = re.split(r"\n(?=\S)", text.rstrip("\n"))
    whole = re.compile(r"[\w.\[\]-]+==\S+( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+")
    assert [entry.splitlines()[0] for entry in entries if not whole.fullmatch(entry)] == []
    assert len(entries) > 40


def test_every_pin_of_the_run_lock_is_in_the_test_lock() -> None:
    pins = {
        lock: set(re.findall(r"^\S+==\S+", (ROOT / "requirements" / f"{lock}.txt").read_text(), re.MULTILINE))
        for lock in ("run", "test")
    }
    assert pins["run"] <= pins["test"]


def test_the_licence_is_the_apache_licence() -> None:
    assert "Apache License\n                           Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("script", [".ci/run", "scripts/install", "scripts/lock", "scripts/packages"])
def test_a_script_is_executable_and_stops_at_the_first_error(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in path.read_text()


def test_every_promise_of_the_security_page_names_tests_that_exist() -> None:
    rows = [
        line
        for line in (ROOT / "SECURITY.md").read_text().partition("## Promises")[2].partition("## ")[0].splitlines()
        if "|" in line
    ]
    named = [re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row) for row in rows[2:]]
    assert all(named), "a promise without a test"
    missing = [f"{file}::{test}" for tests in named for file, test in tests if f"def {test}(" not in _text(ROOT / file)]
    assert missing == []


def test_what_the_pages_point_to_exists() -> None:
    pages = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
    found = {
        name
        for page in pages
        for name in re.findall(r"\b(?:[A-Z]+\.md|scripts/\w+|cli/\w+\.py|store/\w+\.py)\b", _text(ROOT / page))
    }
    places = (ROOT, ROOT / "src" / "rootlink")
    assert [name for name in sorted(found) if not any((place / name).exists() for place in places)] == []


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
