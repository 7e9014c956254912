from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rootlink.errors import Conflict, Unavailable
from rootlink.programs.record import Record, alone, write_private
from rootlink.programs.token import admin_token
from rootlink.provisioner.launch import identity


def test_a_record_finds_its_process_and_no_other(tmp_path: Path) -> None:
    record = Record(tmp_path / "x.json")
    assert record.process() is None and record.read() == {}
    with record.kept(url="here"):
        assert record.process() == identity.identify(os.getpid())
        assert record.read()["url"] == "here" and stat.S_IMODE(record.path.stat().st_mode) == 0o600
        record.path.write_bytes(b'{"pid": %d, "start": "0:1"}' % os.getpid())
        assert record.process() is None
    assert not record.path.exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"pid": "1", "start": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_record_is_of_nobody(tmp_path: Path, content: bytes) -> None:
    record = Record(tmp_path / "x.json")
    record.path.write_bytes(content)
    assert record.process() is None


def test_a_lock_is_held_by_one_and_ends_with_him(tmp_path: Path) -> None:
    holds = "import sys,time; from pathlib import Path; from rootlink.programs.record import alone\n"
    holds += "with alone(Path(sys.argv[1]), 'taken'):\n print(flush=True); time.sleep(300)"
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", holds, str(path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(Conflict, match="taken already"), alone(path, "taken already"):
            pass
        other.kill()
    with alone(path, "taken already"):
        pass


def test_what_can_not_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="can't be written"):
        write_private(tmp_path / "nowhere" / "x", b"")


def test_the_admin_token_is_made_once_and_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "admin-token"
    token = admin_token(path)
    assert len(token) == 64 and admin_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666])
def test_an_admin_token_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "admin-token"
    token = admin_token(path)
    path.chmod(mode)
    with pytest.raises(Unavailable, match=f"mode {mode:04o}.*chmod 600") as refused:
        admin_token(path)
    assert token not in refused.value.message
    path.chmod(0o600)
    assert admin_token(path) == token


def test_an_admin_token_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "admin-token"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(Unavailable, match="is no text"):
        admin_token(path)
