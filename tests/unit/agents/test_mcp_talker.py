"""The MCP talker: one call for one question, asked back where it is not clear, never made twice after a crash."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from agent_doubles import kinds, text_of
from convene.agents.base import AgentCard, Conversation, Heard
from convene.agents.faults import TalkFault
from convene.agents.mcp_choice import McpOffer
from mcp_agent_doubles import CARD, McpHouse, text_tool
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def scene(play: Callable[[McpHouse], Awaitable[Any]]) -> Any:  # noqa: ANN401 -- whatever it returns
    async def whole(world: World) -> Any:  # noqa: ANN401
        return await play(McpHouse(world.clock))

    return run(whole, 1)


@pytest.mark.req("MCP-01", "MCP-03")
def test_a_call_is_acknowledged_shows_its_progress_and_its_result_is_the_whole_answer() -> None:
    heard = scene(lambda house: house.heard("hello"))
    assert kinds(heard) == ["acknowledged", "progress", "progress", "text", "end"]
    assert text_of(heard) == "echo: hello"


def test_an_exact_call_names_the_tool_and_its_arguments() -> None:
    async def play(house: McpHouse) -> list[Any]:
        await house.heard('{"tool": "echo", "arguments": {"text": "hi", "more": 1}}')
        return house.servers.calls

    [(tool, arguments, key)] = scene(play)
    assert (tool, arguments) == ("echo", {"text": "hi", "more": 1})
    assert len(key) == 36


def test_what_is_not_clear_is_asked_back_and_calls_nothing() -> None:
    async def play(house: McpHouse) -> tuple[list[Heard], int]:
        house.servers.offered = McpOffer(tools=(text_tool("one"), text_tool("two")))
        return await house.heard("hello"), len(house.servers.calls)

    heard, calls = scene(play)
    assert kinds(heard) == ["needs_input"]
    assert "- one(text: string)" in heard[0].text
    assert calls == 0


def test_wrong_arguments_are_asked_for_again_with_the_signature() -> None:
    async def play(house: McpHouse) -> tuple[list[Heard], list[Heard]]:
        first = await house.heard("wrong")
        return first, await house.heard("right")

    first, second = scene(play)
    assert first[-1].kind == "needs_input"
    assert first[-1].text == "The tool echo refused the arguments: text is too long\necho(text: string)"
    assert text_of(second) == "echo: right"


def test_a_tool_that_fails_says_why() -> None:
    heard = scene(lambda house: house.heard("fail"))
    assert (heard[-1].text, heard[-1].metadata) == ("no", {"reason": "agent_error"})


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_call_that_a_crash_cut_off_is_made_again_only_where_that_does_no_harm(*, repeatable: bool) -> None:
    async def play(house: McpHouse) -> tuple[list[Heard], list[Any]]:
        house.servers.offered = McpOffer(tools=(text_tool("echo", repeatable=repeatable),))
        async with aclosing(house.talker.talk(CARD, Conversation(owner="o", key="k", call_key="one"), "slow")) as talk:
            await anext(talk)
        return await house.fresh().heard("slow"), house.servers.calls

    heard, calls = scene(play)
    if repeatable:
        assert text_of(heard) == "echo: slow"
        assert calls[0] == calls[1]
    else:
        assert heard[-1].metadata == {"reason": "lost"}
        assert len(calls) == 1


def test_an_answer_is_kept_for_a_repeat() -> None:
    async def play(house: McpHouse) -> tuple[list[Heard], list[Heard], list[Any]]:
        first = await house.heard("hello")
        return first, await house.fresh().heard("hello"), house.servers.calls

    first, second, calls = scene(play)
    assert text_of(first) == text_of(second)
    assert len(calls) == 1


def test_a_connection_that_breaks_after_the_call_went_out_is_not_tried_again() -> None:
    async def play(house: McpHouse) -> tuple[list[Heard], list[Heard]]:
        house.servers.breaks = TalkFault("The agent's answer did not come, or broke off.", "unreachable")
        return await house.heard("hello"), await house.heard("hello")

    first, second = scene(play)
    assert first[-1].metadata == {"reason": "unreachable"}
    assert second[-1].metadata == {"reason": "lost"}


def test_whoever_leaves_ends_the_call() -> None:
    async def play(house: McpHouse) -> int:
        async with aclosing(house.talker.talk(CARD, Conversation(owner="o", key="k", call_key="one"), "hang")) as talk:
            await anext(talk)
            await asyncio.sleep(1)
        return house.servers.cancelled

    assert scene(play) == 1


def test_progress_is_shown_a_hundred_times_at_most() -> None:
    assert kinds(scene(lambda house: house.heard("chatty"))).count("progress") == 100


def test_a_call_has_a_time_limit() -> None:
    async def play(house: McpHouse) -> tuple[list[Heard], float]:
        began = house.clock.monotonic()
        return await house.heard("hang"), house.clock.monotonic() - began

    heard, seconds = scene(play)
    assert heard[-1].metadata == {"reason": "timed_out"}
    assert seconds == pytest.approx(240.0)


def test_a_server_that_asked_itself_or_has_no_address_is_not_asked() -> None:
    async def play(house: McpHouse) -> list[Heard]:
        about = Conversation(owner="o", key="k", call_key="c", hops=(CARD.url,))
        heard = [one async for one in house.talker.talk(CARD, about, "hi")]
        nowhere = AgentCard(protocol="mcp", name="x")
        return heard + [one async for one in house.talker.talk(nowhere, about, "hi")]

    assert kinds(scene(play)) == ["error", "error"]


def test_the_hops_of_a_question_go_with_its_call() -> None:
    async def play(house: McpHouse) -> tuple[str, ...]:
        about = Conversation(owner="o", key="k", call_key="one", hops=("agent1qa", "agent1qours"))
        assert text_of([one async for one in house.talker.talk(CARD, about, "hello")]) == "echo: hello"
        return house.servers.hops

    assert scene(play) == ("agent1qa", "agent1qours")
