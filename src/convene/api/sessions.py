"""`/v1/sessions`: what is remembered of conversations, for their owner to see and to delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from convene.api.accounts_wire import read_page, reply
from convene.api.shapes_runs import SessionDeleted, SessionDetail, SessionList, SessionNote, SessionReply
from convene.moments import SECOND_US

if TYPE_CHECKING:
    from convene.api.call import Call
    from convene.serving.base_sessions import SessionDesk, SessionRecord


class SessionPages:
    """The endpoints."""

    def __init__(self, desk: SessionDesk) -> None:
        self._desk = desk

    async def list_mine(self, call: Call) -> None:
        """List the caller's sessions."""
        limit, after = read_page(call)
        page, more = await self._desk.page(call.caller, limit, after)
        await reply(call, SessionList(data=[session_of(record) for record in page], has_more=more))

    async def show(self, call: Call) -> None:
        """Show one, with what it remembers."""
        record, notes = await self._desk.show(call.caller, call.params["session"])
        shown = session_of(record)
        detail = SessionDetail(
            **msgspec.structs.asdict(shown),
            notes=[
                SessionNote(name=note.name, at=note.at_us / SECOND_US, value=msgspec.Raw(note.body)) for note in notes
            ],
        )
        await reply(call, detail)

    async def delete(self, call: Call) -> None:
        """Delete one."""
        await reply(call, SessionDeleted(id=await self._desk.forget(call.caller, call.params["session"])))


def session_of(record: SessionRecord) -> SessionReply:
    """Return a session as it is shown."""
    return SessionReply(
        id=record.id,
        conversation_id=record.conversation_id,
        created_at=record.created_us / SECOND_US,
        last_used_at=record.used_us / SECOND_US,
        bytes=record.size,
    )
