"""Doubles for the guarded way out: names that resolve as a test says, and a wire that only notes what it is asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from convene.egress import Egress, Hop, Rules, WireFault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

PUBLIC = "93.184.216.34"


class Names:
    """A `Lookup` over a table; `turns` are answers that come first. Names in neither resolve to `otherwise`."""

    def __init__(self, table: Mapping[str, Sequence[str] | Exception] | None = None, otherwise: str = "") -> None:
        self.table = dict(table or {})
        self.otherwise = otherwise
        self.asked: list[str] = []
        self.turns: dict[str, list[Sequence[str]]] = {}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        del port
        self.asked.append(host)
        if self.turns.get(host):
            return self.turns[host].pop(0)
        found = self.table.get(host, [self.otherwise] if self.otherwise else OSError("no such name"))
        if isinstance(found, Exception):
            raise found
        return found


class Told(msgspec.Struct, kw_only=True):
    """What the wire answers."""

    status: int = 200
    headers: dict[str, str] = {}
    pieces: tuple[bytes, ...] = ()
    fault: WireFault | None = None
    body_fault: WireFault | None = None
    waits_s: float = 0.0


class ToldReply:
    """A `Reply` that says what it was told; `closed` counts."""

    def __init__(self, told: Told) -> None:
        self.status = told.status
        self.headers: Mapping[str, str] = told.headers
        self.closed = 0
        self._told = told

    async def chunks(self) -> AsyncGenerator[bytes]:
        for piece in self._told.pieces:
            yield piece
        if self._told.body_fault is not None:
            raise self._told.body_fault

    def close(self) -> None:
        self.closed += 1


class NotedWire:
    """A `Wire` without a network."""

    def __init__(self, answer: Callable[[Hop], Told] | None = None) -> None:
        self.hops: list[Hop] = []
        self.replies: list[ToldReply] = []
        self._answer = answer or (lambda _: Told())

    async def send(self, hop: Hop) -> ToldReply:
        self.hops.append(hop)
        told = self._answer(hop)
        if told.waits_s:
            await asyncio.sleep(told.waits_s)
        if told.fault is not None:
            raise told.fault
        reply = ToldReply(told)
        self.replies.append(reply)
        return reply


def pages(table: Mapping[str, Told]) -> Callable[[Hop], Told]:
    """Answer each URL as the table says, 404 otherwise."""
    return lambda hop: table.get(hop.place.url, Told(status=404))


def guarded(
    wire: NotedWire | None = None, names: Names | None = None, rules: Rules | None = None
) -> tuple[Egress, NotedWire, Names]:
    """Return a way out over doubles; every name leads to one public address unless `names` says otherwise."""
    wire = wire or NotedWire()
    names = names or Names(otherwise=PUBLIC)
    return Egress(rules or Rules(), names, wire), wire, names
