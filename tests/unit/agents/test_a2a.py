"""The A2A talker with played agents, in virtual time: both wires, both bindings, broken streams, crashes, hostility."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from a2a_doubles import SECRET, A2aHouse, PlayedA2a, ToldReply
from agent_doubles import kinds, text_of
from convene.agents.a2a_wire import Limits
from convene.agents.answer_rules import Patience
from convene.agents.base import AgentCard, Attachment, Conversation, Heard
from convene.agents.letters import uuid_of
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from a2a_doubles import Play, Step

FORMS = [
    pytest.param({"legacy": legacy, "rest": rest, "streams": streams}, id=f"{wire}-{binding}-{way}")
    for legacy, wire in ((False, "1.0"), (True, "0.3"))
    for rest, binding in ((False, "JSONRPC"), (True, "HTTP+JSON"))
    for streams, way in ((True, "streamed"), (False, "whole"))
]


def scene(play: Callable[[A2aHouse], Awaitable[Any]], **house: Any) -> Any:  # noqa: ANN401 -- whatever it returns
    """Play a scene in a house of its own."""

    async def whole(world: World) -> Any:  # noqa: ANN401
        made = A2aHouse(world.clock, **house)
        try:
            return await play(made)
        finally:
            await made.aclose()

    return run(whole, 1)


def saying(*steps: Step) -> Play:
    async def play(agent: PlayedA2a, text: str) -> AsyncGenerator[Step]:
        del agent
        for step in steps:
            yield tuple(one.replace("{text}", text) for one in step) if isinstance(step, tuple) else step

    return play


PIECES = saying(
    ("working", "thinking"), 1.0, ("artifact", "a", "one "), ("more", "a", "two "), 1.0, ("more", "a", "three"),
    ("completed",),
)  # fmt: skip


@pytest.mark.req("A2A-03", "A2A-04", "A2A-07", "A2A-08", "A2A-09")
@pytest.mark.parametrize("form", FORMS)
def test_an_answer_in_pieces_is_whole_in_every_form_of_the_protocol(form: dict[str, bool]) -> None:
    async def play(house: A2aHouse) -> tuple[list[Heard], PlayedA2a]:
        agent = house.agent("echo", PIECES, **form)
        return await house.heard(agent, "go on"), agent

    heard, agent = scene(play)
    assert text_of(heard) == "one two three"
    assert kinds(heard)[0] == "acknowledged"
    assert kinds(heard)[-1] == "end"
    assert agent.asked == ["go on"]
    version = [dict(one).get("a2a-version") for one in agent.headers]
    assert set(version) == ({None} if form["legacy"] else {"1.0"})


@pytest.mark.req("A2A-04")
def test_what_an_agent_says_while_it_works_is_progress() -> None:
    async def play(house: A2aHouse) -> list[Heard]:
        return await house.heard(house.agent("echo", PIECES), "hi")

    heard = scene(play)
    assert [one.text for one in heard if one.kind == "progress"] == ["thinking"]


@pytest.mark.req("A2A-04")
@pytest.mark.parametrize("form", FORMS)
def test_a_message_that_is_no_tasks_is_the_whole_answer(form: dict[str, bool]) -> None:
    async def play(house: A2aHouse) -> list[Heard]:
        return await house.heard(house.agent("echo", saying(("message", "said {text}")), **form), "hi")

    heard = scene(play)
    assert kinds(heard) == ["acknowledged", "text", "end"]
    assert text_of(heard) == "said hi"


@pytest.mark.req("A2A-05")
@pytest.mark.parametrize(
    ("state", "reason"), [("failed", "agent_error"), ("canceled", "agent_error"), ("rejected", "refused")]
)
def test_a_task_that_ends_badly_says_why(state: str, reason: str) -> None:
    async def play(house: A2aHouse) -> list[Heard]:
        return await house.heard(house.agent("bad", saying((state, "no weather on Mars"))), "hi")

    heard = scene(play)
    assert (heard[-1].kind, heard[-1].text, heard[-1].metadata) == ("error", "no weather on Mars", {"reason": reason})


@pytest.mark.req("A2A-05")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("state", ["input-required", "auth-required"])
def test_a_task_that_waits_for_the_user_is_gone_on_with_by_the_next_message(form: dict[str, bool], state: str) -> None:
    async def ask_back(agent: PlayedA2a, text: str) -> AsyncGenerator[Step]:
        if len(agent.asked) == 1:
            yield (state, "Which city?")
        else:
            yield ("artifact", "a", f"sunny in {text}")
            yield ("completed",)

    async def play(house: A2aHouse) -> tuple[list[Heard], list[Heard], PlayedA2a]:
        agent = house.agent("weather", ask_back, **form)
        first = await house.heard(agent, "weather?", call="one")
        return first, await house.fresh().heard(agent, "Rome", call="two"), agent

    first, second, agent = scene(play)
    assert (first[-1].kind, first[-1].text) == ("needs_input", "Which city?")
    assert text_of(second) == "sunny in Rome"
    assert agent.messages[1]["taskId"] == "task-1"
    assert agent.messages[1]["contextId"] == "context-1"
    assert len(agent.tasks) == 1


def test_a_finished_conversation_goes_on_in_its_context_with_a_task_of_its_own() -> None:
    async def play(house: A2aHouse) -> PlayedA2a:
        agent = house.agent("echo", PIECES)
        await house.heard(agent, "one", call="one")
        await house.heard(agent, "two", call="two")
        await house.heard(agent, "elsewhere", key="other", call="three")
        return agent

    agent = scene(play)
    assert "contextId" not in agent.messages[0]
    assert agent.messages[1]["contextId"] == "context-1"
    assert "taskId" not in agent.messages[1]
    assert "contextId" not in agent.messages[2]


def test_a_task_that_the_agent_has_forgotten_is_begun_anew() -> None:
    async def play(house: A2aHouse) -> tuple[list[Heard], PlayedA2a]:
        agent = house.agent("weather", saying(("input-required", "Which city?")))
        await house.heard(agent, "weather?", call="one")
        agent.tasks.clear()
        agent.play = PIECES
        return await house.heard(agent, "Rome", call="two"), agent

    heard, agent = scene(play)
    assert text_of(heard) == "one two three"
    assert agent.asked == ["weather?", "Rome"]


@pytest.mark.req("A2A-06")
@pytest.mark.parametrize("breaks", [1, 2, 3, 4])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_stream_that_breaks_is_heard_on_and_nothing_is_told_or_asked_twice(breaks: int, *, legacy: bool) -> None:
    async def play(house: A2aHouse) -> tuple[list[Heard], PlayedA2a]:
        agent = house.agent("echo", PIECES, legacy=legacy)
        agent.break_after = breaks
        return await house.heard(agent, "hi"), agent

    heard, agent = scene(play)
    assert text_of(heard) == "one two three"
    assert heard[-1].kind == "end"
    assert agent.asked == ["hi"]
    assert "SubscribeToTask" in agent.requests


@pytest.mark.req("A2A-06")
def test_an_agent_that_lets_nobody_hear_on_is_looked_at_until_it_is_done() -> None:
    async def play(house: A2aHouse) -> tuple[list[Heard], PlayedA2a, float]:
        agent = house.agent("slow", saying(("working",), 100.0, ("artifact", "a", "done"), ("completed",)))
        agent.break_after = 1
        agent.refuses["SubscribeToTask"] = (-32004, "not here")
        began = house.clock.monotonic()
        return await house.heard(agent, "hi"), agent, house.clock.monotonic() - began

    heard, agent, seconds = scene(play)
    assert text_of(heard) == "done"
    assert 100 <= seconds <= 105
    assert 20 <= agent.requests.count("GetTask") <= 40


@pytest.mark.req("A2A-06")
@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("legacy", [False, True])
def test_after_a_crash_the_answer_comes_and_nobody_is_asked_twice(*, streams: bool, legacy: bool) -> None:
    async def play(house: A2aHouse) -> tuple[list[Heard], list[Heard], PlayedA2a]:
        agent = house.agent("echo", PIECES, streams=streams, legacy=legacy)
        async with aclosing(house.talk(agent, "hi")) as talk:
            async for heard in talk:
                if heard.kind == "acknowledged" and not streams:
                    break
                if heard.kind == "text":
                    break
        await asyncio.sleep(30)
        again = await house.fresh().heard(agent, "hi")
        return again, await house.fresh().heard(agent, "hi"), agent

    again, third, agent = scene(play)
    assert text_of(again) == text_of(third) == "one two three"
    assert agent.asked == ["hi"]


@pytest.mark.req("A2A-06")
def test_an_agent_that_is_away_after_a_crash_is_waited_for_a_while() -> None:
    async def play(house: A2aHouse) -> tuple[list[Heard], PlayedA2a]:
        agent = house.agent("echo", PIECES)
        async with aclosing(house.talk(agent, "hi")) as talk:
            async for heard in talk:
                if heard.kind == "text":
                    break
        house.network.down.add("echo.test")
        asyncio.get_running_loop().call_later(3.0, house.network.down.clear)
        return await house.fresh().heard(agent, "hi"), agent

    heard, agent = scene(play)
    assert text_of(heard) == "one two three"
    assert agent.asked == ["hi"]


def test_an_answer_without_a_task_is_kept_for_a_repeat() -> None:
    async def play(house: A2aHouse) -> tuple[str, PlayedA2a]:
        agent = house.agent("echo", saying(("message", "said {text}")))
        await house.heard(agent, "hi")
        return text_of(await house.fresh().heard(agent, "hi")), agent

    told, agent = scene(play)
    assert told == "said hi"
    assert agent.asked == ["hi"]


@pytest.mark.parametrize("lists", [True, False])
def test_a_task_whose_name_was_never_heard_is_looked_for_by_the_message(*, lists: bool) -> None:
    async def play(house: A2aHouse) -> tuple[list[Heard], PlayedA2a]:
        agent = house.agent("echo", PIECES, lists=lists)
        agent.raw = lambda name: ToldReply(200, streams=True) if name == "SendStreamingMessage" else None
        [lost] = [one for one in await house.heard(agent, "other", call="other") if one.kind == "error"]
        assert lost.metadata == {"reason": "lost"}
        agent.raw = lambda _: None
        async with aclosing(house.talk(agent, "hi")) as talk:
            await anext(talk)  # the agent has it, and we crash before we hear of the task
        await asyncio.sleep(5)
        return await house.fresh().heard(agent, "hi"), agent

    heard, agent = scene(play)
    assert agent.asked == ["hi"]
    assert text_of(heard) == ("one two three" if lists else "")
    assert heard[-1].kind == ("end" if lists else "error")


def test_an_agent_that_is_not_there_was_not_asked_and_may_be_asked_again() -> None:
    async def play(house: A2aHouse) -> tuple[list[Heard], list[Heard]]:
        agent = house.agent("echo", PIECES)
        house.network.down.add("echo.test")
        first = await house.heard(agent, "hi")
        house.network.down.clear()
        return first, await house.heard(agent, "hi")

    first, second = scene(play)
    assert first[-1].metadata == {"reason": "unreachable"}
    assert text_of(second) == "one two three"


def test_an_agent_that_refuses_streams_is_asked_without() -> None:
    async def play(house: A2aHouse) -> tuple[list[Heard], PlayedA2a]:
        agent = house.agent("echo", PIECES)
        agent.refuses["SendStreamingMessage"] = (-32004, "no streams")
        return await house.heard(agent, "hi"), agent

    heard, agent = scene(play)
    assert text_of(heard) == "one two three"
    assert agent.requests[:2] == ["SendStreamingMessage", "SendMessage"]


def test_a_refusal_is_told_in_the_agents_words_and_leaves_no_trace() -> None:
    async def play(house: A2aHouse) -> tuple[list[Heard], list[Heard]]:
        agent = house.agent("echo", PIECES)
        agent.refuses["SendStreamingMessage"] = (-32000, "not\nopen on Sundays")
        first = await house.heard(agent, "hi")
        agent.refuses.clear()
        return first, await house.heard(agent, "hi")

    first, second = scene(play)
    assert first[-1].text == "The agent refused: not open on Sundays"
    assert first[-1].metadata == {"reason": "agent_error"}
    assert text_of(second) == "one two three"


def test_an_answer_that_does_not_come_in_time_is_cancelled_at_the_agent() -> None:
    async def play(house: A2aHouse) -> tuple[list[Heard], PlayedA2a, float]:
        agent = house.agent("slow", saying(("working",), 1000.0, ("completed",)))
        began = house.clock.monotonic()
        return await house.heard(agent, "hi"), agent, house.clock.monotonic() - began

    heard, agent, seconds = scene(play)
    assert heard[-1].metadata == {"reason": "timed_out"}
    assert 239 <= seconds <= 250
    assert agent.tasks["task-1"].state == "canceled"


def test_what_is_given_up_is_cancelled_at_the_agent() -> None:
    async def play(house: A2aHouse) -> str:
        agent = house.agent("slow", saying(("working",), 50.0, ("completed",)))
        async with aclosing(house.talk(agent, "hi")) as talk:
            async for heard in talk:
                if heard.kind == "acknowledged":
                    break
        await asyncio.sleep(1)
        async with aclosing(house.talk(agent, "hi")) as talk:
            await anext(talk)
        card = AgentCard(protocol="a2a", url=agent.url, name="slow")
        await house.talker.give_up(card, Conversation(owner="o", key="conv", call_key="run_1:s1:1"))
        await house.talker.give_up(card, Conversation(owner="o", key="conv", call_key="never asked"))
        return agent.tasks["task-1"].state

    assert scene(play) == "canceled"


def test_an_agent_that_hangs_is_waited_for_as_long_as_for_a_first_sign_of_life() -> None:
    async def play(house: A2aHouse) -> tuple[list[Heard], float]:
        agent = house.agent("deaf", saying(1.0, ("completed",)), lists=False)
        hang = agent.serve

        async def serve(hop: Any) -> ToldReply:  # noqa: ANN401 -- a hop
            if hop.method == "POST":
                await asyncio.sleep(10_000)
            return await hang(hop)

        agent.serve = serve  # type: ignore[method-assign]  # a scene of its own
        began = house.clock.monotonic()
        return await house.heard(agent, "hi"), house.clock.monotonic() - began

    heard, seconds = scene(play)
    assert heard[-1].metadata == {"reason": "timed_out"}
    assert 60 <= seconds <= 75


def test_files_come_once_and_values_are_told_where_there_are_no_words() -> None:
    picture = json.dumps({"url": "https://p.test/1.png", "mediaType": "image/png", "filename": "cat"})
    raw = json.dumps({"raw": "aGk=", "mediaType": "text/plain"})
    value = json.dumps({"data": {"degrees": 21}})
    steps = (("working",), ("part", "a", picture), ("part", "a", picture), ("part", "b", raw), ("part", "c", value))

    async def play(house: A2aHouse) -> list[Heard]:
        return await house.heard(house.agent("files", saying(*steps, ("completed",))), "hi")

    heard = scene(play)
    found = [one for heard_one in heard for one in heard_one.attachments]
    assert found == [
        Attachment(uri="https://p.test/1.png", media_type="image/png", role="cat"),
        Attachment(uri="data:text/plain;base64,aGk=", media_type="text/plain"),
    ]
    assert text_of(heard) == '{"degrees":21}'


def test_two_questions_of_one_conversation_are_asked_one_after_the_other() -> None:
    async def play(house: A2aHouse) -> list[str]:
        order: list[str] = []

        async def slow(agent: PlayedA2a, text: str) -> AsyncGenerator[Step]:
            del agent
            order.append(f"begin {text}")
            yield ("working",)
            yield 5.0
            order.append(f"end {text}")
            yield ("completed", text)

        agent = house.agent("slow", slow)
        await asyncio.gather(house.heard(agent, "one", call="one"), house.heard(agent, "two", call="two"))
        return order

    assert scene(play) == ["begin one", "end one", "begin two", "end two"]


def test_an_agent_is_not_asked_what_it_asked_itself() -> None:
    async def play(house: A2aHouse) -> list[Heard]:
        agent = house.agent("echo", PIECES)
        card = AgentCard(protocol="a2a", url=agent.url, name="echo")
        asked = Conversation(owner="o", key="k", call_key="c", hops=(agent.url,))
        nowhere = AgentCard(protocol="a2a", name="nowhere")
        heard = [one async for one in house.talker.talk(card, asked, "hi")]
        return heard + [one async for one in house.talker.talk(nowhere, asked, "hi")]

    heard = scene(play)
    assert kinds(heard) == ["error", "error"]
    assert "not asked back" in heard[0].text


def test_a_broken_store_is_an_error_and_asks_nobody() -> None:
    async def play(house: A2aHouse) -> tuple[list[Heard], PlayedA2a]:
        agent = house.agent("echo", PIECES)
        house.sessions.broken = True
        return await house.heard(agent, "hi"), agent

    heard, agent = scene(play)
    assert heard[-1].metadata == {"reason": "store"}
    assert agent.asked == []


# Credentials.


@pytest.mark.req("A2A-06")
def test_keys_go_to_the_origin_that_the_operator_named_and_nowhere_else() -> None:
    async def play(house: A2aHouse) -> tuple[PlayedA2a, PlayedA2a, list[dict[str, str]]]:
        mine, other = house.agent("mine", PIECES), house.agent("other", PIECES)
        await house.heard(mine, "hi")
        await house.heard(other, "hi")
        thief = mine.card() | {
            "supportedInterfaces": [{"url": f"{other.url}/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]
        }
        mine.card = lambda: thief  # type: ignore[method-assign]  # a scene of its own
        await asyncio.sleep(400)
        await house.heard(mine, "hi", call="two")
        return mine, other, [dict(hop.headers) for hop in house.network.hops if "other" in hop.place.host]

    keys = {"https://mine.test/": (("authorization", "Bearer secret"),)}
    mine, other, elsewhere = scene(play, keys=keys)
    assert all(headers.get("authorization") == "Bearer secret" for headers in mine.headers)
    assert other.asked == ["hi", "hi"]
    assert not any("authorization" in headers for headers in elsewhere)


# Hostile agents.


def hostile(reply: Callable[[], ToldReply], **house: Any) -> list[Heard]:  # noqa: ANN401 -- of the house
    async def play(made: A2aHouse) -> list[Heard]:
        agent = made.agent("evil", PIECES, lists=False)
        agent.raw = lambda _: reply()
        return await made.heard(agent, "hi")

    found: list[Heard] = scene(play, **house)
    return found


def event(result: Any, number: str | None = None) -> dict[str, Any]:  # noqa: ANN401 -- JSON
    return {"jsonrpc": "2.0", "id": number or msg_id(), "result": result}


def msg_id() -> str:
    """Return the id of the message that `hostile` sends: it follows from the secret, the conversation and the call."""
    session = uuid_of(SECRET, "a2a", "o", "conv", "https://evil.test")
    return uuid_of(SECRET, "message", session, "run_1:s1:1")


def task(task_id: str, state: str = "TASK_STATE_WORKING") -> dict[str, Any]:
    return {"id": task_id, "contextId": "c", "status": {"state": state}}


@pytest.mark.parametrize(
    "reply",
    [
        lambda: ToldReply(200, b"not json"),
        lambda: ToldReply(200, b"[]"),
        lambda: ToldReply(200, b'{"jsonrpc":"2.0","id":"x","result":{}}'),
        lambda: ToldReply(200, b"[" * 100_000),
        lambda: ToldReply(200, b"data: {}\n\n", streams=True),
        lambda: ToldReply(200, b"data: not json\n\n", streams=True),
        lambda: ToldReply.of(event({"task": task("t")}, "of another request")),
        lambda: ToldReply.of(event({"task": {"id": "t"}})),
        lambda: ToldReply.of(event({"task": task("t" * 5_000)})),
        lambda: ToldReply.of(event({"task": task("t")}), event({"task": task("foreign", "TASK_STATE_COMPLETED")})),
        lambda: ToldReply.of(
            event({"task": task("t")}),
            event({"artifactUpdate": {"taskId": "foreign", "artifact": {"artifactId": "a", "parts": [{"text": "x"}]}}}),
        ),
    ],
)
def test_what_is_not_the_protocol_is_an_error_and_tells_nothing(reply: Callable[[], ToldReply]) -> None:
    heard = hostile(reply)
    assert heard[-1].metadata == {"reason": "unreadable"}
    assert text_of(heard) == ""


def test_a_stream_without_end_is_cut_off_at_the_cap() -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield b": keep alive\n\n" * 100

    reply = hostile(
        lambda: ToldReply(200, pieces=endless(), streams=True),
        limits=Limits(answer_bytes_max=1_000_000, event_bytes_max=10_000),
    )
    assert reply[-1].kind == "error"
    assert "larger than 1000000 bytes" in reply[-1].text


def test_a_giant_event_is_cut_off() -> None:
    reply = hostile(
        lambda: ToldReply(200, b"data: " + b"x" * 50_000 + b"\n\n", streams=True), limits=Limits(event_bytes_max=10_000)
    )
    assert "larger than 10000 bytes" in reply[-1].text


def test_a_silent_stream_ends_with_the_time_for_an_answer() -> None:
    async def silent() -> AsyncGenerator[bytes]:
        yield b": hello\n\n"
        await asyncio.sleep(100_000)

    heard = hostile(lambda: ToldReply(200, pieces=silent(), streams=True), patience=Patience(total_s=20.0))
    assert heard[-1].kind == "error"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_message_is_not_sent_on_to_where_a_redirect_points(status: int) -> None:
    async def play(house: A2aHouse) -> tuple[list[Heard], PlayedA2a]:
        evil, victim = house.agent("evil", PIECES), house.agent("victim", PIECES)
        moved = ToldReply(status)
        moved.headers = {"location": f"{victim.url}/a2a"}
        evil.raw = lambda _: moved
        return await house.heard(evil, "hi"), victim

    heard, victim = scene(play)
    assert "has moved" in heard[-1].text
    assert victim.asked == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_missing_key_is_said_to_whom_it_concerns(status: int) -> None:
    assert "the operator can set them" in hostile(lambda: ToldReply(status))[-1].text


def test_progress_without_end_is_shown_a_hundred_times() -> None:
    states = [
        event(
            {"statusUpdate": {"taskId": "t", "status": {"state": "working", "message": {"parts": [{"text": str(n)}]}}}}
        )
        for n in range(500)
    ]
    done = event({"statusUpdate": {"taskId": "t", "status": {"state": "completed"}}})
    heard = hostile(lambda: ToldReply.of(event({"task": task("t")}), *states, done))
    assert kinds(heard).count("progress") == 100
    assert heard[-1].kind == "end"
