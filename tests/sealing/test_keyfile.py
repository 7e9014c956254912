from __future__ import annotations

import os
import signal
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from rootlink.errors import Unavailable
from rootlink.sealing import keyfile
from rootlink.sealing.seal import Sealer
from rootlink.sealing.unseal import Unsealer, generate

KEY = bytes(range(32))


@pytest.fixture
def private(tmp_path: Path) -> Path:
    return tmp_path / "vault" / "seal.key"


@pytest.fixture
def public(tmp_path: Path) -> Path:
    return tmp_path / "vault-public" / "seal.pub"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_a_pair_and_the_next_one_finds_it(private: Path, public: Path) -> None:
    first = Unsealer.open_or_create(private, public)
    again = Unsealer.open_or_create(private, public)
    assert first.key_id == again.key_id == Sealer.read(public).key_id
    sealed = Sealer.read(public).seal("prj_1", "KEY", 1, "v")
    assert again.open(sealed.ciphertext, project="prj_1", name="KEY", version=1) == "v"


def test_the_private_key_and_its_folder_are_the_owners_alone(private: Path, public: Path) -> None:
    Unsealer.open_or_create(private, public)
    assert (mode(private), mode(private.parent)) == (0o600, 0o700)
    assert [file.name for file in private.parent.iterdir()] == ["seal.key"]
    assert [file.name for file in public.parent.iterdir()] == ["seal.pub"]


OTHER = generate()[1].hex().encode()


@pytest.mark.parametrize("left", [None, b"", b"half a ke", OTHER], ids=["missing", "empty", "half", "another"])
def test_a_public_key_that_is_missing_or_of_another_pair_is_written_anew(private: Path, public: Path, left: bytes | None) -> None:
    key_id = Unsealer.open_or_create(private, public).key_id
    public.unlink() if left is None else public.write_bytes(left)
    Unsealer.open_or_create(private, public)
    assert Sealer.read(public).key_id == key_id


@pytest.mark.parametrize("left", ["public key", "secrets"])
def test_a_lost_private_key_is_not_replaced(private: Path, public: Path, left: str) -> None:
    before = Unsealer.open_or_create(private, public).key_id
    private.rename(private.with_name("away"))
    if left == "secrets":
        public.unlink()
    with pytest.raises(
        Unavailable, match=r"seal\.key is missing.*opens the secrets.*Put it back.*start anew.*seal\.pub"
    ) as refused:
        Unsealer.open_or_create(private, public, sealed=lambda: left == "secrets")
    assert not private.exists()
    private.with_name("away").rename(private)
    assert Unsealer.open_or_create(private, public, sealed=lambda: True).key_id == before
    assert str(private) in refused.value.message and str(public) in refused.value.message


def test_who_gives_up_a_lost_key_gets_another(private: Path, public: Path) -> None:
    """By what the refusal says, word for word."""
    before = Unsealer.open_or_create(private, public).key_id
    private.unlink()
    with pytest.raises(Unavailable) as refused:
        Unsealer.open_or_create(private, public, sealed=lambda: True)
    command = refused.value.message.partition("to start anew: ")[2].partition(", start,")[0]
    subprocess.run(command, shell=True, check=True)
    after = Unsealer.open_or_create(private, public, sealed=lambda: True).key_id
    assert after != before and after == Sealer.read(public).key_id
    assert [file.name for file in private.parent.iterdir()] == ["seal.key"]


def test_a_private_key_is_never_written_over(private: Path) -> None:
    keyfile.create(private, KEY, mode=0o600)
    keyfile.create(private, generate()[0], mode=0o600)
    assert keyfile.read(private, private=True) == KEY


def test_of_many_first_starts_at_once_one_key_wins(private: Path, public: Path) -> None:
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(Unsealer.open_or_create(private, public).key_id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert set(ids) == {Sealer.read(public).key_id}


@pytest.mark.parametrize("wrong", [0o640, 0o604, 0o644])
def test_a_private_key_that_others_may_read_is_refused(private: Path, public: Path, wrong: int) -> None:
    Unsealer.open_or_create(private, public)
    private.chmod(wrong)
    with pytest.raises(Unavailable, match=f"mode {wrong:04o}.*chmod 600"):
        Unsealer.open_or_create(private, public)


@pytest.mark.parametrize("content", [b"", b"ab" * 31, b"zz" * 32, b"ab" * 33, b"\xff" * 64, KEY])
def test_a_file_that_is_no_key_is_refused_and_kept(private: Path, public: Path, content: bytes) -> None:
    keyfile.create(private, KEY, mode=0o600)
    private.write_bytes(content)
    with pytest.raises(Unavailable, match="is not a sealing key"):
        Unsealer.open_or_create(private, public)
    assert private.read_bytes() == content


def test_a_missing_key_is_said(public: Path) -> None:
    with pytest.raises(Unavailable, match=r"seal\.pub can't be read: No such file"):
        Sealer.read(public)


def test_a_folder_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "vault").write_text("a file")
    with pytest.raises(Unavailable, match="can't be written"):
        keyfile.create(tmp_path / "vault" / "seal.key", KEY, mode=0o600)


@pytest.mark.parametrize("point", ["open", "fsync", "replace", "link", "unlink"])
@pytest.mark.parametrize("write", ["create", "replace"])
def test_killed_at_any_point_there_is_the_old_key_or_the_new_one(tmp_path: Path, write: str, point: str) -> None:
    path = tmp_path / "vault" / "seal.key"
    if write == "replace":
        keyfile.create(path, KEY, mode=0o600)
    new = generate()[0]
    child = os.fork()
    if child == 0:
        _die_at(point)
        getattr(keyfile, write)(path, new, mode=0o600)
        os._exit(0)
    os.waitpid(child, 0)
    found = keyfile.read(path, private=True) if path.exists() else None
    assert found in ((KEY, new) if write == "replace" else (None, new))
    keyfile.create(path, KEY, mode=0o600)
    assert keyfile.read(path, private=True) in (KEY, new)


def _die_at(point: str) -> None:
    """In the child: its next call of os.<point> is its last."""

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, point, die)
