"""Functions as people paste them: what they ask the network for, and what they make of its answers, is what Node makes of them."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from tests.functions.ground import Answer, Asked, Stage
from tests.harness.node import NODE

BODIES: Final = re.findall(r"^//# (\w+)\n(.*?)(?=^//# |\Z)", (Path(__file__).with_name("pasted.js")).read_text(), re.M | re.S)
ENV: Final = {"OPENAI_API_KEY": "sk-o", "ANTHROPIC_API_KEY": "sk-a", "STRIPE": "whsec_abc", "GITHUB": "ghp_1"}
INPUTS: Final[dict[str, Any]] = {
    "openai_stream": {"prompt": "hi"},
    "stripe": {"headers": {"stripe-signature": "t=1,v1=ab"}, "body": "{}"},
    "slack": {"ts": 1, "body": "command=%2Fx&text=a+b"},
    "graphql": {"owner": "a", "name": "b"},
    "s3presign": {"bucket": "b", "key": "a b/ü.txt"},
    "upload_blob": {"text": "hé"},
    "consts": {"z": 1},
}
J: Final = {"content-type": "application/json"}
GITHUB: Final = "https://api.github.com"


def _events(*events: str) -> str:
    return "".join(f"{event}\n\n" for event in events)


def _delta(text: str) -> str:
    return "data: " + json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=False)


def _issues(numbers: list[int], cursor: str | None) -> str:
    page = {"hasNextPage": cursor is not None, "endCursor": cursor}
    return json.dumps({"data": {"repository": {"issues": {"nodes": [{"number": n} for n in numbers], "pageInfo": page}}}})


ANSWERS: Final[dict[str, list[tuple[int, str, dict[str, str]]]]] = {
    "https://api.openai.com/v1/chat/completions": [(200, _events(_delta("Hé"), _delta("llo 😀"), "data: [DONE]"), {})],
    "https://api.anthropic.com/v1/messages": [
        (
            200,
            _events(
                "event: message_start\ndata: {}",
                'event: content_block_delta\ndata: {"delta": {"text": "a: ü"}}',
                "event: message_stop\ndata: {}",
            ),
            {"content-type": "text/event-stream"},
        )
    ],
    f"{GITHUB}/graphql": [(200, _issues([1, 2], "c"), J), (200, _issues([3], None), J)],
    f"{GITHUB}/items?page=1": [
        (200, "[1,2]", {**J, "link": f'<{GITHUB}/items?page=2>; rel="next", <{GITHUB}/items?page=2>; rel="last"'})
    ],
    f"{GITHUB}/items?page=2": [(200, "[3]", J)],
    f"{GITHUB}/user": [(200, '{"login":"ada"}', J)],
    "https://files.example/data.csv": [(200, 'name,city\r\n"Do, ""e""",Berlin\r\nAnn,Paris\r\n', {"content-type": "text/csv"})],
    "https://files.example/upload": [(201, "", {})],
    "https://files.example/lines.ndjson": [(200, '{"a":1}\n{"b":"é"}\n{"c":3}', {})],
    "https://flaky.example/": [(503, "x", {}), (500, "y", {}), (200, '{"a":1}', J)],
    **{f"https://many.example/{i}": [(500 if i % 7 == 3 else 200, json.dumps({"i": i}), J)] for i in range(20)},
}
IN_NODE: Final = """
const [code, input, env, answers] = JSON.parse(await new Response(process.stdin).text()), asked = [];
globalThis.fetch = async (url, init) => {
  const request = new Request(url, init);
  asked.push([request.method, request.url, Object.fromEntries(request.headers), Buffer.from(await request.arrayBuffer()).toString('latin1')]);
  const list = answers[request.url], [status, body, headers] = list.length > 1 ? list.shift() : list[0];
  return new Response(body, { status, headers });
};
const { default: f } = await import('data:text/javascript;base64,' + Buffer.from(code).toString('base64'));
let output = await f(input, { ...env, env });
if (output instanceof Response) output = { status: output.status, headers: Object.fromEntries(output.headers), body: await output.text() };
process.stdout.write(JSON.stringify([output ?? null, asked]), () => process.exit(0));
"""


async def _in_node(code: str, input: Any) -> Any:
    module = code if "export default" in code else f"export default {code}"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(NODE, "--input-type=module", "-e", IN_NODE, stdin=pipe, stdout=pipe)
    out, _ = await process.communicate(json.dumps([module, input, ENV, ANSWERS]).encode())
    return json.loads(out)


def _plain(asked: list[Any]) -> list[str]:
    """Without what is made up for each form."""
    return sorted(re.sub(r"-*(?:rootlink|formdata-undici-)\w+", "BOUNDARY", json.dumps(one, sort_keys=True)) for one in asked)


@pytest.mark.parametrize(("name", "code"), BODIES, ids=[name for name, _ in BODIES])
async def test_a_pasted_function_does_what_it_does_in_node(stage: Stage, name: str, code: str) -> None:
    turns: dict[str, int] = {}

    async def network(asked: Asked) -> Answer:
        turn = turns[asked.url] = turns.get(asked.url, -1) + 1
        status, body, headers = ANSWERS[asked.url][min(turn, len(ANSWERS[asked.url]) - 1)]
        return Answer(status, headers=headers, url=asked.url, source=_in_pieces(body.encode()))

    stage.host.environment(ENV)
    stage.out.network = network
    output = await stage.output(code, INPUTS.get(name))
    there, asked_there = await _in_node(code, INPUTS.get(name))
    assert output == there
    asked = [[one.method, one.url, dict(one.headers), (one.data or b"").decode("latin1")] for one in stage.out.asked]
    assert _plain(asked) == _plain(asked_there)


async def _in_pieces(body: bytes) -> Any:
    """So small that they end in the middle of characters."""
    for start in range(0, len(body), 7):
        yield body[start : start + 7]
        await asyncio.sleep(0)
