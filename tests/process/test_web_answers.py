"""A request searches a SearXNG, reads a page, and answers with right citations: real servers, the real SDK."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from openai import OpenAI

import convene
from process.program import program
from searx_double import serving_searx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from process.program import Program
    from searx_double import Searx

QUESTION = "How high is the lighthouse of Vellmar, and when was it lit first?"
ANSWER = "The tower is 43 metres high [1] and was first lit in autumn 1871 [1]. The mole is 612 metres long [2]."
CONFIG = """
[engine]
enabled = false
[scripted]
enabled = true
file = "{script}"
[models.asi1]
upstream = "scripted"
model = "guide"
[models.before]
upstream = "scripted"
model = "reader"
search = "before"
[search]
engines = ["searxng"]
[search.searxng]
base_url = "{searx}"
[egress]
allow = ["127.0.0.0/8"]
"""


def script(searx: Searx) -> dict[str, Any]:
    """Return models: one searches, reads and answers, one only answers, one reads what was never shown."""
    page = searx.url("/pages/lighthouse")
    find = {"call": {"name": "web_search", "args": {"query": "lighthouse Vellmar height"}}}
    read = {"call": {"name": "web_fetch", "args": {"url": page}}}
    leak = {"call": {"name": "web_fetch", "args": {"url": f"{page}?secret=1"}}}
    answer = {"text": ANSWER}
    return {
        "models": [
            {"name": "guide", "turns": [{"steps": [step]} for step in (find, read, answer)]},
            {"name": "scripted-leak", "turns": [{"steps": [step]} for step in (find, leak, answer)]},
            {"name": "reader", "turns": [{"steps": [{"text": ANSWER}]}]},
        ]
    }


@pytest.fixture(scope="module")
def web() -> Iterator[Searx]:
    with serving_searx() as searx:
        yield searx


@pytest.fixture(scope="module")
def server(web: Searx, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("web")
    file = folder / "script.json"
    file.write_text(json.dumps(script(web)))
    with program(folder, CONFIG.format(script=file, searx=web.base_url)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Program) -> Iterator[OpenAI]:
    """The official SDK; closed at the end, else the collector finds its sockets at some later time."""
    with OpenAI(api_key=server.key, base_url=f"http://127.0.0.1:{server.port}/v1", max_retries=0) as opened:
        yield opened


def ask(client: OpenAI, **fields: Any) -> Any:  # noqa: ANN401 - what the SDK returns
    messages = [{"role": "user", "content": QUESTION}]
    body = {"web_search": True} | fields.pop("extra_body", {})
    return client.chat.completions.create(**{"model": "asi1", "messages": messages, "extra_body": body} | fields)


def check_citations(text: str, annotations: list[dict[str, Any]], web: Searx) -> None:
    """Every annotation cuts its own link out of the text, and every link has one."""
    links = re.findall(r"\[\[\d\]\]\([^)]*\)", text)
    cut = [text[one["url_citation"]["start_index"] : one["url_citation"]["end_index"]] for one in annotations]
    assert cut == links
    assert [one["url_citation"]["url"] for one in annotations] == [re.sub(r".*\((.*)\)", r"\1", link) for link in links]
    lighthouse = web.url("/pages/lighthouse")
    assert text.startswith(f"The tower is 43 metres high [[1]]({lighthouse}) and was")
    assert text.endswith(f"metres long [[2]]({web.url('/pages/harbour')}).")
    assert {one["type"] for one in annotations} == {"url_citation"}
    assert annotations[0]["url_citation"]["title"] == "The lighthouse of Vellmar"


@pytest.mark.req("OAI-44", "OAI-45", "CHAT-17", "CHAT-18")
def test_one_streamed_request_searches_reads_and_answers_with_right_citations(client: OpenAI, web: Searx) -> None:
    web.asked.clear()
    web.visited.clear()
    text = ""
    annotations: list[dict[str, Any]] = []
    extras: list[dict[str, Any]] = []
    steps: dict[str, dict[str, Any]] = {}
    for chunk in ask(client, stream=True):
        more = chunk.model_extra or {}
        for step in more.get("intermediate_steps") or []:
            steps[step["id"]] = step
        delta = chunk.choices[0].delta
        assert not delta.tool_calls
        text += delta.content or ""
        annotations += (delta.model_extra or {}).get("annotations") or []
        if chunk.choices[0].finish_reason:
            extras.append(more)
    check_citations(text, annotations, web)
    assert [asked["q"] for asked in web.asked] == ["lighthouse Vellmar height"]
    assert web.visited == ["/pages/lighthouse"]
    kinds = [(step["kind"], step["status"]) for step in steps.values()]
    assert kinds == [
        ("model", "done"),
        ("search", "done"),
        ("model", "done"),
        ("fetch", "done"),
        ("model", "done"),
    ]
    ran = extras[0]["executable_data"]
    assert [(one["tool_name"], one["status"]) for one in ran] == [
        ("web_search", "done"),
        ("web_fetch", "done"),
    ]
    assert ran[0]["result"]["results"][0]["url"] == web.url("/pages/lighthouse")


def test_an_address_that_nobody_has_shown_is_not_read(client: OpenAI, web: Searx) -> None:
    web.visited.clear()
    ran = ask(client, model="scripted-leak").executable_data
    assert [one["status"] for one in ran] == ["done", "failed"]
    assert "word for word" in json.dumps(ran[1]["result"])
    assert web.visited == []


@pytest.mark.req("OAI-24")
def test_a_whole_reply_has_the_same_text_and_annotations(client: OpenAI, web: Searx) -> None:
    reply = ask(client, web_search_options={}, extra_body={"web_search": False})
    message = reply.choices[0].message
    check_citations(message.content, [one.model_dump() for one in message.annotations], web)


def test_a_model_that_does_not_search_is_searched_for(client: OpenAI, web: Searx) -> None:
    web.asked.clear()
    web.visited.clear()
    reply = ask(client, model="before")
    message = reply.choices[0].message
    check_citations(message.content, [one.model_dump() for one in message.annotations], web)
    assert [asked["q"] for asked in web.asked] == [QUESTION]
    assert len(web.visited) == 2
    assert [step["kind"] for step in reply.intermediate_steps] == ["search", "fetch", "fetch", "model"]


@pytest.mark.req("DEC-18")
def test_when_the_engine_is_away_the_answer_still_comes_and_says_so(client: OpenAI, web: Searx) -> None:
    web.status = 503
    try:
        reply = ask(client, model="before", messages=[{"role": "user", "content": "And the ferries of Odd?"}])
    finally:
        web.status = 200
    assert [notice["code"] for notice in reply.metadata["notices"]] == ["search_unavailable"]
    assert reply.choices[0].message.content == ANSWER


def test_an_answer_in_json_is_left_alone(client: OpenAI) -> None:
    reply = ask(client, response_format={"type": "json_object"})
    message = reply.choices[0].message
    assert json.loads(message.content) == {"text": ANSWER}
    assert message.annotations in (None, [])
    assert [one["tool_name"] for one in reply.executable_data][:1] == ["web_search"]


def test_the_example_of_the_documentation_runs_and_prints_what_it_says(server: Program, web: Searx) -> None:
    page = (importlib.resources.files(convene) / "pages" / "agentic.md").read_text(encoding="utf-8")
    part = page.partition("\n## Answers from the web\n")[2]
    code, shown = re.findall(r"```(?:python|text)\n(.*?)```", part, re.DOTALL)[:2]
    environ = dict(os.environ) | {
        "CONVENE_API_KEY": server.key,
        "CONVENE_BASE_URL": f"http://127.0.0.1:{server.port}/v1",
    }
    done = subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.replace(web.base_url, "http://web.test").strip() == shown.strip()
