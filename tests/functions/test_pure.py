"""The parts without I/O: readings of a source, V8's complaints, environment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlink.engine.functions.environment import SecretMissing, environment
from rootlink.engine.functions.source import complaint, readings

SECRET = 's3cr€t/+value="x"'


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
    with pytest.raises(SecretMissing, match=r"ctx\.env\.a needs the secret U"):
        environment({"a": "${U}"}, {"S": "value"})
