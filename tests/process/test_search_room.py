"""The search of a whole configuration over real sockets: from `convene.toml` to sources, failover, and giving up."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING

import pytest

from convene.app_tools import ToolRoom
from convene.clock import SystemClock
from convene.config import load
from convene.http.client import HttpClient
from convene.tools.base import Tool, ToolContext
from searx_double import PAGES, serving_searx

if TYPE_CHECKING:
    from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def opened(folder: Path, text: str) -> tuple[ToolRoom, Tool]:
    (folder / "convene.toml").write_text(text, encoding="utf-8")
    room = ToolRoom.open(load({}, {"HOME": str(folder)}, folder), SystemClock(), HttpClient)
    return room, next(tool for tool in room.tools() if tool.spec.name == "web_search")


def context(**options: object) -> ToolContext:
    return ToolContext(owner="o", run_id="run_1", call_id="c", idempotency_key="k", options=options)


async def test_a_configured_searxng_is_searched_and_its_pages_are_sources(tmp_path: Path) -> None:
    with serving_searx() as searx:
        room, tool = opened(tmp_path, f'[search.searxng]\nbase_url = "{searx.base_url}"\n')
        result = await tool.run({"query": "lighthouse of Vellmar"}, context(search_context_size="low"))
        await room.aclose()

    assert result.sources[0].url == searx.url("/pages/lighthouse")
    assert result.sources[0].title == PAGES[0].title
    assert "1871" in result.text
    assert len(result.sources) == 3
    assert len(searx.asked) == 1


async def test_an_engine_that_is_down_is_stepped_over_and_then_left_alone(tmp_path: Path) -> None:
    with serving_searx() as searx:
        text = (
            f'[search]\nengines = ["tavily", "searxng"]\n[search.searxng]\nbase_url = "{searx.base_url}"\n'
            f'[search.tavily]\napi_key = "tvly-1"\nbase_url = "http://127.0.0.1:{free_port()}"\n'
        )
        room, tool = opened(tmp_path, text)
        for words in ("lighthouse", "harbour", "keeper"):
            result = await tool.run({"query": words}, context())
            assert result.sources
            assert result.notices == ()
        await room.aclose()
    assert [one["q"] for one in searx.asked] == ["lighthouse", "harbour", "keeper"]


@pytest.mark.parametrize("fault", ["status", "body", "formats", "unresponsive"])
async def test_whatever_is_wrong_with_the_only_engine_there_is_a_result_with_a_notice(
    fault: str, tmp_path: Path
) -> None:
    with serving_searx() as searx:
        match fault:
            case "status":
                searx.status = 500
            case "body":
                searx.body = b"<html>Verifying your browser"
            case "formats":
                searx.formats = ("html",)
            case _:
                searx.unresponsive = (("brave", "timeout"),)
        room, tool = opened(tmp_path, f'[search.searxng]\nbase_url = "{searx.base_url}"\n')
        result = await tool.run({"query": "lighthouse"}, context())
        await room.aclose()

    assert [one.code for one in result.notices] == ["search_unavailable"]
    assert searx.base_url not in json.dumps(result.data) + result.text


async def test_a_turn_that_is_cancelled_drops_its_question_at_once(tmp_path: Path) -> None:
    with serving_searx() as searx:
        searx.silent = True
        room, tool = opened(tmp_path, f'[search.searxng]\nbase_url = "{searx.base_url}"\n')
        asking = asyncio.create_task(tool.run({"query": "lighthouse"}, context()))
        await asyncio.to_thread(searx.arrived.wait, 30)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        for _ in range(5):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await room.aclose()


async def test_results_of_a_hostile_engine_are_cleaned_before_anybody_reads_them(tmp_path: Path) -> None:
    with serving_searx() as searx:
        searx.body = json.dumps(
            {
                "results": [
                    {"url": "javascript:alert(1)", "title": "no page", "content": "x"},
                    {"url": "http://user:pw@x.test/", "title": "no page", "content": "x"},
                    {"url": "https://a.test/", "title": "A<script>x</script>\n\n\u202eB", "content": "c" * 900_000},
                    {"url": "https://A.test:443/#again", "title": "the same page", "content": ""},
                ]
            }
        ).encode()
        room, tool = opened(tmp_path, f'[search.searxng]\nbase_url = "{searx.base_url}"\n')
        result = await tool.run({"query": "lighthouse"}, context())
        await room.aclose()

    [only] = result.sources
    assert (only.url, only.title) == ("https://a.test/", "A B")
    assert len(result.text) < 1000
