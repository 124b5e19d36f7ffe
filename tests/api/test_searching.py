"""Web search and study mode through HTTP: frames with annotations, whole replies, and what sessions remember."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from convene.config import Scripted, Search, Tools
from convene.tools.base import Source, ToolResult
from tool_doubles import Box, PlayedTool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from convene.tools.base import ToolContext

PAGE = "https://a.test/tower"
ANSWER = "Höher als 40 m 😀 [1], sagt man."
ANY: dict[str, object] = {"type": "object"}


async def search(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
    del arguments, context
    return ToolResult(text=f"The tower\n{PAGE}\n43 metres.", sources=(Source(PAGE, "The tower"),), data={"hits": 1})


async def send(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
    del arguments, context
    return ToolResult(text="Sent.")


@pytest.fixture
def play(serve: Any, tmp_path: Path) -> Any:  # noqa: ANN401 - a fixture's factory
    """Return a way to serve the model `played`, which searches, mails, and answers."""

    def start(**fields: object) -> Any:  # noqa: ANN401 - a context
        turns = [
            [{"call": {"name": "web_search", "args": {"query": "tower"}}}],
            [{"call": {"name": "mail", "args": {"text": "all"}}}],
            [{"text": ANSWER}],
        ]
        file = tmp_path / "played.json"
        file.write_text(json.dumps({"models": [{"name": "played", "turns": [{"steps": steps} for steps in turns]}]}))
        box = Box(
            PlayedTool("web_search", search, kind="search", labels=frozenset({"untrusted"}), parameters=ANY),
            PlayedTool("mail", send, labels=frozenset({"sends"}), parameters=ANY),
        )
        fields = {"scripted": Scripted(enabled=True, file=str(file)), "search": Search(enabled=False)} | fields
        return serve(box=box, **fields)

    return start


@pytest.mark.req("OAI-44", "OAI-45", "CHAT-17")
async def test_a_stream_carries_annotations_whose_indexes_fit_its_text(play: Any) -> None:  # noqa: ANN401 - a fixture
    async with play() as served:
        frames = await served.frames(model="played", web_search=True)
    deltas = [frame["choices"][0]["delta"] for frame in frames[:-1]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    [annotation] = [one for delta in deltas for one in delta.get("annotations", ())]
    cited = annotation["url_citation"]
    assert text == f"Höher als 40 m 😀 [[1]]({PAGE}), sagt man."
    assert text[cited["start_index"] : cited["end_index"]] == f"[[1]]({PAGE})"
    assert (annotation["type"], cited["url"], cited["title"]) == ("url_citation", PAGE, "The tower")


@pytest.mark.req("OAI-24", "OAI-44")
async def test_a_whole_reply_has_them_in_its_message(play: Any) -> None:  # noqa: ANN401 - a fixture
    async with play() as served:
        reply = (await served.chat(model="played", web_search_options={})).json()
    message = reply["choices"][0]["message"]
    [annotation] = message["annotations"]
    cited = annotation["url_citation"]
    assert message["content"][cited["start_index"] : cited["end_index"]] == f"[[1]]({PAGE})"
    assert reply["executable_data"][0]["result"] == {"hits": 1}


async def test_what_sends_is_refused_after_a_search(play: Any) -> None:  # noqa: ANN401 - a fixture
    async with play() as served:
        ran = (await served.chat(model="played", web_search=True)).json()["executable_data"]
    assert [one["status"] for one in ran] == ["done", "failed"]
    assert "can send data out" in ran[1]["result"]["error"]


async def test_an_operator_may_allow_it(play: Any) -> None:  # noqa: ANN401 - a fixture
    async with play(tools=Tools(allow_after_untrusted=("ma*",))) as served:
        ran = (await served.chat(model="played", web_search=True)).json()["executable_data"]
    assert [one["status"] for one in ran] == ["done", "done"]


@pytest.mark.req("CHAT-21")
async def test_study_mode_shows_its_version_and_remembers_the_lesson_of_a_session(play: Any) -> None:  # noqa: ANN401
    async with play() as served:
        details = []
        for said in ("I'm a beginner. Why do towers fall?", "the wind?", "I get it now"):
            answer = await served.http.post(
                "/v1/chat/completions",
                json={
                    "model": "scripted-echo",
                    "messages": [{"role": "user", "content": said}],
                    "study_mode": True,
                    "server_tools": False,
                },
                headers=served.auth | {"x-session-id": "lesson"},
            )
            assert answer.status_code == 200, answer.text
            reply = answer.json()
            assert reply["choices"][0]["message"]["content"] == said
            details.append(reply["intermediate_steps"][0]["detail"])
    beginner = {"mode": "study", "version": "1", "level": "beginner"}
    assert details == [beginner | {"stage": stage} for stage in ("diagnose", "guide", "check")]


async def test_study_mode_that_is_off_changes_nothing(play: Any) -> None:  # noqa: ANN401 - a fixture
    async with play() as served:
        reply = (await served.chat(model="scripted-echo", study_mode=False, server_tools=False)).json()
    assert reply["intermediate_steps"] == []
