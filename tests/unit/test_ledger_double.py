"""The ledger in a list does what the seam says, so that tests of its readers mean something."""

from __future__ import annotations

import pytest

from convene.errors import StoreFault
from convene.limits.limit import Amounts
from convene.store.base_ledger import Filter, Intent, Whose
from ledger_double import ListLedger, entry, sums_of

ALL = Whose("all")


async def test_an_entry_is_kept_once_and_ends_its_intent() -> None:
    ledger = ListLedger()
    intent = Intent(
        id="e1",
        request_id="r",
        at_us=1,
        kind="chat",
        key_id="k1",
        owner="k1",
        model_asked="m",
        model="m",
        reserved=Amounts(requests=1),
    )
    await ledger.begin(intent)
    assert list(await ledger.open_intents()) == [intent]
    await ledger.finish(entry(1))
    await ledger.finish(entry(1, prompt_tokens=99))
    assert [kept.prompt_tokens for kept in ledger.kept] == [10]
    assert list(await ledger.open_intents()) == []
    assert list(await ledger.orphans(0)) == []


async def test_a_filter_holds_on_every_side() -> None:
    ledger = ListLedger([entry(1), entry(2, key_id="k2", session_id="s"), entry(3, agent_address="a", model="large")])
    at_us = entry(2).at_us

    async def ids(**fields: object) -> list[str]:
        which = Filter(whose=ALL, **fields)  # type: ignore[arg-type]  # fields of a filter
        return [found.id async for found in ledger.entries(which)]

    assert await ids() == ["e1", "e2", "e3"]
    assert await ids(since_us=at_us) == ["e2", "e3"]
    assert await ids(until_us=at_us) == ["e1"]
    assert await ids(key_id="k2") == ["e2"]
    assert await ids(session_id="s") == ["e2"]
    assert await ids(agent_address="a") == ["e3"]
    assert await ids(model="small") == ["e1", "e2"]


async def test_groups_of_nothing_are_one_group() -> None:
    ledger = ListLedger([entry(1), entry(2)])
    [bucket] = await ledger.report(Filter(whose=ALL), (), 10)
    assert (bucket.group, bucket.sums) == ((), sums_of(ledger.kept))
    hours = await ledger.report(Filter(whose=ALL), ("hour", "user"), 10)
    assert [found.group for found in hours] == [("2026-11-26T00", "")]


async def test_what_is_forgotten_is_gone_and_a_broken_one_says_so() -> None:
    ledger = ListLedger([entry(1), entry(2)])
    assert await ledger.forget_before(entry(2).at_us) == 1
    assert [found.id for found in await ledger.page(Filter(whose=ALL), 10)] == ["e2"]
    ledger.broken = True
    for call in (ledger.total(ALL), ledger.find("e2", ALL), ledger.page(Filter(whose=ALL), 1), ledger.flush()):
        with pytest.raises(StoreFault):
            await call
