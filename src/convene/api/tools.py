"""`GET /v1/tools`: what the server itself may call during an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.api.shapes_tools import ServerTool, ToolList, ToolNotice

if TYPE_CHECKING:
    from convene.api.call import Call
    from convene.serving.base_tools import ToolCard, ToolDesk


class ServerTools:
    """The endpoint."""

    def __init__(self, desk: ToolDesk) -> None:
        self._desk = desk

    async def list_all(self, call: Call) -> None:
        """Answer with every tool the caller may have, those that are down too."""
        data = [tool_of(card) for card in self._desk.cards(call.caller)]
        notices = [ToolNotice(one.code, one.message) for one in self._desk.notices(call.caller)]
        await call.reply_json(ToolList(data, notices))


def tool_of(card: ToolCard) -> ServerTool:
    """Return a card as clients see it."""
    spec = card.spec
    return ServerTool(
        name=spec.name,
        description=spec.description,
        parameters=spec.parameters,
        kind=spec.kind,
        labels=sorted(spec.labels),
        source=spec.source,
        available=card.available,
    )
