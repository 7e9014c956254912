"""What is to be seen behind a door, as bubblewrap's arguments: the system, read-only; `/etc` reduced to what is no secret; a
fresh `/proc`, `/dev`, `/tmp`; then what this one was granted, each by descriptor. Everything else is not there.

Traps
- bubblewrap begins outside, where everything of the user's can be read, so the command's environment must not be its own: an
  LD_PRELOAD in there would run before there is any view. It gets an empty one, and sets the command's.
- Its arguments are read from a descriptor: a command line can be read by anybody on the machine, and pid 1's behind the door.
- bubblewrap reads a descriptor's content from its offset: one memory file serves one spawn.
- Later arguments cover earlier ones: parents come before what lies in them.
- `/etc/ssl` and `/etc/pki` hold private keys too: only what is public in them is shown.
- root needs no capability for its network namespace's sysctls, and bubblewrap covers `/proc/sys` only if it looks writable.
- Chromium speaks ECH, QUIC and its own DNS in spite of its flags; its managed policy turns them off.
"""

# ruff: noqa: PTH110, PTH112, PTH114, PTH115, PTH116, PTH118, PTH119, PTH120, PTH207
# (pathlib would be a third of the keeper's start)

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Sequence

from rootlink.door import paths
from rootlink.door.refused import Refused

HOSTNAME = "door"
_ETC = (
    "ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "ca-certificates", "ca-certificates.conf", "pki/ca-trust", "pki/tls/certs",
    "pki/tls/cert.pem", "pki/tls/openssl.cnf", "crypto-policies", "alternatives", "fonts", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "localtime", "timezone", "mime.types", "services", "protocols", "magic", "magic.mime",
    "chromium.d",  # Debian's wrapper reads it, and ends without it
)  # fmt: skip
_SIZES = {"/tmp": 1 << 30, "/run": 64 << 20, "/home": 256 << 20, "/root": 256 << 20, "/dev/shm": 512 << 20}  # noqa: S108 (in the view)
_POLICY_FOLDERS = ("/etc/chromium/policies/managed", "/etc/opt/chrome/policies/managed")
_POLICY = {
    "EncryptedClientHelloEnabled": False,
    "QuicAllowed": False,
    "DnsOverHttpsMode": "off",
    "BuiltInDnsClientEnabled": False,
}
_RESOLV = "nameserver 127.0.0.1\noptions timeout:5 attempts:2\n"
_HOSTS = f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost ip6-localhost ip6-loopback\n"
_NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n"
_MOST_ARGUMENTS = 9000  # bubblewrap's own limit
_LONGEST_TEXT = 32 * 4096  # MAX_ARG_STRLEN: the kernel's, of one argument or variable
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class View:
    """Of one machine; looked at once. `bwrap`: its path. `ca`: as in `Plan`."""

    def __init__(self, bwrap: str, ca: str | None) -> None:
        self._bwrap = bwrap
        self._ca = None if ca is None else os.path.join(os.path.realpath(os.path.dirname(ca)), os.path.basename(ca))
        self._ca_at = ca
        self._system = [*_system(), *_etc()]
        self._policy: tuple[object, bytes] = (None, b"")

    def argv(
        self,
        places: Iterable[paths.Place],
        links: dict[str, str],
        *,
        env: dict[str, str],
        home: str,
        cwd: str,
        seccomp: bytes,
        info: int,
        first: bool = False,
    ) -> tuple[list[str], list[int]]:
        """Up to and with `--`, and the descriptors of it that were opened here: the caller's to close, unlike `places`.
        Raises OSError; Refused for an environment that no command can be given.

        `env`: the command's. `home`: as passwd says it. `info`: where bubblewrap writes its pid 1. `first`: the engine, which is
        pid 1 itself.
        """
        fds: list[int] = []
        try:
            arguments = [*_environment(env), *self._argv(places, links, home, cwd, seccomp, info, first, fds)]
            if len(arguments) > _MOST_ARGUMENTS:
                raise Refused("invalid", "the command's environment and paths are more than bubblewrap takes: name fewer")
            fds.append(_memory(b"".join(os.fsencode(text) + b"\0" for text in arguments)))
            return [self._bwrap, "--args", str(fds[-1]), "--"], fds
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise

    def _argv(
        self,
        places: Iterable[paths.Place],
        links: dict[str, str],
        home: str,
        cwd: str,
        seccomp: bytes,
        info: int,
        first: bool,
        fds: list[int],
    ) -> list[str]:
        def file(data: bytes) -> str:
            fds.append(_memory(data))
            return str(fds[-1])

        argv = [
            *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
            *("--hostname", HOSTNAME, "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
            *(["--as-pid-1"] if first else []),
            *("--info-fd", str(info), "--seccomp", file(seccomp)),
            *self._system,
            *("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev"),
        ]
        for at, size in _SIZES.items():
            argv += ["--perms", "1777" if at in ("/tmp", "/dev/shm") else "0755", "--size", str(size), "--tmpfs", at]  # noqa: S108
        argv += ["--dir", "/var", "--symlink", "../tmp", "/var/tmp"]  # noqa: S108
        for at, text in _accounts(home).items():
            argv += ["--perms", "0644", "--file", file(text.encode()), at]
        ca = None if first else self._bundle()  # the engine writes it
        for folder in _POLICY_FOLDERS:
            argv += ["--perms", "0644", "--file", file(self._chromium(ca)), f"{folder}/rootlink.json"]
        if ca is not None:
            fds.append(ca.fd)
            places = [*places, ca]
        argv += _binds(places)
        for at, target in links.items():
            argv += ["--symlink", target, at]
        return [*argv, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", cwd]

    def _bundle(self) -> paths.Place | None:
        """Only the file itself: a link in its place could show any file of this user's."""
        return None if self._ca is None else paths.exactly(self._ca, self._ca_at)

    def _chromium(self, ca: paths.Place | None) -> bytes:
        if ca is None:
            return json.dumps(_POLICY).encode()
        path = f"/proc/self/fd/{ca.fd}"
        state = os.stat(path)
        known = (state.st_ino, state.st_mtime_ns, state.st_size)
        if self._policy[0] != known:
            with open(path, encoding="ascii", errors="replace") as bundle:
                self._policy = (known, json.dumps({**_POLICY, "CACertificates": _certificates(bundle.read())}).encode())
        return self._policy[1]


def _system() -> list[str]:
    argv = []
    for folder in paths.SYSTEM:
        if os.path.islink(folder):
            argv += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            argv += ["--ro-bind", folder, folder]
    return argv


def _etc() -> list[str]:
    """Links are shown as what they lead to: `/etc/ssl/cert.pem` and `/etc/localtime` are links on some systems."""
    extra = [os.path.basename(path) for path in glob.glob("/etc/ca-certificates*")]
    argv = ["--dir", "/etc", "--dir", "/etc/ssl", "--dir", "/etc/pki"]
    for name in dict.fromkeys([*_ETC, *extra]):
        path = f"/etc/{name}"
        if os.path.exists(path):
            argv += ["--ro-bind-try", path, path]
    return argv


def _accounts(home: str) -> dict[str, str]:
    uid, gid = os.getuid(), os.getgid()
    users, groups = ["nobody:x:65534:65534:nobody:/:/bin/false"], ["nogroup:x:65534:"]
    if uid != 65534:
        users.insert(0, f"{'user' if uid else 'root'}:x:{uid}:{gid}::{home}:/bin/sh")
    if gid != 65534:
        groups.insert(0, f"{'user' if gid else 'root'}:x:{gid}:")
    return {
        "/etc/passwd": "\n".join(users) + "\n",
        "/etc/group": "\n".join(groups) + "\n",
        "/etc/resolv.conf": _RESOLV,
        "/etc/hosts": _HOSTS,
        "/etc/nsswitch.conf": _NSSWITCH,
    }


def _environment(env: dict[str, str]) -> list[str]:
    """Raises Refused: the kernel would not start a command with it."""
    if any(len(os.fsencode(name)) + len(os.fsencode(value)) + 2 > _LONGEST_TEXT for name, value in env.items()):
        raise Refused("upstream_failed", "the command's arguments and environment are longer than the system allows")
    return [word for name, value in env.items() for word in ("--setenv", name, value)]


def _binds(places: Iterable[paths.Place]) -> list[str]:
    """Parents first; of two for one path the writable one; nothing twice."""
    argv: list[str] = []
    chosen: dict[str, paths.Place] = {}
    for place in places:
        if place.at not in chosen or place.write:
            chosen[place.at] = place
    for at in sorted(chosen, key=lambda path: (path.count("/"), path)):
        argv += ["--bind-fd" if chosen[at].write else "--ro-bind-fd", str(chosen[at].fd), at]
    return argv


def _certificates(bundle: str) -> list[str]:
    """DER in base64, each once."""
    blocks = bundle.split(_BEGIN)[1:]
    return list(dict.fromkeys("".join(block.split(_END)[0].split()) for block in blocks))


def _memory(data: bytes) -> int:
    fd = os.memfd_create("door", os.MFD_CLOEXEC)
    try:
        _all(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _all(fd: int, data: Sequence[int] | bytes) -> None:
    left = memoryview(bytes(data))
    while left:
        left = left[os.write(fd, left) :]
