"""The parts without I/O: readings of a source, V8's complaints, environment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlink.engine.functions.environment import SecretMissing, environment
from rootlink.engine.functions.isolates import wrapping
from rootlink.engine.functions.source import complaint, offset, place, readings

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
    assert complaint("V8 gave up on it").refusal("x").message == "the code does not compile: V8 gave up on it"


@given(st.text(alphabet="a\r\n\u2028😀é", max_size=30), st.data())
def test_a_place_and_an_offset_are_two_names_of_one_thing(code: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(code)))
    if code[at - 1 : at + 1] != "\r\n":  # between the two is no place
        assert offset(code, *place(code, at)) == at


@given(st.text(alphabet="}{`;()[]/*'\n\\a", max_size=40), st.sampled_from(["$default", "x"]))
def test_a_worker_sees_in_a_module_the_statements_the_engine_put_there(statements: str, name: str) -> None:
    static, bracket = wrapping.checked(wrapping.as_module(statements, name))
    assert static == f'"use strict";throw 0;(class{{static{{{statements}\n}}}}\n)'
    assert bracket == f'"use strict";throw 0;[(make=>make())(()=>{{{statements}\nreturn {name}}})\n]'


@pytest.mark.parametrize(
    "source",
    [
        "(make=>make())(()=>{\nreturn x}); evil(); (() => {\nreturn a b})",
        "(make=>make())(()=>{})",
        "eval(/*script*/'x'); evil(); ('y')",
        'eval(/*script*/"x" + "y")',
        "eval(/*script*/1)",
    ],
)
def test_an_expression_that_only_begins_as_a_form_does_is_checked_whole(source: str) -> None:
    assert wrapping.checked(source)[0] == f'"use strict";throw 0;({source}\n)'
    assert wrapping.lead(source) == 0


def test_environment_fills_references_in() -> None:
    assert environment({"a": "x ${S}${T} ${", "b": "$S"}, {"S": "1", "T": "${S}"}) == {"a": "x 1${S} ${", "b": "$S"}
    assert environment(None, {"S": "1"}) == {"S": "1"}
    with pytest.raises(SecretMissing, match=r"ctx\.env\.a needs the secret U"):
        environment({"a": "${U}"}, {"S": "value"})
