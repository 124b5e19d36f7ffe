"""Files that agents name by addresses nobody else can follow: read where they are, shown as users can use them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_doubles import FakeFetched
from convene.agent_identity import Identity
from convene.agents.base import Attachment, Heard
from convene.agents.storage import DATA_BYTES_MAX, Kept, Place, Storages, form_of, place_of
from convene.egress import EgressRefused
from convene.errors import NotFound, StoreFault
from convene.registry.attestation import proven_agent

if TYPE_CHECKING:
    from convene.agents.storage import PictureFormat
    from convene.egress import Request
    from fakes import FakeClock

FILE = "0b0e7a0c-9f5e-4f2e-8f0a-6c1d2e3f4a5b"
PNG = b"\x89PNG\r\n\x1a\n and more"
ME = Identity.from_seed("storage")


@pytest.mark.req("STORE-02")
@pytest.mark.parametrize(
    ("uri", "place"),
    [
        (f"agent-storage://agentverse.ai/v1/storage/{FILE}", Place("", "agentverse.ai", FILE)),
        (f"agent-storage://agentverse.ai/{FILE}", Place("", "agentverse.ai", FILE)),
        (f"agent-storage://https://agentverse.ai/v1/storage/{FILE}", Place("https", "agentverse.ai", FILE)),
        (f" agent-storage://http://127.0.0.1:8000/v1/storage/{FILE.upper()}/ ", Place("http", "127.0.0.1:8000", FILE)),
        (f"agent-storage://[::1]:8000/{FILE}", Place("", "[::1]:8000", FILE)),
        (f"https://agentverse.ai/v1/storage/{FILE}", None),
        ("agent-storage://agentverse.ai/v1/storage/other", None),
        (f"agent-storage://agentverse.ai/v1/other/{FILE}", None),
        (f"agent-storage://user@agentverse.ai/{FILE}", None),
        (f"agent-storage://a.test/{FILE}?x=1", None),
        (f"agent-storage:///{FILE}", None),
    ],
)
def test_every_form_of_an_address_names_a_file_at_a_host(uri: str, place: Place | None) -> None:
    assert place_of(uri) == place


@given(st.text(max_size=80))
def test_no_address_breaks_anything(text: str) -> None:
    place_of(text)
    place_of(f"agent-storage://{text}/{FILE}")


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (PNG, "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "webp"),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"<svg onload=x>", None),
        (b"", None),
    ],
)
def test_a_picture_is_known_by_its_bytes_and_not_by_what_it_is_called(data: bytes, form: str | None) -> None:
    assert form_of(data) == form


class Room:
    """Storages with a network that has one file, a storage of our own, and a shelf."""

    def __init__(self, clock: FakeClock, trusted: str = "") -> None:
        self.asked: list[Request] = []
        self.here: dict[str, Kept] = {}
        self.answer = FakeFetched(200, answered(PNG, "image/png"))
        self.breaks: Exception | None = None
        self.shelved: list[tuple[bytes, str, str]] = []
        self.storages = Storages(self, ME, clock, self.own, self.shelve, trusted)  # type: ignore[arg-type]  # a double of what it uses

    async def fetch(self, request: Request) -> FakeFetched:
        self.asked.append(request)
        if self.breaks is not None:
            raise self.breaks
        return self.answer

    async def own(self, host: str, file: str) -> Kept | None:
        if host != "here.test":
            return None
        if file not in self.here:
            raise NotFound("There is no file of this id that you may read, or it has expired.")
        return self.here[file]

    async def shelve(self, picture: bytes, form: PictureFormat, owner: str) -> str:
        self.shelved.append((picture, form, owner))
        return f"https://here.test/{len(self.shelved)}.{form}"

    async def opened(self, uri: str) -> Attachment:
        heard = Heard(kind="resource", attachments=(Attachment(uri=uri, media_type="text/html", role="made"),))
        [attachment] = (await self.storages.opened(heard, "o")).attachments
        return attachment


def answered(data: bytes, media_type: str) -> bytes:
    return msgspec.json.encode({"contents": base64.b64encode(data).decode(), "mime_type": media_type, "name": "x"})


@pytest.mark.req("STORE-02")
async def test_a_picture_elsewhere_becomes_a_link_of_ours(clock: FakeClock) -> None:
    room = Room(clock)
    opened = await room.opened(f"agent-storage://files.test/v1/storage/{FILE}")
    assert opened == Attachment(uri="https://here.test/1.png", media_type="image/png", role="made")
    assert room.shelved == [(PNG, "png", "o")]
    [request] = room.asked
    assert request.url == f"https://files.test/v1/storage/assets/{FILE}/contents/"
    assert request.redirects_max == 0
    assert "authorization" not in dict(request.headers)


@pytest.mark.req("STORE-02", "LIST-02")
@pytest.mark.parametrize(
    ("uri", "scheme", "proves"),
    [
        (f"agent-storage://agentverse.test/{FILE}", "https", True),
        (f"agent-storage://http://AGENTVERSE.test/{FILE}", "https", True),
        (f"agent-storage://agentverse.test:444/{FILE}", "https", False),
        (f"agent-storage://evil.test/{FILE}", "https", False),
        (f"agent-storage://http://evil.test/{FILE}", "http", False),
    ],
)
async def test_the_proof_of_who_we_are_goes_to_the_directory_alone_and_as_the_operator_wrote_it(
    uri: str,
    scheme: str,
    proves: bool,  # noqa: FBT001 -- a row of the table
    clock: FakeClock,
) -> None:
    room = Room(clock, "https://agentverse.test/")
    await room.opened(uri)
    [request] = room.asked
    assert request.url.startswith(f"{scheme}://")
    proof = dict(request.headers).get("authorization", "")
    assert bool(proof) is proves
    if proves:
        assert proven_agent(proof, clock.now()) == ME.address


@pytest.mark.req("STORE-02")
async def test_a_file_here_is_read_without_a_network(clock: FakeClock) -> None:
    room = Room(clock)
    room.here[FILE] = Kept("text/plain", b"notes")
    opened = await room.opened(f"agent-storage://http://here.test/v1/storage/{FILE}")
    assert opened.uri == "data:text/plain;base64,bm90ZXM="
    assert opened.media_type == "text/plain"
    assert room.asked == []


async def test_a_media_type_that_is_none_is_not_handed_on(clock: FakeClock) -> None:
    room = Room(clock)
    room.here[FILE] = Kept("text/html,<script>", b"notes")
    opened = await room.opened(f"agent-storage://here.test/{FILE}")
    assert opened.uri == "data:application/octet-stream;base64,bm90ZXM="


@pytest.mark.parametrize("what", ["missing", "refused", "404", "no JSON", "no base64", "too big", "no room"])
async def test_what_cannot_be_read_stays_as_it_is(what: str, clock: FakeClock) -> None:
    room = Room(clock)
    uri = f"agent-storage://{'here' if what == 'missing' else 'files'}.test/{FILE}"
    match what:
        case "refused":
            room.breaks = EgressRefused("It is in a private network.")
        case "404":
            room.answer = FakeFetched(404, b"{}")
        case "no JSON":
            room.answer = FakeFetched(200, b"<html>")
        case "no base64":
            room.answer = FakeFetched(200, b'{"contents": "***"}')
        case "too big":
            room.answer = FakeFetched(200, answered(b"x" * (DATA_BYTES_MAX + 1), "text/plain"))
        case "no room":
            room.breaks = StoreFault("Pictures cannot be kept now; ask for b64_json.", detail="full")
        case _:
            pass
    assert await room.opened(uri) == Attachment(uri=uri, media_type="text/html", role="made")


async def test_other_addresses_are_none_of_its_business(clock: FakeClock) -> None:
    room = Room(clock)
    assert (await room.opened("https://a.test/1.png")).uri == "https://a.test/1.png"
    assert (await room.opened("agent-storage://what is this")).uri == "agent-storage://what is this"
    assert room.asked == []
