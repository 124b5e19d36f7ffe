"""The talker with played agents, in virtual time: what is asked, what is heard, when it ends, what a crash leaves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from agent_doubles import House, PlayedAgent, kinds, text_of
from convene.agents import chat_codec as codec
from convene.agents.base import Attachment, Conversation
from convene.agents.chat_protocol import TalkTerms
from convene.agents.envelope import Draft
from convene.egress import EgressFailed, EgressRefused
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent_doubles import Play

END = codec.EndSession()


def scene(play: Callable[[House], Awaitable[Any]], terms: TalkTerms = TalkTerms()) -> Any:  # noqa: ANN401, B008 -- whatever the scene returns
    """Play a scene in a house of its own."""

    async def whole(world: World) -> Any:  # noqa: ANN401
        house = House(world.clock, terms)
        try:
            return await play(house)
        finally:
            await house.aclose()

    return run(whole, 1)


async def echo(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
    del sender
    await agent.say(session, "".join(one.text for one in said.content if isinstance(one, codec.Text)), END)


def saying(*steps: float | str | codec.Content | tuple[codec.Content | str, ...]) -> Play:
    """Return a play: a number waits, anything else is one message."""

    async def play(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
        del sender, said
        for step in steps:
            if isinstance(step, int | float):
                await asyncio.sleep(step)
            else:
                await agent.say(session, *(step if isinstance(step, tuple) else (step,)))

    return play


@pytest.mark.req("ACP-01", "END-01", "AGENT-04")
def test_a_question_is_acknowledged_answered_and_ended_by_the_mark_at_once() -> None:
    async def play(house: House) -> tuple[list[Any], float]:
        agent = house.agent("echo", echo)
        began = house.clock.monotonic()
        heard = await house.heard(agent, "hello")
        return heard, house.clock.monotonic() - began

    heard, seconds = scene(play)
    assert kinds(heard) == ["acknowledged", "text", "end"]
    assert text_of(heard) == "hello"
    assert seconds < 0.01


@pytest.mark.req("END-03")
def test_an_answer_without_a_mark_ends_after_two_seconds_of_silence() -> None:
    async def play(house: House) -> tuple[list[Any], float]:
        agent = house.agent("plain", saying(1.0, "first", 1.5, "second"))
        began = house.clock.monotonic()
        heard = await house.heard(agent, "hello")
        return heard, house.clock.monotonic() - began

    heard, seconds = scene(play)
    assert text_of(heard) == "first\n\nsecond"
    assert heard[-1].kind == "end"
    assert seconds == pytest.approx(4.5, abs=0.01)


@pytest.mark.req("END-02")
def test_a_stream_keeps_the_answer_open_and_its_end_ends_it() -> None:
    stream = "11111111-1111-4111-8111-111111111111"
    steps = (codec.StartStream(stream), "Hel", 30.0, "lo", 5.0, (" there", codec.EndStream(stream)))

    async def play(house: House) -> tuple[list[Any], float]:
        agent = house.agent("streamer", saying(*steps))
        began = house.clock.monotonic()
        heard = await house.heard(agent, "hello")
        return heard, house.clock.monotonic() - began

    heard, seconds = scene(play)
    assert text_of(heard) == "Hello there"
    assert heard[-1].kind == "end"
    assert seconds == pytest.approx(35.0, abs=0.01)


@pytest.mark.req("END-05")
def test_a_mere_phrase_of_progress_is_no_answer() -> None:
    async def play(house: House) -> list[Any]:
        agent = house.agent("a2a", saying("Agent is working on your request...", 20.0, "Done.", END))
        return await house.heard(agent, "hello")

    heard = scene(play)
    assert kinds(heard) == ["acknowledged", "progress", "text", "end"]
    assert text_of(heard) == "Done."


@pytest.mark.req("ACP-04")
def test_every_chat_message_is_acknowledged_also_one_that_comes_twice() -> None:
    async def play(house: House) -> tuple[PlayedAgent, list[Any]]:
        agent = house.agent("twice")

        async def twice(one: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            del sender, said
            same = one.new_id()
            await one.say(session, "once", msg_id=same)
            await one.say(session, "once", msg_id=same)
            await one.say(session, END)

        agent.play = twice
        heard = await house.heard(agent, "hello")
        return agent, heard

    agent, heard = scene(play)
    assert text_of(heard) == "once"
    assert len(agent.acknowledged) == 3
    assert len(set(agent.acknowledged)) == 2


@pytest.mark.req("ACP-06", "ENVL-02")
def test_all_turns_of_one_conversation_have_one_session_and_others_have_others() -> None:
    async def play(house: House) -> list[str]:
        agent, other = house.agent("echo", echo), house.agent("other", echo)
        await house.heard(agent, "a", call="c1")
        await house.heard(agent, "b", call="c2")
        await house.heard(agent, "c", key="another", call="c3")
        async for _ in house.talk(agent, "d", call="c4", owner="somebody else"):
            pass
        await house.heard(other, "e", call="c5")
        chats = [*agent.received, *other.received]
        return [envelope.session for envelope, said in chats if isinstance(said, codec.ChatMessage)]

    first, second, *rest = scene(play)
    assert first == second
    assert len({first, *rest}) == 4
    assert "conv" not in first


def test_an_agent_that_never_reacts_is_waited_for_sixty_seconds() -> None:
    async def play(house: House) -> tuple[list[Any], float]:
        agent = house.agent("deaf", acknowledges=False)
        began = house.clock.monotonic()
        heard = await house.heard(agent, "hello")
        return heard, house.clock.monotonic() - began

    heard, seconds = scene(play)
    assert kinds(heard) == ["error"]
    assert "60 seconds" in heard[0].text
    assert seconds == pytest.approx(60.0, abs=0.01)


@pytest.mark.req("AGENTIC-06", "SYNC-04")
def test_an_agent_that_has_acknowledged_is_waited_for_four_minutes() -> None:
    async def play(house: House) -> list[tuple[list[Any], float]]:
        found = []
        for name, wait_s in (("slow", 200.0), ("slower", 300.0)):
            agent = house.agent(name, saying(wait_s, "at last", END))
            began = house.clock.monotonic()
            heard = await house.heard(agent, "hello")
            found.append((heard, house.clock.monotonic() - began))
        return found

    (slow, slow_s), (slower, slower_s) = scene(play)
    assert text_of(slow) == "at last"
    assert slow_s == pytest.approx(200.0, abs=0.01)
    assert kinds(slower) == ["acknowledged", "error"]
    assert slower_s == pytest.approx(240.0, abs=0.01)


@pytest.mark.req("END-04")
def test_what_comes_late_is_told_in_the_next_turn_once() -> None:
    async def play(house: House) -> list[list[Any]]:
        agent = house.agent("tardy", saying("so far", 10.0, "and the rest"))
        first = await house.heard(agent, "one", call="c1")
        await asyncio.sleep(60)
        agent.play = echo
        second = await house.heard(agent, "two", call="c2")
        third = await house.heard(agent, "three", call="c3")
        return [first, second, third]

    first, second, third = scene(play)
    assert text_of(first) == "so far"
    assert [(one.text, one.metadata) for one in second if one.kind == "text"] == [
        ("and the rest", {"late": "true"}),
        ("two", {}),
    ]
    assert text_of(third) == "three"


@pytest.mark.req("END-06")
def test_an_answer_in_a_session_of_the_agents_own_is_matched_by_its_sender() -> None:
    own = "22222222-2222-4222-8222-222222222222"

    async def play(house: House) -> list[Any]:
        async def from_a_timer(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            del sender, session, said
            await agent.say(own, "from a timer", END)

        return await house.heard(house.agent("timer", from_a_timer), "hello")

    assert text_of(scene(play)) == "from a timer"


@pytest.mark.req("END-06")
def test_an_answer_in_a_session_of_its_own_is_nobodys_where_two_have_asked() -> None:
    own = "22222222-2222-4222-8222-222222222222"

    async def play(house: House) -> list[Any]:
        agent = house.agent("timer", saying(1.0, "yours", END))
        first = asyncio.ensure_future(house.heard(agent, "one", key="a", call="c1"))
        second = asyncio.ensure_future(house.heard(agent, "two", key="b", call="c2"))
        await asyncio.sleep(0.5)
        await agent.say(own, "whose?")
        return [text_of(await first), text_of(await second)]

    assert scene(play) == ["yours", "yours"]


@pytest.mark.req("ACP-12")
def test_an_error_of_the_agents_ends_the_call_in_its_words() -> None:
    async def play(house: House) -> list[Any]:
        async def fail(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            del sender, said
            body = b'{"error": "no oven"}'
            await agent.send(session, Draft(schema_digest=codec.ERROR_MESSAGE, protocol_digest="", body=body))

        return await house.heard(house.agent("cook", fail), "bake")

    heard = scene(play)
    assert kinds(heard) == ["acknowledged", "error"]
    assert heard[-1].text == "no oven"


@pytest.mark.req("ACP-11")
def test_who_asks_for_money_gets_none_and_the_user_learns_of_it() -> None:
    asked = b'{"accepted_funds": [{"amount": "0.5", "currency": "FET"}], "recipient": "r", "deadline_seconds": 60}'

    async def play(house: House) -> tuple[PlayedAgent, list[Any]]:
        async def charge(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            del sender, said
            draft = Draft(schema_digest=codec.REQUEST_PAYMENT, protocol_digest="", body=asked)
            await agent.send(session, draft)

        agent = house.agent("seller", charge)
        return agent, await house.heard(agent, "an image, please")

    agent, heard = scene(play)
    assert kinds(heard) == ["acknowledged", "payment"]
    assert "0.5 FET" in heard[-1].text
    assert agent.received[-1][0].schema_digest == codec.REJECT_PAYMENT


def test_a_malformed_answer_is_said_to_be_one() -> None:
    async def play(house: House) -> list[Any]:
        async def babble(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            del sender, said
            draft = Draft(schema_digest=codec.CHAT_MESSAGE, protocol_digest="", body=b'{"content": 5}')
            await agent.send(session, draft)

        return await house.heard(house.agent("babbler", babble), "hello")

    heard = scene(play)
    assert kinds(heard) == ["acknowledged", "error"]
    assert heard[-1].metadata == {"reason": "unreadable"}


@pytest.mark.req("ACP-10")
def test_resources_metadata_and_structured_answers_are_passed_on() -> None:
    resource = codec.Resource("https://a.test/x.png", {"mime_type": "image/png", "role": "image"})
    image = codec.Resources("33333333-3333-4333-8333-333333333333", (resource,))

    async def play(house: House) -> tuple[list[Any], list[Any]]:
        drawer = house.agent(
            "drawer", saying(("Here: ![x](https://a.test/x.png)", image, codec.Meta({"sure": "1"}), END))
        )

        async def structured(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            del sender, said
            body = b'{"output": {"a": 1}}'
            draft = Draft(schema_digest=codec.STRUCTURED_RESPONSE, protocol_digest="", body=body)
            await agent.send(session, draft)

        shaper = house.agent("shaper", structured)
        return await house.heard(drawer, "draw"), await house.heard(shaper, "shape")

    drawn, shaped = scene(play)
    assert kinds(drawn) == ["acknowledged", "text", "resource", "end"]
    assert drawn[2].attachments == (Attachment(uri="https://a.test/x.png", media_type="image/png", role="image"),)
    assert drawn[-1].metadata == {"sure": "1"}
    assert text_of(shaped) == '{"a":1}'


@pytest.mark.req("ACP-08")
def test_a_card_that_waits_for_the_user_is_passed_through_as_a_question() -> None:
    card = {
        "card_protocol_version": "1",
        "requires_card_interaction": "true",
        "card_kind": "form",
        "card_payload": "{}",
    }

    async def play(house: House) -> list[Any]:
        return await house.heard(house.agent("shop", saying(("Choose:", codec.Meta(card)))), "buy")

    heard = scene(play)
    assert kinds(heard) == ["acknowledged", "text", "needs_input"]
    assert heard[-1].metadata == card


@pytest.mark.req("ACP-09")
def test_what_the_user_says_after_a_card_is_the_answer_to_it_and_only_once() -> None:
    card = {
        "card_protocol_version": "1",
        "requires_card_interaction": "true",
        "card_kind": "form",
        "card_payload": "{}",
        "card_id": "44444444-4444-4444-8444-444444444444",
    }

    async def play(house: House) -> list[tuple[codec.Content, ...]]:
        agent = house.agent("shop", saying(codec.Meta(card)))
        await house.heard(agent, "buy", call="c1")
        agent.play = saying("Bought.", END)
        await house.heard(agent, "the blue one", call="c2")
        await house.heard(agent, "thanks", call="c3")
        return [said.content for _, said in agent.received if isinstance(said, codec.ChatMessage)]

    assert scene(play) == [
        (codec.Text("buy"),),
        (codec.Meta({"card_protocol_version": "1", "card_id": card["card_id"], "text": "the blue one"}),),
        (codec.Text("thanks"),),
    ]


@pytest.mark.req("ACP-07")
def test_only_agents_that_want_it_get_a_start_of_the_session_and_only_once() -> None:
    async def play(house: House) -> list[tuple[codec.Content, ...]]:
        agent, other = house.agent("formal", echo), house.agent("plain", echo)
        await house.heard(agent, "one", call="c1")
        await house.heard(agent, "two", call="c2")
        await house.heard(other, "one", call="c3")
        said = [said for _, said in (*agent.received, *other.received)]
        return [one.content for one in said if isinstance(one, codec.ChatMessage)]

    found = scene(play, TalkTerms(openers=frozenset({"agent1qformal"})))
    assert found == [(codec.StartSession(), codec.Text("one")), (codec.Text("two"),), (codec.Text("one"),)]


@pytest.mark.req("CALL-05", "CALL-06")
@pytest.mark.parametrize(
    ("breaks", "posts", "reason"),
    [
        (EgressFailed("no", "connect"), 1, "unreachable"),
        (EgressRefused("not permitted"), 1, "unreachable"),
        (EgressFailed("late", "timeout"), 1, "timed_out"),
        (EgressFailed("broken", "broken"), 1, "timed_out"),
        (400, 1, "refused"),
    ],
)
def test_a_message_is_posted_once_whatever_becomes_of_it(breaks: Any, posts: int, reason: str) -> None:  # noqa: ANN401 -- a fault or a status
    async def play(house: House) -> tuple[int, list[Any]]:
        agent = house.agent("broken", echo)
        if isinstance(breaks, int):
            agent.status = breaks
        else:
            agent.breaks = breaks
        heard = await house.heard(agent, "hello")
        return len(house.post.posted), heard

    sent, heard = scene(play)
    assert sent == posts
    assert kinds(heard) == ["error"]
    assert heard[0].metadata["reason"] == reason
    if breaks == 400:
        assert "bad mood" in heard[0].text


@pytest.mark.req("CALL-06")
def test_an_answer_is_heard_though_the_post_broke_off() -> None:
    async def play(house: House) -> list[Any]:
        agent = house.agent("flaky", echo)
        fetch = house.post.fetch

        async def break_after(request: Any) -> Any:  # noqa: ANN401 -- as the double's
            await fetch(request)
            if len(agent.received) == 1:
                raise EgressFailed("The answer broke off.", "broken")
            return await fetch(request)

        house.post.fetch = break_after  # type: ignore[method-assign]
        return await house.heard(agent, "hello")

    assert text_of(scene(play)) == "hello"


@pytest.mark.req("CALL-06", "ENVL-05")
def test_a_call_that_is_repeated_after_a_crash_listens_and_does_not_ask_again() -> None:
    async def play(house: House) -> tuple[PlayedAgent, list[Any]]:
        agent = house.agent("slow", saying(30.0, "the answer", END))
        talk = house.talk(agent, "hello")
        assert (await anext(talk)).kind == "acknowledged"
        await talk.aclose()
        return agent, await house.heard(agent, "hello")

    agent, heard = scene(play)
    assert text_of(heard) == "the answer"
    assert sum(isinstance(said, codec.ChatMessage) for _, said in agent.received) == 1


def test_a_call_that_is_repeated_after_its_end_is_told_the_same() -> None:
    async def play(house: House) -> list[str]:
        agent = house.agent("echo", saying("a", 1.0, "b", END))
        return [text_of(await house.heard(agent, "hello")) for _ in range(3)]

    assert scene(play) == ["a\n\nb"] * 3


def test_a_call_that_could_not_go_out_may_be_made_again() -> None:
    async def play(house: House) -> list[Any]:
        agent = house.agent("back", echo)
        agent.breaks = EgressFailed("no", "connect")
        await house.heard(agent, "hello")
        agent.breaks = None
        return await house.heard(agent, "hello")

    assert text_of(scene(play)) == "hello"


def test_questions_in_one_session_are_asked_one_after_the_other() -> None:
    async def play(house: House) -> list[str]:
        async def slow_echo(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            await asyncio.sleep(1)
            await echo(agent, sender, session, said)

        agent = house.agent("echo", slow_echo)
        asked = [house.heard(agent, f"q{number}", call=f"c{number}") for number in range(5)]
        return [text_of(heard) for heard in await asyncio.gather(*asked)]

    assert scene(play) == [f"q{number}" for number in range(5)]


def test_many_agents_and_questions_at_once_each_get_their_own_answer() -> None:
    async def play(house: House) -> list[tuple[str, str]]:
        async def shuffled(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            await asyncio.sleep(int(said.msg_id[:4], 16) % 7 / 3)
            await echo(agent, sender, session, said)

        agents = [house.agent(f"a{number}", shuffled) for number in range(20)]

        async def ask(agent: PlayedAgent, number: int) -> tuple[str, str]:
            text = f"{agent.me.address} {number}"
            heard = await house.heard(agent, text, key=f"conv{number}", call=f"c{number}")
            return text, text_of(heard)

        return await asyncio.gather(*(ask(agent, number) for agent in agents for number in range(20)))

    pairs = scene(play)
    assert len(pairs) == 400
    assert all(asked == answered for asked, answered in pairs)


def test_an_agent_that_does_not_answer_is_left_alone_and_tried_again_by_one() -> None:
    async def play(house: House) -> list[str]:
        agent = house.agent("down", echo)
        agent.breaks = EgressFailed("no", "connect")
        found = []
        for number in range(4):
            heard = await house.heard(agent, "hello", call=f"c{number}")
            found.append(heard[-1].metadata.get("reason", ""))
        agent.breaks = None
        await asyncio.sleep(20)
        heard = await house.heard(agent, "hello", call="again")
        return [*found, text_of(heard)]

    assert scene(play) == ["unreachable", "unreachable", "unreachable", "left_alone", "hello"]


@pytest.mark.req("TRAP-02")
def test_no_message_is_sent_by_a_user_address_and_none_to_ourselves_or_back_to_the_asker() -> None:
    async def play(house: House) -> list[Any]:
        agent = house.agent("echo", echo)
        await house.heard(agent, "hello")
        senders = {envelope.sender for envelope, _ in agent.received}
        mine = Conversation(owner="o", key="k", call_key="c", caller=agent.me.address)
        hop = Conversation(owner="o", key="k", call_key="c", hops=(agent.me.address,))
        found = [[one async for one in house.talker.talk(agent.card, way, "x")] for way in (mine, hop)]
        ours = PlayedAgent(house, "ours", None, acknowledges=False)
        return [senders, *found, await house.heard(ours, "x")]

    senders, back, hopped, ours = scene(play)
    assert senders == {"agent1qours"}
    assert [kinds(one) for one in (back, hopped, ours)] == [["error"]] * 3


def test_where_answers_could_not_be_kept_nothing_is_asked() -> None:
    async def play(house: House) -> tuple[list[Any], int]:
        agent = house.agent("echo", echo)
        house.sessions.broken = True
        heard = await house.heard(agent, "hello")
        return heard, len(house.post.posted)

    heard, posted = scene(play)
    assert kinds(heard) == ["error"]
    assert posted == 0


def test_an_answer_that_reaches_another_process_is_found_in_the_store() -> None:
    async def whole(world: World) -> tuple[str, float]:
        terms = TalkTerms(shared=True)
        here = House(world.clock, terms)
        there = House(world.clock, terms, here.post, here.sessions)
        agent = there.agent("echo", echo)  # whatever it sends reaches the inbox of the other process
        began = world.clock.monotonic()
        heard = await here.heard(agent, "hello")
        seconds = world.clock.monotonic() - began
        await there.aclose()
        await here.aclose()
        return text_of(heard), seconds

    text, seconds = run(whole, 1)
    assert text == "hello"
    assert seconds < 1


@pytest.mark.req("CALL-01", "SYNC-01")
def test_messages_go_out_as_json_and_never_by_the_sync_header() -> None:
    async def play(house: House) -> list[Any]:
        await house.heard(house.agent("echo", echo), "hello")
        return [(request.method, request.headers, request.redirects_max) for request in house.post.posted]

    posted = scene(play)
    assert posted
    assert set(posted) == {("POST", (("content-type", "application/json"),), 0)}


def test_the_hops_of_a_question_go_with_it_behind_its_text() -> None:
    async def play(house: House) -> list[Any]:
        agent = house.agent("echo", echo)
        conversation = Conversation(owner="o", key="k", call_key="c", hops=("agent1qa", "agent1qours"))
        assert text_of([one async for one in house.talker.talk(agent.card, conversation, "hello")]) == "hello"
        await house.heard(agent, "without", "another", "c2")
        return [said.content for _, said in agent.received if isinstance(said, codec.ChatMessage)]

    assert scene(play) == [
        (codec.Text("hello"), codec.Meta({"convene-hops": "agent1qa, agent1qours"})),
        (codec.Text("without"),),
    ]
