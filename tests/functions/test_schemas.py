"""Schemas of functions: what may be deployed, and that none of them, with any value, ends or holds up the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootlink.engine.functions import schemas
from rootlink.engine.functions.definition import check
from rootlink.engine.functions.judge import BUSY, GAVE_UP, JUDGE_SECS, TOO_LONG, Judge
from rootlink.errors import Invalid
from rootlink.wire.mounts import FunctionSpec
from tests.functions.ground import Stage

Json = dict[str, Any]
LAG_SECS = 0.2  # of a loop that shares the machine; what it must not wait for takes a second and more


def chain(length: int, end: Json, link: Json | None = None, **root: Any) -> Json:
    """Definitions that each refer to the next one twice. `link`: what else each of them says."""
    defs = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2, **(link or {})} for n in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{length}": end}, **root}


def nested(keyword: str, depth: int, inner: Json) -> Json:
    schema = inner
    for _ in range(depth):
        schema = {keyword: [schema] if keyword == "allOf" else schema, "unevaluatedProperties": False}
    return schema


def deep(depth: int, bottom: Any = None) -> Any:
    value = {} if bottom is None else bottom
    for _ in range(depth):
        value = {"a": value}
    return value


REFUSED: dict[str, tuple[Json, str]] = {
    "a reference that is doubled again and again": (chain(22, {"type": "object"}), "too complex"),
    "the same for unevaluated properties, which ends a process when it is compiled": (
        chain(22, {"properties": {"a": True}}, unevaluatedProperties=False),
        "too complex",
    ),
    "the same for unevaluated items": (
        chain(22, {"prefixItems": [True]}, unevaluatedItems=False),
        "too complex",
    ),
    "unevaluated properties at every link": (
        chain(18, {"properties": {"a": True}}, {"unevaluatedProperties": False}),
        "too complex",
    ),
    "unevaluated in unevaluated": (nested("allOf", 30, {}), "too complex"),
    "unevaluated in unevaluated, under if": (nested("if", 31, {}), "too complex"),
    "unevaluated in a schema that refers to itself": (
        {"$defs": {f"n{i}": {"anyOf": [{"$ref": f"#/$defs/n{j}"} for j in range(12)], "unevaluatedProperties": False}
                   for i in range(12)}, "$ref": "#/$defs/n0"},
        "refers to itself",
    ),
    "many times many alternatives": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}] * 900}, "b": {"anyOf": [{"const": 1}] * 900}}},
        "too complex",
    ),
    "a dynamic reference": ({"$dynamicAnchor": "m", "$dynamicRef": "#m"}, "not supported"),
    "a schema with a name inside": ({"$defs": {"x": {"$id": "urn:x"}}, "$ref": "urn:x"}, "not fetched|\\$id"),
    "a schema elsewhere": ({"$ref": "https://schemas.example/x"}, "schemas.example"),
    "a reference to nowhere": ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "not a valid JSON Schema"),
    "an expression that can't be linear": ({"properties": {"a": {"pattern": "(?=(a+)+$)b"}}}, "not a valid JSON Schema"),
    "an expression that would be huge": ({"properties": {"a": {"pattern": "((a{1,99}){1,99}){1,99}"}}}, "not a valid"),
    "many expressions": ({"allOf": [{"pattern": f"x{n}"} for n in range(65)]}, "more than 64 patterns"),
    "too deep": (nested("not", 70, {}), "nested deeper|too complex"),
    "too large": ({"enum": ["x" * 70_000]}, "larger than 65536 bytes"),
    "an unknown dialect": ({"$schema": "http://json-schema.org/draft-04/schema#"}, "draft-07"),
    "not of an object": ({"type": ["object", "null"]}, "must describe an object"),
    "no schema": ({"required": "a"}, "not a valid JSON Schema"),
    "an infinite number": ({"maximum": 10**5000}, "not a valid JSON Schema"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_schema_that_could_do_harm_is_refused_in_words_and_at_once(what: str) -> None:
    schema, words = REFUSED[what]
    began = time.perf_counter()
    with pytest.raises(Invalid, match=words) as refused:
        schemas.compile("input_schema", schema)
    assert time.perf_counter() - began < LAG_SECS
    assert refused.value.message.startswith("input_schema")
    assert len(refused.value.message) < 1000


WHOLE: Json = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://a.example/order",
    "type": "object",
    "required": ["id", "lines"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}$"},
        "$ref": {"type": "string"},
        "lines": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/line"}},
        "to": {"$ref": "#person"},
    },
    "$defs": {
        "line": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "additionalProperties": False},
        "person": {"$anchor": "person", "oneOf": [{"type": "string"}, {"type": "object", "required": ["name"]}]},
    },
    "unevaluatedProperties": False,
}


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"id": "0123abcd-0123", "lines": [{"n": 1}], "$ref": "x", "to": "ada"}, ""),
        ({"id": "0123abcd-0123", "lines": [{"n": 0}]}, ".lines[0].n: the value is less than the minimum of 1"),
        ({"id": "sk_live_0123", "lines": [{}]}, '.id: the value does not match "^[0-9a-f]{8}-[0-9a-f]{4}$"'),
        ({"id": "0123abcd-0123"}, ': "lines" is a required property'),
        ({"id": "0123abcd-0123", "lines": [{}], "to": {}}, ".to: the value is not valid under any of the schemas"),
    ],
)
def test_a_complaint_names_the_path_and_the_rule_and_not_the_value(value: Json, complaint: str) -> None:
    found = schemas.compile("input_schema", WHOLE).complaint(value)
    assert found.startswith(complaint)
    assert bool(found) is bool(complaint)
    assert "sk_live" not in found


TREE: Json = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}}}}
TWICE: Json = {
    "$ref": "#/$defs/n",
    "$defs": {"n": {"type": "object", "properties": {"a": {"anyOf": [{"$ref": "#/$defs/n"}, {"$ref": "#/$defs/n"}]}}}},
}
UNKNOWN = ": whether it fits the schema"
HEAVY: dict[str, tuple[Json, Any, str]] = {
    "a tree": (TREE, deep(100), ""),
    "a tree that is none": (TREE, {"a": {"a": 1}}, '.a.a: the value is not of type "object"'),
    "a large input": ({"properties": {"a": {"items": {"type": "integer"}}}}, {"a": [1] * 400_000}, ""),
    "no two alike": ({"properties": {"a": {"uniqueItems": True}}}, {"a": [{"k": i} for i in range(100_000)]}, ""),
    "two ways down at every level": (TWICE, deep(40, 1), UNKNOWN),
    "a reference to itself on the same value": ({"allOf": [{"$ref": "#"}]}, {}, ""),
    "itself under not": ({"not": {"not": {"$ref": "#"}}}, {}, ""),
    "errors that each hold the value, which take more memory than there is": (
        {"properties": {"a": {"anyOf": [{"minLength": 10**9 + i} for i in range(2000)]}}}, {"a": "x" * 4_000_000}, UNKNOWN,
    ),
    "many patterns for many names": (
        {"patternProperties": {f"x{i}y": {} for i in range(64)}}, {f"k{i}": 1 for i in range(20_000)}, "",
    ),
    "a thousand alternatives for each item": (
        {"properties": {"a": {"items": {"oneOf": [{"const": i} for i in range(1000)]}}}}, {"a": [5] * 5000}, "",
    ),
    "contains in contains": (
        {"properties": {"a": {"contains": {"contains": {"contains": {"const": 1}}}}}}, {"a": [[[0] * 100] * 100] * 50}, ".a: ",
    ),
}  # fmt: skip


def judges() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if _is_judge(child)]


def _is_judge(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "judge_program.py" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.fixture
async def judge() -> AsyncIterator[Judge]:
    one = Judge()
    yield one
    await one.close()
    assert not judges()


async def worst_lag(work: Any) -> tuple[Any, float]:
    """What `work` comes to, and the longest the loop stood still meanwhile."""
    task = asyncio.ensure_future(work)
    worst = 0.0
    while not task.done():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        worst = max(worst, time.perf_counter() - began)
    return task.result(), worst


@pytest.mark.parametrize("what", HEAVY)
async def test_a_value_that_is_hard_to_judge_gets_an_answer_and_the_loop_does_not_wait(judge: Judge, what: str) -> None:
    schema, value, words = HEAVY[what]
    ready = schemas.compile("input_schema", schema)
    encoded = msgspec.json.encode(value)
    assert not ready.light(len(encoded))
    began = time.perf_counter()
    found, lag = await worst_lag(judge.complaint(ready, value, encoded))
    assert found.startswith(words)
    assert bool(found) is bool(words)
    assert time.perf_counter() - began < JUDGE_SECS + 3
    assert lag < LAG_SECS
    assert await judge.complaint(schemas.compile("s", TREE), {"a": {}}, b'{"a":{}}') == "", "the next one is not hurt"


async def test_a_judgement_that_is_cancelled_is_not_taken_for_the_next_one(judge: Judge) -> None:
    slow, quick = schemas.compile("s", TWICE), schemas.compile("s", TREE)
    value = deep(40, 1)
    task = asyncio.ensure_future(judge.complaint(slow, value, msgspec.json.encode(value)))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await asyncio.gather(*(judge.complaint(quick, {"a": n}, b'{"a":%d}' % n) for n in range(20)))
    assert found == ['.a: the value is not of type "object"'] * 20


async def test_a_judge_that_nobody_needs_is_gone_and_is_there_again(judge: Judge) -> None:
    one = Judge(idle=0.1)
    tree, value = schemas.compile("s", TREE), deep(10)
    for _ in range(2):
        assert await one.complaint(tree, value, msgspec.json.encode(value)) == ""
        async with asyncio.timeout(5):
            while judges():
                await asyncio.sleep(0.02)
    await one.close()


async def test_a_judge_that_is_killed_is_replaced(judge: Judge) -> None:
    tree, value = schemas.compile("s", TREE), deep(10)
    for _ in range(3):
        assert await judge.complaint(tree, value, msgspec.json.encode(value)) == ""
        (process,) = judges()
        process.kill()
        process.wait(5)
        assert await judge.complaint(tree, value, msgspec.json.encode(value)) == GAVE_UP


async def test_more_values_than_can_be_judged_in_time_are_told_so() -> None:
    judge = Judge(turn=0.2)
    slow, value = schemas.compile("s", TWICE), deep(40, 1)
    encoded = msgspec.json.encode(value)
    first, *others = await asyncio.gather(*(judge.complaint(slow, value, encoded) for _ in range(12)))
    assert first in (TOO_LONG, GAVE_UP)
    assert others == [BUSY] * 11
    await judge.close()


async def test_closing_a_judge_waits_for_nobody(judge: Judge) -> None:
    slow, value = schemas.compile("s", TWICE), deep(40, 1)
    waiting = [asyncio.ensure_future(judge.complaint(slow, value, msgspec.json.encode(value))) for _ in range(20)]
    await asyncio.sleep(0.3)
    began = time.perf_counter()
    await judge.close()
    assert time.perf_counter() - began < 1
    assert set(await asyncio.gather(*waiting)) == {GAVE_UP}
    assert not judges()


# any schema at all


NAMES = st.sampled_from(["a", "b", "c", "$ref", "__proto__"])
REFS = st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/$defs/c", "#/properties/a", "#x", "#/nowhere", "urn:x"])
LEAVES = st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = st.recursive(LEAVES, lambda some: st.lists(some, max_size=4) | st.dictionaries(NAMES, some, max_size=4), max_leaves=20)


def composed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    many, named = st.lists(inner, min_size=1, max_size=3), st.dictionaries(NAMES, inner, max_size=3)
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "allOf": many, "anyOf": many, "oneOf": many, "prefixItems": many, "not": inner, "if": inner, "then": inner, "else": inner,
        "items": inner, "contains": inner, "additionalProperties": inner, "unevaluatedProperties": inner, "unevaluatedItems": inner,
        "propertyNames": inner, "properties": named, "dependentSchemas": named, "$defs": named,
        "patternProperties": st.dictionaries(st.sampled_from(["a", "^b", ".*"]), inner, max_size=2), "$ref": REFS,
        "$anchor": st.just("x"), "type": st.sampled_from(["object", "array", "string", ["null", "integer"]]),
        "enum": st.lists(VALUES, min_size=1, max_size=3), "const": VALUES, "required": st.lists(NAMES, unique=True, max_size=2),
        "uniqueItems": st.booleans(), "minLength": st.integers(0, 10**18), "multipleOf": st.floats(1e-300, 1e300),
        "pattern": st.sampled_from(["a*", "(a|b)*c", "\\w{1,9}$"]), "minContains": st.integers(0, 5),
    }  # fmt: skip
    return st.fixed_dictionaries({}, optional=keywords)


SCHEMAS = st.recursive(st.booleans() | st.builds(lambda ref: {"$ref": ref}, REFS), composed, max_leaves=30)


@given(root=SCHEMAS, defs=st.dictionaries(st.sampled_from(["a", "b", "c"]), SCHEMAS), value=VALUES)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_schema_and_any_value_come_to_an_answer_in_bounded_time(root: Any, defs: Any, value: Any) -> None:
    schema = {**(root if isinstance(root, dict) else {}), "$defs": defs}
    began = time.perf_counter()
    try:
        ready = schemas.compile("input_schema", schema)
    except Invalid:
        pass
    else:
        if ready.light(len(msgspec.json.encode(value))):
            assert isinstance(ready.complaint(value), str)
    assert time.perf_counter() - began < 1


# functions


def test_annotations_are_mcps_own_and_of_their_types() -> None:
    every = {"title": "T", "readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}
    check(FunctionSpec("f", "() => 1", annotations=every))
    for wrong, words in (
        ({"readonlyHint": True}, "there is no 'readonlyHint'"),
        ({"readOnlyHint": "yes"}, "readOnlyHint must be true or false"),
        ({"title": 1}, "title must be a string"),
        ({"title": "x" * 201}, "longer than 200"),
    ):
        with pytest.raises(Invalid, match=words):
            check(FunctionSpec("f", "() => 1", annotations=wrong))


async def test_an_output_is_what_its_schema_says_or_an_error_that_names_the_path(stage: Stage) -> None:
    schema = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert await stage.output("(input) => input", {"n": 1}, output_schema=schema) == {"n": 1}
    error = await stage.error("(input) => input", {"n": "sk_test"}, output_schema=schema)
    assert (error["name"], error["message"]) == ("OutputError", 'output.n: the value is not of type "integer" (output_schema)')
    assert '"n" is a required property' in (await stage.error("() => ({})", output_schema=schema))["message"]
    run = await stage.run("() => 5", output_schema=schema)
    assert (run.status, run.output) == ("error", None)
    assert 'output: the value is not of type "object"' in (run.error or {})["message"]


async def test_an_input_that_is_hard_to_judge_is_refused_and_its_neighbours_are_not_held_up(stage: Stage) -> None:
    await stage.deploy("() => 1", "hard", input_schema=TWICE)
    await stage.deploy("() => 2", "other")

    async def neighbours() -> int:
        done = 0
        while not hard.done():
            assert (await stage.host.invoke("main", "other", {})).output == 2
            done += 1
        return done

    hard = asyncio.ensure_future(stage.host.invoke("main", "hard", deep(40, 1)))
    assert await neighbours() > 20
    assert (hard.result().error or {})["message"].startswith(f"input{UNKNOWN}")
    assert (await stage.host.invoke("main", "hard", {})).output == 1
