"""What a 2026-07-28 request must say before it means anything, and what its result must carry."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rootlink.engine.eras import frames, stateless
from rootlink.engine.rpc import RpcError

META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
HEADERS = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "a__b"}


def call(meta: object = META, name: str = "a__b") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "_meta": meta}}


REFUSED = {
    "no envelope": (HEADERS, call(meta={}), -32602),
    "no capabilities": (HEADERS, call(meta={"io.modelcontextprotocol/protocolVersion": "2026-07-28"}), -32602),
    "another method in the header": ({**HEADERS, "mcp-method": "tools/list"}, call(), -32020),
    "another name in the header": ({**HEADERS, "mcp-name": "a__c"}, call(), -32020),
    "a header is missing": ({k: v for k, v in HEADERS.items() if k != "mcp-name"}, call(), -32020),
    "a broken base64 name": ({**HEADERS, "mcp-name": "=?base64?!!?="}, call(), -32020),
    "a version of tomorrow": (
        {**HEADERS, "mcp-protocol-version": "2099-01-01"},
        call(meta={**META, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}),
        -32022,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_request_that_disagrees_with_itself_is_refused(case: str) -> None:
    headers, message, code = REFUSED[case]
    with pytest.raises(RpcError) as refused:
        stateless.check(headers, message)
    assert refused.value.code == code


def test_a_request_that_agrees_with_itself_passes() -> None:
    assert stateless.check(HEADERS, call()) == META
    assert stateless.check({**HEADERS, "mcp-name": "=?base64?w6Q=?="}, call(name="ä")) == META


def test_a_result_gains_what_the_revision_requires_and_keeps_what_it_has() -> None:
    sent = b'{"content":[{"big":123456789012345678901234567890}],"_meta":{"x":1},"unknown":null}'
    result = msgspec.json.decode(stateless.complete("tools/call", msgspec.Raw(sent)))
    assert result["resultType"] == "complete"
    assert result["_meta"]["x"] == 1
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "rootlink"
    assert (result["content"][0]["big"], result["unknown"]) == (123456789012345678901234567890, None)
    assert "ttlMs" not in result


def test_a_list_says_how_long_it_may_be_kept() -> None:
    result = msgspec.json.decode(stateless.complete("tools/list", msgspec.Raw(b'{"tools":[]}')))
    assert (result["ttlMs"], result["cacheScope"]) == (0, "private")


MALFORMED = {
    "an array": [],
    "no jsonrpc": {"id": 1, "method": "ping"},
    "a null id": {"jsonrpc": "2.0", "id": None, "method": "ping"},
    "a boolean id": {"jsonrpc": "2.0", "id": True, "method": "ping"},
    "params that are a list": {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []},
    "a method that is a number": {"jsonrpc": "2.0", "id": 1, "method": 5},
    "nothing at all": {"jsonrpc": "2.0"},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_message_is_an_invalid_request(case: str) -> None:
    with pytest.raises(RpcError) as refused:
        frames.check(MALFORMED[case])
    assert refused.value.code == -32600


def test_ids_past_64_bits_come_back_as_they_were() -> None:
    message = frames.check(frames.parse(b'{"jsonrpc":"2.0","id":123456789012345678901,"method":"ping"}'))
    assert b'"id":123456789012345678901,' in frames.result_frame(message["id"], b"{}")
