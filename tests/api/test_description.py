"""What the server answers is what `/openapi.json` says: each event of each stream, and statuses once found missing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from convene.config import Images, Search

if TYPE_CHECKING:
    from api.conftest import Serve, Served

KIND = "text/event-stream"
MESSAGES = [{"role": "user", "content": "Say hello."}]
PICTURE = {"prompt": "a fox in snow", "size": "256x256"}


def events_of(text: str) -> list[dict[str, str]]:
    """Return the fields of each event, none where a block holds comments only."""
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        lines = [line.partition(": ")[::2] for line in block.split("\n") if not line.startswith(":")]
        assert len(dict(lines)) == len(lines), f"a field comes twice in {block}"
        if lines:
            found.append(dict(lines))
    return found


def faults(document: dict[str, Any], path: str, event: dict[str, str]) -> list[str]:
    """Return how an event differs from what is described, in its fields and in the JSON that its data holds."""
    [operation] = [document["paths"][path][method] for method in ("get", "post") if method in document["paths"][path]]
    schema = operation["responses"]["200"]["content"][KIND]["schema"]
    fields = schema.get("properties", {})
    wrong = [f"{name} is not described" for name in event.keys() - fields.keys()]
    pairs: list[tuple[Any, object]] = [(schema, event)]
    if event["data"] != "[DONE]":
        data = fields.get("data", {})
        pairs += [
            (one["contentSchema"], json.loads(event["data"]))
            for one in data.get("anyOf", [data])
            if one.get("contentMediaType") == "application/json"
        ]
    for one, value in pairs:
        checker = jsonschema_rs.Draft202012Validator({**one, "components": document["components"]})
        wrong += [str(error) for error in checker.iter_errors(value)]
    return wrong


async def streamed(served: Served, method: str, path: str, **more: Any) -> list[dict[str, str]]:  # noqa: ANN401 - of httpx
    answer = await served.http.request(method, path, headers=served.auth, **more)
    assert answer.headers["content-type"].startswith(KIND), answer.text
    return events_of(answer.text)


async def described(served: Served) -> dict[str, Any]:
    document: dict[str, Any] = (await served.http.get("/openapi.json")).json()
    return document


@pytest.mark.req("API-07")
async def test_the_events_of_chats_and_of_runs_are_what_is_described(serve: Serve) -> None:
    async with serve(search=Search(enabled=False)) as served:
        document = await described(served)
        body = {"model": "scripted-tools", "messages": MESSAGES, "stream": True}
        chat = await streamed(served, "POST", "/v1/chat/completions", json=body)
        broken = await streamed(served, "POST", "/v1/chat/completions", json=body | {"model": "scripted-fail-after"})
        agentic = await streamed(served, "POST", "/v1/chat/completions", json=body | {"planner_mode": True})
        [run, *_] = (await served.http.get("/v1/runs", headers=served.auth)).json()["data"]
        again = await streamed(served, "GET", f"/v1/runs/{run['id']}", params={"stream": "true"})
    for path, events in (
        ("/v1/chat/completions", [*chat, *broken, *agentic]),
        ("/v1/runs/{run}", again),
    ):
        assert [(event, found) for event in events if (found := faults(document, path, event))] == []
    assert [events[-1]["data"] for events in (chat, broken, agentic, again)] == ["[DONE]"] * 4
    assert "error" in json.loads(broken[-2]["data"]), "a fault in mid-stream was among them"
    assert any("id" in event for event in again)
    assert faults(document, "/v1/chat/completions", {"data": '{"id": 1}'}), "not everything passes"
    assert faults(document, "/v1/runs/{run}", again[-2] | {"id": "run_1"})


@pytest.mark.req("API-07")
@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/image/generate"])
async def test_the_events_of_pictures_are_what_is_described(serve: Serve, path: str) -> None:
    async with serve(images={"demo": Images(kind="scripted", model="fail-after", steps=2)}) as served:
        document = await described(served)
        events = await streamed(served, "POST", path, json=PICTURE | {"model": "demo", "n": 2, "stream": True})
    assert [event["event"] for event in events] == ["image_generation.completed", "error"]
    assert [found for event in events if (found := faults(document, path, event))] == []


@pytest.mark.req("API-07")
async def test_a_refusal_by_the_state_of_what_is_named_has_a_status_that_is_described(served: Served) -> None:
    made = {}
    for path, body in (("keys", {"name": "spare"}), ("users", {"email": "ann@example.com", "role": "admin"})):
        answer = await served.http.post(f"/v1/admin/{path}", json=body, headers=served.auth)
        made[path] = answer.json()["id"]
    assert (await served.http.delete(f"/v1/keys/{made['keys']}", headers=served.auth)).status_code == 200
    document = await described(served)
    for method, path, name, code in (
        ("POST", "/v1/keys/{key}/rotate", made["keys"], "key_revoked"),
        ("DELETE", "/v1/admin/users/{user}", made["users"], "last_admin"),
    ):
        answer = await served.http.request(method, re.sub("{.*}", name, path), headers=served.auth)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
        assert "400" in document["paths"][path][method.lower()]["responses"]
