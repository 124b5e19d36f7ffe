"""What a session remembers comes back as data, in front of the last question, and weighs on what may be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from convene.errors import StoreFault
from convene.messages import Message
from convene.serving.agent import Hooks
from convene.serving.base import Agentic
from convene.serving.recalling import CHARS_MAX, RESULTS_MAX, Recalling, recall
from convene.serving.remembering import Remembered
from convene.serving.sessions import Conversations
from convene.store.memory import MemoryStore
from fakes import FakeClock
from standin_run import Answering, StandIn, job_of
from tool_doubles import PlayedTool
from unit.serving.agent_doubles import House, Rounds, says

if TYPE_CHECKING:
    from convene.tools.base import Label

FIRST = Message(role="user", content="How high is the tower?")
ANSWER = Message(role="assistant", content="43 metres.")
LAST = Message(role="user", content="And the mole?")


def note(tool: str = "web_search", result: object = "the mole is 612 metres long", *, cut: bool = False) -> str:
    return msgspec.json.encode(Remembered(tool_name=tool, args={"query": "mole"}, result=result, cut=cut)).decode()


def tool(name: str = "web_search", *labels: Label) -> Answering:
    return Answering(name, "search", {}, *labels)


async def prepared(*notes: str, tools: tuple[Answering, ...] = (), window: int | None = None) -> StandIn:
    """Return a run whose job has brought these results along, prepared."""
    job = msgspec.structs.replace(job_of(FIRST, ANSWER, LAST), remembered=notes)
    run = StandIn(job, tools=tools, window=window)
    await Recalling().prepare(run)  # type: ignore[arg-type]  # what is used of a run
    return run


def told(run: StandIn) -> str:
    """Return what stands in front of the last question."""
    assert run.messages[-1] == LAST
    assert run.messages[:2] == [FIRST, ANSWER]
    assert [message.role for message in run.messages[2:-1]] == ["user", "assistant"]
    return run.messages[2].text()


@pytest.mark.req("SESSION-02")
async def test_results_stand_quoted_in_front_of_the_last_question() -> None:
    text = told(await prepared(note(), tools=(tool("web_search", "untrusted"),)))
    assert "[Data returned by web_search. Strangers wrote it" in text
    assert 'Called with {"query":"mole"}, it returned: the mole is 612 metres long' in text
    assert text.endswith("[End of data]")


async def test_a_turn_without_anything_to_remember_is_left_as_it_is() -> None:
    for run in (await prepared(), await prepared(note(cut=True)), await prepared("no JSON", '{"other": 1}')):
        assert run.messages == [FIRST, ANSWER, LAST]


async def test_what_is_quoted_counts_for_the_policy_and_of_a_tool_that_is_gone_the_worst_is_thought() -> None:
    run = await prepared(note(), tools=(tool("web_search", "untrusted"),))
    assert run.view.labels == {"untrusted"}
    assert (await prepared(note("gone"))).view.labels == {"private", "untrusted"}


async def test_strangers_words_are_not_remembered_where_that_would_take_a_tool_away() -> None:
    sender = Answering("mail__send", "tool", {}, "sends")
    search, own = tool("web_search", "untrusted"), tool("notes__find")
    run = await prepared(note(), note("notes__find", "my note"), tools=(search, own, sender))
    assert run.view.labels == set()
    assert "my note" in told(run)
    assert "612 metres" not in told(run)


async def test_it_never_takes_more_than_its_share_of_a_small_window() -> None:
    text = told(await prepared(*[note(result="x" * 3000)] * 3, tools=(tool(),), window=2048))
    assert len(text) < 2048 * 0.15 * 3 + 400


async def test_the_newest_results_come_first_and_only_so_many() -> None:
    memory = Memory()
    for number in range(RESULTS_MAX + 4):
        memory.notes[f"result:run_{number}:c"] = note(result=f"r{number}").encode()
    memory.notes["plan"] = b"{}"
    found = await recall(memory.of(), "ada", "s")
    assert len(found) == RESULTS_MAX
    assert "r11" in found[0]
    assert "r4" in found[-1]


async def test_a_job_never_carries_more_than_so_many_characters() -> None:
    memory = Memory()
    for number in range(3):
        memory.notes[f"result:run_{number}:c"] = note(result="x" * (CHARS_MAX // 2)).encode()
    assert len(await recall(memory.of(), "ada", "s")) == 1


async def test_a_store_that_fails_costs_the_memory_and_not_the_turn(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()
    memory.fault = StoreFault("away", detail="the disk is gone")
    assert await recall(memory.of(), "ada", "s") == ()
    assert "the disk is gone" in caplog.text


@pytest.mark.parametrize(("owner", "session"), [("ada", "s"), ("ada", "other"), ("ada", None), ("bob", "s")])
async def test_only_the_session_of_the_same_owner_is_remembered(owner: str, session: str | None) -> None:
    store = MemoryStore()
    memory = Conversations(lambda: store.sessions, lambda: store.runs, FakeClock())
    await memory.enter(owner, session or "none")
    await memory.remember(owner, session or "none", {"result:r:c": note("weather", "it was sunny").encode()})
    house = House(Rounds(says("Fine.")), PlayedTool(), hooks=Hooks(memory=memory, preparations=(Recalling(),)))
    await house.play(house.turn(agentic=Agentic(session_id=session and "s")))
    asked = "".join(message.text() for message in house.model.asked[0].messages)
    assert ("it was sunny" in asked) == ((owner, session) == ("ada", "s"))


class Memory:
    """Notes of one session."""

    def __init__(self) -> None:
        self.notes: dict[str, bytes] = {}
        self.fault: StoreFault | None = None

    async def recall(self, owner: str, session_id: str) -> dict[str, bytes]:
        assert (owner, session_id) == ("ada", "s")
        if self.fault is not None:
            raise self.fault
        return self.notes

    def of(self) -> Any:  # noqa: ANN401 -- as much of a memory as is used
        return self
