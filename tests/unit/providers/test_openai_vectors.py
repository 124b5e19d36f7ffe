"""Embedding replies of hosts, and the embeddings model over a scripted client."""

from __future__ import annotations

import base64
import struct

import msgspec
import pytest

from convene.errors import BadRequest, Malformed, RateLimited, Unavailable
from convene.providers.base import Embeddings
from convene.providers.hosts import Hosts
from convene.providers.openai import OpenAIEmbeddings, OpenAISettings
from convene.providers.openai_faults import Blamed, Verdict
from convene.providers.openai_vectors import read_embeddings
from convene.usage import Usage
from fakes import FakeClock
from unit.providers.upstream_doubles import FakeClient, ok, refused

BLAMED = Blamed("up", "asked-model", "http://a/v1")


def reply(*vectors: object, **more: object) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    return msgspec.json.encode({"object": "list", "data": data, "model": "host-model", "usage": usage, **more})


def test_floats_are_read_in_the_order_of_the_inputs() -> None:
    data = [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1.5, 2]}]
    found = read_embeddings(reply(data=data), ["a", "b"], BLAMED)
    assert found == Embeddings(((1.5, 2.0), (3.0, 4.0)), Usage(4), "host-model")


@pytest.mark.req("OAI-63")
def test_base64_of_little_endian_floats_is_read_too() -> None:
    text = base64.b64encode(struct.pack("<2f", 1.5, -2.0)).decode()
    found = read_embeddings(reply(text), ["a"], BLAMED)
    assert isinstance(found, Embeddings)
    assert found.vectors == ((1.5, -2.0),)


def test_missing_indexes_model_and_usage_are_made_up_for() -> None:
    body = msgspec.json.encode({"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]})
    assert read_embeddings(body, ["abcdef", [1, 2, 3]], BLAMED) == Embeddings(
        ((1.0,), (2.0,)), Usage(5, estimated=True), "asked-model"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        reply(),
        reply([1.0], [2.0]),
        reply([]),
        reply(None),
        reply("no base64!"),
        reply("AAA="),
        reply(base64.b64encode(struct.pack("<f", float("nan"))).decode()),
        reply(data=[{"index": 1, "embedding": [1.0]}]),
    ],
)
def test_what_does_not_fit_one_input_is_malformed(body: bytes) -> None:
    verdict = read_embeddings(body, ["a"], BLAMED)
    assert isinstance(verdict, Verdict)
    assert isinstance(verdict.fault, Malformed)


def test_vectors_of_different_lengths_are_malformed() -> None:
    assert isinstance(read_embeddings(reply([1.0], [1.0, 2.0]), ["a", "b"], BLAMED), Verdict)


def model_over(client: FakeClient) -> OpenAIEmbeddings:
    clock = FakeClock()
    settings = OpenAISettings(upstream="up", model="host-model", api_key="k")
    return OpenAIEmbeddings(client, Hosts(("http://a/v1",), (), clock), settings, clock)


async def test_embedding_asks_the_host_and_closes_the_response() -> None:
    client = FakeClient(ok(reply([1.0], [2.0])))
    model = model_over(client)
    assert model.upstream == "up"
    assert model.ready() is None
    assert (await model.embed(["a", [1, 2]], 1)).vectors == ((1.0,), (2.0,))
    assert client.requests[0].url == "http://a/v1/embeddings"
    assert msgspec.json.decode(client.requests[0].body)["dimensions"] == 1
    assert client.responses[0].closed


async def test_embedding_faults_are_those_of_chats() -> None:
    with pytest.raises(BadRequest, match="too long"):
        await model_over(FakeClient(refused(400, b'{"error":{"message":"too long"}}'))).embed(["a"])
    with pytest.raises(RateLimited):
        await model_over(FakeClient(ok(b'{"error":{"message":"x","code":429}}'))).embed(["a"])
    with pytest.raises(Malformed):
        await model_over(FakeClient(ok(reply()))).embed(["a"])
    client = FakeClient(*[refused(503) for _ in range(3)])
    with pytest.raises(Unavailable):
        await model_over(client).embed(["a"])
    assert len(client.requests) == 3
