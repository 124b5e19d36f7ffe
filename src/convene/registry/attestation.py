"""What agents sign for a registry, and whether they have: registrations, states, headers of requests. Pure.

    body ──► read_registration, read_status ──► the values, whose signature fits the address they name (REG-10 to 13)
    Authorization: Agent attr:<b64>:<sig> ──► proven_agent ──► the address (LIST-02, LIST-03)

Not here: whether it is newer than what is known (`almanac.py`). An attestation is no use to anybody for long, yet who
has one may use it as the agent until it ends: that is the protocol's own weakness, and why it is never logged.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import msgspec

from convene.agent_identity import KEY_BYTES, address_of, verify_digest
from convene.egress_url import BadUrl, read_url
from convene.errors import BadRequest, Unauthorized
from convene.registry.base_names import DIGEST, Identifier, read_identifier
from convene.store.base_market import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EARLY_S: Final = 300
"""How far ahead of ours an agent's clock may be (LIST-03)."""
STALE_S: Final = 30 * 86_400
"""A Bureau signs once, at its start, and posts that every hour: a registration may be old, and must be the newest."""
ATTESTATION_BYTES: Final = 81
ATTESTATION_CHARACTERS_MAX: Final = 400
ENDPOINTS_MAX: Final = 10
"""The library's own number (DEFAULT_MAX_ENDPOINTS)."""
PROTOCOLS_MAX: Final = 100
URL_MAX: Final = 4_000
METADATA_BYTES_MAX: Final = 16_384
WEIGHT_MAX: Final = 1_000_000
_SCHEME: Final = "Agent attr:"


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent has signed and said of its endpoints."""

    agent: Identifier
    timestamp: int
    endpoints: tuple[Endpoint, ...] = ()
    protocols: tuple[str, ...] = ()
    """In their order, each once."""
    metadata: dict[str, object] = {}


class SignedStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent has signed of its state."""

    agent: Identifier
    timestamp: int
    is_active: bool


class _Registration(msgspec.Struct):
    agent_identifier: str
    signature: str
    timestamp: int
    protocols: list[str]
    endpoints: list[Endpoint]
    metadata: dict[str, object] | None = None


class _Status(msgspec.Struct):
    agent_identifier: str
    signature: str
    timestamp: int
    is_active: bool


Shape = TypeVar("Shape", _Registration, _Status)


def read_registration(body: Mapping[str, object], now_s: float) -> Signed:
    """Return a registration whose signature fits. Raises `BadRequest`."""
    found, agent = _read(body, _Registration, now_s)
    fields = {
        "endpoints": [{"url": one.url, "weight": one.weight} for one in found.endpoints],
        "metadata": found.metadata,
        "protocols": found.protocols,
    }
    _check_signature(found, body, fields, agent)
    return Signed(
        agent=agent,
        timestamp=found.timestamp,
        endpoints=checked_endpoints(found.endpoints),
        protocols=checked_protocols(found.protocols),
        metadata=checked_metadata(found.metadata),
    )


def read_status(body: Mapping[str, object], now_s: float) -> SignedStatus:
    """Return a state whose signature fits. Raises `BadRequest`."""
    found, agent = _read(body, _Status, now_s)
    _check_signature(found, body, {"is_active": found.is_active}, agent)
    return SignedStatus(agent=agent, timestamp=found.timestamp, is_active=found.is_active)


def proven_agent(authorization: str, now_s: float) -> str:
    """Return the address that a header proves. Raises `Unauthorized`."""
    if len(authorization) > ATTESTATION_CHARACTERS_MAX or not authorization.startswith(_SCHEME):
        _refuse("it is not of the form 'Agent attr:<payload>:<signature>'")
    encoded, mark, signature = authorization.removeprefix(_SCHEME).partition(":")
    try:
        payload = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        payload = b""
    if not mark or len(payload) != ATTESTATION_BYTES:
        _refuse(f"its payload is not {ATTESTATION_BYTES} bytes in base64")
    key, (begins, ends) = payload[:KEY_BYTES], struct.unpack(">QQ", payload[KEY_BYTES : KEY_BYTES + 16])
    if begins - EARLY_S > now_s:
        _refuse("it is not valid yet; is the agent's clock right?")
    if ends < now_s:
        _refuse("it has expired; is the agent's clock right?")
    address = address_of(key)
    if not verify_digest(address, hashlib.sha256(payload).digest(), signature):
        _refuse("the signature does not fit")
    return address


def checked_endpoints(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """Return them if they may be kept. Raises `BadRequest`."""
    if len(endpoints) > ENDPOINTS_MAX:
        raise _wrong("endpoints", f"at most {ENDPOINTS_MAX} endpoints")
    for one in endpoints:
        check_url(one.url, "endpoints")
        if not 1 <= one.weight <= WEIGHT_MAX:
            raise _wrong("endpoints", f"a weight is from 1 to {WEIGHT_MAX}")
    return tuple(endpoints)


def check_url(url: str, field: str) -> None:
    """Refuse what cannot be an http address. Raises `BadRequest`. Whether it may be asked is decided when it is."""
    if len(url) > URL_MAX:
        raise _wrong(field, f"at most {URL_MAX} characters")
    try:
        read_url(url)
    except BadUrl as fault:
        raise _wrong(field, f"an http or https URL ({fault})") from None


def checked_protocols(protocols: Sequence[str]) -> tuple[str, ...]:
    """Return them, each once and in order, if they may be kept. Raises `BadRequest`."""
    if len(protocols) > PROTOCOLS_MAX:
        raise _wrong("protocols", f"at most {PROTOCOLS_MAX} protocols")
    if not all(map(DIGEST.fullmatch, protocols)):
        raise _wrong("protocols", "proto: and 64 hexadecimal digits each")
    return tuple(sorted(set(protocols)))


def checked_metadata(metadata: dict[str, object] | None) -> dict[str, object]:
    """Return it if it may be kept. Raises `BadRequest`."""
    if metadata and len(msgspec.json.encode(metadata)) > METADATA_BYTES_MAX:
        raise _wrong("metadata", f"at most {METADATA_BYTES_MAX} bytes")
    return metadata or {}


def _read(body: Mapping[str, object], shape: type[Shape], now_s: float) -> tuple[Shape, Identifier]:
    named = dict(body)
    if "agent_identifier" not in named and "agent_address" in named:
        named["agent_identifier"] = named["agent_address"]  # REG-13
    try:
        found = msgspec.convert(named, shape)
        agent = read_identifier(found.agent_identifier)
    except (msgspec.ValidationError, RecursionError, ValueError) as fault:
        raise BadRequest(f"Not a signed statement of an agent: {fault}.", code="invalid_attestation") from None
    if not agent.address:
        raise _wrong("agent_identifier", "the address of an agent")
    if found.timestamp > now_s + EARLY_S:
        raise _wrong("timestamp", f"at most {EARLY_S} s ahead of this server's clock")
    if found.timestamp < now_s - STALE_S:
        raise _wrong("timestamp", f"at most {STALE_S // 86_400} days old")
    return found, agent


def _check_signature(
    found: _Registration | _Status, body: Mapping[str, object], fields: Mapping[str, object], agent: Identifier
) -> None:
    """Refuse what the agent has not signed: as it came, or as the library writes the fields that it knows."""
    came = {name: value for name, value in body.items() if name != "signature"}
    if verify_digest(agent.address, _digest(came), found.signature):
        return
    known = {"agent_identifier": found.agent_identifier, "timestamp": found.timestamp, **fields}
    if known == came or not verify_digest(agent.address, _digest(known), found.signature):
        raise BadRequest(
            "The signature does not fit the address and the rest of the body: sign all of it with the agent's key.",
            code="invalid_signature",
            param="signature",
        )


def _digest(value: Mapping[str, object]) -> bytes:
    """Return what is signed: the hash of JSON with sorted keys and no spaces, as Python's own module writes it."""
    try:
        return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).digest()
    except (ValueError, RecursionError) as fault:
        raise BadRequest(f"Not a signed statement of an agent: {fault}.", code="invalid_attestation") from None


def _wrong(field: str, wanted: str) -> BadRequest:
    return BadRequest(f"Invalid '{field}': wanted {wanted}.", param=field)


def _refuse(why: str) -> NoReturn:
    raise Unauthorized(f"The agent's attestation is refused: {why}.", code="invalid_attestation")
