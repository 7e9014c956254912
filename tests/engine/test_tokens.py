"""What a client carries for us opens for whom, for what and as long as it was given, and for nothing else."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from rootlink.engine import tokens
from rootlink.engine.rpc import RpcError
from rootlink.engine.tokens import Tokens


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def sealer(key: bytes = b"k" * 32) -> Tokens:
    return Tokens(key, Clock())


def test_what_was_sealed_opens_again() -> None:
    made = sealer()
    token = made.seal("state", b"\x00body", "alice", "main", "tools/call", b"digest", ttl=60)
    assert made.open("state", token, "alice", "main", "tools/call", b"digest") == b"\x00body"
    assert tokens.kind_of(token) == "state"


OTHER = {
    "principal": ("bob", "main", "tools/call", b"digest"),
    "workspace": ("alice", "other", "tools/call", b"digest"),
    "method": ("alice", "main", "prompts/get", b"digest"),
    "arguments": ("alice", "main", "tools/call", b"digesu"),
    "the parts cut elsewhere": ("alicem", "ain", "tools/call", b"digest"),
    "fewer parts": ("alice", "main", "tools/call"),
}


@pytest.mark.parametrize("what", OTHER)
def test_a_token_is_nothing_to_another(what: str) -> None:
    token = sealer().seal("state", b"body", "alice", "main", "tools/call", b"digest", ttl=60)
    with pytest.raises(RpcError, match="requestState is not valid for this request") as refused:
        sealer().open("state", token, *OTHER[what])
    assert refused.value.code == -32602


def test_a_token_of_another_key_or_kind_does_not_open() -> None:
    token = sealer().seal("state", b"body", "alice", ttl=60)
    for made, kind in ((sealer(b"x" * 32), "state"), (sealer(), "parked")):
        with pytest.raises(RpcError):
            made.open(kind, token, "alice")
    with pytest.raises(RpcError):
        sealer().open("parked", "parked" + token.removeprefix("state"), "alice")


def test_no_changed_byte_and_no_other_spelling_opens() -> None:
    made = sealer()
    token = made.seal("state", b"body!", "alice", ttl=60)
    held = base64.urlsafe_b64decode(token[6:] + "==")
    for at in range(len(held)):
        changed = held[:at] + bytes([held[at] ^ 1]) + held[at + 1 :]
        with pytest.raises(RpcError):
            made.open("state", "state." + base64.urlsafe_b64encode(changed).decode().rstrip("="), "alice")
    for spelled in (token + "-TAMPERED", token + "=", token + "\n", token[:-1], "state.", "state", "", None, 5, [token]):
        with pytest.raises(RpcError):
            made.open("state", spelled, "alice")


def test_a_token_ends_with_its_time_and_says_so() -> None:
    clock = Clock()
    made = Tokens(b"k" * 32, clock)
    token = made.seal("state", b"body", "alice", ttl=60)
    clock.now += 59
    assert made.open("state", token, "alice") == b"body"
    clock.now += 1
    with pytest.raises(RpcError, match="expired") as refused:
        made.open("state", token, "alice")
    assert refused.value.data == {"code": "expired"}


def test_an_id_never_ends_and_is_the_same_every_time_while_a_state_is_never_the_same() -> None:
    clock = Clock()
    made = Tokens(b"k" * 32, clock)
    id = made.seal("task", b"mount\x00t-1", "alice")
    clock.now += 10**9
    assert made.seal("task", b"mount\x00t-1", "alice") == id
    assert made.open("task", id, "alice", name="taskId") == b"mount\x00t-1"
    assert made.seal("state", b"b", "alice", ttl=60) != made.seal("state", b"b", "alice", ttl=60)


def test_the_words_name_what_was_carried() -> None:
    with pytest.raises(RpcError, match="taskId is not valid for this request"):
        sealer().open("task", "task.AAAA", "alice", name="taskId")


def test_equal_arguments_have_one_digest_whatever_their_order() -> None:
    assert tokens.digest({"a": 1, "b": {"c": 2, "d": 3}}) == tokens.digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert tokens.digest({"a": [1, 2]}) != tokens.digest({"a": [2, 1]})
    assert tokens.digest({"a": 2**80}) != tokens.digest({"a": 2**80 + 1})


def test_the_key_is_made_once_for_this_user_alone_and_outlives_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "tokens.key"
    token = tokens.keep(path).seal("state", b"body", "alice", ttl=60)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert tokens.keep(path).open("state", token, "alice") == b"body"
    assert [file.name for file in tmp_path.iterdir()] == ["tokens.key"]


def test_a_broken_key_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "tokens.key"
    path.write_bytes(b"short")
    tokens.keep(path)
    assert len(path.read_bytes()) == tokens.KEY_BYTES
