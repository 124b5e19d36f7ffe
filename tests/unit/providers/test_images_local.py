"""Local pictures as an `ImageModel`: what is refused, what is asked of the engine, and what its faults become."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from convene.engine.base import EngineStatus, NotReady, Offline, State
from convene.engine.base_images import (
    SEED_MAX,
    Painted,
    PaintEvent,
    PaintFailed,
    PaintOrder,
    PaintRefused,
    PipelineFacts,
    Stepped,
)
from convene.errors import BadRequest, Busy, ConveneError, Unavailable, UpstreamFault
from convene.providers.base_images import ImageAsk, ImageEvent, ImageMade, ImageProgress, SourceImage
from convene.providers.images_local import LocalImages, LocalImagesSettings
from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.engine.base import EngineFault
    from convene.providers.base_images import ImageModel


class FakePainter:
    """A painter that plays its events, fails as told, or waits to be let go."""

    name = "tiny"

    def __init__(self, *events: PaintEvent, fault: EngineFault | None = None, state: State = "ready") -> None:
        self.events = events
        self.fault = fault
        self.state: State = state
        self.facts: PipelineFacts | None = PipelineFacts(side=64) if state == "ready" else None
        self.orders: list[PaintOrder] = []
        self.hold: asyncio.Event | None = None
        self.left = 0
        self.started = self.closed = False

    def status(self) -> EngineStatus:
        return EngineStatus(state=self.state, detail="a reason" if self.state == "failed" else "")

    def start(self) -> None:
        self.started = True

    async def wait_ready(self, timeout_s: float | None = None) -> PipelineFacts:
        raise NotImplementedError

    async def paint(self, order: PaintOrder) -> AsyncGenerator[PaintEvent]:
        self.orders.append(order)
        try:
            for event in self.events:
                yield event
            if self.hold is not None:
                await self.hold.wait()
            if self.fault is not None:
                raise self.fault
        finally:
            self.left += 1

    async def aclose(self) -> None:
        self.closed = True


def build(painter: FakePainter, **settings: int) -> LocalImages:
    return LocalImages(painter, LocalImagesSettings(**settings), FakeClock())  # type: ignore[arg-type]


def ask(**fields: object) -> ImageAsk:
    return ImageAsk(**{"prompt": "a cat", "size": (64, 64)} | fields)  # type: ignore[arg-type]


async def draw(model: LocalImages, wanted: ImageAsk) -> list[ImageEvent]:
    return [event async for event in model.generate(wanted)]


async def test_events_of_the_engine_become_those_of_the_seam() -> None:
    painter = FakePainter(Stepped(1, 2), Stepped(2, 2), Painted(0, 9, b"png"))
    model: ImageModel = build(painter)
    events = [event async for event in model.generate(ask(seed=9))]
    assert events == [ImageProgress(1, 2), ImageProgress(2, 2), ImageMade(index=0, data=b"png", seed=9)]


async def test_an_ask_becomes_an_order() -> None:
    painter = FakePainter()
    await draw(build(painter), ask(negative_prompt="dogs", size=(128, 64), count=3, seed=SEED_MAX))
    assert painter.orders == [
        PaintOrder(prompt="a cat", negative_prompt="dogs", width=128, height=64, count=3, seed=SEED_MAX)
    ]


async def test_a_seed_is_drawn_by_lot_where_none_is_given() -> None:
    painter = FakePainter()
    model = build(painter)
    await draw(model, ask())
    await draw(model, ask())
    first, second = (order.seed for order in painter.orders)
    assert first != second
    assert max(first, second) < 2**32


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"task": "edit", "images": (SourceImage(b"", "image/png"),)}, None, "from text only"),
        ({"task": "vary"}, None, "from text only"),
        ({"background": "transparent"}, "background", "no transparent"),
        ({"seed": -1}, "seed", "between 0 and"),
        ({"seed": 2**63}, "seed", "between 0 and"),
        ({"size": (60, 64)}, "size", "multiples of 8"),
        ({"size": (64, 60)}, "size", "multiples of 8"),
    ],
)
async def test_what_it_cannot_do_is_refused_by_name(fields: dict[str, object], param: str | None, words: str) -> None:
    painter = FakePainter()
    with pytest.raises(BadRequest, match=words) as caught:
        await draw(build(painter), ask(**fields))
    assert caught.value.param == param
    assert painter.orders == []


async def test_sides_are_multiples_of_what_the_pipeline_says() -> None:
    painter = FakePainter()
    painter.facts = PipelineFacts(side_step=16)
    with pytest.raises(BadRequest, match="multiples of 16"):
        await draw(build(painter), ask(size=(72, 64)))


def test_capabilities_are_those_of_the_loaded_pipeline_within_the_settings() -> None:
    painter = FakePainter()
    painter.facts = PipelineFacts(side=1024, side_step=16)
    can = build(painter, side_max=2048, count_max=2).capabilities
    assert (can.default_size, can.side_step, can.side_max, can.count_max) == ((1024, 1024), 16, 2048, 2)
    assert can.progress
    assert can.tasks == {"generate"}
    assert build(painter, side_max=768).capabilities.default_size == (768, 768)
    assert build(painter, side=512).capabilities.default_size == (512, 512)
    painter.facts = None
    assert build(painter).capabilities.default_size == (512, 512)


def test_readiness_is_the_engines() -> None:
    assert build(FakePainter()).ready() is None
    assert build(FakePainter(state="loading")).ready() == "tiny: loading"
    assert build(FakePainter(state="failed")).ready() == "tiny: failed (a reason)"


@pytest.mark.parametrize(
    ("fault", "state", "kind", "code", "param"),
    [
        (PaintRefused("hidden", param="prompt"), "ready", BadRequest, "content_policy_violation", "prompt"),
        (
            PaintRefused("none", param="negative_prompt"),
            "ready",
            BadRequest,
            "unsupported_parameter",
            "negative_prompt",
        ),
        (PaintRefused("no"), "ready", BadRequest, "unsupported_parameter", None),
        (PaintFailed("broken"), "ready", UpstreamFault, "upstream_error", None),
        (NotReady("loading"), "loading", Unavailable, "model_unavailable", None),
        (Offline("not here"), "failed", Unavailable, "model_unavailable", None),
    ],
)
async def test_faults_of_the_engine_become_ours(
    fault: EngineFault, state: State, kind: type[ConveneError], code: str, param: str | None
) -> None:
    with pytest.raises(kind) as caught:
        await draw(build(FakePainter(fault=fault, state=state)), ask())
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.code, caught.value.param) == (fault.message, code, param)
    assert (caught.value.retry_after_s is not None) == isinstance(fault, NotReady)


async def test_closing_leaves_the_engine_at_once() -> None:
    painter = FakePainter(Stepped(1, 9), Stepped(2, 9))
    async with aclosing(build(painter).generate(ask())) as events:
        assert await anext(events) == ImageProgress(1, 9)
    assert painter.left == 1


async def test_the_line_is_bounded_and_served_in_order() -> None:
    painter = FakePainter()
    painter.hold = asyncio.Event()
    model = build(painter, waiting_max=1)
    tasks = [asyncio.create_task(draw(model, ask(prompt=prompt))) for prompt in ("first", "second")]
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="1 requests wait already") as caught:
        await draw(model, ask(prompt="third"))
    assert caught.value.retry_after_s
    assert [order.prompt for order in painter.orders] == ["first"]
    painter.hold.set()
    await asyncio.gather(*tasks)
    assert [order.prompt for order in painter.orders] == ["first", "second"]


async def test_who_gives_up_waiting_leaves_no_work_behind() -> None:
    painter = FakePainter()
    painter.hold = asyncio.Event()
    model = build(painter)
    first, second = (asyncio.create_task(draw(model, ask(prompt=prompt))) for prompt in ("first", "second"))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    painter.hold.set()
    await first
    assert [order.prompt for order in painter.orders] == ["first"]


async def test_start_and_close_are_the_engines() -> None:
    painter = FakePainter()
    model = build(painter)
    model.start()
    await model.aclose()
    assert painter.started
    assert painter.closed
