"""The composition of server-side tools: which the configuration offers, for `app.py`.

A part of the composition root. To add a tool, write it in `tools/` and add a line to `ToolRoom.open`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from convene.app_egress import open_egress
from convene.app_mcp import open_servers
from convene.app_search import SearchParts
from convene.tools.mcp import McpBox
from convene.tools.page_pool import PagePool
from convene.tools.web_fetch import WebFetch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from convene.clock import Clock
    from convene.config import Config
    from convene.egress import Egress
    from convene.events import Noticed
    from convene.http.base import Client
    from convene.http.client import ClientOptions
    from convene.tools.base import Tool, Toolbox, ToolSpec
    from convene.tools.mcp import McpServer


class FetchParts:
    """The tool `web_fetch` as a box of one, or of none where it is switched off."""

    def __init__(self, config: Config, egress: Egress) -> None:
        """`egress` is the server's one guarded way out."""
        settings = config.pages
        self._pool = PagePool(processes_max=settings.processes, read_s=settings.read_s)
        longest_s = config.egress.total_s + settings.read_s
        tool = WebFetch(egress, self._pool, chars=settings.chars, longest_s=longest_s)
        self._tools: tuple[Tool, ...] = (tool,) if settings.enabled else ()

    async def aclose(self) -> None:
        """End the processes that read pages."""
        await self._pool.aclose()

    def tools(self) -> Sequence[Tool]:
        """Return the tool; see `Toolbox`."""
        return self._tools

    def notices(self) -> Sequence[Noticed]:
        """Return nothing: a tool that is off is no news."""
        return ()


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
        agents: Toolbox | None = None,
    ) -> Self:
        """Build what is configured, and `more` and `agents` beside it; `connect` makes the client of a configured host.

        Nothing is asked yet.
        """
        search = SearchParts(config.search, clock, connect)
        fetch = FetchParts(config, open_egress(config.egress))
        servers = open_servers(config.mcp, clock, connect)
        boxes = (search.box, fetch) if agents is None else (search.box, fetch, agents)
        return cls(boxes, (search.aclose, fetch.aclose), servers, more)

    @property
    def servers(self) -> Sequence[McpServer]:
        """The MCP servers that are kept."""
        return self._servers.servers

    def start(self) -> None:
        """Begin the background work, as looking up what MCP servers offer; returns at once."""
        self._servers.start()

    async def asked(self) -> None:
        """Wait until everybody who may offer tools has been asked, also those that are down."""
        await self._servers.asked()

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
