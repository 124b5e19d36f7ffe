"""Test pictures by rule: the same for the same request, honest on their face, slow and failing on demand."""

from __future__ import annotations

import asyncio
import io
from contextlib import aclosing
from typing import Any

import pytest
from PIL import Image

from convene.config_images import IMAGE_SCRIPTS
from convene.errors import BadRequest, Unavailable
from convene.providers import images_scripted
from convene.providers.base_images import ImageAsk, ImageMade, ImageProgress, SourceImage
from convene.providers.images_scripted import SCRIPTS, ScriptedImages, ScriptedImagesSettings, draw
from fakes import FakeClock


def model(**fields: Any) -> ScriptedImages:  # noqa: ANN401 -- fields by name
    return ScriptedImages(ScriptedImagesSettings(upstream="demo", **fields), FakeClock())


def ask(**fields: Any) -> ImageAsk:  # noqa: ANN401 -- fields by name
    asked: dict[str, Any] = {"prompt": "a fox in snow", "size": (256, 128), "seed": 7} | fields
    return ImageAsk(**asked)


async def events(drawing: ScriptedImages, asked: ImageAsk) -> list[Any]:
    return [event async for event in drawing.generate(asked)]


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


async def test_it_tells_each_step_and_makes_what_was_asked_for() -> None:
    found = await events(model(steps=3), ask(count=2))
    told = [event for event in found if isinstance(event, ImageProgress)]
    made = [event for event in found if isinstance(event, ImageMade)]
    assert [(one.done, one.total) for one in told] == [(at, 6) for at in range(1, 7)]
    assert [(one.index, one.seed) for one in made] == [(0, 7), (1, 8)]
    assert [opened(one.data).size for one in made] == [(256, 128)] * 2
    assert found.index(made[0]) < found.index(told[3])


async def test_the_same_request_gives_the_same_bytes_and_another_prompt_or_seed_others() -> None:
    first = await events(model(), ask())
    again = await events(model(), ask())
    assert first == again
    others = {draw(ask(), 7), draw(ask(), 8), draw(ask(prompt="a dog"), 7), draw(ask(size=(128, 256)), 7)}
    assert len(others) == 4
    assert first[-1].data in others


async def test_without_a_seed_one_is_drawn_by_lot_and_told() -> None:
    made = (await events(model(), ask(seed=None)))[-1]
    assert made.data == draw(ask(), made.seed)


def test_a_picture_says_on_its_face_that_it_is_none_of_the_prompt() -> None:
    """The label is in every picture: without it, the same picture is another one."""
    honest = images_scripted.FACE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images_scripted, "FACE", " " * len(honest))
        blank = draw(ask(size=(512, 512)), 7)
    difference = [
        (one, other)
        for one, other in zip(
            opened(draw(ask(size=(512, 512)), 7)).convert("L").tobytes(),
            opened(blank).convert("L").tobytes(),
            strict=True,
        )
        if one != other
    ]
    assert len(difference) > 1000
    assert {other for _, other in difference} == {255}
    assert model().capabilities.scripted


@pytest.mark.parametrize("prompt", ["", "狐", "x" * 32_000, "\x00\ud800\n\t", "a b " * 100])
@pytest.mark.parametrize("size", [(8, 8), (64, 2048), (2048, 64), (1024, 1024)])
def test_every_prompt_and_size_can_be_drawn(prompt: str, size: tuple[int, int]) -> None:
    assert opened(draw(ask(prompt=prompt, size=size), 0)).size == size


def test_a_transparent_background_is_one() -> None:
    assert opened(draw(ask(background="transparent", size=(256, 256)), 7)).getchannel("A").getextrema() == (0, 255)
    assert opened(draw(ask(size=(256, 256)), 7)).getchannel("A").getextrema() == (255, 255)


def test_a_picture_that_is_changed_can_be_recognised_and_one_that_is_none_is_refused() -> None:
    red = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(red, "PNG")
    source = SourceImage(red.getvalue(), "image/png")
    changed = opened(draw(ask(task="edit", images=(source,), size=(256, 256)), 7)).convert("RGB")
    reds, greens, _ = changed.crop((0, 0, 256, 24)).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))  # type: ignore[misc]
    assert reds > greens + 80
    with pytest.raises(BadRequest, match="cannot be read"):
        draw(ask(task="edit", images=(SourceImage(b"none", "image/png"),)), 7)


async def test_it_fails_when_its_script_says_so() -> None:
    with pytest.raises(Unavailable, match="'demo' failed before its first step"):
        await events(model(script="fail-before"), ask())
    with pytest.raises(BadRequest) as refused:
        await events(model(script="refuse"), ask())
    assert refused.value.code == "content_policy_violation"
    flaky = model(script="flaky")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await events(flaky, ask())
        assert (await events(flaky, ask()))[-1].index == 0


async def test_a_script_that_fails_late_has_made_all_pictures_but_the_last() -> None:
    seen: list[object] = []

    async def look() -> None:
        async for event in model(script="fail-after", steps=4).generate(ask(count=2)):
            seen.append(event)  # noqa: PERF401 -- what was seen before the fault

    with pytest.raises(Unavailable, match="in the middle of its last picture"):
        await look()
    assert [event.index for event in seen if isinstance(event, ImageMade)] == [0]
    assert seen[-1] == ImageProgress(6, 8)


async def test_a_slow_one_takes_its_time_at_each_step_and_can_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", wait)
    async with aclosing(model(steps=5, step_s=2.5).generate(ask())) as drawing:
        assert await anext(drawing) == ImageProgress(1, 5)
        assert await anext(drawing) == ImageProgress(2, 5)
    assert waits == [2.5, 2.5]


def test_it_stands_ready_and_its_scripts_are_those_that_the_settings_know() -> None:
    assert model().ready() is None
    assert model().upstream == "demo"
    assert SCRIPTS == IMAGE_SCRIPTS
    assert model(side_max=512).capabilities.default_size == (512, 512)
