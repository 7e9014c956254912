"""TextEncoder, TextDecoder, atob and btoa, against Node's over tens of thousands of inputs."""

from __future__ import annotations

import pytest

from tests.functions.ground import Stage
from tests.functions.node import in_node

# The same cases on both sides: they come of a linear congruence, and each is reduced to a line.
HELP = """let seed = SEED;
  const any = (n) => { seed = (seed * 1103515245 + 12345) % 2147483648; return Math.floor(seed / 65536) % n };
  const show = (f) => { try { return f() } catch (error) { return 'refused: ' + error.name } };
  const units = (text) => Array.from({ length: text.length }, (_, i) => text.charCodeAt(i)).join();
"""

DECODING = (
    "() => {"
    + HELP
    + """
  const bytes = [0, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef, 0xbb, 0xf0, 0xf4, 0xf5, 0xff, 0xfe, 0xd8, 0xdc, 0x3d];
  const out = [];
  for (let i = 0; i < 8000; i++) {
    const data = Uint8Array.from({ length: any(9) }, () => bytes[any(bytes.length)]);
    const label = ['utf-8', 'utf-16le', 'utf-16be', 'latin1'][any(4)];
    const options = { fatal: label !== 'latin1' && any(2) === 1, ignoreBOM: any(2) === 1 };
    const at = any(data.length + 1);
    const pieces = () => {
      const decoder = new TextDecoder(label, options);
      const first = decoder.decode(data.subarray(0, at), { stream: true });
      return [first, decoder.decode(data.subarray(at), { stream: true }), decoder.decode(), decoder.decode(data)].map(units);
    };
    out.push([label, options.fatal, options.ignoreBOM, at, data.join(), show(() => units(new TextDecoder(label, options).decode(data))), show(pieces)].join(' | '));
  }
  return out }"""
)

BASE64 = (
    "() => {"
    + HELP
    + """
  const signs = ['A', '/', 'a', 'b', '+', '=', '=', '\\t', '\\n', '\\f', '\\r', ' ', '\\v', '\\u00a0', '-', '_', 'é', 'Z', '9', '\\u{10000}'];
  const out = [];
  for (let i = 0; i < 8000; i++) {
    const text = Array.from({ length: any(8) }, () => signs[any(any(3) ? 6 : signs.length)]).join('');
    out.push([units(text), show(() => units(atob(text))), show(() => btoa(text))].join(' | '));
  }
  for (const value of [null, undefined, 12, 1.5, true, {}, ['ab']]) out.push([show(() => units(atob(value))), show(() => btoa(value))].join(' | '));
  return out }"""
)

ENCODING = (
    "() => {"
    + HELP
    + """
  const out = [];
  for (let i = 0; i < 5000; i++) {
    const text = Array.from({ length: any(7) }, () => String.fromCharCode([0x41, 0xe9, 0x7ff, 0x800, 0xd83d, 0xde00, 0xdfff, 0xffff][any(8)])).join('');
    const into = new Uint8Array(any(10));
    const { read, written } = new TextEncoder().encodeInto(text, into);
    out.push([units(text), new TextEncoder().encode(text).join(), read, written, into.join()].join(' | '));
  }
  return out }"""
)

FACES = """() => { const show = (f) => { try { return f() } catch (error) { return 'refused: ' + error.name } };
  const labels = ['utf8', 'UTF-8', ' utf-8\\t', '\\u000butf-8', 'utf-8\\u00a0', 'unicode-1-1-utf-8', 'x-unicode20utf8', 'utf-16', 'ucs-2', 'unicodefffe', 'UTF-16BE', 'ascii', 'iso-8859-1',
    'latin1', 'us-ascii', 'cp1252', 'windows-1252', 'l1', '', 'utf-7', 'utf-32', 'replacement', 'nothing', 'utf-8'.padEnd(100), 'utf-8'.padEnd(100) + 'x'];
  return [labels.map((label) => show(() => new TextDecoder(label).encoding)),
    Object.prototype.toString.call(new TextDecoder()), Object.prototype.toString.call(new TextEncoder()), new TextEncoder().encoding,
    [new TextDecoder('utf-8', { fatal: 1 })].map((d) => [d.fatal, d.ignoreBOM])[0],
    show(() => new TextDecoder().decode('text')), show(() => new TextDecoder().decode(null)), new TextDecoder().decode(), new TextDecoder('utf-8', null).decode(undefined, null),
    new TextDecoder().decode(new DataView(new Uint8Array([65, 66, 67]).buffer, 1, 1)), new TextDecoder().decode(new Uint16Array([0x4241])),
    show(() => new TextEncoder().encodeInto('x', new Uint16Array(4))), [...new TextEncoder().encode()], [...new TextEncoder().encode(null)],
    units(new TextDecoder('latin1').decode(Uint8Array.from({ length: 256 }, (_, i) => i)))] }""".replace(
    "=> { const show", "=> { const units = (text) => Array.from(text, (c) => c.charCodeAt(0)).join(); const show", 1
)


@pytest.mark.parametrize("code", [DECODING, BASE64, ENCODING], ids=["decoding", "base64", "encoding"])
async def test_text_and_bytes_become_each_other_as_in_node(stage: Stage, code: str) -> None:
    for seed in ("1", "20261123"):
        same = code.replace("SEED", seed)
        ours, theirs = await stage.output(same), await in_node(same)
        assert len(ours) >= 5000
        assert [(one, two) for one, two in zip(ours, theirs, strict=True) if one != two][:5] == []


async def test_labels_and_arguments_are_taken_as_in_node(stage: Stage) -> None:
    ours, theirs = await stage.output(FACES), await in_node(FACES)
    assert ours == theirs


async def test_an_encoding_that_is_not_there_is_refused_by_name(stage: Stage) -> None:
    """The legacy encodings of other alphabets, which Node has: their tables would be in every isolate."""
    error = await stage.error("() => new TextDecoder('shift_jis')")
    assert error["name"] == "RangeError"
    assert "utf-8, utf-16le, utf-16be, windows-1252" in error["message"]


BOMBS = {
    "base64 of 16 MB": "() => atob('QUJD'.repeat(2 ** 22)).length",
    "16 MB to base64": "() => btoa('x'.repeat(2 ** 24)).length",
    "a flood of decoders": "() => { const b = new Uint8Array(100).fill(0xff); let n = 0; for (let i = 0; i < 20000; i++) n += new TextDecoder().decode(b).length; return n }",
    "16 MB decoded": "() => new TextDecoder().decode(new Uint8Array(2 ** 24).fill(0xe2)).length",
    "a URL of 1 MB": "() => new URL('https://h/' + 'é'.repeat(2 ** 19)).href.length",
    "1e5 parents": "() => new URL('https://h/' + 'a/'.repeat(1e5) + '../'.repeat(1e5)).href",
    "1 MB of spaces": "() => new URL('a' + ' '.repeat(2 ** 20) + 'b', 'https://h/').href.length",
    "1 MB of host": "() => URL.canParse('https://' + 'a'.repeat(2 ** 20))",
    "1 MB of ats": "() => new URL('https://' + '@'.repeat(2 ** 18) + 'h').host",
    "1 MB of dots": "() => URL.canParse('https://' + '1.'.repeat(2 ** 19))",
    "1 MB of colons": "() => URL.canParse('https://[' + ':'.repeat(2 ** 20) + ']')",
    "a domain of 1e5 letters": "() => URL.canParse('https://' + Array.from({ length: 1e5 }, (_, i) => String.fromCodePoint(0x4e00 + (i % 20000))).join(''))",
    "a domain that grows": "() => URL.canParse('https://' + '\\ufdfa'.repeat(1e5))",
    "punycode of 1 MB": "() => URL.canParse('https://é.xn--' + 'a'.repeat(2 ** 20))",
    "1e5 parameters": "() => { const p = new URLSearchParams('a=1&'.repeat(1e5)); p.sort(); p.delete('a', '2'); p.set('a', 2); return p.size }",
    "a label of 1 MB": "() => { try { new TextDecoder('utf-8' + ' '.repeat(2 ** 20) + 'x') } catch (error) { return error.name } }",
}
WANTED = {
    "base64 of 16 MB": 3 << 22,
    "1e5 parents": "https://h/",
    "1 MB of host": True,
    "1 MB of ats": "h",
    "a domain of 1e5 letters": False,
    "a domain that grows": False,
    "punycode of 1 MB": False,
    "1e5 parameters": 1,
    "a label of 1 MB": "RangeError",
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_ends_in_time_and_leaves_its_neighbours_alone(stage: Stage, name: str) -> None:
    """Each is done, or stopped by the limits in words; the worker lives."""
    neighbour = await stage.deploy(
        "async () => { await new Promise((done) => setTimeout(done, 300)); return 'here' }", "neighbour"
    )
    beside = stage.host.invoke("main", neighbour, None)
    run = await stage.run(BOMBS[name])
    assert (await beside).output == "here"
    assert run.status == "ok", run.error
    if name in WANTED:
        assert run.output == WANTED[name]
