"""What a value that somebody pasted is: a credential, a folder, a place that was left to be filled in, a host to be reached.

A credential is known by its name or by its shape. A guess that is too careful costs a person a field that hides what they type;
one that is too bold would write a credential down as it is. So it is careful, but for what nobody would call one: numbers, yes
and no, names of models, UUIDs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

from rootlink.egress import hosts
from rootlink.errors import Invalid

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_LAST = {
    *("key", "apikey", "token", "secret", "password", "passwd", "passphrase", "passcode", "pwd", "pass"),
    *("credential", "credentials", "authorization", "auth", "cookie", "pat", "jwt", "bearer", "dsn", "sig", "signature"),
}
_ANYWHERE = {"apikey", "secret", "password", "credential", "credentials", "passphrase", "authorization"}
_NOT = ({"public", "key"}, {"secret", "name"}, {"auth", "type"}, {"auth", "mode"}, {"auth", "url"}, {"secret", "manager"})
_CONNECTION = ({"connection", "string"}, {"database", "url"}, {"db", "url"}, {"webhook", "url"})
_PREFIXES = re.compile(
    r"(sk|pk|rk|whsec)[-_][A-Za-z0-9_-]{12}|gh[opsur]_[A-Za-z0-9]{16}|github_pat_|glpat-|xox[a-z]-|xapp-|AKIA[A-Z0-9]{12}|AIza"
    r"|re_[A-Za-z0-9_]{8}|SG\.[A-Za-z0-9_-]{8}|npm_[A-Za-z0-9]{16}|pypi-[A-Za-z0-9_-]{16}|hf_[A-Za-z0-9]{12}|ntn_|secret_[A-Za-z0-9]"
    r"|sbp_|sb_secret_|BSA[A-Za-z0-9_-]{12}|tvly-|fc-[0-9a-f]{16}|lin_api_|figd_|shpat_|dop_v1_|ya29\.|eyJ[A-Za-z0-9_-]{8}|rl_sk_"
    r"|apify_api_|pplx-|gsk_[A-Za-z0-9]{12}|r8_[A-Za-z0-9]{12}|dapi[0-9a-f]{16}|EAA[A-Za-z0-9]{16}|ATATT|pat[A-Za-z0-9]{14}\."
)
_SCHEME = re.compile(r"(?P<scheme>bearer|basic|token|bot) +(?P<rest>\S+)\Z", re.IGNORECASE)
_PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY")
_HEX = re.compile(r"[0-9a-f]{32,}\Z", re.IGNORECASE)
_DENSE = re.compile(r"[A-Za-z0-9_\-+/=.~]{24,}\Z")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)
_PLAIN = re.compile(r"(true|false|yes|no|on|off|none|null|basic|oauth2?|bearer|[0-9]{1,9}([.][0-9]+)?)\Z", re.IGNORECASE)
_LEFT_OPEN = re.compile(
    r"<[^<>]+>\Z|\[[^\[\]]+\]\Z|\.{3}|…|x{3,}\Z|\*{3,}\Z"
    r"|(your|my|insert|enter|replace|change|put|example)[-_ .].*|.*[-_ ](here|goes[-_ ]here)\Z"
    r"|.*\b(your)[-_ ].*|.*[-_](xxx+|\.\.\.|…|\*{3,})\Z|.*(\.\.\.|…)\Z|change-?me\Z|todo\Z",
    re.IGNORECASE | re.DOTALL,
)
_PATH = re.compile(r"(/|~/|~\Z|\./|\.\./|[A-Za-z]:[\\/]|\$\{(HOME|userHome|workspaceFolder)\}|\$HOME\b|%[A-Z]+%)")
_ABSOLUTE = re.compile(r"/[^\0\n]*\Z")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s\"'<>]+")
PORTS = {"https": 443, "http": 80, "wss": 443, "ws": 80}
DEFAULT_PORTS = PORTS | {
    "postgres": 5432,
    "postgresql": 5432,
    "mysql": 3306,
    "mariadb": 3306,
    "redis": 6379,
    "rediss": 6379,
    "mongodb": 27017,
    "amqp": 5672,
    "amqps": 5671,
    "bolt": 7687,
    "neo4j": 7687,
}


def words(name: str) -> list[str]:
    """The words of a variable's, header's or option's name, in lower case."""
    return [word.lower() for word in _WORD.findall(name)]


def names_a_secret(name: str) -> bool:
    found = words(name)
    if not found or any(pair <= set(found) for pair in _NOT):
        return False
    return found[-1] in _LAST or bool(_ANYWHERE & set(found)) or any(pair <= set(found) for pair in _CONNECTION)


def is_secret(name: str, value: str) -> bool:
    """Whether a value under this name is to be sealed."""
    if _PLAIN.match(value.strip()) or is_path(value):
        return bool(_PRIVATE.search(value))
    return names_a_secret(name) or looks_secret(value)


def looks_secret(value: str) -> bool:
    text = value.strip()
    scheme = _SCHEME.match(text)
    if scheme is not None:
        return True
    if _PREFIXES.match(text) or _PRIVATE.search(text):
        return True
    if _URL.match(text):
        return url_holds_secret(text)
    if text.startswith(("{", "[")):  # JSON in a variable, with a credential somewhere inside
        return any(_SCHEME.search(part) or looks_secret(part) for part in re.findall(r'"([^"]*)"', text))
    if _UUID.match(text) or left_open(text):
        return False
    return bool(_HEX.match(text)) or _is_dense(text)


def url_holds_secret(url: str) -> bool:
    """A password before the host, a query that is called like a credential, or a path that is one."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return False
    if password and not left_open(password):
        return True
    if any(is_secret(name, value) and value and not left_open(value) for name, value in parse_qsl(parts.query)):
        return True
    return any(looks_secret(segment) for segment in parts.path.split("/") if segment)


def _is_dense(text: str) -> bool:
    """Random: long, of all kinds of characters, none of them often."""
    if not _DENSE.match(text) or not all(re.search(kind, text) for kind in ("[a-z]", "[A-Z]", "[0-9]")):
        return False
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts) >= 3.6


def shown(text: str) -> str:
    """As a message may quote it: short, and never what may be a credential in the wrong place."""
    return "…" if looks_secret(text) else hosts.escaped(text)


def left_open(value: str) -> bool:
    """A place for the person to fill in: `<your key>`, `YOUR_API_KEY`, `sk-...`."""
    return not value.strip() or bool(_LEFT_OPEN.match(value.strip()))


def is_path(value: str) -> bool:
    return bool(_PATH.match(value)) and "://" not in value


def is_absolute(value: str) -> bool:
    """Of this machine's own kind, and plainly one place."""
    return bool(_ABSOLUTE.match(value)) and ".." not in value.split("/") and "$" not in value


def is_folder(value: str) -> bool:
    """As far as its name tells: a last part with a suffix is a file."""
    return "." not in value.rstrip("/").rpartition("/")[2].lstrip(".")


def hosts_in(value: str) -> Iterator[str]:
    """The hosts of the URLs in a text, each as a rule of an allowlist; this machine's own are none."""
    for url in _URL.findall(value):
        found = host_of(url)
        if found is not None:
            yield found


def host_of(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme.lower())
        canonical = hosts.canonical(host)
    except (ValueError, Invalid):
        return None
    if port is None or canonical in ("localhost", "127.0.0.1", "::1", "0.0.0.0"):
        return None
    web = PORTS.get(parts.scheme.lower()) == port
    return str(hosts.Rule(canonical, None if web else port))
