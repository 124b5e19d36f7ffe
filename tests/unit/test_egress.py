"""The guarded way out over doubles: the order of its steps, redirects, headers, ports, caps and slots. No network."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from convene.egress import CLOSED, Egress, EgressBusy, EgressFailed, EgressRefused, Fault, Request, Rules, WireFault
from convene.egress_address import Judge, read_networks
from convene.egress_lookup import LookupBusy
from egress_doubles import PUBLIC, Names, NotedWire, Told, guarded, pages
from egress_samples import BAD_V4, BAD_V6
from unit.http.client_doubles import run

if TYPE_CHECKING:
    from convene.errors import ToolFault

OTHER = "151.101.1.140"
START = "https://a.example/start"


def ask(url: str = START, **fields: object) -> Request:
    return Request(url=url, **fields)  # type: ignore[arg-type]


def refusal(egress: Egress, request: Request) -> ToolFault:
    """Return the refusal of a request that must be refused."""

    async def fetch() -> ToolFault:
        with pytest.raises(EgressRefused) as caught:
            await egress.fetch(request)
        return caught.value

    return run(fetch())


def redirect(location: str, status: int = 302) -> Told:
    return Told(status=status, headers={"location": location})


def allowing(*networks: str, **fields: object) -> Rules:
    return Rules(judge=Judge(allow=read_networks(networks)), **fields)  # type: ignore[arg-type]


def test_a_page_is_fetched_from_the_judged_addresses_under_its_own_name() -> None:
    async def scene() -> None:
        names = Names({"a.example": [PUBLIC, "2606:4700:4700::1111"]})
        egress, wire, _ = guarded(NotedWire(lambda _: Told(pieces=(b"he", b"llo"))), names)
        async with await egress.fetch(ask()) as page:
            assert (page.status, page.url, await page.read()) == (200, START, b"hello")
        hop = wire.hops[0]
        assert hop.addresses == (PUBLIC, "2606:4700:4700::1111")
        assert hop.place.host == "a.example"
        assert names.asked == ["a.example"], "looked up once: what was judged is what is connected to"

    run(scene())


def test_an_address_in_the_url_is_judged_and_never_looked_up() -> None:
    async def scene() -> None:
        egress, wire, names = guarded()
        await egress.fetch(ask("http://8.8.8.8/"))
        assert wire.hops[0].addresses == ("8.8.8.8",)
        assert names.asked == []

    run(scene())


@pytest.mark.parametrize("address", [*BAD_V4, *BAD_V6, "", "nonsense", "fe80::1%eth0"])
def test_one_bad_answer_of_several_is_enough_to_refuse(address: str) -> None:
    for answers in ([address], [PUBLIC, address], [address, PUBLIC], [PUBLIC] * 20 + [address]):
        egress, wire, _ = guarded(names=Names({"a.example": answers}))
        assert refusal(egress, ask()).message == CLOSED
        assert wire.hops == []


def test_a_name_without_an_address_is_refused_in_the_very_words_of_one_that_leads_inside() -> None:
    answers: tuple[list[str] | Exception, ...] = ([], ["10.0.0.1"], OSError("no such name"), TimeoutError())
    faults = [refusal(guarded(names=Names({"a.example": one}))[0], ask()) for one in answers]
    assert {(type(fault), fault.message, fault.code) for fault in faults} == {(EgressRefused, CLOSED, "tool_error")}


def test_no_refusal_names_an_address_or_a_host() -> None:
    for url in ("http://10.0.0.1/", "http://a.example:22/", "http://u:secret@a.example/", "http://127.1/"):
        fault = refusal(guarded()[0], ask(url))
        assert not any(word in fault.message for word in ("10.0.0.1", "a.example", "secret", "127.1"))


def test_a_lookup_that_takes_too_long_is_a_refusal_after_its_own_wait() -> None:
    async def slow(host: str, port: int) -> list[str]:
        del host, port
        await asyncio.sleep(3600)
        return [PUBLIC]

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(EgressRefused, match="cannot be reached"):
            await Egress(Rules(connect_s=5.0), slow, NotedWire()).fetch(ask())
        assert loop.time() - began == pytest.approx(5.0)

    run(scene())


def test_too_many_lookups_are_told_as_something_to_try_again() -> None:
    async def scene() -> None:
        egress, _, _ = guarded(names=Names({"a.example": LookupBusy()}))
        with pytest.raises(EgressBusy):
            await egress.fetch(ask())

    run(scene())


def test_only_the_first_eight_addresses_are_tried() -> None:
    async def scene() -> None:
        answers = [f"8.8.8.{number}" for number in range(20)]
        egress, wire, _ = guarded(names=Names({"a.example": answers}))
        await egress.fetch(ask())
        assert list(wire.hops[0].addresses) == answers[:8]

    run(scene())


# Ports.


@pytest.mark.parametrize("port", [1, 22, 25, 79, 81, 444, 3306, 6379, 8080, 65535])
def test_ports_other_than_the_usual_are_refused(port: int) -> None:
    egress, wire, _ = guarded()
    assert "80, 443" in refusal(egress, ask(f"http://a.example:{port}/")).message
    assert wire.hops == []


def test_https_on_80_and_http_on_443_and_configured_ports_are_usual() -> None:
    async def scene() -> None:
        egress, wire, _ = guarded(rules=Rules(ports=frozenset((80, 443, 8080))))
        for url in ("https://a.example:80/", "http://a.example:443/", "http://a.example:8080/"):
            await egress.fetch(ask(url))
        assert len(wire.hops) == 3

    run(scene())


def test_every_port_of_an_allowed_network_is_free_and_those_of_public_hosts_are_not() -> None:
    async def scene() -> None:
        names = Names({"in.example": ["10.1.0.5"], "both.example": ["10.1.0.5", PUBLIC]}, otherwise=PUBLIC)
        egress, wire, _ = guarded(names=names, rules=allowing("10.1.0.0/16"))
        await egress.fetch(ask("http://in.example:9200/"))
        await egress.fetch(ask("http://10.1.0.6:9200/"))
        await egress.fetch(ask("http://both.example/"))
        assert [hop.addresses[0] for hop in wire.hops] == ["10.1.0.5", "10.1.0.6", "10.1.0.5"]
        for url in ("http://both.example:9200/", "http://out.example:9200/"):
            with pytest.raises(EgressRefused, match="ports"):
                await egress.fetch(ask(url))
        with pytest.raises(EgressRefused, match="cannot be reached"):
            await egress.fetch(ask("http://10.2.0.1:9200/"))

    run(scene())


# Redirects.


def test_redirects_are_followed_and_each_is_looked_up_and_judged_anew() -> None:
    async def scene() -> None:
        table = {
            START: redirect("/two"),
            "https://a.example/two": redirect("https://b.example/three", 301),
            "https://b.example/three": redirect("//c.example", 308),
            "https://c.example/": Told(pieces=(b"there",)),
        }
        egress, wire, names = guarded(NotedWire(pages(table)))
        page = await egress.fetch(ask())
        assert (page.url, await page.read()) == ("https://c.example/", b"there")
        assert names.asked == ["a.example", "a.example", "b.example", "c.example"]
        assert [reply.closed > 0 for reply in wire.replies] == [True] * 4

    run(scene())


def test_the_fourth_redirect_is_refused() -> None:
    egress, wire, _ = guarded(NotedWire(lambda hop: redirect(hop.place.target + "x")))
    assert "more than 3 times" in refusal(egress, ask()).message
    assert len(wire.hops) == 4
    assert all(reply.closed for reply in wire.replies)


def test_a_caller_may_ask_for_fewer_redirects_and_never_for_more() -> None:
    egress, wire, _ = guarded(NotedWire(lambda hop: redirect(hop.place.target + "x")))
    refusal(egress, ask(redirects_max=1))
    assert len(wire.hops) == 2
    refusal(egress, ask(redirects_max=100))
    assert len(wire.hops) == 6


def test_without_redirects_the_redirect_itself_is_the_answer() -> None:
    async def scene() -> None:
        egress, wire, _ = guarded(NotedWire(lambda _: redirect("http://10.0.0.1/")))
        page = await egress.fetch(ask(redirects_max=0))
        assert (page.status, len(wire.hops)) == (302, 1)

    run(scene())


@pytest.mark.parametrize("status", [200, 300, 304, 305, 306])
def test_other_answers_with_a_location_are_no_redirects(status: int) -> None:
    async def scene() -> None:
        egress, wire, _ = guarded(NotedWire(lambda _: redirect("/x", status)))
        assert (await egress.fetch(ask())).status == status
        assert len(wire.hops) == 1

    run(scene())


@pytest.mark.parametrize(
    "location",
    ["http://10.0.0.1/", "http://127.0.0.1/", "//[::1]/", "http://inside.example/", "http://169.254.169.254/latest"],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_inside_is_refused_before_anything_is_sent_there(location: str, status: int) -> None:
    names = Names({"inside.example": ["192.168.1.1"]}, otherwise=PUBLIC)
    egress, wire, _ = guarded(NotedWire(lambda _: redirect(location, status)), names)
    assert refusal(egress, ask()).message == CLOSED
    assert [hop.place.host for hop in wire.hops] == ["a.example"]


def test_a_name_that_changes_its_address_between_redirects_is_judged_each_time() -> None:
    names = Names(otherwise=PUBLIC)
    names.turns["a.example"] = [[PUBLIC], ["127.0.0.1"]]
    egress, wire, _ = guarded(NotedWire(lambda _: redirect("/again")), names)
    assert refusal(egress, ask()).message == CLOSED
    assert [hop.addresses for hop in wire.hops] == [(PUBLIC,)]


SECRET = (
    ("Authorization", "Bearer k"),
    ("X-Api-Key", "k"),
    ("Cookie", "a=b"),
    ("Idempotency-Key", "1"),
    ("x-other", "1"),
)


def test_headers_stay_with_their_origin_and_do_not_come_back() -> None:
    async def scene() -> None:
        table = {
            START: redirect("/same"),
            "https://a.example/same": redirect("https://b.example/"),
            "https://b.example/": redirect("https://a.example/end"),
            "https://a.example/end": Told(),
        }
        egress, wire, _ = guarded(NotedWire(pages(table)))
        await egress.fetch(ask(headers=(*SECRET, ("Accept-Language", "de"))))
        sent = [{name.lower() for name, _ in hop.headers} for hop in wire.hops]
        ours = {"accept", "accept-encoding", "accept-language", "user-agent"}
        secret = {name.lower() for name, _ in SECRET}
        assert sent == [ours | secret, ours | secret, ours, ours]

    run(scene())


@pytest.mark.parametrize(
    "target", ["https://a.example:444/", "http://a.example/", "https://b.a.example/", "https://example/"]
)
def test_another_port_scheme_or_name_is_another_origin(target: str) -> None:
    async def scene() -> None:
        rules = Rules(ports=frozenset((80, 443, 444)))
        egress, wire, _ = guarded(
            NotedWire(lambda hop: redirect(target) if hop.place.url == START else Told()), rules=rules
        )
        await egress.fetch(ask(headers=(("accept", "x"),)))
        assert len(wire.hops) == 2
        try:
            await egress.fetch(ask(headers=SECRET))
        except EgressRefused:
            assert target.startswith("http://")
        else:
            assert not {name.lower() for name, _ in wire.hops[-1].headers} & {name.lower() for name, _ in SECRET}

    run(scene())


def test_credentials_are_never_redirected_from_https_to_http() -> None:
    egress, wire, _ = guarded(NotedWire(lambda _: redirect("http://a.example/")))
    assert "from https to http" in refusal(egress, ask(headers=SECRET[:1])).message
    assert len(wire.hops) == 1


def test_a_post_becomes_a_get_without_its_body_where_it_must() -> None:
    async def scene(status: int) -> tuple[str, bytes, set[str]]:
        egress, wire, _ = guarded(NotedWire(lambda hop: redirect("/b", status) if hop.place.url == START else Told()))
        headers = (("Content-Type", "application/json"), ("x-key", "k"))
        await egress.fetch(ask(method="POST", body=b"{}", headers=headers))
        hop = wire.hops[1]
        return hop.method, hop.body, {name.lower() for name, _ in hop.headers} & {"content-type", "x-key"}

    for status in (301, 302, 303):
        assert run(scene(status)) == ("GET", b"", {"x-key"})
    for status in (307, 308):
        assert run(scene(status)) == ("POST", b"{}", {"content-type", "x-key"})


def test_a_body_is_never_sent_on_to_another_origin() -> None:
    egress, wire, _ = guarded(NotedWire(lambda _: redirect("https://b.example/", 307)))
    assert "another site" in refusal(egress, ask(method="POST", body=b"{}")).message
    assert len(wire.hops) == 1


def test_a_head_request_stays_one() -> None:
    async def scene() -> None:
        egress, wire, _ = guarded(NotedWire(lambda hop: redirect("/b", 303) if hop.place.url == START else Told()))
        await egress.fetch(ask(method="HEAD"))
        assert [hop.method for hop in wire.hops] == ["HEAD", "HEAD"]

    run(scene())


# What is sent and what comes back.


def test_the_caller_s_headers_beat_the_defaults() -> None:
    async def scene() -> None:
        egress, wire, _ = guarded(rules=Rules(user_agent="Our Convene"))
        await egress.fetch(ask(headers=(("Accept", "text/html"), ("ACCEPT-ENCODING", "identity"))))
        assert wire.hops[0].headers == (
            ("Accept", "text/html"),
            ("ACCEPT-ENCODING", "identity"),
            ("user-agent", "Our Convene"),
        )

    run(scene())


def test_cookies_of_an_answer_are_never_shown() -> None:
    async def scene() -> None:
        headers = {"set-cookie": "a=b", "set-cookie2": "c=d", "content-type": "text/html"}
        egress, _, _ = guarded(NotedWire(lambda _: Told(headers=headers)))
        assert (await egress.fetch(ask())).headers == {"content-type": "text/html"}

    run(scene())


def test_a_body_is_given_in_full_up_to_the_cap_and_not_one_byte_further() -> None:
    async def scene() -> None:
        wire = NotedWire(lambda _: Told(pieces=(b"x" * 600, b"y" * 424)))
        egress, _, _ = guarded(wire, rules=Rules(body_bytes_max=1024))
        assert len(await (await egress.fetch(ask())).read()) == 1024
        page = await egress.fetch(ask(body_bytes_max=1023))
        with pytest.raises(EgressFailed, match="larger than 1023 bytes") as caught:
            await page.read()
        assert caught.value.fault == "too_large"
        assert wire.replies[1].closed
        assert len(await (await egress.fetch(ask(body_bytes_max=9999))).read()) == 1024

    run(scene())


def test_a_caller_cannot_raise_the_server_s_caps() -> None:
    async def scene() -> None:
        egress, wire, _ = guarded(NotedWire(lambda _: Told(pieces=(b"x" * 2000,))), rules=Rules(body_bytes_max=1024))
        page = await egress.fetch(ask(body_bytes_max=9999, total_s=9999.0))
        with pytest.raises(EgressFailed, match="1024"):
            await page.read()
        assert wire.hops[0].total_s <= Rules().total_s
        assert wire.hops[0].body_bytes_max == 1024

    run(scene())


def test_a_declared_length_above_the_cap_is_refused_unread() -> None:
    async def scene() -> None:
        read: list[bytes] = []
        told = Told(headers={"content-length": "1025"}, pieces=(b"x",))
        egress, wire, _ = guarded(NotedWire(lambda _: told), rules=Rules(body_bytes_max=1024))
        page = await egress.fetch(ask())
        with pytest.raises(EgressFailed, match="larger"):
            read.extend([chunk async for chunk in page.chunks()])
        assert read == []
        assert wire.replies[0].closed

    run(scene())


FAULTS: tuple[Fault, ...] = ("connect", "timeout", "broken", "too_large")


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_wire_are_told_in_words_without_its_own(fault: Fault) -> None:
    async def scene() -> None:
        told = (Told(fault=WireFault(fault, "10.0.0.1 said no")), Told(body_fault=WireFault(fault, "10.0.0.1 said no")))
        for one in told:
            egress, _, _ = guarded(NotedWire(lambda _, one=one: one))  # type: ignore[misc]
            with pytest.raises(EgressFailed) as caught:
                await (await egress.fetch(ask())).read()
            assert caught.value.fault == fault
            assert "10.0.0.1" not in caught.value.message
            assert "10.0.0.1" in caught.value.detail

    run(scene())


def test_the_whole_fetch_ends_after_its_time_redirects_included() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        wire = NotedWire(lambda hop: Told(status=302, headers={"location": hop.place.target + "x"}, waits_s=9.0))
        egress, _, _ = guarded(wire, rules=Rules(total_s=20.0))
        began = loop.time()
        with pytest.raises(EgressFailed, match="within 20 s") as caught:
            await egress.fetch(ask())
        assert caught.value.fault == "timeout"
        assert loop.time() - began == pytest.approx(20.0)
        assert [round(hop.total_s) for hop in wire.hops] == [20, 11, 2]
        with pytest.raises(EgressFailed, match="within 5 s"):
            await egress.fetch(ask(total_s=5.0))

    run(scene())


# The operator's proxy.


def test_with_a_proxy_names_are_left_to_it_and_addresses_are_still_judged() -> None:
    async def scene() -> None:
        egress, wire, names = guarded(rules=allowing("10.1.0.0/16", is_proxied=True))
        await egress.fetch(ask())
        await egress.fetch(ask("http://8.8.8.8/"))
        await egress.fetch(ask("http://10.1.0.1:9200/"))
        assert [hop.addresses for hop in wire.hops] == [(), (), ()]
        assert names.asked == []
        for url in ("http://10.0.0.1/", "http://[::1]/", "http://a.example:8080/", "http://8.8.8.8:8080/"):
            with pytest.raises(EgressRefused):
                await egress.fetch(ask(url))
        assert len(wire.hops) == 3

    run(scene())


# Slots.


def test_no_more_than_the_slots_are_open_and_a_closed_answer_lets_the_next_in() -> None:
    async def scene() -> None:
        egress, wire, _ = guarded(rules=Rules(open_max=3, open_per_host_max=2))
        open_pages = [await egress.fetch(ask(f"https://a.example/{number}")) for number in range(2)]
        third = asyncio.ensure_future(egress.fetch(ask("https://a.example/2")))
        open_pages.append(await egress.fetch(ask("https://b.example/")))
        fourth = asyncio.ensure_future(egress.fetch(ask("https://c.example/")))
        await asyncio.sleep(1)
        assert [hop.place.host for hop in wire.hops] == ["a.example", "a.example", "b.example"]
        open_pages[2].close()
        open_pages[2].close()
        open_pages.append(await fourth)
        await asyncio.sleep(1)
        assert not third.done()
        open_pages[0].close()
        open_pages.append(await third)
        for page in open_pages:
            page.close()
        assert egress._slots._hosts == {}

    run(scene())


@pytest.mark.parametrize("seed", range(20))
def test_slots_are_given_back_whatever_ends_a_fetch(seed: int) -> None:
    async def scene() -> None:
        table = [
            Told(waits_s=3.0),
            Told(fault=WireFault("broken", "")),
            redirect("http://10.0.0.1/"),
            Told(pieces=(b"x" * 9999,)),
        ]
        egress, _, _ = guarded(
            NotedWire(lambda hop: table[(seed + len(hop.place.target)) % 4]),
            rules=Rules(open_max=2, open_per_host_max=1, body_bytes_max=1024),
        )

        async def one(number: int) -> None:
            async with await egress.fetch(ask(f"https://a{number % 3}.example/{'x' * number}")) as page:
                await page.read()

        tasks = [asyncio.ensure_future(one(number)) for number in range(12)]
        for number, task in enumerate(tasks):
            await asyncio.sleep(0.5 * ((seed * 7 + number) % 3))
            if (seed + number) % 3 == 0:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert egress._slots._hosts == {}
        for _ in range(2):
            await egress._slots.take(str(_))

    run(scene())
