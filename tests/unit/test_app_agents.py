"""The composition of agents: who we are, who is found where, how far the way to agents reaches."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest

from convene import app_agents
from convene.agent_identity import Identity
from convene.agents.agentverse import Agentverse
from convene.agents.base import Heard
from convene.app_agents import AgentParts, Desk, answers_agents, has_mailbox, open_agents_egress
from convene.config import Agents, Answering, Config, EgressSettings, Secret
from convene.egress import EgressRefused, Request
from convene.errors import Failed, UpstreamFault
from convene.registry.base import Found, Interaction
from convene.tools.agents_base import Asking
from market_doubles import ADDRESS, OTHER
from sessions_double import SessionsDouble

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from convene.agents.base import AgentCard, Conversation
    from fakes import FakeClock

ROME = Found(protocol="acp", name="rome", address=ADDRESS, handle="rome", score=0.5)
OSLO = Found(protocol="acp", name="oslo", address=OTHER, score=0.9)


class Directory:
    """Knows these, or fails."""

    def __init__(self, *agents: Found, broken: bool = False) -> None:
        self.agents = agents
        self.broken = broken
        self.noted: list[Interaction] = []

    async def search(self, query: str, limit: int, *, source: str = "") -> Sequence[Found]:
        del query, source
        self._check()
        return self.agents[:limit]

    async def find(self, name: str) -> Found | None:
        self._check()
        return next((one for one in self.agents if name.removeprefix("@") in {one.address, one.handle}), None)

    async def note(self, interaction: Interaction) -> None:
        self._check()
        self.noted.append(interaction)

    def _check(self) -> None:
        if self.broken:
            raise UpstreamFault("down")


class Talker:
    """Says who was asked what."""

    protocol = "acp"

    async def talk(self, card: AgentCard, conversation: Conversation, say: str) -> AsyncGenerator[Heard]:
        yield Heard(kind="text", text=f"{card.name} {conversation.owner} {conversation.key} {say}")


class Listening(Talker):
    """Says what goes on with a question."""

    async def talk(self, card: AgentCard, conversation: Conversation, say: str) -> AsyncGenerator[Heard]:
        del card, say
        yield Heard(kind="text", text=", ".join(conversation.hops))


@pytest.mark.parametrize(
    ("hops", "caller", "heard"),
    [
        ((), "", "agent1qme"),
        (("agent1qa",), "agent1qa", "agent1qa, agent1qme"),
        ((), "agent1qa", "agent1qa, agent1qme"),
        ((ADDRESS,), "", "so it is not asked back"),
        ((), ADDRESS, "so it is not asked back"),
        (("agent1qme", "agent1qa"), "agent1qa", "has been here before"),
        (("a", "b", "c"), "", "passed through 4 agents"),
    ],
)
async def test_a_question_goes_on_with_its_hops_and_never_in_a_circle(
    hops: tuple[str, ...], caller: str, heard: str
) -> None:
    one = Desk((Directory(ROME),), (Listening(),), "agent1qme", 3)  # type: ignore[arg-type]  # doubles
    asking = Asking(owner="o", conversation="c", call_key="k", say="hi", caller=caller, hops=hops)
    [found] = [piece async for piece in one.ask(ROME, asking)]
    assert (found.kind == "text") == heard.startswith("agent1q")
    assert heard in found.text


@pytest.mark.parametrize(
    ("host", "enabled", "answers"),
    [
        ("127.0.0.1", "auto", True),
        ("0.0.0.0", "auto", False),  # noqa: S104 -- what is asked about
        ("0.0.0.0", "on", True),  # noqa: S104 -- what is asked about
        ("127.0.0.1", "off", False),
    ],
)
def test_agents_without_a_key_are_answered_on_loopback_unless_the_operator_says_otherwise(
    tmp_path: Path,
    host: str,
    enabled: Literal["auto", "on", "off"],
    answers: bool,  # noqa: FBT001
) -> None:
    agents = Agents(answering=Answering(enabled=enabled))
    config = Config(data_dir=tmp_path, cache_dir=tmp_path, agents=agents, host=host)
    assert answers_agents(config) is answers
    off = msgspec.structs.replace(config, agents=msgspec.structs.replace(agents, enabled=False))
    assert not answers_agents(off)


def desk(*directories: Directory) -> Desk:
    return Desk(directories, (Talker(),))  # type: ignore[arg-type]  # doubles


@pytest.fixture
def parts(tmp_path: Path, clock: FakeClock) -> Any:  # noqa: ANN401 -- a fixture's factory
    """Return a function from settings of agents, sessions and fields of the configuration to the parts."""

    def make(sessions: SessionsDouble | None = None, agents: Agents = Agents(), **fields: object) -> AgentParts:  # noqa: B008 -- frozen
        config = msgspec.structs.replace(Config(data_dir=tmp_path, cache_dir=tmp_path, agents=agents), **fields)
        kept = sessions or SessionsDouble()
        return AgentParts(config, clock, lambda: kept)

    return make


async def test_the_best_of_all_directories_come_first_and_each_agent_once() -> None:
    again = msgspec.structs.replace(ROME, name="rome elsewhere", score=1.0)
    found = await desk(Directory(ROME), Directory(OSLO, again)).search("x", 5)
    assert [one.name for one in found] == ["oslo", "rome"]
    assert [one.name for one in await desk(Directory(ROME, OSLO)).search("x", 1)] == ["rome"]


async def test_we_are_not_found_ourselves_by_either_of_our_addresses() -> None:
    one = Desk((Directory(ROME, OSLO),), (Talker(),), me=ADDRESS)  # type: ignore[arg-type]  # doubles
    assert [found.name for found in await one.search("x", 5)] == ["oslo"]
    one = Desk((Directory(ROME, OSLO),), (Talker(),), me="agent1qus", abroad=OTHER)  # type: ignore[arg-type]  # doubles
    assert [found.name for found in await one.search("x", 5)] == ["rome"]


async def test_agents_that_nobody_here_can_talk_to_are_left_out() -> None:
    other = Found(protocol="a2a", name="far", url="http://a.test")
    assert await desk(Directory(other)).search("x", 5) == []
    heard = [one async for one in desk().ask(other, Asking(owner="o", conversation="c", call_key="k", say="hi"))]
    assert [one.kind for one in heard] == ["error"]


async def test_a_directory_that_is_down_is_done_without_unless_it_is_the_only_one() -> None:
    assert await desk(Directory(broken=True), Directory(ROME)).search("x", 5) == [ROME]
    with pytest.raises(Failed):
        await desk(Directory(broken=True)).search("x", 5)
    assert await desk(Directory(broken=True), Directory(ROME)).find("@rome") == ROME
    with pytest.raises(Failed):
        await desk(Directory(broken=True), Directory(OSLO)).find("@rome")
    assert await desk(Directory(OSLO)).find("@rome") is None
    assert await desk().search("x", 5) == []


async def test_who_is_asked_gets_the_question_and_the_directories_learn_how_it_went() -> None:
    broken, well = Directory(broken=True), Directory(ROME)
    one = desk(broken, well)
    heard = [piece.text async for piece in one.ask(ROME, Asking(owner="o", conversation="c", call_key="k", say="hi"))]
    assert heard == ["rome o c hi"]
    await one.note(ROME, "success", 1.5)
    assert well.noted == [Interaction(agent=ADDRESS, outcome="success", seconds=1.5)]


@pytest.mark.req("PICK-04")
async def test_the_directories_learn_whether_an_answer_was_found_useful() -> None:
    broken, well = Directory(broken=True), Directory(ROME)
    one = desk(broken, well)
    await one.note_judged({"address": ADDRESS, "name": "rome"}, useful=False)
    await one.note_judged({"url": "https://a.test/card"}, useful=True)
    assert well.noted == [
        Interaction(agent=ADDRESS, useful=False),
        Interaction(agent="https://a.test/card", useful=True),
    ]


@pytest.mark.req("ID-07")
async def test_our_address_is_made_once_and_kept_or_follows_from_the_setting(parts: Any) -> None:  # noqa: ANN401
    sessions = SessionsDouble()
    addresses = []
    for one in (parts(sessions), parts(sessions), parts(), parts(sessions, Agents(seed=Secret("s")))):
        await one.start()
        addresses.append(one.address)
        await one.aclose()
    assert addresses[0] == addresses[1]
    assert addresses[3] != addresses[0]
    assert all(address.startswith("agent1q") for address in addresses)


@pytest.mark.req("HOSTED-04")
async def test_a_directory_elsewhere_is_told_of_us_each_hour_by_an_identity_of_its_own(
    parts: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert app_agents.ANNOUNCE_S == 3600
    monkeypatch.setattr(app_agents, "ANNOUNCE_S", 0.01)
    told: list[tuple[str, str]] = []

    async def announce(_: object, me: Identity, inbox_url: str) -> None:
        told.append((me.address, inbox_url))

    monkeypatch.setattr(Agentverse, "announce", announce)
    one = parts(agents=Agents(directory="https://av.test", seed=Secret("s")), public_url="https://us.test")
    await one.start()
    async with asyncio.timeout(20):
        while len(told) < 3:  # noqa: ASYNC110 -- the loop under test has no event
            await asyncio.sleep(0.01)
    abroad = Identity.from_seed("s", 1).address
    assert {*told} == {(abroad, "https://us.test/agents/inbox")}
    assert one.address == Identity.from_seed("s").address
    assert [one.is_us(address) for address in (one.address, abroad, ADDRESS)] == [True, True, False]
    await one.aclose()


async def test_without_a_directory_there_is_nobody_and_no_tool_and_switched_off_nothing(parts: Any) -> None:  # noqa: ANN401
    one = parts()
    await one.start()
    assert (one.anybody(), list(one.tools()), one.notices()) == (False, [], ())
    assert (await one.receive(b"{}")).status == 400
    await one.aclose()
    off = parts(agents=Agents(enabled=False, directory="http://market.test"))
    await off.start()
    assert (off.anybody(), list(off.tools()), off.address) == (False, [], "")
    assert (await off.receive(b"{}")).status == 503


@pytest.mark.parametrize("populated", [True, False])
async def test_there_is_somebody_once_our_own_directory_has_anybody(
    tmp_path: Path,
    clock: FakeClock,
    populated: bool,  # noqa: FBT001 -- both
) -> None:
    config, kept = Config(data_dir=tmp_path, cache_dir=tmp_path), SessionsDouble()
    one = AgentParts(config, clock, lambda: kept, directories=(Directory(ROME),), populated=lambda: populated)
    assert not one.anybody()  # nobody can be asked before we are somebody
    await one.start()
    assert one.anybody() is populated
    assert [tool.spec.name for tool in one.tools()] == ["search_agents", "ask_agent"]
    assert await one.find("@rome") == ROME
    await one.aclose()


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, "http://127.0.0.1:8000/agents/inbox"),
        ({"host": "::1", "port": 9}, "http://[::1]:9/agents/inbox"),
        ({"public_url": "https://us.test/"}, "https://us.test/agents/inbox"),
        ({"agents": Agents(inbox_url="https://in.test/x")}, "https://in.test/x"),
    ],
)
def test_our_inbox_is_where_this_server_is_reached(parts: Any, fields: dict[str, Any], url: str) -> None:  # noqa: ANN401
    assert parts(**fields).inbox_url == url


@pytest.mark.parametrize(
    ("host", "allow", "reached"),
    [("127.0.0.1", (), True), ("0.0.0.0", (), False), ("0.0.0.0", ("127.0.0.0/8",), True)],  # noqa: S104 -- not bound here
)
async def test_agents_on_loopback_are_reached_from_loopback_alone_unless_allowed(
    tmp_path: Path,
    host: str,
    allow: tuple[str, ...],
    reached: bool,  # noqa: FBT001 -- a column of the table
) -> None:
    config = Config(data_dir=tmp_path, cache_dir=tmp_path, host=host, egress=EgressSettings(allow=allow))
    with pytest.raises(Exception) as fault:  # noqa: PT011 -- which one is what is asked
        await open_agents_egress(config).fetch(Request(url="http://127.0.0.1:1/submit"))
    assert isinstance(fault.value, EgressRefused) is not reached


@pytest.mark.parametrize(
    ("agents", "public_url", "has"),
    [
        (Agents(), "", False),
        (Agents(directory="https://av.test"), "", False),
        (Agents(directory="https://av.test", directory_key=Secret("k")), "", True),
        (Agents(directory="https://av.test", directory_key=Secret("k")), "https://us.test", False),
        (Agents(directory="https://av.test", directory_key=Secret("k"), inbox_url="https://us.test/in"), "", False),
        (Agents(directory="https://av.test", directory_key=Secret("k"), mailbox="off"), "", False),
        (Agents(directory="https://av.test", mailbox="on"), "https://us.test", True),
        (Agents(mailbox="on"), "", False),
    ],
)
def test_a_mailbox_is_used_where_agents_cannot_reach_us(agents: Agents, public_url: str, *, has: bool) -> None:
    assert has_mailbox(Config(agents=agents, public_url=public_url)) == has
