"""A host has one spelling, or none; a rule of the allowlist says what it means, or why it cannot."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlink.egress import hosts
from rootlink.egress.hosts import Rule
from rootlink.errors import Invalid

SPELLINGS = {
    "a plain name is itself": ("api.resend.com", "api.resend.com"),
    "capitals are made small": ("API.Resend.COM", "api.resend.com"),
    "one trailing dot is dropped": ("api.resend.com.", "api.resend.com"),
    "an underscore inside a label stays": ("my_bucket.example.com", "my_bucket.example.com"),
    "a single label is a name": ("postgres", "postgres"),
    "an international name is encoded once": ("Bücher.example", "xn--bcher-kva.example"),
    "an encoded name is left as it is": ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    "a name of 253 characters is the longest": (".".join(["a" * 49] * 5) + ".com", ".".join(["a" * 49] * 5) + ".com"),
    "a label of 63 characters is the longest": ("a" * 63 + ".com", "a" * 63 + ".com"),
    "a dotted IPv4 address is itself": ("192.0.2.7", "192.0.2.7"),
    "an IPv6 address loses its brackets": ("[2606:4700::1]", "2606:4700::1"),
    "an IPv6 address is compressed and made small": ("2606:4700:0:0:0:0:0:ABCD", "2606:4700::abcd"),
}

REFUSED = {
    "an empty host": "",
    "a dot alone": ".",
    "two trailing dots": "api.resend.com..",
    "a leading dot": ".resend.com",
    "an empty label": "api..resend.com",
    "a wildcard": "*.resend.com",
    "an ideographic dot": "api。resend.com",
    "a full-width dot": "api．resend.com",
    "a half-width ideographic dot": "api｡resend.com",
    "full-width letters": "ａpi.resend.com",
    "a soft hyphen": "api.re\u00adsend.com",
    "a zero-width space": "api.re\u200bsend.com",
    "a zero-width joiner": "api.re\u200dsend.com",
    "a word joiner": "api.re\u2060send.com",
    "a right-to-left override": "api.\u202eresend.com",
    "a line separator": "api.resend.com\u2028",
    "a percent-encoded dot": "api%2eresend.com",
    "a percent-encoded slash": "api.resend.com%2f.evil.com",
    "a percent-encoded NUL": "api.resend.com%00.evil.com",
    "a NUL": "api.resend.com\x00.evil.com",
    "a tab": "api.resend\t.com",
    "a line feed": "api.resend.com\n",
    "a carriage return": "api.resend.com\r",
    "a space": "api.resend.com ",
    "an underscore at the start of a label": "_dmarc.resend.com",
    "an underscore at the end of a label": "api_.resend.com",
    "a hyphen at the start of a label": "-api.resend.com",
    "a hyphen at the end of a label": "api-.resend.com",
    "a label of 64 characters": "a" * 64 + ".com",
    "a name of 254 characters": ".".join(["a" * 49] * 5) + ".info",
    "an at sign": "user@api.resend.com",
    "a slash": "api.resend.com/",
    "a backslash": "api.resend.com\\",
    "a hash": "api.resend.com#",
    "a question mark": "api.resend.com?",
    "a name with a port": "api.resend.com:443",
    "a short IPv4": "127.1",
    "a decimal IPv4": "2130706433",
    "an octal IPv4": "0177.0.0.1",
    "a hexadecimal IPv4": "0x7f000001",
    "a half hexadecimal IPv4": "0x7f.1",
    "an IPv4 whose number overflows": "0x17f000001",
    "an IPv4 with five numbers": "1.2.3.4.5",
    "an IPv4 with a number too large": "256.1.1.1",
    "a zero for an address": "0",
    "an IPv4 with a trailing dot": "127.0.0.1.",
    "a name that ends in a number": "evil.123",
    "circled digits": "①②⑦.⓪.⓪.①",
    "full-width digits": "１２７.0.0.1",
    "Arabic digits": "١٢٧.0.0.1",
    "an IPv6 with a zone": "fe80::1%eth0",
    "an IPv6 with an encoded zone": "[fe80::1%25eth0]",
    "a name in brackets": "[api.resend.com]",
    "an unclosed bracket": "[::1",
    "an IPv6 of a future version": "[v1.fe80::a]",
}


@pytest.mark.parametrize(("written", "canonical"), SPELLINGS.values(), ids=SPELLINGS)
def test_a_host_has_one_spelling(written: str, canonical: str) -> None:
    assert hosts.canonical(written) == canonical
    assert hosts.canonical(canonical) == canonical


@pytest.mark.parametrize("written", REFUSED.values(), ids=REFUSED)
def test_what_is_not_plainly_one_host_is_refused(written: str) -> None:
    with pytest.raises(Invalid, match=r"host '.*' is "):
        hosts.canonical(written)


@given(st.text(max_size=40))
def test_whatever_is_written_is_canonical_or_refused(text: str) -> None:
    try:
        host = hosts.canonical(text)
    except Invalid:
        return
    assert hosts.canonical(host) == host
    assert host.isascii()
    assert host == host.lower()


@given(st.ip_addresses())
def test_every_address_is_recognised_as_one(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert hosts.is_address(hosts.canonical(str(address)))


RULES = {
    "a name": ("api.resend.com", Rule("api.resend.com")),
    "a name in capitals with a trailing dot": (" API.resend.com. ", Rule("api.resend.com")),
    "a name with a port": ("db.example.com:5432", Rule("db.example.com", 5432)),
    "an IPv4 address": ("192.0.2.7", Rule("192.0.2.7")),
    "an IPv4 address with a port": ("192.0.2.7:8080", Rule("192.0.2.7", 8080)),
    "an IPv6 address": ("2606:4700::1", Rule("2606:4700::1")),
    "an IPv6 address in brackets": ("[2606:4700::1]", Rule("2606:4700::1")),
    "an IPv6 address with a port": ("[2606:4700::1]:8443", Rule("2606:4700::1", 8443)),
}


@pytest.mark.parametrize(("written", "rule"), RULES.values(), ids=RULES)
def test_a_rule_says_what_it_means(written: str, rule: Rule) -> None:
    assert hosts.rule(written) == rule
    assert hosts.rule(str(rule)) == rule


NONSENSE = {
    "a wildcard is told that subdomains are included": ("*.resend.com", "subdomains are already included"),
    "a URL is told to be a host": ("https://api.resend.com/", "give the host only"),
    "a path is told to be a host": ("api.resend.com/emails", "give the host only"),
    "a user name is told to be a host": ("me@api.resend.com", "give the host only"),
    "a port above 65535": ("api.resend.com:65536", "1 to 65535"),
    "port zero": ("api.resend.com:0", "1 to 65535"),
    "a port with a sign": ("api.resend.com:+443", "1 to 65535"),
    "a port with a space": ("api.resend.com: 443", "1 to 65535"),
    "a port with a letter": ("api.resend.com:443x", "1 to 65535"),
    "a port in other digits": ("api.resend.com:４４３", "1 to 65535"),
    "a missing port": ("api.resend.com:", "1 to 65535"),
    "two ports": ("api.resend.com:443:80", "IPv6"),
    "nothing": ("", "empty"),
    "a network": ("10.0.0.0/8", "give the host only"),
    "no string": (443, "must be a string"),
}


@pytest.mark.parametrize(("written", "words"), NONSENSE.values(), ids=NONSENSE)
def test_a_rule_that_means_nothing_is_refused_with_the_right_spelling(written: object, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        hosts.rule(written)


COVERED = {
    "the name itself": ("resend.com", "resend.com", True),
    "a subdomain": ("resend.com", "api.resend.com", True),
    "a subdomain of a subdomain": ("resend.com", "a.b.resend.com", True),
    "not a name that only ends alike": ("api.resend.com", "evilapi.resend.com", False),
    "not a name that goes on": ("api.resend.com", "api.resend.com.evil.com", False),
    "not a name whose dot is another character": ("api.resend.com", "apixresend.com", False),
    "not the parent": ("api.resend.com", "resend.com", False),
    "not the top-level domain": ("api.resend.com", "com", False),
    "a single label does not open a whole top-level domain": ("com", "evil.com", False),
    "an address itself": ("192.0.2.7", "192.0.2.7", True),
    "an address has no subdomains": ("2.0.2.7", "1.2.0.2.7", False),
}


@pytest.mark.parametrize(("rule", "host", "covered"), COVERED.values(), ids=COVERED)
def test_a_rule_covers(rule: str, host: str, covered: bool) -> None:
    assert hosts.rule(rule).covers(host) is covered
