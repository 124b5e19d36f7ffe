"""What agents sign for a registry: taken as the library signs it, and nothing else is."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convene.agent_identity import Identity
from convene.errors import BadRequest, ConveneError, Unauthorized
from convene.registry.attestation import (
    EARLY_S,
    ENDPOINTS_MAX,
    STALE_S,
    proven_agent,
    read_registration,
    read_status,
)
from convene.store.base_market import Endpoint
from signed_agents import CHAT, SUBMIT, SignedAgent

NOW = 1_800_000_000
ANN, BOB = SignedAgent("ann"), SignedAgent("bob")


@pytest.mark.req("REG-10", "REG-14")
def test_what_the_library_signs_is_taken() -> None:
    signed = read_registration(ANN.registration(NOW), NOW)
    assert (signed.agent.address, signed.agent.prefix, signed.timestamp) == (ANN.address, "agent", NOW)
    assert signed.endpoints == (Endpoint(SUBMIT, 1),)
    assert signed.protocols == (CHAT,)
    assert signed.metadata == {"geolocation": {"latitude": "52.2", "longitude": "0.12"}}
    assert read_status(ANN.status(NOW, active=False), NOW).is_active is False


@pytest.mark.req("ID-06")
@pytest.mark.parametrize(
    ("identifier", "prefix"),
    [("{}", "agent"), ("agent://{}", "agent"), ("test-agent://{}", "test-agent"), ("agent://name/{}", "agent")],
)
def test_identifiers_come_with_prefix_and_name_or_without(identifier: str, prefix: str) -> None:
    signed = read_registration(ANN.registration(NOW, identifier=identifier.format(ANN.address)), NOW)
    assert (signed.agent.address, signed.agent.prefix) == (ANN.address, prefix)


@pytest.mark.req("ID-06")
@pytest.mark.parametrize("identifier", ["fetch://{}", "name", "agent1qqq", "", "{}/name", "user1qqqqqqqq"])
def test_an_identifier_without_a_known_address_is_refused(identifier: str) -> None:
    body = ANN.registration(NOW) | {"agent_identifier": identifier.format(ANN.address)}
    with pytest.raises(BadRequest):
        read_registration(ANN.sign_body(body), NOW)


@pytest.mark.req("REG-13")
def test_an_old_name_of_the_identifier_is_taken() -> None:
    body = ANN.registration(NOW)
    body["agent_address"] = body.pop("agent_identifier")
    assert read_registration(body, NOW).agent.address == ANN.address
    assert read_registration(ANN.sign_body(body), NOW).agent.address == ANN.address


@pytest.mark.req("REG-11")
def test_a_field_that_a_newer_version_has_and_signs_is_no_harm() -> None:
    body = ANN.sign_body(ANN.registration(NOW) | {"region": {"b": [1, 2.5, None], "a": "ü"}})
    assert read_registration(body, NOW).agent.address == ANN.address
    with pytest.raises(BadRequest, match="signature"):
        read_registration(body | {"region": "elsewhere", "timestamp": NOW + 1}, NOW)


def test_a_field_that_is_not_signed_is_not_read() -> None:
    """The library rebuilds what is signed from its own fields, so one more passes, and counts for nothing."""
    body = ANN.registration(NOW)
    assert read_registration(body | {"extra": "by a stranger"}, NOW) == read_registration(body, NOW)


@pytest.mark.req("REG-10")
@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": NOW + 1},
        {"protocols": []},
        {"protocols": [CHAT, CHAT]},
        {"endpoints": [{"url": "http://evil.test/", "weight": 1}]},
        {"endpoints": [{"url": SUBMIT, "weight": 2}]},
        {"metadata": None},
        {"metadata": {"geolocation": {"latitude": "0", "longitude": "0"}}},
        {"agent_identifier": f"agent://{BOB.address}"},
        {"agent_identifier": f"test-agent://{ANN.address}"},
        {"signature": BOB.registration(NOW)["signature"]},
        {"signature": ""},
        {"signature": "sig1qqq"},
        {"signature": ANN.status(NOW, active=True)["signature"]},
    ],
)
def test_a_changed_registration_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refused:
        read_registration(ANN.registration(NOW) | change, NOW)
    assert refused.value.code == "invalid_signature"


@pytest.mark.parametrize("field", ["agent_identifier", "signature", "timestamp", "protocols", "endpoints"])
@pytest.mark.parametrize("value", [None, 5, {}, [[]], "x", True])
def test_fields_of_a_wrong_kind_are_refused(field: str, value: object) -> None:
    changed = ANN.sign_body(ANN.registration(NOW) | {field: value})
    with pytest.raises(BadRequest):
        read_registration(changed | ({field: value} if field == "signature" else {}), NOW)
    without = {name: kept for name, kept in ANN.registration(NOW).items() if name != field}
    with pytest.raises(BadRequest):
        read_registration(without, NOW)


@pytest.mark.req("REG-12")
def test_times_are_kept_within_bounds() -> None:
    for at in (NOW - STALE_S, NOW, NOW + EARLY_S):
        assert read_registration(ANN.registration(at), NOW).timestamp == at
        assert read_status(ANN.status(at, active=True), NOW).timestamp == at
    for at in (NOW - STALE_S - 1, NOW + EARLY_S + 1, -1, 2**63):
        with pytest.raises(BadRequest):
            read_registration(ANN.registration(at), NOW)
        with pytest.raises(BadRequest):
            read_status(ANN.status(at, active=True), NOW)


@pytest.mark.req("RES-03")
@pytest.mark.parametrize(
    "change",
    [
        {"endpoints": [{"url": SUBMIT, "weight": 0}]},
        {"endpoints": [{"url": SUBMIT, "weight": -1}]},
        {"endpoints": [{"url": "ftp://x.test/", "weight": 1}]},
        {"endpoints": [{"url": "http://x.test/" + "a" * 4000, "weight": 1}]},
        {"endpoints": [{"url": "http://x.test/ y", "weight": 1}]},
        {"endpoints": [{"url": f"http://x.test/{n}", "weight": 1} for n in range(ENDPOINTS_MAX + 1)]},
        {"protocols": ["proto:" + "g" * 64]},
        {"protocols": ["0" * 64]},
        {"protocols": [f"proto:{n:064x}" for n in range(101)]},
        {"metadata": {"a": "x" * 20_000}},
    ],
)
def test_what_an_agent_has_signed_has_limits(change: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refused:
        read_registration(ANN.sign_body(ANN.registration(NOW) | change), NOW)
    assert refused.value.param in change


def test_protocols_are_each_kept_once_and_in_order() -> None:
    others = [f"proto:{n:064x}" for n in (3, 1, 3)]
    assert read_registration(ANN.registration(NOW, protocols=others), NOW).protocols == (others[1], others[0])


@pytest.mark.req("LIST-02", "LIST-03")
def test_an_attestation_proves_the_address_of_its_key() -> None:
    header = ANN.attestation(NOW, 120)
    assert proven_agent(header, NOW) == ANN.address
    assert proven_agent(header, NOW - EARLY_S) == ANN.address
    assert proven_agent(header, NOW + 120) == ANN.address
    for at in (NOW - EARLY_S - 1, NOW + 121):
        with pytest.raises(Unauthorized, match="clock"):
            proven_agent(header, at)


@pytest.mark.req("LIST-03")
@pytest.mark.parametrize(
    "header",
    [
        "",
        "Agent ",
        "Agent attr:",
        "Agent attr::",
        "Agent attr:!!!!:sig1q",
        ANN.attestation(NOW).replace("attr", "attest"),
        ANN.attestation(NOW, key=bytes.fromhex(BOB.library.pub_key), signature=ANN.attestation(NOW).rpartition(":")[2]),
        ANN.attestation(NOW, signature=BOB.attestation(NOW).rpartition(":")[2]),
        ANN.attestation(NOW, nonce=b"n" * 31),
        ANN.attestation(NOW, nonce=b"n" * 33),
        ANN.attestation(NOW, key=b"\x02" + b"\xff" * 32),
        ANN.attestation(NOW) + "q" * 400,
    ],
)
def test_a_wrong_attestation_proves_nothing(header: str) -> None:
    with pytest.raises(Unauthorized):
        proven_agent(header, NOW)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_mutation_of_a_registration_passes(data: st.DataObject) -> None:
    """Whatever is changed in the bytes, what passes says exactly what the agent has signed."""
    body = ANN.registration(NOW)
    meant = read_registration(body, NOW)
    raw = bytearray(json.dumps(body).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        if not raw:
            break
        place = data.draw(st.integers(0, len(raw) - 1))
        kind = data.draw(st.sampled_from(["change", "cut", "insert", "end"]))
        if kind == "change":
            raw[place] = data.draw(st.integers(32, 126))
        elif kind == "cut":
            del raw[place]
        elif kind == "insert":
            raw.insert(place, data.draw(st.integers(32, 126)))
        else:
            del raw[place + 1 :]
    try:
        changed = json.loads(raw)
        found = read_registration(changed, NOW) if isinstance(changed, dict) else None
    except (ValueError, ConveneError):
        return
    assert found is None or found == meant


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_mutation_of_an_attestation_passes(data: st.DataObject) -> None:
    header = ANN.attestation(NOW)
    encoded, _, signature = header.removeprefix("Agent attr:").partition(":")
    payload = bytearray(base64.b64decode(encoded))
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Unauthorized):
        proven_agent(f"Agent attr:{base64.b64encode(payload).decode()}:{signature}", NOW)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["agent_identifier", "signature", "timestamp", "protocols", "endpoints", "metadata", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=8,
        ),
    )
)
def test_whatever_comes_is_refused_with_words(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        read_registration(body, NOW)
    with pytest.raises(BadRequest):
        read_status(body, NOW)


def test_our_own_identity_signs_what_the_library_does() -> None:
    assert Identity.from_seed("ann").address == ANN.library.address
