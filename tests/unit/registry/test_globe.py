"""Circles that meet are found, over the date line and at the poles too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.registry.base_search import Circle
from convene.registry.globe import Globe, distance_km

LATITUDES, LONGITUDES = st.floats(-90, 90), st.floats(-180, 180)


@pytest.mark.parametrize(
    ("one", "other", "km"),
    [((52.52, 13.405), (48.8566, 2.3522), 878), ((0, 179.9), (0, -179.9), 22.2), ((90, 0), (90, 120), 0)],
)
def test_distances_are_those_of_the_globe(one: tuple[float, float], other: tuple[float, float], km: float) -> None:
    assert distance_km(*one, *other) == pytest.approx(km, rel=0.01, abs=0.01)


@given(
    st.lists(st.tuples(LATITUDES, LONGITUDES, st.floats(0, 6000)), max_size=20),
    LATITUDES,
    LONGITUDES,
    st.floats(0, 3000),
)
def test_no_agent_whose_circle_meets_another_is_missed(
    geos: list[tuple[float, float, float]], latitude: float, longitude: float, radius: float
) -> None:
    globe = Globe()
    for place, geo in enumerate(geos):
        globe.put(place, geo)
    around = set(globe.around(Circle(latitude, longitude, radius)))
    for place, geo in enumerate(geos):
        if distance_km(latitude, longitude, geo[0], geo[1]) <= radius + geo[2]:
            assert place in around


def test_far_agents_are_not_looked_at_and_taken_ones_are_gone() -> None:
    globe = Globe()
    rome, sydney = (41.9, 12.5, 1.0), (-33.9, 151.2, 1.0)
    globe.put(0, rome)
    globe.put(1, sydney)
    assert set(globe.around(Circle(41.8, 12.4, 10))) == {0}
    globe.take(0, rome)
    assert set(globe.around(Circle(41.8, 12.4, 10))) == set()
