"""Which host and port a URL leads to, when the URL is a value that somebody gave.

It is read strictly, because whatever opens the connection reads it once more, in a way of its own: one host, named before the
first '/', and nothing that another reader could take for a host. The value may be a secret, so no message repeats any of it.
"""

from __future__ import annotations

import re
from typing import NoReturn
from urllib.parse import unquote

from rootlink.egress import hosts
from rootlink.egress.hosts import Rule
from rootlink.errors import Invalid

_PORTS = {"https": 443, "http": 80, "postgres": 5432, "postgresql": 5432}
_FORM = re.compile(r"(?P<scheme>[a-z]+)://(?P<rest>.*)\Z", re.DOTALL)
_ELSEWHERE = {"host", "hostaddr", "port", "service", "servicefile"}  # libpq: parameters that win over what stands before the '/'


def of(field: str, url: str) -> Rule:
    """Raises `Invalid` naming the field, and what to write instead."""
    form = _FORM.match(url)
    if form is None or form["scheme"] not in _PORTS:
        _refuse(field, f"must be a URL that begins with one of {', '.join(f'{scheme}://' for scheme in _PORTS)}")
    end = next((index for index, char in enumerate(form["rest"]) if char in "/?#"), len(form["rest"]))
    authority, after = form["rest"][:end], form["rest"][end:]
    if "@" in after and "@" not in authority:
        _refuse(field, "has a '/', '?' or '#' in its user or password: write %2F, %3F or %23 instead")
    if "\\" in authority:  # which some readers take for a '/'
        _refuse(field, "has a '\\' in its user, password or host: write %5C instead")
    _no_other_host(field, after.partition("?")[2])
    host, port = _host_and_port(field, authority.rpartition("@")[2])
    try:
        return Rule(hosts.canonical(host), _PORTS[form["scheme"]] if port is None else hosts.port(port))
    except Invalid:
        _refuse(field, "must name one plain host, like db.example.com, and a port from 1 to 65535 or none")


def _no_other_host(field: str, query: str) -> None:
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if unquote(name).strip().lower() in _ELSEWHERE:
            if unquote(value).startswith(("/", "@")):
                _refuse(field, "names a unix socket, which is no place on a network: name a host and port before the '/'")
            _refuse(field, "names its host, port or service after the '?': name one host and port before the '/'")


def _host_and_port(field: str, text: str) -> tuple[str, str | None]:
    if "," in text:
        _refuse(field, "names several hosts: give the one that is to be used")
    if not text or text.startswith(":"):
        _refuse(field, "names no host, which would be a unix socket of this machine: name a host before the '/'")
    if unquote(text).startswith(("/", "@")):
        _refuse(field, "names a unix socket, which is no place on a network: name a host and port")
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if rest and not rest.startswith(":"):
            _refuse(field, "has something between its address and its port: write [ADDRESS]:PORT")
        return host + bracket, rest[1:] or None
    host, _, port = text.partition(":")
    return host, port or None


def _refuse(field: str, why: str) -> NoReturn:
    raise Invalid(f"{field} {why}", data={"field": field})


def site(field: str, text: str) -> str:
    """A rule of an allowlist, from a host as people write one: `docs.example.com`, `10.0.0.1:8080`, or the URL of a page there.
    Raises `Invalid`; these are no secrets, but no message repeats them either."""
    if "://" in text and not any(char.isspace() for char in text):
        return _short(of(field, text))
    try:
        return str(hosts.rule(text.rstrip("/")))
    except Invalid:
        _refuse(field, "must name hosts, like docs.example.com or shop.example.com:8080, or pages there; '*' is not needed")


def _short(rule: Rule) -> str:
    return str(Rule(rule.host, None) if rule.port in hosts.WEB_PORTS else rule)
