"""Pictures by torch and diffusers themselves: a pipeline of random weights through the code that loads real ones.

Needs an interpreter with both, which `make test-images` sets up and names in CONVENE_TEST_IMAGES_PYTHON.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from convene.clock import SystemClock
from convene.engine.base import FetchSettings
from convene.engine.base_images import PaintSettings
from convene.engine.image_process import PaintEngine
from convene.engine.image_weights import find_images
from convene.errors import BadRequest, Unavailable, UpstreamFault
from convene.providers.base_images import ImageAsk, ImageEvent, ImageMade, ImageProgress
from convene.providers.images_local import LocalImages, LocalImagesSettings
from process.image_libraries import measure_png

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE_S = 300.0
PYTHON = os.environ.get("CONVENE_TEST_IMAGES_PYTHON", "")
MAKER = Path(__file__).with_name("tiny_pipeline.py")
STEPS = 4

pytestmark = pytest.mark.skipif(not PYTHON, reason="torch and diffusers are not set up: make test-images")


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline."""
    folder = tmp_path_factory.mktemp("pipelines") / "tiny"
    subprocess.run([PYTHON, str(MAKER), str(folder)], check=True, capture_output=True, timeout=PATIENCE_S)  # noqa: S603
    return folder


def build(folder: Path, **paint: object) -> LocalImages:
    settings = PaintSettings(**{"python": PYTHON, "threads": 1, "steps": STEPS} | paint)  # type: ignore[arg-type]
    weights = find_images(str(folder), folder.parent / "cache", FetchSettings(offline=True), half=False)
    return LocalImages(PaintEngine(weights, settings), LocalImagesSettings(), SystemClock())


@asynccontextmanager
async def serving(folder: Path, **paint: object) -> AsyncIterator[LocalImages]:
    model = build(folder, **paint)
    model.start()
    try:
        yield model
    finally:
        await model.aclose()


def ask(prompt: str = "a red bicycle in the rain", **fields: object) -> ImageAsk:
    return ImageAsk(**{"prompt": prompt, "size": (64, 64), "seed": 5} | fields)  # type: ignore[arg-type]


async def ready(model: LocalImages) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await model._painter.wait_ready()


async def draw(model: LocalImages, wanted: ImageAsk) -> list[ImageEvent]:
    await ready(model)
    async with asyncio.timeout(PATIENCE_S):
        return [event async for event in model.generate(wanted)]


async def picture(model: LocalImages, wanted: ImageAsk) -> bytes:
    [made] = [event for event in await draw(model, wanted) if isinstance(event, ImageMade)]
    return made.data


async def test_a_text_becomes_a_picture_of_the_size_that_was_asked_for(pipeline: Path) -> None:
    async with serving(pipeline) as model:
        assert model.ready() is not None
        events = await draw(model, ask())
        assert model.ready() is None
        assert model.capabilities.default_size == (64, 64)
        assert measure_png(await picture(model, ask(size=(72, 40)))) == (72, 40)
    assert events[:-1] == [ImageProgress(done, STEPS) for done in range(1, STEPS + 1)]
    made = events[-1]
    assert isinstance(made, ImageMade)
    assert (made.index, made.seed) == (0, 5)
    assert measure_png(made.data) == (64, 64)


async def test_a_seed_gives_the_same_bytes_in_another_process_and_its_neighbour_others(pipeline: Path) -> None:
    async with serving(pipeline) as model:
        first = await picture(model, ask())
        assert await picture(model, ask()) == first
        pair = [event.data for event in await draw(model, ask(seed=4, count=2)) if isinstance(event, ImageMade)]
    assert pair[1] == first
    assert pair[0] != first
    async with serving(pipeline) as model:
        assert await picture(model, ask()) == first
        assert await picture(model, ask("a blue whale")) != first
        assert await picture(model, ask(negative_prompt="rain")) != first


async def test_steps_of_several_pictures_rise_to_their_total(pipeline: Path) -> None:
    async with serving(pipeline) as model:
        events = await draw(model, ask(count=3))
    told = [event for event in events if isinstance(event, ImageProgress)]
    assert told == [ImageProgress(done, 3 * STEPS) for done in range(1, 3 * STEPS + 1)]


async def test_a_drawing_that_is_left_frees_the_child_within_a_second_and_the_next_one_works(pipeline: Path) -> None:
    async with serving(pipeline, steps=900) as model:
        await ready(model)
        pid = model._painter.status().pid
        async with asyncio.timeout(PATIENCE_S), aclosing(model.generate(ask(size=(256, 256)))) as events:
            async for event in events:
                assert event == ImageProgress(1, 900)
                break
        left = time.monotonic()
        # The first step of the next one is drawn by the same child, so it had stopped.
        async with asyncio.timeout(PATIENCE_S), aclosing(model.generate(ask())) as events:
            async for _ in events:
                break
        assert time.monotonic() - left < 1.0
        assert model._painter.status().pid == pid


async def test_a_kill_in_the_middle_is_told_and_survived(pipeline: Path) -> None:
    async with serving(pipeline, steps=900, backoff_first_s=0.01) as model:
        await ready(model)
        pid = model._painter.status().pid
        events = model.generate(ask())
        async with asyncio.timeout(PATIENCE_S):
            await anext(events)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(Unavailable, match="being restarted"):
                [event async for event in events]
        async with asyncio.timeout(PATIENCE_S), aclosing(model.generate(ask())) as events:
            assert await anext(events) == ImageProgress(1, 900)
        assert model._painter.status().pid != pid


async def test_halves_load_and_draw(pipeline: Path) -> None:
    async with serving(pipeline, precision="bfloat16") as model:
        assert measure_png(await picture(model, ask())) == (64, 64)
        facts = model._painter.facts
        assert facts is not None
        assert facts.precision == "bfloat16"


async def refuse(folder: Path, **paint: object) -> UpstreamFault:
    async with serving(folder, backoff_first_s=PATIENCE_S, **paint) as model:
        with contextlib.suppress(Exception):  # the one that matters comes from generate
            await ready(model)
        with pytest.raises(UpstreamFault) as caught:
            [event async for event in model.generate(ask())]
    return caught.value


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
async def test_weights_cut_short_are_told_with_the_next_step(pipeline: Path, tmp_path: Path, part: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(pipeline, broken)
    [file] = (broken / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    fault = await refuse(broken)
    assert "Download it again" in fault.message
    assert str(tmp_path) not in fault.message


async def test_weights_as_a_pickle_are_not_loaded_even_beside_a_whole_index(pipeline: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(pipeline, pickled)
    [file] = (pickled / "unet").glob("*.safetensors")
    file.rename(file.with_suffix(".bin"))
    assert "not safetensors (unet)" in (await refuse(pickled)).message


async def test_code_that_a_folder_names_is_not_run(pipeline: Path, tmp_path: Path) -> None:
    armed = tmp_path / "armed"
    shutil.copytree(pipeline, armed)
    index = armed / "model_index.json"
    # A name that looks like a library, with no file where we look: diffusers itself has the last word.
    index.write_text(
        index.read_text().replace('"diffusers",\n    "AutoencoderKL"', '"armed_module",\n    "AutoencoderKL"')
    )
    for place in (armed, armed / "vae" / "deep"):
        place.mkdir(exist_ok=True)
        (place / "armed_module.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    fault = await refuse(armed)
    assert "Download it again" in fault.message
    assert "armed_module" in fault.detail
    assert not (tmp_path / "ran").exists()


async def test_a_pipeline_that_is_not_for_pictures_is_told(pipeline: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(pipeline, other)
    index = other / "model_index.json"
    index.write_text(index.read_text().replace('"StableDiffusionPipeline"', '"AudioLDM2Pipeline"'))
    assert "not a text-to-image pipeline" in (await refuse(other)).message


async def test_an_interpreter_without_torch_is_told_with_the_command(pipeline: Path, tmp_path: Path) -> None:
    making = await asyncio.create_subprocess_exec(PYTHON, "-m", "venv", "--without-pip", str(tmp_path / "bare"))
    assert await making.wait() == 0
    fault = await refuse(pipeline, python=str(tmp_path / "bare" / "bin" / "python"))
    assert "pip install 'convene[images]'" in fault.message


async def test_sides_that_are_no_multiples_of_eight_are_refused_by_name(pipeline: Path) -> None:
    async with serving(pipeline) as model:
        with pytest.raises(BadRequest, match="multiples of 8") as caught:
            await draw(model, ask(size=(65, 64)))
    assert caught.value.param == "size"
