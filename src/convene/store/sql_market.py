"""The marketplace in the tables `agents`, `letters`, `manifests` and others, of SQLite or Postgres.

Each change raises the number of the marketplace first, by as many as rows may change, and counts their versions back
from it. In Postgres that holds the row of the number until the commit, so changes follow each other, what a later
statement finds is still so when it is kept, and whoever reads what is newer misses nothing; SQLite's write lock does
the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.store.base_market import FORGET_MAX, NEWEST, AgentRow, Asset, Challenge, Letter, Manifest
from convene.store.market_rows import KINDS, agent_changed, columns_of, handle_taken, row_of
from convene.store.schema import type_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.store.base_market import Registration, Seen, Terms
    from convene.store.schema import Dialect, Type
    from convene.store.sql import Change, Database

# ruff: noqa: S608 -- all that is put together here are constants

_ALL: Final = ", ".join(KINDS)
_SELECT: Final = f"SELECT {_ALL} FROM agents "
_RAISE: Final = (
    "INSERT INTO revisions (name, number) VALUES ('market', ?) "
    "ON CONFLICT (name) DO UPDATE SET number = revisions.number + excluded.number"
)
_VERSION: Final = "((SELECT number FROM revisions WHERE name = 'market') - ?)"
_HERE: Final = "removed = 0"

_REGISTERED: Final = (
    "id, protocol, prefix, endpoints, protocols, metadata, stamp, registered_us, expires_us, created_us, changed_us"
)
_FRESH: Final = AgentRow(id="")
_REST: Final = {
    name: value
    for name, value in columns_of(_FRESH).items()
    if name not in _REGISTERED.split(", ") and name not in {"active", "removed"}
}
_REGISTER: Final = (
    f"INSERT INTO agents ({_REGISTERED}, {', '.join(_REST)}, active, removed, version) "
    f"VALUES ({', '.join('?' * (len(_REGISTERED.split(', ')) + len(_REST)))}, 1, 0, {_VERSION}) "
    "ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(
        f"{name} = excluded.{name}"
        for name in (
            *("protocol", "prefix", "endpoints", "protocols", "metadata", "stamp"),
            *("registered_us", "expires_us", "changed_us", "version", "removed"),
        )
    )
    + ", active = CASE WHEN agents.status_stamp > excluded.stamp OR agents.stamp = excluded.stamp "
    "THEN agents.active ELSE 1 END"
    ", created_us = CASE WHEN agents.removed = 1 THEN excluded.created_us ELSE agents.created_us END"
    " WHERE excluded.stamp > agents.stamp OR (excluded.stamp = agents.stamp AND agents.removed = 0 "
    "AND excluded.endpoints = agents.endpoints AND excluded.protocols = agents.protocols)"
)
_IS_OURS: Final = f"EXISTS (SELECT 1 FROM agents WHERE id = ? AND version = {_VERSION})"
_FORGET_PROTOCOLS: Final = "DELETE FROM agent_protocols WHERE agent_id = ?"
_SPEAKS: Final = (
    f"INSERT INTO agent_protocols (digest, agent_id) SELECT CAST(? AS TEXT), id FROM agents WHERE id = ? "
    f"AND version = {_VERSION} ON CONFLICT DO NOTHING"
)
_STATUS: Final = (
    f"UPDATE agents SET active = ?, status_stamp = ?, changed_us = ?, version = {_VERSION} "
    f"WHERE id = ? AND {_HERE} AND status_stamp <= ? AND stamp <= ?"
)
_TERMS: Final = f"UPDATE agents SET terms = ?, changed_us = ?, version = {_VERSION} WHERE id = ? AND {_HERE}"
_GONE: Final = {
    name: value
    for name, value in columns_of(_FRESH).items()
    if name in {"owner", "listed", "handle", "url", "listing"} or name in _FRESH.tally.__struct_fields__
}
_REMOVE: Final = (
    f"UPDATE agents SET {', '.join(f'{name} = ?' for name in _GONE)}, active = 0, removed = 1, changed_us = ?, "
    f"version = {_VERSION} WHERE id = ? AND {_HERE}"
)
_SPEAKERS: Final = (
    f"{_SELECT} WHERE {_HERE} AND active = 1 AND expires_us > ? AND id IN (SELECT agent_id FROM agent_protocols "
    "WHERE digest = ?) ORDER BY registered_us DESC, id DESC LIMIT ?"
)
_RECENT: Final = (
    f"{_SELECT} WHERE {_HERE} AND active = 1 AND expires_us > ? ORDER BY registered_us DESC, id DESC LIMIT ?"
)
_SEE: Final = (
    "UPDATE agents SET calls = calls + ?, successes = successes + ?, judged = judged + ?, useful = useful + ?, "
    "failures_in_row = (failures_in_row + ?) * (1 - ?), "
    "answered_us = CASE WHEN ? > answered_us THEN ? ELSE answered_us END, "
    "failed_us = CASE WHEN ? > failed_us THEN ? ELSE failed_us END, "
    "seconds = CASE WHEN ? = 0 THEN seconds WHEN answered_us = 0 THEN CAST(? AS DOUBLE PRECISION) "
    f"ELSE seconds + (CAST(? AS DOUBLE PRECISION) - seconds) * {NEWEST} END, "
    f"impressions = impressions + ?, picks = picks + ?, version = {_VERSION} WHERE id = ? AND {_HERE}"
)
_ASSET: Final = f"SELECT {', '.join(Asset.__struct_fields__)} FROM assets WHERE id = ? AND expires_us > ?"
_LETTERS: Final = (
    f"SELECT {', '.join(Letter.__struct_fields__)} FROM letters WHERE address = ? AND expires_us > ? "
    "ORDER BY received_us, uuid LIMIT ?"
)
_CHALLENGE: Final = (
    f"INSERT INTO challenges ({', '.join(Challenge.__struct_fields__)}) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (address, owner) DO UPDATE SET text = excluded.text, expires_us = excluded.expires_us"
)
_LETTER_KINDS: Final[Mapping[str, Type]] = {
    "uuid": "text",
    "address": "text",
    "envelope": "blob",
    "received_us": "int",
    "expires_us": "int",
}
_MANIFEST_KINDS: Final[Mapping[str, Type]] = {"digest": "text", "name": "text", "version": "text", "body": "blob"}
_ASSET_KINDS: Final[Mapping[str, Type]] = {
    "id": "text",
    "owner": "text",
    "name": "text",
    "media_type": "text",
    "contents": "blob",
    "expires_us": "int",
    "readers": "blob",
    "writers": "blob",
}
_READERS: Final = msgspec.json.Decoder(tuple[str, ...])


class SqlMarket:
    """The marketplace in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        holes = _holes({name: kind for name, kind in KINDS.items() if name != "version"}, database.dialect)
        columns = ", ".join(name for name in KINDS if name != "version")
        kept = (
            "id",
            "stamp",
            "status_stamp",
            "active",
            "terms",
            "created_us",
            "removed",
            *_FRESH.tally.__struct_fields__,
        )
        written = tuple(name for name in KINDS if name not in kept)
        made = ("active", "created_us")
        newer = (
            f"{name} = CASE WHEN agents.removed = 0 OR agents.{name} > excluded.{name} THEN agents.{name} "
            f"ELSE excluded.{name} END"
            for name in ("stamp", "status_stamp")
        )
        self._list = (
            f"INSERT INTO agents ({columns}, version) SELECT {holes}, {_VERSION} "
            "WHERE NOT EXISTS (SELECT 1 FROM agents WHERE handle = ? AND handle <> '' AND id <> ?) "
            "AND (CAST(? AS BIGINT) = 0 OR EXISTS (SELECT 1 FROM agents WHERE id = ?)) ON CONFLICT (id) DO UPDATE SET "
            + ", ".join(
                (
                    *(f"{name} = excluded.{name}" for name in written),
                    *(
                        f"{name} = CASE WHEN agents.removed = 1 THEN excluded.{name} ELSE agents.{name} END"
                        for name in made
                    ),
                    *newer,
                    "removed = 0",
                )
            )
            + " WHERE (CASE WHEN agents.removed = 1 THEN 0 ELSE agents.version END) = ?"
        )
        self._drop = (
            f"INSERT INTO letters ({', '.join(_LETTER_KINDS)}) SELECT {_holes(_LETTER_KINDS, database.dialect)} "
            "WHERE (SELECT count(*) FROM letters WHERE address = ?) < ? ON CONFLICT DO NOTHING"
        )
        self._publish = (
            f"INSERT INTO manifests ({', '.join(_MANIFEST_KINDS)}) SELECT {_holes(_MANIFEST_KINDS, database.dialect)} "
            "WHERE (SELECT count(*) FROM manifests WHERE digest <> ?) < ? ON CONFLICT (digest) DO UPDATE "
            "SET body = excluded.body WHERE length(manifests.body) = 0"
        )
        self._keep_asset = (
            f"INSERT INTO assets ({', '.join(_ASSET_KINDS)}) SELECT {_holes(_ASSET_KINDS, database.dialect)} "
            "WHERE (SELECT count(*) FROM assets WHERE owner = ? AND id <> ?) < ? ON CONFLICT (id) DO UPDATE SET "
            + ", ".join(f"{name} = excluded.{name}" for name in _ASSET_KINDS if name not in {"id", "owner"})
            + " WHERE assets.owner = excluded.owner"
        )

    async def register(self, registrations: Sequence[Registration], now_us: int) -> list[bool]:
        """Write records (`base_market.Market`). Raises `StoreFault`."""
        changes: list[Change] = [(_RAISE, (len(registrations),))]
        places: list[int] = []
        last = len(registrations) - 1
        for place, one in enumerate(registrations):
            back = last - place
            places.append(len(changes))
            record = (
                *(one.id, one.protocol, one.prefix),
                *(msgspec.json.encode(part) for part in (one.endpoints, one.protocols, one.metadata)),
                *(one.stamp, now_us, one.expires_us, now_us, now_us),
            )
            changes.append((_REGISTER, (*record, *_REST.values(), back)))
            protocols = tuple(dict.fromkeys(one.protocols))
            changes.append(_shed(one.id, protocols, back))
            changes += [(_SPEAKS, (digest, one.id, back)) for digest in protocols]
        done = await self._database.write(changes)
        return [done[place] == 1 for place in places]

    async def set_status(self, agent_id: str, stamp: int, now_us: int, *, active: bool) -> bool:
        """Write a state (`base_market.Market`). Raises `StoreFault`."""
        return await self._change(_STATUS, (int(active), stamp, now_us, 0, agent_id, stamp, stamp))

    async def list_agent(self, row: AgentRow, now_us: int) -> AgentRow:
        """Write a listing (`base_market.Market`). Raises `Conflict` and `StoreFault`."""
        fresh = msgspec.structs.replace(row, tally=_FRESH.tally, created_us=now_us, changed_us=now_us, removed=False)
        handle = row.listing.handle
        values = (*columns_of(fresh).values(), 0, handle, row.id, row.version, row.id, row.version)
        if not await self._change(self._list, values):
            taken = await self.by_handle(handle)
            raise handle_taken(handle) if taken is not None and taken.id != row.id else agent_changed()
        written = await self.get(row.id)
        if written is None:  # somebody has removed it since
            raise agent_changed()
        return written

    async def set_terms(self, agent_id: str, terms: Terms, now_us: int) -> bool:
        """Write the operator's terms (`base_market.Market`). Raises `StoreFault`."""
        return await self._change(_TERMS, (msgspec.json.encode(terms), now_us, 0, agent_id))

    async def remove(self, agent_id: str, now_us: int) -> bool:
        """Take an agent away (`base_market.Market`). Raises `StoreFault`."""
        return bool((await self._database.write(_removal(agent_id, now_us)))[1])

    async def get(self, agent_id: str) -> AgentRow | None:
        """Return an agent (`base_market.Market`). Raises `StoreFault`."""
        return await self._one("WHERE id = ? AND removed = 0", agent_id)

    async def by_handle(self, handle: str) -> AgentRow | None:
        """Return the agent of a handle (`base_market.Market`). Raises `StoreFault`."""
        return await self._one("WHERE handle = ? AND handle <> '' AND removed = 0", handle)

    async def by_url(self, url: str) -> AgentRow | None:
        """Return the agent of a URL (`base_market.Market`). Raises `StoreFault`."""
        return await self._one("WHERE url = ? AND url <> '' AND removed = 0 ORDER BY created_us, id LIMIT 1", url)

    async def page(self, owner: str, limit: int, offset: int = 0) -> list[AgentRow]:
        """Return an owner's listed agents (`base_market.Market`). Raises `StoreFault`."""
        order = "WHERE owner = ? AND listed = 1 AND removed = 0 ORDER BY created_us DESC, id DESC LIMIT ? OFFSET ?"
        return await self._some(_SELECT + order, (owner, limit, offset))

    async def count(self) -> int:
        """Return how many agents there are (`base_market.Market`). Raises `StoreFault`."""
        [[number]] = await self._database.rows(f"SELECT count(*) FROM agents WHERE {_HERE}")
        return int(number)

    async def newer(self, version: int, limit: int) -> list[AgentRow]:
        """Return rows of a greater version (`base_market.Market`). Raises `StoreFault`."""
        return await self._some(f"{_SELECT} WHERE version > ? ORDER BY version LIMIT ?", (version, limit))

    async def speakers(self, protocol: str, now_us: int, limit: int) -> list[AgentRow]:
        """Return the agents of a protocol (`base_market.Market`). Raises `StoreFault`."""
        if protocol:
            return await self._some(_SPEAKERS, (now_us, protocol, limit))
        return await self._some(_RECENT, (now_us, limit))

    async def see(self, seen: Sequence[Seen]) -> None:
        """Count (`base_market.Market`). Raises `StoreFault`."""
        if seen:
            last = len(seen) - 1
            sights = [_sight(one, last - place) for place, one in enumerate(seen)]
            await self._database.write([(_RAISE, (len(seen),)), *sights])

    async def drop(self, letter: Letter, letters_max: int) -> bool:
        """Keep an envelope (`base_market.Market`). Raises `StoreFault`."""
        values = (*msgspec.structs.astuple(letter), letter.address, letters_max)
        return bool((await self._database.write([(self._drop, values)]))[0])

    async def letters(self, address: str, now_us: int, limit: int) -> list[Letter]:
        """Return what waits (`base_market.Market`). Raises `StoreFault`."""
        rows = await self._database.rows(_LETTERS, (address, now_us, limit))
        return [
            Letter(uuid=uuid, address=whose, envelope=bytes(envelope), received_us=received_us, expires_us=expires_us)
            for uuid, whose, envelope, received_us, expires_us in rows
        ]

    async def take(self, address: str, uuid: str) -> bool:
        """Delete an envelope (`base_market.Market`). Raises `StoreFault`."""
        change = "DELETE FROM letters WHERE uuid = ? AND address = ?", (uuid, address)
        return bool((await self._database.write([change]))[0])

    async def publish(self, manifest: Manifest, manifests_max: int) -> bool:
        """Keep a protocol (`base_market.Market`). Raises `StoreFault`."""
        change = self._publish, (*msgspec.structs.astuple(manifest), manifest.digest, manifests_max)
        return bool((await self._database.write([change]))[0]) or bool(await self.manifests([manifest.digest]))

    async def manifests(self, digests: Sequence[str] | None = None) -> list[Manifest]:
        """Return protocols (`base_market.Market`). Raises `StoreFault`."""
        if digests is not None and not digests:
            return []
        among = "" if digests is None else f"WHERE digest IN ({', '.join('?' * len(digests))}) "
        rows = await self._database.rows(
            f"SELECT digest, name, version, body FROM manifests {among}ORDER BY digest", tuple(digests or ())
        )
        return [
            Manifest(digest=digest, name=name, version=version, body=bytes(body))
            for digest, name, version, body in rows
        ]

    async def challenge(self, challenge: Challenge) -> None:
        """Keep a challenge (`base_market.Market`). Raises `StoreFault`."""
        await self._database.write([(_CHALLENGE, msgspec.structs.astuple(challenge))])

    async def answered(self, address: str, owner: str, text: str, now_us: int) -> bool:
        """Use a challenge up (`base_market.Market`). Raises `StoreFault`."""
        statement = "DELETE FROM challenges WHERE address = ? AND owner = ? AND text = ? AND expires_us > ?"
        return bool((await self._database.write([(statement, (address, owner, text, now_us))]))[0])

    async def keep_asset(self, asset: Asset, assets_max: int) -> bool:
        """Keep a file (`base_market.Market`). Raises `StoreFault`."""
        *values, readers, writers = msgspec.structs.astuple(asset)
        lists = (msgspec.json.encode(readers), msgspec.json.encode(writers))
        change = self._keep_asset, (*values, *lists, asset.owner, asset.id, assets_max)
        return bool((await self._database.write([change]))[0])

    async def asset(self, asset_id: str, now_us: int) -> Asset | None:
        """Return a file (`base_market.Market`). Raises `StoreFault`."""
        for found, owner, name, media_type, contents, expires_us, readers, writers in await self._database.rows(
            _ASSET, (asset_id, now_us)
        ):
            return Asset(
                id=found,
                owner=owner,
                name=name,
                media_type=media_type,
                contents=bytes(contents),
                expires_us=expires_us,
                readers=_READERS.decode(readers),
                writers=_READERS.decode(writers),
            )
        return None

    async def forget(self, now_us: int, removed_before_us: int) -> int:
        """Delete what has expired (`base_market.Market`). Raises `StoreFault`."""
        idle = await self._database.rows(
            f"SELECT id FROM agents WHERE {_HERE} AND listed = 0 AND expires_us > 0 AND expires_us < ? LIMIT ?",
            (removed_before_us, FORGET_MAX),
        )
        expired: list[Change] = [
            (f"DELETE FROM {table} WHERE expires_us <= ?", (now_us,)) for table in ("letters", "challenges", "assets")
        ]
        gone: Change = "DELETE FROM agents WHERE removed = 1 AND changed_us < ?", (removed_before_us,)
        removals = [change for [agent_id] in idle for change in _removal(agent_id, now_us)]
        done = await self._database.write([(_RAISE, (1,)), *expired, gone, *removals])
        return sum(done[1:5]) + len(idle)

    async def _change(self, statement: str, values: Sequence[object]) -> bool:
        """Change one row, whose version is the new number; return whether it was changed."""
        return bool((await self._database.write([(_RAISE, (1,)), (statement, values)]))[1])

    async def _one(self, condition: str, value: str) -> AgentRow | None:
        return next(iter(await self._some(_SELECT + condition, (value,))), None)

    async def _some(self, statement: str, values: Sequence[object]) -> list[AgentRow]:
        return [row_of(row) for row in await self._database.rows(statement, values)]


def _holes(kinds: Mapping[str, Type], dialect: Dialect) -> str:
    """Return holes of stated types: Postgres must be told what a hole in a SELECT is of."""
    return ", ".join(f"CAST(? AS {type_of(kind, dialect)})" for kind in kinds.values())


def _shed(agent_id: str, protocols: Sequence[str], back: int) -> Change:
    """Forget the protocols that an agent has registered before and does not any more."""
    others = f" AND digest NOT IN ({', '.join('?' * len(protocols))})" if protocols else ""
    return f"{_FORGET_PROTOCOLS}{others} AND {_IS_OURS}", (agent_id, *protocols, agent_id, back)


def _removal(agent_id: str, now_us: int) -> list[Change]:
    return [
        (_RAISE, (1,)),
        (_REMOVE, (*_GONE.values(), now_us, 0, agent_id)),
        (_FORGET_PROTOCOLS, (agent_id,)),
        ("DELETE FROM letters WHERE address = ?", (agent_id,)),
    ]


def _sight(seen: Seen, back: int) -> Change:
    good = int(seen.outcome == "success")
    bad = int(seen.outcome in {"failed", "timed_out"})
    answered, failed = seen.at_us * good, seen.at_us * bad
    return _SEE, (
        *(int(seen.outcome is not None), good, int(seen.useful is not None), int(seen.useful is True), bad, good),
        *(answered, answered, failed, failed, good, seen.seconds, seen.seconds, seen.shown, seen.picked),
        *(back, seen.id),
    )
