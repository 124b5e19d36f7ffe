"""The provider over a scripted client: requests, second tries, the breaker, cancelling, and what is never repeated."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.errors import BadRequest, ConveneError, Malformed, RateLimited, Rejected, TimedOut, Unavailable
from convene.events import Began, Finished, TextDelta, UsageReported
from convene.http import base as http
from convene.providers import exchange
from convene.providers.base import Capabilities
from convene.providers.hosts import Hosts
from convene.providers.openai import OpenAIChat, OpenAISettings
from convene.usage import Usage
from fakes import FakeClock
from unit.providers.upstream_doubles import (
    DONE,
    JSON,
    SSE,
    USAGE,
    FakeClient,
    FakeResponse,
    Stall,
    ask,
    chunk,
    frame,
    gather,
    model_at,
    ok,
    refused,
    streamed,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.events import Event

FULL = [Began("up", "host-model"), TextDelta("Hello"), Finished("stop"), UsageReported(Usage(7, 3))]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BACK_OFF_S", 0.0)


# --- requests ---


async def test_a_request_has_key_agent_and_body() -> None:
    client = FakeClient(ok(whole("Hello")))
    assert await gather(model_at(client)) == FULL
    [request] = client.requests
    assert (request.method, request.url) == ("POST", "http://a/v1/chat/completions")
    headers = dict(request.headers)
    assert headers["authorization"] == "Bearer sk-secret-1234567890"
    assert headers["user-agent"].startswith("convene/")
    assert headers["content-type"] == "application/json"
    assert msgspec.json.decode(request.body)["model"] == "host-model"
    assert client.responses[0].closed


async def test_configured_headers_go_along_and_win_and_no_key_is_no_header() -> None:
    client = FakeClient(ok(whole("Hello")))
    settings = OpenAISettings(upstream="up", model="m", headers=(("X-Team", "a"), ("User-Agent", "mine")))
    await gather(model_at(client, settings=settings))
    headers = client.requests[0].headers
    assert ("X-Team", "a") in headers
    assert [value for name, value in headers if name.lower() == "user-agent"] == ["mine"]
    assert not any(name == "authorization" for name, _ in headers)


def test_settings_show_neither_key_nor_headers() -> None:
    settings = OpenAISettings(upstream="up", model="m", api_key="k-1", headers=(("x-api-key", "k-2"),))
    for text in (repr(settings), str(settings), f"{settings}"):
        assert "k-1" not in text
        assert "k-2" not in text


async def test_a_stream_gives_its_events_and_reads_to_the_end_of_the_body() -> None:
    response = streamed(b"", chunk("Hel"), b"", chunk("lo"), chunk(finish="stop"), USAGE, DONE, b"\n")
    events = await gather(model_at(FakeClient(response)), ask(stream=True))
    assert events == [FULL[0], TextDelta("Hel"), TextDelta("lo"), *FULL[2:]]
    assert response._pieces == []
    assert response.closed


async def test_a_body_that_does_not_end_after_done_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convene.providers.openai.DRAIN_S", 0.0)
    response = streamed(chunk("Hello"), DONE, Stall())
    async with asyncio.timeout(60):
        await gather(model_at(FakeClient(response)), ask(stream=True))
    assert response.closed


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("content_type", ["text/event-stream; charset=utf-8", "application/json", ""])
async def test_the_host_decides_whether_it_streams(stream: bool, content_type: str) -> None:  # noqa: FBT001 - a column
    comes_streamed = "event" in content_type or (stream and not content_type)
    pieces = [chunk("Hello", finish="stop"), USAGE, DONE] if comes_streamed else [whole("Hello")]
    response = FakeResponse(200, {"content-type": content_type}, pieces)
    assert await gather(model_at(FakeClient(response)), ask(stream=stream)) == FULL


async def test_the_first_event_is_there_before_the_second_was_sent() -> None:
    stall = Stall()
    events = model_at(FakeClient(streamed(chunk("Hel"), stall, chunk("lo"), DONE))).generate(ask(stream=True))
    assert isinstance(await anext(events), Began)
    assert await anext(events) == TextDelta("Hel")
    assert not stall.reached.is_set()
    stall.go_on.set()
    assert [type(event) for event in [event async for event in events]] == [TextDelta, Finished, UsageReported]


# --- faults ---


async def fault_of(model: OpenAIChat, *, stream: bool = False) -> tuple[list[Event], ConveneError]:
    events: list[Event] = []
    try:
        async for event in model.generate(ask(stream=stream)):
            events.append(event)  # noqa: PERF401 - what came before the error counts
    except ConveneError as fault:
        return events, fault
    raise AssertionError("no fault")


async def test_an_upstream_refusal_reaches_the_caller_as_a_bad_request() -> None:
    client = FakeClient(refused(400, b'{"error":{"message":"top_p is too high","param":"top_p"}}'))
    events, fault = await fault_of(model_at(client))
    assert events == []
    assert isinstance(fault, BadRequest)
    assert (fault.message, fault.param) == ("top_p is too high", "top_p")
    assert client.responses[0].closed


async def test_an_error_body_that_cannot_be_read_still_leaves_the_status() -> None:
    _, fault = await fault_of(model_at(FakeClient(FakeResponse(401, JSON, [http.Disconnected(received=True)]))))
    assert isinstance(fault, Rejected)


@pytest.mark.parametrize(
    "error", [http.Disconnected(received=True), http.ProtocolBroken("bad chunk"), http.TimedOut("between_bytes", 1)]
)
async def test_a_stream_that_breaks_off_gives_its_events_then_the_fault_and_no_second_try(
    error: http.HttpError,
) -> None:
    client = FakeClient(streamed(chunk("Hel"), error))
    events, fault = await fault_of(model_at(client), stream=True)
    assert events == [FULL[0], TextDelta("Hel")]
    assert isinstance(fault, TimedOut | Malformed)
    assert len(client.requests) == 1
    assert client.responses[0].closed


async def test_a_stream_cut_without_an_end_is_never_just_short() -> None:
    events, fault = await fault_of(model_at(FakeClient(streamed(chunk("Hel")))), stream=True)
    assert events == [FULL[0], TextDelta("Hel")]
    assert isinstance(fault, Malformed)


async def test_a_break_after_the_finish_reason_costs_only_the_usage() -> None:
    response = streamed(chunk("Hello", finish="stop"), http.Disconnected(received=True))
    events = await gather(model_at(FakeClient(response)), ask(stream=True))
    assert events[:3] == FULL[:3]
    assert isinstance(events[3], UsageReported)
    assert events[3].usage.estimated


async def test_an_error_frame_in_the_bytes_of_the_first_event_comes_after_it() -> None:
    client = FakeClient(streamed(chunk("Hel") + frame({"error": {"message": "boom"}})))
    events, fault = await fault_of(model_at(client), stream=True)
    assert events == [FULL[0], TextDelta("Hel")]
    assert isinstance(fault, Unavailable)
    assert len(client.requests) == 1


async def test_a_reply_above_the_cap_is_malformed() -> None:
    settings = OpenAISettings(upstream="up", model="m", body_bytes_max=100)
    client = FakeClient(ok(whole("x" * 200)))
    _, fault = await fault_of(model_at(client, settings=settings))
    assert isinstance(fault, Malformed)
    assert len(client.requests) == 1


# --- second tries ---


@pytest.mark.parametrize(
    "failure",
    [
        http.ConnectFailed("refused"),
        http.Disconnected(received=False),
        refused(502),
        refused(503),
        refused(504),
        streamed(),
        streamed(DONE),
        streamed(frame({"error": {"message": "loading", "code": 503}})),
        FakeResponse(200, SSE, [http.Disconnected(received=False)]),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_what_fails_before_the_first_event_is_tried_again(failure: FakeResponse | http.HttpError) -> None:
    client = FakeClient(failure, streamed(chunk("Hello", finish="stop"), USAGE, DONE))
    assert await gather(model_at(client), ask(stream=True)) == FULL
    assert len(client.requests) == 2
    assert [request.fresh for request in client.requests] == [False, True]
    assert all(response.closed for response in client.responses)


@pytest.mark.parametrize(
    "failure",
    [
        refused(400),
        refused(401),
        refused(404),
        refused(429),
        refused(500),
        http.TimedOut("first_byte", 1),
        http.PoolTimedOut("full"),
        http.ProtocolBroken("bad"),
        http.Disconnected(received=True),
    ],
    ids=lambda failure: getattr(failure, "status", type(failure).__name__),
)
async def test_everything_else_is_asked_once(failure: FakeResponse | http.HttpError) -> None:
    client = FakeClient(failure)
    await fault_of(model_at(client))
    assert len(client.requests) == 1


async def test_a_second_try_goes_to_another_host() -> None:
    client = FakeClient(refused(503), refused(503), ok(whole("Hello")))
    assert await gather(model_at(client, "http://a/v1", "http://b/v1", "http://c/v1")) == FULL
    assert len({request.url for request in client.requests}) == 3


async def test_a_rate_limit_is_tried_at_every_other_host_and_then_told_with_its_wait() -> None:
    client = FakeClient(refused(429), refused(429, headers={"retry-after": "12"}))
    _, fault = await fault_of(model_at(client, "http://a/v1", "http://b/v1"))
    assert isinstance(fault, RateLimited)
    assert fault.retry_after_s == 12
    assert len({request.url for request in client.requests}) == 2


async def test_there_are_at_most_two_further_tries() -> None:
    client = FakeClient(*[refused(503) for _ in range(9)])
    _, fault = await fault_of(model_at(client))
    assert isinstance(fault, Unavailable)
    assert len(client.requests) == 3


async def test_tries_can_be_switched_off() -> None:
    client = FakeClient(refused(503))
    await fault_of(model_at(client, settings=OpenAISettings(upstream="up", model="m", retries=0)))
    assert len(client.requests) == 1


async def test_a_dead_upstream_is_asked_at_most_1_05_times_a_request() -> None:
    clock = FakeClock()
    client = FakeClient(answer=lambda _: refused(503))
    urls = [f"http://host-{number}/v1" for number in range(4)]
    model = model_at(client, *urls, clock=clock)
    for _ in range(500):
        await fault_of(model)
        clock.move(0.02)
    assert len(client.requests) <= 1.05 * 500


async def test_rate_limits_of_all_hosts_stay_within_the_retry_budget() -> None:
    client = FakeClient(answer=lambda _: refused(429))
    model = model_at(client, "http://a/v1", "http://b/v1")
    for _ in range(500):
        await fault_of(model)
    assert 500 < len(client.requests) <= 1.05 * 500


# --- the breaker ---


async def test_a_dead_upstream_is_left_alone_and_says_when_it_is_asked_again() -> None:
    clock = FakeClock()
    client = FakeClient(answer=lambda _: refused(500))
    model = model_at(client, clock=clock)
    for _ in range(5):
        assert model.ready() is None
        await fault_of(model)
    assert "up" in (model.ready() or "")
    _, fault = await fault_of(model)
    assert isinstance(fault, Unavailable)
    assert fault.retry_after_s == pytest.approx(1.0)
    assert len(client.requests) == 5
    clock.move(1.0)
    assert model.ready() is None


@pytest.mark.parametrize("status", [400, 401, 404, 429])
async def test_refusals_never_open_the_breaker(status: int) -> None:
    model = model_at(FakeClient(answer=lambda _: refused(status)))
    for _ in range(20):
        await fault_of(model)
    assert model.ready() is None


async def test_answers_that_break_off_open_the_breaker_too() -> None:
    def broken(_: http.Request) -> FakeResponse:
        return streamed(chunk("a"), http.TimedOut("between_bytes", 1))

    model = model_at(FakeClient(answer=broken))
    for _ in range(5):
        assert model.ready() is None
        await fault_of(model, stream=True)
    assert model.ready() is not None


async def test_models_of_one_upstream_share_its_breakers() -> None:
    clock = FakeClock()
    hosts = Hosts(("http://a/v1",), (), clock)
    client = FakeClient(answer=lambda _: refused(500))
    first, second = (
        OpenAIChat(client, hosts, OpenAISettings(upstream="up", model=name), Capabilities(), clock) for name in "mn"
    )
    for _ in range(5):
        await fault_of(first)
    assert second.ready() is not None


# --- leaving ---


async def cancel(events: AsyncGenerator[Event], stall: Stall) -> None:
    """Cancel a task that waits for the next event, once it really waits."""
    task = asyncio.create_task(anext(events))
    await asyncio.wait_for(stall.reached.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closing_the_events_closes_the_response() -> None:
    client = FakeClient(streamed(chunk("Hel"), Stall()))
    events = model_at(client).generate(ask(stream=True))
    await anext(events)
    await events.aclose()
    assert client.responses[0].closed


async def test_a_cancel_between_events_closes_the_response() -> None:
    stall = Stall()
    client = FakeClient(streamed(chunk("Hel"), stall))
    events = model_at(client).generate(ask(stream=True))
    await anext(events)
    await anext(events)
    await cancel(events, stall)
    assert client.responses[0].closed


async def test_a_cancel_before_the_first_event_closes_the_response() -> None:
    stall = Stall()
    client = FakeClient(streamed(stall))
    await cancel(model_at(client).generate(ask(stream=True)), stall)
    assert client.responses[0].closed


async def test_a_cancel_of_a_probe_lets_the_next_request_be_one() -> None:
    clock, stall = FakeClock(), Stall()
    failures = [refused(500) for _ in range(5)]
    model = model_at(FakeClient(*failures, stall, ok(whole("Hello"))), clock=clock)
    for _ in range(5):
        await fault_of(model)
    clock.move(1.0)
    await cancel(model.generate(ask()), stall)
    assert await gather(model) == FULL
