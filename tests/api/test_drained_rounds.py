"""Agentic turns whose client hangs up in the middle of a round, at an upstream that bills to the end (`drain`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from convene.config import Model, Plan, Price, Scripted, Search, Upstream
from convene.serving.drain import Drains
from tool_doubles import Box, PlayedTool
from unit.providers.upstream_doubles import DONE, FakeClient, Stall, chunk, frame, streamed

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from api.conftest import Serve, Served
    from unit.providers.upstream_doubles import FakeResponse

BOUND_S = 60
ASK: dict[str, Any] = {"model": "far", "messages": [{"role": "user", "content": "What is the weather?"}]}
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}


def usage(prompt: int, completion: int) -> bytes:
    """Return what an upstream says at the end of a round."""
    return frame({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})


def calling(*stalls: Stall) -> FakeResponse:
    """Return a round that calls the tool, with a pause in its middle."""
    end = chunk({"tool_calls": [CALL]}), chunk(finish="tool_calls"), usage(70, 30), DONE
    return streamed(chunk("Let me look."), *stalls, *end)


def answering(*stalls: Stall) -> FakeResponse:
    """Return a round that answers, with a pause in its middle."""
    return streamed(chunk("Sun"), *stalls, chunk("ny."), chunk(finish="stop"), usage(200, 11), DONE)


class Scene:
    """A served application, its upstream and its tool."""

    def __init__(self, serve: Serve, *script: FakeResponse | Stall, **upstream: Any) -> None:  # noqa: ANN401 - settings
        self.client = FakeClient(*script)
        self.tool = PlayedTool()
        fields: dict[str, Any] = {"on_disconnect": "drain", "drain_s": 30.0} | upstream
        self.serving: AbstractAsyncContextManager[Served] = serve(
            connect=lambda _: self.client,
            box=Box(self.tool),
            scripted=Scripted(enabled=False),
            search=Search(enabled=False),
            upstreams={"up": Upstream(base_url="http://127.0.0.1:9/v1", retries=0, **fields)},
            models={"far": Model(upstream=("up",), model="host-model", tools=True)},
            prices={"far": Price(input=1.0, output=2.0)},
            plans={"owner": Plan(concurrent_requests=1)},
        )


async def reached(stall: Stall) -> None:
    async with asyncio.timeout(BOUND_S):
        await stall.reached.wait()


async def hang_up(served: Served, stall: Stall, *, stream: bool, **headers: str) -> str:
    """Ask, hang up once the upstream pauses, and return the run's id if it was told."""
    body = ASK | {"stream": stream}
    if stream:
        async with served.http.stream(
            "POST", "/v1/chat/completions", json=body, headers=served.auth | headers
        ) as answer:
            await reached(stall)
            return answer.headers["x-run-id"]
    asking = asyncio.create_task(served.http.post("/v1/chat/completions", json=body, headers=served.auth | headers))
    await reached(stall)
    asking.cancel()
    await asyncio.wait([asking])
    return ""


async def get(served: Served, path: str) -> Any:  # noqa: ANN401 - JSON
    answer = await served.http.get(path, headers=served.auth)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def booked(served: Served) -> Any:  # noqa: ANN401 - rows as JSON
    """Return the entries once nothing is read on and all that is settled is written."""
    assert served.app.books is not None
    async with asyncio.timeout(BOUND_S):
        await served.app._turns.drains.idle()
    await served.app.books.books.flush()
    return (await get(served, "/v1/usage/requests"))["data"]


async def slots(served: Served) -> int:
    """Return how many requests are under way by the counters."""
    found = [level for level in (await get(served, "/v1/limits"))["data"] if level["kind"] == "slots"]
    used: int = found[0]["used"]
    return used


@pytest.mark.req("OAI-35")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("session", ["", "s1"])
async def test_the_round_under_way_is_read_to_its_end_and_nothing_else_is_begun(
    serve: Serve, *, stream: bool, session: str
) -> None:
    stall = Stall()
    scene = Scene(serve, calling(stall))
    headers = {"x-session-id": session} if session else {}
    async with scene.serving as served:
        run_id = await hang_up(served, stall, stream=stream, **headers)
        assert not scene.client.responses[0].closed
        assert await slots(served) == 1, "it is still under way, and its lease is held"
        assert served.app.books is not None
        assert len(served.app.books.books.live) == 1, "what is live is renewed"
        stall.go_on.set()
        (entry,) = await booked(served)
        assert await slots(served) == 0
        if run_id:
            assert (await get(served, f"/v1/runs/{run_id}"))["status"] == "cancelled"
    assert (entry["status"], entry["estimated"]) == ("client_left", False)
    assert (entry["prompt_tokens"], entry["completion_tokens"], entry["cost"]["micros"]) == (70, 30, 130)
    assert (entry["tool_calls"], scene.tool.asked) == (0, [])
    assert (len(scene.client.requests), scene.client.responses[0].closed) == (1, True)


async def test_a_later_round_is_added_to_what_went_before(serve: Serve) -> None:
    stall = Stall()
    scene = Scene(serve, calling(), answering(stall))
    async with scene.serving as served:
        await hang_up(served, stall, stream=True)
        stall.go_on.set()
        (entry,) = await booked(served)
    assert (entry["status"], entry["estimated"], entry["tool_calls"]) == ("client_left", False, 1)
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == (270, 41)
    assert len(scene.client.requests) == 2


async def test_a_round_whose_upstream_has_not_begun_to_answer_is_waited_for(serve: Serve) -> None:
    stall = Stall()
    scene = Scene(serve, streamed(stall, chunk("Sunny."), chunk(finish="stop"), usage(9, 3), DONE))
    async with scene.serving as served:
        await hang_up(served, stall, stream=False)
        stall.go_on.set()
        (entry,) = await booked(served)
    assert (entry["status"], entry["prompt_tokens"], entry["completion_tokens"]) == ("client_left", 9, 3)


async def test_a_drain_that_takes_too_long_is_ended_and_estimated(serve: Serve) -> None:
    stall = Stall()
    scene = Scene(serve, calling(), answering(stall), drain_s=0.1)
    async with scene.serving as served:
        await hang_up(served, stall, stream=True)
        (entry,) = await booked(served)
        assert scene.client.responses[1].closed
    assert (entry["status"], entry["estimated"]) == ("client_left", True)
    assert entry["prompt_tokens"] > 70
    assert entry["completion_tokens"] == 30 + 1


async def test_a_server_that_goes_down_waits_a_moment_and_enters_what_came(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Drains.aclose, "__defaults__", (0.05,))
    stall = Stall()
    scene = Scene(serve, calling(stall))
    async with scene.serving as served:
        run_id, key = await hang_up(served, stall, stream=True), served.key
    assert scene.client.responses[0].closed
    next_scene = Scene(serve, answering())
    async with next_scene.serving as served:
        served.key = key
        (entry,) = await booked(served)
        assert (await get(served, f"/v1/runs/{run_id}"))["status"] == "cancelled"
    assert (entry["status"], entry["estimated"], entry["completion_tokens"]) == ("client_left", True, 4)
    assert next_scene.client.requests == []


@pytest.mark.parametrize("policy", ["cancel", "free"])
async def test_other_upstreams_are_let_go_of_at_once(serve: Serve, policy: str) -> None:
    stall = Stall()
    scene = Scene(serve, calling(stall), on_disconnect=policy)
    async with scene.serving as served:
        await hang_up(served, stall, stream=True)
        assert scene.client.responses[0].closed
        assert await slots(served) == 0
        (entry,) = await booked(served)
    assert (entry["status"], entry["estimated"], entry["completion_tokens"]) == ("client_left", True, 4)
    assert (entry["cost"]["micros"] == 0) == (policy == "free")


async def test_a_run_that_goes_on_without_its_client_is_not_ended(serve: Serve) -> None:
    stall = Stall()
    scene = Scene(serve, calling(stall), answering())
    async with scene.serving as served:
        body = ASK | {"stream": True, "on_disconnect": "continue"}
        async with served.http.stream("POST", "/v1/chat/completions", json=body, headers=served.auth) as answer:
            await reached(stall)
            run_id = answer.headers["x-run-id"]
        stall.go_on.set()
        (entry,) = await booked(served)
        assert (await get(served, f"/v1/runs/{run_id}"))["status"] == "done"
    assert (entry["prompt_tokens"], entry["completion_tokens"], entry["tool_calls"]) == (270, 41, 1)
