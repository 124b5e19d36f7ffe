"""Files that agents leave for each other: who makes, reads and writes them."""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID

import pytest

from convene.errors import BadRequest, Busy, NotFound, TooLarge, Unauthorized
from convene.registry.assets import ASSETS_MAX, BYTES_MAX, HOURS_MAX, READERS_MAX
from convene.registry.base_desks import NOBODY, Asker
from market_desks import ANNS, BOBS, OPEN, Desks
from signed_agents import SignedAgent

READER = Asker(agent=SignedAgent("reader").address)
OTHER = Asker(agent=SignedAgent("other").address)
HELLO = base64.b64encode(b"hello").decode()


@pytest.fixture
def desks() -> Desks:
    return Desks()


def file(**fields: object) -> dict[str, Any]:
    return {"name": "a.png", "mime_type": "image/png", "contents": HELLO, "lifetime_hours": 2} | fields


def grant(asker: Asker, **fields: object) -> dict[str, object]:
    return {"agent_address": asker.agent} | fields


@pytest.mark.req("STORE-01")
async def test_a_file_is_its_owners_until_its_time_is_over(desks: Desks) -> None:
    asset_id = await desks.assets.keep(file(), ANNS)
    assert UUID(asset_id).version == 4
    asset = await desks.assets.show(asset_id, ANNS)
    assert (asset.name, asset.media_type, asset.contents) == ("a.png", "image/png", b"hello")
    for stranger in (BOBS, READER, OPEN, NOBODY):
        with pytest.raises(NotFound):
            await desks.assets.show(asset_id, stranger)
    desks.clock.move(2 * 3600)
    with pytest.raises(NotFound):
        await desks.assets.show(asset_id, ANNS)


async def test_a_file_is_made_with_a_key(desks: Desks) -> None:
    for asker in (READER, OPEN, NOBODY):
        with pytest.raises(Unauthorized):
            await desks.assets.keep(file(), asker)


@pytest.mark.req("STORE-01")
async def test_an_agent_reads_and_writes_what_it_may(desks: Desks) -> None:
    asset_id = await desks.assets.keep(file(), ANNS)
    new = {"contents": base64.b64encode(b"new").decode()}
    await desks.assets.permit(asset_id, grant(READER), ANNS)
    assert (await desks.assets.show(asset_id, READER)).contents == b"hello"
    with pytest.raises(NotFound):
        await desks.assets.change(asset_id, new, READER)
    await desks.assets.permit(asset_id, grant(READER, write=True), ANNS)
    await desks.assets.change(asset_id, new, READER)
    asset = await desks.assets.show(asset_id, READER)
    assert (asset.contents, asset.media_type, asset.owner) == (b"new", "image/png", "user-ann")
    await desks.assets.change(asset_id, new | {"mime_type": "text/plain"}, ANNS)
    assert (await desks.assets.show(asset_id, ANNS)).media_type == "text/plain"
    await desks.assets.permit(asset_id, grant(READER, read=False, write=False), ANNS)
    with pytest.raises(NotFound):
        await desks.assets.show(asset_id, READER)
    with pytest.raises(NotFound):
        await desks.assets.show(asset_id, OTHER)


async def test_only_the_owner_says_who_may(desks: Desks) -> None:
    asset_id = await desks.assets.keep(file(), ANNS)
    await desks.assets.permit(asset_id, grant(READER, write=True), ANNS)
    for asker in (READER, BOBS, NOBODY):
        with pytest.raises(NotFound):
            await desks.assets.permit(asset_id, grant(OTHER), asker)


async def test_anybody_may_read_and_never_write(desks: Desks) -> None:
    asset_id = await desks.assets.keep(file(), ANNS)
    await desks.assets.permit(asset_id, {"agent_address": "*", "write": True}, ANNS)
    assert (await desks.assets.show(asset_id, NOBODY)).contents == b"hello"
    for asker in (NOBODY, OTHER, BOBS, Asker(agent="*")):
        with pytest.raises(NotFound):
            await desks.assets.change(asset_id, {"contents": HELLO}, asker)


@pytest.mark.parametrize(
    "change",
    [
        {"contents": "not base64"},
        {"contents": 5},
        {"mime_type": "png"},
        {"mime_type": "image/png\r\nx: y"},
        {"mime_type": "a/" + "b" * 61},
        {"lifetime_hours": 0},
        {"lifetime_hours": HOURS_MAX + 1},
        {"lifetime_hours": "2"},
        {"name": None},
    ],
)
async def test_what_cannot_be_kept_is_refused(desks: Desks, change: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        await desks.assets.keep(file(**change), ANNS)
    with pytest.raises(BadRequest):
        await desks.assets.keep({}, ANNS)


async def test_sizes_and_numbers_have_limits(desks: Desks) -> None:
    with pytest.raises(TooLarge):
        await desks.assets.keep(file(contents=base64.b64encode(b"x" * (BYTES_MAX + 1)).decode()), ANNS)
    for _ in range(ASSETS_MAX):
        asset_id = await desks.assets.keep(file(), ANNS)
    with pytest.raises(Busy):
        await desks.assets.keep(file(), ANNS)
    await desks.assets.keep(file(), BOBS)
    await desks.assets.change(asset_id, {"contents": HELLO}, ANNS)
    for number in range(READERS_MAX):
        await desks.assets.permit(asset_id, {"agent_address": f"agent1{number}"}, ANNS)
    with pytest.raises(BadRequest):
        await desks.assets.permit(asset_id, {"agent_address": "one more"}, ANNS)
    with pytest.raises(BadRequest):
        await desks.assets.permit(asset_id, {"agent_address": "x" * 201}, ANNS)


async def test_what_is_not_there_is_missing_for_everybody(desks: Desks) -> None:
    with pytest.raises(NotFound):
        await desks.assets.show("nothing", ANNS)
    with pytest.raises(NotFound):
        await desks.assets.change("nothing", {"contents": HELLO}, ANNS)
    with pytest.raises(NotFound):
        await desks.assets.permit("nothing", grant(READER), ANNS)
