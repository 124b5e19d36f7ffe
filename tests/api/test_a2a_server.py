"""This server as an A2A agent, raw: both wire forms, streams, owners, refusals, hops, what a card says."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from api.test_agents import call, text
from convene.config import Plan
from market_doubles import ADDRESS, OTHER, Market

if TYPE_CHECKING:
    import httpx2

    from api.conftest import Served

WIRES = pytest.mark.parametrize("wire", ["1.0", "0.3"])
NAMES = {
    "send": ("SendMessage", "message/send"),
    "stream": ("SendStreamingMessage", "message/stream"),
    "get": ("GetTask", "tasks/get"),
    "cancel": ("CancelTask", "tasks/cancel"),
    "subscribe": ("SubscribeToTask", "tasks/resubscribe"),
    "push": ("CreateTaskPushNotificationConfig", "tasks/pushNotificationConfig/set"),
    "card": ("GetExtendedAgentCard", "agent/getAuthenticatedExtendedCard"),
}


def message(words: str, wire: str = "1.0", **fields: object) -> dict[str, Any]:
    """Return a message of a user's."""
    part = {"text": words} if wire == "1.0" else {"kind": "text", "text": words}
    role = "ROLE_USER" if wire == "1.0" else "user"
    return {"messageId": "m1", "role": role, "parts": [part]} | fields


async def post(served: Served, method: str, params: Any, wire: str = "1.0", **headers: str) -> httpx2.Response:  # noqa: ANN401
    name = NAMES[method][wire != "1.0"] if method in NAMES else method
    body = {"jsonrpc": "2.0", "id": "one", "method": name, "params": params}
    return await served.http.post("/a2a", json=body, headers=served.auth | {"a2a-version": wire} | headers)


async def result(served: Served, method: str, params: Any, wire: str = "1.0") -> Any:  # noqa: ANN401 -- JSON
    answer = (await post(served, method, params, wire)).json()
    assert "result" in answer, answer
    assert answer["id"] == "one"
    return answer["result"]


async def fault(served: Served, method: str, params: Any, wire: str = "1.0") -> Any:  # noqa: ANN401 -- JSON
    answer = await post(served, method, params, wire)
    assert answer.status_code == 200
    return answer.json()["error"]


def task_in(found: Any, wire: str) -> Any:  # noqa: ANN401 -- JSON
    return found["task"] if wire == "1.0" else found


def frames(answer: httpx2.Response) -> list[Any]:
    lines = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert all(line["id"] == "one" for line in lines)
    return [line["result"] for line in lines]


def words_of(task: Any) -> str:  # noqa: ANN401 -- JSON
    return "".join(part["text"] for one in task.get("artifacts", []) for part in one["parts"])


@pytest.mark.req("A2A-08")
@WIRES
async def test_a_message_is_answered_by_a_task_that_is_a_run_of_the_callers(play: Any, wire: str) -> None:  # noqa: ANN401
    async with play([text("Yes.")], [text("No.")]) as served:
        task = task_in(await result(served, "send", {"message": message("is it so?", wire)}, wire), wire)
        done = {"1.0": "TASK_STATE_COMPLETED", "0.3": "completed"}[wire]
        assert (task["status"]["state"], words_of(task)) == (done, "Yes.")
        assert ("kind" in task) == (wire == "0.3")
        assert task["history"][0]["parts"][0]["text"] == "is it so?"
        run = (await served.http.get(f"/v1/runs/{task['id']}", headers=served.auth)).json()
        assert (run["status"], run["session_id"]) == ("done", f"a2a:{task['contextId']}")
        again = await result(served, "get", {"id": task["id"], "historyLength": 0}, wire)
        assert words_of(again) == "Yes."
        assert "history" not in again
        entries = (await served.http.get("/v1/usage/requests", headers=served.auth)).json()["data"]
    assert [(entry["status"], entry["session"]) for entry in entries] == [("ok", f"a2a:{task['contextId']}")]


@WIRES
async def test_a_stream_has_the_task_the_pieces_and_its_end(play: Any, wire: str) -> None:  # noqa: ANN401
    market = Market().add("booker", 0.05, "Booked.")
    async with play([call()], [text("It is done.")], box=market) as served:
        answer = await post(served, "stream", {"message": message("book a table in Rome", wire)}, wire)
        assert answer.headers["content-type"].startswith("text/event-stream")
        first, *others = frames(answer)
    assert "working" in task_in(first, wire)["status"]["state"].lower()
    if wire == "1.0":
        updates = [one["statusUpdate"] for one in others if "statusUpdate" in one]
        pieces = [one["artifactUpdate"] for one in others if "artifactUpdate" in one]
    else:
        updates = [one for one in others if one["kind"] == "status-update"]
        pieces = [one for one in others if one["kind"] == "artifact-update"]
        assert [one["final"] for one in updates] == [False] * (len(updates) - 1) + [True]
    told = ["".join(part["text"] for part in one["status"].get("message", {}).get("parts", [])) for one in updates]
    assert any("message_dispatched" in words for words in told)
    assert [one["append"] for one in pieces] == [False] + [True] * (len(pieces) - 1)
    assert "".join(part["text"] for one in pieces for part in one["artifact"]["parts"]) == "It is done."
    assert "completed" in updates[-1]["status"]["state"].lower()


async def test_a_conversation_goes_on_under_its_context_and_for_its_owner_alone(play: Any) -> None:  # noqa: ANN401
    async with play([text("first")], [text("second")], [text("third")]) as served:
        one = task_in(await result(served, "send", {"message": message("one")}), "1.0")
        context = one["contextId"]
        two = task_in(await result(served, "send", {"message": message("two", contextId=context)}), "1.0")
        assert (two["contextId"], two["id"] != one["id"]) == (context, True)
        owner = (await served.http.get("/v1/usage/requests", headers=served.auth)).json()["data"][0]["key"]
        notes = await served.app.runs.sessions.recall(owner, f"a2a:{context}")
    assert [json.loads(body)["said"] for body in notes.values()] == ["one", "two"]


async def test_a_task_of_anothers_is_none_and_so_is_a_run_that_is_no_task(served: Served) -> None:
    mine = task_in(
        await result(served, "send", {"message": message("hi", metadata={"convene/model": "scripted-echo"})}), "1.0"
    )
    text_key, _ = await served.app.accounts.ring.create("other")
    other = {"Authorization": f"Bearer {text_key}"}
    for method in ("GetTask", "CancelTask", "SubscribeToTask"):
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"id": mine["id"]}}
        answer = await served.http.post("/a2a", json=body, headers=other)
        assert answer.json()["error"]["code"] == -32001
    chat = await served.chat(planner_mode=True)
    run = chat.json()["metadata"]["run_id"]
    assert (await fault(served, "get", {"id": run}))["code"] == -32001


@WIRES
async def test_a_task_that_is_not_waited_for_goes_on_and_can_be_followed_and_ended(play: Any, wire: str) -> None:  # noqa: ANN401
    async with play([text("At "), {"pause_s": 0.5}, text("last.")], [{"pause_s": 60}, text("Never.")]) as served:
        at_once = {"returnImmediately": True} if wire == "1.0" else {"blocking": False}
        slow = task_in(
            await result(served, "send", {"message": message("a", wire), "configuration": at_once}, wire), wire
        )
        assert "artifacts" not in slow
        followed = frames(await post(served, "subscribe", {"id": slow["id"]}, wire))
        assert followed[-1] != followed[0]
        assert words_of(await result(served, "get", {"id": slow["id"]}, wire)) == "At last."
        never = task_in(
            await result(served, "send", {"message": message("b", wire), "configuration": at_once}, wire), wire
        )
        ended = await result(served, "cancel", {"id": never["id"]}, wire)
        assert "cancel" in ended["status"]["state"].lower()
        assert (await fault(served, "cancel", {"id": never["id"]}, wire))["code"] == -32002
        assert (await fault(served, "subscribe", {"id": slow["id"]}, wire))["code"] == -32004
        more = {"message": message("more", wire, taskId=slow["id"])}
        assert (await fault(served, "send", more, wire))["code"] == -32004


async def test_a_client_that_leaves_does_not_end_its_task(play: Any) -> None:  # noqa: ANN401
    async with play([{"pause_s": 0.5}, text("Here.")]) as served:
        asking = asyncio.create_task(post(served, "stream", {"message": message("a")}))
        async with asyncio.timeout(10):
            while not (live := list(served.app.runs.runs.live)):  # noqa: ASYNC110 -- the application does it
                await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])
        async with asyncio.timeout(10):
            while True:
                task = await result(served, "get", {"id": live[0]})
                if task["status"]["state"] == "TASK_STATE_COMPLETED":
                    break
                await asyncio.sleep(0.02)
    assert words_of(task) == "Here."


async def test_a_task_that_fails_says_why_in_its_status(play: Any) -> None:  # noqa: ANN401
    async with play([{"fail": "unavailable"}]) as served:
        task = task_in(await result(served, "send", {"message": message("a")}), "1.0")
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert task["status"]["message"]["parts"][0]["text"]


async def test_what_a_limit_refuses_is_an_error_that_says_when_to_come_back(play: Any) -> None:  # noqa: ANN401
    async with play([text("x")], plans={"owner": Plan(requests_per_minute=1)}) as served:
        await result(served, "send", {"message": message("one")})
        for method in ("send", "stream"):
            error = await fault(served, method, {"message": message("two")})
            assert (error["code"], error["data"]["code"]) == (-32000, "rate_limit_exceeded")
            assert 0 < error["data"]["retryAfterSeconds"] <= 60
        runs = (await served.http.get("/v1/runs", headers=served.auth)).json()["data"]
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, -32602),
        ({"message": {}}, -32602),
        ({"message": message("x", parts=[])}, -32602),
        ({"message": message("x", messageId="")}, -32602),
        ({"message": message("x", role="ROLE_AGENT")}, -32602),
        ({"message": message("x", contextId="c" * 201)}, -32602),
        ({"message": message("x", contextId="a\nb")}, -32602),
        ({"message": message(" ")}, -32602),
        ({"message": message("x", metadata={"convene/model": "no-such-model"})}, -32602),
        ({"message": message("x", parts=[{"url": "https://a.test/x.png"}])}, -32005),
        ({"message": message("x", parts=[{"kind": "file", "file": {"bytes": "eA=="}}])}, -32005),
        ({"message": message("x", taskId="run_nobodys")}, -32001),
    ],
)
async def test_what_cannot_be_answered_is_refused_in_the_words_of_the_protocol(
    served: Served, params: dict[str, Any], code: int
) -> None:
    assert (await fault(served, "send", params))["code"] == code


@WIRES
async def test_what_is_not_offered_is_said(served: Served, wire: str) -> None:
    assert (await fault(served, "push", {}, wire))["code"] == -32003
    assert (await fault(served, "card", {}, wire))["code"] == (-32004 if wire == "1.0" else -32007)
    assert (await fault(served, "tasks/steal", {}, wire))["code"] == -32601
    answer = await post(served, "get", {"id": "x"}, wire, **{"a2a-version": "2.0"})
    assert answer.json()["error"]["code"] == -32009


@pytest.mark.parametrize(("body", "code"), [(b"{", -32700), (b"[]", -32600), (b'{"id":1}', -32600)])
async def test_what_is_no_request_is_refused(served: Served, body: bytes, code: int) -> None:
    answer = await served.http.post("/a2a", content=body, headers=served.auth)
    assert answer.json()["error"]["code"] == code


async def test_a_notification_is_taken_and_a_foreign_page_is_not(served: Served) -> None:
    note = {"jsonrpc": "2.0", "method": "anything"}
    assert (await served.http.post("/a2a", json=note, headers=served.auth)).status_code == 202
    page = served.auth | {"origin": "https://evil.test"}
    assert (await served.http.post("/a2a", json=note, headers=page)).status_code == 403


async def test_a_key_is_asked_for(served: Served) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}}
    assert (await served.http.post("/a2a", json=body)).status_code == 401


async def test_data_is_read_as_json(served: Served) -> None:
    parts = [{"text": "see:"}, {"data": {"a": [1, None]}}]
    sent = message("x", parts=parts, metadata={"convene/model": "scripted-echo"})
    assert words_of(task_in(await result(served, "send", {"message": sent}), "1.0")) == 'see:\n{"a":[1,null]}'


async def test_a_fault_of_ours_ends_a_stream_in_an_error(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> Any:  # noqa: ANN401 -- never yields
        raise RuntimeError("a secret")
        yield

    monkeypatch.setattr(served.app.answering.tasks, "read", broken)
    answer = await post(served, "stream", {"message": message("x", metadata={"convene/model": "scripted-echo"})})
    last = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")][-1]
    assert last["error"]["code"] == -32603
    assert "secret" not in answer.text


@pytest.mark.req("A2A-01", "A2A-02")
@pytest.mark.parametrize("name", ["agent-card", "agent"])
async def test_the_card_is_open_and_says_where_and_how(play: Any, name: str) -> None:  # noqa: ANN401
    async with play([text("x")], box=Market().add("booker", "x")) as served:
        found = (await served.http.get(f"/.well-known/{name}.json")).json()
    assert [(one["url"], one["protocolBinding"], one["protocolVersion"]) for one in found["supportedInterfaces"]] == [
        ("http://convene.test/a2a", "JSONRPC", "1.0"),
        ("http://convene.test/a2a", "HTTP+JSON", "1.0"),
        ("http://convene.test/a2a", "JSONRPC", "0.3"),
    ]
    assert (found["url"], found["preferredTransport"], found["protocolVersion"]) == (
        "http://convene.test/a2a",
        "JSONRPC",
        "0.3.0",
    )
    assert found["capabilities"] == {"streaming": True, "pushNotifications": False}
    assert found["securityRequirements"] == [{"schemes": {"bearer": {"list": []}}}]
    assert found["security"] == [{"bearer": []}]
    assert [skill["id"] for skill in found["skills"]] == ["answer", "agents"]


async def test_the_card_of_a_public_server_names_its_public_address_whoever_asks(serve: Any) -> None:  # noqa: ANN401
    async with serve(public_url="https://agents.test/") as served:
        found = (await served.http.get("/.well-known/agent-card.json", headers={"host": "evil.test"})).json()
    assert found["url"] == "https://agents.test/a2a"


async def test_an_agent_is_asked_by_its_handle_and_learns_where_the_question_has_been(play: Any) -> None:  # noqa: ANN401
    market = Market().add("booker", "Booked.")
    about = {"convene/hops": f"agent1qa, {OTHER}", "convene/agentAddress": OTHER}
    async with play([text("the model")], box=market) as served:
        sent = message("@booker a table", metadata=about)
        assert words_of(task_in(await result(served, "send", {"message": sent}), "1.0")) == "Booked."
        again = message("@booker a table")
        await post(served, "send", {"message": again}, "1.0", **{"x-convene-hops": ADDRESS})
    assert [(asked.hops, asked.caller) for asked in market.asked] == [(("agent1qa", OTHER), OTHER), ((ADDRESS,), "")]


async def test_a_poll_of_a_chat_client_is_a_question_like_any_other(play: Any) -> None:  # noqa: ANN401
    async with play([text("No news.")]) as served:
        sent = message("Any update?", contextId="c")
        assert words_of(task_in(await result(served, "send", {"message": sent}), "1.0")) == "No news."
