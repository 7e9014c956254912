"""Runs, versions and keys of functions, over REST and for AI clients, as they reach a user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.instance import Answer, Instance, closing
from tests.harness.standin import Seen, standin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """With a service that a function of the catalogue can be connected to."""

    def answer(seen: Seen) -> tuple[int, Any]:
        return 200, {"data": []}

    with standin("api.resend.com", answer, tmp_path_factory.mktemp("service")) as service:
        home = tmp_path_factory.mktemp("operation") / "home"
        yield from closing(Instance(home, *service.flags, "--allow-private", "127.0.0.0/8"))


def deploy(instance: Instance, name: str, code: str, **members: Any) -> Answer:
    return instance.engine("PUT", "/functions", {"name": name, "code": code, **members})


def invoke(instance: Instance, name: str, input: Any = None, **members: Any) -> Answer:
    return instance.engine("POST", f"/functions/{name}/invoke", {"input": input, **members})


def test_everything_that_may_be_set_is_shown(instance: Instance) -> None:
    members = {"title": "All", "isolation": "fresh", "concurrency": 5, "tools": ["memory__*"], "env": {"A": "b"}, "egress": []}
    members |= {"output_schema": {"type": "object"}, "timeout_ms": 900, "memory_mb": 32, "language": "javascript"}
    assert deploy(instance, "all", "(input, ctx) => ({ a: ctx.env.A })", **members).status == 200
    view = instance.engine("GET", "/functions/all").data
    assert {member: view[member] for member in members} == members
    assert invoke(instance, "all").data["output"] == {"a": "b"}


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"isolation": "vm"}, "isolation is 'vm'; it must be reuse or fresh"),
        ({"concurrency": 0}, "it must be 1 to 1000"),
        ({"tools": "all"}, "'tools' must be of type"),
        ({"egress": ["https://x/y"]}, "https://x/y"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_may_not_be_set_is_refused_in_words(instance: Instance, members: dict[str, Any], words: str) -> None:
    answer = deploy(instance, "wrong", "() => 1", **members)
    assert (answer.status, answer.code) == (400, "invalid")
    assert words in answer.message


def test_an_older_version_is_live_again_for_ai_clients_too(instance: Instance) -> None:
    for number in (1, 2, 3):
        schema = {"type": "object", "properties": {f"p{number}": {}}}
        deploy(instance, "versioned", f"() => {number}", description=f"the {number}.", input_schema=schema)

    def shown() -> dict[str, Any]:
        return next(tool for tool in instance.engine("GET", "/tools").data if tool["name"] == "function__versioned")

    assert shown()["description"] == "the 3."
    answer = instance.engine("POST", "/functions/versioned/rollback", {})
    assert answer.data == {"name": "versioned", "version": 2, "tool": "function__versioned"}
    assert (shown()["description"], list(shown()["inputSchema"]["properties"])) == ("the 2.", ["p2"])
    assert instance.call("function__versioned")["content"][0]["text"] == "2"
    (judged,) = [one for one in instance.engine("GET", "/mcp-servers/function/tools").data if one["tool"] == "versioned"]
    assert judged["held"] is None, "who goes back agreed to what was there"
    assert instance.engine("POST", "/functions/versioned/rollback", {"version": 1}).data["version"] == 1
    versions = instance.engine("GET", "/functions/versioned/versions").data
    assert [(one["version"], one["live"]) for one in versions] == [(3, False), (2, False), (1, True)]
    assert instance.engine("GET", "/functions/versioned/versions/3").data["code"] == "() => 3"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/functions/nothing/rollback", {}, 404),
        ("GET", "/functions/nothing/versions", None, 404),
        ("GET", "/functions/one/versions/9", None, 404),
        ("GET", "/functions/one/versions/x", None, 400),
        ("GET", "/functions/one/versions/", None, 404),  # no redirect: it would name http, behind any proxy
        ("POST", "/functions/one/rollback", {"version": "1"}, 400),
        ("POST", "/functions/one/rollback", {"to": 1}, 400),
        ("POST", "/functions/one/rollback", {"version": 1}, 409),
        ("POST", "/functions/one/rollback", {"version": 10**30}, 404),
        ("GET", "/functions/one/runs?limit=0", None, 400),
        ("GET", "/functions/one/runs?limit=201", None, 400),
        ("GET", "/functions/one/runs?status=fine", None, 400),
        ("POST", "/functions/one/invoke", {"idempotency_key": 7}, 400),
        ("POST", "/functions/one/invoke", {"idempotency_key": ""}, 400),
    ],
)
def test_what_is_not_there_or_makes_no_sense_is_told(instance: Instance, method: str, path: str, body: Any, status: int) -> None:
    if not any(one["name"] == "one" for one in instance.engine("GET", "/functions").data):
        deploy(instance, "one", "() => 1")
    assert instance.engine(method, path, body).status == status


def test_a_key_that_may_not_manage_rolls_nothing_back(instance: Instance) -> None:
    deploy(instance, "kept", "() => 1")
    deploy(instance, "kept", "() => 2")
    key = instance.project("POST", "/keys", {"name": "user", "scopes": ["use"]}).data["key"]
    assert instance.engine("POST", "/functions/kept/rollback", {}, key=key).status == 403
    assert instance.engine("GET", "/functions/kept/versions", key=key).status == 200


def test_a_connections_function_is_not_rolled_back_by_hand(instance: Instance) -> None:
    name = instance.connect("resend", name="mail", secrets={"RESEND_API_KEY": "re_5f1e2d3c4b5a69788796a5b4"})["name"]
    answer = instance.engine("POST", f"/functions/{name}/rollback", {})
    assert (answer.status, answer.code) == (409, "conflict")
    assert f"rootlink catalog rollback {name}" in answer.message


def test_a_function_is_invoked_once_with_one_key(instance: Instance) -> None:
    deploy(instance, "once", "(input, ctx) => [ctx.runId, Math.random()]")
    first = invoke(instance, "once", {"a": 1}, idempotency_key="k").data
    again = invoke(instance, "once", {"a": 1}, idempotency_key="k").data
    assert (again["output"], first["replayed"], again["replayed"]) == (first["output"], False, True)
    assert first["output"][0] == first["run_id"]
    other = invoke(instance, "once", {"a": 2}, idempotency_key="k")
    assert (other.status, other.code) == (409, "conflict")


def test_runs_are_listed_by_status_and_say_what_was_refused(instance: Instance) -> None:
    body = "async () => { try { await fetch('https://evil.example/') } catch { throw new Error('fetch failed') } }"
    deploy(instance, "refused", body)
    run = invoke(instance, "refused").data
    words = "egress blocked: host 'evil.example' is not in this project's outbound allowlist"
    assert run["denied"] == [{"host": "evil.example", "port": 443, "message": words, "count": 1}]
    assert run["error"]["hint"] == f"{words}; to allow it: rootlink egress allow evil.example"
    told = instance.call("function__refused")
    assert told["isError"]
    assert words in told["content"][0]["text"]
    assert "rootlink egress allow evil.example" in told["content"][0]["text"]
    assert [one["trigger"] for one in instance.engine("GET", "/functions/refused/runs?status=error").data] == ["mcp", "api"]
    assert instance.engine("GET", "/functions/refused/runs?status=ok").data == []
    assert len(instance.engine("GET", "/functions/refused/runs?limit=1").data) == 1
