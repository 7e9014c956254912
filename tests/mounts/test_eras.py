"""Which era a stdio server is greeted in, and what it costs to find out: a child of every kind (fixtures/servers/eras.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rootlink.engine.mounts import handshake
from rootlink.engine.mounts.handshake import PROBE_SECONDS, SILENCE
from rootlink.engine.mounts.mount import Mount
from rootlink.errors import UpstreamFailed
from rootlink.wire.mounts import MountSpec
from tests.harness.calls import Told
from tests.mounts.asking import as_client, use
from tests.mounts.conftest import MakeMounts
from tests.mounts.ground import SERVERS, call, until

OLD, NEW = "2025-11-25", "2026-07-28"
ASLEEP = ("--asleep", str(SILENCE * 2))
DISCOVER, INITIALIZE, INITIALIZED = "server/discover", "initialize", "notifications/initialized"


class Kind:
    """A server of some kind, and what it heard."""

    def __init__(self, file: Path, kind: str, *more: str, **members: str) -> None:
        self._file = file
        self.turns(kind)
        self.spec = MountSpec(
            "eras", "stdio", command="python", args=["-S", str(SERVERS / "eras.py"), str(file), *more], **members
        )  # type: ignore[arg-type]

    def turns(self, kind: str) -> None:
        self._file.write_text(f"{kind}\n")

    @property
    def starts(self) -> list[list[str]]:
        """What each process heard of a greeting."""
        _, *each = self._file.read_text().split("start\n")
        return [[word for word in one.split() if not word.startswith("tools/")] for one in each]


@pytest.fixture
def kind(tmp_path: Path) -> Callable[..., Kind]:
    def made(name: str, *more: str, **members: str) -> Kind:
        return Kind(tmp_path / "files" / "heard", name, *more, **members)

    return made


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> float:
    """For tests of who does answer, on a machine that may be slow: seconds after which it would be taken for silent."""
    monkeypatch.setattr(handshake, "SILENCE", 20.0)
    return 20.0


async def crashed(mount: Mount) -> None:
    """It ends, and is up again."""
    before = await call(mount, "process")
    with pytest.raises(UpstreamFailed):
        await call(mount, "crash")
    assert await call(mount, "process") != before


@pytest.mark.parametrize("name", ["error", "garbles"])
async def test_an_old_server_is_asked_once_what_it_does_not_know(
    make: MakeMounts, kind: Callable[..., Kind], name: str, patient: float
) -> None:
    server = kind(name)
    began = time.monotonic()
    mount = await make().add("main", server.spec)
    assert time.monotonic() - began < patient
    assert mount.catalogue.version == OLD
    assert server.starts == [[DISCOVER, INITIALIZE, INITIALIZED]]


@pytest.mark.parametrize("name", ["silent", "tardy"])
async def test_an_old_server_that_stays_silent_costs_a_moment_and_not_its_call(
    make: MakeMounts, kind: Callable[..., Kind], name: str
) -> None:
    server = kind(name)
    began = time.monotonic()
    mount = await make().add("main", server.spec)
    assert time.monotonic() - began < PROBE_SECONDS
    assert mount.catalogue.version == OLD
    found = [await call(mount, "process") for _ in range(3)]
    assert len(set(found)) == 1
    assert server.starts == [[DISCOVER, INITIALIZE, INITIALIZED]], "and nothing of a cancellation"


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", ["exits", "replies-and-exits"])
async def test_an_old_server_that_ends_at_what_it_does_not_know_is_mounted(
    make: MakeMounts, kind: Callable[..., Kind], name: str
) -> None:
    server = kind(name)
    mount = await make().add("main", server.spec)
    assert (mount.state, mount.catalogue.version) == ("ready", OLD)
    assert server.starts == [[DISCOVER], [INITIALIZE, INITIALIZED]]
    assert await call(mount, "process")


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", ["lenient", "first", "pinned", "stateless"])
async def test_a_server_that_has_the_stateless_era_is_never_initialized(
    make: MakeMounts, kind: Callable[..., Kind], name: str
) -> None:
    server = kind(name)
    mount = await make().add("main", server.spec)
    assert mount.catalogue.version == NEW
    assert server.starts == [[DISCOVER]]
    assert await call(mount, "process")


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("first", [[DISCOVER, INITIALIZE]]),
        ("stateless", [[DISCOVER, INITIALIZE]]),
        ("pinned", [[DISCOVER, INITIALIZE, INITIALIZED], [DISCOVER]]),
        ("lenient", [[DISCOVER, INITIALIZE, INITIALIZED], [DISCOVER]]),
    ],
)
async def test_one_that_starts_slowly_is_of_the_stateless_era_too(
    make: MakeMounts, kind: Callable[..., Kind], name: str, starts: list[list[str]]
) -> None:
    """It found both greetings when it was up: one that took the second one is started for the first."""
    server = kind(name, *ASLEEP)
    mount = await make().add("main", server.spec)
    assert mount.catalogue.version == NEW
    assert server.starts == starts
    assert await call(mount, "process")


@pytest.mark.parametrize("name", ["error", "exits"])
async def test_an_old_server_that_starts_slowly_is_started_as_often_as_a_quick_one(
    make: MakeMounts, kind: Callable[..., Kind], name: str
) -> None:
    server = kind(name, *ASLEEP)
    mount = await make().add("main", server.spec)
    assert mount.catalogue.version == OLD
    assert len(server.starts) == {"error": 1, "exits": 2}[name]


@pytest.mark.parametrize("name", ["silent", "exits", "pinned"])
async def test_what_was_found_out_holds_over_a_crash_and_a_new_engine(
    make: MakeMounts, kind: Callable[..., Kind], name: str
) -> None:
    server = kind(name)
    one = make()
    mount = await one.add("main", server.spec)
    greeting = [DISCOVER] if mount.catalogue.version == NEW else [INITIALIZE, INITIALIZED]
    await crashed(mount)
    assert server.starts[-1] == greeting
    known = len(server.starts)
    await one.close()
    again = make().restore("main", server.spec, None, mount.catalogue)
    await until(lambda: again.state == "ready", "it is up again")
    assert server.starts[known:] == [greeting]


async def test_a_restart_asks_anew(make: MakeMounts, kind: Callable[..., Kind]) -> None:
    server, mounts = kind("error"), make()
    mount = await mounts.add("main", server.spec)
    server.turns("first")
    await mounts.restart("main", "eras")
    assert mount.catalogue.version == NEW


async def test_one_that_is_not_what_it_was_is_found_out_at_its_next_start(make: MakeMounts, kind: Callable[..., Kind]) -> None:
    server = kind("stateless")
    mount = await make().add("main", server.spec)
    server.turns("error")
    await crashed(mount)
    assert mount.catalogue.version == OLD


async def test_who_wants_a_process_for_each_client_gets_the_era_that_has_sessions(
    make: MakeMounts, kind: Callable[..., Kind]
) -> None:
    mount = await make().add("main", kind("first", session="client").spec)
    assert mount.catalogue.version == OLD
    found = [await use(mount, as_client(Told(key=key)), "process") for key in ("ada", "bob", "ada")]
    assert found[0] == found[2] != found[1]
