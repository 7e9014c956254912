"""Runs npm and uv: their own session, an environment built from nothing, a deadline, and errors in words.

Their environment is the one place where the user's own settings for package registries apply (mirrors, proxies, CAs): the
variables named below and the user's npmrc and uv.toml. A mount's program never sees any of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rootlink.errors import RootlinkError, Unavailable, UpstreamFailed

_PREFIXES = ("npm_config_", "uv_")
_NAMES = frozenset(
    {
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "ssl_cert_file",
        "ssl_cert_dir",
        "node_extra_ca_certs",
        "lang",
        "lc_all",
    }
)
_PIP_AS_UV = {"PIP_INDEX_URL": "UV_DEFAULT_INDEX", "PIP_EXTRA_INDEX_URL": "UV_INDEX", "PIP_FIND_LINKS": "UV_FIND_LINKS"}
KEPT_OUTPUT = 64 * 1024
_SHOWN_LINES = 6
_USERINFO = re.compile(r"//[^/@\s]+@")
_NOISE = re.compile(
    r"npm (?:warn|notice)|npm error (?:A complete log|/|\S*\s*$|\S+ +(?:Note that you can|tarball, folder))|\s*$", re.IGNORECASE
)
_UNREACHABLE = (
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT|ENOTCACHED"
    r"|error sending request|dns error|connection refused|failed to (?:connect|fetch)|timed? ?out"
    r"|network (?:connectivity|was disabled)"
)
_CAUSES: Sequence[tuple[str, type[RootlinkError], str]] = (  # in the words of npm 11 and uv 0.13; the first that matches is told
    (r"EINTEGRITY|hash mismatch", UpstreamFailed, "{title}: what was delivered is not what the lock says (integrity mismatch)"),
    (r"ETARGET|no matching version|there is no version of", UpstreamFailed, "{registry} has no such version of {title}"),
    (r"E404|was not found in the (?:package )?registry", UpstreamFailed, "{registry} has no package {title}"),
    (
        r"no wheels|no usable wheels|building .*is disabled",
        UpstreamFailed,
        "{title} has no prebuilt package for this machine, {unbuilt}",
    ),
    (r"does not satisfy Python|requires-python|requires Python", UpstreamFailed, "{title} does not run on this Python"),
    (r"E401|E403|401 Unauthorized|403 Forbidden", UpstreamFailed, "the package registry refused the request for {title}"),
    (_UNREACHABLE, UpstreamFailed, "the package registry cannot be reached, and {title} is not in the store yet"),
    (r"ENOSPC|no space left", Unavailable, "the disk of the package store is full"),
)
_UNBUILT = "and building one would run its code at install time"


class Run(Protocol):
    """Runs an installer (`run`, or `kept.KeptInstalls`): the standard output of a run that succeeded.

    Raises `UpstreamFailed` or `Unavailable` in words, with the last lines it wrote. Cancelling ends all of it.
    """

    async def __call__(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], registry: str, title: str) -> str: ...


def environment(environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """The environment of an installer: the user's settings for registries, a home of its own, and nothing else."""
    kept = {name: value for name, value in environ.items() if name.lower().startswith(_PREFIXES) or name.lower() in _NAMES}
    for theirs, ours in _PIP_AS_UV.items():
        if theirs in environ and ours not in kept:
            kept[ours] = environ[theirs]
    own_home = Path(environ.get("HOME") or "/nonexistent")
    if not any(name.lower() == "npm_config_userconfig" for name in kept):
        kept["npm_config_userconfig"] = str(own_home / ".npmrc")
    kept.setdefault("XDG_CONFIG_HOME", environ.get("XDG_CONFIG_HOME") or str(own_home / ".config"))
    kept.update(HOME=str(home), PATH=os.defpath)
    return kept


async def run(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], registry: str, title: str) -> str:
    """A `Run` as a child of ours, in a process group of its own."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=cwd,
        env=dict(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        out, err = await asyncio.gather(_tail(process.stdout), _tail(process.stderr))
        code = await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
        raise
    if code != 0:
        raise failure(f"{err}\n{out}", registry=registry, title=title)
    return out


async def _tail(stream: asyncio.StreamReader) -> str:
    kept = b""
    while part := await stream.read(KEPT_OUTPUT):
        kept = (kept + part)[-KEPT_OUTPUT:]
    return kept.decode("utf-8", "replace")


def failure(output: str, *, registry: str, title: str) -> RootlinkError:
    """The error for what a failed run wrote."""
    last = last_lines(output)
    for pattern, kind, words in _CAUSES:
        if re.search(pattern, output, re.IGNORECASE):
            return kind(f"{words.format(registry=registry, title=title, unbuilt=_UNBUILT)}\n{last}".strip())
    return UpstreamFailed(f"installing {title} failed\n{last}".strip())


def last_lines(output: str) -> str:
    """The last telling lines, without the credentials a registry's URL may hold."""
    lines = [line.rstrip() for line in output.splitlines() if not _NOISE.match(line)]
    return _USERINFO.sub("//…@", "\n".join(lines[-_SHOWN_LINES:]))
