"""`convene keys`: make, list, rotate and revoke API keys, beside a running server or without one.

A running server of the same data folder takes a new key at once and refuses a revoked one within a second, because
both read one store (`serving/keyring.py`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from convene.api.accounts_wire import MICROS, limits_of
from convene.app_books import allowances_by_plan
from convene.cli_output import Verbs, configured, json_option, put, put_json, put_table, say
from convene.cli_store import with_store
from convene.clock import SystemClock
from convene.errors import BadRequest, NotFound
from convene.limits.allowance import FIELDS, Allowance
from convene.moments import span_seconds
from convene.serving.base_accounts import ADMIN, API, KeyDraft
from convene.serving.doors import normal_email
from convene.serving.key_desk import KeyDesk
from convene.serving.keyring import LOCAL, KeyRing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from convene.config import Config
    from convene.store.base import KeyRecord
    from convene.store.base_accounts import Accounts

T = TypeVar("T")

COUNT: Final = click.IntRange(0, 1_000_000_000)


@click.group("keys", cls=Verbs)
def keys() -> None:
    """Make, list, rotate and revoke API keys."""


@keys.command(
    "create",
    examples=(
        "convene keys create laptop",
        "convene keys create ci --expires 30d --models asi1,smollm2-135m",
        "convene keys create lab --user ada@example.com --rpm 60 --tpm 100000 --budget 20 --budget-period month",
        "KEY=$(convene keys create script)",
    ),
)
@click.argument("name")
@click.option("--rpm", type=COUNT, help="Requests a minute.")
@click.option("--rpd", type=COUNT, help="Requests a day.")
@click.option("--tpm", type=COUNT, help="Tokens a minute.")
@click.option("--tpd", type=COUNT, help="Tokens a day.")
@click.option("--max-concurrent", type=COUNT, help="Requests at the same time.")
@click.option("--budget", type=click.FloatRange(0), help="Money, in the configured currency.")
@click.option(
    "--budget-period",
    type=click.Choice(["day", "month", "total"]),
    default="month",
    show_default=True,
    help="What --budget is for.",
)
@click.option("--expires", default="never", metavar="WHEN", help="30d, 12h, 2027-01-31 (UTC), or never.")
@click.option("--plan", default="", help="Whose limits apply; default the user's or team's, else owner.")
@click.option("--models", default="", metavar="A,B", help="The only models it may ask; default all.")
@click.option("--user", default="", metavar="ID|EMAIL", help="Whose it is; default nobody's.")
@click.option("--team", default="", metavar="ID", help="The team that owns what it makes.")
@click.option("--admin", is_flag=True, help="It may manage users, teams and all keys.")
@click.option("--owner", default="", help="Who owns its sessions; default the team, the user, or the key itself.")
@json_option
@configured("data_dir")
def create(config: Config, /, name: str, *, as_json: bool, **given: Any) -> None:  # noqa: ANN401 -- one argument a flag
    """Make a key and print it, once: it is stored hashed."""
    draft = KeyDraft(
        name=name,
        plan=given["plan"] or ("" if given["user"] or given["team"] else "owner"),
        owner=given["owner"],
        expires_at=parse_expiry(given["expires"], SystemClock.now()),
        models=tuple(part.strip() for part in given["models"].split(",") if part.strip()) or None,
        scopes=(API, ADMIN) if given["admin"] else (API,),
        limits=_limits(given),
        team_id=given["team"],
    )

    async def issue(ring: KeyRing, accounts: Accounts) -> tuple[str, KeyRecord]:
        user = await find_user(accounts, given["user"]) if given["user"] else ""
        desk = KeyDesk(lambda: ring, lambda: accounts, allowances_by_plan(config).get, config.default_plan)
        return await desk.issue(LOCAL, msgspec.structs.replace(draft, user_id=user))

    text, record = _with_ring(config, issue)
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
    records = _with_ring(config, lambda ring, _: ring.list_all())
    if as_json:
        put_json([shown(record, now) for record in records])
        return
    rows = [
        (
            record.id,
            record.name,
            record.team_id or record.user_id or "-",
            record.plan or "-",
            f"...{record.last4}",
            day_of(record.created_at),
            day_of(record.expires_at),
            state_of(record, now),
            "all" if record.models is None else ",".join(record.models),
            limits_in_words(record.limits),
        )
        for record in records
    ]
    put_table(("ID", "NAME", "OF", "PLAN", "KEY", "CREATED", "EXPIRES", "STATE", "MODELS", "LIMITS"), rows)
    if not rows:
        say("There is no key yet. `convene keys create NAME` makes one.")


@keys.command("rotate", examples=("convene keys rotate 4fGh2LmNpQ8r",))
@click.argument("key_id", metavar="ID")
@json_option
@configured("data_dir")
def rotate(config: Config, key_id: str, *, as_json: bool) -> None:
    """Give a key another secret and print it, once; the old one ends. The id and its sessions stay."""
    text, record = _with_ring(config, lambda ring, _: ring.rotate(key_id))
    _hand_over(text, record, "Rotated", as_json=as_json)


@keys.command("revoke", examples=("convene keys revoke 4fGh2LmNpQ8r",))
@click.argument("key_id", metavar="ID")
@configured("data_dir")
def revoke(config: Config, key_id: str) -> None:
    """End a key for good. A running server refuses it within a second."""
    record = _with_ring(config, lambda ring, _: ring.revoke(key_id))
    say(f"Revoked the key {record.id} ({record.name}).")


def parse_expiry(text: str, now: float) -> float | None:
    """Return Unix seconds for `30d`, `12h`, an ISO date or time (UTC unless it says otherwise), None for `never`.

    Raises:
        BadRequest: it is none of these.
    """
    text = text.strip()
    if text.lower() == "never":
        return None
    if (span_s := span_seconds(text)) is not None:
        return now + span_s
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
        "user_id": record.user_id or None,
        "team_id": record.team_id or None,
        "plan": record.plan,
        "last4": record.last4,
        "state": state_of(record, now),
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
        "models": record.models,
        "scopes": record.scopes,
        "limits": limits_of(record.limits),
    }


def limits_in_words(limits: Allowance | None) -> str:
    """Return a key's own limits in short: `10 requests/minute, 5.00 budget/month`; `-` if it has none."""
    if limits is None or limits == Allowance():
        return "-"
    said = []
    for field in FIELDS:
        amount = getattr(limits, field)
        if amount is not None:
            what, _, window = field.partition("_per_")
            text = f"{amount / MICROS:.2f}" if field.startswith("budget") else f"{amount}"
            said.append(f"{text} {what.replace('_', ' ')}" + (f"/{window}" if window else ""))
    return ", ".join(said)


async def find_user(accounts: Accounts, text: str) -> str:
    """Return the id of a user that is named by id or email. Raises `NotFound`."""
    found = await accounts.get_user(text) or await accounts.find_user(normal_email(text))
    if found is None:
        raise NotFound(f"There is no user {text[:100]!r}. `convene users list` shows all.")
    return found.id


def _limits(given: Mapping[str, Any]) -> Allowance | None:
    fields: dict[str, int | None] = {
        "requests_per_minute": given["rpm"],
        "requests_per_day": given["rpd"],
        "tokens_per_minute": given["tpm"],
        "tokens_per_day": given["tpd"],
        "concurrent_requests": given["max_concurrent"],
    }
    if given["budget"] is not None:
        period = given["budget_period"]
        fields["budget_total" if period == "total" else f"budget_per_{period}"] = round(given["budget"] * MICROS)
    said = {name: amount for name, amount in fields.items() if amount is not None}
    return msgspec.structs.replace(Allowance(), **said) if said else None


def _with_ring(config: Config, work: Callable[[KeyRing, Accounts], Awaitable[T]]) -> T:
    """Return `work` over the keys and accounts of the settings' store."""
    return with_store(config, lambda store: work(KeyRing(store.keys, SystemClock(), store.accounts), store.accounts))


def _hand_over(text: str, record: KeyRecord, verb: str, *, as_json: bool) -> None:
    if as_json:
        put_json({"key": text} | shown(record, record.created_at))
        return
    until = "" if record.expires_at is None else f", until {day_of(record.expires_at)}"
    plan = record.plan or "of its owner"
    say(f"{verb} the key {record.id} ({record.name}, plan {plan}{until}). It is shown only this once:")
    put(text)


def day_of(at: float | None) -> str:
    """Return a time for people, in UTC."""
    return "never" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
