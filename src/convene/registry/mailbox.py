"""Mailboxes: envelopes that wait until their agent fetches them (MBOX). Called by `api/mailbox.py`.

An agent has a mailbox if it has registered or listed one of this registry's as its endpoint. What comes must be signed
by its sender, so that nobody fills a mailbox in another's name.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from convene.errors import Busy, NotFound, TooLarge
from convene.moments import SECOND_US
from convene.registry.base_names import kind_of
from convene.registry.posted import check_sender, read_posted
from convene.store.base_market import Letter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convene.clock import Clock
    from convene.store.base_market import AgentRow, Market

LETTER_BYTES_MAX: Final = 4 * 1024 * 1024
"""Agents send texts of 2 MB and take them (ENVL-07); larger things belong into the storage."""
PAGE_BYTES_MAX: Final = 16 * 1024 * 1024
PAGE_MAX: Final = 50
"""What one poll gets; the rest comes with the next, a second later."""
UUID_BYTES: Final = 16


class Mailboxes:
    """A `MailDesk`."""

    def __init__(self, market: Callable[[], Market], clock: Clock, letters_max: int, keep_us: int) -> None:
        """`letters_max` wait for one agent, each for `keep_us`."""
        self._market = market
        self._clock = clock
        self._letters_max = letters_max
        self._keep_us = keep_us

    async def submit(self, body: bytes) -> None:
        """Keep an envelope (`base_desks.MailDesk`)."""
        if len(body) > LETTER_BYTES_MAX:
            raise TooLarge(f"An envelope for a mailbox has at most {LETTER_BYTES_MAX} bytes.")
        posted = read_posted(body)
        if not _has_mailbox(await self._market().get(posted.target)):
            raise NotFound("No agent of this address has a mailbox here.", code="mailbox_not_found", param="target")
        check_sender(posted)
        now_us = self._now_us()
        letter = Letter(
            uuid=str(uuid.UUID(bytes=self._clock.token(UUID_BYTES), version=4)),
            address=posted.target,
            envelope=body,
            received_us=now_us,
            expires_us=now_us + self._keep_us,
        )
        if not await self._market().drop(letter, self._letters_max):
            raise Busy(f"The mailbox is full: {self._letters_max} envelopes wait in it.", retry_after_s=60)

    async def waiting(self, address: str) -> Sequence[Letter] | None:
        """Return what waits (`base_desks.MailDesk`)."""
        found = await self._market().letters(address, self._now_us(), PAGE_MAX)
        if not found:
            return [] if _has_mailbox(await self._market().get(address)) else None
        size = 0
        page: list[Letter] = []
        for letter in found:
            size += len(letter.envelope)
            if page and size > PAGE_BYTES_MAX:
                break
            page.append(letter)
        return page

    async def take(self, address: str, uuid: str) -> bool:
        """Delete an envelope (`base_desks.MailDesk`)."""
        return await self._market().take(address, uuid)

    async def is_ready(self, address: str) -> bool:
        """Whether envelopes are taken (`base_desks.MailDesk`)."""
        return _has_mailbox(await self._market().get(address))

    def _now_us(self) -> int:
        return int(self._clock.now() * SECOND_US)


def _has_mailbox(row: AgentRow | None) -> bool:
    return row is not None and row.terms.enabled and kind_of(row) == "mailbox"
