"""The tool `web_fetch` as the server offers it: composed from settings, a real page on loopback, a real process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.app_tools import ToolRoom
from convene.clock import SystemClock
from convene.config import Config, EgressSettings, PageSettings, Search
from convene.egress import EgressRefused
from convene.http.client import HttpClient
from convene.tools.base import ToolContext, ToolResult
from page_samples import ARTICLE, pdf
from process.http_client_peers import LOOPS, Peer, answer, upstream

if TYPE_CHECKING:
    from process.http_client_peers import Runner

CONTEXT = ToolContext(owner="o", run_id="r", call_id="c", idempotency_key="k")


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Runner:
    """Return what runs a test's coroutine."""
    runner: Runner = request.param
    return runner


def room(**fields: object) -> ToolRoom:
    given = {"search": Search(enabled=False), "egress": EgressSettings(allow=("127.0.0.0/8",)), **fields}
    return ToolRoom.open(Config(**given), SystemClock(), HttpClient)  # type: ignore[arg-type]


async def fetch(offered: ToolRoom, url: str) -> ToolResult:
    (tool,) = [tool for tool in offered.tools() if tool.spec.name == "web_fetch"]
    return await tool.run({"url": url}, CONTEXT)


async def site(peer: Peer) -> None:
    path = (await peer.request()).split(b" ")[1]
    pages = {
        b"/": answer(ARTICLE.encode(), "content-type: text/html"),
        b"/pdf": answer(pdf(["Lit in 1871"]), "content-type: application/pdf"),
        b"/in": b"HTTP/1.1 302 F\r\nlocation: http://10.0.0.1/\r\n\r\n",
    }
    peer.say(pages[path])
    await peer.gone()


def test_pages_are_read_over_sockets_by_a_process_and_nothing_is_left(run: Runner) -> None:
    async def scene() -> None:
        offered = room()
        try:
            async with upstream(site) as server:
                home = f"http://127.0.0.1:{server.port}"
                page = await fetch(offered, f"{home}/")
                assert page.text.startswith(f"Title: The Light of Vell\nAddress: {home}/\n\n# The Light of Vell")
                assert f"{home}/history?x=1&y=2" in page.links
                assert "Lit in 1871" in (await fetch(offered, f"{home}/pdf")).text
                with pytest.raises(EgressRefused):
                    await fetch(offered, f"{home}/in")
        finally:
            await offered.aclose()

    run(scene())


def test_without_permission_loopback_is_refused(run: Runner) -> None:
    async def scene() -> None:
        offered = room(egress=EgressSettings())
        try:
            async with upstream(site) as server:
                with pytest.raises(EgressRefused):
                    await fetch(offered, f"http://127.0.0.1:{server.port}/")
                assert server.accepted == 0
        finally:
            await offered.aclose()

    run(scene())


async def test_switched_off_it_is_not_offered() -> None:
    offered = room(pages=PageSettings(enabled=False))
    assert "web_fetch" not in [tool.spec.name for tool in offered.tools()]
    await offered.aclose()
