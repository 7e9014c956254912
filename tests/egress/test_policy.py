"""The decision: verdict, reason, and words that say the rule and what to do."""

from __future__ import annotations

import pytest

from rootlink.egress import hosts
from rootlink.egress.policy import Pin, Policy
from rootlink.errors import EgressBlocked, Invalid

POLICY = Policy.parse(
    ["api.resend.com", "example.com", "db.example.org:5432", "127.0.0.1", "10.1.2.3:8080", "8.8.8.8", "[2606:4700::1]:8443"],
    private=["10.1.0.0/16"],
    resolve=["pinned.example.com:443=127.0.0.1:8443"],
)

CASES = {  # sentence: host, port, the connection's own hosts, reason
    "an allowed host on 443": ("api.resend.com", 443, None, "in_allowlist"),
    "an allowed host on 80": ("api.resend.com", 80, None, "in_allowlist"),
    "a subdomain of an allowed host": ("eu.api.resend.com", 443, None, "in_allowlist"),
    "an allowed host in capitals with a trailing dot": ("API.RESEND.COM.", 443, None, "in_allowlist"),
    "a port that the rule names": ("db.example.org", 5432, None, "in_allowlist"),
    "a public address that is listed": ("8.8.8.8", 443, None, "in_allowlist"),
    "a public IPv6 address and port that are listed": ("[2606:4700::1]", 8443, None, "in_allowlist"),
    "a private address that the operator opened": ("10.1.2.3", 8080, None, "in_allowlist"),
    "a pinned name": ("pinned.example.com", 443, None, "pinned"),
    "a pinned name on another port is not pinned": ("pinned.example.com", 80, None, "in_allowlist"),
    "one of the connection's own hosts": ("api.resend.com", 443, ["api.resend.com"], "in_allowlist"),
    "a host under the connection's own hosts": ("eu.api.resend.com", 443, ["resend.com"], "in_allowlist"),
    "a host of another connection": ("api.resend.com", 443, ["example.com"], "not_in_connection"),
    "any host for a connection without hosts": ("api.resend.com", 443, [], "not_in_connection"),
    "the connection's own host that the project does not allow": ("api.github.com", 443, ["api.github.com"], "not_in_allowlist"),
    "a host that is not listed": ("evil.example", 443, None, "not_in_allowlist"),
    "a name that ends alike": ("evilapi.resend.com", 443, None, "not_in_allowlist"),
    "an allowed name continued": ("api.resend.com.evil.com", 443, None, "not_in_allowlist"),
    "a dot replaced by a letter": ("apixresend.com", 443, None, "not_in_allowlist"),
    "the parent domain": ("resend.com", 443, None, "not_in_allowlist"),
    "a bare top-level domain": ("com", 443, None, "not_in_allowlist"),
    "a homoglyph of an allowed name": ("api.resеnd.com", 443, None, "not_in_allowlist"),  # Cyrillic е
    "the punycode of another name": ("xn--api-5cd.resend.xn--com", 443, None, "not_in_allowlist"),
    "localhost": ("localhost", 443, None, "not_in_allowlist"),
    "a name under localhost": ("x.localhost", 443, None, "not_in_allowlist"),
    "another name of loopback": ("ip6-localhost", 443, None, "not_in_allowlist"),
    "a cloud's metadata name": ("metadata.google.internal", 80, None, "not_in_allowlist"),
    "the container host's name": ("host.docker.internal", 80, None, "not_in_allowlist"),
    "a name that spells an address": ("127.0.0.1.nip.io", 443, None, "not_in_allowlist"),
    "the metadata address": ("169.254.169.254", 80, None, "not_in_allowlist"),
    "IPv6 loopback": ("[::1]", 443, None, "not_in_allowlist"),
    "a loopback address that is listed": ("127.0.0.1", 443, None, "private_address"),
    "another port": ("api.resend.com", 22, None, "port"),
    "the mail port": ("api.resend.com", 25, None, "port"),
    "port zero": ("api.resend.com", 0, None, "port"),
    "a port above 65535": ("api.resend.com", 65536, None, "port"),
    "443 where the rule names another port": ("db.example.org", 443, None, "port"),
    "a port that the connection's own rule does not open": ("db.example.org", 5432, ["db.example.org"], "port"),
    "two trailing dots": ("api.resend.com..", 443, None, "bad_host"),
    "a short address": ("127.1", 443, None, "bad_host"),
    "a decimal address": ("2130706433", 443, None, "bad_host"),
    "a percent sign": ("api.resend.com%00.evil.com", 443, None, "bad_host"),
    "a zero-width character": ("api.re\u200bsend.com", 443, None, "bad_host"),
    "a whole URL": ("https://api.resend.com", 443, None, "bad_host"),
}


@pytest.mark.parametrize(("host", "port", "own", "reason"), CASES.values(), ids=CASES)
def test_the_decision_on(host: str, port: int, own: list[str] | None, reason: str) -> None:
    scope = None if own is None else [hosts.rule(text) for text in own]
    decision = POLICY.decide(host, port, scope)
    assert decision.reason == reason
    assert decision.allowed is (reason in ("in_allowlist", "pinned"))
    assert decision.message == "" if decision.allowed else decision.message.startswith("egress blocked: ")


def test_a_policy_without_rules_allows_nothing() -> None:
    assert Policy().decide("api.resend.com", 443).reason == "not_in_allowlist"


def test_the_words_for_a_host_that_is_not_allowed_are_the_contracts() -> None:
    with pytest.raises(EgressBlocked) as caught:
        Policy().decide("Evil.Example.", 443).raise_if_denied("resend")
    assert caught.value.message == "egress blocked: host 'evil.example' is not in this project's outbound allowlist"
    assert caught.value.data == {"host": "evil.example", "port": 443, "reason": "not_in_allowlist", "connection": "resend"}


def test_a_closed_port_is_told_which_rule_would_open_it() -> None:
    message = POLICY.decide("api.resend.com", 8443).message
    assert "is not in this project's outbound allowlist for port 8443: the rule 'api.resend.com' opens 443 and 80" in message
    assert "'api.resend.com:8443' would open it" in message


def test_a_private_address_behind_an_allowed_name_is_refused_with_the_operators_way_out() -> None:
    decision = POLICY.address("api.resend.com", 443, "169.254.169.254")
    assert decision.reason == "private_address"
    assert "169.254.169.254, a link-local or cloud metadata address" in decision.message
    assert "--allow-private" in decision.message


def test_two_rules_of_one_host_open_both_ports() -> None:
    policy = Policy.parse(["db.example.com", "db.example.com:5432"])
    assert [policy.decide("db.example.com", port).allowed for port in (443, 5432, 5433)] == [True, True, False]


def test_only_vetted_addresses_opened_networks_and_pins_may_be_dialled() -> None:
    assert POLICY.dials("8.8.8.8", 443)
    assert POLICY.dials("10.1.9.9", 443)
    assert POLICY.dials("127.0.0.1", 8443)
    assert not POLICY.dials("127.0.0.1", 443)
    assert not POLICY.dials("10.2.0.1", 443)


def test_a_pin_sends_one_name_and_port_to_one_address() -> None:
    policy = Policy.parse([], resolve=["Api.Example.com:443=[::1]:8443"])
    assert policy.pins == {("api.example.com", 443): Pin("::1", 8443)}


PINS = [
    "",
    "a:443",
    "a:443=b:443",
    "a=127.0.0.1:443",
    "a:443=127.0.0.1",
    "10.0.0.1:443=127.0.0.1:443",
    "a:0=127.0.0.1:1",
    "a:443=127.1:1",
]


@pytest.mark.parametrize("text", PINS)
def test_a_pin_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        Policy.parse([], resolve=[text])
