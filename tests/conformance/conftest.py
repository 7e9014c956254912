"""The fixture server as it stands alone, and a Rootlink with it mounted in every way, each in a workspace of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from subprocess import PIPE, Popen
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.harness import node
from tests.harness.instance import SERVERS, Instance, closing, script

FIXTURE = SERVERS / "conformance" / "server.py"
MOUNT = "conf"


@pytest.fixture(scope="package")
def fixtures() -> Iterator[dict[str, str]]:
    """URLs: of both eras, and of the session era alone."""
    node.ready()
    with ExitStack() as stack:
        yield {flags: stack.enter_context(_Serving(*flags.split())) for flags in ("", "--session-only")}


class _Serving:
    def __init__(self, *flags: str) -> None:
        self._command = [sys.executable, str(FIXTURE), "--http", "0", *flags]

    def __enter__(self) -> str:
        self._process = Popen(self._command, stdin=PIPE, stdout=PIPE)
        assert self._process.stdout is not None
        return f"http://127.0.0.1:{int(self._process.stdout.readline())}/mcp"

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="package")
def rootlink(tmp_path_factory: pytest.TempPathFactory, fixtures: dict[str, str]) -> Iterator[Instance]:
    """One with the fixture mounted in every way, each in a workspace called as the way through."""
    for instance in closing(Instance(tmp_path_factory.mktemp("conformance") / "home", "--allow-private", "127.0.0.0/8")):
        for url in fixtures.values():
            instance.allow(urlsplit(url).netloc)
        for leg, mounts in _mounts(fixtures).items():
            for mount in mounts:
                answer = instance.engine("POST", "/mcp-servers", mount, ws=leg)
                assert answer.status == 201, (leg, answer.body)
        yield instance


def _mounts(fixtures: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    far = {flags: {"name": MOUNT, "transport": "http", "endpoint": url} for flags, url in fixtures.items()}
    paths = {"read": [str(node.HOME)]}
    everything = {"name": "aaa", "transport": "stdio", "command": "node", "args": [node.EVERYTHING], "paths": paths}
    return {
        "http": [far[""]],
        "session": [far["--session-only"]],
        "stdio": [script(MOUNT, FIXTURE, "--stdio")],
        "session-stdio": [script(MOUNT, FIXTURE, "--stdio", "--session-only", session="client")],
        "stateless-stdio": [script(MOUNT, FIXTURE, "--stdio", "--stateless-only")],
        "beside": [everything, far[""], script("zzz", SERVERS / "plain.py")],
    }
