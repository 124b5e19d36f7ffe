"""What a model cannot do is refused by name; limits and defaults are fitted; everything else passes untouched."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.errors import BadRequest
from convene.messages import FunctionTool, ImagePart, Message, OpaquePart, ResponseFormat, TextPart
from convene.providers.base import Capabilities, Generation, Sampling
from convene.serving.checks import fit
from convene.serving.turn_size import message_bytes, prompt_bytes

NOTHING = Capabilities(vision=False, tools=False, json_schema=False, logprobs=False, logit_bias=False, penalties=False)
EVERYTHING = Capabilities(audio=True, files=True)
HELLO = (Message(role="user", content="hello"),)


def wish(**fields: Any) -> Generation:  # noqa: ANN401 - fields of Generation, each of its own type
    """Return a generation."""
    return Generation(messages=HELLO, **fields)


@pytest.mark.req("OAI-04")
@pytest.mark.parametrize(
    ("generation", "param"),
    [
        (wish(sampling=Sampling(logprobs=True)), "logprobs"),
        (wish(sampling=Sampling(logit_bias={"1": 2.0})), "logit_bias"),
        (wish(tools=(FunctionTool("f"),)), "tools"),
        (wish(response_format=ResponseFormat("json_object")), "response_format"),
        (wish(response_format=ResponseFormat("json_schema", schema={})), "response_format"),
        (wish(spoken=True), "modalities"),
        (wish(sampling=Sampling(frequency_penalty=0.5)), "frequency_penalty"),
        (wish(sampling=Sampling(presence_penalty=-0.5)), "presence_penalty"),
    ],
)
def test_what_a_model_cannot_do_is_refused_by_name_and_passes_where_it_can(generation: Generation, param: str) -> None:
    with pytest.raises(BadRequest, match="'poor' does not support") as caught:
        fit(generation, NOTHING, "poor")
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)
    assert fit(generation, EVERYTHING, "rich") is generation


@pytest.mark.req("OAI-04")
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(frequency_penalty=0, presence_penalty=0.0), Sampling(seed=1, stop=("x",))]
)
def test_values_that_ask_for_nothing_new_pass_every_model(sampling: Sampling) -> None:
    generation = wish(sampling=sampling)
    assert fit(generation, NOTHING, "poor") is generation


@pytest.mark.req("CHAT-28")
@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (ImagePart("https://a.test/x.png"), "image_url"),
        (OpaquePart("input_audio", {}), "input_audio"),
        (OpaquePart("file", {}), "file"),
    ],
)
def test_a_part_that_cannot_be_read_is_refused_with_its_place(part: ImagePart | OpaquePart, kind: str) -> None:
    messages = (*HELLO, Message(role="user", content=(TextPart("see"), part)))
    generation = Generation(messages=messages)
    with pytest.raises(BadRequest) as caught:
        fit(generation, NOTHING, "poor")
    assert (caught.value.code, caught.value.param) == ("unsupported_content", "messages[1].content[1]")
    assert f"'{kind}'" in caught.value.message
    assert fit(generation, EVERYTHING, "rich") is generation


@pytest.mark.parametrize(
    ("can", "asked", "given"),
    [
        (Capabilities(output_tokens_max=100, context_window=1000), 500, 100),
        (Capabilities(context_window=1000), 5000, 1000),
        (Capabilities(output_tokens_max=100), 100, 100),
        (Capabilities(output_tokens_max=100), 1, 1),
        (Capabilities(), 10**8, 10**8),
        (Capabilities(output_tokens_max=100), None, None),
    ],
)
def test_a_limit_is_clamped_to_what_the_model_can_write(
    can: Capabilities, asked: int | None, given: int | None
) -> None:
    assert fit(wish(sampling=Sampling(max_tokens=asked)), can, "m").sampling.max_tokens == given


@pytest.mark.parametrize(("asked", "given"), [(None, 0.2), (0.0, 0.0), (1.5, 1.5)])
def test_the_models_own_temperature_is_only_a_default(asked: float | None, given: float) -> None:
    generation = wish(sampling=Sampling(temperature=asked, seed=3))
    fitted = fit(generation, Capabilities(temperature=0.2), "m")
    assert fitted.sampling == Sampling(temperature=given, seed=3)
    assert generation.sampling.temperature == asked


@given(
    st.one_of(st.none(), st.floats(0, 2)),
    st.one_of(st.none(), st.integers(1, 100)),
    st.one_of(st.none(), st.floats(0, 2)),
    st.one_of(st.none(), st.integers(1, 100)),
    st.one_of(st.none(), st.integers(1, 100)),
)
def test_what_is_not_looked_at_twice_is_fitted_as_what_is(
    asked: float | None, limit: int | None, given_by: float | None, most: int | None, window: int | None
) -> None:
    generation = wish(sampling=Sampling(temperature=asked, max_tokens=limit, seed=3))
    ceiling = most or window
    expected = msgspec.structs.replace(
        generation.sampling,
        temperature=given_by if asked is None else asked,
        max_tokens=limit if ceiling is None or limit is None else min(limit, ceiling),
    )
    can = Capabilities(temperature=given_by, output_tokens_max=most, context_window=window)
    fitted = fit(generation, can, "model")
    assert fitted.sampling == expected
    assert (fitted is generation) == (expected == generation.sampling), "nothing is copied that stays as it was"


@pytest.mark.req("OAI-04")
def test_a_part_behind_any_number_of_texts_is_still_looked_at() -> None:
    messages = (*HELLO, *HELLO, Message(role="user", content=(TextPart("a"), ImagePart("https://x/y.png"))))
    with pytest.raises(BadRequest) as caught:
        fit(Generation(messages=messages), NOTHING, "poor")
    assert caught.value.param == "messages[2].content[1]"
    assert prompt_bytes(Generation(messages=messages)) == sum(message_bytes(message) for message in messages)
