"""Command lines as READMEs give them: `npx …`, `uvx …`, `claude mcp add …`, with variables before them and a shell's quotes.

Rule. What would run something nobody can pin (a shell, docker, a script on this machine) is refused, with what to do instead.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any, NoReturn

from rootlink.catalog.foreign import guess
from rootlink.catalog.foreign.found import Found
from rootlink.errors import Invalid

Decode = Callable[[str], Any]

_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)\Z", re.DOTALL)
_NPM = re.compile(
    r"(?P<name>(?:@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*)(?:@(?P<version>[~^]?[0-9A-Za-z][0-9A-Za-z.+-]*))?\Z"
)
_PYPI = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\[[A-Za-z0-9,._-]+\])?)"
    r"(?:(?:@|==)(?P<version>[0-9A-Za-z][0-9A-Za-z.+!-]*))?\Z"
)
_LONGEST = 214
_PROMPT = re.compile(r"\A\s*(?:[$>#%]\s+)", re.MULTILINE)
_CONTINUED = re.compile(r"[\\^`]\r?\n[ \t]*")
_SHELL = re.compile(r"[|&;<>]|\$\(|`")
_BARE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_REMOTE_FLAGS = {
    "--transport": 1,
    "--header": 1,
    "--resource": 1,
    "--debug": 0,
    "--allow-http": 0,
    "--enable-proxy": 0,
    "--silent": 0,
}

_ON_THIS_MACHINE = "a server that lies on this machine is mounted with: rootlink mcp add NAME -- COMMAND ARGS… (--read DIR)"
_REFUSED = {
    "docker": "containers are not run here: Rootlink keeps a server in by itself. Look for its npm or PyPI package "
    "(npx …, uvx …) or its URL; what docker is given with -e are the same variables",
    "podman": "containers are not run here: look for the server's npm or PyPI package (npx …, uvx …) or its URL",
    "bash": "a shell can run anything, so nothing it runs can be pinned: paste the command inside it",
    "sh": "a shell can run anything, so nothing it runs can be pinned: paste the command inside it",
    "powershell": "a shell can run anything, so nothing it runs can be pinned: paste the command inside it",
    "node": _ON_THIS_MACHINE,
    "python": _ON_THIS_MACHINE,
    "python3": _ON_THIS_MACHINE,
    "uv": "uv runs a folder of this machine; a published package is `uvx PACKAGE`, and " + _ON_THIS_MACHINE,
    "bun": _ON_THIS_MACHINE,
    "deno": _ON_THIS_MACHINE,
    "go": _ON_THIS_MACHINE,
}


def words_of(text: str) -> list[str]:
    """The words of one command line as a shell splits it. `Invalid` for what only a shell could do, or lines that are several."""
    joined = _CONTINUED.sub(" ", _PROMPT.sub("", text)).strip()
    lines = [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) != 1:
        raise Invalid("this is more than one line, and no JSON: paste one command line, one URL, or the JSON of a configuration")
    try:
        return shlex.split(lines[0])
    except ValueError:
        raise Invalid("this command line has a quote without its end") from None


def read(words: Sequence[str], decode: Decode) -> list[Found]:
    """What a command line starts. `Invalid`."""
    env, rest = _assigned(words)
    if not rest:
        raise Invalid("this sets variables and starts nothing: paste the whole command line")
    program, args = PurePath(rest[0]).name, [_braced(word) for word in rest[1:]]
    if program in ("claude", "codex", "gemini") and args[:1] == ["mcp"]:
        return _client(program, list(rest[1:]), env, decode)
    if program in ("code", "code-insiders", "cursor") and args[:1] == ["--add-mcp"] and len(rest) > 2:
        return _servers_of(rest[2], None, decode)
    if any(_SHELL.search(word) and word in ("|", "||", "&&", "&", ";", ">", "<") for word in args):
        raise Invalid(
            "this line needs a shell (it has a pipe or several commands): paste the command that starts the server alone"
        )
    return [command(None, program, args, {name: _braced(value) for name, value in env.items()})]


def command(name: str | None, program: str, args: Sequence[str], env: dict[str, str]) -> Found:
    """The server that `program args` starts; its name is made of the package's unless given. `Invalid`."""
    program = PurePath(program.replace("\\", "/")).name.removesuffix(".cmd").removesuffix(".exe")
    rest = list(args)
    if program == "cmd" and rest[:1] in (["/c"], ["/C"]) and len(rest) > 1:  # how Windows starts npx
        return command(name, rest[1], rest[2:], env)
    if program == "env":
        more, rest = _assigned(rest)
        if not rest:
            _refuse("env", "it starts nothing")
        return command(name, rest[0], rest[1:], {**env, **more})
    begins = next((many for many in (0, 1, 2) if " ".join([program, *rest[:many]]) in _STARTERS), None)
    if begins is None:
        _refuse(
            program, _REFUSED.get(program) or f"only npx, uvx and URLs are, since only those can be pinned; {_ON_THIS_MACHINE}"
        )
    found = _STARTERS[" ".join([program, *rest[:begins]])](rest[begins:])
    found.name, found.env = name or found.name, env
    return found


def url(name: str | None, address: str, headers: dict[str, str], transport: str | None = None) -> Found:
    sse = transport == "sse" or (transport is None and address.split("?")[0].rstrip("/").endswith("/sse"))
    if not re.match(r"https?://[^\s]+\Z", address):
        raise Invalid("a server's URL must begin with https:// (or http://) and hold no spaces")
    host = re.sub(r"^https?://([^/@]*@)?", "", address).partition("/")[0].partition(":")[0]
    return Found(name=name or _short_host(host), url=address, headers=headers, transport="sse" if sse else "streamable-http")


def _refuse(program: str, why: str) -> NoReturn:
    raise Invalid(f"`{guess.shown(program)}` can't be connected: {why}")


def _assigned(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    env: dict[str, str] = {}
    rest = list(words)
    if rest[:1] == ["export"]:
        rest = rest[1:]
    while rest and (found := _ASSIGNED.match(rest[0])):
        env[found[1]] = found[2]
        rest = rest[1:]
    return env, rest


def _braced(word: str) -> str:
    """A shell's `$NAME` as `${NAME}`."""
    return _BARE.sub(r"${\1}", word)


# npx, uvx and their kin


def _npx(words: list[str]) -> Found:
    options, rest = _options("npx", words, {"-y": 0, "--yes": 0, "-q": 0, "--quiet": 0, "-p": 1, "--package": 1, "--": 0})
    packages = [*options.get("-p", []), *options.get("--package", [])]
    if len(packages) > 1:
        raise Invalid("npx with several packages can't be connected: name the one that the server is in")
    package, rest, program = _package_and_program(packages, rest, "npx")
    found = _npm(package)
    found.program, found.args = program, rest
    return _unwrapped(found) if found.package == "mcp-remote" else found


def _uvx(words: list[str]) -> Found:
    known = {"-q": 0, "--quiet": 0, "--from": 1, "--": 0, "--python": 1, "-p": 1, "--refresh": 0, "--with": 1, "--no-cache": 0}
    options, rest = _options("uvx", words, {**known, "--isolated": 0, "-U": 0, "--upgrade": 0})
    if options.get("--with"):
        raise Invalid("uvx --with can't be connected here: mount it with: rootlink mcp add NAME -- uvx …")
    package, rest, program = _package_and_program(options.get("--from", []), rest, "uvx")
    found = _pypi(package)
    found.program, found.args = program, rest
    return found


_STARTERS: dict[str, Callable[[list[str]], Found]] = {
    "npx": _npx,
    "bunx": _npx,
    "pnpx": _npx,
    "npm exec": _npx,
    "pnpm dlx": _npx,
    "yarn dlx": _npx,
    "bun x": _npx,
    "uvx": _uvx,
    "uv tool run": _uvx,
    "pipx run": _uvx,
}


def _package_and_program(packages: list[str], rest: list[str], starter: str) -> tuple[str, list[str], str | None]:
    if not packages and not rest:
        raise Invalid(f"{starter} needs the name of a package")
    if not packages:
        return rest[0], rest[1:], None
    if not rest:
        raise Invalid(f"{starter} needs the name of the program in {guess.shown(packages[0])}")
    return packages[0], rest[1:], rest[0]


def _options(starter: str, words: Sequence[str], known: dict[str, int]) -> tuple[dict[str, list[str]], list[str]]:
    found: dict[str, list[str]] = {}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option, equals, value = rest.pop(0).partition("=")
        if option not in known:
            raise Invalid(f"{starter} option '{guess.shown(option)}' is not taken here; use {', '.join(known)}")
        if option == "--":
            break
        if not known[option]:
            continue
        if not equals and not rest:
            raise Invalid(f"{starter} option {option} needs a value")
        found.setdefault(option, []).append(value if equals else rest.pop(0))
    return found, rest


def _npm(text: str) -> Found:
    match = _NPM.match(text) if len(text) <= _LONGEST else None
    if match is None or ".." in text:
        raise Invalid(
            f"'{guess.shown(text)}' is no package of the npm registry: URLs, git and folders can't be pinned; write name@version"
        )
    return Found(name=_of_package(match["name"]), registry="npm", package=match["name"], version=match["version"] or "")


def _pypi(text: str) -> Found:
    match = _PYPI.match(text) if len(text) <= _LONGEST else None
    if match is None:
        raise Invalid(f"'{guess.shown(text)}' is none of PyPI's packages: URLs, git and ranges can't be pinned; write a==1.2")
    return Found(
        name=_of_package(match["name"].partition("[")[0]), registry="pypi", package=match["name"], version=match["version"] or ""
    )


def _unwrapped(found: Found) -> Found:
    """`mcp-remote URL` is a program that speaks to a server elsewhere for clients that can't; here it is that server."""
    rest, headers, transport, address = list(found.args), dict[str, str](), None, None
    while rest:
        word = rest.pop(0)
        if word in _REMOTE_FLAGS:
            value = rest.pop(0) if _REMOTE_FLAGS[word] and rest else ""
            if word == "--header":
                _header(headers, value)
            elif word == "--transport":
                transport = "sse" if value.startswith("sse") else None
        elif address is None and word.startswith(("http://", "https://")):
            address = word
        elif not word.isdigit():  # the port its own sign-in would listen on
            raise Invalid(f"mcp-remote with '{guess.shown(word)}' can't be connected: give the URL and its headers")
    if address is None:
        raise Invalid("mcp-remote needs a URL")
    elsewhere = url(None, address, headers, transport)
    elsewhere.warnings = ["mcp-remote is not needed: Rootlink speaks to this server itself"]
    return elsewhere


def _header(headers: dict[str, str], text: str) -> None:
    name, sign, value = text.partition(":")
    if not sign or not name.strip():
        raise Invalid("a header is written as 'Name: value'")
    headers[name.strip()] = value.strip()


def _of_package(name: str) -> str:
    """What people call the server of a package: `@modelcontextprotocol/server-memory` is memory."""
    scope, _, last = name.rpartition("/")
    bare = re.sub(r"^(mcp-server-|server-|mcp-)|(-mcp-server|-mcp|-server)$", "", last)
    return last if bare in ("", "mcp", "server") and not scope else (scope.lstrip("@") if bare in ("", "mcp", "server") else bare)


def _short_host(host: str) -> str:
    """`mcp.linear.app` is linear."""
    labels = [label for label in host.lower().split(".") if label not in ("mcp", "api", "www", "server")]
    return labels[-2] if len(labels) > 1 else (labels[0] if labels else host)


# what other clients' commands add


def _client(program: str, words: list[str], env: dict[str, str], decode: Decode) -> list[Found]:
    """`claude mcp add [options] NAME (URL | [--] COMMAND ARGS…)`, and its kin; `claude mcp add-json NAME JSON`."""
    if words[1:2] == ["add-json"]:
        rest = _without_options(words[2:], {"--scope", "-s", "--transport", "-t"})
        if len(rest) != 2:
            raise Invalid(f"`{program} mcp add-json` needs a name and the JSON of one server")
        return _servers_of(rest[1], rest[0], decode)
    if words[1:2] != ["add"]:
        raise Invalid(f"of `{program} mcp`, only `add` and `add-json` lines are taken")
    return [_added(program, words[2:], dict(env))]


def _added(program: str, words: list[str], env: dict[str, str]) -> Found:
    transport, address, plain = None, None, list[str]()
    headers: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if word == "--":
            plain += rest
            break
        started = len(plain) >= 2 and not plain[1].startswith(("http://", "https://"))  # what follows is the command's
        if started or not option.startswith("-"):
            plain.append(word)
            continue
        value = value if equals else (rest.pop(0) if rest else "")
        if option in ("--transport", "-t"):
            transport = value
        elif option in ("--env", "-e"):
            env |= _assigned([value])[0]
            while program == "claude" and rest and _ASSIGNED.match(rest[0]):  # several after one -e
                env |= _assigned([rest.pop(0)])[0]
        elif option in ("--header", "-H"):
            _header(headers, value)
        elif option == "--url":
            address = value
        elif option not in ("--scope", "-s"):
            raise Invalid(f"option '{guess.shown(option)}' of `{program} mcp add` is not known here")
    if not plain:
        raise Invalid(f"`{program} mcp add` needs the server's name")
    name, *start = plain
    address = address or (start[0] if start and start[0].startswith(("http://", "https://")) else None)
    env, headers = ({key: _braced(value) for key, value in given.items()} for given in (env, headers))
    if address is not None:
        return url(name, address, headers, "sse" if transport == "sse" else "http" if transport else None)
    if not start:
        raise Invalid(f"`{program} mcp add {guess.shown(name)}` needs the command that starts the server, or its URL")
    return command(name, start[0], [_braced(word) for word in start[1:]], env)


def _without_options(words: list[str], valued: set[str]) -> list[str]:
    kept: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in valued:
            rest = rest[1:]
        elif not word.startswith("--"):
            kept.append(word)
    return kept


def _servers_of(text: str, name: str | None, decode: Decode) -> list[Found]:
    from rootlink.catalog.foreign.formats import servers  # each reads what is inside the other

    value = decode(text)
    if not isinstance(value, dict):
        raise Invalid("this needs the JSON of one server")
    return servers({"mcpServers": {name: value}} if name else {"mcpServers": {str(value.get("name", "server")): value}})
