"""How agents present themselves: what came, merged into what is there, within limits (LIST-07, -08, -11). Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET, UnsetType

from convene.errors import BadRequest
from convene.registry.attestation import check_url, checked_endpoints, checked_metadata, checked_protocols
from convene.registry.base_names import HANDLE, MAINNET
from convene.store.base_market import AgentRow, Endpoint, Listing, Profile

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME_MAX: Final = 32
OLD_NAME_MAX: Final = 80
"""Of libraries up to 0.3, which say so themselves (LIST-17)."""
HANDLE_MAX: Final = 40
DESCRIPTION_MAX: Final = 300
README_MAX: Final = 80_000
TYPE_MAX: Final = 40
PROMPTS_MAX: Final = 20
PROMPT_BYTES_MAX: Final = 2_000
WORDS_MAX: Final = 30
"""Tags, and skills; each of at most `WORD_MAX` characters."""
WORD_MAX: Final = 60
NEVER_US: Final = 2**62
"""When the record of an agent ends that was listed and does not register: `register_chat_agent` never comes again."""
POLE_DEG: Final = 90
FARTHEST_KM: Final = 20_100
"""Half way round."""
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


class ProfileChange(msgspec.Struct, frozen=True, kw_only=True):
    """What may come of a profile; what is absent or null stays."""

    description: str | UnsetType | None = UNSET
    readme: str | UnsetType | None = UNSET
    avatar_url: str | UnsetType | None = UNSET
    banner_url: str | UnsetType | None = UNSET
    starter_prompts: list[object] | UnsetType | None = UNSET


class ListingChange(msgspec.Struct, frozen=True, kw_only=True):
    """What may come of a listing; what is absent or null stays, and so do endpoints and protocols that are none."""

    address: str = ""
    name: str | UnsetType | None = UNSET
    handle: str | UnsetType | None = UNSET
    url: str | UnsetType | None = UNSET
    agent_type: str | UnsetType | None = UNSET
    prefix: str | UnsetType | None = UNSET
    profile: ProfileChange | UnsetType | None = UNSET
    endpoints: list[Endpoint] | UnsetType | None = UNSET
    protocols: list[str] | UnsetType | None = UNSET
    metadata: dict[str, object] | UnsetType | None = UNSET


def read_change(body: Mapping[str, object]) -> ListingChange:
    """Return what came, of the right types. Raises `BadRequest`."""
    try:
        return msgspec.convert(body, ListingChange)
    except (msgspec.ValidationError, RecursionError) as fault:
        raise BadRequest(f"Not a listing: {fault}.", code="invalid_listing") from None


def merge(row: AgentRow, change: ListingChange, now_us: int, keep_us: int, name_max: int = NAME_MAX) -> AgentRow:
    """Return the row with what came written over what was there, listed. Raises `BadRequest` naming the field."""
    metadata = checked_metadata(change.metadata or None)
    listing = _listing(row.listing, change, metadata, name_max)
    row = msgspec.structs.replace(row, listed=True, listing=listing)
    if change.prefix in {"agent", "test-agent"}:
        row = msgspec.structs.replace(row, prefix=str(change.prefix))
    if change.endpoints:
        row = msgspec.structs.replace(row, endpoints=checked_endpoints(change.endpoints))
    if change.protocols:
        row = msgspec.structs.replace(row, protocols=checked_protocols(change.protocols))
    if not (change.endpoints or change.protocols):
        return row
    comes_again = row.stamp and row.expires_us > now_us
    expires_us = now_us + keep_us if comes_again else NEVER_US
    return msgspec.structs.replace(row, registered_us=now_us, expires_us=expires_us)


def unlist(row: AgentRow) -> AgentRow:
    """Return the row without its listing and owner: what the agent has registered itself stays."""
    return msgspec.structs.replace(row, owner="", listed=False, listing=Listing())


def fresh(address: str) -> AgentRow:
    """Return the row of an agent that nobody knows yet."""
    return AgentRow(id=address, prefix=MAINNET)


def _listing(old: Listing, change: ListingChange, metadata: dict[str, object], name_max: int) -> Listing:
    name = _text("name", change.name, old.name, name_max)
    if not name and isinstance(change.name, str):
        raise BadRequest("Invalid 'name': wanted at least 1 character.", param="name")
    url = old.url
    if change.url is not UNSET and change.url is not None:
        url = change.url
        if url:
            check_url(url, "url")
    return Listing(
        name=name,
        handle=_handle(change.handle, old.handle),
        url=url,
        agent_type=_text("agent_type", change.agent_type, old.agent_type, TYPE_MAX),
        profile=_profile(old.profile, change.profile) if isinstance(change.profile, ProfileChange) else old.profile,
        skills=old.skills,
        tags=_tags(metadata) if metadata else old.tags,
        geo=_geo(metadata) if metadata else old.geo,
        metadata=metadata or old.metadata,
    )


def _profile(old: Profile, change: ProfileChange) -> Profile:
    prompts = old.starter_prompts
    if isinstance(change.starter_prompts, list):
        prompts = tuple(change.starter_prompts)
        if len(prompts) > PROMPTS_MAX or any(len(msgspec.json.encode(one)) > PROMPT_BYTES_MAX for one in prompts):
            raise BadRequest(
                f"Invalid 'profile.starter_prompts': wanted at most {PROMPTS_MAX} of {PROMPT_BYTES_MAX} bytes each.",
                param="profile.starter_prompts",
            )
    avatar_url = _text("profile.avatar_url", change.avatar_url, old.avatar_url, 4_000)
    banner_url = _text("profile.banner_url", change.banner_url, old.banner_url, 4_000)
    return Profile(
        description=_text("profile.description", change.description, old.description, DESCRIPTION_MAX),
        readme=_text("profile.readme", change.readme, old.readme, README_MAX),
        avatar_url=avatar_url,
        banner_url=banner_url,
        starter_prompts=prompts,
    )


def _text(field: str, came: str | UnsetType | None, old: str, longest: int) -> str:
    if not isinstance(came, str):
        return old
    if len(came) > longest:
        raise BadRequest(f"Invalid '{field}': {len(came)} characters, at most {longest}.", param=field)
    if field == "name" and _CONTROLS.search(came):
        raise BadRequest("Invalid 'name': wanted no control characters.", param="name")
    return came


def _handle(came: str | UnsetType | None, old: str) -> str:
    if not isinstance(came, str):
        return old
    handle = came.strip().removeprefix("@").lower()
    if handle and (len(handle) > HANDLE_MAX or not HANDLE.fullmatch(handle) or handle.startswith("agent1")):
        raise BadRequest(
            f"Invalid 'handle': wanted 1 to {HANDLE_MAX} of a-z, 0-9, '-', '_' and '.', no sign at an end, no address.",
            param="handle",
        )
    return handle


def _tags(metadata: Mapping[str, object]) -> tuple[str, ...]:
    """Return the words of `tags` and `categories`."""
    found: dict[str, None] = {}
    for name in ("tags", "categories"):
        words = metadata.get(name)
        for word in words if isinstance(words, list) else ():
            if isinstance(word, str) and 0 < len(word) <= WORD_MAX:
                found[word] = None
    return tuple(found)[:WORDS_MAX]


def _geo(metadata: Mapping[str, object]) -> tuple[float, float, float] | None:
    """Return latitude, longitude and radius, which come as numbers or as texts; None where they say no place."""
    place = metadata.get("geolocation")
    if not isinstance(place, dict):
        return None
    try:
        latitude, longitude = float(place["latitude"]), float(place["longitude"])
        radius = float(place.get("radius") or 0)
    except (KeyError, TypeError, ValueError):
        return None
    fits = abs(latitude) <= POLE_DEG and abs(longitude) <= 2 * POLE_DEG and 0 <= radius <= FARTHEST_KM
    return (latitude, longitude, radius) if fits else None
