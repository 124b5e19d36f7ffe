"""Tools lent over the MCPProtocol: asked for once for all, called once whatever crashes, and chat beside them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from agent_doubles import SECRET, House, PlayedAgent, kinds, text_of
from convene.agents import chat_codec as codec
from convene.agents import tool_codec
from convene.agents.acp_tools import AGAIN_S, FRESH_S, LIST_S, AcpTalker, AcpTools
from convene.agents.answer_rules import Patience
from convene.agents.base import Conversation, Heard
from convene.agents.envelope import Draft, read_envelope
from convene.agents.faults import TalkFault
from convene.agents.letters import uuid_of
from convene.agents.mcp import McpTalker, ToolAsked
from convene.agents.talk_notes import TalkNotes
from convene.errors import StoreFault
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ADD = {
    "name": "add",
    "description": "Add two numbers",
    "inputSchema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}
CALL = '{"tool": "add", "arguments": {"a": 1}}'
KEY = uuid_of(SECRET, "a call")


class Lender(PlayedAgent):
    """An agent with the tool `add`. It answers after `after_s`, or never, or with `broken` instead."""

    after_s: float | None = 1.0
    broken: Draft | None = None
    tools: object = [ADD]

    def take(self, body: bytes) -> None:
        super().take(body)
        envelope = read_envelope(body)
        if envelope.schema_digest in {tool_codec.LIST_TOOLS, tool_codec.CALL_TOOL} and self.after_s is not None:
            answer: object = {"tools": self.tools, "error": None}
            digest = tool_codec.LIST_TOOLS_RESPONSE
            if envelope.schema_digest == tool_codec.CALL_TOOL:
                called = msgspec.json.decode(envelope.body())
                digest, answer = tool_codec.CALL_TOOL_RESPONSE, {"result": f"{called['args']['a']} and more"}
            draft = Draft(schema_digest=digest, protocol_digest="", body=msgspec.json.encode(answer))
            self.house.work(self.answer(envelope.session, self.broken or draft, self.after_s))

    async def answer(self, session: str, draft: Draft, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self.send(session, draft)

    def asked(self, digest: str) -> int:
        """Return how often a question came."""
        return sum(envelope.schema_digest == digest for envelope, _ in self.received)


class Shop:
    """Our side, with one lender and all that asks it."""

    def __init__(self, world: World, *, chats: bool = False, shared: bool = False) -> None:
        self.house = House(world.clock)
        self.agent = Lender(self.house, "lender", chat if chats else None, acknowledges=True)
        self.house.post.agents[self.agent.url] = self.agent
        self.protocols = (tool_codec.TOOL_PROTOCOL.removeprefix("proto:"), *((codec.CHAT_PROTOCOL,) if chats else ()))
        self.open(world, shared=shared)

    def open(self, world: World, *, shared: bool = False) -> None:
        """Begin as a process does."""
        house = self.house
        self.tools = AcpTools(house.courier, house.inbox, house.letters, world.clock, SECRET, shared=shared)
        notes = TalkNotes(lambda: house.sessions, world.clock, "acp tools")
        caller = McpTalker(self.tools, notes, world.clock, SECRET, Patience(total_s=60.0))
        self.talker = AcpTalker(house.talker, caller)

    async def ask(self, say: str, call: str = "run_1:s1:1") -> list[Heard]:
        """Ask and return all that is heard."""
        card = msgspec.structs.replace(self.agent.card, protocols=self.protocols)
        talk = self.talker.talk(card, Conversation(owner="o", key="conv", call_key=call), say)
        return [heard async for heard in talk]

    async def call(self, wait_s: float = 60.0, key: str = KEY) -> str:
        """Call the tool and return what it gave."""
        asked = ToolAsked(tool="add", arguments={"a": 1}, key=key, wait_s=wait_s)
        answer = await self.tools.call(self.agent.me.address, asked)
        return answer.text


async def chat(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
    del sender, said
    await agent.say(session, "we chat", codec.EndSession())


def scene(play: Callable[[Shop, World], Awaitable[Any]], **how: bool) -> Any:  # noqa: ANN401 -- whatever it returns
    async def whole(world: World) -> Any:  # noqa: ANN401
        shop = Shop(world, **how)
        try:
            return await play(shop, world)
        finally:
            await shop.tools.aclose()
            await shop.house.aclose()

    return run(whole, 1)


@pytest.mark.req("ACP-14")
def test_an_exact_call_gets_the_tools_result_as_the_whole_answer() -> None:
    async def play(shop: Shop, _: World) -> list[Heard]:
        return await shop.ask(CALL)

    heard = scene(play)
    assert kinds(heard) == ["acknowledged", "text", "end"]
    assert text_of(heard) == "1 and more"


@pytest.mark.req("ACP-14")
def test_an_agent_that_chats_too_is_chatted_with_unless_a_tool_is_named() -> None:
    async def play(shop: Shop, _: World) -> tuple[str, str, str]:
        named, plain = await shop.ask(CALL), await shop.ask("hello", "run_1:s1:2")
        fenced = await shop.ask(f"```json\n{CALL}\n```", "run_1:s1:3")
        return text_of(named), text_of(plain), text_of(fenced)

    assert scene(play, chats=True) == ("1 and more", "we chat", "1 and more")


def test_an_agent_of_which_nobody_knows_what_it_speaks_is_chatted_with() -> None:
    async def play(shop: Shop, _: World) -> str:
        shop.protocols = ()
        return text_of(await shop.ask(CALL))

    assert scene(play, chats=True) == "we chat"


def test_tools_are_asked_for_once_for_all_and_again_after_some_minutes() -> None:
    async def play(shop: Shop, _: World) -> list[int]:
        address = shop.agent.me.address
        counts = []
        for pause_s in (0.0, FRESH_S - 2, 3.0):
            await asyncio.sleep(pause_s)
            offers = await asyncio.gather(*(shop.tools.offer(address) for _ in range(3)))
            assert {offer.tools[0].name for offer in offers} == {"add"}
            counts.append(shop.agent.asked(tool_codec.LIST_TOOLS))
        return counts

    assert scene(play) == [1, 1, 2]


def test_whoever_waits_no_longer_for_a_list_takes_it_from_nobody() -> None:
    async def play(shop: Shop, _: World) -> int:
        address = shop.agent.me.address
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await shop.tools.offer(address)
        await shop.tools.offer(address)
        return shop.agent.asked(tool_codec.LIST_TOOLS)

    assert scene(play) == 1


def test_an_agent_that_does_not_tell_its_tools_is_left_alone_for_a_while() -> None:
    async def play(shop: Shop, world: World) -> None:
        shop.agent.after_s = None
        address, began = shop.agent.me.address, world.clock.monotonic()
        for pause_s, asked in ((0.0, 1), (1.0, 1), (AGAIN_S, 2)):
            await asyncio.sleep(pause_s)
            with pytest.raises(TalkFault, match="did not answer within 10 seconds"):
                await shop.tools.offer(address)
            assert shop.agent.asked(tool_codec.LIST_TOOLS) == asked
        assert world.clock.monotonic() - began == pytest.approx(2 * LIST_S + 1.0 + AGAIN_S)

    scene(play)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (Draft(schema_digest=codec.ERROR_MESSAGE, protocol_digest="", body=b'{"error": "bad day"}'), "bad day"),
        (Draft(schema_digest=codec.ERROR_MESSAGE, protocol_digest="", body=b'{"error": ""}'), "not why"),
        (
            Draft(schema_digest=tool_codec.LIST_TOOLS_RESPONSE, protocol_digest="", body=b'{"error": "no tools"}'),
            "no tools",
        ),
        (Draft(schema_digest=tool_codec.LIST_TOOLS_RESPONSE, protocol_digest="", body=b"[]"), "cannot be read"),
    ],
)
def test_why_there_are_no_tools_is_told(broken: Draft, words: str) -> None:
    async def play(shop: Shop, _: World) -> list[Heard]:
        shop.agent.broken = broken
        return await shop.ask(CALL)

    [heard] = scene(play)
    assert heard.kind == "error"
    assert words in heard.text


def test_an_entry_that_is_no_tool_is_left_out_and_the_rest_stands() -> None:
    async def play(shop: Shop, _: World) -> list[str]:
        shop.agent.tools = [5, {"description": "nameless"}, ADD, {"name": "bare"}]
        return [tool.name for tool in (await shop.tools.offer(shop.agent.me.address)).tools]

    assert scene(play) == ["add", "bare"]


def test_an_agent_that_cannot_be_reached_was_sent_nothing_and_may_be_asked_again() -> None:
    async def play(shop: Shop, _: World) -> str:
        shop.house.post.agents.clear()
        with pytest.raises(TalkFault) as caught:
            await shop.call()
        assert (caught.value.reason, caught.value.sent) == ("unreachable", False)
        shop.house.post.agents[shop.agent.url] = shop.agent
        return await shop.call()

    assert scene(play) == "1 and more"


def test_a_tool_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    async def play(shop: Shop, world: World) -> float:
        shop.agent.after_s = None
        with pytest.raises(TalkFault) as caught:
            await shop.call(wait_s=20.0)
        assert caught.value.reason == "timed_out"
        return world.clock.monotonic()

    assert scene(play) == pytest.approx(20.0)


@pytest.mark.req("CALL-06")
@pytest.mark.parametrize("away_s", [0.5, 10.0], ids=["before the answer", "after it"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_call_that_a_crash_cut_off_is_listened_for_and_not_made_again(away_s: float, shared: bool) -> None:  # noqa: FBT001
    async def play(shop: Shop, world: World) -> tuple[str, int]:
        shop.agent.after_s = 5.0
        asking = asyncio.ensure_future(shop.ask(CALL))
        await asyncio.sleep(5.5)  # the list has come, the call is out
        asking.cancel()
        await asyncio.wait([asking])
        await asyncio.sleep(away_s)
        shop.open(world, shared=shared)
        heard = await shop.ask(CALL)
        return text_of(heard), shop.agent.asked(tool_codec.CALL_TOOL)

    assert scene(play, shared=shared) == ("1 and more", 1)


def test_an_answer_that_reached_another_process_is_found_in_the_store() -> None:
    async def play(shop: Shop, world: World) -> str:
        other = House(world.clock, post=shop.house.post, sessions=shop.house.sessions)
        shop.agent.house = other  # whose inbox the agent posts to
        return await shop.call()

    assert scene(play, shared=True) == "1 and more"


def test_calls_of_tools_do_not_confuse_whose_a_late_answer_is() -> None:
    """One in a session of the agent's own is taken where one conversation is open (END-06): a call is none."""

    async def play(shop: Shop, _: World) -> list[str]:
        await shop.ask("hello")
        await shop.ask(CALL, "run_1:s1:2")
        return await shop.house.letters.recent(shop.agent.me.address)

    assert len(scene(play, chats=True)) == 1


def test_without_a_store_nothing_is_asked_and_that_is_said() -> None:
    async def play(shop: Shop, _: World) -> list[Heard]:
        async def broken(*_: object, **__: object) -> None:
            raise StoreFault("no", detail="broken")

        shop.house.letters.open = broken  # type: ignore[method-assign]  # a store that fails
        return await shop.ask(CALL)

    [heard] = scene(play)
    assert (heard.kind, heard.metadata) == ("error", {"reason": "store"})
