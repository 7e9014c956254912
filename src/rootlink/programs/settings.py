"""Every setting, where it may come from, and what is in force: the one reader of the process's environment.

    flag  >  ROOTLINK_… environment variable  >  rootlink.toml in the home  >  default

`SETTINGS` is the whole list; nothing else in Rootlink is configurable. A value that can't be is refused when it is read, with
the name of its source, never later. Reading changes nothing on disk; `prepare()` makes the home.

    <home>/control/rootlink.db      admin-token (0600)     rootlink.toml
           vault/seal.key           vault-public/seal.pub
           run/{rootlink,gateway,provisioner,gate}.json    run/{up,provisioner}.lock
           logs/  store/  projects/<id>/{files,engine}/
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from blake3 import blake3

from rootlink.egress import hosts
from rootlink.errors import Forbidden, Invalid, Unavailable
from rootlink.names import project_name, workspace_name

Value = Any  # what a flag, a TOML member or the text of a variable holds, before its parser saw it

# What a package installer or a TLS library may need of the operator's environment; nothing else reaches an engine.
_ENGINE_EXACT = frozenset(
    ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]
    + [name for proxy in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (proxy, proxy.upper())]
)
_ENGINE_PREFIXES = ("NPM_CONFIG_", "npm_config_", "UV_", "PIP_", "SSL_CERT_")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\Z")
_UNITS = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATE = re.compile(r"(\d{1,12})\s*([KMG]?)\Z", re.IGNORECASE)
_SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_PIN = re.compile(r"([A-Za-z0-9.-]+):(\d{1,5})=(\[[0-9A-Fa-f:.]+\]|[0-9.]+):(\d{1,5})\Z")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


# parsers: each takes a raw value and returns the setting's, or raises ValueError saying what it must be


def _text(value: Value) -> str:
    if not isinstance(value, str | Path) or not str(value).strip():
        raise ValueError("must be a text that is not empty")
    return str(value).strip()


def _directory(value: Value) -> Path:
    return Path(_text(value)).expanduser().absolute()


def _existing(value: Value) -> Path:
    path = _directory(value)
    if not path.is_dir():
        raise ValueError(f"must be an existing directory; there is none at {path}")
    return path


def _file(value: Value) -> str:
    path = Path(_text(value)).expanduser().absolute()
    if not path.is_file():
        raise ValueError(f"must be an existing file; there is none at {path}")
    if b"-----BEGIN CERTIFICATE-----" not in path.read_bytes():
        raise ValueError(f"must hold certificates in PEM form; {path} holds none")
    return str(path)


def _port(value: Value) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isdigit() or int(text) > 65535:
        raise ValueError("must be a port from 0 to 65535 (0 picks a free one)")
    return int(text)


def _whole(value: Value) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isdigit():
        raise ValueError("must be a whole number, 0 or more")
    return int(text)


def _flag(value: Value) -> bool:
    text = str(value).lower()
    if text not in _TRUE + _FALSE:
        raise ValueError("must be true or false")
    return text in _TRUE


def _seconds(value: Value) -> float:
    found = _DURATION.match(str(value).strip())
    if isinstance(value, bool) or not found:
        raise ValueError("must be a time such as 90, 90s, 15m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def _list(one: Callable[[str], str], separator: str = ",") -> Callable[[Value], tuple[str, ...]]:
    def parse(value: Value) -> tuple[str, ...]:
        items = value.split(separator) if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ValueError("must be a list")
        return tuple(one(_text(item)) for item in items if not isinstance(item, str) or item.strip())

    return parse


def _pin(value: str) -> str:
    found = _PIN.match(value)
    if not found or not all(0 < int(port) <= 65535 for port in (found[2], found[4])):
        raise ValueError("must look like NAME:PORT=ADDRESS:PORT, for example api.example:443=127.0.0.1:8443")
    ipaddress.ip_address(found[3].strip("[]"))
    return value


def _cidr(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise ValueError("must be a network such as 10.1.0.0/16 or an address") from None


def _allowed_path(value: str) -> str:
    path = Path(value).expanduser().absolute()
    if not path.is_dir():
        raise ValueError(f"must be an existing directory; there is none at {path}")
    return str(path.resolve() if ".." in path.parts else path)  # as people spell it, links and all


def _sandbox(value: Value) -> str:
    if value not in ("kernel", "advisory"):
        raise ValueError("must be 'kernel' or 'advisory'")
    return str(value)


def _rate(value: Value) -> int:
    found = _RATE.match(str(value).strip())
    if isinstance(value, bool) or not found:
        raise ValueError("must be bytes a second, such as 500000, 500K or 10M (0: no limit)")
    return int(found[1]) * _SIZES[found[2].upper()]


def _host(value: str) -> str:
    try:
        return str(hosts.rule(value))
    except Invalid as error:
        raise ValueError(f"must be hosts: {error.message}") from None


def _level(value: Value) -> str:
    text = str(value).lower()
    if text not in ("debug", "info", "warning", "error"):
        raise ValueError("must be one of debug, info, warning, error")
    return text


def _database(value: Value) -> str:
    text = _text(value)
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql://")
    return text


def _named(rule: Callable[[object], str]) -> Callable[[Value], str]:
    def parse(value: Value) -> str:
        try:
            return rule(value)
        except Invalid as error:
            raise ValueError(error.message) from None

    return parse


def _url(value: Value) -> str:
    text = _text(value).rstrip("/")
    if not text.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return text


class Setting(NamedTuple):
    """`secret`: never shown, and never taken from a flag (argv is public)."""

    name: str
    parse: Callable[[Value], Any]
    default: Any
    help: str
    secret: bool = False

    @property
    def variable(self) -> str:
        return f"ROOTLINK_{self.name.upper()}"

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


SETTINGS = (
    Setting("home", _directory, None, "where everything is kept"),
    Setting("host", _text, "127.0.0.1", "address the gateway listens on"),
    Setting("port", _port, 7300, "port the gateway listens on; 0 picks a free one"),
    Setting("detach", _flag, False, "go to the background once ready"),
    Setting("resolve", _list(_pin), (), "pin a name to an address: NAME:PORT=ADDRESS:PORT"),
    Setting("extra_ca", _file, None, "file with CA certificates to trust besides the system's"),
    Setting("allow_private", _list(_cidr), (), "private network that projects may reach if their allowlist names it"),
    Setting("allow_path", _list(_allowed_path, os.pathsep), (), "directory of this machine that mounts may ask for"),
    Setting("catalog", _existing, None, "directory of connectors of your own; one takes the place of the built-in of its name"),
    Setting("package_store", _directory, None, "one store of packages for all projects, which then trust each other"),
    Setting("sandbox", _sandbox, "kernel", "how engines and mounts are kept in: kernel or advisory"),
    Setting("egress_rate", _rate, 0, "bytes a second of one engine or mount through the gate, such as 10M; 0: no limit"),
    Setting("package_hosts", _list(_host), (), "hosts of package registries besides those npm and uv are configured for"),
    Setting("database_url", _database, None, "postgresql://… for the control plane; else SQLite in the home", secret=True),
    Setting("idle_stop", _seconds, 900.0, "stop an engine nobody used for so long, such as 15m; 0: never"),
    Setting("rate_limit", _whole, 200, "requests a second for one project key; 0: no limit"),
    Setting("allowed_hosts", _list(_text), (), "names this server is reached by besides its own address"),
    Setting("log_level", _level, "info", "debug, info, warning or error"),
    Setting("token", _text, None, "credential for a remote server", secret=True),
    Setting("url", _url, None, "a remote server"),
    Setting("project", _named(project_name), None, "project to work on"),
    Setting("ws", _named(workspace_name), "main", "workspace to work in"),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds, paths absolute. `sources`: where each setting came from, in words. `environ`: what engines get."""

    home: Path
    host: str
    port: int
    detach: bool
    resolve: tuple[str, ...]
    extra_ca: str | None
    allow_private: tuple[str, ...]
    allow_path: tuple[str, ...]
    catalog: Path | None
    package_store: Path | None
    sandbox: Literal["kernel", "advisory"]
    egress_rate: int
    package_hosts: tuple[str, ...]
    database_url: str | None = field(repr=False)
    idle_stop: float
    rate_limit: int
    allowed_hosts: tuple[str, ...]
    log_level: str
    token: str | None = field(repr=False)
    url: str | None
    project: str | None
    ws: str
    sources: Mapping[str, str] = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)

    @classmethod
    def load(cls, flags: Mapping[str, Value] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
        """What is in force. `flags` by setting name; None, False and an empty list: not given. Raises Invalid with the source."""
        given = {name: value for name, value in (flags or {}).items() if not _absent(value)}
        variables = os.environ if environ is None else environ
        _known(given, "flag")
        home, source = _home(given, variables)
        document = _toml(home / "rootlink.toml")
        values: dict[str, Any] = {"home": home}
        sources = {"home": source}
        for setting in SETTINGS[1:]:
            raw, source = _found(setting, given, variables, document)
            values[setting.name] = setting.default if source == "default" else _parsed(setting, raw, source)
            sources[setting.name] = source
        return cls(**values, sources=sources, environ=_for_engines(variables))

    @property
    def store_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'control' / 'rootlink.db'}"

    @property
    def admin_token_file(self) -> Path:
        return self.home / "admin-token"

    @property
    def private_key_file(self) -> Path:
        return self.home / "vault" / "seal.key"

    @property
    def public_key_file(self) -> Path:
        return self.home / "vault-public" / "seal.pub"

    @property
    def run_dir(self) -> Path:
        return self.home / "run"

    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"

    @property
    def runtime_dir(self) -> Path:
        return runtime_path(self.home)

    @property
    def provisioner_socket(self) -> Path:
        return self.runtime_dir / "provisioner.sock"

    @property
    def gate_socket(self) -> Path:
        return self.runtime_dir / "gate.sock"

    def prepare(self) -> None:
        """Make the home and its directories, all 0700. Raises Unavailable when it can't."""
        try:
            for name in ("", "control", "vault", "vault-public", "run", "logs", "projects"):
                (self.home / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"the home {self.home} can't be made: {error.strerror}; choose another with --home") from None

    def shown(self) -> dict[str, dict[str, Any]]:
        """Of each setting its value and source, for `doctor`; secrets only as set or not."""
        return {
            s.name: {
                "value": ("set" if getattr(self, s.name) else None) if s.secret else _plain(getattr(self, s.name)),
                "source": self.sources[s.name],
            }
            for s in SETTINGS
        }

    def flags(self) -> list[str]:
        """The flags that make a child program read these same settings: those given as flags, and the home always."""
        given = ["--home", str(self.home)]
        for setting in SETTINGS:
            if self.sources[setting.name].startswith("flag") and setting.name not in ("home", "detach"):
                value = getattr(self, setting.name)
                items = value if isinstance(value, tuple) else (value,)
                given += [part for item in items for part in (setting.flag, str(item))]
        return given


def _absent(value: Value) -> bool:
    return value is None or value is False or (isinstance(value, list | tuple) and not value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def _home(flags: Mapping[str, Value], environ: Mapping[str, str]) -> tuple[Path, str]:
    raw, source = _found(BY_NAME["home"], flags, environ, {})
    if source != "default":
        return _parsed(BY_NAME["home"], raw, source), source
    data = environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser().absolute() / "rootlink", "default"


def _found(
    setting: Setting, flags: Mapping[str, Value], environ: Mapping[str, str], document: Mapping[str, Value]
) -> tuple[Value, str]:
    if setting.name in flags and not setting.secret:
        return flags[setting.name], f"flag {setting.flag}"
    if environ.get(setting.variable):
        return environ[setting.variable], f"environment {setting.variable}"
    if setting.name in document:
        return document[setting.name], "rootlink.toml"
    return None, "default"


def _parsed(setting: Setting, raw: Value, source: str) -> Any:
    try:
        return setting.parse(raw)
    except ValueError as error:
        said = ", ".join(map(str, raw)) if isinstance(raw, list | tuple) else str(raw)
        shown = "" if setting.secret else f" {said[:100]!r}"
        raise Invalid(f"{source}: {setting.name}{shown} {error}") from None


def _toml(path: Path) -> dict[str, Value]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        raise Invalid(f"the home {path.parent} is not a directory; choose another with --home") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} can't be read: {error}") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{path} is not TOML: {error}") from None
    document = {name.replace("-", "_"): value for name, value in document.items()}
    _known(document, str(path))
    if "home" in document:
        raise Invalid(f"{path}: home can't be set in the file that lies in it; use --home or ROOTLINK_HOME")
    return document


def _known(given: Mapping[str, Value], source: str) -> None:
    for name in given:
        if name not in BY_NAME:
            near = difflib.get_close_matches(name, BY_NAME, 1)
            raise Invalid(f"{source}: there is no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _for_engines(environ: Mapping[str, str]) -> dict[str, str]:
    passed = {name: value for name, value in environ.items() if name in _ENGINE_EXACT or name.startswith(_ENGINE_PREFIXES)}
    return {"PATH": os.defpath, "LANG": "C.UTF-8", **passed}


def from_argv(argv: list[str]) -> Settings:
    """The settings of a program started by `up`: flags as `Settings.flags` writes them, nothing cleverer. Raises Invalid."""
    flags: dict[str, Any] = {}
    words = iter(argv)
    for word in words:
        name = word.removeprefix("--").replace("-", "_")
        value = next(words, None)
        if not word.startswith("--") or value is None:
            raise Invalid(f"{word}: give settings as --name value")
        many = name in BY_NAME and isinstance(BY_NAME[name].default, tuple)
        flags[name] = [*flags.get(name, []), value] if many else value
    return Settings.load(flags)


def runtime_path(home: Path) -> Path:
    """Where the unix sockets of this home are: a path short enough for the 108 bytes such an address may have."""
    return Path("/tmp") / f"rootlink-{os.getuid()}-{blake3(os.fsencode(home.resolve())).hexdigest()[:16]}"


def runtime_dir(home: Path) -> Path:
    """`runtime_path`, made if need be. Raises Forbidden when something else is there: its sockets would be another's."""
    path = runtime_path(home)
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
    except OSError as error:
        raise Unavailable(f"the folder for sockets {path} can't be made: {error.strerror}") from None
    wrong = _not_private(found)
    if wrong:
        raise Forbidden(f"{path} must be a directory of this user with mode 0700, but {wrong}: remove it and start again")
    return path


def _not_private(found: os.stat_result) -> str | None:
    if stat.S_ISLNK(found.st_mode):
        return "a symbolic link is there"
    if not stat.S_ISDIR(found.st_mode):
        return "a file is there"
    if found.st_uid != os.getuid():
        return f"the one there belongs to user {found.st_uid}"
    mode = stat.S_IMODE(found.st_mode)
    return f"the one there has mode {mode:04o}" if mode != 0o700 else None
