"""A known secret is not in text any more, in whatever form the text carried it."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlink.redaction import SHORTEST, Redactor

AWKWARD = 'p@ss/w+rd "ünï" \\x'


def written(secret: str) -> dict[str, str]:
    raw = secret.encode()
    encoders = {"base64": base64.b64encode, "base64url": base64.urlsafe_b64encode}
    encoded = {f"{name} at {n}": encode(b"u" * n + raw + b"tail").decode() for name, encode in encoders.items() for n in range(3)}
    return encoded | {
        "raw": secret,
        "hex": raw.hex(),
        "upper hex": raw.hex().upper(),
        "url": quote(secret, safe=""),
        "form": quote_plus(secret),
        "json in ascii": json.dumps(secret),
        "json": json.dumps(secret, ensure_ascii=False),
        "json in html": json.dumps(secret).replace("/", "\\/"),
        "repr": repr({"k": secret}),
    }


@pytest.mark.parametrize("secret", [AWKWARD, "sk_live_0123456789abcdef", "a" * 7, "xyzzy42"])
@pytest.mark.parametrize("form", written(AWKWARD))
def test_a_known_secret_is_hidden_in_every_form(secret: str, form: str) -> None:
    text = written(secret)[form]
    hidden = Redactor({"NAME": secret})(f"before {text} after")
    assert "[secret NAME]" in hidden
    assert text not in hidden
    assert hidden.startswith("before ")
    assert hidden.endswith(" after")


@given(st.text(min_size=SHORTEST), st.text(), st.text())
def test_no_secret_long_enough_is_left(value: str, before: str, after: str) -> None:
    mark = "[secret NAME]"
    if value in mark or any(value in f"{mark}{other}" or value in f"{other}{mark}" for other in (before, after)):
        return
    assert value not in Redactor({"NAME": value})(before + value + after)


def test_values_too_short_do_not_blank_out_innocent_text() -> None:
    assert Redactor(["a", "12", "true", ""])("a 12 true") == "a 12 true"


def test_the_longer_of_two_secrets_is_hidden_whole() -> None:
    assert Redactor({"SHORT": "abcde", "LONG": "abcdefgh"})("abcdefgh") == "[secret LONG]"


def test_what_was_a_secret_once_stays_hidden() -> None:
    redactor = Redactor({"NAME": "first-value"})
    redactor.learn({"NAME": "second-value"})
    assert redactor("first-value second-value") == "[secret NAME] [secret NAME]"


def test_nothing_known_nothing_changed() -> None:
    assert Redactor()("hello") == "hello"
