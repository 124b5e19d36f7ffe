"""A request for pictures finds its model, reserves, has them drawn, looks at what came, and settles exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import io
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from PIL import Image

from convene.errors import BadRequest, Busy, ConveneError, Malformed, NotFound, StoreFault, TimedOut, UpstreamFault
from convene.providers.base_images import ImageAsk, ImageCapabilities, ImageMade, ImageProgress
from convene.serving.base import ModelCard, Outcome, Principal
from convene.serving.base_images import ImageRequest, Picture
from convene.serving.catalog import Catalog, Deployment
from convene.serving.images import ImageDesk, fit, sizes_of
from fakes import FakeClock
from unit.serving.test_turn import Books

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.providers.base_images import ImageEvent

WHO = Principal(key_id="k", owner="o")
CARD = ModelCard(id="real", created=0, owned_by="up", upstream="up", target="sdxl", kind="image", aliases=("brush",))


def picture(form: str = "png", size: tuple[int, int] = (8, 6)) -> bytes:
    """Return the bytes of a small picture."""
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, form)
    return out.getvalue()


def made(index: int = 0, data: bytes | None = None) -> ImageMade:
    return ImageMade(index=index, data=picture() if data is None else data, seed=7)


class Painter:
    """An `ImageModel` that gives what it was told to, raises what is a fault, and waits for ever at None."""

    upstream = "up"

    def __init__(self, *told: ImageEvent | Exception | None, **can: Any) -> None:  # noqa: ANN401 -- capabilities
        self.capabilities = ImageCapabilities(**can)
        self.told = told
        self.asked: list[ImageAsk] = []
        self.closed = 0
        self.waiting = asyncio.Event()

    def ready(self) -> str | None:
        return None

    async def generate(self, ask: ImageAsk) -> AsyncGenerator[ImageEvent]:
        self.asked.append(ask)
        try:
            for one in self.told:
                if one is None:
                    self.waiting.set()
                    await asyncio.Event().wait()
                elif isinstance(one, Exception):
                    raise one
                else:
                    yield one
        finally:
            self.closed += 1


class Shelves:
    """Keeps `room` pictures, and none after that."""

    def __init__(self, room: int = 9) -> None:
        self.room = room
        self.kept: list[tuple[str, bytes]] = []

    async def shelve(self, picture: Picture, owner: str) -> str:
        if len(self.kept) == self.room:
            raise StoreFault("full")
        self.kept.append((owner, picture.data))
        return f"link {len(self.kept)}"

    async def fetch(self, file: str, expires: int, signature: str) -> tuple[bytes, str]:
        raise NotImplementedError

    async def delete(self, file: str, owner: str) -> None:
        raise NotImplementedError


def desk(model: Painter, books: Books, longest_s: float = 900.0, shelves: Shelves | None = None) -> ImageDesk:
    catalog = Catalog([Deployment(card=CARD, image=model)])
    return ImageDesk(catalog, books, FakeClock(), shelves or Shelves(), longest_s)


def wish(**fields: Any) -> ImageRequest:  # noqa: ANN401 -- fields of the request
    return ImageRequest(**({"model": "brush", "prompt": "a fox", "request_id": "req_1"} | fields))


async def test_pictures_are_reserved_by_their_number_and_settled_once_with_what_was_made() -> None:
    model, books, outcome = Painter(made(0), made(1)), Books(), Outcome()
    drawn = await desk(model, books).draw(wish(count=2, output_format="webp"), WHO, outcome)
    (ask,) = books.reserved
    assert (ask.kind, ask.model, ask.model_asked, ask.images) == ("image", "real", "brush", 2)
    assert books.settled == [outcome]
    assert (outcome.status, outcome.finish, outcome.images, outcome.model) == ("ok", "stop", 2, "real")
    assert [(one.format, one.width, one.height, one.seed) for one in drawn.pictures] == [("webp", 8, 6, 7)] * 2
    assert (drawn.model, model.closed) == ("real", 1)


async def test_progress_is_told_on_the_way_and_is_no_picture() -> None:
    seen: list[ImageProgress] = []
    outcome = Outcome()
    model = Painter(ImageProgress(1, 4), ImageProgress(3, 4), made())
    await desk(model, Books()).draw(wish(), WHO, outcome, seen.append)
    assert seen == [ImageProgress(1, 4), ImageProgress(3, 4)]
    assert outcome.images == 1
    assert outcome.first_event_ms is not None


async def test_a_model_that_gives_more_than_was_asked_for_is_stopped() -> None:
    model, outcome = Painter(made(0), made(1), made(2), None), Outcome()
    drawn = await desk(model, Books()).draw(wish(count=2), WHO, outcome)
    assert (len(drawn.pictures), outcome.images, model.closed) == (2, 2, 1)


async def test_refusals_cost_nothing_and_ask_nobody() -> None:
    model, books = Painter(made()), Books()
    for fault, request in ((NotFound, wish(model="nobody")), (BadRequest, wish(size="1x1"))):
        with pytest.raises(fault):
            await desk(model, books).draw(request, WHO, Outcome())
    assert (books.reserved, model.asked) == ([], [])
    with pytest.raises(Busy):
        await desk(model, Books(Busy("full"))).draw(wish(), WHO, Outcome())
    assert model.asked == []


@pytest.mark.parametrize(
    ("told", "fault", "code"),
    [
        ([UpstreamFault("down")], UpstreamFault, "upstream_error"),
        ([made(), UpstreamFault("down")], UpstreamFault, "upstream_error"),
        ([made(), made(1, b"\x89PNG\r\n\x1a\nbroken")], Malformed, "upstream_malformed"),
        ([], Malformed, "upstream_malformed"),
        ([ImageProgress(1, 2)], Malformed, "upstream_malformed"),
        ([BadRequest("not drawn")], BadRequest, "invalid_value"),
        ([RuntimeError("a bug")], RuntimeError, "internal_error"),
    ],
)
async def test_whatever_fails_settles_once_and_owes_nothing_for_what_nobody_gets(
    told: list[Any], fault: type[Exception], code: str
) -> None:
    model, books, outcome = Painter(*told), Books(), Outcome()
    with pytest.raises(fault):
        await desk(model, books).draw(wish(count=2), WHO, outcome)
    assert books.settled == [outcome]
    assert (outcome.status, outcome.finish, outcome.images, outcome.usage) == ("failed", code, 0, None)
    assert model.closed == 1


async def test_of_a_stream_that_breaks_off_is_owed_what_has_left() -> None:
    model, books, outcome = Painter(made(), UpstreamFault("down")), Books(), Outcome()
    events = desk(model, books).events(wish(count=2, stream=True), WHO, outcome)
    assert isinstance(await anext(events), Picture)
    with pytest.raises(UpstreamFault):
        await anext(events)
    assert books.settled == [outcome]
    assert (outcome.status, outcome.images) == ("failed", 1)
    assert outcome.usage is not None


@pytest.mark.parametrize(("told", "images"), [([None], 0), ([made(), None], 1), ([ImageProgress(1, 2), None], 0)])
async def test_a_client_that_leaves_ends_the_work_and_pays_for_what_was_made(told: list[Any], images: int) -> None:
    model, books, outcome = Painter(*told), Books(), Outcome()
    task = asyncio.create_task(desk(model, books).draw(wish(count=2), WHO, outcome))
    await model.waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.closed == 1
    assert books.settled == [outcome]
    assert (outcome.status, outcome.images, outcome.usage is not None) == ("client_left", images, images > 0)


async def test_what_is_asked_for_as_a_link_is_kept_for_its_owner_before_the_books_are() -> None:
    shelves, books, outcome = Shelves(), Books(), Outcome()
    drawn = await desk(Painter(made(0), made(1)), books, shelves=shelves).draw(
        wish(count=2, as_link=True), WHO, outcome
    )
    assert [one.link for one in drawn.pictures] == ["link 1", "link 2"]
    assert shelves.kept == [(WHO.owner, one.data) for one in drawn.pictures]
    assert (outcome.status, outcome.images) == ("ok", 2)
    plain = await desk(Painter(made()), books, shelves=shelves).draw(wish(), WHO, Outcome())
    assert [one.link for one in plain.pictures] == [""]
    assert len(shelves.kept) == 2


@pytest.mark.parametrize(("room", "streamed"), [(0, 0), (1, 1)])
async def test_a_picture_that_cannot_be_kept_is_not_paid_for(room: int, streamed: int) -> None:
    books, outcome = Books(), Outcome()
    with pytest.raises(StoreFault):
        await desk(Painter(made(0), made(1)), books, shelves=Shelves(room)).draw(
            wish(count=2, as_link=True), WHO, outcome
        )
    assert books.settled == [outcome]
    assert (outcome.status, outcome.finish, outcome.images, outcome.usage) == ("failed", "store_unavailable", 0, None)
    outcome, seen = Outcome(), []
    events = desk(Painter(made(0), made(1)), books, shelves=Shelves(room)).events(
        wish(count=2, as_link=True, stream=True), WHO, outcome
    )
    with contextlib.suppress(StoreFault):
        async for one in events:
            seen.append(one)  # noqa: PERF401 -- what came before the fault
    assert len(seen) == outcome.images == streamed
    assert (outcome.status, outcome.usage is not None) == ("failed", streamed > 0)


async def test_a_reader_that_stops_reading_ends_the_work() -> None:
    model, books, outcome = Painter(ImageProgress(1, 2), None), Books(), Outcome()
    async with aclosing(desk(model, books).events(wish(stream=True), WHO, outcome)) as events:
        assert await anext(events) == ImageProgress(1, 2)
    assert (model.closed, books.settled, outcome.status) == (1, [outcome], "client_left")


async def test_a_request_has_its_time_and_no_more() -> None:
    model, books, outcome = Painter(made(), None), Books(), Outcome()
    with pytest.raises(TimedOut, match="fewer or smaller"):
        await desk(model, books, longest_s=0).draw(wish(count=2), WHO, outcome)
    assert books.settled == [outcome]
    assert (model.closed, outcome.status, outcome.finish, outcome.images) == (1, "failed", "upstream_timeout", 0)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": " \n"}, "prompt"),
        ({"count": 5}, "n"),
        ({"size": "300x300"}, "size"),
        ({"background": "transparent"}, "background"),
    ],
)
def test_what_a_model_cannot_make_is_refused_by_the_fields_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        fit(wish(**fields), ImageCapabilities())
    assert caught.value.param == param


def test_transparency_is_not_promised_in_a_form_without_it() -> None:
    can = ImageCapabilities(transparent=True)
    assert fit(wish(background="transparent", output_format="webp"), can).background == "transparent"
    with pytest.raises(BadRequest) as caught:
        fit(wish(background="transparent", output_format="jpeg"), can)
    assert caught.value.param == "output_format"


def test_a_model_is_asked_only_for_sizes_it_has() -> None:
    can = ImageCapabilities(side_max=1024, side_step=64, default_size=(512, 512))
    assert sizes_of(can) == ((256, 256), (512, 512), (1024, 1024))
    assert fit(wish(size=""), can).size == (512, 512)
    own = ImageCapabilities(side_max=512, default_size=(512, 384))
    assert sizes_of(own) == ((256, 256), (512, 512), (512, 384))
    assert fit(wish(size="512x384"), own).size == (512, 384)
    odd = ImageCapabilities(sizes=((640, 480),), default_size=(640, 480))
    assert fit(wish(size="640x480"), odd).size == (640, 480)
    with pytest.raises(BadRequest, match="640x480"):
        fit(wish(size="512x512"), odd)


def test_everything_that_was_asked_for_reaches_the_model() -> None:
    request = wish(
        seed=3,
        quality="hd",
        style="vivid",
        negative_prompt="no dogs",
        user="u",
        extra={"steps": 4},
        background="opaque",
    )
    ask = fit(request, ImageCapabilities())
    names = ("seed", "quality", "style", "negative_prompt", "user", "extra", "background")
    assert [getattr(ask, name) for name in names] == [getattr(request, name) for name in names]


async def test_the_models_own_name_stands_in_the_picture_and_the_prompt_does_not() -> None:
    drawn = await desk(Painter(made()), Books()).draw(wish(prompt="a secret fox"), WHO, Outcome())
    data = drawn.pictures[0].data
    assert b"made by sdxl" in data
    assert b"secret" not in data


def test_a_picture_is_a_value_that_says_its_type() -> None:
    one = Picture(data=b"", format="jpeg", width=1, height=1)
    assert one.media_type == "image/jpeg"
    assert msgspec.structs.replace(one, format="webp").media_type == "image/webp"
    assert issubclass(TimedOut, ConveneError)
