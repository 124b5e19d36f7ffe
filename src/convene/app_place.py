"""Where others reach this server, for the composition root: links, the inbox of agents and mailboxes name it.

The system chooses the port where 0 is configured, so it is known when the server listens and not before.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convene.config import Config


class Place:
    """The address of one application. `app_serve.py` and `app_worker.py` say where it listens."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._known = asyncio.Event()
        self.port = config.port
        """0 until it is known."""
        if config.port or config.public_url:
            self._known.set()

    def listen_at(self, port: int) -> None:
        """Take the port that the server listens on."""
        self.port = port
        self._known.set()

    async def known(self) -> None:
        """Wait until the address is the right one."""
        await self._known.wait()

    @property
    def url(self) -> str:
        """The address, without a slash at the end."""
        return own_address(self._config, self.port)


def own_address(config: Config, port: int) -> str:
    """Return how others reach this server, as far as it knows, without a slash at the end."""
    host = "127.0.0.1" if config.host in ("", "0.0.0.0", "::") else config.host  # noqa: S104 -- compared, not bound
    bare = f"[{host}]" if ":" in host else host
    return (config.public_url or f"http://{bare}:{port}").rstrip("/")
