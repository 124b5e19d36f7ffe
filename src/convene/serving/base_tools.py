"""The face of the server's own tools to `api/`: what a caller may have run during an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from convene.events import Noticed
from convene.tools.base import ToolSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.serving.base import Principal

__all__ = ["Noticed", "ToolCard", "ToolDesk", "ToolSpec"]


class ToolCard(msgspec.Struct, frozen=True):
    """One tool; not available while what offers it is down, or while there is nobody for it to ask."""

    spec: ToolSpec
    available: bool = True


class ToolDesk(Protocol):
    """Knows the tools."""

    def cards(self, principal: Principal) -> Sequence[ToolCard]:
        """Return every tool this caller may have, by name."""
        ...

    def notices(self, principal: Principal) -> Sequence[Noticed]:
        """Return what the caller should know of tools that cannot be had now."""
        ...
