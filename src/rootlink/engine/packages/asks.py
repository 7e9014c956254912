"""What `npx …` and `uvx …` ask for. Only packages of the registry, by name; whatever else those two programs take is refused.

npx [-y|--yes] [-q|--quiet] [-p|--package SPEC]… [--] SPEC|BIN [ARG…]      SPEC: name, @scope/name, each optionally @version
uvx [-q|--quiet] [--from SPEC] [--with SPEC]… [--] SPEC|SCRIPT [ARG…]   SPEC: name, name[extra], each optionally ==version
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rootlink.egress.hosts import shown
from rootlink.errors import Invalid

_NPM = re.compile(
    r"(?P<name>(?:@[A-Za-z0-9~][A-Za-z0-9._~-]*/)?[A-Za-z0-9~][A-Za-z0-9._~-]*)(?:@(?P<version>[~^]?[0-9A-Za-z][0-9A-Za-z.+-]*))?\Z"
)
_PYPI = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?P<extras>\[[A-Za-z0-9,._ -]+\])?"
    r"(?P<version>(?:@|[<>=~!]=?=?)[0-9A-Za-z][0-9A-Za-z.+!*,<>=~ -]*)?\Z"
)
_LONGEST = 214  # of an npm name; the rest fits as well
_EXACT = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(?:[-+][0-9A-Za-z.+-]+)?\Z")  # semver; `1.2` and `^1.2.3` are ranges


@dataclass(frozen=True, slots=True)
class Spec:
    """One package: `name` as its registry spells it; `wanted` what follows, if any (npm: version, range, tag; PyPI: `==1.2`)."""

    name: str
    wanted: str = ""
    extras: str = ""

    @property
    def exact(self) -> str | None:
        """The version, if exactly one is asked for."""
        if self.wanted.startswith("=="):
            return None if set(self.wanted) & {"*", ","} else self.wanted.lstrip("=")
        return self.wanted if _EXACT.match(self.wanted) else None

    def meets(self, version: str) -> bool:
        """Whether a locked version is the one asked for (any, if not exactly one is)."""
        return self.exact is None or self.exact.removesuffix(".0") == version.removesuffix(".0")


@dataclass(frozen=True, slots=True)
class Ask:
    """`specs[0]` is searched first for the program; `program` None: the package's own; `args` go to the program untouched."""

    registry: str  # "npm" | "pypi"
    specs: tuple[Spec, ...]
    program: str | None
    args: tuple[str, ...]

    @property
    def anew(self) -> tuple[Spec, ...]:
        """What to ask the registry for when it is asked again: an exact version gives way to the newest, a range stays one."""
        newest = "latest" if self.registry == "npm" else ""
        return tuple(Spec(spec.name, newest if spec.exact else spec.wanted, spec.extras) for spec in self.specs)

    def at(self, versions: Mapping[str, str], args: Sequence[str]) -> list[str]:
        """`args`, of which this was made, with the version of `versions` in the place of each exact one."""
        begin = len(args) - len(self.args)
        return [*(self._word(word, versions) for word in args[:begin]), *args[begin:]]

    def _word(self, word: str, versions: Mapping[str, str]) -> str:
        option, equals, text = word.partition("=") if word.startswith("--") else ("", "", word)
        try:
            spec = (npm_spec if self.registry == "npm" else pypi_spec)(text)
        except Invalid:
            return word
        if spec.exact is None or spec not in self.specs:
            return word
        return f"{option}{equals}{text.removesuffix(spec.exact)}{versions[spec.name]}"

    @property
    def title(self) -> str:
        spec = self.specs[0]
        at = "@" if self.registry == "npm" and spec.wanted else ""
        return f"{spec.name}{spec.extras}{at}{spec.wanted}"


def npx(args: Sequence[str]) -> Ask:
    """Raises `Invalid` for options and specs outside the form above."""
    values, rest = _options(
        "npx", args, {"-y": None, "--yes": None, "-q": None, "--quiet": None, "-p": "package", "--package": "package"}
    )
    return _ask("npm", "npx", values.get("package", []), rest, npm_spec)


def uvx(args: Sequence[str]) -> Ask:
    """Raises `Invalid` for options and specs outside the form above."""
    values, rest = _options("uvx", args, {"-q": None, "--quiet": None, "--from": "from", "--with": "with"})
    sources = values.get("from", [])
    if len(sources) > 1:
        raise Invalid("uvx takes one --from")
    ask = _ask("pypi", "uvx", sources, rest, pypi_spec)
    extra = tuple(pypi_spec(text) for text in values.get("with", []))
    return Ask(ask.registry, ask.specs + extra, ask.program, ask.args)


def _ask(registry: str, command: str, packages: Iterable[str], rest: Sequence[str], parse: Callable[[str], Spec]) -> Ask:
    if not rest:
        raise Invalid(f"{command} needs the name of a package")
    specs = tuple(parse(text) for text in packages)
    if specs:
        return Ask(registry, specs, _program(rest[0]), tuple(rest[1:]))
    return Ask(registry, (parse(rest[0]),), None, tuple(rest[1:]))


def _program(name: str) -> str:
    if not re.match(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z", name):
        raise Invalid(f"{shown(name)} is not the name of a package's program")
    return name


def _options(command: str, args: Sequence[str], known: Mapping[str, str | None]) -> tuple[dict[str, list[str]], list[str]]:
    """The options before the first positional, by name, and what follows. An option maps to the name of its value, or to None."""
    values: dict[str, list[str]] = {}
    rest = list(args)
    while rest and rest[0].startswith("-"):
        option, equals, value = rest.pop(0).partition("=")
        if option == "--" and not equals:
            break
        if option not in known or (equals and known[option] is None):
            raise Invalid(f"{command} option {shown(option)} is not supported; use {', '.join(known)}")
        name = known[option]
        if name is not None:
            values.setdefault(name, []).append(value if equals else _value(command, option, rest))
    return values, rest


def _value(command: str, option: str, rest: list[str]) -> str:
    if not rest:
        raise Invalid(f"{command} option {option} needs a value")
    return rest.pop(0)


def npm_spec(text: str) -> Spec:
    """`name`, `@scope/name`, each optionally `@version`, `@range` or `@tag`. Raises `Invalid`."""
    match = _NPM.match(text) if len(text) <= _LONGEST else None
    if match is None or ".." in text:
        raise Invalid(
            f"{shown(text)} is not a package of the npm registry: write name@version; URLs, git and file paths are not installed"
        )
    return Spec(match["name"], match["version"] or "")


def pypi_spec(text: str) -> Spec:
    """`name[extras]` optionally with `==version` (or another comparison), `@version` or `@latest`. Raises `Invalid`."""
    match = _PYPI.match(text) if len(text) <= _LONGEST else None
    if match is None:
        raise Invalid(f"{shown(text)} is not a package of PyPI: write name==version; URLs, git and file paths are not installed")
    version = match["version"] or ""
    if version.startswith("@"):
        version = "" if version == "@latest" else f"=={version[1:]}"
    return Spec(normal_name(match["name"]), version.replace(" ", ""), (match["extras"] or "").replace(" ", ""))


def normal_name(name: str) -> str:
    """A PyPI name in its one spelling (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
