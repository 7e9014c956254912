"""One request with the key to be checked, out by the connection's own way, and what its answer means.

Redirects are not followed: whoever is asked about a key answers itself, and a key goes to nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from rootlink.engine.checks import answers
from rootlink.engine.checks.filling import Filling
from rootlink.engine.checks.found import Found, unasked
from rootlink.engine.outbound import Scope, read_capped
from rootlink.engine.rpc import UNREADABLE
from rootlink.errors import Invalid, RootlinkError, TooLarge, UpstreamFailed
from rootlink.wire.checks import HttpCheck, Outcome

SECONDS = 10.0
MOST_BYTES = 1 << 20
_TOO_MANY = 429


async def asked(check: HttpCheck, scope: Scope, filling: Filling, redact: Callable[[str], str]) -> Found:
    """Raises Invalid with the words of an outcome under `errors`; UpstreamFailed, Unavailable, EgressBlocked when nothing came
    that says whether the key is good."""
    headers = filling.headers(check.headers)
    kind = next((value for name, value in headers.items() if name.lower() == "content-type"), None)
    body = None if check.body is None else filling.body(check.body, kind or "application/json")
    if body is not None and kind is None:
        headers["content-type"] = "application/json"
    try:
        async with scope.request(check.method, filling.url(check.url), headers=headers, data=body, timeout=SECONDS) as response:
            status, held = response.status, await read_capped(response, MOST_BYTES)
    except TooLarge:
        raise UpstreamFailed(f"Not checked, so not known to work: {_host(check)} answered with more than 1 MiB") from None
    except RootlinkError as error:
        raise unasked(error) from None
    return _meant(check, status, _json(held), redact)


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except UNREADABLE:
        return None


def _meant(check: HttpCheck, status: int, answer: Any, redact: Callable[[str], str]) -> Found:
    outcome = _outcome(check, status, answer)
    if outcome is None:
        raise _unknown(_host(check), status)
    if outcome in check.errors:
        said = answers.text(outcome.say, answer, redact) or f"{_host(check)} did not accept this key (HTTP {status})"
        raise UpstreamFailed(said) if _elsewhere(status) else Invalid(said)
    return Found(answers.text(outcome.label, answer, redact), answers.text(outcome.note, answer, redact))


def _outcome(check: HttpCheck, status: int, answer: Any) -> Outcome | None:
    """Of those that fit, the one that names most of the answer; of several, `errors` first, then their order."""
    fitting = [
        outcome
        for outcome in (*check.errors, *check.ok)
        if outcome.status in (None, status) and answers.holds(answer, outcome.json)
    ]
    return max(fitting, key=lambda outcome: len(outcome.json) + (outcome.status is not None), default=None)


def _unknown(host: str, status: int) -> UpstreamFailed:
    if _elsewhere(status):
        return UpstreamFailed(f"Not checked, so not known to work: {host} answered HTTP {status}; try again in a while")
    return UpstreamFailed(
        f"Not verified: {host} answered HTTP {status}, which is neither what it says to a good key nor to a bad one"
    )


def _elsewhere(status: int) -> bool:
    """Whether an answer says nothing of the key: the service is in trouble, or asked too often."""
    return status == _TOO_MANY or status >= 500


def _host(check: HttpCheck) -> str:
    return f"host '{urlsplit(check.url).hostname}'"
