from __future__ import annotations

import random
import subprocess
import sys
import traceback
from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PublicKey, SealedBox

from rootlink.errors import Invalid, TooLarge
from rootlink.sealing.envelope import MAX_VALUE_BYTES, Envelope, key_id
from rootlink.sealing.seal import Sealer
from rootlink.sealing.unseal import SealBroken, Unsealer, generate

PRIVATE, PUBLIC = generate()
SEALER, UNSEALER = Sealer(PUBLIC), Unsealer(PRIVATE)
VALUE = "re_hunter2"

Row = tuple[str, str, int]
ROW: Row = ("prj_1", "KEY", 3)


def opened(ciphertext: bytes, row: Row = ROW, unsealer: Unsealer = UNSEALER) -> str:
    project, name, version = row
    return unsealer.open(ciphertext, project=project, name=name, version=version)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_what_is_sealed_opens_again(value: str) -> None:
    assert opened(SEALER.seal(*ROW, value).ciphertext) == value


def test_both_ends_know_the_key_by_the_same_id() -> None:
    assert SEALER.key_id == UNSEALER.key_id == SEALER.seal(*ROW, VALUE).key_id
    assert len(SEALER.key_id) == 16
    assert bytes.fromhex(SEALER.key_id)


def test_the_same_value_never_looks_the_same() -> None:
    assert SEALER.seal(*ROW, VALUE).ciphertext != SEALER.seal(*ROW, VALUE).ciphertext


def test_a_ciphertext_moved_to_another_row_does_not_open() -> None:
    """Figure seal.move: 24 moves, every one but the row itself, between projects, names and versions."""
    rows = list(product(("prj_1", "prj_2"), ("KEY", "OTHER"), (1, 2, 3)))
    moves = [(ROW, other) for other in rows if other != ROW] + [(other, ROW) for other in rows if other != ROW]
    moves += [(("prj_1", "KEY", 1), ("prj_1", "KEY", 11)), (("prj_1", "AB", 1), ("prj_1A", "B", 1))]
    assert len(moves) == 24
    for sealed_for, moved_to in moves:
        with pytest.raises(SealBroken):
            opened(SEALER.seal(*sealed_for, VALUE).ciphertext, moved_to)


def test_an_altered_or_cut_ciphertext_does_not_open() -> None:
    """Figure seal.tamper: 600 of 600 refused."""
    ciphertext = SEALER.seal(*ROW, VALUE).ciphertext
    dice = random.Random(1)
    flipped = [_flipped(ciphertext, bit) for bit in dice.sample(range(len(ciphertext) * 8), 400)]
    cut = [ciphertext[: dice.randrange(len(ciphertext))] for _ in range(100)]
    grown = [ciphertext + dice.randbytes(1 + n) for n in range(50)] + [dice.randbytes(n) for n in range(50)]
    tampered = flipped + cut + grown
    assert len(tampered) == 600
    for one in tampered:
        with pytest.raises(SealBroken):
            opened(one)


def _flipped(data: bytes, bit: int) -> bytes:
    altered = bytearray(data)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


def test_the_old_key_does_not_open_what_the_new_one_sealed() -> None:
    private, public = generate()
    with pytest.raises(SealBroken):
        opened(Sealer(public).seal(*ROW, VALUE).ciphertext)
    assert opened(Sealer(public).seal(*ROW, VALUE).ciphertext, unsealer=Unsealer(private)) == VALUE


@pytest.mark.parametrize(
    "inside",
    [
        b"",
        b"null",
        b"re_hunter2",
        b"\xff\xfe",
        b"[" * 100_000,
        msgspec.json.encode(Envelope("prj_1", "KEY", 3, "0" * 16, "libsodium-sealed-box", VALUE)),
        msgspec.json.encode(Envelope("prj_1", "KEY", 3, key_id(PUBLIC), "none", VALUE)),
        msgspec.json.encode({"project": "prj_1", "name": "KEY", "version": 3, "value": VALUE}),
        msgspec.json.encode({"project": "prj_1", "name": "KEY", "version": "3", "key_id": "", "alg": "", "value": VALUE}),
    ],
)
def test_a_box_that_anyone_with_the_public_key_made_up_does_not_open(inside: bytes) -> None:
    with pytest.raises(SealBroken):
        opened(SealedBox(PublicKey(PUBLIC)).encrypt(inside))


def test_a_failure_holds_nothing_of_the_value_or_the_key() -> None:
    moved = SEALER.seal("prj_2", "KEY", 3, VALUE).ciphertext
    for ciphertext in (moved, SealedBox(PublicKey(PUBLIC)).encrypt(VALUE.encode())):
        with pytest.raises(SealBroken) as broken:
            opened(ciphertext)
        told = "".join(traceback.format_exception(broken.value))
        assert VALUE not in told
        assert PRIVATE.hex() not in told
        assert broken.value.__context__ is None


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("", Invalid),
        ("a\0b", Invalid),
        ("x\ud800hunter2", Invalid),
        (b"bytes", Invalid),
        (None, Invalid),
        ("x" * (MAX_VALUE_BYTES + 1), TooLarge),
        ("é" * (MAX_VALUE_BYTES // 2 + 1), TooLarge),
    ],
)
def test_a_value_no_environment_can_hold_is_refused_without_being_repeated(value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="KEY") as refused:
        SEALER.seal("prj_1", "KEY", 1, value)  # type: ignore[arg-type]
    assert "hunter2" not in repr(refused.value)
    assert refused.value.__context__ is None


def test_the_largest_value_is_sealed() -> None:
    value = "x" * MAX_VALUE_BYTES
    assert opened(SEALER.seal(*ROW, value).ciphertext) == value


def test_no_repr_shows_a_value() -> None:
    envelope = Envelope("prj_1", "KEY", 1, "k", "a", VALUE)
    assert VALUE not in f"{envelope} {envelope!r} {SEALER.seal(*ROW, VALUE)} {[envelope]}"


@pytest.mark.parametrize("key", [b"", b"x" * 31, b"x" * 33])
def test_a_key_of_the_wrong_size_is_refused(key: bytes) -> None:
    with pytest.raises(Invalid):
        Sealer(key)
    with pytest.raises(SealBroken):
        Unsealer(key)


def test_importing_the_sealing_side_does_not_bring_the_unsealing_side() -> None:
    look = "import sys, rootlink.sealing.seal, rootlink.store; print('rootlink.sealing.unseal' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
