"""The table of addresses: each block, its neighbours, and what operators permit and forbid."""

from __future__ import annotations

import ipaddress

import pytest

from convene.egress_address import Judge, read_networks
from egress_samples import BAD_V4, BAD_V6, GOOD_V4, GOOD_V6


def judge(text: str, *, allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()) -> str:
    return Judge(read_networks(allow), read_networks(deny)).judge(text)


@pytest.mark.parametrize("address", [*BAD_V4, *BAD_V6])
def test_no_address_that_is_not_public_is_let_through(address: str) -> None:
    assert judge(address) == "refused"


@pytest.mark.parametrize("address", [*GOOD_V4, *GOOD_V6])
def test_public_addresses_are_let_through(address: str) -> None:
    assert judge(address) == "public"


@pytest.mark.parametrize("text", ["", "example.com", "127.1", "0x7f000001", "fe80::1%lo", "2606:4700::1%1", "1.2.3.4 "])
def test_what_is_not_the_plain_spelling_of_an_address_is_refused(text: str) -> None:
    assert judge(text) == "refused"


@pytest.mark.parametrize("inner", BAD_V4)
def test_an_ipv6_address_is_no_better_than_the_ipv4_address_in_it(inner: str) -> None:
    number = int(ipaddress.IPv4Address(inner))
    carriers = (
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ipaddress.IPv6Address((0x2002 << 112) | number << 80 | 1),
        ipaddress.IPv6Address((0x26064700 << 96) | 0x5EFE << 32 | number),
        ipaddress.IPv6Address((0x26064700 << 96) | 0x02005EFE << 32 | number),
    )
    assert {judge(str(carrier)) for carrier in carriers} == {"refused"}


def test_an_allowed_network_is_let_through_and_its_neighbours_are_not() -> None:
    allow = ("10.1.0.0/16", "fd12::/16")
    assert judge("10.1.255.255", allow=allow) == "allowed"
    assert judge("::ffff:10.1.2.3", allow=allow) == "allowed"
    assert judge("fd12::5", allow=allow) == "allowed"
    for address in ("10.0.255.255", "10.2.0.0", "fd13::1", "127.0.0.1", "64:ff9b::10.1.2.3", "2002:a01:203::1"):
        assert judge(address, allow=allow) == "refused", address
    assert judge("8.8.8.8", allow=allow) == "public"


def test_denial_beats_permission_and_reaches_public_addresses_and_those_inside_others() -> None:
    deny = ("10.1.2.0/24", "8.8.8.0/24")
    allow = ("10.0.0.0/8", "0.0.0.0/0")
    for address in ("10.1.2.3", "8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"):
        assert judge(address, allow=allow, deny=deny) == "refused", address
    assert judge("10.1.3.3", allow=allow, deny=deny) == "allowed"


METADATA = ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192")


@pytest.mark.parametrize("address", METADATA)
def test_the_clouds_metadata_is_only_permitted_by_its_very_address(address: str) -> None:
    assert judge(address, allow=("0.0.0.0/0",)) == "refused"
    assert judge(f"::ffff:{address}", allow=("0.0.0.0/0", "::/0")) == "refused"
    assert judge(address, allow=(f"{address}/32",)) == "allowed"


def test_the_metadata_of_ipv6_is_only_permitted_by_its_very_address() -> None:
    assert judge("fd00:ec2::254", allow=("fd00::/8",)) == "refused"
    assert judge("fd00:ec2::255", allow=("fd00::/8",)) == "allowed"
    assert judge("fd00:ec2::254", allow=("fd00:ec2::254",)) == "allowed"


@pytest.mark.parametrize("text", ["10.1.0.1/16", "10.0.0.0/33", "example.com", "", "10.1", "10.0.0.0/8 "])
def test_a_network_that_is_none_is_named_in_the_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no network such as"):
        read_networks((text,))
