"""One instance for the tests that only add to it; those that kill or restart make their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import standin
from tests.harness.instance import Instance, closing, doors_work


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """Loopback is open to it (`--allow-private`), so that tests can mount servers of their own."""
    home = tmp_path_factory.mktemp("shared") / "home"
    yield from closing(Instance(home, "--allow-private", "127.0.0.0/8"))


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Instance]:
    yield from closing(Instance(tmp_path / "home", "--allow-private", "127.0.0.0/8"))


@pytest.fixture(scope="session")
def doors() -> None:
    """For tests of the kernel tier: they are nothing on a machine that cannot have it."""
    if not doors_work():
        pytest.skip("this machine lets its user make no user and network namespaces (Docker's default profile?)")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> standin.Authority:
    return standin.Authority(tmp_path_factory.mktemp("authority"))
