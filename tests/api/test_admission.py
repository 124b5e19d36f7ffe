"""What admission does for a client: tokens, slots, money, waiting in line, restarts. Headers: `test_limits.py`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from api.test_idempotency import Counter
from convene.config import Limits, Model, Plan, Price
from convene.store.base_ledger import Filter, Whose

if TYPE_CHECKING:
    import httpx2

    from api.conftest import Serve, Served
    from convene.store.base_ledger import Entry

OPENAI_NAMES = [
    f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset") for unit in ("requests", "tokens")
]


def plan(**limits: Any) -> dict[str, Plan]:  # noqa: ANN401 - fields of Plan
    """Return the first key's plan with these limits."""
    return {"owner": Plan(**limits)}


async def entries(served: Served) -> list[Entry]:
    """Return what the books hold, oldest first."""
    books = served.app.books
    assert books is not None
    return [entry async for entry in books.books.ledger.entries(Filter(whose=Whose("all")))]


def refusal(answer: httpx2.Response) -> dict[str, Any]:
    """Hold a refusal to the one shape and return its error object."""
    assert answer.status_code == 429, answer.text
    body = answer.json()
    assert body["message"] == body["error"]["message"]
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.req("LIMIT-01")
async def test_a_request_above_the_rate_of_tokens_is_refused_and_one_that_can_never_fit_says_so(serve: Serve) -> None:
    async with serve(plans=plan(tokens_per_minute=100)) as served:
        answer = await served.chat(max_tokens=500)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "request_above_limit"
        assert "retry-after" not in answer.headers
        used = 0
        answer = await served.chat(max_tokens=50)
        while answer.status_code == 200:
            used += answer.json()["usage"]["total_tokens"]
            assert used <= 110
            answer = await served.chat(max_tokens=50)
        assert "100 tokens per minute" in refusal(answer)["message"]
        assert used > 50
        assert sum(entry.prompt_tokens + entry.completion_tokens for entry in await entries(served)) == used


async def test_an_embedding_counts_as_a_request_and_its_input_as_tokens(serve: Serve) -> None:
    models = {"vectors": Model(upstream=("scripted",), embeddings=True)}
    async with serve(plans=plan(requests_per_minute=1), models=models) as served:
        body = {"model": "vectors", "input": "some words to embed"}
        answer = await served.http.post("/v1/embeddings", json=body, headers=served.auth)
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        refusal(await served.http.post("/v1/embeddings", json=body, headers=served.auth))
        (entry,) = await entries(served)
        assert (entry.kind, entry.model, entry.prompt_tokens) == (
            "embedding",
            "vectors",
            answer.json()["usage"]["prompt_tokens"],
        )


@pytest.mark.req("OSDK-03", "LIMIT-06")
async def test_a_spent_budget_is_a_quota_that_no_client_repeats(serve: Serve) -> None:
    prices = {"scripted-echo": Price(input=1000.0, output=1000.0)}
    async with serve(plans=plan(budget_total=0.5), prices=prices, currency="EUR") as served:
        first = await served.chat(max_tokens=20)
        assert first.status_code == 200
        cost = first.json()["metadata"]["cost"]
        used = first.json()["usage"]["total_tokens"]
        assert cost == {"currency": "EUR", "micros": used * 1000, "by_step": []}
        answer = await served.chat(max_tokens=600)
        error = refusal(answer)
        assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
        assert answer.headers["x-should-retry"] == "false"
        assert "0.5 EUR" in error["message"]
        (entry,) = await entries(served)
        assert entry.cost_micros == cost["micros"]


async def test_a_stream_tells_its_cost_with_its_last_chunk(serve: Serve) -> None:
    async with serve(prices={"scripted-echo": Price(output=2.0, request=0.5)}) as served:
        frames = await served.frames(stream_options={"include_usage": True})
        (last,) = [frame for frame in frames if frame != "[DONE]" and "metadata" in frame]
        tokens = next(frame["usage"]["completion_tokens"] for frame in frames if frame != "[DONE]" and frame["usage"])
        assert last["metadata"]["cost"]["micros"] == 500_000 + 2 * tokens


async def test_a_model_without_a_price_tells_none(served: Served) -> None:
    assert "cost" not in (await served.chat()).json()["metadata"]


async def test_requests_at_once_are_bounded_and_a_slot_is_free_again_when_one_ends(serve: Serve) -> None:
    async with serve(plans=plan(concurrent_requests=1)) as served:
        counter = Counter(served)
        counter.go_on.clear()
        slow = asyncio.create_task(served.chat())
        await counter.started.wait()
        answer = await served.chat()
        assert "1 concurrent requests" in refusal(answer)["message"]
        assert int(answer.headers["retry-after"]) >= 1
        counter.go_on.set()
        assert (await slow).status_code == 200
        assert (await served.chat()).status_code == 200


async def test_a_request_may_wait_for_its_limit_instead(serve: Serve) -> None:
    limits = Limits(queue_s=20.0)
    async with serve(plans=plan(concurrent_requests=1), limits=limits) as served:
        answers = await asyncio.gather(*(served.chat() for _ in range(5)))
        assert [answer.status_code for answer in answers] == [200] * 5


@pytest.mark.req("OAI-35")
async def test_a_client_that_leaves_is_in_the_books_with_what_it_got(served: Served) -> None:
    body = {"model": "scripted-slow", "stream": True, "messages": [{"role": "user", "content": "a b c d e f"}]}
    async with served.http.stream("POST", "/v1/chat/completions", json=body, headers=served.auth) as answer:
        async for line in answer.aiter_lines():
            if '"content":"' in line and '"content":""' not in line:
                break
    async with asyncio.timeout(60):
        while not (found := await entries(served)):  # noqa: ASYNC110 -- a bounded wait for the settlement
            await asyncio.sleep(0)
    (entry,) = found
    assert (entry.status, entry.estimated) == ("client_left", True)
    assert entry.completion_tokens > 0


async def test_counters_begin_after_a_restart_where_they_were(serve: Serve) -> None:
    limits = plan(requests_per_day=3, budget_total=1.0)
    prices = {"scripted-echo": Price(request=0.4)}
    async with serve(plans=limits, prices=prices) as served:
        key = served.key
        assert (await served.chat()).status_code == 200
    async with serve(plans=limits, prices=prices) as served:
        served.key = key
        assert (await served.chat()).headers["x-ratelimit-remaining-requests"] == "1"
    async with serve(plans=limits, prices=prices) as served:
        served.key = key
        assert refusal(await served.chat())["code"] == "insufficient_quota"
