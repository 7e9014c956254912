"""What people paste, and what it is taken for."""

from __future__ import annotations

import pytest

from rootlink.engine.packages import asks
from rootlink.engine.packages.asks import Ask, Spec
from rootlink.errors import Invalid

NPX = {
    "a package": ("pkg", Ask("npm", (Spec("pkg"),), None, ())),
    "a yes before it": ("-y pkg", Ask("npm", (Spec("pkg"),), None, ())),
    "a version": ("--yes pkg@1.2.3", Ask("npm", (Spec("pkg", "1.2.3"),), None, ())),
    "a tag": ("pkg@next", Ask("npm", (Spec("pkg", "next"),), None, ())),
    "a range": ("pkg@^1.2", Ask("npm", (Spec("pkg", "^1.2"),), None, ())),
    "a scope": ("-y @scope/pkg@1.0.0", Ask("npm", (Spec("@scope/pkg", "1.0.0"),), None, ())),
    "arguments, options among them": (
        "-y pkg --verbose -y /data",
        Ask("npm", (Spec("pkg"),), None, ("--verbose", "-y", "/data")),
    ),
    "a program of another name": ("-p pkg@1.0.0 tool a", Ask("npm", (Spec("pkg", "1.0.0"),), "tool", ("a",))),
    "the long form": ("--package=pkg tool", Ask("npm", (Spec("pkg"),), "tool", ())),
    "two packages": ("--package a --package b tool", Ask("npm", (Spec("a"), Spec("b")), "tool", ())),
    "two dashes": ("-y -- pkg --help", Ask("npm", (Spec("pkg"),), None, ("--help",))),
}
UVX = {
    "a package": ("pkg", Ask("pypi", (Spec("pkg"),), None, ())),
    "a name in another spelling": ("My_Pkg", Ask("pypi", (Spec("my-pkg"),), None, ())),
    "a version": ("pkg==1.2", Ask("pypi", (Spec("pkg", "==1.2"),), None, ())),
    "a version after an at sign": ("pkg@1.2", Ask("pypi", (Spec("pkg", "==1.2"),), None, ())),
    "the latest": ("pkg@latest", Ask("pypi", (Spec("pkg"),), None, ())),
    "an extra": ("--from pkg[cli]==1.0 tool x", Ask("pypi", (Spec("pkg", "==1.0", "[cli]"),), "tool", ("x",))),
    "another package beside it": ("--with extra pkg", Ask("pypi", (Spec("pkg"), Spec("extra")), None, ())),
    "a range": ("pkg>=1,<2", Ask("pypi", (Spec("pkg", ">=1,<2"),), None, ())),
}
REFUSED = {
    "nothing": ("npx", ""),
    "only options": ("npx", "-y"),
    "a git address": ("npx", "git+https://example.com/x.git"),
    "a GitHub shorthand": ("npx", "user/repo"),
    "a GitHub prefix": ("npx", "github:user/repo"),
    "a URL": ("npx", "https://example.com/x.tgz"),
    "a folder": ("npx", "./x"),
    "a parent folder": ("npx", "../x"),
    "an absolute path": ("npx", "/tmp/x"),
    "a file": ("npx", "file:x"),
    "an alias": ("npx", "a@npm:b@1"),
    "a version that is a URL": ("npx", "a@https://example.com/x.tgz"),
    "a shell call": ("npx", "-c evil"),
    "another registry": ("npx", "--registry=http://evil.example pkg"),
    "an unknown option": ("npx", "--ignore-scripts=false pkg"),
    "an option without its value": ("npx", "--package"),
    "an option as package": ("npx", "--package --foo tool"),
    "a path as program": ("npx", "-p pkg ../../bin/sh"),
    "no program after the package": ("npx", "-p pkg"),
    "PyPI: nothing": ("uvx", ""),
    "PyPI: a git address": ("uvx", "--from git+https://example.com/x tool"),
    "PyPI: a URL": ("uvx", "pkg@https://example.com/x.whl"),
    "PyPI: a folder": ("uvx", "--from . tool"),
    "PyPI: an index": ("uvx", "--index-url http://evil.example pkg"),
    "PyPI: another Python": ("uvx", "--python 3.12 pkg"),
    "PyPI: two sources": ("uvx", "--from a --from b tool"),
    "PyPI: a marker": ("uvx", "pkg;python_version<'4'"),
}


@pytest.mark.parametrize(("line", "ask"), NPX.values(), ids=NPX)
def test_npx_asks_for(line: str, ask: Ask) -> None:
    assert asks.npx(line.split()) == ask


@pytest.mark.parametrize(("line", "ask"), UVX.values(), ids=UVX)
def test_uvx_asks_for(line: str, ask: Ask) -> None:
    assert asks.uvx(line.split()) == ask


@pytest.mark.parametrize(("command", "line"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_package_of_a_registry_is_refused(command: str, line: str) -> None:
    with pytest.raises(Invalid):
        (asks.npx if command == "npx" else asks.uvx)(line.split())


@pytest.mark.parametrize("spec", ["a\nb", "a b", "-a", "a\x00", "a@1.0.0\n", "a" * 215, "@/a", "@a/", "..", "a@..", "a/../b"])
def test_a_spec_with_odd_characters_is_refused(spec: str) -> None:
    for parse in (asks.npm_spec, asks.pypi_spec):
        with pytest.raises(Invalid):
            parse(spec)


EXACT = [
    ("1.2.3", "1.2.3"),
    ("1.2.3-beta.1", "1.2.3-beta.1"),
    ("^1.2.3", None),
    ("1.2", None),
    ("latest", None),
    ("==1.2", "1.2"),
    ("==1.*", None),
]


@pytest.mark.parametrize(("wanted", "exact"), EXACT)
def test_only_a_whole_version_is_exact(wanted: str, exact: str | None) -> None:
    assert Spec("a", wanted).exact == exact
