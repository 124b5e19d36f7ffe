"""Agents on the wire: hits in Agentverse's words, and in ours, with their health and the reason of their rank. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from convene.api import shapes_agents as shapes
from convene.api.shapes_usage import Money
from convene.moments import SECOND_US, iso

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.registry.base_search import Hit
    from convene.store.base_market import Tally

STARS: Final = 5.0
PROTOCOL: Final = "proto:"
WIRE_TYPES: Final = frozenset({"hosted", "local", "mailbox", "proxy", "custom", "uagent", "a2a"})
"""The kinds that Agentverse's clients know (SEARCH-02); another is shown as `custom`."""
WELL: Final = 0.6
POORLY: Final = 0.3
WORDS: Final = {
    "good": "It answers.",
    "new": "Nobody has asked it yet.",
    "shaky": "It did not answer the last time.",
    "unreachable": "It has not answered for some time.",
    "inactive": "It has signed off, or has not registered lately.",
}


def hit_of(hit: Hit) -> shapes.AgentHit:
    """Return a hit in Agentverse's words."""
    row, tally = hit.row, hit.row.tally
    listing, profile = row.listing, row.listing.profile
    return shapes.AgentHit(
        address=row.id,
        prefix=row.prefix,
        name=listing.name,
        description=profile.description,
        readme=profile.readme,
        protocols=[
            shapes.HitProtocol(name=one.name, version=one.version, digest=f"{PROTOCOL}{one.digest}")
            for one in hit.protocols
        ],
        avatar_href=profile.avatar_url or None,
        banner_href=profile.banner_url or None,
        total_interactions=tally.calls,
        recent_interactions=tally.calls,
        rating=round(STARS * hit.score.success, 2),
        status="inactive" if hit.health == "inactive" else "active",
        unresponsive=not hit.reachable,
        type=hit.kind if hit.kind in WIRE_TYPES else "custom",
        featured=False,
        category="community",
        system_wide_tags=list(listing.tags),
        geo_location=None
        if hit.geo is None
        else shapes.HitPlace(latitude=hit.geo[0], longitude=hit.geo[1], radius=hit.geo[2]),
        handle=listing.handle or None,
        domain=None,
        metadata=plain({**row.metadata, **listing.metadata}),
        last_updated=iso(row.changed_us),
        created_at=iso(row.created_us),
        recent_success_rate=rate(tally.successes, tally.calls),
        recent_eval_success_rate=rate(tally.useful, tally.judged),
        owner=None,
        recent_verified_interactions=tally.judged,
        recent_success_verified_interactions=tally.useful,
    )


def plain(metadata: Mapping[str, object]) -> shapes.Metadata:
    """Return metadata whose values are texts, lists of texts or objects of texts: clients refuse others (SEARCH-05)."""
    found: shapes.Metadata = {}
    for name, value in metadata.items():
        if isinstance(value, dict):
            found[name] = {str(key): text(one) for key, one in value.items()}
        elif isinstance(value, list | tuple):
            found[name] = [text(one) for one in value]
        else:
            found[name] = text(value)
    return found


def text(value: object) -> str:
    """Return a value of JSON as text: texts as they are, the rest as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def item_of(hit: Hit, currency: str, caller: str, *, query: str = "", readme: bool = False) -> shapes.AgentItem:
    """Return a hit in our words; `caller` is the owner that asks."""
    item = shapes.AgentItem(**_parts(hit, currency))
    if query:
        score = hit.score
        names = ("value", "relevance", "quality", "success", "health")
        item.score = shapes.AgentScore(**{name: round(getattr(score, name), 3) for name in names})
        item.why = why(hit)
    if readme:
        item.readme = hit.row.listing.profile.readme
    if caller and caller == hit.row.owner:
        item.seen = seen_of(hit.row.tally)
    return item


def admin_item_of(hit: Hit, currency: str) -> shapes.AdminAgent:
    """Return an agent as the operator sees it."""
    row = hit.row
    return shapes.AdminAgent(
        **_parts(hit, currency),
        seen=seen_of(row.tally),
        enabled=row.terms.enabled,
        owner=row.owner or None,
        listed=row.listed,
        endpoints=[endpoint.url for endpoint in row.endpoints],
        created_at=row.created_us / SECOND_US,
        registered_at=row.registered_us / SECOND_US if row.stamp else None,
        expires_at=row.expires_us / SECOND_US if row.expires_us else None,
    )


def seen_of(tally: Tally) -> shapes.Seen:
    """Return how often an agent was shown and chosen (PICK-08)."""
    return shapes.Seen(
        impressions=tally.impressions, picks=tally.picks, selection_rate=rate(tally.picks, tally.impressions)
    )


def rate(good: int, count: int) -> float | None:
    """Return a share; None of nothing."""
    return round(min(1.0, good / count), 4) if count else None


def why(hit: Hit) -> str:
    """Return the reason of a hit's rank in words."""
    score, tally = hit.score, hit.row.tally
    fit = "fits the question well" if score.relevance >= WELL else "fits the question"
    if score.relevance < POORLY:
        fit = "fits the question a little"
    parts = [fit, "presents itself well" if score.quality >= WELL else "says little of itself"]
    if tally.judged:
        parts.append(f"did what was asked in {tally.useful} of {tally.judged} judged answers")
    elif tally.calls:
        parts.append(f"answered {tally.successes} of {tally.calls} calls")
    else:
        parts.append("has not been asked yet")
    if not hit.reachable:
        parts.append("does not answer now")
    return f"It {', '.join(parts)}."


def _parts(hit: Hit, currency: str) -> dict[str, Any]:
    row, listing, tally = hit.row, hit.row.listing, hit.row.tally
    is_acp = row.protocol == "acp"
    return {
        "id": row.id,
        "protocol": row.protocol,
        "address": row.id if is_acp else None,
        "url": None if is_acp else listing.url or row.id,
        "name": listing.name,
        "handle": listing.handle or None,
        "description": listing.profile.description,
        "skills": list(listing.skills),
        "tags": list(listing.tags),
        "status": "inactive" if hit.health == "inactive" else "active",
        "health": hit.health,
        "health_words": WORDS[hit.health],
        "reachable": hit.reachable,
        "calls": tally.calls,
        "success_rate": rate(tally.successes, tally.calls),
        "answer_seconds": round(tally.seconds, 3) if tally.successes else None,
        "price": Money(currency, row.terms.price_micros),
    }
