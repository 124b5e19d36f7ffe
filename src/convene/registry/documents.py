"""A row of the marketplace as the index needs it: words with weights, a text to embed, and facts to filter and rank by.

Pure. `agent_index.py` calls it. The whole row is kept packed (most of it is readme), and read back for hits alone.
"""

from __future__ import annotations

import hashlib
import sys
import zlib
from typing import TYPE_CHECKING, Final

import msgspec

from convene.registry.base_names import bare, kind_of
from convene.registry.lexical import Field
from convene.registry.ranking import Standing, quality, success
from convene.registry.words import fold, words
from convene.store.base_market import AgentRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.registry.base_search import ProtocolName

CHAT_PROTOCOL: Final = "proto:30a801ed3a83f9a0ff0a9f1e6fe958cb91da1fc2218b153df7b6cbf87bd33d62"
"""The Agent Chat Protocol 0.3.0: what this server asks ACP agents in (spec agents, section 3)."""
TOOL_PROTOCOL: Final = "proto:bc7aed33dbd44a2a415c513666b6f2504ba7ab63ba326dbe63efd86921c629dc"
"""The MCPProtocol 0.1.0: agents that lend the tools of an MCP server (ACP-14)."""
ASKED_BY: Final = (CHAT_PROTOCOL, TOOL_PROTOCOL)
README_CHARS_MAX: Final = 6000
"""How much of a readme is searched: its beginning says what the agent is for (a listing may have 80,000)."""
README_WORDS_MAX: Final = 600
EMBEDDED_CHARS: Final = 1200
"""Beginning of a listing that is embedded; small models read 256 tokens."""
PACK_LEVEL: Final = 1

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(AgentRow).decode


class Facts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What filters and ranking need of one agent, and its row, packed.

    It holds no other containers than tuples of texts, so the collector of cycles need not walk through it: a pass
    over all that 100,000 agents had would hold the loop for a third of a second.
    """

    id: str
    name: str
    """Folded."""
    handle: str
    kind: str
    agent_type: str
    digests: tuple[str, ...]
    tags: tuple[str, ...]
    """Folded. Tags and digests are the same for many agents, so each is kept once."""
    geo: tuple[float, float, float] | None
    standing: Standing
    quality: float
    success: float
    said_active: bool
    expires_us: int
    created_us: int
    changed_us: int
    text_key: bytes
    """Of all that is indexed as words or embedded."""
    packed: bytes

    def row(self) -> AgentRow:
        """Return the whole row."""
        return _unpack(zlib.decompress(self.packed))

    def is_active(self, now_us: int) -> bool:
        """Whether it is there, by what it has said: it has registered lately and not signed off (REG-04, REG-07)."""
        return self.said_active and (not self.expires_us or self.expires_us > now_us)


def facts_of(row: AgentRow, text_key: bytes) -> Facts:
    """Return the facts of a row."""
    listing, profile = row.listing, row.listing.profile
    digests = tuple(sys.intern(bare(digest)) for digest in row.protocols)
    standing = Standing(
        tally=row.tally,
        active=row.active,
        registered_us=row.registered_us,
        callable=row.protocol != "acp" or any(bare(one) in digests for one in ASKED_BY),
        readme_chars=len(profile.readme),
        description_chars=len(profile.description),
        skills=len(listing.skills),
        has_handle=bool(listing.handle),
        has_avatar=bool(profile.avatar_url),
    )
    return Facts(
        id=row.id,
        name=" ".join(fold(listing.name).split()),
        handle=listing.handle,
        kind=kind_of(row),
        agent_type=listing.agent_type,
        digests=digests,
        tags=tuple(sys.intern(fold(tag)) for tag in listing.tags),
        geo=geo_of(row),
        standing=standing,
        quality=quality(standing),
        success=success(standing.tally),
        said_active=row.active,
        expires_us=row.expires_us,
        created_us=row.created_us,
        changed_us=row.changed_us,
        text_key=text_key,
        packed=zlib.compress(_pack(row), PACK_LEVEL),
    )


def fields_of(row: AgentRow, names: Mapping[str, ProtocolName]) -> tuple[Field, ...]:
    """Return what is searched of a row, with how much each part says about what the agent is for."""
    listing, profile = row.listing, row.listing.profile
    return (
        Field(5.0, 3, words(listing.name)),
        Field(4.0, 2, words(listing.handle)),
        Field(4.0, 12, words(" \n".join(listing.skills), README_WORDS_MAX)),
        Field(4.0, 5, words(" \n".join(listing.tags), README_WORDS_MAX)),
        Field(3.0, 20, words(profile.description)),
        Field(1.0, 3, words(" \n".join(spoken(row, names)), README_WORDS_MAX)),
        Field(0.7, 200, words(profile.readme[:README_CHARS_MAX], README_WORDS_MAX)),
    )


def text_of(row: AgentRow) -> str:
    """Return the text that stands for a row's meaning; empty if it says nothing."""
    listing, profile = row.listing, row.listing.profile
    parts = (
        listing.name,
        profile.description,
        ", ".join(listing.skills),
        ", ".join(listing.tags),
        profile.readme[:EMBEDDED_CHARS],
    )
    return "\n".join(part.strip() for part in parts if part.strip())[:EMBEDDED_CHARS]


def key_of(row: AgentRow, names: Mapping[str, ProtocolName]) -> bytes:
    """Return a digest of all that is indexed of a row, to see whether it has changed."""
    listing, profile = row.listing, row.listing.profile
    parts = (
        listing.name,
        listing.handle,
        profile.description,
        profile.readme[:README_CHARS_MAX],
        listing.skills,
        listing.tags,
        tuple(spoken(row, names)),
    )
    return hashlib.blake2b(_pack(parts), digest_size=16).digest()


def spoken(row: AgentRow, names: Mapping[str, ProtocolName]) -> Sequence[str]:
    """Return the names of the protocols that an agent speaks."""
    return [known.name for digest in row.protocols if (known := names.get(bare(digest))) is not None]


def geo_of(row: AgentRow) -> tuple[float, float, float] | None:
    """Return where an agent belongs: by its listing, else by its registration, whose figures are texts (REG-14)."""
    if row.listing.geo is not None:
        return row.listing.geo
    given = row.metadata.get("geolocation")
    if not isinstance(given, dict):
        return None
    try:
        latitude, longitude, radius = (float(given[name]) for name in ("latitude", "longitude", "radius"))
    except (KeyError, TypeError, ValueError):
        return None
    fits = -90 <= latitude <= 90 and -180 <= longitude <= 180 and 0 <= radius < float("inf")  # noqa: PLR2004 -- degrees
    return (latitude, longitude, radius) if fits else None
