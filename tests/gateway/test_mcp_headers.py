"""The headers of 2026-07-28 on their way to an engine, and what the conformance suite sends to see who is let in."""

from __future__ import annotations

import msgspec
import pytest

from tests.gateway.conftest import Instance
from tests.gateway.raw import exchange

MODERN = {
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/call",
    "mcp-name": "=?base64?w6TDtsO8?=",
    "mcp-param-region": "eu-west1",
    "mcp-param-project_id": "p_1",
    "mcp-param-note!#$%&'*+.^`|~": "spaced\tout",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}


async def test_what_the_revision_sends_along_gets_there(instance: Instance) -> None:
    async with instance.http.post(instance.url + "/mcp", json={}, headers={**instance.bearer, **MODERN}) as response:
        assert response.status == 200
    got = instance.engine.requests[0][2]
    assert {name: got.get(name) for name in MODERN} == MODERN


async def test_a_call_with_forty_argument_headers_is_let_in(instance: Instance) -> None:
    headers = {f"mcp-param-a{n}": "x" * 200 for n in range(40)}
    async with instance.http.post(instance.url + "/mcp", json={}, headers={**instance.bearer, **headers}) as response:
        assert response.status == 200
    assert sum(name.startswith("mcp-param-") for name in instance.engine.requests[0][2]) == 40


@pytest.mark.parametrize(
    "name",
    ["Mcp-Method", "Mcp-Name", "MCP-Protocol-Version", "Mcp-Session-Id", "Last-Event-ID", "Mcp-Param-Region", "mcp-param-a_b"],
)
async def test_what_decides_something_may_not_be_said_twice(instance: Instance, name: str) -> None:
    """Whoever reads the first one and whoever reads the last one would act on different requests."""
    twice = f"{name}: a\r\n{name.upper()}: b\r\n"
    sent = (
        f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {instance.key}\r\n{twice}Content-Length: 2\r\n\r\n{{}}"
    )
    (status, answer), *_ = await exchange(instance.port, sent.encode())
    assert (status, answer["error"]["code"]) == (400, "invalid")
    assert instance.engine.requests == []


async def test_an_underscore_elsewhere_still_counts_for_nothing(instance: Instance) -> None:
    sent = {**instance.bearer, "mcp_param_region": "evil", "mcp_method": "tools/list", "x_mcp-param-a": "1"}
    async with instance.http.post(instance.url + "/mcp", json={}, headers=sent) as response:
        assert response.status == 200
    assert not [name for name in instance.engine.requests[0][2] if "_" in name or "param" in name]


def _suites(version: str) -> bytes:
    info = {"name": "conformance-dns-rebinding-test", "version": "1.0.0"}
    if version == "2026-07-28":
        meta = {f"io.modelcontextprotocol/{name}": value for name, value in (("protocolVersion", version), ("clientInfo", info))}
        message = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta}}
    else:
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": info}
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    return msgspec.json.encode(message)


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("evil.example.com", "http://evil.example.com", 403),
        ("{here}", "http://evil.example.com", 403),
        ("evil.example.com", "http://{here}", 403),
        ("{here}", "http://{here}", 200),
        ("localhost:{port}", "http://localhost:{port}", 200),
        ("[::1]:{port}", "http://[::1]:{port}", 200),
    ],
)
async def test_a_page_that_was_rebound_to_this_address_is_kept_out(
    instance: Instance, version: str, host: str, origin: str, status: int
) -> None:
    named = {"here": f"127.0.0.1:{instance.port}", "port": instance.port}
    body = _suites(version)
    head = [
        "POST /mcp HTTP/1.1",
        f"Host: {host.format(**named)}",
        f"Origin: {origin.format(**named)}",
        f"MCP-Protocol-Version: {version}",
        f"Authorization: Bearer {instance.key}",
        "Accept: application/json, text/event-stream",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    ((got, _),) = await exchange(instance.port, "\r\n".join(head).encode() + b"\r\n\r\n" + body)
    assert got == status
    assert len(instance.engine.requests) == (status == 200)
