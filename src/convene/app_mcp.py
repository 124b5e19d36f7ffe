"""The composition of MCP servers: `[mcp.NAME]` to the box of their tools, for `app_tools.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from convene.config import ConfigError
from convene.http.client import ClientOptions
from convene.tools.mcp import McpBox, McpServer, McpSettings
from convene.tools.mcp_codec import McpFault
from convene.tools.mcp_exchange import Endpoint, Turned, Wire
from convene.tools.mcp_link import McpLink
from convene.tools.mcp_offer import Terms, make_offer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from convene.clock import Clock
    from convene.config import Mcp
    from convene.http.base import Client

_KEY_WRONG: Final = (401, 403)


def open_servers(servers: Mapping[str, Mcp], clock: Clock, connect: Callable[[ClientOptions], Client]) -> McpBox:
    """Return the box of the servers that are switched on. Nothing is asked before its `start`."""
    return McpBox([_server(name, one, clock, connect) for name, one in servers.items() if one.enabled])


def settings_of(name: str, server: Mcp) -> McpSettings:
    """Return how this server is asked."""
    headers = tuple((header, value.reveal()) for header, value in server.headers.items())
    if server.api_key and not any(header.lower() == "authorization" for header, _ in headers):
        headers = (("authorization", f"Bearer {server.api_key.reveal()}"), *headers)
    return McpSettings(
        endpoint=Endpoint(
            url=server.url, headers=headers, connect_s=server.connect_s, bytes_max=server.answer_bytes_max
        ),
        terms=Terms(
            server=name,
            allow=server.tools,
            labels=None if server.labels is None else frozenset(server.labels),
            timeout_s=server.timeout_s,
        ),
        refresh_s=server.refresh_s,
    )


def client_options(name: str, server: Mcp) -> ClientOptions:
    """Return how connections to this server are made. Raises `ConfigError` for a missing file."""
    if server.ca_file and not Path(server.ca_file).is_file():
        raise ConfigError(f"mcp.{name}.ca_file: there is no file {server.ca_file}")
    proxy = server.proxy.reveal() or None
    return ClientOptions(http_proxy=proxy, https_proxy=proxy, ca_file=server.ca_file or None)


async def look_at(name: str, server: Mcp, connect: Callable[[ClientOptions], Client]) -> tuple[bool, str, str]:
    """Greet a server and list its tools once, for `convene doctor`: whether that went well, what it found, what to do.

    Raises `ConfigError`.
    """
    settings = settings_of(name, server)
    client = connect(client_options(name, server))
    link = McpLink(Wire(client, settings.endpoint), lambda: None)
    try:
        session = await link.open()
        listed, unread = await link.list_tools()
    except Turned as fault:
        keys = fault.status in _KEY_WRONG
        return False, f"{server.url}: {fault}", f"mend mcp.{name}.{'api_key' if keys else 'url'}"
    except McpFault as fault:
        step = f"is it running, and mcp.{name}.url right? its tools are missing until it is"
        return False, f"{server.url}: {fault}", step
    finally:
        await link.aclose()
        await client.aclose()
    offer = make_offer(listed, settings.terms)
    found = f"{len(offer.tools)} tools, revision {session.version}"
    left_out = [*offer.left_out, *([f"{unread} entries of its list cannot be read"] if unread else [])]
    if left_out:
        return False, f"{found}; left out: {left_out[0]}", f"{len(left_out)} left out in all; the rest can be used"
    if not offer.tools:
        return False, found, f"nothing of its list is allowed by mcp.{name}.tools" if server.tools else "it lists none"
    return True, found, ""


def _server(name: str, server: Mcp, clock: Clock, connect: Callable[[ClientOptions], Client]) -> McpServer:
    return McpServer(connect(client_options(name, server)), settings_of(name, server), clock)
