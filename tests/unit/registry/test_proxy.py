"""The proxy: what is handed on where, and what comes back."""

from __future__ import annotations

import json

import pytest

from convene.egress import EgressBusy
from convene.errors import BadRequest, Busy, Malformed, NotFound, TimedOut, Unavailable
from convene.registry.base_desks import Forwarded
from convene.registry.proxy import ANSWER_BYTES_MAX, FORWARD_S
from convene.store.base_market import Terms
from market_desks import ANNS, MAILBOX, OPEN, PROXY, Answer, Desks, refused, unreachable
from signed_agents import SignedAgent
from unit.registry.test_listings import own

ANN, BOB = SignedAgent("ann"), SignedAgent("bob")
HOOK = "http://127.0.0.1:9000/hook"
BODY = json.dumps(BOB.envelope(ANN.address)).encode()


async def behind(url: str = HOOK) -> Desks:
    """Return desks where Ann is behind the proxy."""
    desks = Desks()
    await own(desks, ANN)
    await desks.listings.save({"address": ANN.address, "url": url, "endpoints": [{"url": PROXY, "weight": 1}]}, ANNS)
    return desks


@pytest.mark.req("PROXY-01")
@pytest.mark.parametrize("connection", ["", "sync"])
async def test_body_and_connection_are_handed_on_and_nothing_else(connection: str) -> None:
    desks = await behind()
    desks.egress.answer = Answer(200, b'{"a":1}', "application/json; charset=utf-8")
    assert await desks.proxy.submit(BODY, connection, proxied=False) == Forwarded(200, b'{"a":1}', "application/json")
    [asked] = desks.egress.asked
    assert (asked.url, asked.method, asked.body) == (HOOK, "POST", BODY)
    expected = {"content-type": "application/json", "x-convene-proxied": "1"}
    assert dict(asked.headers) == expected | ({"x-uagents-connection": connection} if connection else {})
    assert (asked.redirects_max, asked.total_s, asked.body_bytes_max) == (0, FORWARD_S, ANSWER_BYTES_MAX)
    assert desks.egress.answer.closed


@pytest.mark.parametrize(
    ("status", "media_type", "shown"),
    [
        (200, "", "application/json"),
        (400, "text/plain", "text/plain"),
        (500, "text/html", "application/json"),
        (302, "image/svg+xml", "application/json"),
    ],
)
async def test_an_answer_keeps_its_status_and_never_becomes_a_page(status: int, media_type: str, shown: str) -> None:
    desks = await behind()
    desks.egress.answer = Answer(status, b"<script>", media_type)
    assert await desks.proxy.submit(BODY, "", proxied=False) == Forwarded(status, b"<script>", shown)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (unreachable("connect"), Unavailable),
        (unreachable("broken"), Unavailable),
        (unreachable("timeout"), TimedOut),
        (unreachable("too_large"), Malformed),
        (refused(), Unavailable),
        (EgressBusy("Too much."), Busy),
    ],
)
async def test_what_goes_wrong_is_said_without_telling_what_is_there(fault: Exception, kind: type[Exception]) -> None:
    desks = await behind()
    desks.egress.fault = fault
    with pytest.raises(kind) as raised:
        await desks.proxy.submit(BODY, "", proxied=False)
    assert "10.0.0.9" not in str(raised.value)


async def test_only_who_is_behind_the_proxy_is_reached_through_it() -> None:
    desks = Desks()
    with pytest.raises(NotFound):
        await desks.proxy.submit(BODY, "", proxied=False)
    await desks.almanac.register([ANN.registration(desks.now)], OPEN)
    with pytest.raises(NotFound):
        await desks.proxy.submit(BODY, "", proxied=False)
    assert not await desks.proxy.is_ready(ANN.address)
    desks = await behind()
    assert await desks.proxy.is_ready(ANN.address)
    await desks.market.set_terms(ANN.address, Terms(enabled=False), desks.now_us)
    assert not await desks.proxy.is_ready(ANN.address)
    with pytest.raises(NotFound):
        await desks.proxy.submit(BODY, "", proxied=False)
    assert desks.egress.asked == []


@pytest.mark.parametrize("url", ["", PROXY, MAILBOX, "http://elsewhere.test/v2/agents/proxy/submit"])
async def test_no_envelope_goes_in_circles(url: str) -> None:
    desks = await behind(url)
    with pytest.raises(NotFound):
        await desks.proxy.submit(BODY, "", proxied=False)
    with pytest.raises(BadRequest):
        await (await behind()).proxy.submit(BODY, "", proxied=True)


@pytest.mark.parametrize(("body", "connection"), [(b"{}", ""), (b"", ""), (BODY, "keep-alive"), (BODY, "sync\r\nx: y")])
async def test_what_is_no_envelope_is_not_handed_on(body: bytes, connection: str) -> None:
    desks = await behind()
    with pytest.raises(BadRequest):
        await desks.proxy.submit(body, connection, proxied=False)
    assert desks.egress.asked == []
