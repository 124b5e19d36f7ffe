"""`convene usage`, `limits` and `export`: what was used and what is left, beside a running server or without one.

All three read the books in the store, as an operator may: everybody's. `cli_upkeep.py` checks and copies them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Literal, cast

import click

from convene.api.usage import level_shape, sums_shape
from convene.app_books import allowances_of
from convene.app_models import Deployments
from convene.cli_output import Verb, configured, json_option, put_json, put_table, say
from convene.cli_store import with_store
from convene.clock import SystemClock
from convene.errors import BadRequest, NotFound
from convene.http.client import HttpClient
from convene.limits.limit import Unit
from convene.moments import SECOND_US, moment_us
from convene.serving.base import Principal
from convene.serving.base_usage import GROUP_BY, View
from convene.serving.bookkeeping import PastLimits, rebuild
from convene.serving.catalog import Catalog
from convene.serving.export import csv_lines, json_lines
from convene.serving.keyring import KeyRing
from convene.serving.limit_desk import LimitReader
from convene.serving.refusals import duration_words, money_words
from convene.serving.usage import UsageReader
from convene.store.base_ledger import Filter, Whose
from convene.store.memory_counters import MemoryCounters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.config import Config
    from convene.limits.limit import Limit
    from convene.serving.base_usage import Bucket, GroupBy, Level
    from convene.store.base import Store

OPERATOR: Final = Principal(key_id="", owner="", name="operator", scopes=("api", "admin"))
"""Who sits at the machine sees everything."""
BAR_WIDTH: Final = 24
PAGE: Final = 1000


@click.command(
    "usage",
    cls=Verb,
    examples=(
        "convene usage",
        "convene usage --since 2026-11-01 --by model",
        "convene usage --since 24h --by hour --key 4fGh2LmNpQ8r",
        "convene usage --by day,model --json",
    ),
)
@click.option("--since", default="30d", show_default=True, metavar="WHEN", help="7d, 24h, 2026-11-01, or all.")
@click.option("--until", default="", metavar="WHEN", help="Up to but without this time.")
@click.option(
    "--by", default="day", show_default=True, metavar="WORDS", help=f"{', '.join(GROUP_BY)}; several by comma."
)
@click.option("--key", default="", metavar="ID", help="Only this key.")
@click.option("--user", default="", metavar="ID", help="Only this user.")
@click.option("--team", default="", metavar="ID", help="Only this team.")
@click.option("--model", default="", metavar="NAME", help="Only this model.")
@json_option
@configured("data_dir")
def usage(config: Config, /, *, by: str, as_json: bool, **given: str) -> None:
    """Sum up what was used, by day, model, key and so on, with bars on a terminal."""
    groups = _groups_of(by)
    view = _view_of(given, SystemClock.now())
    buckets = with_store(config, lambda store: _all_groups(UsageReader(lambda: store.ledger), view, groups))
    if as_json:
        put_json([_group_json(groups, bucket, config.currency) for bucket in buckets])
        return
    if not buckets:
        say("Nothing was used in this time.")
        return
    put_usage(groups, buckets, config.currency, bars=sys.stdout.isatty())


@click.command(
    "limits",
    cls=Verb,
    examples=("convene limits 4fGh2LmNpQ8r", "convene limits 4fGh2LmNpQ8r --model asi1 --json"),
)
@click.argument("key_id", metavar="KEY_ID")
@click.option("--model", default="", metavar="NAME", help="Also the limits on this model.")
@json_option
@configured("data_dir")
def limits(config: Config, key_id: str, model: str, *, as_json: bool) -> None:
    """Show every limit that binds a key and what is left of it, recomputed from the books.

    Requests that are running now count at what was reserved for them; how many run at once is not shown.
    """
    levels = with_store(config, lambda store: _levels_of(config, store, key_id, model or None))
    if as_json:
        put_json([level_shape(level) for level in levels])
        return
    rows = [_level_row(level, config.currency) for level in levels]
    put_table(("LIMIT", "WHOSE", "AMOUNT", "USED", "LEFT", "WHOLE IN"), rows)
    if not rows:
        say("No limit binds this key.")


@click.command(
    "export",
    cls=Verb,
    examples=(
        "convene export > usage.csv",
        "convene export --since 2026-11-01 --until 2026-12-01 --format jsonl -o november.jsonl",
    ),
)
@click.option("--since", default="all", show_default=True, metavar="WHEN", help="7d, 24h, 2026-11-01, or all.")
@click.option("--until", default="", metavar="WHEN", help="Up to but without this time.")
@click.option("--key", default="", metavar="ID", help="Only this key.")
@click.option(
    "--format", "form", default="csv", show_default=True, type=click.Choice(["csv", "jsonl"]), help="How it is written."
)
@click.option("-o", "--output", default="-", metavar="FILE", help="Where to; default stdout.")
@configured("data_dir")
def export(config: Config, /, *, form: Literal["csv", "jsonl"], output: str, **given: str) -> None:
    """Write every entry of the books, oldest first, for a spreadsheet or another program."""
    view = _view_of({"user": "", "team": "", "model": "", **given}, SystemClock.now())
    which = Filter(whose=Whose("all"), since_us=view.since_us, until_us=view.until_us, key_id=view.key_id)

    async def write(store: Store) -> int:
        count = 0
        lines = csv_lines if form == "csv" else json_lines
        with click.open_file(output, "w", encoding="utf-8", atomic=output != "-") as file:
            async for line in lines(store.ledger.entries(which)):
                file.write(line)
                count += 1
        return count - (form == "csv")  # its first line is the head

    count = with_store(config, write)
    if output != "-":
        say(f"Wrote {count} entries to {output}.")


def put_usage(groups: Sequence[GroupBy], buckets: Sequence[Bucket], currency: str, *, bars: bool) -> None:
    """Write groups as a table; `bars` draws the tokens of each beside it."""
    most = max(bucket.sums.total_tokens for bucket in buckets)
    rows = []
    for bucket in buckets:
        sums = bucket.sums
        cells = [text or "-" for text in bucket.group]
        cells += [f"{number:,}" for number in (sums.requests, sums.prompt_tokens, sums.completion_tokens)]
        cells += [f"{sums.total_tokens:,}", money_words(sums.cost_micros, currency)]
        if bars:
            cells.append(bar(sums.total_tokens, most))
        rows.append(tuple(cells))
    head = (*(word.upper() for word in groups), "REQUESTS", "PROMPT", "COMPLETION", "TOKENS", "COST")
    put_table((*head, "") if bars else head, rows)


def bar(value: int, most: int, width: int = BAR_WIDTH) -> str:
    """Return a bar whose length is a share of `width`, in eighths of a character; something is never nothing."""
    if value <= 0 or most <= 0:
        return ""
    eighths = max(1, round(value * width * 8 / most))
    return "█" * (eighths // 8) + ("" if eighths % 8 == 0 else "▏▎▍▌▋▊▉"[eighths % 8 - 1])


def _groups_of(text: str) -> tuple[GroupBy, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words or not set(words) <= set(GROUP_BY) or len(set(words)) != len(words):
        raise BadRequest(f"--by {text!r}: write one or more of {', '.join(GROUP_BY)}, joined by commas.", param="by")
    return cast("tuple[GroupBy, ...]", words)


def _view_of(given: dict[str, str], now: float) -> View:
    now_us = int(now * SECOND_US)
    since, until = given["since"], given["until"]
    if given["user"] and given["team"]:
        raise BadRequest("Give --user or --team, not both.", param="team")
    return View(
        scope="user" if given["user"] else "team" if given["team"] else "all",
        id=given["user"] or given["team"],
        since_us=None if since in {"", "all"} else moment_us(since, now_us, "--since"),
        until_us=None if not until else moment_us(until, now_us, "--until"),
        model=given["model"] or None,
        key_id=given["key"] or None,
    )


async def _all_groups(reader: UsageReader, view: View, groups: tuple[GroupBy, ...]) -> list[Bucket]:
    found: list[Bucket] = []
    more = True
    while more:
        after = found[-1].group if found else ()
        page, more = await reader.groups(OPERATOR, view, groups, PAGE, after)
        found += page
    return found


def _group_json(groups: tuple[GroupBy, ...], bucket: Bucket, currency: str) -> dict[str, object]:
    return {"group": dict(zip(groups, bucket.group, strict=True)), **sums_shape(bucket.sums, currency)}


async def _levels_of(config: Config, store: Store, key_id: str, model: str | None) -> list[Level]:
    """Return where a key's limits stand: counters in memory, charged with what the books know, as a start does."""
    clock = SystemClock()
    principals = await KeyRing(store.keys, clock, store.accounts, config.default_plan).principals()
    caller = principals.get(key_id)
    if caller is None:
        raise NotFound(f"There is no key with the id {key_id[:100]!r}; `convene keys list` shows all ids.")
    catalog = Catalog(Deployments(config, clock, HttpClient).all)
    allowances = allowances_of(config)
    counters = MemoryCounters(clock)
    await rebuild(counters, store.ledger, clock.now(), PastLimits(allowances, catalog.terms(), principals))
    reader = LimitReader(allowances, catalog, catalog.terms, lambda: counters, clock.now)
    return await reader.limits(caller, model)


def _level_row(level: Level, currency: str) -> tuple[str, ...]:
    limit = level.limit
    whole = "-" if level.whole_after_us is None else duration_words(level.whole_after_us)
    used, left = _amount(limit, level.used, currency), _amount(limit, level.remaining, currency)
    if limit.kind == "slots":
        used, left, whole = "?", "?", "-"
    return (limit.name, f"{limit.scope} {limit.subject}", _amount(limit, limit.amount, currency), used, left, whole)


def _amount(limit: Limit, units: int, currency: str) -> str:
    return money_words(units, currency) if limit.unit is Unit.MICROS else f"{units:,}"
