"""This server as an A2A agent over plain HTTP with JSON, raw: paths, streams, lists, errors with a status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from api.test_a2a_server import fault, message, post, result, words_of
from api.test_agents import text

if TYPE_CHECKING:
    import httpx2

    from api.conftest import Served

MEDIA = "application/a2a+json"


async def ask(served: Served, method: str, path: str, body: object = None, **headers: str) -> httpx2.Response:
    content = None if body is None else json.dumps(body)
    return await served.http.request(method, f"/a2a{path}", content=content, headers=served.auth | headers)


async def send(served: Served, words: str, **fields: object) -> Any:  # noqa: ANN401 -- JSON
    answer = await ask(served, "POST", "/message:send", {"message": message(words, **fields)})  # type: ignore[arg-type]  # fields of a message
    assert (answer.status_code, answer.headers["content-type"]) == (200, MEDIA), answer.text
    return answer.json()["task"]


def reason(answer: httpx2.Response, status: int) -> str:
    """Return why an error is one, by its status."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, status), answer.text
    [detail] = error["details"]
    assert detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert detail["domain"] == "a2a-protocol.org"
    assert error["message"]
    return str(detail["reason"])


async def test_a_message_is_answered_and_its_task_shown(play: Any) -> None:  # noqa: ANN401 -- a fixture
    async with play([text("Yes.")]) as served:
        task = await send(served, "is it so?")
        assert (task["status"]["state"], words_of(task)) == ("TASK_STATE_COMPLETED", "Yes.")
        found = await ask(served, "GET", f"/tasks/{task['id']}")
        assert found.json() == task
        bare = (await ask(served, "GET", f"/tasks/{task['id']}?historyLength=0")).json()
        assert "history" not in bare
        assert found.json() == await result(served, "get", {"id": task["id"]})
        assert reason(await ask(served, "POST", f"/tasks/{task['id']}:cancel", {}), 400) == "TASK_NOT_CANCELABLE"
        for method in ("GET", "POST"):
            answer = await ask(served, method, f"/tasks/{task['id']}:subscribe")
            assert reason(answer, 400) == "UNSUPPORTED_OPERATION"


async def test_a_stream_has_the_results_themselves(play: Any) -> None:  # noqa: ANN401
    async with play([text("It is done.")]) as served:
        answer = await ask(served, "POST", "/message:stream", {"message": message("do it")})
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    kinds = [next(iter(one)) for one in found]
    assert (kinds[0], kinds[-1]) == ("task", "statusUpdate")
    assert {"artifactUpdate"} <= {*kinds[1:-1]} <= {"artifactUpdate", "statusUpdate"}  # what is told of steps is timing
    assert found[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_what_is_wrong_has_a_status_and_a_reason(play: Any) -> None:  # noqa: ANN401
    async with play([text("x")]) as served:
        for method, path, body, status, why in (
            ("GET", "/tasks/run_nobodys", None, 404, "TASK_NOT_FOUND"),
            ("POST", "/tasks/run_nobodys:cancel", {}, 404, "TASK_NOT_FOUND"),
            ("POST", "/tasks/run_nobodys:frobnicate", {}, 404, "METHOD_NOT_FOUND"),
            ("GET", "/tasks/run_nobodys:cancel", None, 404, "METHOD_NOT_FOUND"),
            ("DELETE", "/tasks/run_nobodys", None, 404, "METHOD_NOT_FOUND"),
            ("GET", "/extendedAgentCard", None, 400, "UNSUPPORTED_OPERATION"),
            ("POST", "/tasks/run_1/pushNotificationConfigs", {}, 400, "PUSH_NOTIFICATION_NOT_SUPPORTED"),
            ("GET", "/tasks/run_1/pushNotificationConfigs/a", None, 400, "PUSH_NOTIFICATION_NOT_SUPPORTED"),
            ("DELETE", "/tasks/run_1/pushNotificationConfigs/a", None, 400, "PUSH_NOTIFICATION_NOT_SUPPORTED"),
            ("POST", "/message:send", {}, 400, "INVALID_PARAMS"),
            ("POST", "/message:send", [], 400, "INVALID_REQUEST"),
            ("POST", "/message:send", {"message": message("x") | {"parts": [{"url": "x"}]}}, 400, None),
        ):
            found = reason(await ask(served, method, path, body), status)
            assert found == (why or "CONTENT_TYPE_NOT_SUPPORTED"), path
        answer = await ask(served, "GET", "/tasks/run_1", **{"a2a-version": "0.3"})
        assert reason(answer, 400) == "VERSION_NOT_SUPPORTED"
        # What is no matter of the protocol is said as everywhere.
        answer = await served.http.get("/a2a/tasks")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        answer = await ask(served, "GET", "/tasks", **{"sec-fetch-site": "cross-site", "origin": "http://evil.test"})
        assert answer.status_code == 403


async def test_a_list_is_the_callers_own_and_says_how_many_there_are(play: Any) -> None:  # noqa: ANN401
    async with play([text("one")]) as served:
        first, second = await send(served, "1"), await send(served, "2")
        body = {"model": "asi1", "messages": [{"role": "user", "content": "no task"}]}
        await served.http.post("/v1/chat/completions", json=body, headers=served.auth)

        async def listed(**query: object) -> Any:  # noqa: ANN401 -- JSON
            over_http = await served.http.get("/a2a/tasks", params=query, headers=served.auth)
            assert over_http.status_code == 200, over_http.text
            over_rpc = await result(served, "ListTasks", query)
            assert over_http.json() == over_rpc
            return over_rpc

        page = await listed()
        assert [task["id"] for task in page["tasks"]] == [second["id"], first["id"]]
        assert (page["totalSize"], page["pageSize"], page["nextPageToken"]) == (2, 50, "")
        assert all("artifacts" not in task for task in page["tasks"])
        page = await listed(pageSize=1, includeArtifacts="true")
        assert [words_of(task) for task in page["tasks"]] == ["one"]
        rest = await listed(pageSize=1, pageToken=page["nextPageToken"])
        assert ([task["id"] for task in rest["tasks"]], rest["nextPageToken"]) == ([first["id"]], "")
        assert [task["id"] for task in (await listed(contextId=first["contextId"]))["tasks"]] == [first["id"]]
        for state, count in (
            ("COMPLETED", 2),
            ("WORKING", 0),
            ("FAILED", 0),
            ("INPUT_REQUIRED", 0),
            ("UNSPECIFIED", 2),
        ):
            assert (await listed(status=f"TASK_STATE_{state}"))["totalSize"] == count
        since = second["status"]["timestamp"]
        assert [task["id"] for task in (await listed(statusTimestampAfter=since))["tasks"]] == [second["id"]]
        other, _ = await served.app.accounts.ring.create("other")
        answer = await served.http.get("/a2a/tasks", headers={"Authorization": f"Bearer {other}"})
        assert (answer.json()["tasks"], answer.json()["totalSize"]) == ([], 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pageSize": 0},
        {"pageSize": 101},
        {"pageSize": "many"},
        {"status": "done"},
        {"pageToken": "x"},
        {"pageToken": "9" * 18 + ".run_1"},
        {"pageToken": "1."},
        {"statusTimestampAfter": "yesterday or so"},
        {"contextId": "x" * 201},
    ],
)
async def test_a_list_that_cannot_be_is_refused_by_its_parameter(wrong: dict[str, str | int], served: Served) -> None:
    answer = await served.http.get("/a2a/tasks", params=wrong, headers=served.auth)
    assert reason(answer, 400) == "INVALID_PARAMS"
    assert (await fault(served, "ListTasks", wrong))["code"] == -32602


async def test_the_older_form_has_no_list(served: Served) -> None:
    answer = (await post(served, "tasks/list", {}, "0.3")).json()
    assert answer["error"]["code"] == -32601
