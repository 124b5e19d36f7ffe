"""`Idempotency-Key`: a request and its repeats run once and get the same bytes (OSDK-06, goal B5)."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from api.conftest import read_frames
from convene.api.openapi import document
from convene.config import Idempotency, Model
from convene.serving import replays as module
from convene.store.base import StoreFault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

    from api.conftest import Serve, Served
    from convene.events import Event
    from convene.providers.base import Generation

CHAT = "/v1/chat/completions"
HELLO: Any = [{"role": "user", "content": "hello big world"}]


class Counter:
    """Counts how often the model behind a name is asked, and can hold its answers back."""

    def __init__(self, served: Served, name: str = "scripted-echo") -> None:
        [deployment] = [one for one in served.app.deployments.all if one.card.id == name]
        assert deployment.chat is not None
        self.runs = 0
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.fault: Exception | None = None
        generate, chat = deployment.chat.generate, deployment.chat

        async def counted(generation: Generation) -> AsyncIterator[Event]:
            self.runs += 1
            self.started.set()
            await self.go_on.wait()
            if self.fault is not None:
                raise self.fault
            async for event in generate(generation):
                yield event

        vars(chat)["generate"] = counted


async def post(served: Served, key: str, path: str = CHAT, **fields: object) -> httpx2.Response:
    """Post a chat, or whatever the path takes, under an idempotency key."""
    body = {"model": "scripted-echo", "messages": HELLO} | fields
    return await served.http.post(path, json=body, headers=served.auth | {"Idempotency-Key": key})


def is_replayed(answer: httpx2.Response) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


@pytest.mark.req("OSDK-06")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_repeat_gets_the_same_bytes_and_runs_nothing(served: Served, *, stream: bool) -> None:
    counter = Counter(served)
    first = await post(served, "k-1", stream=stream)
    again = await post(served, "k-1", stream=stream)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert (is_replayed(first), is_replayed(again)) == (False, True)
    assert counter.runs == 1


@pytest.mark.req("OSDK-06")
async def test_a_replayed_stream_is_a_whole_stream_with_its_headers(served: Served) -> None:
    first = await post(served, "k", stream=True, stream_options={"include_usage": True})
    again = await post(served, "k", stream=True, stream_options={"include_usage": True})
    assert read_frames(again.text)[-1] == "[DONE]"
    for name in ("content-type", "cache-control", "x-accel-buffering"):
        assert again.headers[name] == first.headers[name]


@pytest.mark.req("OSDK-06", "OSDK-07")
async def test_the_body_keeps_the_first_ones_id_and_the_header_has_the_new_one(served: Served) -> None:
    first, again = await post(served, "k"), await post(served, "k")
    assert first.headers["x-request-id"] != again.headers["x-request-id"]
    assert again.json()["metadata"]["request_id"] == first.headers["x-request-id"]


async def test_without_the_header_every_request_runs(served: Served) -> None:
    counter = Counter(served)
    first, again = await served.chat(), await served.chat()
    assert counter.runs == 2
    assert first.json()["id"] != again.json()["id"]
    assert not is_replayed(again)


@pytest.mark.req("OSDK-06")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_hundred_repeats_at_once_are_one_call_with_the_same_bytes(served: Served, *, stream: bool) -> None:
    """Goal B5: the first one is held until all have come."""
    counter = Counter(served)
    counter.go_on.clear()
    asking = [asyncio.create_task(post(served, "k", stream=stream)) for _ in range(100)]
    await counter.started.wait()
    counter.go_on.set()
    answers = await asyncio.gather(*asking)
    assert counter.runs == 1
    assert {answer.content for answer in answers} == {answers[0].content}
    assert {answer.status_code for answer in answers} == {200}
    assert sum(is_replayed(answer) for answer in answers) == 99
    assert len({answer.headers["x-request-id"] for answer in answers}) == 100


@pytest.mark.parametrize("stream", [False, True])
async def test_when_the_first_client_leaves_one_of_those_who_wait_runs(served: Served, *, stream: bool) -> None:
    counter = Counter(served)
    counter.go_on.clear()
    first = asyncio.create_task(post(served, "k", stream=stream))
    await counter.started.wait()
    waiting = [asyncio.create_task(post(served, "k", stream=stream)) for _ in range(10)]
    await asyncio.sleep(0)
    counter.started.clear()
    first.cancel()
    await asyncio.wait([first])
    async with asyncio.timeout(30):
        await counter.started.wait()
        counter.go_on.set()
        answers = await asyncio.gather(*waiting)
    assert counter.runs == 2
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.content for answer in answers} == {answers[0].content}


async def test_a_client_that_leaves_in_mid_stream_leaves_the_key_free(served: Served) -> None:
    words = " ".join(["word"] * 50)
    asked: dict[str, Any] = {"model": "scripted-slow", "messages": [{"role": "user", "content": words}], "stream": True}
    headers = served.auth | {"Idempotency-Key": "k"}
    async with served.http.stream("POST", CHAT, json=asked, headers=headers) as answer:
        async for _ in answer.aiter_lines():
            break
    again = await post(served, "k", CHAT, **asked)
    assert not is_replayed(again)
    assert read_frames(again.text)[-1] == "[DONE]"


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "k\u00e9y", "tab\there", "\x7f"])
async def test_a_key_that_is_none_is_refused_and_nothing_runs(served: Served, key: str) -> None:
    counter = Counter(served)
    body = json.dumps({"model": "scripted-echo", "messages": HELLO})
    headers = [(b"authorization", served.auth["Authorization"].encode()), (b"idempotency-key", key.encode("latin-1"))]
    answer = await served.http.post(CHAT, content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_idempotency_key"
    assert answer.json()["error"]["param"] == "Idempotency-Key"
    assert counter.runs == 0


@pytest.mark.parametrize("key", ["!", "~" * 255, '"6f1c2b1e"', "a/b:c"])
async def test_every_visible_key_is_taken(served: Served, key: str) -> None:
    assert (await post(served, key)).status_code == 200
    assert is_replayed(await post(served, key))


@pytest.mark.req("OSDK-06", "OSDK-04")
async def test_the_same_key_with_another_body_is_refused(served: Served) -> None:
    counter = Counter(served)
    await post(served, "k")
    other = await post(served, "k", temperature=0.5)
    assert other.status_code == 400
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert "Idempotency-Key" in other.json()["error"]["message"]
    assert counter.runs == 1
    assert is_replayed(await post(served, "k"))


async def test_another_body_is_refused_while_the_first_still_runs(served: Served) -> None:
    counter = Counter(served)
    counter.go_on.clear()
    first = asyncio.create_task(post(served, "k"))
    await counter.started.wait()
    assert (await post(served, "k", temperature=0.5)).json()["error"]["code"] == "idempotency_key_reused"
    counter.go_on.set()
    assert (await first).status_code == 200


async def test_the_same_key_for_another_path_or_session_is_refused(served: Served) -> None:
    headers = served.auth | {"Idempotency-Key": "k", "x-session-id": "one"}
    body = {"model": "scripted-echo", "messages": HELLO}
    assert (await served.http.post(CHAT, json=body, headers=headers)).status_code == 200
    for path, session in ((CHAT, "two"), ("/v1/embeddings", "one")):
        answer = await served.http.post(path, json=body, headers=headers | {"x-session-id": session})
        assert answer.json()["error"]["code"] == "idempotency_key_reused"


async def test_every_spelling_of_a_path_is_the_same_request(served: Served) -> None:
    await post(served, "k")
    assert is_replayed(await post(served, "k", "/chat/completions"))


async def test_two_owners_may_use_the_same_key(served: Served) -> None:
    counter = Counter(served)
    ring: Any = served.app.front.gatekeeper
    other, _ = await ring.create("other")
    first = await post(served, "k")
    headers = {"Authorization": f"Bearer {other}", "Idempotency-Key": "k"}
    theirs = await served.http.post(CHAT, json={"model": "scripted-echo", "messages": HELLO}, headers=headers)
    assert not is_replayed(theirs)
    assert theirs.json()["id"] != first.json()["id"]
    assert counter.runs == 2


async def test_a_fault_that_a_repeat_would_meet_again_is_kept(served: Served) -> None:
    answers = [await post(served, "k", model="no-such-model") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == answers[1].content
    assert [is_replayed(answer) for answer in answers] == [False, True]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_that_may_pass_is_not_kept(served: Served, *, stream: bool) -> None:
    """A kept answer would say for a day that the model is unavailable."""
    counter = Counter(served, "scripted-fail-before")
    for _ in range(2):
        answer = await post(served, "k", model="scripted-fail-before", stream=stream)
        assert answer.status_code >= 500
        assert not is_replayed(answer)
    assert counter.runs == 2


async def test_a_stream_that_ended_in_an_error_frame_is_not_kept(served: Served) -> None:
    counter = Counter(served, "scripted-fail-after")
    for _ in range(2):
        answer = await post(served, "k", model="scripted-fail-after", stream=True)
        assert answer.status_code == 200
        *_, error, done = read_frames(answer.text)
        assert "error" in error
        assert done == "[DONE]"
        assert not is_replayed(answer)
    assert counter.runs == 2


async def test_a_fault_of_our_own_is_not_kept(served: Served) -> None:
    counter = Counter(served)
    counter.fault = RuntimeError("a bug")
    first = await post(served, "k")
    assert first.status_code == 500
    counter.fault = None
    again = await post(served, "k")
    assert (again.status_code, is_replayed(again)) == (200, False)


async def test_those_who_wait_for_a_request_that_fails_run_in_turn(served: Served) -> None:
    counter = Counter(served, "scripted-fail-before")
    counter.go_on.clear()
    asking = [asyncio.create_task(post(served, "k", model="scripted-fail-before")) for _ in range(4)]
    await counter.started.wait()
    counter.go_on.set()
    answers = await asyncio.gather(*asking)
    assert all(answer.status_code >= 500 for answer in answers)
    assert counter.runs == 4


async def test_a_packed_body_is_read_once_and_counts_as_it_came(served: Served) -> None:
    body = gzip.compress(json.dumps({"model": "scripted-echo", "messages": HELLO}).encode(), mtime=0)
    headers = served.auth | {"Idempotency-Key": "k", "content-encoding": "gzip", "content-type": "application/json"}
    first, again = [await served.http.post(CHAT, content=body, headers=headers) for _ in range(2)]
    assert first.status_code == 200
    assert is_replayed(again)
    assert again.content == first.content


@pytest.mark.req("OSDK-06")
async def test_embeddings_are_replayed(serve: Serve) -> None:
    model = Model(upstream=("scripted",), model="scripted-embedding", embeddings=True)
    async with serve(models={"vectors": model}) as served:
        body = {"model": "vectors", "input": ["hello", "world"]}
        headers = served.auth | {"Idempotency-Key": "k"}
        first, again = [await served.http.post("/v1/embeddings", json=body, headers=headers) for _ in range(2)]
        other = await served.http.post("/v1/embeddings", json=body | {"input": "x"}, headers=headers)
    assert first.status_code == 200, first.text
    assert first.content == again.content
    assert is_replayed(again)
    assert other.json()["error"]["code"] == "idempotency_key_reused"


async def test_an_answer_too_large_to_keep_is_given_once_and_its_repeats_are_refused(serve: Serve) -> None:
    async with serve(idempotency=Idempotency(answer_bytes_max=100)) as served:
        counter = Counter(served)
        first, again = await post(served, "k"), await post(served, "k")
        assert first.status_code == 200
        assert first.json()["choices"]
        assert again.status_code == 400
        assert again.json()["error"]["code"] == "idempotent_answer_not_kept"
        assert "100 bytes" in again.json()["error"]["message"]
        assert counter.runs == 1


async def test_answers_outlive_a_restart(serve: Serve) -> None:
    async with serve() as served:
        first = await post(served, "k")
        auth = served.auth
    async with serve() as served:
        counter = Counter(served)
        body = {"model": "scripted-echo", "messages": HELLO}
        again = await served.http.post(CHAT, json=body, headers=auth | {"Idempotency-Key": "k"})
        assert counter.runs == 0
    assert again.content == first.content
    assert is_replayed(again)


async def test_two_servers_on_one_store_answer_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What two workers are: each waits for the other's answer by asking the store."""
    monkeypatch.setattr(module, "LOOK_FIRST_S", 0.001)
    async with serve() as one, serve() as two:
        counters = Counter(one), Counter(two)
        counters[0].go_on.clear()
        counters[1].go_on.clear()
        two.key = one.key
        asking = [asyncio.create_task(post(served, "k")) for _ in range(20) for served in (one, two)]
        started = [asyncio.create_task(counter.started.wait()) for counter in counters]
        await asyncio.wait(started, return_when=asyncio.FIRST_COMPLETED)
        for counter in counters:
            counter.go_on.set()
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*asking)
        for task in started:
            task.cancel()
    assert sum(counter.runs for counter in counters) == 1
    assert len({answer.content for answer in answers}) == 1
    assert sum(is_replayed(answer) for answer in answers) == 39


async def test_a_store_that_is_down_refuses_these_requests_and_no_others(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise StoreFault("The store cannot be used.")

    counter = Counter(served)
    replays: Any = served.app._kept_answers.replays
    monkeypatch.setattr(replays._answers, "claim", broken)
    refused = await post(served, "k")
    assert refused.status_code == 503
    assert counter.runs == 0
    assert (await served.chat()).status_code == 200
    monkeypatch.undo()
    assert (await post(served, "k")).status_code == 200


async def test_an_answer_that_cannot_be_kept_is_given_all_the_same(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise StoreFault("The disk is full.")

    counter = Counter(served)
    replays: Any = served.app._kept_answers.replays
    monkeypatch.setattr(replays._answers, "save", broken)
    assert (await post(served, "k")).status_code == 200
    monkeypatch.undo()
    assert not is_replayed(await post(served, "k"))
    assert counter.runs == 2


async def test_an_answer_is_forgotten_after_its_time(serve: Serve) -> None:
    async with serve(idempotency=Idempotency(keep_s=60.0)) as served:
        first = await post(served, "k")
        replays: Any = served.app._kept_answers.replays
        assert await replays._answers.sweep(replays._clock.now() + 59) == 0
        assert await replays._answers.sweep(replays._clock.now() + 61) == 1
        again = await post(served, "k")
    assert not is_replayed(again)
    assert first.json()["id"] != again.json()["id"]


async def test_it_works_without_keys(serve: Serve) -> None:
    async with serve(auth="none") as served:
        body = {"model": "scripted-echo", "messages": HELLO}
        address = f"http://127.0.0.1{CHAT}"
        first, again = [await served.http.post(address, json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert first.status_code == 200, first.text
    assert again.content == first.content
    assert is_replayed(again)


async def test_a_replay_leaves_a_line_in_the_log_without_any_usage(serve: Serve) -> None:
    async with serve() as served:
        await post(served, "k")
        await post(served, "k")
    first, again = served.lines
    assert first["completion_tokens"] == 3
    assert "completion_tokens" not in again
    assert again["status"] == 200


def test_the_description_names_the_header() -> None:
    described = msgspec.json.decode(document())
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        parameters = described["paths"][path]["post"]["parameters"]
        assert {"$ref": "#/components/parameters/idempotency"} in parameters
