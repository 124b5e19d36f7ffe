"""Agentic turns through HTTP, as the official client sees them: the server's own tools inside one chat completion."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import openai
import pytest

from convene.config import AgenticSettings, Plan, Price, Scripted, Search
from convene.errors import Failed, Retry
from convene.events import Noticed
from convene.tools.base import ToolResult
from tool_doubles import Box, PlayedTool, say_sunny

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from api.conftest import Served
    from convene.tools.base import ToolContext

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASK = [{"role": "user", "content": "What is the weather?"}]


def call(name: str = "weather", args: object = None) -> dict[str, Any]:
    """Return a step of a script that calls a function."""
    return {"call": {"name": name, "args": {"city": "Rome"} if args is None else args}}


def text(words: str) -> dict[str, Any]:
    return {"text": words}


@pytest.fixture
def play(serve: Any, tmp_path: Path) -> Any:  # noqa: ANN401 - a fixture's factory
    """Return a way to serve the model `played`, which says these turns, with these tools."""

    def start(*turns: list[dict[str, Any]], box: Box | None = None, **fields: object) -> Any:  # noqa: ANN401
        file = tmp_path / "played.json"
        file.write_text(json.dumps({"models": [{"name": "played", "turns": [{"steps": steps} for steps in turns]}]}))
        fields = {"scripted": Scripted(enabled=True, file=str(file)), "search": Search(enabled=False)} | fields
        return serve(box=box or Box(PlayedTool()), **fields)

    return start


async def ask(served: Served, **fields: Any) -> Any:  # noqa: ANN401 - a reply as JSON
    answer = await served.chat(model="played", messages=ASK, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def booked(served: Served) -> Any:  # noqa: ANN401 - rows as JSON
    """Return the entries of the ledger, newest first, once all that is settled is written."""
    assert served.app.books is not None
    await served.app.books.books.flush()
    return (await served.http.get("/v1/usage/requests", headers=served.auth)).json()["data"]


def folded(frames: list[Any]) -> dict[str, Any]:
    """Return the steps of a stream's frames by id, the last state of each."""
    steps: dict[str, Any] = {}
    for frame in frames[:-1]:
        for step in frame.get("intermediate_steps", []):
            steps[step["id"]] = step
    return steps


def content(frames: list[Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for frame in frames[:-1] for choice in frame["choices"])


@pytest.mark.req("CHAT-38", "CHAT-39", "CHAT-44", "CHAT-45")
async def test_a_tool_of_the_server_runs_inside_one_completion_and_everything_is_in_the_reply(play: Any) -> None:  # noqa: ANN401
    tool = PlayedTool()
    async with play([{"reasoning": "hm"}, text("Let me look."), call()], [text("Sunny.")], box=Box(tool)) as served:
        raw = await served.sdk.chat.completions.with_raw_response.create(model="played", messages=ASK)
        reply = raw.parse()
    assert reply.choices[0].message.content == "Let me look.\n\nSunny."
    assert reply.choices[0].finish_reason == "stop"
    (ran,) = reply.executable_data
    assert (ran["tool_name"], ran["args"], ran["result"], ran["status"], ran["type"]) == (
        "weather",
        {"city": "Rome"},
        {"sky": "sunny"},
        "done",
        "tool_call",
    )
    assert [(step["id"], step["kind"], step["name"], step["status"]) for step in reply.intermediate_steps] == [
        ("s1", "model", "played", "done"),
        ("s2", "tool", "weather", "done"),
        ("s3", "model", "played", "done"),
    ]
    assert all(step["ended_at"] >= step["started_at"] for step in reply.intermediate_steps)
    assert reply.thought == ["hm"]
    assert reply.metadata["run_id"] == raw.headers["x-run-id"]
    assert tool.asked == [{"city": "Rome"}]


@pytest.mark.req("CHAT-37", "USAGE-01")
async def test_the_usage_of_a_turn_is_that_of_all_its_rounds_and_each_step_shows_its_own(play: Any) -> None:  # noqa: ANN401
    one = {"prompt_tokens": 10, "completion_tokens": 5, "reasoning_tokens": 2, "cached_tokens": 3}
    two = {"prompt_tokens": 30, "completion_tokens": 7, "reasoning_tokens": 1, "cached_tokens": 0}
    async with play([call(), {"usage": one}], [text("Sunny."), {"usage": two}]) as served:
        reply = await ask(served)
        entries = await booked(served)
    usage = reply["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (40, 12, 52)
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 3
    assert usage["prompt_tokens_details"]["cached_tokens"] == 3
    shown = [step.get("usage") for step in reply["intermediate_steps"]]
    assert [used and used["total_tokens"] for used in shown] == [15, None, 37]
    assert (entries[0]["prompt_tokens"], entries[0]["completion_tokens"], entries[0]["tool_calls"]) == (40, 12, 1)


@pytest.mark.req("STREAM-02", "STREAM-03", "CHAT-39", "SSE-04")
async def test_a_stream_is_plain_chunks_with_progress_as_extra_keys_and_no_call_of_the_servers(play: Any) -> None:  # noqa: ANN401
    async with play([{"reasoning": "hm"}, text("Let me look."), call()], [text("Sunny today.")]) as served:
        frames = await served.frames(model="played", messages=ASK, stream_options={"include_usage": True})
    assert frames[-1] == "[DONE]"
    for frame in frames[:-1]:
        assert frame["object"] == "chat.completion.chunk"
        for choice in frame["choices"]:
            assert "tool_calls" not in choice["delta"]
            assert choice["delta"].get("content", "") is not None
        if "intermediate_steps" in frame and frame["choices"][0]["finish_reason"] is None:
            assert frame["choices"][0]["delta"] == {}
    assert content(frames) == "Let me look.\n\nSunny today."
    assert {key: step["status"] for key, step in folded(frames).items()} == {"s1": "done", "s2": "done", "s3": "done"}
    last = frames[-3]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["executable_data"][0]["tool_name"] == "weather"
    assert last["metadata"]["run_id"].startswith("run_")
    assert frames[-2]["usage"]["total_tokens"] > 0


async def test_the_official_client_reads_such_a_stream_to_its_end(play: Any) -> None:  # noqa: ANN401
    async with play([text("Look. "), call()], [text("Sunny.")]) as served:
        words, finish = "", None
        steps: list[Any] = []
        stream = await served.sdk.chat.completions.create(model="played", messages=ASK, stream=True)
        async for chunk in stream:
            words += chunk.choices[0].delta.content or ""
            steps += getattr(chunk, "intermediate_steps", [])
            finish = chunk.choices[0].finish_reason or finish
    assert words == "Look. \n\nSunny."
    assert finish == "stop"
    assert [step["status"] for step in steps if step["kind"] == "tool"] == ["running", "done"]


@pytest.mark.req("CHAT-39")
async def test_progress_and_reasoning_arrive_while_the_tool_still_runs(play: Any) -> None:  # noqa: ANN401
    may_end = asyncio.Event()

    async def wait(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        context.progress("Reading the third page")
        await may_end.wait()
        return await say_sunny(arguments, context)

    script = ([{"reasoning": "I must look"}, call()], [text("Sunny.")])
    async with play(*script, box=Box(PlayedTool(do=wait))) as served:
        stream = await served.sdk.chat.completions.create(model="played", messages=ASK, stream=True)
        seen: list[Any] = []
        reasoned = ""
        async for chunk in stream:
            reasoned += getattr(chunk.choices[0].delta, "reasoning_content", None) or ""
            seen += getattr(chunk, "intermediate_steps", [])
            if not may_end.is_set() and any(step["summary"] == "Reading the third page" for step in seen):
                assert [step["status"] for step in seen if step["kind"] == "tool"] == ["running", "running"]
                assert reasoned == "I must look"
                may_end.set()
    assert may_end.is_set()
    assert seen[-1]["status"] == "done"


async def test_the_calls_of_one_round_run_at_the_same_time_and_answer_in_their_order(play: Any) -> None:  # noqa: ANN401
    together = asyncio.Barrier(3)

    async def meet(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        await together.wait()
        return await say_sunny(arguments, context)

    rounds = ([call(args={"city": city}) for city in ("Rome", "Oslo", "Bonn")], [text("Done.")])
    async with play(*rounds, box=Box(PlayedTool(do=meet))) as served:
        reply = await ask(served)
    assert [ran["args"]["city"] for ran in reply["executable_data"]] == ["Rome", "Oslo", "Bonn"]
    assert [step["id"] for step in reply["intermediate_steps"]] == ["s1", "s2", "s3", "s4", "s5"]


async def test_no_more_calls_run_at_the_same_time_than_the_operator_allows(play: Any) -> None:  # noqa: ANN401
    running = most = 0

    async def count(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        return await say_sunny(arguments, context)

    rounds = ([call() for _ in range(6)], [text("Done.")])
    box = Box(PlayedTool(do=count))
    async with play(*rounds, box=box, agentic=AgenticSettings(calls_at_once=2)) as served:
        reply = await ask(served)
    assert (most, len(reply["executable_data"])) == (2, 6)


class Broken(RuntimeError):
    """What a tool should not raise."""


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Retry("no such city."), "no such city. You may call it again with other arguments."),
        (Failed("the service is closed."), "the service is closed. Do not call it again."),
        (Broken("secret path"), "The call failed for an internal reason. Do not call it again."),
    ],
)
async def test_whatever_a_tool_raises_the_model_is_told_and_the_turn_goes_on(
    play: Any,  # noqa: ANN401
    fault: Exception,
    told: str,
) -> None:
    async def fail(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        del arguments, context
        raise fault

    async with play([call()], [text("No luck.")], box=Box(PlayedTool(do=fail))) as served:
        reply = await ask(served)
    assert reply["choices"][0]["message"]["content"] == "No luck."
    assert reply["executable_data"][0]["status"] == "failed"
    assert told in reply["executable_data"][0]["result"]["error"]
    assert [step["status"] for step in reply["intermediate_steps"]] == ["done", "failed", "done"]
    assert "secret path" not in json.dumps(reply)


async def test_a_tool_that_does_not_answer_in_its_time_is_given_up(play: Any) -> None:  # noqa: ANN401
    async def never(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        del arguments, context
        await asyncio.Event().wait()
        raise AssertionError

    box = Box(PlayedTool(do=never, timeout_s=0.01))
    async with play([call()], [text("No luck.")], box=box) as served:
        reply = await ask(served)
    assert "no answer within 0.01 seconds" in reply["executable_data"][0]["result"]["error"]
    assert reply["choices"][0]["message"]["content"] == "No luck."


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (call(args={"town": "Rome"}), "The arguments are not valid"),
        (call(args="{not json"), "The arguments are not JSON"),
        (call(args='["Rome"]'), "not a JSON object"),
        (call("wether"), "There is no tool called 'wether'. There are: weather."),
    ],
)
async def test_a_call_that_cannot_be_is_a_failed_step_that_the_model_may_mend(
    play: Any,  # noqa: ANN401
    made: dict[str, Any],
    told: str,
) -> None:
    tool = PlayedTool()
    async with play([made], [call()], [text("Sunny.")], box=Box(tool)) as served:
        reply = await ask(served)
    assert tool.asked == [{"city": "Rome"}]
    assert told in reply["executable_data"][0]["result"]["error"]
    assert [ran["status"] for ran in reply["executable_data"]] == ["failed", "done"]
    assert reply["choices"][0]["message"]["content"] == "Sunny."


@pytest.mark.req("TOOLS-04", "STREAM-07")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_of_the_clients_ends_the_turn_and_only_it_is_in_tool_calls(play: Any, *, stream: bool) -> None:  # noqa: ANN401
    tool = PlayedTool()
    async with play([text("Both."), call(), call("get_weather")], [text("!")], box=Box(tool)) as served:
        if not stream:
            reply = await ask(served, tools=[WEATHER])
            message = reply["choices"][0]["message"]
            finish, calls, said = reply["choices"][0]["finish_reason"], message["tool_calls"], message["content"]
        else:
            frames = await served.frames(model="played", messages=ASK, tools=[WEATHER])
            deltas = [
                one
                for frame in frames[:-1]
                for choice in frame["choices"]
                for one in choice["delta"].get("tool_calls", [])
            ]
            assert [one["index"] for one in deltas] == [0, 0]
            arguments = "".join(one["function"]["arguments"] for one in deltas)
            calls = [deltas[0] | {"function": {"name": deltas[0]["function"]["name"], "arguments": arguments}}]
            finish, said = frames[-2]["choices"][0]["finish_reason"], content(frames)
            reply = frames[-2]
    (made,) = calls
    assert (finish, said) == ("tool_calls", "Both.")
    assert (made["type"], made["function"]["name"]) == ("function", "get_weather")
    assert json.loads(made["function"]["arguments"]) == {"city": "Rome"}
    assert tool.asked == [{"city": "Rome"}]
    assert [ran["tool_name"] for ran in reply["executable_data"]] == ["weather"]


@pytest.mark.req("CHAT-15")
async def test_without_parallel_calls_the_client_gets_one(play: Any) -> None:  # noqa: ANN401
    async with play([call("get_weather"), call("get_weather")]) as served:
        reply = await ask(served, tools=[WEATHER], parallel_tool_calls=False)
    assert len(reply["choices"][0]["message"]["tool_calls"]) == 1


@pytest.mark.req("CHAT-14")
async def test_tool_choice_none_takes_the_clients_functions_away_and_leaves_the_servers(play: Any) -> None:  # noqa: ANN401
    tool = PlayedTool()
    async with play([call(), call("get_weather")], [text("Sunny.")], box=Box(tool)) as served:
        reply = await ask(served, tools=[WEATHER], tool_choice="none")
    assert reply["choices"][0]["message"]["content"] == "Sunny."
    assert [ran["status"] for ran in reply["executable_data"]] == ["done", "failed"]
    assert "tool_calls" not in reply["choices"][0]["message"]


async def test_a_function_of_the_clients_hides_a_tool_of_the_same_name(play: Any) -> None:  # noqa: ANN401
    tool = PlayedTool("get_weather")
    async with play([call("get_weather")], box=Box(tool, PlayedTool())) as served:
        reply = await ask(served, tools=[WEATHER])
    assert reply["choices"][0]["finish_reason"] == "tool_calls"
    assert tool.asked == []


@pytest.mark.req("CHAT-33")
async def test_server_tools_false_makes_it_a_plain_turn(play: Any) -> None:  # noqa: ANN401
    async with play([text("Plain.")]) as served:
        answer = await served.chat(model="played", messages=ASK, server_tools=False)
        many = await served.chat(model="played", messages=ASK, n=2)
    assert "x-run-id" not in answer.headers
    assert answer.json()["intermediate_steps"] == []
    assert "run_id" not in answer.json()["metadata"]
    assert len(many.json()["choices"]) == 2


async def test_the_operator_switches_the_servers_tools_off(play: Any) -> None:  # noqa: ANN401
    async with play([text("Plain.")], agentic=AgenticSettings(server_tools=False)) as served:
        answer = await served.chat(model="played", messages=ASK)
    assert "x-run-id" not in answer.headers


@pytest.mark.req("TOOLS-10", "CHAT-42", "COMPAT-02", "DEC-01")
@pytest.mark.parametrize("shape", ["dual", "bare", "off"])
async def test_calls_of_the_server_stand_in_tool_calls_of_whole_replies_as_the_operator_wants(
    play: Any,  # noqa: ANN401
    shape: str,
) -> None:
    settings = AgenticSettings(tool_calls_shape=shape)  # type: ignore[arg-type]  # the three that there are
    async with play([call()], [text("Sunny.")], agentic=settings) as served:
        reply = await ask(served)
        with_tools = await ask(served, tools=[WEATHER])
        sdk = await served.sdk.chat.completions.create(model="played", messages=ASK)
    assert "tool_calls" not in with_tools["choices"][0]["message"]
    assert reply["choices"][0]["finish_reason"] == "stop"
    shown = reply["choices"][0]["message"].get("tool_calls")
    ours = {"tool_name": "weather", "args": {"city": "Rome"}, "result": {"sky": "sunny"}}
    if shape == "off":
        assert shown is None
        return
    assert shown[0].items() >= ours.items()
    theirs = {"index": 0, "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    if shape == "dual":
        assert shown[0].items() >= theirs.items()
        assert sdk.choices[0].message.tool_calls[0].function.name == "weather"
    else:
        assert not shown[0].keys() & theirs.keys()


@pytest.mark.parametrize("shape", ["objects", "strings"])
async def test_notices_and_cost_are_texts_in_whole_replies_where_the_operator_wants_them_for_strict_clients(
    play: Any,  # noqa: ANN401
    shape: str,
) -> None:
    settings = AgenticSettings(metadata_shape=shape)  # type: ignore[arg-type]  # the two that there are
    async with play([call()], [text("Sunny.")], agentic=settings, prices={"played": Price(input=5)}) as served:
        reply = await ask(served, web_search=True)
        options: Any = {
            "base_url": served.sdk.base_url,
            "api_key": served.sdk.api_key,
            "http_client": served.sdk._client,
        }
        strict = openai.AsyncOpenAI(**options, max_retries=0, _strict_response_validation=True)
        body: Any = {"model": "played", "messages": ASK, "extra_body": {"web_search": True}}
        asking: Any = strict.chat.completions.create(**body)
        if shape == "objects":
            with pytest.raises(openai.APIResponseValidationError):
                await asking
        else:
            metadata: Any = (await asking).metadata
            assert json.loads(metadata["cost"])["currency"] == "USD"
        streaming: Any = await strict.chat.completions.create(**body, stream=True)
        chunks = [chunk async for chunk in streaming]
    notices = reply["metadata"]["notices"]
    found = json.loads(notices) if shape == "strings" else notices
    assert [one["code"] for one in found] == ["search_unavailable"]
    told: Any = (chunks[-1].model_extra or {})["metadata"]
    assert [one["code"] for one in told["notices"]] == ["search_unavailable"]


@pytest.mark.req("MODEL-08")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_calls_for_ever_stops_one_round_after_its_ceiling_and_says_so(
    play: Any,  # noqa: ANN401
    *,
    stream: bool,
) -> None:
    tool = PlayedTool()
    async with play([text("On and on."), call()], box=Box(tool), agentic=AgenticSettings(max_tool_calls=3)) as served:
        if stream:
            frames = await served.frames(model="played", messages=ASK)
            said, last, steps = content(frames), frames[-2], list(folded(frames).values())
        else:
            last = await ask(served)
            said, steps = last["choices"][0]["message"]["content"], last["intermediate_steps"]
    assert len(tool.asked) == 3
    assert [step["kind"] for step in steps].count("model") == 5
    assert last["choices"][0]["finish_reason"] == "length"
    assert said.endswith("I stopped here: this turn has reached its ceiling of 3 tool calls.")
    (notice,) = last["metadata"]["notices"]
    assert notice["code"] == "ceiling_reached"
    assert "3 tool calls" in notice["message"]


async def test_a_request_may_lower_the_ceiling_of_calls_and_never_raise_it(play: Any) -> None:  # noqa: ANN401
    async with play([call()], agentic=AgenticSettings(max_tool_calls=3)) as served:
        lowered = await ask(served, max_tool_calls=1)
        raised = await ask(served, max_tool_calls=100)
        none = await ask(served, max_tool_calls=0)
    assert [len(reply["executable_data"]) for reply in (lowered, raised, none)] == [1, 3, 0]
    assert lowered["choices"][0]["finish_reason"] == "length"


async def test_a_growing_context_ends_at_the_ceiling_of_tokens(play: Any) -> None:  # noqa: ANN401
    async def much(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        del arguments, context
        return ToolResult(text="word " * 400)

    async with play([call()], box=Box(PlayedTool(do=much)), agentic=AgenticSettings(max_tokens=1_000)) as served:
        reply = await ask(served)
    assert reply["choices"][0]["finish_reason"] == "length"
    assert "ceiling of 1,000 tokens" in reply["choices"][0]["message"]["content"]
    rounds = [step for step in reply["intermediate_steps"] if step["kind"] == "model"]
    before = sum(step["usage"]["total_tokens"] for step in rounds[:-1])
    assert before < 1_000 <= reply["usage"]["total_tokens"]


async def test_the_ceiling_of_rounds_holds(play: Any) -> None:  # noqa: ANN401
    async with play([call()], agentic=AgenticSettings(max_rounds=2)) as served:
        reply = await ask(served)
    assert "ceiling of 2 rounds of the model" in reply["choices"][0]["message"]["content"]
    assert [step["kind"] for step in reply["intermediate_steps"]].count("model") == 3


async def test_the_ceiling_of_money_holds_and_the_cost_of_each_step_is_told(play: Any) -> None:  # noqa: ANN401
    used = {"usage": {"prompt_tokens": 1_000_000, "completion_tokens": 0}}
    prices = {"played": Price(input=2.0)}
    async with play([call(), used], agentic=AgenticSettings(max_cost=3.0, max_tokens=0), prices=prices) as served:
        reply = await ask(served)
    assert "ceiling of 3 USD" in reply["choices"][0]["message"]["content"]
    assert reply["metadata"]["cost"] == {
        "currency": "USD",
        "micros": 4_000_000,
        "by_step": [{"step": "s1", "micros": 2_000_000}, {"step": "s3", "micros": 2_000_000}],
    }


@pytest.mark.req("LIMIT-01")
async def test_a_limit_that_refuses_a_further_round_ends_the_turn_with_what_is_there(play: Any) -> None:  # noqa: ANN401
    plans = {"owner": Plan(tokens_per_day=3_000)}
    used = {"usage": {"prompt_tokens": 1_500, "completion_tokens": 10}}

    async def much(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        del arguments, context
        return ToolResult(text="word " * 1_500)

    async with play([text("Look."), call(), used], box=Box(PlayedTool(do=much)), plans=plans) as served:
        reply = await ask(served)
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["metadata"]["notices"][0]["code"] == "limit_reached"
    assert "tokens per day" in reply["choices"][0]["message"]["content"]
    assert [step["status"] for step in reply["intermediate_steps"]][-1] == "skipped"


async def test_every_round_is_reserved_and_the_whole_turn_is_counted_once(play: Any) -> None:  # noqa: ANN401
    plans = {"owner": Plan(tokens_per_day=100_000, requests_per_day=10)}
    used = {"usage": {"prompt_tokens": 1_000, "completion_tokens": 10}}
    async with play([call(), used], [call(), used], [text("Done."), used], plans=plans) as served:
        await ask(served)
        limits = (await served.http.get("/v1/limits", headers=served.auth)).json()["data"]
    left = {one["name"]: one["remaining"] for one in limits}
    assert left["tokens per day"] == 100_000 - 3 * 1_010
    assert left["requests per day"] == 9


@pytest.mark.req("OAI-30")
async def test_a_refusal_of_the_very_first_round_has_its_real_status(play: Any) -> None:  # noqa: ANN401
    async with play([{"fail": "unavailable"}]) as served:
        answer = await served.chat(model="played", messages=ASK, stream=True)
        with pytest.raises(openai.InternalServerError):
            await served.sdk.chat.completions.create(model="played", messages=ASK)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "model_unavailable"


@pytest.mark.req("STREAM-12", "SSE-15")
async def test_a_model_that_fails_after_a_tool_has_run_ends_the_stream_in_an_error(play: Any) -> None:  # noqa: ANN401
    async with play([text("Look."), call()], [text("Sun"), {"fail": "malformed"}]) as served:
        frames = await served.frames(model="played", messages=ASK)
        entries = await booked(served)
    assert frames[-1] == "[DONE]"
    assert frames[-2]["error"]["code"] == "upstream_malformed"
    assert frames[-2]["choices"] == []
    assert (entries[0]["status"], entries[0]["tool_calls"]) == ("failed", 1)
    assert entries[0]["prompt_tokens"] > 0


async def test_a_client_that_leaves_stops_the_tool_and_pays_for_what_was_used(play: Any) -> None:  # noqa: ANN401
    stopped = asyncio.Event()

    async def never(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        del arguments, context
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        raise AssertionError

    async with play([text("Look."), call()], box=Box(PlayedTool(do=never))) as served:
        stream = await served.sdk.chat.completions.create(model="played", messages=ASK, stream=True)
        async for chunk in stream:
            if any(step["kind"] == "tool" for step in getattr(chunk, "intermediate_steps", [])):
                break
        await stream.close()
        await asyncio.wait_for(stopped.wait(), 5)
        entries = await booked(served)
    assert entries[0]["status"] == "client_left"
    assert entries[0]["completion_tokens"] > 0


@pytest.mark.parametrize("by", ["request", "operator"])
async def test_a_run_that_is_to_go_on_comes_to_its_end_without_its_client(play: Any, by: str) -> None:  # noqa: ANN401
    may_end, second = asyncio.Event(), asyncio.Event()

    async def wait(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        if arguments["city"] == "Oslo":
            second.set()
        await may_end.wait()
        return await say_sunny(arguments, context)

    script = ([call()], [call(args={"city": "Oslo"})], [text("Sunny.")])
    fields = {"agentic": AgenticSettings(on_disconnect="continue")} if by == "operator" else {}
    extra = {"on_disconnect": "continue"} if by == "request" else {}
    async with play(*script, box=Box(PlayedTool(do=wait)), **fields) as served:
        stream = await served.sdk.chat.completions.create(model="played", messages=ASK, stream=True, extra_body=extra)
        async for chunk in stream:
            if any(step["kind"] == "tool" for step in getattr(chunk, "intermediate_steps", [])):
                break
        await stream.close()
        may_end.set()
        await asyncio.wait_for(second.wait(), 5)
        await asyncio.wait_for(served.app._turns.drains.idle(), 5)
        run_id = stream.response.headers["x-run-id"]
        kept = (await served.http.get(f"/v1/runs/{run_id}", headers=served.auth)).json()
        entries = await booked(served)
    assert (entries[0]["status"], entries[0]["tool_calls"]) == ("client_left", 2)
    assert kept["status"] == "done"
    assert "Sunny." in json.dumps(kept)


@pytest.mark.req("CHAT-24", "OAI-01")
@pytest.mark.parametrize(
    ("fields", "param"),
    [({"max_tool_calls": -1}, "max_tool_calls"), ({"on_disconnect": "stay"}, "on_disconnect")],
)
async def test_wrong_values_of_the_new_fields_are_named(play: Any, fields: dict[str, Any], param: str) -> None:  # noqa: ANN401
    async with play([text("!")]) as served:
        answer = await served.chat(model="played", messages=ASK, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.req("DEC-18")
@pytest.mark.parametrize("fields", [{"web_search": True}, {"web_search_options": {}}])
async def test_without_a_search_the_answer_comes_and_says_so(play: Any, fields: dict[str, Any]) -> None:  # noqa: ANN401
    async with play([text("From memory.")], box=Box(notices=[Noticed("mcp_down", "A server is down.")])) as served:
        reply = await ask(served, **fields)
    assert reply["choices"][0]["message"]["content"] == "From memory."
    assert [notice["code"] for notice in reply["metadata"]["notices"]] == ["search_unavailable", "mcp_down"]


async def test_search_tools_are_offered_only_to_requests_that_search(play: Any) -> None:  # noqa: ANN401
    search = PlayedTool("web_search", kind="search")
    async with play([call("web_search")], [text("Found.")], box=Box(search)) as served:
        plain = await ask(served)
        searching = await ask(served, web_search=True)
    assert plain["executable_data"] == []
    assert [ran["tool_name"] for ran in searching["executable_data"]] == ["web_search"]
    assert searching["intermediate_steps"][1]["kind"] == "search"


async def test_a_turn_that_searches_has_one_choice_and_says_so(play: Any) -> None:  # noqa: ANN401
    search = PlayedTool("web_search", kind="search")
    async with play([text("Found.")], box=Box(search)) as served:
        reply = await ask(served, web_search=True, n=3)
    assert len(reply["choices"]) == 1
    assert [notice["code"] for notice in reply["metadata"]["notices"]][-1] == "one_choice"


async def test_a_tool_is_told_who_calls_and_with_which_key_to_repeat(play: Any) -> None:  # noqa: ANN401
    tool = PlayedTool()
    async with play([call()], [text("Sunny.")], box=Box(tool)) as served:
        reply = await served.sdk.chat.completions.create(
            model="played",
            messages=ASK,
            extra_headers={"x-session-id": "s-1"},
            extra_body={"web_search_options": {"search_context_size": "low"}},
        )
    (context,) = tool.contexts
    run_id = reply.metadata["run_id"]
    assert (context.run_id, context.session_id) == (run_id, "s-1")
    assert context.idempotency_key == f"{run_id}:s2:1"
    assert context.options == {"search_context_size": "low"}
    assert context.owner


@pytest.mark.req("HDR-04", "SESSION-01")
async def test_a_session_has_one_conversation_id_in_whole_answers_and_in_streams(play: Any) -> None:  # noqa: ANN401
    async with play([text("Sunny.")]) as served:
        names = []
        for session in ("s-1", "s-1", "another", "x" * 5_000):
            made = await served.sdk.chat.completions.create(
                model="played", messages=ASK, extra_headers={"x-session-id": session}
            )
            names.append(made.conversation_id)
        stream = await served.sdk.chat.completions.create(
            model="played", messages=ASK, stream=True, extra_headers={"x-session-id": "s-1"}
        )
        streamed = [getattr(chunk, "conversation_id", None) async for chunk in stream]
        without = await ask(served)
    assert names[0] == names[1] == streamed[-1]
    assert len(set(names)) == 3
    assert all(names)
    assert without["conversation_id"] is None


@pytest.mark.req("TOOLS-06", "CHAT-30")
async def test_a_mixed_turn_goes_on_when_the_client_sends_the_message_back_as_it_came(play: Any) -> None:  # noqa: ANN401
    tool = PlayedTool()
    script = ([text("Both."), call(), call("get_weather")], [text("Sunny, 21 degrees.")])
    async with play(*script, box=Box(tool)) as served:
        first = await served.sdk.chat.completions.create(model="played", messages=ASK, tools=[WEATHER])
        message = first.choices[0].message
        assert message.tool_calls is not None
        (made,) = message.tool_calls
        back = [*ASK, message.model_dump(), {"role": "tool", "tool_call_id": made.id, "content": "21 degrees"}]
        second = await served.sdk.chat.completions.create(model="played", messages=back)
        steps = getattr(second, "intermediate_steps", [])
    assert second.choices[0].message.content == "Sunny, 21 degrees."
    assert [step["kind"] for step in steps] == ["model"]
    assert len(tool.asked) == 1
    assert second.usage is not None
    assert second.usage.prompt_tokens > 20, "the result of the server's tool was read again"
