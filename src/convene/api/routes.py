"""The route table: which path and method lead to which endpoint, and whether a key is needed. Pure look-up.

A route needs a key with its scope unless it says it is open (default deny). Every `/v1/...` path works without `/v1`
and with doubled slashes (OAI-31). A `{name}` at the end of a path takes all that is left, slashes included (OAI-61);
one in its middle takes one segment, and such a path wins over one that takes all that is left.
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
    scope: str = "api"
    """What a key must be allowed to do."""
    browser: bool = False
    """A browser session will do instead of a key."""
    query: tuple[Parameter, ...] = ()
    takes: type | None = None
    form: bool = False
    """Its body may also be a form, whose pictures are files."""
    gives: type | None = None
    or_gives: type | None = None
    """A second shape of the same answer, by what was asked."""
    streams: bool = False
    frames: type | None = None
    """What an answer that streams is made of, where it is no chat."""
    names: bool = False
    """Its query or body names something that may not exist; one in the path always may not."""
    refuses: bool = False
    """May answer 400 though it takes nothing that could be wrong: what it names is not in a state for it."""
    repeatable: bool = False
    """Knows `Idempotency-Key`."""
    tag: str = "Chat"
    described: bool = True

    @property
    def may_miss(self) -> bool:
        """Whether it may answer 404: something is named that may not exist."""
        return self.names or "{" in self.path


class Router:
    """Finds routes. The tables are built once; a look-up of a plain path is one dictionary access."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact: dict[tuple[str, str], Route] = {}
        self._patterns: list[tuple[re.Pattern[str], Route]] = []
        self._prefixes: list[tuple[str, Route]] = []
        self._methods: dict[str, list[str]] = {}
        for route in self.routes:
            for path in _spellings(route.path):
                self._add(path, route)

    def _add(self, path: str, route: Route) -> None:
        if "}/" in path:
            self._patterns.append((_pattern_of(path), route))
        elif path.endswith("}"):
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
        allowed = set(self._methods.get(plain, ()))
        if not allowed:
            for pattern, route in self._patterns:
                match = pattern.fullmatch(plain)
                if match is not None and route.method == wanted:
                    return route, match.groupdict()
                if match is not None and route.described:
                    allowed.add(route.method)
        return self._find_prefix(wanted, method, plain, allowed)

    def _find_prefix(self, wanted: str, method: str, path: str, allowed: set[str]) -> tuple[Route, dict[str, str]]:
        """Look among the paths that take all that is left, unless the path is one of the others."""
        for prefix, route in () if allowed else self._prefixes:
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


def _pattern_of(path: str) -> re.Pattern[str]:
    """Return what a path with parameters in its middle matches: one segment each, at the end all that is left."""
    parts = re.split(r"{(\w+)}", path)
    text = ""
    for place, part in enumerate(parts):
        is_last = place == len(parts) - 2 and not parts[-1]
        text += re.escape(part) if place % 2 == 0 else f"(?P<{part}>{'.+' if is_last else '[^/]+'})"
    return re.compile(text, re.DOTALL)


def _spellings(path: str) -> tuple[str, ...]:
    return (path, path.removeprefix("/v1")) if path.startswith("/v1/") else (path,)
