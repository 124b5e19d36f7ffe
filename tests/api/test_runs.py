"""Agentic turns as runs, through HTTP: looked at, read again, cancelled, left and taken up by the next server (D4)."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from convene.config import AgenticSettings, Price, Scripted, Search, Sessions
from convene.serving import resume as resume_module
from convene.serving import runs as runs_module
from convene.serving.drain import Drains
from convene.tools.base import ToolResult
from tool_doubles import Box, PlayedTool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from api.conftest import Served
    from convene.tools.base import ToolContext

    Play = Callable[..., AbstractAsyncContextManager[Served]]

BOUND_S = 20
FRAME = re.compile(r"(?:id: (\d+)\n)?data: (.*)\n\n")
TURNS = (
    [{"text": "I look. "}, {"call": {"name": "weather", "args": {"city": "Rome"}}}],
    [{"text": "It is sunny."}],
)
ASK = [{"role": "user", "content": "What is the weather?"}]


class Held:
    """A tool that waits until it is let go."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = 0
        self.tool = PlayedTool(do=self.do)

    async def do(self, arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        del arguments, context
        self.reached.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return ToolResult(text="It is sunny.", data={"sky": "sunny"})

    @property
    def keys(self) -> list[str]:
        """The idempotency keys of its calls."""
        return [context.idempotency_key for context in self.tool.contexts]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "POLL_S", 0.01)
    monkeypatch.setattr(resume_module, "CLAIM_S", 0.01)
    monkeypatch.setattr(Drains.aclose, "__defaults__", (0.0,))


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def play(serve: Play, tmp_path: Path) -> Play:
    """Return a way to serve the model `played`, which looks the weather up and tells it."""

    def start(box: Box | None = None, **fields: object) -> AbstractAsyncContextManager[Served]:
        file = tmp_path / "played.json"
        models = [{"name": "played", "turns": [{"steps": steps} for steps in TURNS]}]
        file.write_text(json.dumps({"models": models}))
        given = {"scripted": Scripted(enabled=True, file=str(file)), "search": Search(enabled=False)} | fields
        return serve(box=box or Box(PlayedTool()), **given)

    return start


async def get(served: Served, path: str, **headers: str) -> Any:  # noqa: ANN401 - JSON
    answer = await served.http.get(path, headers=served.auth | headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ask(served: Served, session: str | None = None, headers: Mapping[str, str] = {}, **fields: object) -> Any:  # noqa: ANN401
    more = headers if session is None else {**headers, "x-session-id": session}
    body = {"model": "played", "messages": ASK} | fields
    answer = await served.http.post("/v1/chat/completions", json=body, headers={**served.auth, **more})
    assert answer.status_code == 200, answer.text
    return answer


async def frames_of(served: Served, run_id: str, **headers: str) -> list[tuple[int, Any]]:
    answer = await served.http.get(f"/v1/runs/{run_id}?stream=true", headers=served.auth | headers)
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    assert "".join(found[0] for found in FRAME.finditer(answer.text)) == answer.text.replace(": ping\n\n", "")
    return [
        (int(number or 0), data if data == "[DONE]" else json.loads(data))
        for number, data in FRAME.findall(answer.text)
    ]


def content(frames: list[tuple[int, Any]]) -> str:
    chunks = [frame for _, frame in frames if frame != "[DONE]" and "error" not in frame]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


async def runs_of(served: Served) -> Any:  # noqa: ANN401 - JSON
    return (await get(served, "/v1/runs"))["data"]


async def ended(served: Served) -> Any:  # noqa: ANN401 - JSON
    """Return the newest run once it is over."""
    async with asyncio.timeout(BOUND_S):
        while not (found := await runs_of(served)) or found[0]["status"] == "running":  # noqa: ASYNC110 -- over HTTP
            await asyncio.sleep(0.01)
    return await get(served, f"/v1/runs/{found[0]['id']}")


async def booked(served: Served) -> dict[str, Any]:
    """Return the entries of the ledger by their ids, once all that is settled is written."""
    assert served.app.books is not None
    await served.app.books.books.flush()
    rows = (await get(served, "/v1/usage/requests"))["data"]
    return {row["id"]: row for row in rows}


async def test_a_run_shows_what_its_client_has_got(play: Play) -> None:
    async with play(prices={"played": Price(input=1.0, output=2.0)}) as served:
        answer = await ask(served)
        run_id = answer.headers["x-run-id"]
        run = await get(served, f"/v1/runs/{run_id}")
        assert run["response"] == answer.json() | {"choices": run["response"]["choices"]}
        message = dict(answer.json()["choices"][0]["message"])
        message.pop("tool_calls", None)  # the server's own calls, in ASI:One's shape, are for whole replies alone
        assert run["response"]["choices"][0]["message"] == message
        assert (run["status"], run["resumes"], run["error"]) == ("done", 0, None)
        assert run["response_id"] == answer.json()["id"]
        assert run["usage"] == answer.json()["usage"]
        assert run["cost"]["micros"] == answer.json()["metadata"]["cost"]["micros"] > 0
        assert [step["status"] for step in run["intermediate_steps"]] == ["done"] * 3
        assert set(await booked(served)) == {run["response_id"]}


async def test_a_turn_in_which_the_server_does_nothing_is_no_run(play: Play) -> None:
    async with play() as served:
        answer = await ask(served, model="scripted-echo", server_tools=False)
        assert "x-run-id" not in answer.headers
        assert await runs_of(served) == []


async def test_the_stream_of_a_run_that_is_over_is_the_stream_of_its_chat(play: Play) -> None:
    async with play() as served:
        chat = await ask(served, stream=True)
        assert "id: " not in chat.text, "clients of chats expect nothing but data"
        theirs = [json.loads(line[6:]) for line in chat.text.split("\n\n") if line.startswith("data: {")]
        frames = await frames_of(served, chat.headers["x-run-id"])
        assert content(frames) == content([(0, frame) for frame in theirs])
        finish = [frame for frame in theirs if frame["choices"] and frame["choices"][0]["finish_reason"]]
        again = [f for _, f in frames if f != "[DONE]" and f["choices"] and f["choices"][0]["finish_reason"]]
        assert [{**frame, "usage": None} for frame in again] == [{**frame, "usage": None} for frame in finish]
        assert frames[-1] == (0, "[DONE]")


@pytest.mark.parametrize("continued", ["request", "settings"])
async def test_a_run_goes_on_without_its_client_and_is_read_again_from_any_place(
    play: Play, held: Held, continued: str
) -> None:
    by_request = continued == "request"
    settings = AgenticSettings(on_disconnect="cancel" if by_request else "continue")
    fields: dict[str, Any] = {"on_disconnect": "continue"} if by_request else {}
    async with play(Box(held.tool), agentic=settings) as served:
        asking = asyncio.create_task(ask(served, stream=True, **fields))
        await held.reached.wait()
        asking.cancel()
        await asyncio.wait([asking])
        (run,) = await runs_of(served)
        assert run["status"] == "running"
        first = asyncio.create_task(frames_of(served, run["id"]))
        second = asyncio.create_task(frames_of(served, run["id"], **{"Last-Event-ID": "2"}))
        log = served.app.runs.runs.live[run["id"]].log
        async with asyncio.timeout(BOUND_S):
            while log.readers < 2:  # noqa: ASYNC110 -- it takes turns of the loop, no time
                await asyncio.sleep(0)
        held.go.set()
        whole, rest = await first, await second
        assert content(whole).split() == ["I", "look.", "It", "is", "sunny."]
        assert content(rest).split() == ["It", "is", "sunny."]
        numbers = [number for number, _ in whole if number]
        assert numbers == sorted(numbers)
        assert [number for number, _ in rest if number] == [number for number in numbers if number > 2]
        assert held.cancelled == 0
        done = await ended(served)
        assert done["status"] == "done"
        entries = await booked(served)
        used = entries[done["response_id"]]
        assert used["total_tokens"] == done["usage"]["total_tokens"]
        assert not used["estimated"]


async def test_a_run_whose_client_leaves_ends_and_says_so(play: Play, held: Held) -> None:
    async with play(Box(held.tool)) as served:
        asking = asyncio.create_task(ask(served, stream=True))
        await held.reached.wait()
        asking.cancel()
        await asyncio.wait([asking])
        run = await ended(served)
        assert (run["status"], held.cancelled) == ("cancelled", 1)
        assert run["error"]["code"]
        assert all(step["status"] in {"done", "failed"} for step in run["intermediate_steps"])
        assert set(await booked(served)) == {run["response_id"]}


@pytest.mark.parametrize("stream", [True, False])
async def test_cancelling_ends_tools_and_model_and_tells_the_client(play: Play, held: Held, *, stream: bool) -> None:
    async with play(Box(held.tool)) as served:
        body = {"model": "played", "messages": ASK, "stream": stream}
        asking = asyncio.create_task(served.http.post("/v1/chat/completions", json=body, headers=served.auth))
        await held.reached.wait()
        (run,) = await runs_of(served)
        answer = await served.http.post(f"/v1/runs/{run['id']}/cancel", headers=served.auth)
        assert answer.json()["cancel_asked"]
        async with asyncio.timeout(BOUND_S):
            told = await asking
        if stream:
            assert told.status_code == 200
            assert json.loads(told.text.split("\n\n")[-3][6:])["error"]["code"] == "run_cancelled"
            assert told.text.endswith("data: [DONE]\n\n")
        else:
            assert (told.status_code, told.json()["error"]["code"]) == (409, "run_cancelled")
        done = await ended(served)
        assert (done["status"], done["error"]["code"], held.cancelled) == ("cancelled", "run_cancelled", 1)
        entry = (await booked(served))[done["response_id"]]
        assert entry["status"] == "failed"
        assert entry["total_tokens"] == done["usage"]["total_tokens"] > 0
        assert served.app.runs.runs.live == {}


async def test_an_idempotency_key_makes_one_run_of_two_requests(play: Play, held: Held) -> None:
    async with play(Box(held.tool)) as served:
        asked = [asyncio.create_task(ask(served, headers={"Idempotency-Key": "k1"})) for _ in range(3)]
        await held.reached.wait()
        held.go.set()
        answers = [await one for one in asked]
        assert len({answer.text for answer in answers}) == 1
        assert (await ask(served, headers={"Idempotency-Key": "k1"})).text == answers[0].text
        assert len(await runs_of(served)) == 1
        assert len(held.keys) == 1


async def test_a_server_that_stops_leaves_its_runs_to_the_next_which_does_nothing_twice(play: Play, held: Held) -> None:
    async with play(Box(held.tool)) as served:
        asking = asyncio.create_task(ask(served, stream=True, on_disconnect="continue"))
        await held.reached.wait()
        asking.cancel()
        await asyncio.wait([asking])
        (run,) = await runs_of(served)
        before, key = run["response_id"], served.key
    assert held.cancelled == 1
    held.go.set()
    async with play(Box(held.tool)) as served:
        served.key = key
        done = await ended(served)
        assert (done["id"], done["status"], done["resumes"]) == (run["id"], "done", 1)
        assert done["response"]["choices"][0]["message"]["content"].split() == ["I", "look.", "It", "is", "sunny."]
        assert len(held.keys) == 2
        assert len(set(held.keys)) == 1, "repeated under the same key"
        entries = await booked(served)
        assert set(entries) == {before, f"{before}-r2"}
        assert sum(entry["total_tokens"] for entry in entries.values()) == done["usage"]["total_tokens"]
        assert entries[f"{before}-r2"]["status"] == "ok"
        assert not any(entry["estimated"] for entry in entries.values())


async def test_a_run_is_not_taken_up_for_a_key_that_was_revoked_meanwhile(play: Play, held: Held) -> None:
    async with play(Box(held.tool)) as served:
        asking = asyncio.create_task(ask(served, stream=True, on_disconnect="continue"))
        await held.reached.wait()
        asking.cancel()
        await asyncio.wait([asking])
        ring = served.app.accounts.ring
        (record,) = await ring.list_all()
        await ring.revoke(record.id)
        _, other = await ring.create("other", owner=record.owner)
    held.go.set()
    async with play(Box(held.tool)) as served:
        served.key, _ = await served.app.accounts.ring.rotate(other.id)
        done = await ended(served)
        assert (done["status"], done["error"]["code"], done["response"]) == ("cancelled", "key_revoked", None)
        assert len(held.keys) == 1


@pytest.mark.req("SESSION-01", "SESSION-02", "HDR-04")
async def test_requests_of_one_session_share_its_conversation_and_leave_what_tools_found(play: Play) -> None:
    async with play() as served:
        first, second = (await ask(served, "any string, even this"), await ask(served, "any string, even this"))
        other, none = await ask(served, "another"), await ask(served)
        told = [answer.json()["conversation_id"] for answer in (first, second, other, none)]
        assert told[0] == told[1]
        assert told[0].startswith("conv_")
        assert told[2] not in {None, told[0]}
        assert told[3] is None
        listed = (await get(served, "/v1/sessions"))["data"]
        assert [one["id"] for one in listed] == ["another", "any string, even this"]
        assert [one["conversation_id"] for one in listed] == [told[2], told[0]]
        found = await get(served, "/v1/sessions/any string, even this")
        # the script counts answers: with what the session has brought along in front of it, it calls nothing again
        assert [note["value"]["result"] for note in found["notes"]] == [{"sky": "sunny"}]
        of_session = (await get(served, "/v1/runs?session=any string, even this"))["data"]
        assert len(of_session) == 2
        assert {(await get(served, f"/v1/runs/{run['id']}"))["conversation_id"] for run in of_session} == {told[0]}


@pytest.mark.parametrize("sent", ["Über".encode(), "Über".encode("latin-1")])
async def test_a_session_is_found_by_the_letters_of_its_name_however_they_were_sent(play: Play, sent: bytes) -> None:
    async with play() as served:
        authorization = served.auth["Authorization"].encode()
        headers = [(b"authorization", authorization), (b"x-session-id", sent)]
        body = {"model": "played", "messages": [{"role": "user", "content": "What is the weather?"}]}
        answer = await served.http.post("/v1/chat/completions", json=body, headers=headers)
        found = await get(served, "/v1/sessions/Über")
        assert found["conversation_id"] == answer.json()["conversation_id"]


@pytest.mark.req("SESSION-03")
async def test_a_session_holds_no_text_that_its_clients_send_again(play: Play) -> None:
    async with play() as served:
        for _ in range(3):
            await ask(served, "s", messages=[{"role": "user", "content": "a very particular sentence"}])
        kept = await served.http.get("/v1/sessions/s", headers=served.auth)
        assert "particular" not in kept.text
        assert "It is sunny" not in kept.text


@pytest.mark.req("SESSION-04")
async def test_equal_session_ids_of_different_keys_never_meet(play: Play) -> None:
    async with play() as served:
        ring = served.app.accounts.ring
        first = (await ask(served, "pdf-summarization-session")).json()["conversation_id"]
        mine = served.key
        served.key, _ = await ring.create("other")
        second = (await ask(served, "pdf-summarization-session")).json()["conversation_id"]
        assert first != second
        assert len(await runs_of(served)) == 1
        deleted = await served.http.delete("/v1/sessions/pdf-summarization-session", headers=served.auth)
        assert deleted.status_code == 200
        served.key = mine
        assert (await get(served, "/v1/sessions/pdf-summarization-session"))["conversation_id"] == first
        assert len(await runs_of(served)) == 1


@pytest.mark.req("SESSION-06")
async def test_a_session_keeps_as_much_as_is_configured(play: Play) -> None:
    async with play(sessions=Sessions(bytes_max=200)) as served:
        for _ in range(6):
            await ask(served, "s")
        found = await get(served, "/v1/sessions/s")
        assert found["bytes"] <= 200
        assert 1 <= len(found["notes"]) < 6
        key = served.key
    async with play(sessions=Sessions(bytes_max=0)) as served:
        served.key = key
        assert (await ask(served, "t")).json()["conversation_id"] is not None
        assert (await get(served, "/v1/sessions/t"))["notes"] == []


async def test_an_id_of_any_length_names_a_session(play: Play) -> None:
    long = "x" * 3000
    async with play() as served:
        told = {(await ask(served, name)).json()["conversation_id"] for name in (long, long, long + "y")}
        assert len(told) == 2
        ids = [one["id"] for one in (await get(served, "/v1/sessions"))["data"]]
        assert all(len(one) <= 256 for one in ids)
        for one in (*ids, long):
            assert (await get(served, f"/v1/sessions/{one}"))["conversation_id"] in told
        assert len((await get(served, f"/v1/runs?session={long}"))["data"]) == 2


async def test_deleting_a_session_forgets_its_runs_that_are_over(play: Play) -> None:
    async with play() as served:
        await ask(served, "s")
        await ask(served)
        gone = await served.http.delete("/v1/sessions/s", headers=served.auth)
        assert gone.json() == {"id": "s", "object": "session", "deleted": True}
        assert [run["session_id"] for run in await runs_of(served)] == [None]
        assert (await served.http.get("/v1/sessions/s", headers=served.auth)).status_code == 404


async def test_a_run_of_another_process_on_the_same_store_is_read_and_cancelled_from_here(
    play: Play, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "WATCH_S", 0.01)
    async with play(Box(held.tool)) as served, play(Box(PlayedTool())) as other:
        other.key = served.key
        asking = asyncio.create_task(ask(served, stream=True))
        await held.reached.wait()
        (run,) = await runs_of(other)
        assert other.app.runs.runs.live == {}
        said = ""
        async with other.http.stream("GET", f"/v1/runs/{run['id']}?stream=true", headers=other.auth) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    held.go.set()  # it has seen the run under way
                    said += content([(0, json.loads(line[6:]))])
        assert said.split() == ["I", "look.", "It", "is", "sunny."]
        await asking
        held.go.clear()
        held.reached.clear()
        body = {"model": "played", "messages": ASK, "stream": True}
        asking_again = asyncio.create_task(served.http.post("/v1/chat/completions", json=body, headers=served.auth))
        await held.reached.wait()
        newest = (await runs_of(other))[0]
        await other.http.post(f"/v1/runs/{newest['id']}/cancel", headers=other.auth)
        async with asyncio.timeout(BOUND_S):
            told = await asking_again
        assert "run_cancelled" in told.text
        assert held.cancelled == 1
