"""The marketplace in dictionaries: gone at exit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.store.base_market import FORGET_MAX, AgentRow, Listing, Tally
from convene.store.market_rows import agent_changed, handle_taken, tallied
from convene.store.memory_part import MemoryPart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.store.base_market import Asset, Challenge, Letter, Manifest, Registration, Seen, Terms

replace = msgspec.structs.replace
_KEPT: Final = ("stamp", "status_stamp", "active", "terms", "tally", "created_us")


class MemoryMarket(MemoryPart):
    """The marketplace of this process."""

    def __init__(self) -> None:
        self._rows: dict[str, AgentRow] = {}
        self._handles: dict[str, str] = {}
        self._letters: dict[str, Letter] = {}
        self._manifests: dict[str, Manifest] = {}
        self._challenges: dict[tuple[str, str], Challenge] = {}
        self._assets: dict[str, Asset] = {}
        self._version = 0

    async def register(self, registrations: Sequence[Registration], now_us: int) -> list[bool]:
        """Write records (`base_market.Market`)."""
        self._check_open()
        return [self._register(one, now_us) for one in registrations]

    async def set_status(self, agent_id: str, stamp: int, now_us: int, *, active: bool) -> bool:
        """Write a state (`base_market.Market`)."""
        row = self._get(agent_id)
        if row is None or stamp < max(row.status_stamp, row.stamp):
            return False
        self._put(replace(row, active=active, status_stamp=stamp, changed_us=now_us))
        return True

    async def list_agent(self, row: AgentRow, now_us: int) -> AgentRow:
        """Write a listing (`base_market.Market`). Raises `Conflict`."""
        self._check_open()
        handle = row.listing.handle
        if handle and self._handles.get(handle, row.id) != row.id:
            raise handle_taken(handle)
        known = self._rows.get(row.id)
        if row.version != (0 if known is None or known.removed else known.version):
            raise agent_changed()
        if known is None or known.removed:
            stamps = (0, 0) if known is None else (known.stamp, known.status_stamp)
            terms = row.terms if known is None else known.terms
            known = AgentRow(
                id=row.id,
                stamp=max(row.stamp, stamps[0]),
                status_stamp=max(row.status_stamp, stamps[1]),
                active=row.active,
                terms=terms,
                created_us=now_us,
            )
        kept = {name: getattr(known, name) for name in _KEPT}
        return self._put(replace(row, **kept, changed_us=now_us, removed=False))

    async def set_terms(self, agent_id: str, terms: Terms, now_us: int) -> bool:
        """Write the operator's terms (`base_market.Market`)."""
        row = self._get(agent_id)
        if row is not None:
            self._put(replace(row, terms=terms, changed_us=now_us))
        return row is not None

    async def remove(self, agent_id: str, now_us: int) -> bool:
        """Take an agent away (`base_market.Market`)."""
        row = self._get(agent_id)
        if row is None:
            return False
        self._put(
            replace(
                row,
                owner="",
                active=False,
                listed=False,
                listing=Listing(),
                tally=Tally(),
                changed_us=now_us,
                removed=True,
            )
        )
        self._letters = {uuid: letter for uuid, letter in self._letters.items() if letter.address != agent_id}
        return True

    async def get(self, agent_id: str) -> AgentRow | None:
        """Return an agent (`base_market.Market`)."""
        return self._get(agent_id)

    async def by_handle(self, handle: str) -> AgentRow | None:
        """Return the agent of a handle (`base_market.Market`)."""
        self._check_open()
        return self._get(self._handles.get(handle, ""))

    async def by_url(self, url: str) -> AgentRow | None:
        """Return the agent of a URL (`base_market.Market`)."""
        rows = [row for row in self._here() if url and row.listing.url == url]
        return min(rows, key=lambda row: (row.created_us, row.id), default=None)

    async def page(self, owner: str, limit: int, offset: int = 0) -> list[AgentRow]:
        """Return an owner's listed agents (`base_market.Market`)."""
        mine = [row for row in self._here() if row.listed and row.owner == owner]
        return sorted(mine, key=lambda row: (row.created_us, row.id), reverse=True)[offset : offset + limit]

    async def count(self) -> int:
        """Return how many agents there are (`base_market.Market`)."""
        return len(self._here())

    async def newer(self, version: int, limit: int) -> list[AgentRow]:
        """Return rows of a greater version (`base_market.Market`)."""
        self._check_open()
        rows = [row for row in self._rows.values() if row.version > version]
        return sorted(rows, key=lambda row: row.version)[:limit]

    async def speakers(self, protocol: str, now_us: int, limit: int) -> list[AgentRow]:
        """Return the agents of a protocol (`base_market.Market`)."""
        rows = [
            row
            for row in self._here()
            if row.active and row.expires_us > now_us and (not protocol or protocol in row.protocols)
        ]
        return sorted(rows, key=lambda row: (row.registered_us, row.id), reverse=True)[:limit]

    async def see(self, seen: Sequence[Seen]) -> None:
        """Count (`base_market.Market`)."""
        self._check_open()
        for one in seen:
            row = self._get(one.id)
            if row is not None:
                self._put(replace(row, tally=tallied(row.tally, one)))

    async def drop(self, letter: Letter, letters_max: int) -> bool:
        """Keep an envelope (`base_market.Market`)."""
        self._check_open()
        if sum(one.address == letter.address for one in self._letters.values()) >= letters_max:
            return False
        self._letters.setdefault(letter.uuid, letter)
        return True

    async def letters(self, address: str, now_us: int, limit: int) -> list[Letter]:
        """Return what waits (`base_market.Market`)."""
        self._check_open()
        mine = [one for one in self._letters.values() if one.address == address and one.expires_us > now_us]
        return sorted(mine, key=lambda one: (one.received_us, one.uuid))[:limit]

    async def take(self, address: str, uuid: str) -> bool:
        """Delete an envelope (`base_market.Market`)."""
        self._check_open()
        letter = self._letters.get(uuid)
        if letter is None or letter.address != address:
            return False
        del self._letters[uuid]
        return True

    async def publish(self, manifest: Manifest, manifests_max: int) -> bool:
        """Keep a protocol (`base_market.Market`)."""
        self._check_open()
        if manifest.digest not in self._manifests and len(self._manifests) >= manifests_max:
            return False
        known = self._manifests.setdefault(manifest.digest, manifest)
        if not known.body:
            self._manifests[manifest.digest] = replace(known, body=manifest.body)
        return True

    async def manifests(self, digests: Sequence[str] | None = None) -> list[Manifest]:
        """Return protocols (`base_market.Market`)."""
        self._check_open()
        known = sorted(self._manifests.values(), key=lambda one: one.digest)
        return [one for one in known if digests is None or one.digest in digests]

    async def challenge(self, challenge: Challenge) -> None:
        """Keep a challenge (`base_market.Market`)."""
        self._check_open()
        self._challenges[challenge.address, challenge.owner] = challenge

    async def answered(self, address: str, owner: str, text: str, now_us: int) -> bool:
        """Use a challenge up (`base_market.Market`)."""
        self._check_open()
        kept = self._challenges.get((address, owner))
        if kept is None or kept.text != text or kept.expires_us <= now_us:
            return False
        del self._challenges[address, owner]
        return True

    async def keep_asset(self, asset: Asset, assets_max: int) -> bool:
        """Keep a file (`base_market.Market`)."""
        self._check_open()
        known = self._assets.get(asset.id)
        if known is not None and known.owner != asset.owner:
            return False
        if known is None and sum(one.owner == asset.owner for one in self._assets.values()) >= assets_max:
            return False
        self._assets[asset.id] = asset
        return True

    async def asset(self, asset_id: str, now_us: int) -> Asset | None:
        """Return a file (`base_market.Market`)."""
        self._check_open()
        asset = self._assets.get(asset_id)
        return None if asset is None or asset.expires_us <= now_us else asset

    async def forget(self, now_us: int, removed_before_us: int) -> int:
        """Delete what has expired (`base_market.Market`)."""
        letters = [uuid for uuid, one in self._letters.items() if one.expires_us <= now_us]
        challenges = [key for key, one in self._challenges.items() if one.expires_us <= now_us]
        assets = [asset_id for asset_id, one in self._assets.items() if one.expires_us <= now_us]
        rows = [row.id for row in self._rows.values() if row.removed and row.changed_us < removed_before_us]
        idle = [row.id for row in self._here() if not row.listed and 0 < row.expires_us < removed_before_us]
        for uuid in letters:
            del self._letters[uuid]
        for key in challenges:
            del self._challenges[key]
        for asset_id in assets:
            del self._assets[asset_id]
        for row_id in rows:
            del self._rows[row_id]
        for row_id in idle[:FORGET_MAX]:
            await self.remove(row_id, now_us)
        return len(letters) + len(challenges) + len(assets) + len(rows) + len(idle[:FORGET_MAX])

    def close(self) -> None:
        """Forget everything."""
        super().close()
        for kept in (self._rows, self._handles, self._letters, self._manifests, self._challenges, self._assets):
            kept.clear()

    def _register(self, new: Registration, now_us: int) -> bool:
        known = self._rows.get(new.id)
        again = known is not None and new.stamp == known.stamp
        if known is not None and new.stamp <= known.stamp:
            same = (known.endpoints, known.protocols) == (new.endpoints, new.protocols)
            if not again or known.removed or not same:
                return False
        if known is None or known.removed:
            fresh = AgentRow(id=new.id, created_us=now_us)
            known = fresh if known is None else replace(known, created_us=now_us)
        self._put(
            replace(
                known,
                protocol=new.protocol,
                prefix=new.prefix,
                endpoints=new.endpoints,
                protocols=new.protocols,
                metadata=new.metadata,
                stamp=new.stamp,
                registered_us=now_us,
                expires_us=new.expires_us,
                active=known.active if again or known.status_stamp > new.stamp else True,
                changed_us=now_us,
                removed=False,
            )
        )
        return True

    def _put(self, row: AgentRow) -> AgentRow:
        self._version += 1
        old = self._rows.get(row.id)
        if old is not None:
            self._handles.pop(old.listing.handle, None)
        if row.listing.handle:
            self._handles[row.listing.handle] = row.id
        self._rows[row.id] = kept = replace(row, version=self._version)
        return kept

    def _get(self, agent_id: str) -> AgentRow | None:
        self._check_open()
        row = self._rows.get(agent_id)
        return None if row is None or row.removed else row

    def _here(self) -> list[AgentRow]:
        self._check_open()
        return [row for row in self._rows.values() if not row.removed]
