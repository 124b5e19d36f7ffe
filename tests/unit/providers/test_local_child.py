"""Requests to the child: where they go, when they are sent once more, and what its refusals mean."""

from __future__ import annotations

import pytest

from convene.engine.base import EngineStatus, NotReady, StartFailed
from convene.errors import BadRequest, Malformed, TimedOut, Unavailable
from convene.http.base import ConnectFailed, Disconnected, HttpError, PoolTimedOut, ProtocolBroken
from convene.http.base import TimedOut as HttpTimedOut
from convene.providers.local_child import LocalChild
from convene.providers.local_writer import Tokenized
from unit.providers.local_doubles import NEW, OLD, QUICK, FakeEngine, counts, refusal
from unit.providers.upstream_doubles import JSON, FakeClient, FakeResponse

TOKENS = counts(2)[1]


def make_child(*script: FakeResponse | HttpError, engine: FakeEngine | None = None) -> tuple[LocalChild, FakeClient]:
    client = FakeClient(*script)
    return LocalChild(engine or FakeEngine(), client, QUICK), client


async def call(child: LocalChild) -> list[int]:
    return (await child.call("/tokenize", {"content": "x"}, Tokenized)).tokens


@pytest.mark.parametrize("failure", [ConnectFailed("refused"), Disconnected(received=False)])
async def test_a_request_without_any_answer_is_sent_once_more_to_the_new_child(failure: HttpError) -> None:
    engine = FakeEngine(OLD, NEW)
    child, client = make_child(failure, counts(2)[1], engine=engine)
    assert await call(child) == [0, 1]
    assert [request.url for request in client.requests] == [f"{address.base_url}/tokenize" for address in (OLD, NEW)]
    assert ("authorization", "Bearer new-key") in client.requests[1].headers
    assert engine.waits == 1


async def test_it_is_sent_no_third_time() -> None:
    child, client = make_child(ConnectFailed("a"), ConnectFailed("b"), engine=FakeEngine(OLD, NEW))
    with pytest.raises(Unavailable):
        await call(child)
    assert len(client.requests) == 2


@pytest.mark.parametrize(
    ("failure", "fault"),
    [
        (Disconnected(received=True), Unavailable),
        (HttpTimedOut("first_byte", 3.0), TimedOut),
        (ProtocolBroken("nonsense"), Malformed),
        (PoolTimedOut("full"), Unavailable),
    ],
)
async def test_other_failures_are_not_sent_again(failure: HttpError, fault: type[Exception]) -> None:
    child, client = make_child(failure)
    with pytest.raises(fault):
        await call(child)
    assert len(client.requests) == 1


async def test_a_loading_child_is_waited_for() -> None:
    engine = FakeEngine(OLD, NEW, status=EngineStatus(state="loading"))
    child, client = make_child(counts(2)[1], engine=engine)
    assert await call(child) == [0, 1]
    assert engine.waits == 1
    assert client.requests[0].url.startswith(NEW.base_url)


async def test_weights_under_way_are_not_waited_for() -> None:
    status = EngineStatus(state="fetching", completed_bytes=1_000_000, total_bytes=93_000_000)
    engine = FakeEngine(status=status)
    child, client = make_child(engine=engine)
    with pytest.raises(Unavailable, match="1 of 93 MB") as caught:
        await call(child)
    assert caught.value.retry_after_s is not None
    assert (engine.waits, client.requests) == (0, [])


@pytest.mark.parametrize("state", ["ready", "failed"])
async def test_the_engines_own_reason_is_told(state: str) -> None:
    status = EngineStatus(state="failed") if state == "failed" else EngineStatus(state="ready")
    engine = FakeEngine(status=status, fault=StartFailed("The CPU is too old.", detail="SIGILL"))
    child, _client = make_child(engine=engine)
    with pytest.raises(Unavailable, match="The CPU is too old") as caught:
        await call(child)
    assert caught.value.detail == "SIGILL"


async def test_an_engine_that_closed_in_between_is_unavailable() -> None:
    engine = FakeEngine()

    def refuse(_request: object) -> FakeResponse:
        engine.fault = NotReady("closed")
        raise ConnectFailed("gone")

    child = LocalChild(engine, FakeClient(answer=refuse), QUICK)
    with pytest.raises(Unavailable, match="closed"):
        await call(child)


@pytest.mark.parametrize(
    ("response", "fault", "words"),
    [
        (refusal(400, "bad grammar"), BadRequest, "bad grammar"),
        (refusal(500, "boom"), Unavailable, "failed"),
        (refusal(503, "Loading model"), Unavailable, "restarting"),
        (refusal(401, "Invalid API Key"), Unavailable, "restarting"),
        (FakeResponse(500, {}, [b"<html>"]), Unavailable, "failed"),
        (FakeResponse(500, {}, [Disconnected(received=True)]), Unavailable, "mid-answer"),
        (FakeResponse(200, JSON, [b"{"]), Malformed, "no valid reply"),
        (FakeResponse(200, JSON, [b"{", Disconnected(received=True)]), Unavailable, "mid-answer"),
    ],
)
async def test_refusals_become_our_own_errors(response: FakeResponse, fault: type[Exception], words: str) -> None:
    child, client = make_child(response)
    with pytest.raises(fault, match=words):
        await call(child)
    assert client.responses[0].closed


async def test_errors_do_not_give_away_the_key() -> None:
    child, _client = make_child(refusal(500, "Authorization: Bearer old-key-0123456789"))
    with pytest.raises(Unavailable) as caught:
        await call(child)
    assert "old-key-0123456789" not in caught.value.message + caught.value.detail
