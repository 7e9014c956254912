"""The parts without I/O: readings of a source, V8's complaints, redaction, environment."""

from __future__ import annotations

import base64
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlink.engine.functions.environment import SecretMissing, environment
from rootlink.engine.functions.redaction import Redactor
from rootlink.engine.functions.source import complaint, readings

SECRET = 's3cr€t/+value="x"'


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        msgspec.json.encode({"k": SECRET}).decode(),
        *(base64.b64encode(b"x" * n + SECRET.encode() + b"tail").decode() for n in range(3)),
        *(base64.urlsafe_b64encode(b"x" * n + SECRET.encode() + b"tail").decode() for n in range(3)),
    ],
)
def test_a_secret_is_hidden_in_every_form(form: str) -> None:
    text = Redactor({"NAME": SECRET}).text(f"before {form} after")
    assert text.startswith("before ")
    assert text.endswith(" after")
    assert "[secret NAME]" in text
    assert form not in text


@given(st.text(min_size=4), st.text(), st.text())
def test_no_secret_of_four_characters_or_more_is_left(value: str, before: str, after: str) -> None:
    if value in "[secret NAME]" or any(
        value in f"[secret NAME]{other}" or value in f"{other}[secret NAME]" for other in (before, after)
    ):
        return
    assert value not in Redactor({"NAME": value}).text(before + value + after)


def test_a_secret_too_short_to_hide_leaves_the_text_alone() -> None:
    assert Redactor({"A": "a", "B": ""}).text("banana") == "banana"


def test_the_longer_of_two_secrets_is_hidden_whole() -> None:
    assert Redactor({"SHORT": "abcd", "LONG": "abcdefgh"}).text("abcdefgh") == "[secret LONG]"


def test_a_source_is_read_with_less_and_less_behind_it() -> None:
    assert list(readings("() => 'http://x'; // b // a\n/* c */ ;\n")) == [
        "() => 'http://x'; // b // a\n/* c */",
        "() => 'http://x'; // b // a",
        "() => 'http://x'; // b",
        "() => 'http://x'",
        "() => 'http:",
    ]


def test_a_source_without_anything_behind_it_is_read_once() -> None:
    assert list(readings("() => 1")) == ["() => 1"]


@given(st.text(max_size=50))
def test_readings_end_and_are_prefixes(code: str) -> None:
    assert all(code.startswith(reading) for reading in readings(code))


def test_a_complaint_without_a_place_is_passed_on() -> None:
    assert complaint("V8 gave up on it", 1) == "the code does not compile: V8 gave up on it"


def test_environment_fills_references_in() -> None:
    assert environment({"a": "x ${S}${T} ${", "b": "$S"}, {"S": "1", "T": "${S}"}) == {"a": "x 1${S} ${", "b": "$S"}
    assert environment(None, {"S": "1"}) == {"S": "1"}
    with pytest.raises(SecretMissing, match="ctx.env.a needs the secret U"):
        environment({"a": "${U}"}, {"S": "value"})
