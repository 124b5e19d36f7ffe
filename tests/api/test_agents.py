"""Agents inside a chat completion, through HTTP: chosen by the model, addressed by the user, deferred, polled for."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from api.test_agentic_turns import content, folded
from convene.agents.base import Heard
from convene.config import AgenticSettings, Model, Scripted, Search
from convene.errors import StoreFault
from convene.serving.deferred import SENTENCE
from market_doubles import ADDRESS, OTHER, Market

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from api.conftest import Served

POLL = {"role": "user", "content": "Any update?"}
ASK = {"role": "user", "content": "Please book a table in Rome for two."}


def call(name: str = "ask_agent", **args: object) -> dict[str, Any]:
    args = args or {"agent": "@booker", "message": "A table for two in Rome.", "reason": "It books tables."}
    return {"call": {"name": name, "args": args}}


def text(words: str) -> dict[str, Any]:
    return {"text": words}


@pytest.fixture
def play(serve: Any, tmp_path: Path) -> Any:  # noqa: ANN401 - a fixture's factory
    """Return a way to serve the model `played-agentic`, which says these turns, with this market."""

    def start(*turns: list[dict[str, Any]], box: Market, wait_s: float = 55.0, **fields: object) -> Any:  # noqa: ANN401
        file = tmp_path / "played.json"
        models = [
            {"name": name, "turns": [{"steps": steps} for steps in turns]} for name in ("played-agentic", "played")
        ]
        file.write_text(json.dumps({"models": models}))
        fields = {
            "scripted": Scripted(enabled=True, file=str(file)),
            "search": Search(enabled=False),
            "agentic": AgenticSettings(agent_wait_s=wait_s),
        } | fields
        return serve(box=box, **fields)

    return start


async def chat(served: Served, *messages: dict[str, str], session: str | None = None, **fields: object) -> Any:  # noqa: ANN401 - a reply as JSON
    headers = served.auth | ({} if session is None else {"x-session-id": session})
    body = {"model": "played-agentic", "messages": list(messages) or [ASK]} | fields
    answer = await served.http.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def words(reply: Any) -> str:  # noqa: ANN401 - a reply as JSON
    said = reply["choices"][0]["message"]["content"]
    assert isinstance(said, str)
    return said


async def until(asked: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:  # noqa: ANN401
    """Ask until the answer is as wanted."""
    for _ in range(2000):
        answer = await asked()
        if wanted(answer):
            return answer
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


@pytest.mark.req("AGENTIC-01", "AGENTIC-02", "AGENTIC-03", "AGENTIC-05", "PICK-02")
async def test_the_model_finds_an_agent_asks_it_and_weaves_its_answer_in(play: Any) -> None:  # noqa: ANN401
    market = Market().add("booker", "Booked: table 7. ![map](https://a.test/map.png)")
    turns = [call("search_agents", query="book a table")], [call()], [text("It is done: table 7.")]
    async with play(*turns, box=market) as served:
        reply = await chat(served, session="s")
    assert words(reply) == "It is done: table 7."
    search, asked = reply["executable_data"]
    assert (search["type"], search["tool_name"]) == ("tool_call", "search_agents")
    assert (asked["type"], asked["status"]) == ("agent_manifest", "done")
    assert asked["agent"]["address"] == ADDRESS
    assert asked["result"]["answer"].startswith("Booked: table 7.")
    steps = [step for step in reply["intermediate_steps"] if step["kind"] == "agent"]
    assert [step["status"] for step in steps] == ["done", "done"]
    assert steps[1]["detail"] == {"reason": "It books tables."}
    assert market.notes == [("booker", "success")]


@pytest.mark.req("AGENTIC-03")
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("played", ASK),
        ("played-agentic", {"role": "user", "content": "Hello!"}),
        ("played-agentic", {"role": "user", "content": "Generate a concise title for this chat."}),
    ],
)
async def test_other_models_greetings_and_chores_start_no_agent(play: Any, model: str, message: Any) -> None:  # noqa: ANN401
    market = Market().add("booker", "Booked.")
    async with play([text("Hi.")], box=market) as served:
        reply = await chat(served, message, model=model)
    assert words(reply) == "Hi."
    assert reply["intermediate_steps"] == []
    assert not market.asked


async def test_an_operator_says_which_models_find_agents_and_a_request_may_do_without(play: Any) -> None:  # noqa: ANN401
    market = Market().add("booker", "Booked.")
    models = {"played-agentic": Model(upstream=("scripted",), agents=False)}
    async with play([text("No.")], box=market, models=models) as served:
        assert (await chat(served))["intermediate_steps"] == []


async def test_a_request_may_do_without_agents(play: Any) -> None:  # noqa: ANN401
    async with play([text("No.")], box=Market().add("booker", "Booked.")) as served:
        assert (await chat(served, server_tools=False))["intermediate_steps"] == []


async def test_several_agents_of_one_round_are_asked_at_the_same_time(play: Any) -> None:  # noqa: ANN401
    both: asyncio.Barrier = asyncio.Barrier(2)
    market = Market().add("booker", "Booked.").add("driver", "Coming.", address=OTHER)
    ask = market.ask

    async def together(agent: Any, asking: Any) -> Any:  # noqa: ANN401
        async with asyncio.timeout(5):
            await both.wait()
        async for heard in ask(agent, asking):
            yield heard

    market.ask = together  # type: ignore[method-assign]
    calls = [call(agent="@booker", message="a"), call(agent="@driver", message="b")]
    async with play(calls, [text("Both are done.")], box=market) as served:
        reply = await chat(served)
    assert words(reply) == "Both are done."
    assert {item["agent"]["name"] for item in reply["executable_data"]} == {"booker", "driver"}


async def test_an_agent_that_cannot_be_reached_is_said_to_the_model_and_the_caller(play: Any) -> None:  # noqa: ANN401
    down = Heard(kind="error", text="No connection could be made.", metadata={"reason": "unreachable"})
    async with play([call()], [text("It is down.")], box=Market().add("booker", down)) as served:
        reply = await chat(served)
    [item] = reply["executable_data"]
    assert (item["status"], item["result"]["words"]) == ("failed", "No connection could be made.")
    assert [notice["code"] for notice in reply["metadata"]["notices"]] == ["agent_unreachable"]


@pytest.mark.req("AGENTIC-08", "AGENTIC-09")
@pytest.mark.parametrize("name", [ADDRESS, "booker"])
async def test_who_is_addressed_answers_verbatim_and_no_model_is_asked(play: Any, name: str) -> None:  # noqa: ANN401
    market = Market().add("booker", "Table *7*, [1] and\n\n  no more. ")
    async with play([text("the model")], box=market) as served:
        reply = await chat(served, {"role": "user", "content": f"@{name} a table, please"}, model="played")
        frames = await served.frames(model="played", messages=[{"role": "user", "content": f"@{name} a table, please"}])
    assert words(reply) == content(frames) == "Table *7*, [1] and\n\n  no more. "
    assert [asking.say for asking in market.asked] == ["a table, please"] * 2
    assert [step["kind"] for step in reply["intermediate_steps"]] == ["agent"]
    assert reply["usage"]["total_tokens"] == 0


async def test_a_handle_that_nobody_has_is_a_word_like_any_other(play: Any) -> None:  # noqa: ANN401
    async with play([text("Who is Bob?")], box=Market().add("booker", "x")) as served:
        assert words(await chat(served, {"role": "user", "content": "@bob can you come?"})) == "Who is Bob?"


async def test_an_address_that_nobody_has_is_said_to_be_unknown(play: Any) -> None:  # noqa: ANN401
    async with play([text("the model")], box=Market().add("booker", "x")) as served:
        reply = await chat(served, {"role": "user", "content": f"@{OTHER} hello"})
    assert "No agent is known as" in words(reply)


@pytest.mark.req("DEFER-01", "DEFER-02", "DEFER-03", "DEFER-05", "DEFER-06", "DEFER-07")
async def test_a_late_agent_is_deferred_polled_for_and_told_again(play: Any) -> None:  # noqa: ANN401
    market = Market().add("booker", late := asyncio.Event(), "Booked: table 7.")
    async with play([call()], [text("Your table is number 7.")], box=market, wait_s=0.05) as served:
        first = await chat(served, session="s")
        assert words(first) == SENTENCE == "I've sent the message"
        history = [ASK, {"role": "assistant", "content": SENTENCE}, POLL]
        pending = await chat(served, *history, session="s")
        assert words(pending) == SENTENCE
        assert pending["usage"]["total_tokens"] == 0
        late.set()
        done = await until(lambda: chat(served, *history, session="s"), lambda reply: words(reply) != SENTENCE)
        again = await chat(served, POLL, session="s")
    assert words(done) == words(again) == "Your table is number 7."
    assert done["executable_data"][0]["agent"]["name"] == "booker"
    assert len(market.asked) == 1
    states = [
        [step["status"] for step in reply["intermediate_steps"] if step["kind"] == "agent"] for reply in (first, done)
    ]
    assert states == [["running"], ["done"]]
    assert done["executable_data"][0]["result"]["outcome"] == "success"


async def official_loop(served: Served, late: asyncio.Event, *, streamed: bool) -> str | None:
    """The loop of the official documentation (D4), its pauses cut short; the agent is `late` until it polls."""
    sid = "3f0c6f5e-1111-4111-8111-111111111111"
    headers = served.auth | {"x-session-id": sid}

    async def post(messages: list[Any], *, stream: bool) -> str:
        body = {"model": "played-agentic", "messages": messages, "stream": stream}
        answer = await served.http.post("/v1/chat/completions", json=body, headers=headers)
        answer.raise_for_status()
        if not stream:
            return str(answer.json()["choices"][0]["message"]["content"])
        frames = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ") and "[DONE]" not in line]
        return "".join(
            choice["delta"].get("content") or ""
            for frame in map(msgspec.json.decode, frames)
            for choice in frame["choices"]
        )

    user = {"role": "user", "content": "Please book a table in Rome for two."}
    reply = await post([user], stream=True)
    history = [user, {"role": "assistant", "content": reply}]
    late.set()
    if reply.strip() == "I've sent the message":
        for _ in range(2000):
            await asyncio.sleep(0.01)
            found = await post([*history, {"role": "user", "content": "Any update?"}], stream=streamed)
            if found.strip() != history[-1]["content"].strip():
                return found
    return None


@pytest.mark.req("DEFER-04", "DEFER-10")
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_loop_of_the_official_client_gets_the_result(play: Any, streamed: bool) -> None:  # noqa: ANN401, FBT001
    market = Market().add("booker", late := asyncio.Event(), "Booked: table 7.")
    async with play([text("Let me see. "), call()], [text("Number 7.")], box=market, wait_s=0.05) as served:
        assert await official_loop(served, late, streamed=streamed) == "Number 7."


@pytest.mark.req("DEFER-02", "STREAM-08")
async def test_a_streamed_deferral_has_the_sentence_and_no_other_content(play: Any) -> None:  # noqa: ANN401
    market = Market().add("booker", late := asyncio.Event(), "Booked.")
    async with play([text("One moment. "), call()], [text("Done.")], box=market, wait_s=0.05) as served:
        body = {"model": "played-agentic", "messages": [ASK], "stream": True}
        answer = await served.http.post("/v1/chat/completions", json=body, headers=served.auth | {"x-session-id": "s"})
        frames = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        parsed = [*map(json.loads, frames[:-1]), frames[-1]]
        assert content(parsed) == SENTENCE
        assert {step["kind"] for step in folded(parsed).values()} == {"model", "agent"}
        assert (
            parsed[-2]["choices"][0]["finish_reason"] == "stop" or parsed[-3]["choices"][0]["finish_reason"] == "stop"
        )
        late.set()


@pytest.mark.req("DEFER-08")
async def test_a_failure_of_what_was_deferred_is_told_as_text(play: Any) -> None:  # noqa: ANN401
    market = Market().add("booker", late := asyncio.Event(), "Booked.")
    async with play([call()], [{"fail": "unavailable"}], box=market, wait_s=0.05) as served:
        assert words(await chat(served, session="s")) == SENTENCE
        late.set()
        told = await until(lambda: chat(served, POLL, session="s"), lambda reply: words(reply) != SENTENCE)
    assert "could not be finished" in words(told)


@pytest.mark.req("DEFER-09", "SESSION-04")
async def test_without_outstanding_work_a_poll_is_a_message_like_any_other(play: Any) -> None:  # noqa: ANN401
    market = Market().add("booker", late := asyncio.Event(), "Booked.")
    async with play([call()], [text("No news.")], box=market, wait_s=0.05) as served:
        assert words(await chat(served, POLL, session="other", server_tools=False)) != SENTENCE
        await chat(served, session="s")
        assert words(await chat(served, POLL, session="other", server_tools=False)) != SENTENCE
        assert words(await chat(served, POLL, server_tools=False)) != SENTENCE
        late.set()
        await until(lambda: chat(served, POLL, session="s"), lambda reply: words(reply) != SENTENCE)


@pytest.mark.req("SESSION-05")
async def test_without_a_session_the_answer_comes_without_the_agent_and_says_so(play: Any) -> None:  # noqa: ANN401
    market = Market().add("booker", 30.0, "Booked.")
    async with play([call()], [text("I could not reach it.")], box=market, wait_s=0.05) as served:
        reply = await chat(served)
    assert words(reply) == "I could not reach it."
    assert [notice["code"] for notice in reply["metadata"]["notices"]] == ["agent_late"]


@pytest.mark.req("AGENTIC-07")
async def test_a_slow_model_is_deferred_too_before_clients_give_up(play: Any) -> None:  # noqa: ANN401
    settings = AgenticSettings(agent_wait_s=0.05, whole_s=1)
    slow = [{"pause_s": 4.0}, text("At last.")]
    async with play([call()], slow, box=Market().add("booker", "Booked."), agentic=settings) as served:
        assert words(await chat(served, session="s")) == SENTENCE
        told = await until(lambda: chat(served, POLL, session="s"), lambda reply: words(reply) != SENTENCE)
    assert words(told) == "At last."


async def test_who_is_addressed_may_be_late_too(play: Any) -> None:  # noqa: ANN401
    market = Market().add("booker", late := asyncio.Event(), "Booked, verbatim.")
    async with play([text("the model")], box=market, wait_s=0.05) as served:
        mention = {"role": "user", "content": "@booker a table"}
        assert words(await chat(served, mention, session="s")) == SENTENCE
        late.set()
        told = await until(lambda: chat(served, POLL, session="s"), lambda reply: words(reply) != SENTENCE)
    assert words(told) == "Booked, verbatim."


async def test_where_nothing_can_be_noted_the_answer_is_waited_for(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    market = Market().add("booker", 0.3, "Booked.")
    async with play([call()], [text("Done.")], box=market, wait_s=0.05) as served:

        async def refuse(*_: object) -> None:
            raise StoreFault("no", detail="broken")

        monkeypatch.setattr(served.app.agent.deferrals, "note", refuse)
        assert words(await chat(served, session="s")) == "Done."


async def test_the_inbox_answers_agents_in_their_own_words(play: Any) -> None:  # noqa: ANN401
    async with play([text("x")], box=Market()) as served:
        address = served.app.agents.address
        posted = await served.http.post("/agents/inbox", content=b"{}", headers={"content-type": "application/json"})
        probes = [
            (await served.http.head("/agents/inbox", headers=headers)).headers["x-uagents-status"]
            for headers in ({}, {"x-uagents-address": address}, {"x-uagents-address": OTHER})
        ]
    assert address.startswith("agent1q")
    assert (posted.status_code, posted.json()) == (400, {"error": "contents do not match envelope schema"})
    assert probes == ["indeterminate", "ready", "not-ready"]


async def test_a_request_says_through_which_agents_it_has_been_and_the_next_one_learns_it(play: Any) -> None:  # noqa: ANN401
    market = Market().add("booker", "Booked.")
    async with play([text("the model")], box=market) as served:
        body = {
            "model": "played",
            "messages": [{"role": "user", "content": "@booker a table"}],
            "agent_address": OTHER,
        }
        for headers in ({}, {"x-convene-hops": f"agent1qa, {OTHER}"}):
            answer = await served.http.post("/v1/chat/completions", json=body, headers=served.auth | headers)
            assert words(answer.json()) == "Booked."
    assert [(one.caller, one.hops) for one in market.asked] == [(OTHER, ()), (OTHER, ("agent1qa", OTHER))]
