"""The settings of limits and books: plans, prices, how counting and the ledger are kept. Read through `config.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from convene.config_values import About

if TYPE_CHECKING:
    from collections.abc import Mapping

AMOUNT_MAX: Final = 1_000_000_000
"""Highest limit per window: what the counters' arithmetic stays exact for in every store."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`[plans.NAME]`: limits by name, for keys, users, teams and models; what is not set is not limited (LIMIT-04)."""

    requests_per_minute: Annotated[int | None, About("Requests a minute", at_least=0, at_most=AMOUNT_MAX)] = None
    requests_per_day: Annotated[int | None, About("Requests a day", at_least=0, at_most=AMOUNT_MAX)] = None
    tokens_per_minute: Annotated[int | None, About("Tokens a minute", at_least=0, at_most=AMOUNT_MAX)] = None
    tokens_per_day: Annotated[int | None, About("Tokens a day", at_least=0, at_most=AMOUNT_MAX)] = None
    input_tokens_per_minute: Annotated[int | None, About("Prompt tokens a minute", at_least=0, at_most=AMOUNT_MAX)] = (
        None
    )
    input_tokens_per_day: Annotated[int | None, About("Prompt tokens a day", at_least=0, at_most=AMOUNT_MAX)] = None
    output_tokens_per_minute: Annotated[
        int | None, About("Completion tokens a minute", at_least=0, at_most=AMOUNT_MAX)
    ] = None
    output_tokens_per_day: Annotated[int | None, About("Completion tokens a day", at_least=0, at_most=AMOUNT_MAX)] = (
        None
    )
    images_per_minute: Annotated[int | None, About("Images a minute", at_least=0, at_most=AMOUNT_MAX)] = None
    images_per_day: Annotated[int | None, About("Images a day", at_least=0, at_most=AMOUNT_MAX)] = None
    concurrent_requests: Annotated[int | None, About("Requests at the same time", at_least=0, at_most=AMOUNT_MAX)] = (
        None
    )
    budget_per_day: Annotated[float | None, About("Money a day of UTC", "currency", at_least=0)] = None
    budget_per_month: Annotated[float | None, About("Money a month of UTC", "currency", at_least=0)] = None
    budget_total: Annotated[float | None, About("Money in all", "currency", at_least=0)] = None


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """`[prices.NAME]`: what a model costs; a model takes the entry of its name, or the one it names."""

    input: Annotated[float, About("A million prompt tokens", "currency", at_least=0)] = 0.0
    cached_input: Annotated[float | None, About("The same from a cache; like input when unset", "currency")] = None
    output: Annotated[float, About("A million completion tokens", "currency", at_least=0)] = 0.0
    request: Annotated[float, About("One request", "currency", at_least=0)] = 0.0
    image: Annotated[float, About("One image", "currency", at_least=0)] = 0.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """`[limits]`: how limits are kept; how much is allowed is said in `[plans.NAME]`, keys, users and teams."""

    counters: Annotated[
        Literal["auto", "memory", "sqlite", "redis", "postgres"],
        About("Where counting happens; auto: Redis or Postgres if one is named, SQLite with workers, else memory"),
    ] = "auto"
    tag: Annotated[str, About("Installations that share a Redis, but no limits, have different ones")] = "convene"
    replicas: Annotated[int, About("Machines that share the counters; each has its share if they fail", at_least=1)] = 1
    lease_s: Annotated[float, About("A dead process's reservations are free after", "s", at_least=1)] = 30.0
    output_estimate: Annotated[int, About("Output reserved while nothing is learned", "tokens", at_least=1)] = 1024
    output_ceiling: Annotated[
        int, About("Longest answer, for money, of a model without a stated one", "tokens", at_least=1)
    ] = 32_768
    queue_s: Annotated[float, About("Let a request wait for its limit so long instead of refusing it", "s")] = 0.0
    queue_max: Annotated[int, About("Most requests waiting for their limits", at_least=0)] = 1000


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """`[ledger]`: the record of what was used."""

    retention_days: Annotated[int, About("Forget single entries after; 0 = never. Sums stay", "days", at_least=0)] = 0


class Idempotency(msgspec.Struct, frozen=True, kw_only=True):
    """`[idempotency]`: answers kept for requests that are sent again under the same `Idempotency-Key`."""

    keep_s: Annotated[float, About("Keep an answer, from when its request came", "s", at_least=1)] = 86_400.0
    answer_bytes_max: Annotated[int, About("Largest answer that is kept", "bytes", at_least=0)] = 4_194_304


PLANS: Final[Mapping[str, Plan]] = {
    "owner": Plan(
        requests_per_minute=10_000_000,
        tokens_per_minute=1_000_000_000,
        concurrent_requests=10_000,
    ),
    "pro": Plan(
        requests_per_minute=600,
        tokens_per_minute=1_000_000,
        tokens_per_day=50_000_000,
        concurrent_requests=64,
        images_per_day=500,
    ),
    "free": Plan(
        requests_per_minute=20,
        requests_per_day=1_000,
        tokens_per_minute=40_000,
        tokens_per_day=500_000,
        concurrent_requests=4,
        images_per_day=20,
    ),
}
"""The plans there are without a word of configuration; the owner's is finite, so headers are sent (decisions 16)."""


def plans_of(configured: Mapping[str, Plan]) -> dict[str, Plan]:
    """Return all plans by name: the built-in ones, with the single limits that `[plans.NAME]` changes, and the rest."""
    found = dict(PLANS)
    for name, plan in configured.items():
        said = {field: value for field in Plan.__struct_fields__ if (value := getattr(plan, field)) is not None}
        found[name] = msgspec.structs.replace(PLANS[name], **said) if name in PLANS else plan
    return found
