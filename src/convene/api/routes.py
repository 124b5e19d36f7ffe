"""The route table: which path and method lead to which endpoint, and whether a key is needed. Pure look-up.

A route needs a key unless it says it is open (default deny). Every `/v1/...` path works without `/v1` and with doubled
slashes (OAI-31). A `{name}` at the end of a path takes all that is left, slashes included (OAI-61).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from convene.api.call import Call
from convene.api.problems import MethodNotAllowed
from convene.api.query import Parameter
from convene.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

Endpoint = Callable[[Call], Awaitable[None]]

_SLASHES = re.compile(r"/{2,}")


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One operation: what the router needs and what the API description says of it."""

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    open: bool = False
    query: tuple[Parameter, ...] = ()
    takes: type | None = None
    gives: type | None = None
    or_gives: type | None = None
    """A second shape of the same answer, by what was asked."""
    streams: bool = False
    repeatable: bool = False
    """Knows `Idempotency-Key`."""
    tag: str = "Chat"
    described: bool = True


class Router:
    """Finds routes. The tables are built once; a look-up of a plain path is one dictionary access."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact: dict[tuple[str, str], Route] = {}
        self._prefixes: list[tuple[str, Route]] = []
        self._methods: dict[str, list[str]] = {}
        for route in self.routes:
            for path in _spellings(route.path):
                self._add(path, route)

    def _add(self, path: str, route: Route) -> None:
        if path.endswith("}"):
            self._prefixes.append((path[: path.rindex("{")], route))
        else:
            self._exact[route.method, path] = route
        if route.described:
            self._methods.setdefault(path, []).append(route.method)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route and its path parameters. Raises `NotFound` (`unknown_url`) or `MethodNotAllowed`."""
        route = self._exact.get((method, path))
        if route is not None:
            return route, {}
        plain = _SLASHES.sub("/", path)
        if len(plain) > 1:
            plain = plain.rstrip("/") or "/"
        wanted = "GET" if method == "HEAD" else method
        route = self._exact.get((wanted, plain))
        if route is not None:
            return route, {}
        return self._find_prefix(wanted, method, plain)

    def _find_prefix(self, wanted: str, method: str, path: str) -> tuple[Route, dict[str, str]]:
        allowed = set(self._methods.get(path, ()))
        for prefix, route in self._prefixes:
            if path.startswith(prefix) and len(path) > len(prefix):
                if route.method == wanted:
                    name = route.path[route.path.rindex("{") + 1 : -1]
                    return route, {name: path[len(prefix) :]}
                if route.described:
                    allowed.add(route.method)
        if allowed:
            raise MethodNotAllowed(
                method, path[:200], tuple(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))
            )
        raise NotFound(
            f"Unknown path: {method} {path[:200]}. The API is under /v1 and described at /docs.", code="unknown_url"
        )


def _spellings(path: str) -> tuple[str, ...]:
    return (path, path.removeprefix("/v1")) if path.startswith("/v1/") else (path,)
