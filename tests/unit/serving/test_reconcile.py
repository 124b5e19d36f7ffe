"""The reconciler: agreeing books agree, and every injected error is reported (goal B4)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.limits.limit import DAY_US, Amounts, Grant, Limit, Unit
from convene.serving.reconcile import Difference, Reconciler, Report, Truth, costs_of, impossible
from convene.store.base_ledger import Bucket, Entry, Filter, GroupBy, Intent
from convene.usage import Price
from ledger_double import SECOND_US, ListLedger, entry

if TYPE_CHECKING:
    from collections.abc import Sequence

PRICE = Price(input=1_000_000, cached=500_000, output=2_000_000, request=10, image=1_000, version="v1")
NOW_US = (1_795_651_200 + 3 * 86_400) * SECOND_US


class SummedLedger(ListLedger):
    """A ledger that keeps its sums apart, as the real ones do; `kept` can be tampered with alone."""

    def __init__(self, kept: Sequence[Entry]) -> None:
        super().__init__(kept)
        self.sums = ListLedger(kept)
        self.dead: list[Intent] = []

    async def report(
        self, which: Filter, by: Sequence[GroupBy], limit: int, after: tuple[str, ...] = ()
    ) -> list[Bucket]:
        return await self.sums.report(which, by, limit, after)

    async def orphans(self, dead_after_us: int) -> Sequence[Intent]:
        del dead_after_us
        return self.dead


def priced(number: int, **fields: object) -> Entry:
    """Return an entry that costs what its price makes."""
    made = entry(number, price="v1", duration_us=1000, **fields)
    allowed = costs_of(made, PRICE)
    return msgspec.structs.replace(made, cost_micros=max(allowed or {0}))


def books(count: int = 200) -> SummedLedger:
    """Return books of three days, four keys, two models."""
    return SummedLedger(
        [
            priced(
                number * 900,
                key_id=f"k{number % 4}",
                model=("small", "large")[number % 2],
                prompt_tokens=number,
                cached_tokens=number // 2,
                completion_tokens=number * 2,
                reasoning_tokens=number % 3,
            )
            for number in range(1, count + 1)
        ]
    )


async def compare(ledger: SummedLedger, **fields: object) -> Report:
    """Return a report on everything."""
    since_us = fields.pop("since_us", None)
    reconciler = Reconciler(ledger, {"v1": PRICE}, NOW_US, since_us=since_us)  # type: ignore[arg-type]
    return await reconciler.run(**fields)  # type: ignore[arg-type]  # arguments of `run`


async def test_agreeing_books_have_no_difference() -> None:
    report = await compare(books())
    assert report.differences == []
    assert (report.entries, report.requests, report.open_intents) == (200, 200, 0)
    assert report.groups == len({(one.key_id, one.model, one.at_us // DAY_US) for one in books().kept})
    assert [skipped.partition(":")[0] for skipped in report.skipped] == ["budgets", "upstream"]


async def test_empty_books_agree() -> None:
    assert (await compare(SummedLedger([]))).differences == []


@pytest.mark.parametrize("seed", range(100))
async def test_a_hundred_of_a_hundred_injected_errors_are_reported(seed: int) -> None:
    """Goal B4: drop, alter, double."""
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    ledger = books()
    place = chance.randrange(len(ledger.kept))
    victim = ledger.kept[place]
    kind = chance.choice(["drop", "double", "alter", "move"])
    if kind == "drop":
        del ledger.kept[place]
    elif kind == "double":
        ledger.kept.append(msgspec.structs.replace(victim, id=f"{victim.id}-copy"))
    elif kind == "move":
        other = msgspec.structs.replace(victim, key_id="k9") if seed % 2 else msgspec.structs.replace(victim, model="x")
        ledger.kept[place] = other
    else:
        name = chance.choice(
            ["prompt_tokens", "completion_tokens", "reasoning_tokens", "images", "tool_calls", "cost_micros"]
        )
        ledger.kept[place] = msgspec.structs.replace(victim, **{name: getattr(victim, name) + chance.randint(1, 9)})
    report = await compare(ledger)
    assert any(one.check == "sums" and victim.key_id in one.where for one in report.differences), (kind, report)
    if kind == "double":
        assert Difference("twice", f"{victim.id}-copy", f"the same as {victim.id} in everything but its id") in (
            report.differences
        )


async def test_tampered_sums_are_reported_as_well_as_tampered_entries() -> None:
    ledger = books(3)
    ledger.sums.kept[0] = msgspec.structs.replace(ledger.sums.kept[0], completion_tokens=99)
    [found] = (await compare(ledger)).differences
    assert (found.check, found.where) == ("sums", "k1/large/2026-11-26")
    assert found.says == "completion_tokens 99 is kept, the entries make 2"


async def test_two_alterations_that_cancel_each_other_in_the_sums_still_cost_wrongly() -> None:
    ledger = SummedLedger([priced(1, prompt_tokens=5), priced(2, prompt_tokens=9)])
    ledger.kept = [
        msgspec.structs.replace(ledger.kept[0], prompt_tokens=9),
        msgspec.structs.replace(ledger.kept[1], prompt_tokens=5),
    ]
    assert [(one.check, one.where) for one in (await compare(ledger)).differences] == [("cost", "e1"), ("cost", "e2")]


async def test_what_a_server_wrote_between_two_looks_is_no_difference() -> None:
    ledger = books(10)

    class Growing(SummedLedger):
        """Writes one more entry after the sums of the first pass were read."""

        grown = False

        async def report(
            self, which: Filter, by: Sequence[GroupBy], limit: int, after: tuple[str, ...] = ()
        ) -> list[Bucket]:
            rows = await super().report(which, by, limit, after)
            if not self.grown:
                self.grown = True
                for kept in (self.kept, self.sums.kept):
                    kept.append(priced(5))
            return rows

    assert (await compare(Growing(ledger.kept))).differences == []


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt_tokens": -1}, "prompt_tokens is -1"),
        ({"cost_micros": -5}, "cost_micros is -5"),
        ({"completion_tokens": 2_000_000_000}, "completion_tokens is 2000000000"),
        ({"cached_tokens": 11}, "11 of 10 prompt tokens came from a cache"),
        ({"reasoning_tokens": 6}, "6 of 5 completion tokens were reasoning"),
        ({"ttft_us": 5000, "duration_us": 1000}, "its first token came after 5000 us of 1000"),
        ({"ttft_us": -1}, "its first token came after -1 us of 0"),
        ({"duration_us": -1}, "it took -1 us"),
        ({"at_us": 0}, "it was admitted at 0 us since 1970"),
        ({"at_us": NOW_US + 2 * DAY_US}, f"it was admitted at {NOW_US + 2 * DAY_US} us since 1970"),
        ({"key_id": ""}, "it has no key or no model"),
    ],
)
async def test_what_cannot_be_true_is_said(fields: dict[str, object], says: str) -> None:
    assert says in impossible(entry(1, **fields), NOW_US)
    report = await compare(SummedLedger([entry(1, **fields)]))
    assert any(one.check == "figures" and one.says == says for one in report.differences)


def test_what_can_be_true_is_not_said() -> None:
    assert impossible(entry(1, cached_tokens=10, reasoning_tokens=5, ttft_us=900, duration_us=1000), NOW_US) == []
    assert impossible(entry(1, at_us=NOW_US + DAY_US), NOW_US) == []


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({}, {10 + 10 + 10}),
        ({"cached_tokens": 4}, {10 + 8 + 10}),
        ({"images": 2}, {2030}),
        ({"status": "client_left"}, {0, 30}),
        ({"status": "failed"}, {30}),
        ({"status": "failed", "prompt_tokens": 0, "completion_tokens": 0}, {0, 10}),
        ({"status": "unknown"}, None),
    ],
)
def test_what_a_request_may_cost_follows_from_its_price_and_how_it_ended(
    fields: dict[str, object], allowed: set[int] | None
) -> None:
    assert costs_of(entry(1, **fields), PRICE) == allowed


async def test_a_cost_without_a_price_is_wrong_and_one_of_an_old_price_is_not_checked() -> None:
    report = await compare(SummedLedger([entry(1, cost_micros=5), entry(2, price="v0", cost_micros=5)]))
    assert report.differences == [Difference("cost", "e1", "costs 5 micro-units without a price")]
    assert report.unpriced == 1


async def test_intents_of_the_dead_are_reported_and_those_under_way_are_not() -> None:
    ledger = books(3)
    intent = Intent(
        id="e77",
        request_id="r",
        at_us=NOW_US,
        kind="chat",
        key_id="k1",
        owner="k1",
        model_asked="m",
        model="m",
        reserved=Amounts(),
    )
    ledger.intents = [intent]
    report = await compare(ledger)
    assert (report.open_intents, report.differences) == (1, [])
    ledger.dead = [intent]
    [found] = (await compare(ledger)).differences
    assert (found.check, found.where) == ("intent", "e77")
    assert "2026-11-29T00:00:00Z" in found.says


async def test_budgets_of_the_counters_are_held_to_the_entries_of_their_period() -> None:
    ledger = SummedLedger([priced(1), priced(86_401), priced(2, key_id="k2"), priced(90_000, user_id="u1")])
    now_us = (1_795_651_200 + 100_000) * SECOND_US
    key = Limit.budget(Unit.MICROS, 100, "day", scope="key", subject="k1", name="budget per day")
    user = Limit.budget(Unit.MICROS, 100, "total", scope="user", subject="u1", name="budget in total")

    async def levels(limits: tuple[Limit, ...]) -> Grant:
        assert limits == (key, user)
        return Grant(0, (60, 31))

    reconciler = Reconciler(ledger, {"v1": PRICE}, now_us)
    report = await reconciler.run(budgets=[(key, "k1"), (user, "u1")], levels=levels)
    assert report.budgets == 2
    assert report.differences == [
        Difference("budget", user.counter, "the counter says 31 micro-units, the entries make 30")
    ]


async def test_an_upstreams_own_figures_are_held_to_the_entries_both_ways() -> None:
    ledger = SummedLedger([priced(1), priced(2), priced(3)])
    truth = [Truth("e1", 10, 5), Truth("req_2", 10, 6), Truth("e9", 1, 1)]
    report = await compare(ledger, truth=truth)
    assert report.upstream == 2
    assert report.differences == [
        Difference("upstream", "e2", "the books have 10 + 5 tokens, the upstream 10 + 6"),
        Difference("upstream", "e9", "the upstream answered it, the books do not have it"),
    ]


async def test_nothing_before_the_first_day_is_compared() -> None:
    ledger = books()
    del ledger.kept[0]
    assert (await compare(ledger)).differences
    since_us = (1_795_651_200 + 86_400) * SECOND_US
    report = await compare(ledger, since_us=since_us)
    assert report.differences == []
    assert 0 < report.entries < 200
