"""Which locks are trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rootlink.engine.packages import locks
from rootlink.engine.packages.asks import Spec
from rootlink.errors import Invalid

SHA = "sha512-" + "A" * 86 + "=="
HASH = "--hash=sha256:" + "0" * 64


def lock(**entries: Any) -> str:
    packages = {"": {"dependencies": {"a": "1.0.0"}}, "node_modules/a": {"version": "1.0.0", "integrity": SHA}}
    return json.dumps(
        {"lockfileVersion": 3, "packages": packages | {place.replace("__", "/"): entry for place, entry in entries.items()}}
    )


def test_a_lock_of_the_catalogue_is_trusted(memory_lock: str) -> None:
    found = locks.npm_lock(memory_lock)
    assert found.versions == {"@modelcontextprotocol/server-memory": "2026.8.31"}
    assert found.count == 99


def test_a_package_inside_anothers_tarball_needs_no_hash_of_its_own() -> None:
    assert locks.npm_lock(lock(node_modules__a__node_modules__b={"version": "1.0.0", "inBundle": True})).count == 2


ENTRIES = {
    "no integrity": {"version": "1.0.0"},
    "a weak integrity": {"version": "1.0.0", "integrity": "sha1-" + "A" * 40},
    "an integrity of another type": {"version": "1.0.0", "integrity": 7},
    "a git address": {"version": "1.0.0", "resolved": "git+ssh://git@example.com/b.git#abc", "integrity": SHA},
    "a URL": {"version": "1.0.0", "resolved": "https://example.com/b.tgz", "integrity": SHA},
    "a folder": {"resolved": "../b", "link": True},
    "nothing": None,
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_an_entry_is_refused_with(entry: object) -> None:
    with pytest.raises(Invalid, match="entry 'node_modules/b'"):
        locks.npm_lock(lock(node_modules__b=entry))


@pytest.mark.parametrize(
    "place", ["../b", "node_modules/../../b", "b", "node_modules/", "node_modules/b/../c", "node_modules/a b", "/etc/x"]
)
def test_an_entry_in_another_place_is_refused(place: str) -> None:
    with pytest.raises(Invalid, match="is not a package of the registry"):
        locks.npm_lock(lock(**{place: {"version": "1.0.0", "integrity": SHA}}))


BROKEN = [
    "",
    "{",
    "[]",
    "7",
    '{"lockfileVersion":2,"packages":{}}',
    '{"lockfileVersion":3}',
    '{"lockfileVersion":3,"packages":{}}',
    "[" * 100_000,
]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_lock_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        locks.npm_lock(text)


def test_a_lock_must_hold_what_is_asked_for() -> None:
    found = locks.npm_lock(lock())
    found.require((Spec("a", "1.0.0"),))
    found.require((Spec("a", "latest"),))
    with pytest.raises(Invalid, match=r"holds a 1\.0\.0, not 2\.0\.0"):
        found.require((Spec("a", "2.0.0"),))
    with pytest.raises(Invalid, match="does not hold b"):
        found.require((Spec("b"),))


def test_requirements_with_hashes_are_trusted() -> None:
    text = f"# a comment\nMy_Pkg==1.2 \\\n    {HASH} \\\n    {HASH}\n\nb[x]==2 ; python_version < '4' {HASH}\n"
    found = locks.pypi_lock(text)
    assert found.versions == {"my-pkg": "1.2", "b": "2"}
    found.require((Spec("my-pkg", "==1.2.0"),))


LINES = [
    "a==1",
    "a>=1 " + HASH,
    "a " + HASH,
    "-r other.txt",
    "--index-url http://evil.example",
    "a @ https://example.com/a.whl " + HASH,
]
LINES += [f"a==1 {HASH} --index-url=http://evil.example", "a==1 --hash=md5:" + "0" * 32, "./a " + HASH, "", "-e ."]
LINES += [f"a==1 ; python_version < '4' --extra-index-url=http://evil.example {HASH}", f"a==1 {HASH}; $(id)"]


@pytest.mark.parametrize("line", LINES)
def test_requirements_are_refused_with(line: str) -> None:
    with pytest.raises(Invalid):
        locks.pypi_lock(line)
