"""Intents and entries to write, and the books kept the plain way: a list, and loops over it, to compare with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from convene.limits.limit import DAY_US, Amounts
from convene.store.base_ledger import Bucket, Entry, Filter, GroupBy, Intent, Sums, Whose

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

START_US = 20_783 * DAY_US
"""26 November 2026, midnight."""
ALL = Whose("all")
FIGURES = [name for name in Sums.__struct_fields__ if name != "requests"]


def intent(number: int = 1, **changes: Any) -> Intent:  # noqa: ANN401 -- a field of any type
    """Return an intent; those of a higher number are younger."""
    values: dict[str, Any] = {
        "id": f"chatcmpl-{number:024x}",
        "request_id": f"req_{number:024x}",
        "at_us": START_US + number * 1000,
        "kind": "chat",
        "key_id": "key-1",
        "owner": "user-1",
        "user_id": "user-1",
        "team_id": "team-1",
        "model_asked": "asi1",
        "model": "smollm2",
        "reserved": Amounts(1, 300, 100, 200, 0, 12, 1),
        "price": "2026-11",
    }
    return Intent(**values | changes)


def ended(begun: Intent, **changes: Any) -> Entry:  # noqa: ANN401 -- a field of any type
    """Return the entry that ends an intent."""
    values = asdict(begun)
    del values["reserved"]
    values |= {"upstream": "local", "prompt_tokens": 100, "completion_tokens": 20, "cost_micros": 7, "finish": "stop"}
    return Entry(**values | changes)


def entry(number: int = 1, **changes: Any) -> Entry:  # noqa: ANN401 -- a field of any type
    """Return an entry; those of a higher number are younger."""
    return ended(intent(number), **changes)


def random_entry(chance: random.Random, number: int) -> Entry:
    """Return one of a few keys, models, sessions and days; users belong to teams, but keys move between them."""
    user = chance.choice(["user-1", "user-2", ""])
    return entry(
        number,
        at_us=START_US + chance.randrange(4 * DAY_US),
        request_id=f"req_{chance.randrange(20)}",
        key_id=chance.choice(["key-1", "key-2", "kéy-3"]),
        user_id=user,
        team_id=chance.choice(["team-1", "team-2", ""]) if user else "",
        session_id=chance.choice(["", "s1", "S1"]),
        agent_address=chance.choice(["", "agent1q", "agent1z"]),
        model=chance.choice(["asi1", "smollm2", "ü"]),
        stream=chance.random() < 0.5,
        estimated=chance.random() < 0.5,
        ttft_us=chance.choice([None, 0, 1234]),
        **{name: chance.randrange(1000) for name in FIGURES},
    )


def sees(whose: Whose, one: Entry) -> bool:
    """Whether somebody may see an entry."""
    if whose.kind == "all":
        return True
    return bool(whose.id) and getattr(one, f"{whose.kind}_id") == whose.id


def chosen(kept: Sequence[Entry], which: Filter) -> list[Entry]:
    """Return the entries a filter lets through, oldest first."""
    found = [
        one
        for one in kept
        if sees(which.whose, one)
        and (which.since_us is None or one.at_us >= which.since_us)
        and (which.until_us is None or one.at_us < which.until_us)
        and all(
            getattr(which, name) in {None, getattr(one, name)}
            for name in ("model", "key_id", "session_id", "agent_address")
        )
    ]
    return sorted(found, key=lambda one: (one.at_us, one.id))


def summed(kept: Sequence[Entry]) -> Sums:
    """Return what entries come to."""
    return Sums(requests=len(kept), **{name: sum(getattr(one, name) for one in kept) for name in FIGURES})


def grouped(kept: Sequence[Entry], by: Sequence[GroupBy]) -> list[Bucket]:
    """Return the sums of entries by group, in the order of the groups."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for one in kept:
        groups.setdefault(tuple(_value(one, name) for name in by), []).append(one)
    if not by:
        groups.setdefault((), [])
    return [Bucket(group=group, sums=summed(of)) for group, of in sorted(groups.items())]


def _value(one: Entry, by: GroupBy) -> str:
    at = datetime.fromtimestamp(one.at_us // 1_000_000, UTC)
    names: dict[str, str] = {
        "day": at.strftime("%Y-%m-%d"),
        "hour": at.strftime("%Y-%m-%dT%H"),
        "model": one.model,
        "key": one.key_id,
        "user": one.user_id,
        "team": one.team_id,
        "session": one.session_id,
        "agent": one.agent_address,
    }
    return names[by]
