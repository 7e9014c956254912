"""The bypass list (EGRESS.md §4), the items that a URL alone can try. Every name leads to a canary on this machine, whose network
the operator opened: so only the rules on names stand between a bypass and the canary, and it must see nobody."""

from __future__ import annotations

import pytest

from rootlink.errors import EgressBlocked
from tests.outbound.conftest import Canary, MakeOut

NAMES = {
    "1 a name that ends alike": ("http://evilapi.resend.com:{port}/", "not_in_allowlist"),
    "2 an allowed name continued": ("http://api.resend.com.evil.com:{port}/", "not_in_allowlist"),
    "3 the dot as a regular expression": ("http://apixresend.com:{port}/", "not_in_allowlist"),
    "4 the parent": ("http://resend.com:{port}/", "not_in_allowlist"),
    "5 the bare top-level domain": ("http://com:{port}/", "not_in_allowlist"),
    "6 another name in capitals": ("http://EVIL.COM:{port}/", "not_in_allowlist"),
    "7 two trailing dots": ("http://api.resend.com..:{port}/", "bad_host"),
    "8 a leading dot": ("http://.api.resend.com:{port}/", "bad_host"),
    "8 an empty label": ("http://api..resend.com:{port}/", "bad_host"),
    "9 a wildcard as host": ("http://*.resend.com:{port}/", "bad_host"),
    "10 a homoglyph": ("http://api.resеnd.com:{port}/", "not_in_allowlist"),  # Cyrillic е
    "11 a full-width dot": ("http://evil．com:{port}/", "bad_host"),
    "11 an ideographic dot": ("http://evil。com:{port}/", "bad_host"),
    "12 a soft hyphen": ("http://api.re\u00adsend.com:{port}/", "bad_host"),
    "12 a zero-width space": ("http://api.re\u200bsend.com:{port}/", "bad_host"),
    "13 the punycode of another name": ("http://xn--pi-7bc.resend.com:{port}/", "not_in_allowlist"),
    "14 an encoded NUL": ("http://evil.com%00.api.resend.com:{port}/", "bad_host"),
    "15 an encoded dot": ("http://evil%2ecom:{port}/", "bad_host"),
    "15 an encoded slash": ("http://evil.com%2f.api.resend.com:{port}/", "bad_host"),
    "16 an underscore at an edge": ("http://_x.api.resend.com:{port}/", "bad_host"),
    "16 a hyphen at an edge": ("http://x-.api.resend.com:{port}/", "bad_host"),
    "17 a label too long": ("http://" + "a" * 64 + ".api.resend.com:{port}/", "bad_host"),
    "17 a name too long": ("http://" + "a." * 130 + "api.resend.com:{port}/", "bad_host"),
    "18 localhost": ("http://localhost:{port}/", "not_in_allowlist"),
    "18 under localhost": ("http://api.resend.com.localhost:{port}/", "not_in_allowlist"),
    "18 localhost's IPv6 name": ("http://ip6-localhost:{port}/", "not_in_allowlist"),
    "19 a metadata name": ("http://metadata.google.internal:{port}/", "not_in_allowlist"),
    "19 the container host": ("http://host.docker.internal:{port}/", "not_in_allowlist"),
    "20 a name that spells an address": ("http://127.0.0.1.nip.io:{port}/", "not_in_allowlist"),
}
URLS = {
    "21 an allowed name as user": ("http://api.resend.com@evil.com:{port}/", "bad_url"),
    "22 an allowed name as host, another as user": ("http://evil.com@api.resend.com:{port}/", "bad_url"),
    "23 an allowed name and port as user and password": ("http://api.resend.com:80@evil.com:{port}/", "bad_url"),
    "24 an allowed name in the fragment": ("http://evil.com:{port}#.api.resend.com", "not_in_allowlist"),
    "24 an allowed name after a fragment and an at sign": ("http://evil.com:{port}#@api.resend.com/", "not_in_allowlist"),
    "25 an allowed name in the query": ("http://evil.com:{port}?.api.resend.com", "not_in_allowlist"),
    "25 an allowed name after a query and an at sign": ("http://evil.com:{port}?@api.resend.com/", "not_in_allowlist"),
    "26 a backslash before the allowed name": ("http://evil.com:{port}\\.api.resend.com/", "bad_url"),
    "26 a backslash and an at sign": ("http://evil.com:{port}\\@api.resend.com/", "bad_url"),
    "27 a slash before the allowed name": ("http://evil.com:{port}/.api.resend.com/", "not_in_allowlist"),
    "28 backslashes for slashes": ("http:\\\\evil.com:{port}\\", "bad_url"),
    "29 no slashes": ("http:evil.com:{port}", "bad_url"),
    "30 no scheme": ("//evil.com:{port}/", "bad_url"),
    "31 a file": ("file:///etc/passwd", "scheme"),
    "31 ftp": ("ftp://api.resend.com:{port}/", "scheme"),
    "31 gopher": ("gopher://api.resend.com:{port}/_GET", "scheme"),
    "31 a web socket": ("ws://api.resend.com:{port}/", "scheme"),
    "31 javascript": ("javascript:alert(1)", "bad_url"),
    "33 no host": ("http:///evil.com:{port}/", "bad_host"),
    "33 a host of nothing but a port": ("http://:{port}/", "bad_host"),
    "34 relative": ("/api.resend.com/", "bad_url"),
    "34 a bare name": ("api.resend.com", "bad_url"),
    "35 a tab in the host": ("http://evil.com:{port}\t/", "bad_url"),
    "35 a tab in the scheme": ("ht\ttp://api.resend.com:{port}/", "bad_url"),
    "35 a line feed in the host": ("http://api.resend\n.com:{port}/", "bad_url"),
    "35 a carriage return and a header": ("http://api.resend.com:{port}/\r\nHost: evil.com", "bad_url"),
    "35 a line separator": ("http://evil.com\u2028.api.resend.com:{port}/", "bad_url"),
    "35 a NUL": ("http://api.resend.com\x00.evil.com:{port}/", "bad_url"),
    "35 a space in the host": ("http://evil.com :{port}/", "bad_host"),
    "35 a space before all": (" http://api.resend.com:{port}/", "bad_url"),
}
ADDRESSES = {
    "36 a dotted address": ("http://127.0.0.1:{port}/", "not_in_allowlist"),
    "37 a short address": ("http://127.1:{port}/", "bad_host"),
    "38 a decimal address": ("http://2130706433:{port}/", "bad_host"),
    "39 an octal address": ("http://0177.0.0.1:{port}/", "bad_host"),
    "40 a hexadecimal address": ("http://0x7f000001:{port}/", "bad_host"),
    "40 a half hexadecimal address": ("http://0x7f.1:{port}/", "bad_host"),
    "41 an overflowing address": ("http://0x17f000001:{port}/", "bad_host"),
    "42 zero": ("http://0:{port}/", "bad_host"),
    "42 the unspecified address": ("http://0.0.0.0:{port}/", "not_in_allowlist"),
    "43 an address with a trailing dot": ("http://127.0.0.1.:{port}/", "bad_host"),
    "44 IPv6 loopback": ("http://[::1]:{port}/", "not_in_allowlist"),
    "45 IPv6 unspecified": ("http://[::]:{port}/", "not_in_allowlist"),
    "46 IPv4 mapped": ("http://[::ffff:127.0.0.1]:{port}/", "not_in_allowlist"),
    "47 IPv4 compatible": ("http://[::7f00:1]:{port}/", "not_in_allowlist"),
    "48 NAT64": ("http://[64:ff9b::7f00:1]:{port}/", "not_in_allowlist"),
    "49 6to4": ("http://[2002:7f00:1::]:{port}/", "not_in_allowlist"),
    "50 Teredo": ("http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]:{port}/", "not_in_allowlist"),
    "51 link-local with a zone": ("http://[fe80::1%25lo]:{port}/", "bad_host"),
    "52 unique local": ("http://[fc00::1]:{port}/", "not_in_allowlist"),
    "53 the metadata address": ("http://169.254.169.254:{port}/", "not_in_allowlist"),
    "54 the metadata address on IPv6": ("http://[fd00:ec2::254]:{port}/", "not_in_allowlist"),
    "58 circled digits": ("http://①②⑦.⓪.⓪.①:{port}/", "bad_host"),
    "59 a name in brackets": ("http://[api.resend.com]:{port}/", "bad_host"),
}
PORTS = {
    "68 the SSH port": ("http://api.resend.com:22/", "port"),
    "68 the mail port": ("http://api.resend.com:25/", "port"),
    "69 port zero": ("http://api.resend.com:0/", "port"),
    "69 a port above 65535": ("http://api.resend.com:65536/", "bad_url"),
    "70 a port with a sign": ("http://api.resend.com:+{port}/", "bad_url"),
    "70 a port with a space": ("http://api.resend.com: {port}/", "bad_url"),
    "70 a port with a letter": ("http://api.resend.com:{port}x/", "bad_url"),
    "71 two ports": ("http://api.resend.com:80:{port}/", "bad_url"),
    "72 digits that are not ASCII": ("http://api.resend.com:４４３/", "bad_url"),
    "73 a missing port": ("http://api.resend.com:/", "bad_url"),
}
EVERY = {**NAMES, **URLS, **ADDRESSES, **PORTS}


@pytest.mark.parametrize(("url", "reason"), EVERY.values(), ids=EVERY)
async def test_no_packet_leaves_for(url: str, reason: str, canary: Canary, make_out: MakeOut) -> None:
    out = make_out([f"api.resend.com:{canary.port}"])
    scope = out.outbound.scope("resend", None)
    with pytest.raises(EgressBlocked, match=r"\Aegress blocked: ") as caught:
        async with scope.request("GET", url.replace("{port}", str(canary.port)), timeout=5):
            pass
    assert caught.value.data is not None
    assert (caught.value.data["reason"], out.reasons) == (reason, [reason])
    assert (canary.seen, out.names.asked) == (0, [])


LISTED = ["127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "fc00::1"]
LISTED += [
    "169.254.169.254",
    "fd00:ec2::254",
    "168.63.129.16",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "ff02::1",
]


@pytest.mark.parametrize("address", LISTED)
async def test_no_packet_leaves_for_a_special_address_even_if_the_project_lists_it(
    address: str, canary: Canary, make_out: MakeOut
) -> None:
    written = f"[{address}]" if ":" in address else address
    out = make_out([f"{written}:{canary.port}"], private=[])
    with pytest.raises(EgressBlocked):
        async with out.outbound.scope("resend", None).request("GET", f"http://{written}:{canary.port}/", timeout=5):
            pass
    assert (out.reasons, canary.seen) == (["private_address"], 0)


@pytest.mark.parametrize("address", LISTED)
async def test_no_packet_leaves_for_an_allowed_name_that_leads_to(address: str, canary: Canary, make_out: MakeOut) -> None:
    out = make_out([f"api.resend.com:{canary.port}"], private=[])
    out.names.leads["api.resend.com"] = [address]
    with pytest.raises(EgressBlocked, match=r"host 'api\.resend\.com' leads to"):
        async with out.outbound.scope("resend", None).request("GET", f"http://api.resend.com:{canary.port}/", timeout=5):
            pass
    assert (out.reasons, canary.seen) == (["private_address"], 0)


async def test_a_mixed_answer_of_public_and_private_addresses_is_refused_whole(canary: Canary, make_out: MakeOut) -> None:
    out = make_out([f"api.resend.com:{canary.port}"], private=[])
    out.names.leads["api.resend.com"] = ["8.8.8.8", "127.0.0.1"]
    with pytest.raises(EgressBlocked, match=r"127\.0\.0\.1"):
        async with out.outbound.scope("resend", None).request("GET", f"http://api.resend.com:{canary.port}/", timeout=5):
            pass
    assert canary.seen == 0


async def test_a_name_is_resolved_once_and_exactly_that_address_is_dialled(canary: Canary, make_out: MakeOut) -> None:
    """A second lookup between check and dial is where rebinding would come in."""
    out = make_out([f"api.resend.com:{canary.port}"])
    async with out.outbound.scope("resend", None).request("GET", f"http://api.resend.com:{canary.port}/", timeout=5) as response:
        assert response.status == 200
    assert out.names.asked == ["api.resend.com"]


async def test_the_negative_control_an_allowed_name_does_reach_the_canary(canary: Canary, make_out: MakeOut) -> None:
    out = make_out([f"api.resend.com:{canary.port}"])
    async with out.outbound.scope("resend", None).request("GET", f"http://API.resend.com.:{canary.port}/", timeout=5) as response:
        assert await response.read() == b"chirp"
    assert (out.reasons, canary.seen) == (["in_allowlist"], 1)
