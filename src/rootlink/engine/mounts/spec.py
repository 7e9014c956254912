"""What a MountSpec from outside may say, and how its `${NAME}` and `${{…}}` are filled in.

Rules
- One transport, its members only: `stdio` has a command, `http` and `sse` have an endpoint.
- Directories are absolute and, symlinks resolved, under the project's own files folder or one the operator allowed.
- Headers that steer the connection or the protocol are the link's own. `egress` entries are allowlist rules; they open nothing.
- A secret is filled in once: what is inside a value is text, never looked at again. No message holds a value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from rootlink import names
from rootlink.egress import hosts
from rootlink.errors import Forbidden, Invalid
from rootlink.wire.mounts import Auth, MountSpec, Paths

START_SECONDS = 30.0
LONGEST_START = 600.0
MOST_AT_ONCE = 1000

_REFERENCE = re.compile(r"\$\{\{([^{}]*)\}\}|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_OWN_HEADERS = frozenset(
    {"host", "accept", "accept-encoding", "connection", "content-length", "content-type", "last-event-id"}
    | {"te", "trailer", "transfer-encoding", "upgrade"}
)
_FAR = ("endpoint", "headers", "auth")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt", "/nix/store", "/etc", "/dev", "/proc")
_MEMBERS = {"stdio": ("command", "args", "env", "cwd"), "http": _FAR, "sse": _FAR}
_ALL_MEMBERS = ("command", "args", "env", "cwd", "endpoint", "headers", "auth")


class Places(NamedTuple):
    """`files`: the project's own folder. `allowed`: what the operator named with --allow-path."""

    files: Path
    allowed: tuple[Path, ...]


def check(spec: MountSpec, places: Places) -> None:
    """Raises Invalid, or Forbidden for a directory nobody allowed."""
    names.mount_name(spec.name)
    _transport(spec)
    _texts(spec)
    _numbers(spec)
    for entry in spec.egress or ():
        hosts.rule(entry)
    for path in (*spec.paths.read, *spec.paths.write, *([spec.cwd] if spec.cwd else [])):
        if not _REFERENCE.search(path):  # those are looked at again once they are filled in
            directory(path, places)


def _transport(spec: MountSpec) -> None:
    allowed = _MEMBERS[spec.transport]
    for member in _ALL_MEMBERS:
        if member not in allowed and getattr(spec, member):
            raise Invalid(f"{spec.name}: `{member}` is not for transport {spec.transport!r}")
    if not getattr(spec, allowed[0]):
        raise Invalid(f"{spec.name}: transport {spec.transport!r} needs `{allowed[0]}`")
    if spec.endpoint is not None and not re.match(r"https?://[^\s]+\Z", spec.endpoint):
        raise Invalid(f"{spec.name}: `endpoint` must be an http:// or https:// URL without spaces")


def _texts(spec: MountSpec) -> None:
    for name in spec.env:
        if not _ENV_NAME.match(name):
            raise Invalid(f"{spec.name}: {hosts.shown(name)} is no name for an environment variable: letters, digits and '_'")
    for name in spec.headers:
        if not _HEADER_NAME.match(name) or name.lower() in _OWN_HEADERS or name.lower().startswith("mcp-"):
            raise Invalid(f"{spec.name}: header {hosts.shown(name)} cannot be set: not a header name, or the protocol's own")
    for name in spec.files:
        if not _FILE_NAME.match(name):
            raise Invalid(f"{spec.name}: file {hosts.shown(name)} is not a plain file name")
    for member, text in _all_texts(spec):
        if "\0" in text:
            raise Invalid(f"{spec.name}: `{member}` holds a NUL character")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Invalid(f"{spec.name}: `{member}` holds half of a surrogate pair") from None


def _all_texts(spec: MountSpec) -> Iterator[tuple[str, str]]:
    yield "command", spec.command or ""
    yield "cwd", spec.cwd or ""
    yield "endpoint", spec.endpoint or ""
    yield "auth", spec.auth.token if spec.auth else ""
    yield from (("args", text) for text in spec.args)
    yield from (("env", text) for text in spec.env.values())
    yield from (("headers", text) for text in spec.headers.values())
    yield from (("paths", text) for text in (*spec.paths.read, *spec.paths.write))


def _numbers(spec: MountSpec) -> None:
    for member, seconds in (("timeout_secs", spec.timeout_secs), ("start_secs", spec.start_secs)):
        if seconds is not None and not (math.isfinite(seconds) and 1 <= seconds <= LONGEST_START):
            raise Invalid(f"{spec.name}: `{member}` must be from 1 to {LONGEST_START:g}")
    if spec.concurrency is not None and not 1 <= spec.concurrency <= MOST_AT_ONCE:
        raise Invalid(f"{spec.name}: `concurrency` must be from 1 to {MOST_AT_ONCE}")
    if spec.session not in (None, "shared", "client"):
        raise Invalid(f'{spec.name}: `session` must be "shared", "client" or left out')


def start_seconds(spec: MountSpec) -> float:
    """Deadline of a start, without the install."""
    return spec.start_secs or spec.timeout_secs or START_SECONDS


def directory(path: str, places: Places, *own: Path) -> Path:
    """The real directory behind `path`. Raises Invalid if it is none, Forbidden if nobody allowed it.

    What is not allowed is refused in the same words whether it exists or not: no telling what there is on the host.
    """
    if not path.startswith("/"):
        raise Invalid(f"directory {path[:200]!r} is not absolute")
    try:
        real = Path(path).resolve()
    except (OSError, RuntimeError):  # a loop of symlinks
        raise _closed(path) from None
    if not under(real, [root.resolve() for root in (places.files, *places.allowed, *own)]):
        raise _closed(path)
    if not real.is_dir():
        raise Invalid(f"directory {path[:200]!r} does not exist")
    return real


def named_files(args: Iterable[str], places: Places) -> list[Path]:
    """Files that a command line names, such as the script of `python3 /…/server.py`: they are shown although no `paths` names
    them, as long as somebody allowed their folder. Their neighbours are not."""
    roots = [root.resolve() for root in (places.files, *places.allowed)]
    return [Path(arg) for arg in args if arg.startswith("/") and "\0" not in arg and _is_file_under(Path(arg), roots)]


def unseen(args: Iterable[str], shown: Iterable[Path]) -> str:
    """Words about the first path in a command line that a door does not show; "" when there is none."""
    visible = [*shown, *(Path(top) for top in _SYSTEM)]
    for arg in args:
        if arg.startswith("/") and len(arg) > 1 and not under(Path(arg), visible):
            return f"it can't see {arg[:200]!r}: name its folder in `paths` (mcp add --read DIR), under what --allow-path opens"
    return ""


def _is_file_under(path: Path, roots: list[Path]) -> bool:
    try:
        return under(path.resolve(), roots) and path.is_file()
    except (OSError, RuntimeError):  # a loop of symlinks, a name that is too long
        return False


def under(path: Path, roots: Iterable[Path]) -> bool:
    return any(path == root or root in path.parents for root in roots)


def _closed(path: str) -> Forbidden:
    return Forbidden(
        f"directory {path[:200]!r} is not open to servers: only the project's files folder is, and what the operator opens "
        "with: rootlink up --allow-path DIR"
    )


def references(spec: MountSpec) -> set[str]:
    """Names of the secrets a spec refers to."""
    return {found[2] for _, text in _all_texts(spec) for found in _REFERENCE.finditer(text) if found[2]}


class Values(NamedTuple):
    """What references mean: the project's secrets, and folders of the engine's (`files`, `state`)."""

    secrets: Mapping[str, str]
    folders: Mapping[str, Path]


def fill(spec: MountSpec, values: Values) -> MountSpec:
    """`spec` with every reference replaced. Raises Invalid naming a secret that is not there."""

    def put(text: str) -> str:
        return _REFERENCE.sub(lambda found: _value(spec.name, found, values), text)

    filled = msgspec.structs.replace(
        spec,
        command=put(spec.command) if spec.command else None,
        args=[put(text) for text in spec.args],
        env={name: put(text) for name, text in spec.env.items()},
        cwd=put(spec.cwd) if spec.cwd else None,
        endpoint=put(spec.endpoint) if spec.endpoint else None,
        headers={name: put(text) for name, text in spec.headers.items()},
        auth=Auth(spec.auth.kind, put(spec.auth.token)) if spec.auth else None,
        paths=Paths([put(text) for text in spec.paths.read], [put(text) for text in spec.paths.write]),
    )
    _unbroken(filled)
    return filled


def filled(name: str, text: str, values: Values) -> str:
    """One text of the spec of `name`, with every reference replaced. Raises as `fill`."""
    return _REFERENCE.sub(lambda found: _value(name, found, values), text)


def _value(name: str, found: re.Match[str], values: Values) -> str:
    if found[2] is None:
        folder = values.folders.get(found[1].strip())
        if folder is None:
            raise Invalid(f"{name}: ${{{{{found[1][:40]}}}}} is not known; there are ${{{{files}}}} and ${{{{state}}}}")
        return str(folder)
    value = values.secrets.get(found[2])
    if value is None:
        raise Invalid(f"secret {found[2]} is not in this project's vault; set it with: rootlink secrets set {found[2]}")
    return value


def _unbroken(filled: MountSpec) -> None:
    """What a secret brought in may not break out of its header, variable or argument."""
    for member, text in _all_texts(filled):
        if "\0" in text or (member in ("headers", "auth", "endpoint") and re.search(r"[\r\n]", text)):
            raise Invalid(
                f"{filled.name}: a value for `{member}` holds a line break or NUL and cannot be sent; set the secret again"
            )


def headers(filled: MountSpec) -> dict[str, str]:
    """The headers of every request to a server elsewhere, credentials included."""
    return {**filled.headers, **(_CREDENTIAL[filled.auth.kind](filled.auth.token) if filled.auth else {})}


_CREDENTIAL: dict[str, Callable[[str], dict[str, str]]] = {
    "bearer": lambda token: {"Authorization": f"Bearer {token}"},
    "api_key": lambda token: {"X-API-Key": token},
}
