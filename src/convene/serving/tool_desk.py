"""The tools of the server as its callers see them: the use case behind `GET /v1/tools`. Every key may have all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.serving.base_tools import ToolCard

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from convene.events import Noticed
    from convene.serving.base import Principal
    from convene.tools.base import Toolbox, ToolSpec


class ToolReader:
    """A `ToolDesk` over a box of tools."""

    def __init__(
        self,
        box: Toolbox,
        missing: Callable[[], Sequence[ToolSpec]],
        idle: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`missing` returns what was offered by those that are down now, `idle` names what no turn can use now."""
        self._box = box
        self._missing = missing
        self._idle = idle

    def cards(self, principal: Principal) -> Sequence[ToolCard]:
        """See `ToolDesk.cards`."""
        del principal
        cards = {spec.name: ToolCard(spec, available=False) for spec in self._missing()}
        idle = self._idle()
        cards |= {
            tool.spec.name: ToolCard(tool.spec, available=tool.spec.name not in idle) for tool in self._box.tools()
        }
        return [cards[name] for name in sorted(cards)]

    def notices(self, principal: Principal) -> Sequence[Noticed]:
        """See `ToolDesk.notices`."""
        del principal
        return self._box.notices()
