"""The official conformance suite, run against a URL; what came out, check by check.

A revision is one of the specification's, or EXTENSIONS: the scenarios that belong to none, which the suite runs one at a time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.harness import node

SUITE = str(node.HOME / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js")
REVISIONS = ("2025-11-25", "2026-07-28")
EXTENSIONS = "extensions"
AT_ONCE = 4
SHOWN = 300  # characters of a message
WAIT = 150.0  # s, for one run; the suite itself gives up on a scenario after 30
_FOLDER = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\dZ-]+\Z")
_EXTENSION = re.compile(r"- (\S+) \[extension\]")
_ORDER = ("FAILURE", "WARNING", "SKIPPED", "INFO", "SUCCESS")


@dataclass(frozen=True)
class Check:
    """A check as it came out worst, for some are made several times. `status` is one of the suite's five words."""

    scenario: str
    id: str
    name: str
    status: str
    message: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.scenario, self.id, self.name

    def __str__(self) -> str:
        return f"{self.scenario}: {self.id} ({self.name}): {self.status} {self.message[:SHOWN]}".rstrip()


Outcome = dict[tuple[str, str, str], Check]


async def run(url: str, revision: str, folder: Path) -> Outcome:
    """Every check of `revision` against the server at `url`. `folder` takes the suite's own files."""
    if revision != EXTENSIONS:
        await _suite("server", "--url", url, "--suite", "all", "--spec-version", revision, "-o", str(folder))
        return _read(folder)
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(scenario: str) -> None:
        async with turns:
            await _suite("server", "--url", url, "--scenario", scenario, "-o", str(folder))

    await asyncio.gather(*(one(scenario) for scenario in _EXTENSION.findall(await _suite("list", "--server"))))
    return _read(folder)


async def _suite(*words: str) -> str:
    """What it says. Whether checks fail is in its files, so its exit code says nothing more."""
    process = await asyncio.create_subprocess_exec(
        node.NODE, SUITE, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(WAIT):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode()


def _read(folder: Path) -> Outcome:
    worst: Outcome = {}
    for check in _checks(folder):
        known = worst.get(check.key)
        if known is None or _ORDER.index(check.status) < _ORDER.index(known.status):
            worst[check.key] = check
    assert worst, f"the suite wrote nothing into {folder}"
    return worst


def _checks(folder: Path) -> Iterator[Check]:
    for file in sorted(folder.glob("*/checks.json")):
        found = _FOLDER.match(file.parent.name)
        assert found, file
        for check in msgspec.json.decode(file.read_bytes()):
            message = check.get("errorMessage") or ""
            yield Check(found["scenario"], check["id"], check["name"], check["status"], message)
