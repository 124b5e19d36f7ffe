"""Who asks on the marketplace's routes, and how they are told of errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from convene.api.askers import Askers, in_their_words, read_body
from convene.api.call import Call
from convene.api.limit_headers import ReadyHeaders
from convene.errors import BadRequest, Conflict, Forbidden, RateLimited, StoreFault, TooLarge, Unauthorized
from convene.registry.base_desks import NOBODY, Asker
from convene.serving.base import Principal

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from convene.api.askers import Access

ANN = Principal(key_id="k", owner="user-ann", scopes=("api",), team_id="team-1")
LOCAL = {"host": "127.0.0.1:8000"}


class Gate:
    """Knows two keys: one at once, one by a look-up."""

    def admit(self, authorization: str | None) -> Principal | None:
        if authorization == "Bearer bad":
            raise Unauthorized("no")
        return ANN if authorization == "Bearer good" else None

    def still(self, principal: Principal) -> bool:
        return principal is ANN

    async def look_up(self, authorization: str | None) -> Principal:
        if authorization == "Bearer admin":
            return Principal(key_id="a", owner="x", scopes=("admin",))
        if authorization != "Bearer slow":
            raise Unauthorized("no")
        return ANN


def prove(header: str) -> str:
    if header != "Agent attr:good":
        raise Unauthorized("no")
    return "agent1ann"


def logged_in(token: str) -> str:
    if token != "good":
        raise Unauthorized("no")
    return "agent1old"


class Asked:
    """A call with some headers, and what is answered."""

    def __init__(self, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            self.sent.append(message)

        pairs = [(name.encode(), value.encode()) for name, value in (LOCAL | (headers or {})).items()]
        scope = {"type": "http", "path": "/", "headers": pairs}
        self.call = Call(scope, receive, send, 1000, ReadyHeaders())

    @property
    def answer(self) -> tuple[int, Any, dict[bytes, bytes]]:
        head, body = self.sent
        return head["status"], json.loads(body["body"]), dict(head["headers"])


def askers(access: Access = "loopback") -> Askers:
    gate = Gate()
    return Askers(lambda: gate, access, prove, logged_in)


async def asked(access: Access = "loopback", **headers: str) -> Asker:
    return await askers(access).of(Asked({name.replace("_", "-"): value for name, value in headers.items()}).call)


@pytest.mark.req("LIST-01", "LIST-02", "LIST-17")
async def test_each_kind_of_credential_proves_its_own() -> None:
    assert await asked("keys") == NOBODY
    assert await asked("keys", authorization="  ") == NOBODY
    for key in ("Bearer good", "Bearer slow"):
        assert await asked("keys", authorization=key) == Asker(owner="user-ann")
    assert await asked("keys", authorization="Agent attr:good") == Asker(agent="agent1ann")
    assert await asked("keys", authorization="agent   attr:good") == Asker(agent="agent1ann")
    assert await asked("keys", authorization="token good") == Asker(agent="agent1old")
    for wrong in ("Bearer bad", "Bearer other", "Agent attr:bad", "token bad", "Basic x", "Agent"):
        with pytest.raises(Unauthorized):
            await asked("keys", authorization=wrong)
    with pytest.raises(Forbidden):
        await asked("keys", authorization="Bearer admin")


@pytest.mark.req("LIST-01")
async def test_a_team_that_is_named_is_the_keys_own() -> None:
    assert (await asked(authorization="Bearer good", x_team="team-1")).owner == "user-ann"
    with pytest.raises(Forbidden):
        await asked(authorization="Bearer good", x_team="team-2")


@pytest.mark.parametrize(
    ("access", "headers", "trusted"),
    [
        ("loopback", {}, True),
        ("loopback", {"host": "localhost"}, True),
        ("loopback", {"host": "[::1]:8000"}, True),
        ("loopback", {"host": "example.com"}, False),
        ("loopback", {"host": ""}, False),
        ("loopback", {"x-forwarded-for": "1.2.3.4"}, False),
        ("loopback", {"forwarded": "for=1.2.3.4"}, False),
        ("loopback", {"x-real-ip": "1.2.3.4"}, False),
        ("loopback", {"origin": "http://127.0.0.1:8000"}, False),
        ("loopback", {"sec-fetch-site": "none"}, False),
        ("open", {"host": "example.com"}, True),
        ("open", {"x-forwarded-for": "1.2.3.4"}, True),
        ("open", {"origin": "https://evil.test"}, False),
        ("keys", {}, False),
    ],
)
async def test_a_registry_is_open_to_programs_as_it_is_set(
    access: Access,
    headers: dict[str, str],
    trusted: bool,  # noqa: FBT001 -- a table's column
) -> None:
    for key in ({}, {"authorization": "Bearer good"}, {"authorization": "Agent attr:good"}):
        assert (await askers(access).of(Asked(headers | key).call)).trusted is trusted


async def test_what_needs_an_owner_or_an_agent_takes_no_other() -> None:
    desk = askers()
    stranger, owner = Asked().call, Asked({"authorization": "Bearer good"}).call
    agent = Asked({"authorization": "Agent attr:good"}).call
    assert (await desk.owner(owner)).owner == "user-ann"
    assert (await desk.known(owner)).owner == "user-ann"
    assert (await desk.known(agent)).agent == "agent1ann"
    assert (await desk.agent(agent, "agent1ann")).agent == "agent1ann"
    for refused in (desk.owner(stranger), desk.owner(agent), desk.known(stranger), desk.agent(stranger, "agent1ann")):
        with pytest.raises(Unauthorized):
            await refused
    for refused in (desk.agent(agent, "agent1bob"), desk.agent(owner, "agent1ann"), desk.agent(owner, "")):
        with pytest.raises(Forbidden):
            await refused


@pytest.mark.req("LIST-10")
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (BadRequest("No 'x'.", param="x"), 400),
        (Unauthorized("Who?"), 401),
        (Forbidden("No."), 403),
        (Conflict("Taken.", code="handle_taken"), 409),
        (StoreFault("Out."), 503),
    ],
)
async def test_errors_say_it_in_both_words(fault: Exception, status: int) -> None:
    async def fail(_: Call) -> None:
        raise fault

    one = Asked()
    await in_their_words(fail)(one.call)
    sent, body, _ = one.answer
    assert sent == status
    assert body["detail"] == body["error"]["message"] == str(fault)
    assert body["error"].keys() == {"message", "type", "param", "code"}


async def test_an_error_keeps_its_headers_and_one_after_an_answer_is_raised_on() -> None:
    async def limited(_: Call) -> None:
        raise RateLimited("Slowly.", retry_after_s=2)

    one = Asked()
    await in_their_words(limited)(one.call)
    assert one.answer[2][b"retry-after"] == b"2"

    async def late(call: Call) -> None:
        await call.reply(200, b"{}")
        raise BadRequest("late")

    with pytest.raises(BadRequest):
        await in_their_words(late)(Asked().call)


async def test_a_body_is_an_object_of_bounded_size() -> None:
    assert await read_body(Asked(body=b'{"a":1}').call, 100) == {"a": 1}
    with pytest.raises(TooLarge):
        await read_body(Asked(body=b" " * 101).call, 100)
    with pytest.raises(TooLarge):
        await read_body(Asked(body=b" " * 1001).call, 2000)
    for wrong in (b"", b"[]", b"{", b"1"):
        with pytest.raises(BadRequest):
            await read_body(Asked(body=wrong).call, 100)
