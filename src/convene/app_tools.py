"""The composition of server-side tools: which the configuration offers, for `app.py`.

A part of the composition root. To add a tool, write it in `tools/` and add a line to `ToolRoom.open`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from convene.app_mcp import open_servers
from convene.app_search import SearchParts
from convene.tools.mcp import McpBox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from convene.clock import Clock
    from convene.config import Config
    from convene.events import Noticed
    from convene.http.base import Client
    from convene.http.client import ClientOptions
    from convene.tools.base import Tool, Toolbox, ToolSpec
    from convene.tools.mcp import McpServer


class ToolRoom:
    """All tools of one server, as one box with a life cycle."""

    def __init__(
        self,
        boxes: Sequence[Toolbox],
        close: Sequence[Callable[[], Awaitable[None]]] = (),
        servers: McpBox | None = None,
        more: Sequence[Toolbox] = (),
    ) -> None:
        """`close` ends what the boxes use; `servers` has a life of its own and comes after them, then `more`."""
        self._servers = servers or McpBox(())
        self._boxes = (*boxes, self._servers, *more)
        self._close = tuple(close)
        self.general = bool(self._servers.servers or more)
        """Whether there may be tools that are offered without being asked for: others than search and fetch."""

    @classmethod
    def open(
        cls,
        config: Config,
        clock: Clock,
        connect: Callable[[ClientOptions], Client],
        more: Sequence[Toolbox] = (),
    ) -> Self:
        """Build what is configured, and `more` beside it; `connect` makes the client of a configured host.

        Nothing is asked yet.
        """
        search = SearchParts(config.search, clock, connect)
        return cls((search.box,), (search.aclose,), open_servers(config.mcp, clock, connect), more)

    @property
    def servers(self) -> Sequence[McpServer]:
        """The MCP servers that are kept."""
        return self._servers.servers

    def start(self) -> None:
        """Begin the background work, as looking up what MCP servers offer; returns at once."""
        self._servers.start()

    async def aclose(self) -> None:
        """End the background work and drop the connections."""
        await self._servers.aclose()
        for close in self._close:
            await close()

    def tools(self) -> Sequence[Tool]:
        """Return what can be called now (`tools.base.Toolbox`)."""
        return [tool for box in self._boxes for tool in box.tools()]

    def notices(self) -> Sequence[Noticed]:
        """Return what callers should know of tools that cannot be called now."""
        return [notice for box in self._boxes for notice in box.notices()]

    def missing(self) -> Sequence[ToolSpec]:
        """Return what was offered by those that are down now."""
        return self._servers.missing()
