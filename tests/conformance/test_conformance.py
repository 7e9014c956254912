"""The official conformance suite against the fixture, directly and through Rootlink: what passes directly passes through.

Each way through is a workspace of its own, so that only one of them has neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conformance import suite
from tests.conformance.conftest import MOUNT
from tests.conformance.shim import Shim
from tests.conformance.suite import EXTENSIONS, REVISIONS, Check, Outcome
from tests.harness.instance import Instance

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
EVERY = (*REVISIONS, EXTENSIONS)
LEGS = [(leg, revision) for leg in ("http", "stateless-stdio", "beside") for revision in EVERY]
# the extensions belong to 2026-07-28: a server of the session era has none
LEGS += [(leg, revision) for leg in ("session", "stdio") for revision in REVISIONS]

# What a check may be instead of passed: the ways through, the suite's words (none: it was not made), and why that is no loss
ALL = ("http", "stateless-stdio", "beside", "session", "stdio")
OF_SESSIONS = ("session", "stdio")
KEPT_OPEN = "a server that closes its stream to be asked again later does so to the engine; the client's stays open"
NAMELESS = "a server of the session era gives its questions no names; the suite asks for one by its name, `user_name`"
EXCUSES = {
    ("server-sse-polling", "server-sse-disconnect-resume"): (ALL, "", KEPT_OPEN),
    ("input-required-result-basic-elicitation", "sep-2322-elicitation-incomplete"): (OF_SESSIONS, 'key "user_name"', NAMELESS),
    ("input-required-result-basic-elicitation", "sep-2322-elicitation-complete"): (OF_SESSIONS, "", NAMELESS),
    ("input-required-result-ignore-extra-params", "sep-2322-ignore-unexpected-params"): (OF_SESSIONS, "extra keys", NAMELESS),
}
_direct: dict[str, Outcome] = {}


async def direct(url: str, revision: str, tmp_path: Path) -> Outcome:
    if revision not in _direct:
        _direct[revision] = await suite.run(url, revision, tmp_path / "direct")
    return _direct[revision]


@pytest.mark.parametrize("revision", EVERY)
async def test_the_fixture_passes_directly(fixtures: dict[str, str], tmp_path: Path, revision: str) -> None:
    outcome = await direct(fixtures[""], revision, tmp_path)
    failed = [str(check) for check in outcome.values() if check.status in ("FAILURE", "WARNING")]
    if failed:
        pytest.fail("\n".join(failed), pytrace=False)
    assert sum(check.status == "SUCCESS" for check in outcome.values()) > 70


@pytest.mark.parametrize(("leg", "revision"), LEGS)
async def test_what_passes_directly_passes_through(
    rootlink: Instance, fixtures: dict[str, str], tmp_path: Path, leg: str, revision: str
) -> None:
    wanted = await direct(fixtures[""], revision, tmp_path)
    port = urlsplit(rootlink.api).port
    assert port is not None
    async with Shim(port, rootlink.key, MOUNT).serving() as url:
        through = await suite.run(f"{url}/mcp/{leg}", revision, tmp_path / "through")
    lost = [str(check) for check in _lost(wanted, through) if not _excused(leg, check)]
    if lost:
        pytest.fail(f"{leg}, {revision}: {len(lost)} of {len(wanted)}\n" + "\n".join(lost), pytrace=False)


def _lost(wanted: Outcome, through: Outcome) -> Iterator[Check]:
    """What fails through, and what passed directly and does not through."""
    yield from (check for check in through.values() if check.status == "FAILURE")
    for check in wanted.values():
        found = through.get(check.key, Check(*check.key, "MISSING"))
        if check.status == "SUCCESS" and found.status not in ("SUCCESS", "FAILURE"):
            yield found


def _excused(leg: str, check: Check) -> bool:
    legs, said, _ = EXCUSES.get((check.scenario, check.id), ((), "", ""))
    return leg in legs and (said in check.message if said else not check.message)
