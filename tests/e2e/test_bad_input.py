"""Bad input gets a clear error with the right code, and nothing is changed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.harness.instance import Answer, Instance, request

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def snapshot(shared: Instance) -> Any:
    paths = ("/connections", "/secrets", "/egress", "/keys")
    lists = [shared.project("GET", path).data for path in paths]
    return [*lists, shared.engine("GET", "/mcp-servers").data, shared.engine("GET", "/functions").data]


STDIO = {"transport": "stdio", "command": "python", "args": ["-c", "pass"]}

CASES: dict[str, tuple[str, str, str, Any, int, str]] = {
    "an unknown connector": ("project", "POST", "/connections", {"connector": "memroy"}, 404, "not_found"),
    "a connector that is a number": ("project", "POST", "/connections", {"connector": 5}, 400, "invalid"),
    "a missing field": ("project", "POST", "/connections", {"connector": "resend"}, 400, "invalid"),
    "a malformed field": (
        "project",
        "POST",
        "/connections",
        {"connector": "resend", "secrets": {"RESEND_API_KEY": "no spaces!"}},
        400,
        "invalid",
    ),
    "a field nobody knows": (
        "project",
        "POST",
        "/connections",
        {"connector": "memory", "inputs": {"colour": "red"}},
        400,
        "invalid",
    ),
    "a connection name with dots": ("project", "POST", "/connections", {"connector": "memory", "name": "../etc"}, 400, "invalid"),
    "a connection name with a space": ("project", "POST", "/connections", {"connector": "memory", "name": "a b"}, 400, "invalid"),
    "a secret name with a dash": ("project", "POST", "/secrets", {"name": "a-b", "plaintext": "x"}, 400, "invalid"),
    "a secret without a value": ("project", "POST", "/secrets", {"name": "AB"}, 400, "invalid"),
    "a domain that is a URL": ("project", "POST", "/egress", {"domain": "https://a.example/x"}, 400, "invalid"),
    "a domain that is nonsense": ("project", "POST", "/egress", {"domain": "a..b"}, 400, "invalid"),
    "a secret that is not there": ("project", "DELETE", "/secrets/NOT_THERE", None, 404, "not_found"),
    "a key that is not there": ("project", "DELETE", "/keys/key_000000000000", None, 404, "not_found"),
    "a connection that is not there": ("project", "DELETE", "/connections/nothing", None, 404, "not_found"),
    "broken JSON": ("project", "POST", "/connections", b'{"connector": ', 400, "invalid"),
    "broken UTF-8": ("project", "POST", "/secrets", b'{"name": "\xff"}', 400, "invalid"),
    "very deep JSON": ("project", "POST", "/secrets", b"[" * 100_000, 400, "invalid"),
    "a huge body": ("project", "POST", "/secrets", b'{"name": "A", "plaintext": "' + b"x" * (9 << 20) + b'"}', 413, "too_large"),
    "a mount name with dots": ("engine", "POST", "/mcp-servers", {"name": "..", **STDIO}, 400, "invalid"),
    "a mount name with a space": ("engine", "POST", "/mcp-servers", {"name": "a b", **STDIO}, 400, "invalid"),
    "a mount without a command": ("engine", "POST", "/mcp-servers", {"name": "a", "transport": "stdio"}, 400, "invalid"),
    "a transport nobody knows": ("engine", "POST", "/mcp-servers", {"name": "a", "transport": "pigeon"}, 400, "invalid"),
    "a command that does not exist": (
        "engine",
        "POST",
        "/mcp-servers",
        {"name": "a", "transport": "stdio", "command": "no-such-command"},
        400,
        "invalid",
    ),
    "a server that ends at once": ("engine", "POST", "/mcp-servers", {"name": "a", **STDIO}, 502, "upstream_failed"),
    "an unknown secret in a mount": (
        "engine",
        "POST",
        "/mcp-servers",
        {"name": "a", **STDIO, "env": {"A": "${NOT_THERE}"}},
        400,
        "invalid",
    ),
    "an endpoint that is not allowed": (
        "engine",
        "POST",
        "/mcp-servers",
        {"name": "a", "transport": "http", "endpoint": "https://evil.example/mcp"},
        403,
        "forbidden",
    ),
    "an endpoint that refuses": (
        "engine",
        "POST",
        "/mcp-servers",
        {"name": "a", "transport": "http", "endpoint": "http://127.0.0.1:9/mcp"},
        502,
        "upstream_failed",
    ),
    "a directory nobody allowed": (
        "engine",
        "POST",
        "/mcp-servers",
        {"name": "a", **STDIO, "paths": {"read": ["/etc"]}},
        403,
        "forbidden",
    ),
    "an unknown tool": ("engine", "POST", "/tools/no__tool/call", {"arguments": {}}, 404, "not_found"),
    "a function with a syntax error": (
        "engine",
        "PUT",
        "/functions",
        {"name": "f", "code": "async (input) => {"},
        400,
        "invalid",
    ),
    "a function that closes its wrapper": ("engine", "PUT", "/functions", {"name": "f", "code": ") => 0, ("}, 400, "invalid"),
    "a function name with a slash": ("engine", "PUT", "/functions", {"name": "a/b", "code": "async () => 1"}, 400, "invalid"),
    "a function that is not there": ("engine", "POST", "/functions/nothing/invoke", {"input": 1}, 404, "not_found"),
    "a route that is not there": ("engine", "GET", "/nothing", None, 404, "not_found"),
}


@pytest.fixture(scope="module", autouse=True)
def _an_open_port(shared: Instance) -> None:
    """And a key, so that the first request with it changes no list."""
    assert shared.key
    shared.project("POST", "/egress", {"domain": "127.0.0.1:9"})


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_clearly_and_changes_nothing(shared: Instance, case: str) -> None:
    plane, method, path, body, status, code = CASES[case]
    before = snapshot(shared)
    answer: Answer = getattr(shared, plane)(method, path, body)
    assert (answer.status, answer.code) == (status, code), answer.body
    assert len(answer.message) > 10
    assert snapshot(shared) == before


KEYS = {
    "no key": {},
    "an unknown key": {"authorization": "Bearer rl_sk_" + "0" * 64},
    "a malformed key": {"authorization": "Bearer hello"},
    "another scheme": {"authorization": "Basic cmxfc2tfMDA6"},
}


@pytest.mark.parametrize("case", KEYS)
@pytest.mark.parametrize("path", ["/mcp", "/mcp/main", "/engine/api/v1/ws/main/tools", "/v1/projects"])
def test_a_wrong_credential_is_refused_the_same_way_everywhere(shared: Instance, case: str, path: str) -> None:
    answer = request(shared.api, "GET", path, headers=KEYS[case])
    assert (answer.status, answer.code) == (401, "unauthorized"), answer.body


def test_a_revoked_key_is_refused_at_once(shared: Instance) -> None:
    made = shared.project("POST", "/keys", {"name": "short"}).data
    assert shared.engine("GET", "/tools", key=made["key"]).status == 200
    shared.project("DELETE", f"/keys/{made['id']}")
    assert shared.engine("GET", "/tools", key=made["key"]).status == 401


def test_a_key_without_manage_can_use_but_not_install(shared: Instance) -> None:
    key = shared.project("POST", "/keys", {"name": "user", "scopes": ["use"]}).data["key"]
    assert shared.engine("GET", "/tools", key=key).status == 200
    refused = shared.engine("POST", "/mcp-servers", {"name": "x", **STDIO}, key=key)
    assert (refused.status, refused.code) == (403, "forbidden")


def test_a_key_of_one_project_is_nothing_to_another(shared: Instance) -> None:
    shared.v1("POST", "/projects", {"name": "other"})
    other = shared.v1("POST", "/projects/other/keys", {"name": "k"}).data["key"]
    shared.engine("PUT", "/functions", {"name": "mine", "code": "async () => 1"})
    assert "function__mine" not in [tool["name"] for tool in shared.engine("GET", "/tools", key=other).data]
    assert shared.engine("POST", "/functions/mine/invoke", {"input": 1}, key=other).status == 404
    shared.v1("DELETE", "/projects/other")
    assert shared.engine("GET", "/tools", key=other).status == 401
