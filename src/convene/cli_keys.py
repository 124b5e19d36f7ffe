"""`convene keys`: make, list, rotate and revoke API keys, beside a running server or without one.

A running server of the same data folder takes a new key at once and refuses a revoked one within a second, because
both read one store (`serving/keyring.py`).
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import click

from convene.cli_output import Verbs, configured, json_option, put, put_json, put_table, say
from convene.clock import SystemClock
from convene.errors import BadRequest
from convene.serving.keyring import KeyRing
from convene.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from convene.config import Config
    from convene.store.base import KeyRecord

T = TypeVar("T")

_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_SPAN_S: Mapping[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@click.group("keys", cls=Verbs)
def keys() -> None:
    """Make, list, rotate and revoke API keys."""


@keys.command(
    "create",
    examples=(
        "convene keys create laptop",
        "convene keys create ci --expires 30d --models asi1,smollm2-135m",
        "KEY=$(convene keys create script)",
    ),
)
@click.argument("name")
@click.option("--expires", default="never", metavar="WHEN", help="30d, 12h, 2027-01-31 (UTC), or never.")
@click.option("--plan", default="owner", show_default=True, help="Whose limits apply.")
@click.option("--models", default="", metavar="A,B", help="The only models it may ask; default all.")
@click.option("--owner", default="", help="User or team that owns its sessions; default the key itself.")
@json_option
@configured("data_dir")
def create(config: Config, name: str, expires: str, plan: str, models: str, owner: str, *, as_json: bool) -> None:
    """Make a key and print it, once: it is stored hashed."""
    only = tuple(part.strip() for part in models.split(",") if part.strip()) or None
    expires_at = parse_expiry(expires, SystemClock.now())
    text, record = _with_ring(
        config, lambda ring: ring.create(name, plan, owner=owner or None, expires_at=expires_at, models=only)
    )
    _hand_over(text, record, "Made", as_json=as_json)


@keys.command(
    "list",
    examples=(
        "convene keys list",
        "convene keys list --json",
    ),
)
@json_option
@configured("data_dir")
def list_all(config: Config, *, as_json: bool) -> None:
    """List all keys, revoked and expired ones too."""
    now = SystemClock.now()
    records = _with_ring(config, lambda ring: ring.list_all())
    if as_json:
        put_json([shown(record, now) for record in records])
        return
    rows = [
        (
            record.id,
            record.name,
            record.plan,
            f"...{record.last4}",
            _day(record.created_at),
            _day(record.expires_at),
            state_of(record, now),
            "all" if record.models is None else ",".join(record.models),
        )
        for record in records
    ]
    put_table(("ID", "NAME", "PLAN", "KEY", "CREATED", "EXPIRES", "STATE", "MODELS"), rows)
    if not rows:
        say("There is no key yet. `convene keys create NAME` makes one.")


@keys.command("rotate", examples=("convene keys rotate 4fGh2LmNpQ8r",))
@click.argument("key_id", metavar="ID")
@json_option
@configured("data_dir")
def rotate(config: Config, key_id: str, *, as_json: bool) -> None:
    """Give a key another secret and print it, once; the old one ends. The id and its sessions stay."""
    text, record = _with_ring(config, lambda ring: ring.rotate(key_id))
    _hand_over(text, record, "Rotated", as_json=as_json)


@keys.command("revoke", examples=("convene keys revoke 4fGh2LmNpQ8r",))
@click.argument("key_id", metavar="ID")
@configured("data_dir")
def revoke(config: Config, key_id: str) -> None:
    """End a key for good. A running server refuses it within a second."""
    record = _with_ring(config, lambda ring: ring.revoke(key_id))
    say(f"Revoked the key {record.id} ({record.name}).")


def parse_expiry(text: str, now: float) -> float | None:
    """Return Unix seconds for `30d`, `12h`, an ISO date or time (UTC unless it says otherwise), None for `never`.

    Raises:
        BadRequest: it is none of these.
    """
    text = text.strip()
    if text.lower() == "never":
        return None
    if span := _SPAN.fullmatch(text):
        return now + int(span[1]) * _SPAN_S[span[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"--expires {text!r} is no time: write 30d, 12h, 2027-01-31, or never."
        raise BadRequest(message, param="expires") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def state_of(record: KeyRecord, now: float) -> str:
    """Return `revoked`, `expired` or `active`."""
    if record.revoked_at is not None:
        return "revoked"
    return "expired" if record.expires_at is not None and record.expires_at <= now else "active"


def shown(record: KeyRecord, now: float) -> dict[str, object]:
    """Return what may be shown of a key as JSON: everything but its digest."""
    return {
        "id": record.id,
        "name": record.name,
        "owner": record.owner,
        "plan": record.plan,
        "last4": record.last4,
        "state": state_of(record, now),
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
        "models": record.models,
        "scopes": record.scopes,
    }


def _with_ring(config: Config, work: Callable[[KeyRing], Awaitable[T]]) -> T:
    """Return `work(ring)` over the store in the data folder, which is opened for it and closed after it."""

    async def run() -> T:
        store = await SqliteStore.open(config.store_path)
        try:
            return await work(KeyRing(store.keys, SystemClock()))
        finally:
            await store.aclose()

    return asyncio.run(run())


def _hand_over(text: str, record: KeyRecord, verb: str, *, as_json: bool) -> None:
    if as_json:
        put_json({"key": text} | shown(record, record.created_at))
        return
    until = "" if record.expires_at is None else f", until {_day(record.expires_at)}"
    say(f"{verb} the key {record.id} ({record.name}, plan {record.plan}{until}). It is shown only this once:")
    put(text)


def _day(at: float | None) -> str:
    return "never" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
