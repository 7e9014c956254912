from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from rootlink.cli.app import main
from tests.cli.instance import Instance, running


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return msgspec.json.decode(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROOTLINK_HOME", str(tmp_path / "home"))
    for name in ("TOKEN", "URL", "PROJECT", "WS"):
        monkeypatch.delenv(f"ROOTLINK_{name}", raising=False)
    return tmp_path / "home"


@pytest.fixture
def instance(home: Path) -> Iterator[Instance]:
    with running(home) as instance:
        yield instance


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`rootlink ARGS…` in this process; `stdin` is what is piped into it."""

    def run(*argv: str, stdin: str = "") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = main(argv)
        return Outcome(code, *capsys.readouterr())

    return run
