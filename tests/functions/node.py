"""The same JavaScript in plain Node, whose URL, encodings and webcrypto pass the web platform's tests: what an isolate must equal."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from tests.harness.node import NODE

RUN = "let s = ''; process.stdin.on('data', (d) => s += d).on('end', async () => process.stdout.write(JSON.stringify(await (%s)(JSON.parse(s)))))"


async def in_node(code: str, input: Any = None) -> Any:
    """What the function `code` gives for `input`."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(NODE, "-e", RUN % code, stdin=pipe, stdout=pipe)
    out, _ = await process.communicate(msgspec.json.encode(input))
    return msgspec.json.decode(out)
