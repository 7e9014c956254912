"""The official conformance suite's client side: an engine is what mounts, signs in and asks (client_driver.py)."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import msgspec
import pytest

from tests.conformance import suite
from tests.conformance.suite import Check
from tests.harness import node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
COMMAND = f"{sys.executable} {Path(__file__).with_name('client_driver.py')}"
_LISTED = re.compile(r"^  - (\S+) \[", re.MULTILINE)
_FOLDER = re.compile(r"(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\dZ-]+\Z")


async def test_an_engine_passes_as_a_client(tmp_path: Path) -> None:
    node.ready()
    scenarios = _LISTED.findall(await suite._suite("list", "--client"))
    turns = asyncio.Semaphore(suite.AT_ONCE)

    async def one(scenario: str) -> None:  # by itself: the suite would start them all at once, and each is a whole engine
        async with turns:
            await suite._suite("client", "--command", COMMAND, "--scenario", scenario, "--timeout", "60000", "-o", str(tmp_path))

    await asyncio.gather(*(one(scenario) for scenario in scenarios))
    checks = [check for file in sorted(tmp_path.rglob("checks.json")) for check in _read(file, tmp_path)]
    lost = [str(check) for check in checks if check.status in ("FAILURE", "WARNING")]
    if lost:
        pytest.fail("\n".join(lost), pytrace=False)
    assert {check.scenario for check in checks} == set(scenarios) and len(scenarios) >= 48
    assert sum(check.status == "SUCCESS" for check in checks) > 520


def _read(file: Path, folder: Path) -> list[Check]:
    found = _FOLDER.match(str(file.parent.relative_to(folder)))
    assert found, file
    made = msgspec.json.decode(file.read_bytes())
    return [Check(found["scenario"], one["id"], one["name"], one["status"], one.get("errorMessage") or "") for one in made]
