"""The extension for small plain requests: what it gives, when it stands aside, and that it leaves no garbage."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from convene.http.base import DIRECT
from unit.http.server_doubles import Line, request, respond

if TYPE_CHECKING:
    from convene.http.server_asgi import Receive, Scope, Send


async def test_a_whole_body_is_taken_at_once_and_answered_in_one_call() -> None:
    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        direct = scope["extensions"][DIRECT]
        body = direct.take_body()
        assert direct.take_body() is None
        direct.respond(201, [(b"content-type", b"text/plain")], body[::-1])

    line = Line(app)
    answer = await line.feed(request("POST", "/", body=b"abc"))
    await line.end()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 201 Created\r\n")
    assert b"content-length: 3" in head
    assert body == b"cba"


async def test_a_body_that_is_still_coming_is_left_to_receive() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["extensions"][DIRECT].take_body() is None
        pieces = b""
        more = True
        while more:
            message = await receive()
            pieces, more = pieces + message["body"], message["more_body"]
        await respond(send, pieces)

    line = Line(app)
    whole = request("POST", "/", body=b"abcdef")
    answer = await line.feed(whole[:-3])
    answer += await line.feed(whole[-3:])
    await line.end()
    assert answer.endswith(b"abcdef")


async def test_head_answers_keep_their_length_and_lose_their_body() -> None:
    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        scope["extensions"][DIRECT].respond(200, [], b"four")

    line = Line(app)
    answer = await line.feed(request("HEAD", "/"))
    await line.end()
    assert b"content-length: 4" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("closes", [False, True])
async def test_finished_lines_stand_in_the_head_as_headers_do(*, status: int, method: str, closes: bool) -> None:
    """The shortcut for the commonest answer, and each way around it, say the same."""

    async def by_lines(scope: Scope, _receive: Receive, _send: Send) -> None:
        scope["extensions"][DIRECT].respond(status, [], b"four", b"content-type: text/plain\r\nx-a: 1\r\n")

    async def by_headers(scope: Scope, _receive: Receive, _send: Send) -> None:
        scope["extensions"][DIRECT].respond(status, [(b"content-type", b"text/plain"), (b"x-a", b"1")], b"four")

    answers = []
    for app in (by_lines, by_headers):
        line = Line(app)
        answers.append(await line.feed(request(method, "/", "connection: close" if closes else "")))
        await line.end()
    assert answers[0] == answers[1]
    assert b"\r\nx-a: 1\r\n" in answers[0]


async def test_a_second_answer_and_a_header_that_would_split_it_are_refused() -> None:
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        direct = scope["extensions"][DIRECT]
        direct.respond(200, [], b"one")
        with pytest.raises(RuntimeError, match="begun"):
            direct.respond(200, [], b"two")
        seen.append("once")

    line = Line(app)
    answer = await line.feed(request("GET", "/"))
    await line.end()
    assert answer.count(b"HTTP/1.1") == 1
    assert seen == ["once"]

    async def splitting(scope: Scope, _receive: Receive, _send: Send) -> None:
        scope["extensions"][DIRECT].respond(200, [(b"x-a", b"1\r\nx-b: 2")], b"")

    line = Line(splitting)
    answer = await line.feed(request("GET", "/"))
    await line.end()
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"x-b" not in answer


async def test_a_finished_request_is_freed_without_the_collector() -> None:
    kept: list[weakref.ref[object]] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        direct = scope["extensions"][DIRECT]
        kept.append(weakref.ref(direct))
        direct.respond(200, [], b"")

    line = Line(app)
    gc.disable()
    try:
        await line.feed(request("GET", "/"))
        await line.end()
        assert [one() for one in kept] == [None]
    finally:
        gc.enable()
