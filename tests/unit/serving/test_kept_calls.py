"""A turn that calls tools of the server and functions of the client: what was done here is back when the client is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.errors import StoreFault
from convene.events import CallDelta, TextDelta
from convene.messages import Message, ToolCall
from convene.serving.agent import Hooks
from convene.serving.base import Agentic
from convene.serving.kept_calls import MARK
from convene.tools.base import Source, ToolResult
from tool_doubles import PlayedTool
from unit.serving.agent_doubles import CLIENT, House, Rounds, call, says, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.events import Event
    from convene.serving.base_agentic import Job, RunView
    from convene.tools.base import ToolContext, ToolSpec

USER = Message(role="user", content="How is the weather?")


class Remembered:
    """A memory of calls alone."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}
        self.broken = False

    async def enter(self, owner: str, session_id: str) -> str:
        return f"conv_{owner}_{session_id}"

    async def remember(self, owner: str, session_id: str, notes: Mapping[str, bytes]) -> None:
        raise AssertionError(owner, session_id, notes)

    async def recall(self, owner: str, session_id: str, names: Sequence[str] | None = None) -> dict[str, bytes]:
        raise AssertionError(owner, session_id, names)

    async def forget_notes(self, owner: str, session_id: str, names: Sequence[str]) -> None:
        raise AssertionError(owner, session_id, names)

    async def keep_calls(self, owner: str, call_id: str, body: bytes) -> None:
        if self.broken:
            raise StoreFault("The store cannot be used now.")
        self.kept[owner, call_id] = body

    async def recall_calls(self, owner: str, call_id: str) -> bytes | None:
        if self.broken:
            raise StoreFault("The store cannot be used now.")
        return self.kept.get((owner, call_id))


class Numbered:
    """A text that numbers sources as they come and says which."""

    def __init__(self) -> None:
        self.urls: list[str] = []

    def present(self, result: ToolResult) -> str:
        self.urls += [source.url for source in result.sources]
        return f"{result.text} [{len(self.urls)}]"

    def write(self, text: str) -> Sequence[Event]:
        return (TextDelta(text),)

    def think(self, text: str, *, end: bool = False) -> str:
        del end
        return text

    def end(self, *, whole: bool = True) -> Sequence[Event]:
        del whole
        return ()


async def find(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
    """Return one source."""
    del context
    return ToolResult(
        text=f"page about {arguments['city']}",
        sources=(Source(f"https://{arguments['city']}.example", "Page", "long text"),),
        links=("https://more.example",),
    )


def calls_of(events: list[Event]) -> tuple[ToolCall, ...]:
    """Return the calls that a client gets."""
    heads = [event for event in events if isinstance(event, CallDelta) and event.id is not None]
    return tuple(
        ToolCall(
            head.id or "",
            head.name or "",
            "".join(e.arguments for e in events if isinstance(e, CallDelta) and e.index == head.index),
        )
        for head in heads
    )


async def test_the_servers_calls_and_results_are_back_when_the_client_sends_its_own() -> None:
    memory = Remembered()
    model = Rounds(says("Both.", call(call_id="srv"), call("get_weather", '{"x":1}', index=1)), says("Fine."))
    house = House(model, hooks=Hooks(memory=memory))
    first = await house.play(house.turn(USER, tools=(CLIENT,)))
    (given,) = calls_of(first)
    assert given.id.startswith(MARK)
    assert (given.name, given.arguments) == ("get_weather", '{"x":1}')

    echoed = Message(role="assistant", content="Both.", tool_calls=(given,))
    answered = Message(role="tool", content="21 degrees", tool_call_id=given.id)
    second = await house.play(house.turn(USER, echoed, answered))

    assert text_of(second) == "Fine."
    _, said, ours, theirs = model.asked[1].messages
    assert [(one.id, one.name) for one in said.tool_calls] == [("srv", "weather"), (given.id, "get_weather")]
    assert ours.tool_call_id == "srv"
    assert "It is sunny in Rome." in ours.text()
    assert theirs == answered
    assert house.tool.asked == [{"city": "Rome"}]


async def test_rounds_before_the_clients_call_are_back_too() -> None:
    memory = Remembered()
    model = Rounds(says("", call(call_id="srv")), says("", call("get_weather", "{}")), says("Fine."))
    house = House(model, hooks=Hooks(memory=memory))
    (given,) = calls_of(await house.play(house.turn(USER, tools=(CLIENT,))))
    echoed = Message(role="assistant", tool_calls=(given,))
    await house.play(house.turn(USER, echoed, Message(role="tool", content="21", tool_call_id=given.id)))
    assert [message.role for message in model.asked[2].messages] == ["user", "assistant", "tool", "assistant", "tool"]


async def test_a_turn_with_client_calls_alone_keeps_nothing_and_hands_them_over_as_they_are() -> None:
    memory = Remembered()
    house = House(Rounds(says("", call("get_weather", "{}", call_id="host-1"))), hooks=Hooks(memory=memory))
    (given,) = calls_of(await house.play(house.turn(USER, tools=(CLIENT,))))
    assert given.id == "host-1"
    assert memory.kept == {}


async def test_what_is_kept_is_the_owners_alone() -> None:
    memory = Remembered()
    model = Rounds(says("", call(call_id="srv"), call("get_weather", "{}", index=1)), says("Fine."))
    house = House(model, hooks=Hooks(memory=memory))
    (given,) = calls_of(await house.play(house.turn(USER, tools=(CLIENT,))))
    ((owner, _),) = memory.kept
    assert owner == "ada"
    memory.kept = {("eve", name): body for (_, name), body in memory.kept.items()}
    echoed = Message(role="assistant", tool_calls=(given,))
    await house.play(house.turn(USER, echoed, Message(role="tool", content="21", tool_call_id=given.id)))
    assert [message.role for message in model.asked[1].messages] == ["user", "assistant", "tool"]


async def test_sources_keep_their_numbers_and_the_policy_what_it_knew() -> None:
    memory = Remembered()
    texts: list[Numbered] = []

    def text(job: Job, view: RunView) -> Numbered:
        assert view.messages == job.request.generation.messages
        texts.append(Numbered())
        return texts[-1]

    seen: list[tuple[set[str], set[str]]] = []

    class Watching:
        def check(self, call: ToolCall, spec: ToolSpec, arguments: Mapping[str, object], view: RunView) -> None:
            del call, spec, arguments
            seen.append((set(view.labels), set(view.addresses)))

    tool = PlayedTool(do=find, labels=frozenset({"untrusted"}))
    model = Rounds(
        says("", call(call_id="srv"), call("get_weather", "{}", index=1)), says("", call(call_id="srv2")), says("Fine.")
    )
    house = House(model, tool, hooks=Hooks(memory=memory, text=text, policy=Watching()))
    (given,) = calls_of(await house.play(house.turn(USER, tools=(CLIENT,))))
    echoed = Message(role="assistant", tool_calls=(given,))
    await house.play(house.turn(USER, echoed, Message(role="tool", content="21", tool_call_id=given.id)))
    assert "page about Rome [1]" in model.asked[1].messages[2].text()
    assert texts[1].urls == ["https://Rome.example", "https://Rome.example"]
    assert seen == [(set(), set()), ({"untrusted"}, {"https://Rome.example", "https://more.example"})]


@pytest.mark.parametrize("memory", [None, Remembered()])
async def test_where_nothing_can_be_kept_the_client_gets_its_calls_all_the_same(memory: Remembered | None) -> None:
    if memory is not None:
        memory.broken = True
    model = Rounds(says("", call(call_id="srv"), call("get_weather", "{}", index=1, call_id="host-2")))
    house = House(model, hooks=Hooks(memory=memory))
    (given,) = calls_of(await house.play(house.turn(USER, tools=(CLIENT,))))
    assert given.id == "host-2"


async def test_a_store_that_fails_when_the_client_is_back_leaves_the_conversation_as_it_came() -> None:
    memory = Remembered()
    memory.broken = True
    model = Rounds(says("Fine."))
    house = House(model, hooks=Hooks(memory=memory))
    echoed = Message(role="assistant", tool_calls=(ToolCall(f"{MARK}x_0", "get_weather", "{}"),))
    answered = Message(role="tool", content="21", tool_call_id=f"{MARK}x_0")
    assert text_of(await house.play(house.turn(USER, echoed, answered))) == "Fine."
    assert model.asked[0].messages == (USER, echoed, answered)


@pytest.mark.req("TOOLS-08")
async def test_a_client_that_comes_back_without_tools_is_still_known_by_its_calls_id() -> None:
    house = House(Rounds(says("Fine.")), hooks=Hooks(memory=Remembered()))
    echoed = Message(role="assistant", tool_calls=(ToolCall(f"{MARK}x_0", "get_weather", "{}"),))
    answered = Message(role="tool", content="21", tool_call_id=f"{MARK}x_0")
    plain = Message(role="tool", content="21", tool_call_id="call_1")
    off = Agentic(server_tools=False)
    assert house.turn(USER, echoed, answered, agentic=off).run_id
    assert not house.turn(USER, echoed, plain, agentic=off).run_id


async def test_two_client_calls_share_what_is_kept_under_the_first() -> None:
    memory = Remembered()
    rounds = says(
        "", call(call_id="srv"), call("get_weather", '{"n":1}', index=1), call("get_weather", '{"n":2}', index=2)
    )
    model = Rounds(rounds, says("Fine."))
    house = House(model, hooks=Hooks(memory=memory))
    first, second = calls_of(await house.play(house.turn(USER, tools=(CLIENT,))))
    assert len(memory.kept) == 1
    assert first.id != second.id
    echoed = Message(role="assistant", tool_calls=(first, second))
    results = [Message(role="tool", content=one.arguments, tool_call_id=one.id) for one in (first, second)]
    await house.play(house.turn(USER, echoed, *results))
    assert [one.id for one in model.asked[1].messages[1].tool_calls] == ["srv", first.id, second.id]
