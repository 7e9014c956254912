"""URL by the web platform tests' own cases, in a real isolate. They are of 2023; what changed since is excused, by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.functions.ground import Stage
from tests.functions.node import in_node
from tests.functions.wpt import case_file

URLS = """(text) => { const wrong = []; let run = 0;
  for (const each of JSON.parse(text)) {
    if (typeof each === 'string') continue;
    run++;
    let url;
    try { url = new URL(each.input, each.base ?? undefined) } catch (error) {
      if (!each.failure || !(error instanceof TypeError)) wrong.push([each.input.toWellFormed(), String(error)]);
      if (URL.canParse(each.input, each.base ?? undefined) || URL.parse(each.input, each.base ?? undefined) !== null) wrong.push([each.input, 'can be parsed']);
      continue }
    if (each.failure) { wrong.push([each.input.toWellFormed(), url.href]); continue }
    for (const name of ['href', 'origin', 'protocol', 'username', 'password', 'host', 'hostname', 'port', 'pathname', 'search', 'hash']) {
      if (name in each && url[name] !== each[name]) wrong.push([each.input.toWellFormed(), name, url[name]]);
    }
    if ('searchParams' in each && String(url.searchParams) !== each.searchParams) wrong.push([each.input, 'searchParams', String(url.searchParams)]);
    if (new URL(url.href).href !== url.href) wrong.push([each.input, 'not the same again', url.href]);
  }
  return [run, wrong] }"""

SETTERS = """(text) => { const wrong = []; let run = 0;
  for (const [name, cases] of Object.entries(JSON.parse(text))) {
    for (const each of name === 'comment' ? [] : cases) {
      run++;
      const url = new URL(each.href);
      url[name] = each.new_value;
      for (const got in each.expected) if (url[got] !== each.expected[got]) wrong.push([each.href, name, each.new_value, got, url[got]]);
    }
  }
  return [run, wrong] }"""

DOMAINS = """(text) => { const wrong = []; let run = 0;
  for (const each of JSON.parse(text)) {
    if (typeof each === 'string' || each.input === '') continue;
    run++;
    const got = URL.parse(`https://${encodeURIComponent(each.input)}/x`)?.host ?? null;
    if (got !== each.output) wrong.push([each.input, got, each.output]);
  }
  return [run, wrong] }"""

CARET = "a caret in a path is escaped since November 2023"
SPACES = "spaces at the end of an opaque path are kept, the last of them escaped, since 2025"
ASCII = "a domain that is ASCII is not looked into since 2025, so Punycode that decodes to nothing good is let through"
URL_EXCUSES = {
    "http://a.b.c.xn--pokxncvks": ASCII,
    "http://10.0.0.xn--pokxncvks": ASCII,
    "http://a.b.c.XN--pokxncvks": ASCII,
    "http://a.b.c.Xn--pokxncvks": ASCII,
    "http://10.0.0.XN--pokxncvks": ASCII,
    "http://10.0.0.xN--pokxncvks": ASCII,
    "file://xn--/p": ASCII,
    "https://xn--/": ASCII,
    "foo://host/ !\"$%&'()*+,-./:;<=>@[\\]^_`{|}~": CARET,
    "wss://host/ !\"$%&'()*+,-./:;<=>@[\\]^_`{|}~": CARET,
}
SETTER_EXCUSES = {
    ("https://example.com/", "host", "xn--"): ASCII,
    ("https://example.com/", "hostname", "xn--"): ASCII,
    ("a:/", "pathname", "\0\x01\t\n\r\x1f !\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~\x7f\x80\x81Éé"): CARET,
    ("data:space ?query", "search", ""): SPACES,
    ("sc:space ?query", "search", ""): SPACES,
    ("data:space  ?query#fragment", "search", ""): SPACES,
    ("sc:space  ?query#fragment", "search", ""): SPACES,
    ("data:space" + " " * 130 + "#fragment", "hash", ""): SPACES,
    ("sc:space    #fragment", "hash", ""): SPACES,
    ("data:space  ?query#fragment", "hash", ""): SPACES,
    ("sc:space  ?query#fragment", "hash", ""): SPACES,
}


async def test_urls_are_read_as_the_web_platform_tests_say(stage: Stage) -> None:
    run, wrong = await stage.output(URLS, case_file("urltestdata"))
    assert run > 800
    assert {each[0] for each in wrong} - set(URL_EXCUSES) == set(), wrong
    assert {each[0] for each in wrong} == set(URL_EXCUSES)  # an excuse nobody needs is to go


async def test_urls_change_as_the_web_platform_tests_say(stage: Stage) -> None:
    run, wrong = await stage.output(SETTERS, case_file("setters_tests"))
    assert run > 250
    assert {tuple(each[:3]) for each in wrong} - set(SETTER_EXCUSES) == set(), wrong
    assert {tuple(each[:3]) for each in wrong} == set(SETTER_EXCUSES)


def _excused(case: list[Any]) -> str:
    domain, got, wanted = case
    if domain.isascii():
        return ASCII if "xn--" in domain.lower() else ""
    return "a letter that Unicode 15.1 to 17 added or maps otherwise" if got is not None and wanted is None else ""


@pytest.mark.parametrize(("name", "least"), [("toascii", 35), ("IdnaTestV2", 2000)])
async def test_domains_become_ascii_as_the_web_platform_tests_say(stage: Stage, name: str, least: int) -> None:
    """What is not as in 2023 and has letters beyond ASCII must be what Node, of Unicode 17, says."""
    run, wrong = await stage.output(DOMAINS, case_file(name))
    assert run >= least
    assert [case for case in wrong if not _excused(case)] == []
    others = [case for case in wrong if not case[0].isascii()]
    theirs = (await in_node(DOMAINS, _cases(others)))[1]
    assert theirs == []


def _cases(wrong: list[Any]) -> str:
    """What the isolate made of them, as cases."""
    return msgspec.json.encode([{"input": case[0], "output": case[1]} for case in wrong]).decode()
