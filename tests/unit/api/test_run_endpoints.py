"""`/v1/runs` and `/v1/sessions` by themselves: shapes, and streams that can be taken up again from any place."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from convene.api.call import ClientLeftError
from convene.api.runs import RunPages
from convene.api.sessions import SessionPages
from convene.api.shapes_runs import RunDetail, RunList, RunReply, SessionDeleted, SessionDetail, SessionList
from convene.api.stream import Streams
from convene.errors import BadRequest, NotFound, StoreFault
from convene.events import Cited, TextDelta, ToolRan
from convene.serving.sessions import Conversations
from convene.usage import Usage
from run_doubles import OTHER, WHO, RunHouse, a_round, a_tool, an_answer
from sessions_double import SessionsDouble
from unit.api.asgi_doubles import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.api.routes import Endpoint
    from convene.serving.base import Principal
    from convene.serving.base_runs import Piece, Run
    from convene.serving.journal import StoredJournal

Headers = tuple[tuple[bytes, bytes], ...]
FRAME = re.compile(rb"(?:id: (\d+)\n)?data: (.*)\n\n|(: ping\n\n)")


class Desk:
    """The endpoints over a house of runs and a double of sessions."""

    def __init__(self) -> None:
        self.house = RunHouse()
        self.talk = SessionsDouble()
        self.sessions_of = Conversations(lambda: self.talk, lambda: self.house.store, self.house.clock)
        self.runs = RunPages(self.house.runs, Streams(5, 5), "EUR")
        self.sessions = SessionPages(self.sessions_of)

    async def ask(
        self, endpoint: Endpoint, query: str = "", *, who: Principal = WHO, headers: Headers = (), **params: str
    ) -> Connection:
        connection = Connection(method="GET", path="/v1/runs", headers=headers)
        connection.scope["query_string"] = query.encode()
        call = connection.call()
        call.principal, call.params = who, params
        await endpoint(call)
        assert connection.status == 200
        return connection

    async def answer(self, endpoint: Endpoint, query: str = "", run: str = "", session: str = "") -> Any:  # noqa: ANN401
        return msgspec.json.decode((await self.ask(endpoint, query, run=run, session=session)).body)

    async def frames(self, query: str = "stream=true", headers: Headers = ()) -> list[tuple[int, Any]]:
        return parsed((await self.ask(self.runs.show, query, run="run_1", headers=headers)).body)


def parsed(body: bytes) -> list[tuple[int, Any]]:
    """Return the frames of a stream strictly, each with its id or 0; `[DONE]` as text."""
    assert b"".join(found[0] for found in FRAME.finditer(body)) == body
    return [
        (int(number or 0), "[DONE]" if data == b"[DONE]" else msgspec.json.decode(data))
        for number, data, _ in FRAME.findall(body)
    ]


def text_of(frames: list[tuple[int, Any]]) -> str:
    return "".join(
        frame["choices"][0]["delta"].get("content", "")
        for _, frame in frames
        if frame != "[DONE]" and frame["choices"] and "delta" in frame["choices"][0]
    )


async def a_whole_run(house: RunHouse) -> StoredJournal:
    """Play a run of five durable events: a round that speaks, a tool, the end."""
    journal = await house.begun(session="s1")
    step = await journal.open(a_round(1))
    journal.saw(TextDelta("Well, "))
    await step.close("done", usage=Usage(10, 2), cost_micros=40)
    tool = await journal.open(a_tool())
    await tool.close("done", b"{}", summary="found")
    answer = an_answer("Well, it rains.")
    answer.add(ToolRan(id="s2", tool_name="look", result={"rain": True}))
    answer.add(Cited("https://a.test", "A", 0, 4))
    await journal.finish("done", answer)
    return journal


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_run_is_shown_with_steps_usage_cost_and_what_became_of_it(desk: Desk) -> None:
    await a_whole_run(desk.house)
    found = await desk.answer(desk.runs.show, run="run_1")
    msgspec.convert(found, RunDetail, strict=False)
    assert {name: found[name] for name in ("id", "object", "status", "model", "response_id", "session_id")} == {
        "id": "run_1",
        "object": "run",
        "status": "done",
        "model": "m",
        "response_id": "chatcmpl-run_1",
        "session_id": "s1",
    }
    assert [(step["id"], step["kind"], step["status"]) for step in found["intermediate_steps"]] == [
        ("s1", "model", "done"),
        ("s2", "tool", "done"),
    ]
    assert (found["usage"]["prompt_tokens"], found["usage"]["completion_tokens"]) == (10, 2)
    assert found["cost"] == {"currency": "EUR", "micros": 40}
    assert (found["cancel_asked"], found["resumes"], found["error"]) == (False, 0, None)
    assert found["finished_at"] == desk.house.clock.now()
    assert found["expires_at"] > found["finished_at"]


async def test_the_answer_of_a_run_is_the_reply_that_its_client_would_have_got(desk: Desk) -> None:
    await a_whole_run(desk.house)
    reply = (await desk.answer(desk.runs.show, run="run_1"))["response"]
    assert (reply["id"], reply["object"], reply["model"]) == ("chatcmpl-run_1", "chat.completion", "m")
    message = reply["choices"][0]["message"]
    assert (message["content"], reply["choices"][0]["finish_reason"]) == ("Well, it rains.", "stop")
    assert message["annotations"][0]["url_citation"]["url"] == "https://a.test"
    assert reply["executable_data"][0]["result"] == {"rain": True}
    assert [step["id"] for step in reply["intermediate_steps"]] == ["s1", "s2"]
    assert reply["usage"]["total_tokens"] == 12
    assert (reply["metadata"]["run_id"], reply["metadata"]["cost"]["micros"]) == ("run_1", 40)


@pytest.mark.parametrize(("status", "code"), [("failed", "upstream_error"), ("cancelled", "run_cancelled")])
async def test_a_run_that_did_not_end_well_says_why_and_has_no_answer(desk: Desk, status: Any, code: str) -> None:  # noqa: ANN401
    journal = await desk.house.begun()
    await journal.finish(status, an_answer("half"), code)
    found = await desk.answer(desk.runs.show, run="run_1")
    assert (found["status"], found["response"], found["error"]["code"]) == (status, None, code)
    assert found["error"]["message"]
    frames = await desk.frames()
    assert [frame["error"]["code"] for _, frame in frames if frame != "[DONE]" and "error" in frame] == [code]
    assert frames[-1] == (0, "[DONE]")
    assert frames[-2][1]["choices"] == []


async def test_a_run_under_way_has_neither_answer_nor_end(desk: Desk) -> None:
    journal = await desk.house.begun()
    await journal.open(a_round(1))
    found = await desk.answer(desk.runs.show, run="run_1")
    assert (found["status"], found["finished_at"], found["expires_at"]) == ("running", None, None)
    assert (found["response"], found["error"], found["session_id"], found["conversation_id"]) == (None,) * 4
    assert found["intermediate_steps"][0]["status"] == "running"


async def test_a_stream_of_a_run_has_the_frames_of_a_chat_and_ids_on_durable_ones(desk: Desk) -> None:
    await a_whole_run(desk.house)
    frames = await desk.frames()
    assert all(frame["object"] == "chat.completion.chunk" for _, frame in frames[:-1])
    assert {frame["id"] for _, frame in frames[:-1]} == {"chatcmpl-run_1"}
    assert frames[0][1]["choices"][0]["delta"]["role"] == "assistant"
    assert text_of(frames) == "Well, it rains."
    steps = [
        (number, frame["intermediate_steps"][0]["id"]) for number, frame in frames if "intermediate_steps" in frame
    ]
    assert steps == [(2, "s1"), (4, "s2")]
    finish = next(frame for _, frame in frames if frame["choices"] and frame["choices"][0]["finish_reason"])
    assert finish["executable_data"][0]["id"] == "s2"
    assert finish["metadata"]["run_id"] == "run_1"
    assert finish["metadata"]["cost"]["micros"] == 40
    numbers = [number for number, _ in frames if number]
    assert numbers == [2, 4, 5]
    assert frames[-1] == (0, "[DONE]")


@pytest.mark.parametrize("after", range(7))
@pytest.mark.parametrize("way", ["query", "header", "both"])
async def test_a_reader_that_comes_back_gets_what_is_behind_its_last_event(desk: Desk, after: int, way: str) -> None:
    await a_whole_run(desk.house)
    whole = await desk.frames()
    query = "stream=true" if way == "header" else f"stream=true&after={after if way == 'query' else 0}"
    headers = () if way == "query" else ((b"last-event-id", b"%d" % after),)
    frames = await desk.frames(query, headers)
    assert [number for number, _ in frames if number] == ([n for n in (2, 4, 5) if n > after] if after < 5 else [5])
    texts = {0: "Well, it rains.", 1: "Well, it rains."}
    assert text_of(frames) == ("" if after >= 5 else texts.get(after, "it rains."))
    assert frames[-1] == whole[-1]


async def test_accept_asks_for_a_stream_and_the_query_has_the_last_word(desk: Desk) -> None:
    await a_whole_run(desk.house)
    accept = ((b"accept", b"text/event-stream"),)
    streamed = await desk.ask(desk.runs.show, run="run_1", headers=accept)
    assert streamed.headers[b"content-type"].startswith(b"text/event-stream")
    plain = await desk.ask(desk.runs.show, "stream=false", run="run_1", headers=accept)
    assert plain.headers[b"content-type"] == b"application/json"


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("stream=perhaps", ()),
        ("after=-1", ()),
        ("after=x", ()),
        (f"after={2**60}", ()),
        ("", ((b"last-event-id", b"x"),)),
        ("", ((b"last-event-id", b"-1"),)),
        ("", ((b"last-event-id", b"9" * 40),)),
        ("", ((b"last-event-id", "²".encode("latin-1")),)),
    ],
)
async def test_a_place_that_no_stream_has_is_refused(desk: Desk, query: str, headers: Any) -> None:  # noqa: ANN401
    await a_whole_run(desk.house)
    with pytest.raises(BadRequest):
        await desk.ask(desk.runs.show, query, run="run_1", headers=headers)


async def test_a_stream_follows_a_run_that_goes_on(desk: Desk) -> None:
    journal = await desk.house.begun()
    step = await journal.open(a_round(1))
    connection = Connection(method="GET", path="/v1/runs")
    call = connection.call()
    connection.scope["query_string"] = b"stream=true"
    call.principal, call.params = WHO, {"run": "run_1"}
    reading = asyncio.create_task(desk.runs.show(call))
    for text in ("One ", "two ", "three"):
        journal.saw(TextDelta(text))
        await asyncio.sleep(0)
    await step.close("done", usage=Usage(1, 3))
    await journal.finish("done", an_answer("One two three"))
    await reading
    frames = parsed(connection.body)
    assert text_of(frames) == "One two three"
    assert [number for number, _ in frames if number] == [1, 2, 3]


async def test_a_client_that_leaves_ends_its_reading_and_nothing_else(desk: Desk) -> None:
    journal = await desk.house.begun()
    connection = Connection(method="GET", path="/v1/runs")
    connection.scope["query_string"] = b"stream=true"
    call = connection.call()
    call.principal, call.params = WHO, {"run": "run_1"}
    reading = asyncio.create_task(desk.runs.show(call))
    journal.saw(TextDelta("x"))
    await asyncio.sleep(0)
    connection.gone = True
    journal.saw(TextDelta("y"))
    with pytest.raises(ClientLeftError):
        await reading
    assert journal.log.readers == 0
    assert not journal.over


async def test_a_server_that_stops_says_so_in_the_stream(desk: Desk) -> None:
    journal = await desk.house.begun()
    connection = Connection(method="GET", path="/v1/runs")
    connection.scope["query_string"] = b"stream=true"
    call = connection.call()
    call.principal, call.params = WHO, {"run": "run_1"}
    reading = asyncio.create_task(desk.runs.show(call))
    journal.saw(TextDelta("x"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    assert parsed(connection.body)[-2][1]["error"]["code"] == "server_busy"


class Faulty:
    """A desk that fails in mid-stream, or before it."""

    def __init__(self, house: RunHouse, fault: Exception, *, late: bool) -> None:
        self.show = house.runs.show
        self._fault = fault
        self._late = late

    async def read(self, run: Run, after: int) -> AsyncGenerator[list[Piece]]:
        del run
        if self._late:
            yield [(after, TextDelta("x"))]
        raise self._fault


@pytest.mark.parametrize(
    ("fault", "code"), [(StoreFault("not now"), "store_unavailable"), (ValueError("ours"), "internal_error")]
)
async def test_a_fault_in_the_stream_is_a_frame_and_one_before_it_a_status(
    desk: Desk, fault: Exception, code: str
) -> None:
    await desk.house.begun()
    late = RunPages(Faulty(desk.house, fault, late=True), Streams(5, 5), "EUR")  # type: ignore[arg-type]  # what is used
    frames = parsed((await desk.ask(late.show, "stream=true", run="run_1")).body)
    assert frames[-2][1]["error"]["code"] == code
    early = RunPages(Faulty(desk.house, fault, late=False), Streams(5, 5), "EUR")  # type: ignore[arg-type]  # as above
    with pytest.raises(type(fault)):
        await desk.ask(early.show, "stream=true", run="run_1")


async def test_runs_are_listed_in_pages_and_by_session(desk: Desk) -> None:
    for number in range(3):
        await desk.house.begun(f"run_{'x' * number}", session="a" if number else None)
    first = await desk.answer(desk.runs.list_mine, "limit=2")
    msgspec.convert(first, RunList, strict=False)
    assert ([run["id"] for run in first["data"]], first["has_more"]) == (["run_xx", "run_x"], True)
    rest = await desk.answer(desk.runs.list_mine, "limit=2&after=run_x")
    assert ([run["id"] for run in rest["data"]], rest["has_more"]) == (["run_"], False)
    assert len((await desk.answer(desk.runs.list_mine, "session=a"))["data"]) == 2


async def test_cancelling_shows_the_run_as_it_is_then(desk: Desk) -> None:
    await desk.house.begun()
    found = await desk.answer(desk.runs.cancel, run="run_1")
    msgspec.convert(found, RunReply, strict=False)
    assert (found["status"], found["cancel_asked"]) == ("running", True)
    done = await desk.house.begun("run_2")
    await done.finish("done", an_answer())
    assert (await desk.answer(desk.runs.cancel, run="run_2"))["status"] == "done"


async def test_a_foreign_run_is_not_there_for_any_endpoint(desk: Desk) -> None:
    await desk.house.begun()
    for endpoint in (desk.runs.show, desk.runs.cancel):
        for query in ("", "stream=true"):
            with pytest.raises(NotFound):
                await desk.ask(endpoint, query, who=OTHER, run="run_1")


async def test_sessions_are_listed_shown_and_deleted(desk: Desk) -> None:
    for name in ("a", "b/c: ü"):
        await desk.sessions_of.enter("o", name)
        desk.house.clock.move(1)
    await desk.sessions_of.remember("o", "b/c: ü", {"plan": b'{"steps":[1]}', "result:1": b"null"})
    page = await desk.answer(desk.sessions.list_mine, "limit=1")
    msgspec.convert(page, SessionList, strict=False)
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (["b/c: ü"], True)
    shown = await desk.answer(desk.sessions.show, session="b/c: ü")
    msgspec.convert(shown, SessionDetail, strict=False)
    assert [(note["name"], note["value"]) for note in shown["notes"]] == [("plan", {"steps": [1]}), ("result:1", None)]
    assert shown["bytes"] == len(b'{"steps":[1]}null')
    gone = await desk.answer(desk.sessions.delete, session="b/c: ü")
    assert msgspec.convert(gone, SessionDeleted).deleted
    for endpoint in (desk.sessions.show, desk.sessions.delete):
        with pytest.raises(NotFound):
            await desk.ask(endpoint, session="b/c: ü")
