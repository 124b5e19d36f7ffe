"""The page for authors of agents says what they cannot find out by themselves."""

from __future__ import annotations

import re

import pytest

from repo.pages import pages


@pytest.fixture(scope="module")
def text() -> str:
    return " ".join(pages()["marketplace"].split())


@pytest.mark.req("REG-19")
def test_a_bureau_wants_the_argument_twice(text: str) -> None:
    assert re.search(r"`Bureau` \| `agentverse=` on every `Agent` \*\*and\*\* on the `Bureau`", text)


@pytest.mark.req("REG-20")
def test_the_forms_for_other_packages_are_named(text: str) -> None:
    assert 'AgentverseConfig(base_url="127.0.0.1:8000", http_prefix="http")' in text
    assert "http://handle:seed@127.0.0.1:8000/Name" in text


def test_the_one_argument_is_shown_as_it_works(text: str) -> None:
    assert 'agentverse="http://127.0.0.1:8000",' in text
    assert "without a slash at its end" in text
