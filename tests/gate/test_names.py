from __future__ import annotations

import pytest

from rootlink.gate.names import MOST, Full, Names


def nobody(address: str, host: str) -> None:
    pass


def test_a_name_has_one_address_and_the_address_stands_for_it() -> None:
    names = Names(nobody, {})
    address = names.address("api.example.com")
    assert address.startswith("198.18.")
    assert names.address("api.example.com") == address
    assert names.host(address) == "api.example.com"


def test_two_names_have_two_addresses() -> None:
    names = Names(nobody, {})
    assert len({names.address(f"{n}.example.com") for n in range(300)}) == 300


def test_any_other_address_stands_for_itself() -> None:
    assert Names(nobody, {}).host("93.184.216.34") == "93.184.216.34"
    assert Names(nobody, {}).host("198.18.9.9") == "198.18.9.9"


def test_each_address_is_told_once() -> None:
    told: list[tuple[str, str]] = []
    names = Names(lambda address, host: told.append((address, host)), {})
    for _ in range(3):
        names.address("a.example")
    assert told == [(names.address("a.example"), "a.example")]


def test_what_an_earlier_gate_gave_is_kept_and_not_given_again() -> None:
    names = Names(nobody, {"198.18.0.1": "old.example"})
    assert names.host("198.18.0.1") == "old.example"
    assert names.address("old.example") == "198.18.0.1"
    assert names.address("new.example") != "198.18.0.1"


def test_an_address_that_is_not_ours_is_taken_from_nobody() -> None:
    assert Names(nobody, {"10.0.0.1": "x.example", "nonsense": "y.example"}).host("10.0.0.1") == "10.0.0.1"


def test_a_flood_of_names_ends() -> None:
    names = Names(nobody, {})
    for n in range(MOST):
        names.address(f"n{n}.example")
    with pytest.raises(Full):
        names.address("one-more.example")
    assert names.address("n0.example")
