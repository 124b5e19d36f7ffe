"""Which IP addresses a stranger may send us to: pure.

Here: the table and `Judge`. Not here: names (`egress_url`), asking for them (`egress_lookup`) and connecting. The
standard library's `is_private` and `is_global` are no guards (they let through multicast, NAT64, 6to4 and more, and
differ by Python version), so what is good is said here: in IPv6 only 2000::/3 less the blocks below, in IPv4 all but
the blocks below. An IPv6 address that carries an IPv4 address is as good as that one.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Verdict = Literal["public", "allowed", "refused"]
"""`allowed`: not public, or not only, but the operator permits its network."""

_BAD_V4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host (RFC 1122); Linux connects to itself
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # carriers' NAT (RFC 6598); also Alibaba's metadata and Tailscale
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's own service, in public space
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments (RFC 6890); Oracle's metadata is 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, with the broadcast address
    )
)
_GOOD_V6: Final = ipaddress.IPv6Network("2000::/3")
"""All that is given out as global unicast. Outside of it: loopback, ::a.b.c.d, SIIT (::ffff:0:a.b.c.d), NAT64 of local
use (64:ff9b:1::/48), 100::/64, 5f00::/16, fc00::/7, fe80::/10, fec0::/10, ff00::/8 and what nobody has yet."""
_BAD_V6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # the 6bone, given back
        "3fff::/20",  # documentation
    )
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})
"""The upper half of the interface identifier (RFC 5214 6.1)."""
_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fe80::a9fe:a9fe"),
    )
)
"""Where clouds hand keys to whoever asks: a permitted network does not permit these, only their very address does."""


class Judge(msgspec.Struct, frozen=True):
    """What an operator permits (`allow`) and forbids (`deny`); deny wins."""

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()

    def judge(self, text: str) -> Verdict:
        """Judge one address as a lookup gives it; what is no address, or has a zone, is refused."""
        try:
            address: Address = ipaddress.ip_address(text)
        except ValueError:
            return "refused"
        if isinstance(address, ipaddress.IPv6Address):
            if address.scope_id is not None:
                return "refused"
            address = address.ipv4_mapped or address
        if self._is_denied(address):
            return "refused"
        if self._is_allowed(address):
            return "allowed"
        return "public" if _is_public(address) else "refused"

    def _is_denied(self, address: Address) -> bool:
        return any(one in network for one in (address, *_inner(address)) for network in self.deny)

    def _is_allowed(self, address: Address) -> bool:
        exact = address in _METADATA
        return any(
            address in network and (not exact or network.prefixlen == network.max_prefixlen) for network in self.allow
        )


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks that `texts` name, as `10.1.0.0/16` or one address. Raises `ValueError`, naming the text."""
    networks: list[Network] = []
    for text in texts:
        try:
            networks.append(ipaddress.ip_network(text))
        except ValueError:
            raise ValueError(f"{text!r} is no network such as 10.1.0.0/16 (no bits set after the prefix)") from None
    return tuple(networks)


def _is_public(address: Address) -> bool:
    if any(not _is_public(inner) for inner in _inner(address)):
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _BAD_V4)
    if address in _NAT64:
        return True
    return address in _GOOD_V6 and not any(address in network for network in _BAD_V6)


def _inner(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """Return the IPv4 addresses that packets to `address` may end at (Teredo is refused whole, so it is not read)."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    number = int(address)
    found: list[int] = []
    if address.sixtofour is not None:
        found.append(int(address.sixtofour))
    if address in _NAT64 or (number >> 32) & 0xFFFF_FFFF in _ISATAP:
        found.append(number & 0xFFFF_FFFF)
    return tuple(ipaddress.IPv4Address(one) for one in found)
