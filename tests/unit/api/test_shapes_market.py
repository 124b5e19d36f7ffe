"""What the marketplace says of agents, in the field names that their libraries read."""

from __future__ import annotations

import msgspec
import pytest
from uagents_core.agentverse.cli.types import AlmanacRegistration
from uagents_core.types import Domain

from convene.api.shapes_market import listed_of, named_of, record_of, waiting_of
from convene.registry.base_names import bare
from convene.store.base_market import AgentRow, Endpoint, Letter, Listing, Profile
from signed_agents import CHAT

ROW = AgentRow(
    id="agent1ann",
    endpoints=(Endpoint("http://a.test/submit", 2),),
    protocols=(CHAT,),
    metadata={"geolocation": {"latitude": "1"}},
    expires_us=1_800_000_000_000_000,
    created_us=1_700_000_000_000_000,
    changed_us=1_700_000_000_000_000,
)


@pytest.mark.req("RES-01", "RES-02", "ENVL-09")
def test_the_library_reads_a_record() -> None:
    read = AlmanacRegistration.model_validate_json(msgspec.json.encode(record_of(ROW, "custom", bare)))
    assert (read.status, read.type, read.protocols) == ("active", "custom", [CHAT.removeprefix("proto:")])
    assert read.expiry.isoformat() == "2027-01-15T08:00:00+00:00"
    assert read.endpoints[0].weight == 2


@pytest.mark.req("RES-02")
@pytest.mark.parametrize("expires_us", [0, 1, 2**62])
def test_an_expiry_is_never_null(expires_us: int) -> None:
    row = msgspec.structs.replace(ROW, expires_us=expires_us, active=False)
    read = AlmanacRegistration.model_validate_json(msgspec.json.encode(record_of(row, "mailbox", bare)))
    assert read.expiry is not None
    assert read.status == "inactive"


@pytest.mark.req("RES-06")
def test_the_library_reads_who_has_a_name() -> None:
    read = Domain.model_validate_json(msgspec.json.encode(named_of("ann", ROW)))
    assert (read.name, read.assigned_agents[0].address) == ("ann", "agent1ann")


def test_a_listing_says_null_for_what_it_has_not() -> None:
    bare_listing = listed_of(ROW)
    assert (bare_listing.name, bare_listing.handle, bare_listing.url, bare_listing.agent_type) == (
        *[None] * 3,
        "uagent",
    )
    full = Listing(name="Ann", handle="ann", url="http://a", agent_type="a2a", profile=Profile(readme="# A"))
    listed = listed_of(msgspec.structs.replace(ROW, listing=full))
    assert (listed.name, listed.handle, listed.url, listed.agent_type) == ("Ann", "ann", "http://a", "a2a")
    assert (listed.profile.readme, listed.protocols) == ("# A", [CHAT])


@pytest.mark.req("MBOX-02")
def test_an_envelope_is_given_back_as_it_was_posted() -> None:
    letter = Letter(
        uuid="u", address="a", envelope=b'{"b": 1, "a":  2}', received_us=1_700_000_000_000_000, expires_us=2**62
    )
    encoded = msgspec.json.encode(waiting_of(letter))
    assert b'"envelope":{"b": 1, "a":  2}' in encoded
    assert b'"received_at":"2023-11-14T22:13:20Z"' in encoded
