"""The keyless engine against the real public engines: only when asked for, because it needs the world.

    CONVENE_TEST_LIVE=1 .venv/bin/python -m pytest tests/live

It says whether the library still reads what those engines send today; nothing else in the suite can.
"""

from __future__ import annotations

import os

import pytest

from convene.config import Metasearch
from convene.tools.search_base import Query
from convene.tools.search_clean import present
from convene.tools.search_meta import MetaSearch

pytestmark = pytest.mark.skipif(
    not os.environ.get("CONVENE_TEST_LIVE"), reason="asks public search engines; set CONVENE_TEST_LIVE=1"
)


async def test_public_engines_find_a_page_about_a_well_known_thing() -> None:
    query = Query(text="Eiffel Tower height metres", count=5, language="en", country="US")

    hits = present(await MetaSearch(Metasearch().backends, None).search(query, 20.0), query)

    assert hits
    assert any("eiffel" in f"{hit.title} {hit.snippet}".lower() for hit in hits)


@pytest.mark.parametrize("backend", Metasearch().backends)
async def test_each_default_backend_is_one_that_the_library_has(backend: str) -> None:
    query = Query(text="Eiffel Tower", count=3)

    assert await MetaSearch((backend,), None).search(query, 20.0)
