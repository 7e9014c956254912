"""The Inspector's CLI through Rootlink, in every era it offers: it lists tools, and calls one that asks nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.conformance.conftest import MOUNT
from tests.harness import node
from tests.harness.instance import Instance

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
TOOL = f"{MOUNT}__test_simple_text"
ERAS = {
    "sse": ("/sse", "--transport", "sse"),
    "legacy": ("", "--transport", "http", "--protocol-era", "legacy"),
    "auto": ("", "--transport", "http", "--protocol-era", "auto"),
    "modern": ("", "--transport", "http", "--protocol-era", "modern"),
}


def inspect(rootlink: Instance, leg: str, era: str, *words: str) -> Any:
    path, *flags = ERAS[era]
    header = f"Authorization: Bearer {rootlink.key}"
    done = node.inspector(f"{rootlink.mcp}/{leg}{path}", "--header", header, *flags, "--format", "json", *words)
    assert done.returncode == 0, done.stderr + done.stdout
    return msgspec.json.decode(done.stdout.encode())


@pytest.mark.parametrize("leg", ["http", "stdio"])
@pytest.mark.parametrize("era", ERAS)
def test_the_inspector_lists_and_calls(rootlink: Instance, leg: str, era: str) -> None:
    tools = inspect(rootlink, leg, era, "--method", "tools/list")
    assert TOOL in str(tools)
    called = inspect(rootlink, leg, era, "--method", "tools/call", "--tool-name", TOOL)
    assert "This is a simple text response for testing." in str(called)
