"""Limits, books and their reading in the whole application: headers, refusals, exact usage, by HTTP and the SDK."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import openai
import pytest

from api.conftest import read_frames
from convene.config import Plan, Price
from convene.serving.keyring import KeyRing
from structured_fields import parse_list

if TYPE_CHECKING:
    import httpx2

    from api.conftest import Serve, Served

PRICES = {"scripted-echo": Price(input=1.0, output=2.0, request=0.001)}
"""A token of a prompt costs 1 micro-unit, one of an answer 2, a request 1000."""
DURATION = re.compile(r"(\d+h)?(\d+m)?\d+s|\d+ms")


async def key_of(served: Served, plan: str, **fields: Any) -> dict[str, str]:  # noqa: ANN401 - arguments of create
    """Return the header of a new key on a plan."""
    ring = served.app.front.gatekeeper
    assert isinstance(ring, KeyRing)
    text, _ = await ring.create("one more", plan, **fields)
    return {"Authorization": f"Bearer {text}"}


async def chat(served: Served, auth: dict[str, str], **fields: object) -> httpx2.Response:
    """Post a chat with a key of one's own."""
    body = {"model": "scripted-echo", "messages": [{"role": "user", "content": "hello big world"}]} | fields
    return await served.http.post("/v1/chat/completions", json=body, headers=auth)


async def get(served: Served, path: str, auth: dict[str, str]) -> Any:  # noqa: ANN401 - JSON
    """Return an answer's JSON, which must be a 200."""
    answer = await served.http.get(path, headers=auth)
    assert answer.status_code == 200, answer.text
    return answer.json()


# What answers say.


@pytest.mark.req("LIMIT-03", "OSDK-09")
async def test_every_answer_says_how_the_limits_stand_whole_and_streamed(served: Served) -> None:
    for streamed in (False, True):
        answer = await served.chat(stream=streamed)
        found = answer.headers
        for unit in ("requests", "tokens"):
            limit, left = int(found[f"x-ratelimit-limit-{unit}"]), int(found[f"x-ratelimit-remaining-{unit}"])
            assert 0 <= left <= limit
            assert DURATION.fullmatch(found[f"x-ratelimit-reset-{unit}"])
        assert "x-ratelimit-reset" not in found
        policies = dict(parse_list(found["ratelimit-policy"].encode()))
        state = dict(parse_list(found["ratelimit"].encode()))
        assert state.keys() <= policies.keys()
        assert policies["key-requests-per-minute"]["w"] == 60


@pytest.mark.req("LIMIT-03", "OSDK-09")
async def test_what_is_left_is_exact_after_a_whole_answer(serve: Serve) -> None:
    plans = {"day": Plan(requests_per_day=10, tokens_per_day=10_000)}
    async with serve(plans=plans) as served:
        auth = await key_of(served, "day")
        used = 0
        for number in range(1, 4):
            answer = await chat(served, auth)
            used += answer.json()["usage"]["total_tokens"]
            assert answer.headers["x-ratelimit-remaining-requests"] == str(10 - number)
            assert int(answer.headers["x-ratelimit-remaining-tokens"]) == 10_000 - used


async def test_paths_that_are_not_limited_carry_no_limits(served: Served) -> None:
    for path in ("/v1/models", "/v1/usage", "/health"):
        answer = await served.http.get(path, headers=served.auth)
        assert not [name for name in answer.headers if "ratelimit" in name]


# Refusals.


@pytest.mark.req("LIMIT-02", "ERR-05", "OSDK-02", "OSDK-05", "ERRSHAPE-04")
async def test_a_refusal_by_a_rate_names_limit_scope_and_the_exact_wait(serve: Serve) -> None:
    plans = {"slow": Plan(requests_per_minute=2)}
    async with serve(plans=plans) as served:
        auth = await key_of(served, "slow")
        assert [(await chat(served, auth)).status_code for _ in range(2)] == [200, 200]
        refused = await chat(served, auth)
        assert refused.status_code == 429
        fault = refused.json()["error"]
        assert (fault["type"], fault["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert fault["message"].startswith("Rate limit reached for this key: 2 requests per minute. Try again in ")
        seconds, millis = int(refused.headers["retry-after"]), int(refused.headers["retry-after-ms"])
        assert 28_000 <= millis <= 30_000, "one comes back every 30 s"
        assert seconds == -(-millis // 1000)
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        state = dict(parse_list(refused.headers["ratelimit"].encode()))
        assert state["key-requests-per-minute"] == {"r": 0, "t": seconds}
        assert "x-should-retry" not in refused.headers


@pytest.mark.req("ERR-05")
async def test_a_refusal_is_the_same_for_a_stream_and_reaches_the_sdk_as_its_class(serve: Serve) -> None:
    async with serve(plans={"slow": Plan(requests_per_minute=1)}) as served:
        auth = await key_of(served, "slow")
        await chat(served, auth)
        assert (await chat(served, auth, stream=True)).status_code == 429
        sdk = served.sdk.with_options(api_key=auth["Authorization"].removeprefix("Bearer "))
        with pytest.raises(openai.RateLimitError) as caught:
            await sdk.chat.completions.create(model="scripted-echo", messages=[{"role": "user", "content": "x"}])
        assert caught.value.code == "rate_limit_exceeded"


async def test_a_refused_request_is_charged_nowhere_and_leaves_no_entry(serve: Serve) -> None:
    """Goal A3, at the door."""
    async with serve(plans={"slow": Plan(requests_per_minute=1, tokens_per_day=100_000)}) as served:
        auth = await key_of(served, "slow")
        await chat(served, auth)
        before = await get(served, "/v1/usage", auth)
        levels = {row["name"]: row["used"] for row in (await get(served, "/v1/limits", auth))["data"]}
        for _ in range(5):
            assert (await chat(served, auth)).status_code == 429
        assert await get(served, "/v1/usage", auth) == before
        after = {row["name"]: row["used"] for row in (await get(served, "/v1/limits", auth))["data"]}
        assert after["tokens per day"] == levels["tokens per day"]
        assert before["requests"] == 1


@pytest.mark.req("OSDK-03", "DEC-10")
async def test_a_spent_budget_is_insufficient_quota_that_no_sdk_repeats(serve: Serve) -> None:
    plans = {"poor": Plan(budget_total=0.1)}
    async with serve(plans=plans, prices=PRICES) as served:
        auth = await key_of(served, "poor")
        while (answer := await chat(served, auth, max_tokens=10)).status_code == 200:
            pass
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "insufficient_quota")
        assert answer.headers["x-should-retry"] == "false"
        assert "retry-after" not in answer.headers, "a total comes back by nobody's waiting"
        spent = (await get(served, "/v1/usage", auth))["cost"]
        assert spent["currency"] == "USD"
        assert 0 < spent["micros"] <= 100_000
        attempts = 0

        async def count(request: httpx2.Request) -> None:
            nonlocal attempts
            attempts += request.url.path.endswith("/chat/completions")

        served.http.event_hooks["request"].append(count)
        sdk = served.sdk.with_options(api_key=auth["Authorization"].removeprefix("Bearer "), max_retries=3)
        with pytest.raises(openai.RateLimitError):
            await sdk.chat.completions.create(model="scripted-echo", messages=[{"role": "user", "content": "hello"}])
        assert attempts == 1


@pytest.mark.req("OSDK-04")
async def test_a_request_above_a_whole_limit_is_a_400_at_once(serve: Serve) -> None:
    async with serve(plans={"small": Plan(tokens_per_minute=50)}) as served:
        auth = await key_of(served, "small")
        answer = await chat(served, auth, messages=[{"role": "user", "content": "word " * 1000}])
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "request_above_limit")
        assert "50 tokens per minute" in answer.json()["error"]["message"]


async def test_refusals_are_counted_in_the_metrics_by_scope_and_limit(serve: Serve) -> None:
    async with serve(plans={"slow": Plan(requests_per_minute=1)}) as served:
        auth = await key_of(served, "slow")
        for _ in range(3):
            await chat(served, auth)
        text = (await served.http.get("/metrics")).text
        assert 'convene_limit_refusals_total{scope="key",limit="requests per minute"} 2' in text
        assert 'route="/v1/chat/completions",model="scripted-echo",status="429"} 2' in text


# Usage.


@pytest.mark.req("USAGE-01")
async def test_usage_is_exact_as_soon_as_a_replys_last_byte_is_here(serve: Serve) -> None:
    async with serve(prices=PRICES) as served:
        auth = await key_of(served, "owner")
        total, prompt, completion = 0, 0, 0
        for number in range(1, 6):
            if number % 2:
                used = (await chat(served, auth)).json()["usage"]
            else:
                frames = await chat(served, auth, stream=True, stream_options={"include_usage": True})
                used = next(
                    frame["usage"]
                    for frame in read_frames(frames.text)
                    if isinstance(frame, dict) and frame.get("usage")
                )
            total += used["total_tokens"]
            prompt += used["prompt_tokens"]
            completion += used["completion_tokens"]
            found = await get(served, "/v1/usage", auth)
            assert (found["requests"], found["total_tokens"]) == (number, total)
            assert (found["prompt_tokens"], found["completion_tokens"]) == (prompt, completion)
            assert found["cost"]["micros"] == 1000 * number + prompt + 2 * completion


@pytest.mark.req("USAGE-01")
async def test_every_request_is_found_by_the_id_of_its_reply_and_of_its_answer(served: Served) -> None:
    answer = await served.chat()
    for wanted in (answer.json()["id"], answer.headers["x-request-id"]):
        found = await get(served, f"/v1/usage/requests/{wanted}", served.auth)
        assert (found["id"], found["request_id"]) == (answer.json()["id"], answer.headers["x-request-id"])
        assert (found["model"], found["served_by"], found["status"]) == ("scripted-echo", "scripted-echo", "ok")
        assert found["total_tokens"] == answer.json()["usage"]["total_tokens"]
        assert 0 <= found["time_to_first_token_us"] <= found["duration_us"]
        assert (found["stream"], found["finish"]) == (False, "stop")


@pytest.mark.req("USAGE-01")
@pytest.mark.parametrize(
    ("model", "streamed", "completion", "estimated"),
    [
        ("scripted-fail-before", False, False, False),
        ("scripted-fail-before", True, False, False),
        ("scripted-fail-after", True, True, True),
    ],
)
async def test_what_failed_is_in_the_books_with_what_had_come(
    serve: Serve, model: str, *, streamed: bool, completion: bool, estimated: bool
) -> None:
    async with serve(prices={model: Price(input=1.0, output=2.0, request=0.001)}) as served:
        await served.chat(model=model, stream=streamed)
        [row] = (await get(served, "/v1/usage/requests", served.auth))["data"]
        assert (row["status"], row["estimated"]) == ("failed", estimated)
        assert (row["completion_tokens"] > 0) is completion
        expected = 1000 + row["prompt_tokens"] + 2 * row["completion_tokens"] if completion else 0
        assert row["cost"]["micros"] == expected, "billed is what had come, and nothing before the first byte"


async def test_what_is_refused_before_it_runs_leaves_no_entry(served: Served) -> None:
    assert (await served.chat(model="nothing")).status_code == 404
    assert (await served.chat(messages="x")).status_code == 400
    assert (await chat(served, {"Authorization": "Bearer wrong"})).status_code == 401
    assert (await get(served, "/v1/usage", served.auth))["requests"] == 0


async def test_thirty_requests_at_once_are_thirty_entries_and_one_sum(served: Served) -> None:
    answers = await asyncio.gather(
        *(served.chat(messages=[{"role": "user", "content": "x" * n}]) for n in range(1, 31))
    )
    assert {answer.status_code for answer in answers} == {200}
    found = await get(served, "/v1/usage", served.auth)
    assert found["requests"] == 30
    assert found["total_tokens"] == sum(answer.json()["usage"]["total_tokens"] for answer in answers)
    days = await get(served, "/v1/usage?group_by=day", served.auth)
    assert sum(row["total_tokens"] for row in days["data"]) == found["total_tokens"]
    rows = (await get(served, "/v1/usage/requests?limit=1000", served.auth))["data"]
    assert {row["id"] for row in rows} == {answer.json()["id"] for answer in answers}


async def test_sessions_and_agents_are_grouped_by_what_the_caller_named(served: Served) -> None:
    for session in ("a", "a", "b"):
        body = {"model": "scripted-echo", "messages": [{"role": "user", "content": "x"}], "agent_address": "agent1q"}
        headers = served.auth | {"x-session-id": session}
        assert (await served.http.post("/v1/chat/completions", json=body, headers=headers)).status_code == 200
    sessions = await get(served, "/v1/usage?group_by=session", served.auth)
    assert {row["group"]["session"]: row["requests"] for row in sessions["data"]} == {"a": 2, "b": 1}
    agents = await get(served, "/v1/usage?group_by=agent&session=a", served.auth)
    assert [(row["group"]["agent"], row["requests"]) for row in agents["data"]] == [("agent1q", 2)]


# GET /v1/limits


async def test_limits_follow_what_is_used_and_what_is_under_way(serve: Serve) -> None:
    plans = {"day": Plan(requests_per_day=10, tokens_per_day=10_000, concurrent_requests=3, budget_per_month=5)}
    async with serve(plans=plans, prices=PRICES) as served:
        auth = await key_of(served, "day")
        used = (await chat(served, auth)).json()["usage"]["total_tokens"]
        found = {row["name"]: row for row in (await get(served, "/v1/limits", auth))["data"]}
        assert (found["requests per day"]["used"], found["requests per day"]["remaining"]) == (1, 9)
        assert 0 < found["requests per day"]["reset_ms"] <= 8_640_000
        assert found["tokens per day"]["used"] == used
        cost = (await get(served, "/v1/usage", auth))["cost"]["micros"]
        assert (found["budget per month"]["used"], found["budget per month"]["amount"]) == (cost, 5_000_000)
        assert (found["concurrent requests"]["used"], found["concurrent requests"]["remaining"]) == (0, 3)
        assert found["concurrent requests"]["reset_ms"] == 0


async def test_limits_on_a_model_are_shown_where_it_is_named(serve: Serve) -> None:
    async with serve() as served:
        everywhere = await get(served, "/v1/limits", served.auth)
        on_model = await get(served, "/v1/limits?model=scripted-echo", served.auth)
        assert {row["scope"] for row in everywhere["data"]} == {"key"}
        assert on_model["model"] == "scripted-echo"
        assert len(on_model["data"]) >= len(everywhere["data"])
