"""The keys that the operator has set for agents, and where they may go: to the origin that he named, and nowhere else.

A card may name any address as the agent's, so a key follows the operator's words alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.egress_url import BadUrl, read_url

if TYPE_CHECKING:
    from collections.abc import Mapping

Headers = tuple[tuple[str, str], ...]

CARD_PATHS: Final = ("/.well-known/agent-card.json", "/.well-known/agent.json")
"""Where agents of the wires 1.0 and 0.3, and older ones, have their card."""


class Credentials:
    """Headers by the URL of an agent. They do not show in its `repr`."""

    def __init__(self, known: Mapping[str, Headers] | None = None) -> None:
        """`known` has them by the URLs that the operator wrote."""
        self._known = {key_of(url): (url, headers) for url, headers in (known or {}).items() if headers}

    def of(self, agent: str, target: str) -> Headers:
        """Return what goes along to `target` when `agent` is talked to."""
        found = self._known.get(key_of(agent))
        if found is None:
            return ()
        named, headers = found
        return headers if origin_of(named) == origin_of(target) is not None else ()


def key_of(url: str) -> str:
    """Return what an agent is known by: its URL without the path of its card and without a slash at the end."""
    for path in CARD_PATHS:
        url = url.removesuffix(path)
    return url.rstrip("/")


def origin_of(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port; None for what is no URL."""
    try:
        return read_url(url).origin
    except BadUrl:
        return None
