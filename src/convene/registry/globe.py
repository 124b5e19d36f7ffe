"""Which agents are near a place: circles on the globe in a grid of whole degrees. Pure; `agent_index.py` calls it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convene.registry.base_search import Circle

EARTH_KM: Final = 6371.0088
"""Mean radius."""
DEGREE_KM: Final = EARTH_KM * math.pi / 180
WIDE_KM: Final = 200.0
"""Agents for a wider area are few and looked at always, so that the grid need not reach far."""
CELLS_MAX: Final = 2000

Geo = tuple[float, float, float]


def distance_km(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """Return the way between two places given in degrees (haversine)."""
    phi, other_phi = math.radians(latitude), math.radians(other_latitude)
    half = math.sin((other_phi - phi) / 2) ** 2
    half += math.cos(phi) * math.cos(other_phi) * math.sin(math.radians(other_longitude - longitude) / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(half)))


class Globe:
    """Agents by where they are."""

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int], set[int]] = {}
        self._wide: set[int] = set()

    def put(self, place: int, geo: Geo) -> None:
        """Take an agent in."""
        self._home(geo).add(place)

    def take(self, place: int, geo: Geo) -> None:
        """Forget it."""
        self._home(geo).discard(place)

    def around(self, circle: Circle) -> Iterator[int]:
        """Yield all agents whose circles may meet this one, and some others."""
        reach = (circle.radius + WIDE_KM) / DEGREE_KM
        south, north = math.floor(circle.latitude - reach), math.floor(circle.latitude + reach)
        widest = max(abs(circle.latitude - reach), abs(circle.latitude + reach))
        east = 180.0 if widest >= 89 else min(180.0, reach / math.cos(math.radians(widest)))  # noqa: PLR2004 -- the poles
        first, last = math.floor(circle.longitude - east), math.floor(circle.longitude + east)
        yield from self._wide
        if (north - south + 1) * (last - first + 1) > CELLS_MAX:
            for places in self._cells.values():
                yield from places
            return
        columns = {(column + 180) % 360 - 180 for column in range(first, last + 1)}
        for row in range(max(south, -90), min(north, 90) + 1):
            for column in columns:
                yield from self._cells.get((row, column), ())

    def _home(self, geo: Geo) -> set[int]:
        latitude, longitude, radius = geo
        if radius > WIDE_KM:
            return self._wide
        cell = (math.floor(latitude), (math.floor(longitude) + 180) % 360 - 180)
        return self._cells.setdefault(cell, set())
