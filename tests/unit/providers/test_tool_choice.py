"""Choosing a tool by similarity: thresholds, ties, and what is kept of earlier requests."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convene.messages import FunctionTool
from convene.providers.tool_choice import (
    EACH_THRESHOLD,
    SENTENCES_MAX,
    TEXT_CHARS_MAX,
    Meant,
    ToolChooser,
    describe_tool,
    normalise_vector,
)
from unit.providers.local_doubles import FINISH, SUM, VECTORS, WEATHER, TableEmbeddings

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    ("name", "description", "text"),
    [
        ("get_weather", "Tell the weather", "get weather: Tell the weather"),
        ("getWeather", "", "get weather"),
        ("web-search", "", "web search"),
        ("HTTPGet", "", "HTTPGet"),
        ("a.b__c", "x", "a b c: x"),
    ],
)
@pytest.mark.req("TOOLS-02")
def test_a_tool_is_described_by_its_name_in_words_and_its_description(name: str, description: str, text: str) -> None:
    assert describe_tool(FunctionTool(name, description)) == text


def test_a_long_description_is_cut() -> None:
    assert len(describe_tool(FunctionTool("f", "x" * 5000))) == TEXT_CHARS_MAX


async def test_the_most_similar_tool_is_chosen_whatever_the_vectors_length() -> None:
    chooser = ToolChooser(TableEmbeddings(VECTORS))
    assert await chooser.choose("how is the weather", (SUM, WEATHER, FINISH), must=False) is WEATHER
    ranked = await chooser.rank("how is the weather", (SUM, WEATHER, FINISH))
    assert [one.tool for one in ranked] == [WEATHER, FINISH, SUM]
    assert ranked[0].similarity == pytest.approx(1.0)
    assert ranked[2].similarity == pytest.approx(0.0)


async def test_below_the_threshold_no_tool_is_meant() -> None:
    chooser = ToolChooser(TableEmbeddings(VECTORS), threshold=0.2)
    assert await chooser.choose("hello", (SUM, WEATHER), must=False) is None


@pytest.mark.parametrize(("threshold", "chosen"), [(0.59, True), (0.61, False)])
async def test_the_threshold_is_a_setting(threshold: float, *, chosen: bool) -> None:
    embeddings = TableEmbeddings({"weather": (1.0, 0.0, 0.0, 0.0), "cold": (0.6, 0.8, 0.0, 0.0)})
    found = await ToolChooser(embeddings, threshold=threshold).choose("cold", (WEATHER, SUM), must=False)
    assert (found is WEATHER) is chosen


@pytest.mark.req("TOOLS-11")
async def test_a_required_call_has_no_threshold() -> None:
    chooser = ToolChooser(TableEmbeddings(VECTORS), threshold=2.0)
    assert await chooser.choose("weather", (SUM, WEATHER), must=True) is WEATHER
    assert await chooser.choose("hello", (SUM, WEATHER), must=True) is SUM, "equals keep their order"


async def test_one_required_tool_needs_no_vectors() -> None:
    embeddings = TableEmbeddings(VECTORS)
    assert await ToolChooser(embeddings).choose("hello", (SUM,), must=True) is SUM
    assert not embeddings.calls


async def test_no_tools_are_none() -> None:
    assert await ToolChooser(TableEmbeddings(VECTORS)).choose("weather", (), must=True) is None


async def test_a_tools_vector_is_asked_for_once() -> None:
    embeddings = TableEmbeddings(VECTORS)
    chooser = ToolChooser(embeddings)
    await chooser.rank("weather", (WEATHER, SUM, WEATHER))
    await chooser.rank("sum", (SUM, WEATHER, FINISH))
    assert [len(call) for call in embeddings.calls] == [3, 2]
    assert embeddings.calls[1] == ["sum", "finish"]


async def test_a_changed_description_is_another_tool() -> None:
    embeddings = TableEmbeddings(VECTORS)
    chooser = ToolChooser(embeddings)
    await chooser.rank("weather", (FunctionTool("f", "one"),))
    await chooser.rank("weather", (FunctionTool("f", "two"),))
    assert embeddings.calls[1] == ["weather", "f: two"]


async def test_the_least_recently_used_vectors_go_first() -> None:
    embeddings = TableEmbeddings(VECTORS)
    chooser = ToolChooser(embeddings, vectors_max=2)
    for tools in ((WEATHER,), (SUM,), (WEATHER,), (FINISH,), (WEATHER,), (SUM,)):
        await chooser.rank("x", tools)
    assert [len(call) - 1 for call in embeddings.calls] == [1, 1, 0, 1, 0, 1]
    assert len(chooser._vectors) == 2


async def test_more_tools_than_are_kept_still_rank() -> None:
    chooser = ToolChooser(TableEmbeddings(VECTORS), vectors_max=1)
    assert (await chooser.rank("sum", (WEATHER, SUM, FINISH)))[0].tool is SUM


@example([5e-324, 5e-324])
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_a_normalised_vector_has_length_one_or_none(vector: Sequence[float]) -> None:
    length = math.sqrt(sum(value * value for value in normalise_vector(vector)))
    assert length == pytest.approx(1.0, abs=1e-4) or length == 0.0


BOTH = "How is the weather? And the sum?"


async def test_different_sentences_may_mean_different_tools() -> None:
    embeddings = TableEmbeddings(VECTORS)
    found = await ToolChooser(embeddings).choose_each(f"{BOTH} Hello. The weather!", (SUM, WEATHER))
    assert found == [Meant(WEATHER, "How is the weather? The weather!"), Meant(SUM, "And the sum?")]
    assert len(embeddings.calls) == 1, "all sentences and tools in one call"


@pytest.mark.parametrize("request_text", ["How is the weather?", "Hello. How is the weather? The weather, please."])
async def test_one_tool_is_meant_by_the_request_as_a_whole(request_text: str) -> None:
    found = await ToolChooser(TableEmbeddings(VECTORS)).choose_each(request_text, (SUM, WEATHER))
    assert found == [Meant(WEATHER, request_text)]


@pytest.mark.parametrize("request_text", ["", "hello", "Hello. How are you?"])
async def test_a_request_that_means_nothing_means_no_tool(request_text: str) -> None:
    assert await ToolChooser(TableEmbeddings(VECTORS)).choose_each(request_text, (SUM, WEATHER)) == []
    assert await ToolChooser(TableEmbeddings(VECTORS)).choose_each("weather", ()) == []


@pytest.mark.parametrize(("similarity", "tools"), [(EACH_THRESHOLD + 0.01, 2), (EACH_THRESHOLD - 0.01, 1)])
async def test_a_second_tool_needs_a_sentence_that_clearly_means_it(similarity: float, tools: int) -> None:
    far = math.sqrt(1 - similarity**2)
    embeddings = TableEmbeddings(
        {"weather": VECTORS["weather"], "sum up": VECTORS["sum"], "add": (0.0, similarity, far, 0.0)}
    )
    found = await ToolChooser(embeddings).choose_each("The weather? Please add.", (SUM, WEATHER))
    assert len(found) == tools


async def test_of_a_very_long_request_the_first_sentences_are_looked_at_one_by_one() -> None:
    embeddings = TableEmbeddings(VECTORS)
    text = "The weather. " * SENTENCES_MAX + "The sum."
    found = await ToolChooser(embeddings).choose_each(text, (SUM, WEATHER))
    assert [one.tool for one in found] == [WEATHER]
    assert len(embeddings.calls[0]) == 1 + SENTENCES_MAX + 2
