"""Which addresses are the world's."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlink.egress import addresses
from rootlink.errors import Invalid

SPECIAL = {
    "loopback": "127.0.0.1",
    "the far end of loopback": "127.255.255.254",
    "this machine": "0.0.0.0",
    "this network": "0.1.2.3",
    "private, 10": "10.0.0.1",
    "private, 172.16": "172.31.255.255",
    "private, 192.168": "192.168.1.1",
    "shared by carriers": "100.64.0.1",
    "cloud metadata": "169.254.169.254",
    "cloud metadata of Azure": "168.63.129.16",
    "cloud metadata of Alibaba": "100.100.100.200",
    "cloud metadata of Oracle": "192.0.0.192",
    "documentation": "203.0.113.9",
    "test networks": "198.18.0.1",
    "6to4 relay": "192.88.99.1",
    "multicast": "224.0.0.251",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "IPv6 loopback": "::1",
    "IPv6 unspecified": "::",
    "IPv4 in IPv6, mapped": "::ffff:127.0.0.1",
    "a public IPv4 in IPv6, mapped": "::ffff:8.8.8.8",
    "IPv4 in IPv6, compatible": "::7f00:1",
    "IPv4 in IPv6, translated": "::ffff:0:7f00:1",
    "NAT64 of loopback": "64:ff9b::7f00:1",
    "local NAT64": "64:ff9b:1::1",
    "6to4 of loopback": "2002:7f00:1::",
    "Teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "IPv6 documentation": "2001:db8::1",
    "new IPv6 documentation": "3fff::1",
    "unique local": "fd12:3456::1",
    "cloud metadata on IPv6": "fd00:ec2::254",
    "link-local": "fe80::1",
    "link-local with a zone": "fe80::1%eth0",
    "a public address with a zone": "2606:4700::1%eth0",
    "site-local": "fec0::1",
    "IPv6 multicast": "ff02::1",
    "segment routing": "5f00::1",
    "not an address at all": "localhost",
}
WORLD = ["8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.255.255", "100.128.0.1", "223.255.255.255", "168.63.129.17"]
WORLD_V6 = ["2606:4700:4700::1111", "2a00:1450::1", "2001:200::1", "2003::1"]


@pytest.mark.parametrize("address", SPECIAL.values(), ids=SPECIAL)
def test_a_special_address_is_not_the_worlds(address: str) -> None:
    assert addresses.special(address)


@pytest.mark.parametrize("address", WORLD + WORLD_V6)
def test_a_public_address_is_the_worlds(address: str) -> None:
    assert addresses.special(address) is None


@given(st.ip_addresses())
def test_nothing_is_the_worlds_that_the_standard_library_calls_private(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if addresses.special(str(address)) is None:
        assert not any((address.is_private, address.is_loopback, address.is_link_local, address.is_multicast))


def test_the_operator_can_open_a_private_network_and_only_that() -> None:
    opened = addresses.networks(["10.1.0.0/16", "fd00::/8"])
    assert addresses.within("10.1.2.3", opened)
    assert addresses.within("fd12::1", opened)
    assert not addresses.within("10.2.0.1", opened)
    assert not addresses.within("::ffff:10.1.2.3", opened)
    assert not addresses.within("nonsense", opened)


def test_what_is_no_network_is_refused_by_name() -> None:
    with pytest.raises(Invalid, match="'ten'"):
        addresses.networks(["10.0.0.0/8", "ten"])
