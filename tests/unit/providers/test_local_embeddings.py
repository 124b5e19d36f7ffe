"""Embeddings: cutting, token ids, dimensions, batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from convene.engine.base import EMBEDDING_SETTINGS, EngineStatus
from convene.errors import BadRequest, Malformed
from convene.providers.local_embeddings import LocalEmbeddings, LocalEmbeddingsSettings
from convene.usage import Usage
from fakes import FakeClock
from unit.providers.local_doubles import QUICK, FakeEngine, body_of
from unit.providers.upstream_doubles import JSON, FakeClient, FakeResponse

if TYPE_CHECKING:
    from convene.http.base import Request

LONG = "word " * 60


def answer(request: Request, *, tokens: int = 300, drop: int = 0) -> FakeResponse:
    """Reply like the child: the vector says which input it belongs to; the order is not that of the inputs."""
    body: dict[str, Any] = body_of(request)
    found: object
    if request.url.endswith("/tokenize"):
        found = {"tokens": [101, *range(1000, 1000 + tokens - 2), 102]}
    else:
        inputs = body["input"]
        vectors = [{"index": index, "embedding": [3.0, 4.0, float(len(one))]} for index, one in enumerate(inputs)]
        found = {"data": vectors[::-1][drop:], "usage": {"prompt_tokens": 5 * len(inputs)}}
    return FakeResponse(200, JSON, [msgspec.json.encode(found)])


def make(**settings: Any) -> tuple[LocalEmbeddings, FakeClient]:  # noqa: ANN401 - fields of the settings
    client = FakeClient(answer=answer)
    engine = FakeEngine(settings=EMBEDDING_SETTINGS, mode="embedding")
    wanted = LocalEmbeddingsSettings(waits=QUICK, **settings)
    return LocalEmbeddings(engine, client, wanted, FakeClock()), client


def sent(client: FakeClient) -> list[Any]:
    return [body_of(request)["input"] for request in client.requests if request.url.endswith("/v1/embeddings")]


@pytest.mark.req("OAI-63")
async def test_vectors_come_in_the_order_of_the_inputs_with_usage() -> None:
    model, client = make()
    found = await model.embed(["a", "bbb", "cc"])
    assert found.vectors == ((3.0, 4.0, 1.0), (3.0, 4.0, 3.0), (3.0, 4.0, 2.0))
    assert found.usage == Usage(prompt_tokens=15)
    assert found.model == "tiny-1"
    assert sent(client) == [["a", "bbb", "cc"]]
    assert client.requests[0].fresh


async def test_an_empty_text_is_sent_as_a_space() -> None:
    model, client = make()
    await model.embed(["", "a"])
    assert sent(client) == [[" ", "a"]]


async def test_short_texts_are_not_counted_and_long_ones_are_cut_to_256_tokens() -> None:
    model, client = make()
    await model.embed(["x" * 254, LONG])
    assert [request.url.rsplit("/", 1)[1] for request in client.requests] == ["tokenize", "embeddings"]
    ((short, long),) = sent(client)
    assert short == "x" * 254
    assert len(long) == 256
    assert (long[0], long[-2], long[-1]) == (101, 1253, 102)


async def test_letters_that_fall_apart_are_counted_by_their_pieces() -> None:
    model, client = make()
    await model.embed(["한" * 100])  # three letters each, once decomposed
    assert client.requests[0].url.endswith("/tokenize")


@pytest.mark.req("OAI-63")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([7592], [101, 7592, 102]),
        ([101, 7592, 102], [101, 7592, 102]),
        ([], [101, 102]),
        (list(range(1000, 1400)), [101, *range(1000, 1254), 102]),
        ([101, *range(1000, 1400), 102], [101, *range(1000, 1254), 102]),
    ],
)
async def test_token_ids_get_their_marks_and_are_cut_too(given: list[int], expected: list[int]) -> None:
    model, client = make()
    await model.embed([given])
    assert sent(client) == [[expected]]


@pytest.mark.req("OAI-63")
async def test_fewer_dimensions_are_cut_and_scaled_to_length_one() -> None:
    model, _client = make()
    (vector,) = (await model.embed(["a"], dimensions=2)).vectors
    assert vector == pytest.approx((0.6, 0.8))
    assert math.hypot(*vector) == pytest.approx(1.0)


@pytest.mark.parametrize("dimensions", [0, -1, 385])
async def test_other_dimensions_are_refused(dimensions: int) -> None:
    model, client = make()
    with pytest.raises(BadRequest) as caught:
        await model.embed(["a"], dimensions=dimensions)
    assert caught.value.param == "dimensions"
    assert not client.requests


async def test_batches_are_bounded_by_inputs_and_by_length() -> None:
    model, client = make(batch_inputs=3, batch_chars=100)
    found = await model.embed(["a"] * 7 + ["b" * 60] * 3 + [[5] * 40])
    assert [len(batch) for batch in sent(client)] == [3, 3, 2, 1, 1, 1]
    assert len(found.vectors) == 11
    assert found.usage == Usage(prompt_tokens=55)


async def test_a_missing_vector_is_no_answer() -> None:
    client = FakeClient(answer=lambda request: answer(request, drop=1))
    model = LocalEmbeddings(FakeEngine(), client, LocalEmbeddingsSettings(waits=QUICK), FakeClock())
    with pytest.raises(Malformed):
        await model.embed(["a", "b"])


async def test_no_inputs_are_no_vectors() -> None:
    model, client = make()
    assert (await model.embed([])).vectors == ()
    assert not client.requests


async def test_readiness_is_the_engines() -> None:
    engine = FakeEngine(status=EngineStatus(state="loading"))
    model = LocalEmbeddings(engine, FakeClient(), LocalEmbeddingsSettings(), FakeClock())
    assert model.ready() == "tiny-1: loading"
    assert model.upstream == "embedded"
