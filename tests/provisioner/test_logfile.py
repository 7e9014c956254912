from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rootlink.provisioner.launch import logfile


def test_a_long_log_is_put_aside_and_its_writer_goes_on_in_the_same_file(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    writer = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(writer, b"old line\n" * 200)
        logfile.cap(tmp_path, most=1000)
        os.write(writer, b"new line\n")
    finally:
        os.close(writer)
    aside = tmp_path / "engine.log.1"
    assert log.read_bytes() == b"new line\n" and aside.read_bytes() == b"old line\n" * 200
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600


def test_a_short_log_stays(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"line\n")
    logfile.cap(tmp_path, most=1000)
    assert [path.name for path in tmp_path.iterdir()] == ["engine.log"] and log.read_bytes() == b"line\n"


def test_a_log_that_can_not_be_copied_is_cut_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logfile.shutil, "copyfile", full)
    log = tmp_path / "engine.log"
    log.write_bytes(b"x" * 2000)
    logfile.cap(tmp_path, most=1000)
    assert log.stat().st_size == 0 and not (tmp_path / "engine.log.1").exists()
    logfile.cap(tmp_path / "nowhere")
