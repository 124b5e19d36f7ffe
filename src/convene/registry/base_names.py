"""How agents and protocols are named: `[prefix://][name/]address` and `proto:<hex>` (ID-06, ENVL-09). Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from convene.store.base_market import AgentRow

PREFIXES: Final = frozenset({"agent", "test-agent"})
MAINNET: Final = "agent"
ADDRESS: Final = re.compile(r"agent1[02-9ac-hj-np-z]{59}")
"""65 characters of bech32; whether the check sum fits is seen when a signature is verified."""
DIGEST: Final = re.compile(r"proto:[0-9a-f]{64}")
HANDLE: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,38}[a-z0-9])?")
MAILBOX: Final = ("/v2/agents/mailbox/submit", "/v1/submit")
PROXY: Final = ("/v2/agents/proxy/submit", "/v1/proxy/submit")
"""The paths that make an endpoint one of a registry's own, of new and of old libraries (MBOX-01, PROXY-01, LIST-17)."""
_PROTO: Final = "proto:"
_SQUEEZED: Final = re.compile(r"(https?):/+")


class Identifier(msgspec.Struct, frozen=True):
    """A name in its parts; empty where it has none."""

    prefix: str
    name: str
    address: str


def read_identifier(text: str) -> Identifier:
    """Return the parts of a name as the library reads it. Raises ValueError for a prefix that nobody knows."""
    prefix, mark, rest = text.rpartition("://")
    if mark and prefix not in PREFIXES:
        raise ValueError(f"the prefix {prefix[:20]!r} is neither agent nor test-agent")
    name, _, last = rest.rpartition("/")
    if ADDRESS.fullmatch(last):
        return Identifier(prefix or MAINNET, name, last)
    return Identifier(prefix or MAINNET, rest, "")


def whole_url(name: str) -> str:
    """Return a name with both slashes behind its scheme, where a path or a proxy has made one of them."""
    return _SQUEEZED.sub(r"\1://", name)


def with_prefix(digest: str) -> str:
    """Return a protocol's digest with `proto:`."""
    return digest if digest.startswith(_PROTO) else _PROTO + digest


def bare(digest: str) -> str:
    """Return it without: it comes in both forms (ENVL-09)."""
    return digest.removeprefix(_PROTO)


def kind_of(row: AgentRow) -> str:
    """Return how an agent is reached, in the words of SEARCH-02: mailbox, proxy, custom, a2a or mcp."""
    if row.protocol != "acp":
        return row.protocol
    for endpoint in row.endpoints:
        if endpoint.url.endswith(MAILBOX):
            return "mailbox"
        if endpoint.url.endswith(PROXY):
            return "proxy"
    return "custom"
