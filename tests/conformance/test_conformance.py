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
LEGS = [(leg, revision) for leg in ("http", "stdio", "stateless-stdio", "beside") for revision in EVERY]
# the extensions belong to 2026-07-28: a server of the session era has none
OF_SESSIONS = ("session", "session-stdio")
LEGS += [(leg, revision) for leg in OF_SESSIONS for revision in REVISIONS]

# What a check may be instead of passed: the suite's words (none: it was not made), and why that is no loss
KEPT_OPEN = "a server that closes its stream to be asked again later does so to the engine; the client's stays open"
EXCUSES = {("server-sse-polling", "server-sse-disconnect-resume"): ("", KEPT_OPEN)}

# The same for what a server of the session era fails when it is asked directly: it knows nothing of 2026-07-28, so there all that
# passes through is Rootlink's doing, and no excuse is taken for what would pass without it. What can't be made up for is a name:
# such a server's question has none, and the suite asks for one by the name that the other era's server gives it.
NAMELESS = "the suite answers a question named `user_name`; a server of the session era gives its questions no names"
BEYOND = {
    ("input-required-result-basic-elicitation", "sep-2322-elicitation-incomplete"): ('key "user_name"', NAMELESS),
    ("input-required-result-basic-elicitation", "sep-2322-elicitation-complete"): ("", NAMELESS),
    ("input-required-result-ignore-extra-params", "sep-2322-ignore-unexpected-params"): ("extra keys", NAMELESS),
}
_direct: dict[tuple[str, str], Outcome] = {}


async def direct(fixtures: dict[str, str], flags: str, revision: str, tmp_path: Path) -> Outcome:
    if (flags, revision) not in _direct:
        _direct[flags, revision] = await suite.run(fixtures[flags], revision, tmp_path / f"direct{flags}")
    return _direct[flags, revision]


@pytest.mark.parametrize("revision", EVERY)
async def test_the_fixture_passes_directly(fixtures: dict[str, str], tmp_path: Path, revision: str) -> None:
    outcome = await direct(fixtures, "", revision, tmp_path)
    failed = [str(check) for check in outcome.values() if check.status in ("FAILURE", "WARNING")]
    if failed:
        pytest.fail("\n".join(failed), pytrace=False)
    assert sum(check.status == "SUCCESS" for check in outcome.values()) > 70


@pytest.mark.parametrize(("leg", "revision"), LEGS)
async def test_what_passes_directly_passes_through(
    rootlink: Instance, fixtures: dict[str, str], tmp_path: Path, leg: str, revision: str
) -> None:
    """Also what only a server of both eras passes directly."""
    wanted = await direct(fixtures, "", revision, tmp_path)
    alone = await direct(fixtures, "--session-only", revision, tmp_path) if leg in OF_SESSIONS else wanted
    port = urlsplit(rootlink.api).port
    assert port is not None
    async with Shim(port, rootlink.key, MOUNT).serving() as url:
        through = await suite.run(f"{url}/mcp/{leg}", revision, tmp_path / "through")
    lost = [str(check) for check in _lost(wanted, through) if not _excused(check, alone)]
    if lost:
        pytest.fail(f"{leg}, {revision}: {len(lost)} of {len(wanted)}\n" + "\n".join(lost), pytrace=False)


async def test_a_server_of_the_session_era_fails_the_other_ones_revision_directly(
    fixtures: dict[str, str], tmp_path: Path
) -> None:
    """Why what it can't do there is not lost on the way."""
    outcome = await direct(fixtures, "--session-only", "2026-07-28", tmp_path)
    assert sum(check.status == "FAILURE" for check in outcome.values()) > 90
    assert not [key for key in BEYOND if any(check.status == "SUCCESS" for check in outcome.values() if check.key[:2] == key)]


def _lost(wanted: Outcome, through: Outcome) -> Iterator[Check]:
    """What fails through, and what passed directly and does not through."""
    yield from (check for check in through.values() if check.status == "FAILURE")
    for check in wanted.values():
        found = through.get(check.key, Check(*check.key, "MISSING"))
        if check.status == "SUCCESS" and found.status not in ("SUCCESS", "FAILURE"):
            yield found


def _excused(check: Check, alone: Outcome) -> bool:
    """`alone`: what came of the same server without Rootlink."""
    about = check.scenario, check.id
    directly = alone.get(check.key)
    excuse = EXCUSES.get(about) or (BEYOND.get(about) if directly is None or directly.status != "SUCCESS" else None)
    return excuse is not None and (excuse[0] in check.message if excuse[0] else not check.message)
