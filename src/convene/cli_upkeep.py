"""`convene reconcile` and `backup`: checking the books, and copying the store while servers go on writing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from convene.app_books import price_of
from convene.cli_output import Verb, configured, json_option, put_json, put_table, readable_bytes, say
from convene.cli_store import with_store
from convene.clock import SystemClock
from convene.errors import BadRequest
from convene.limits.limit import DAY_US
from convene.moments import SECOND_US, moment_us
from convene.serving.reconcile import Reconciler, Report, Truth
from convene.store.backup import back_up

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from convene.config import Config
    from convene.store.base import Store
    from convene.usage import Price

SILENT_LEAST_S: Final = 10.0
"""However short the leases: a process shows life every few seconds, so one silent for less may well be alive."""
SHOWN_MAX: Final = 100
"""Differences shown to people; --json has all."""


@click.command(
    "reconcile",
    cls=Verb,
    examples=(
        "convene reconcile",
        "convene reconcile --since 7d --json",
        "convene reconcile --upstream-truth upstream.jsonl",
    ),
)
@click.option("--since", default="", metavar="WHEN", help="Compare days from this one on; default all that is kept.")
@click.option(
    "--upstream-truth",
    default="",
    metavar="FILE",
    help='What an upstream counted, a line each: {"id", "prompt_tokens", "completion_tokens"}.',
)
@json_option
@configured("data_dir")
@click.pass_context
def reconcile(ctx: click.Context, config: Config, since: str, upstream_truth: str, *, as_json: bool) -> None:
    """Check the books against themselves, prices and an upstream's own figures; exit code 1 if anything differs."""
    now_us = int(SystemClock.now() * SECOND_US)
    truth = _read_truth(Path(upstream_truth)) if upstream_truth else None
    since_us = _first_day(since, config.ledger.retention_days, now_us)

    def check(store: Store) -> Awaitable[Report]:
        dead_after_us = int(max(config.limits.lease_s, SILENT_LEAST_S) * SECOND_US)
        reconciler = Reconciler(store.ledger, prices_of(config), now_us, since_us=since_us, dead_after_us=dead_after_us)
        return reconciler.run(truth=truth)

    report = with_store(config, check)
    if as_json:
        put_json(report)
    else:
        _say(report)
    ctx.exit(1 if report.differences else 0)


@click.command(
    "backup", cls=Verb, examples=("convene backup convene-$(date +%F).db", "convene backup /mnt/safe/convene.db")
)
@click.argument("file", metavar="FILE")
@configured("data_dir")
def backup(config: Config, file: str) -> None:
    """Copy the store into a new file while servers go on writing, and check the copy.

    To go back, stop the server and put the copy in the place of convene.db, without the files convene.db-wal and
    convene.db-shm and without the folder convene.db-log. A Postgres database has its own tool: pg_dump.
    """
    if config.database_url:
        raise BadRequest("This store is in Postgres: copy it with `pg_dump --format=custom --file=FILE DATABASE`.")
    size = back_up(config.store_path, Path(file))
    say(f"Copied {config.store_path} to {file} ({readable_bytes(size)}); the copy is whole.")


def prices_of(config: Config) -> dict[str, Price]:
    """Return the configured prices by version."""
    prices = (price_of(setting, config.currency) for setting in config.prices.values())
    return {price.version: price for price in prices}


def _first_day(since: str, retention_days: int, now_us: int) -> int | None:
    """Return the first moment of the first day to compare: sums are kept by day, and outlive forgotten entries."""
    begins_us = moment_us(since, now_us, "--since") if since else None
    if retention_days:
        kept_us = now_us - retention_days * DAY_US + DAY_US  # one day more: the sweep may be late
        begins_us = kept_us if begins_us is None else max(begins_us, kept_us)
    return None if begins_us is None else -(-begins_us // DAY_US) * DAY_US


def _read_truth(path: Path) -> list[Truth]:
    try:
        lines = path.read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Truth) for line in lines if line.strip()]
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}.", param="upstream-truth") from error
    except msgspec.DecodeError as error:
        raise BadRequest(f"{path} is no file of truths: {error}.", param="upstream-truth") from error


def _say(report: Report) -> None:
    say(
        f"Compared {report.entries} entries with sums of {report.requests} requests in {report.groups} groups; "
        f"{report.open_intents} under way."
    )
    if report.unpriced:
        say(f"{report.unpriced} entries have a price that is not configured any more; their cost was not checked.")
    for skipped in report.skipped:
        say(f"Not compared: {skipped}.")
    if not report.differences:
        say("No difference.")
        return
    put_table(("CHECK", "WHERE", "WHAT"), [(one.check, one.where, one.says) for one in report.differences[:SHOWN_MAX]])
    left = len(report.differences) - SHOWN_MAX
    say(f"{len(report.differences)} differences" + (f", {left} not shown; --json has all." if left > 0 else "."))
