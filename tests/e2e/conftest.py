"""One instance for the tests that only add to it; those that kill or restart make their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.instance import Instance, closing


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """Loopback is open to it (`--allow-private`), so that tests can mount servers of their own."""
    home = tmp_path_factory.mktemp("shared") / "home"
    yield from closing(Instance(home, "--allow-private", "127.0.0.0/8"))


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Instance]:
    yield from closing(Instance(tmp_path / "home", "--allow-private", "127.0.0.0/8"))
