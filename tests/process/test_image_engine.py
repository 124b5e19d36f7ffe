"""The image engine: the real child in a real process, with torch and diffusers played (`image_libraries`)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from convene.engine import image_process
from convene.engine.base import EngineFault, FetchSettings, NotReady, StartFailed, WeightsCorrupt, WeightsMissing
from convene.engine.base_images import (
    Painted,
    PaintEvent,
    PaintFailed,
    PaintOrder,
    PaintRefused,
    PaintSettings,
    Stepped,
)
from convene.engine.image_process import CHILD_PATH, PaintEngine
from convene.engine.image_weights import find_images
from process.engines import running
from process.image_libraries import DIFFUSERS, read_facts, write_libraries, write_pipeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

PATIENCE_S = 60.0
ONCE = PaintSettings(threads=1, backoff_first_s=PATIENCE_S, backoff_max_s=PATIENCE_S)
QUICK = PaintSettings(threads=1, backoff_first_s=0.001, backoff_max_s=0.001)


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give the child libraries that load as told."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    write_libraries(tmp_path / "modules")

    def write(begin: str = "pass", **modules: str) -> None:
        write_libraries(tmp_path / "modules", begin, **modules)

    return write


@asynccontextmanager
async def serving(tmp_path: Path, settings: PaintSettings = QUICK) -> AsyncIterator[PaintEngine]:
    folder = tmp_path / "tiny"
    if not folder.exists():
        write_pipeline(folder)
    engine = PaintEngine(find_images(str(folder), tmp_path, FetchSettings(offline=True), half=False), settings)
    async with running(engine):
        yield engine


def order(prompt: str, **fields: int | str) -> PaintOrder:
    return PaintOrder(prompt=prompt, **{"width": 64, "height": 48, "seed": 7} | fields)  # type: ignore[arg-type]


async def paint(engine: PaintEngine, wanted: PaintOrder) -> list[PaintEvent]:
    async with asyncio.timeout(PATIENCE_S):
        await engine.wait_ready()
        return [event async for event in engine.paint(wanted)]


async def wait_until(engine: PaintEngine, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await engine.changed.wait()


async def begin(engine: PaintEngine, prompt: str) -> tuple[asyncio.Task[list[PaintEvent]], asyncio.Event]:
    """Start a drawing in a task; the event tells that its first step is done."""
    begun = asyncio.Event()

    async def draw() -> list[PaintEvent]:
        events = []
        async with aclosing(engine.paint(order(prompt))) as stream:
            async for event in stream:
                begun.set()
                events.append(event)
        return events

    await engine.wait_ready(PATIENCE_S)
    task = asyncio.create_task(draw())
    async with asyncio.timeout(PATIENCE_S):
        await begun.wait()
    return task, begun


@pytest.mark.usefixtures("play")
async def test_a_picture_comes_after_its_steps_and_was_drawn_from_the_order(tmp_path: Path) -> None:
    async with serving(tmp_path) as engine:
        events = await paint(engine, order("steady", negative_prompt="dogs", steps=3))
    assert events[:3] == [Stepped(1, 3), Stepped(2, 3), Stepped(3, 3)]
    [made] = events[3:]
    assert isinstance(made, Painted)
    assert (made.index, made.seed) == (0, 7)
    facts = read_facts(made.data)
    given = facts.pop("given")
    assert facts == {
        "prompt": "steady",
        "negative": "dogs",
        "width": 64,
        "height": 48,
        "seed": 7,
        "steps": 3,
        "guidance": 7.5,
        "threads": [1],
    }
    assert given == {
        "dtype": "torch.float32",
        "variant": None,
        "use_safetensors": True,
        "local_files_only": True,
        "trust_remote_code": False,
    }


@pytest.mark.usefixtures("play")
async def test_several_pictures_have_seeds_in_a_row_and_one_count_of_steps(tmp_path: Path) -> None:
    async with serving(tmp_path) as engine:
        events = await paint(engine, order("steady", count=2, steps=2))
    assert [event for event in events if isinstance(event, Stepped)] == [Stepped(done, 4) for done in (1, 2, 3, 4)]
    made = [event for event in events if isinstance(event, Painted)]
    assert [(one.index, one.seed, read_facts(one.data)["seed"]) for one in made] == [(0, 7, 7), (1, 8, 8)]


@pytest.mark.usefixtures("play")
async def test_steps_and_guidance_are_those_of_the_settings_unless_the_order_says_so(tmp_path: Path) -> None:
    settings = PaintSettings(threads=1, steps=2, guidance=0.0)
    async with serving(tmp_path, settings) as engine:
        [*_, made] = await paint(engine, order("steady"))
        [*_, own] = await paint(engine, order("steady", steps=4, guidance=3))
    assert isinstance(made, Painted)
    assert isinstance(own, Painted)
    assert [read_facts(made.data)[name] for name in ("steps", "guidance")] == [2, 0.0]
    assert [read_facts(own.data)[name] for name in ("steps", "guidance")] == [4, 3]


@pytest.mark.usefixtures("play")
async def test_the_pipeline_describes_itself(tmp_path: Path) -> None:
    async with serving(tmp_path) as engine:
        facts = await engine.wait_ready(PATIENCE_S)
        assert engine.facts == facts
    assert (facts.pipeline, facts.device, facts.precision) == ("PlayedPipeline", "cpu", "float32")
    assert (facts.side, facts.side_step, facts.negative) == (64, 8, True)


async def test_a_transformer_wants_sides_in_steps_of_sixteen(tmp_path: Path, play: Callable[..., None]) -> None:
    play("pipeline.transformer = Space(config=Space(sample_size=None))")
    async with serving(tmp_path) as engine:
        facts = await engine.wait_ready(PATIENCE_S)
    assert (facts.side_step, facts.side) == (16, 1024)


@pytest.mark.usefixtures("play")
async def test_what_libraries_print_is_not_taken_for_an_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as engine:
        [*_, made] = await paint(engine, order("loud"))
    assert isinstance(made, Painted)


@pytest.mark.usefixtures("play")
async def test_a_drawing_that_is_left_stops_and_the_next_one_works_on_the_same_child(tmp_path: Path) -> None:
    async with serving(tmp_path) as engine:
        task, _ = await begin(engine, "endless")
        pid = engine.status().pid
        task.cancel()
        await asyncio.wait([task])
        events = await paint(engine, order("steady"))
        assert isinstance(events[-1], Painted)
        assert engine.status().pid == pid


@pytest.mark.usefixtures("play")
async def test_a_drawing_that_does_not_heed_a_cancel_is_killed_and_the_next_one_works(tmp_path: Path) -> None:
    settings = PaintSettings(threads=1, cancel_s=0.05)
    async with serving(tmp_path, settings) as engine:
        task, _ = await begin(engine, "deaf")
        pid = engine.status().pid
        task.cancel()
        await asyncio.wait([task])
        # Asked at once, it waits for the child's end and for the new one.
        async with asyncio.timeout(PATIENCE_S):
            events = [event async for event in engine.paint(order("steady"))]
        assert isinstance(events[-1], Painted)
        assert engine.status().pid not in {0, pid}
        assert engine.status().restarts == 1


@pytest.mark.usefixtures("play")
async def test_orders_are_drawn_one_after_the_other(tmp_path: Path) -> None:
    async with serving(tmp_path) as engine:
        first, second = await asyncio.gather(
            paint(engine, order("steady one", steps=20)), paint(engine, order("steady two", steps=20))
        )
    for events, prompt in ((first, "steady one"), (second, "steady two")):
        made = events[-1]
        assert isinstance(made, Painted)
        assert read_facts(made.data)["prompt"] == prompt
        assert events[:-1] == [Stepped(done, 20) for done in range(1, 21)]


@pytest.mark.usefixtures("play")
async def test_a_kill_from_outside_is_told_and_survived(tmp_path: Path) -> None:
    async with serving(tmp_path) as engine:
        task, _ = await begin(engine, "endless")
        os.kill(engine.status().pid, signal.SIGKILL)
        with pytest.raises(NotReady, match="ended in the middle of a picture"):
            await task
        events = await paint(engine, order("steady"))
        assert isinstance(events[-1], Painted)
        assert engine.status().restarts == 1


@pytest.mark.usefixtures("play")
async def test_a_picture_that_kills_its_child_is_not_drawn_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as engine:
        with pytest.raises(NotReady, match="too little memory"):
            await paint(engine, order("die"))
        await engine.wait_ready(PATIENCE_S)
        assert engine.status().restarts == 1


@pytest.mark.usefixtures("play")
@pytest.mark.parametrize(
    ("prompt", "kind", "words", "param"),
    [
        ("boom", PaintFailed, "could not draw", ""),
        ("full", PaintFailed, "smaller `size`", ""),
        ("hidden", PaintRefused, "filter has hidden", "prompt"),
    ],
)
async def test_a_failed_picture_is_explained_and_the_child_goes_on(
    tmp_path: Path, prompt: str, kind: type[EngineFault], words: str, param: str
) -> None:
    async with serving(tmp_path) as engine:
        with pytest.raises(kind, match=words) as caught:
            await paint(engine, order(prompt))
        assert getattr(caught.value, "param", "") == param
        pid = engine.status().pid
        assert isinstance((await paint(engine, order("steady")))[-1], Painted)
        assert engine.status().pid == pid
    assert prompt != "boom" or caught.value.detail == "ValueError: something inside"


async def test_a_text_of_the_unwanted_is_refused_by_a_pipeline_that_takes_none(
    tmp_path: Path, play: Callable[..., None]
) -> None:
    play(diffusers=DIFFUSERS.replace("negative_prompt=None, ", "").replace("negative=negative_prompt", "negative=1"))
    async with serving(tmp_path) as engine:
        with pytest.raises(PaintRefused, match="takes no `negative_prompt`") as caught:
            await paint(engine, order("steady", negative_prompt="dogs"))
        assert caught.value.param == "negative_prompt"
        facts = engine.facts
        assert facts is not None
        assert not facts.negative


async def refuse(tmp_path: Path, settings: PaintSettings = ONCE) -> EngineFault:
    """Return the fault of a start that fails."""
    async with serving(tmp_path, settings) as engine:
        with pytest.raises(EngineFault) as caught:
            await engine.wait_ready(PATIENCE_S)
        # Said to whoever comes without waiting, too.
        with pytest.raises(type(caught.value)):
            [event async for event in engine.paint(order("steady"))]
    return caught.value


async def test_a_missing_extra_is_told_with_the_command_that_installs_it(
    tmp_path: Path, play: Callable[..., None]
) -> None:
    play(torch="raise ImportError('No module named torch')")
    fault = await refuse(tmp_path)
    assert isinstance(fault, StartFailed)
    assert "pip install 'convene[images]'" in fault.message
    assert "No module named torch" in fault.detail


async def test_a_diffusers_that_imports_what_folders_name_is_too_old(tmp_path: Path, play: Callable[..., None]) -> None:
    play(diffusers=DIFFUSERS.replace("0.42.1", "0.41.9"))
    fault = await refuse(tmp_path)
    assert "diffusers 0.41.9 is too old" in fault.detail


async def test_damaged_weights_are_told_and_not_tried_again(tmp_path: Path, play: Callable[..., None]) -> None:
    play("raise OSError('header too large')")
    fault = await refuse(tmp_path, QUICK)
    assert isinstance(fault, WeightsCorrupt)
    assert "Download it again" in fault.message
    assert "header too large" in fault.detail


@pytest.mark.parametrize("begin", ["raise MemoryError", "os.kill(os.getpid(), signal.SIGKILL)"])
async def test_too_little_memory_for_the_weights_is_told(tmp_path: Path, play: Callable[..., None], begin: str) -> None:
    play(begin)
    assert "not enough memory" in (await refuse(tmp_path)).message


@pytest.mark.usefixtures("play")
async def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    fault = await refuse(tmp_path, PaintSettings(device="cuda", backoff_first_s=PATIENCE_S))
    assert "'cuda', which torch does not see" in fault.message


async def test_a_child_that_ends_without_a_word_is_told(tmp_path: Path, play: Callable[..., None]) -> None:
    play("os._exit(9)")
    fault = await refuse(tmp_path)
    assert "ended while it was loading" in fault.message
    assert "exit code 9" in fault.detail


async def test_a_start_that_takes_too_long_is_ended(tmp_path: Path, play: Callable[..., None]) -> None:
    play("time.sleep(600)")
    fault = await refuse(tmp_path, PaintSettings(startup_s=0.5, backoff_first_s=PATIENCE_S))
    assert "not loaded within 0.5 s" in fault.message


async def test_an_interpreter_that_is_not_there_is_told(tmp_path: Path) -> None:
    settings = PaintSettings(python=str(tmp_path / "nothing"), backoff_first_s=PATIENCE_S)
    assert "could not be started" in (await refuse(tmp_path, settings)).message


@pytest.mark.usefixtures("play")
async def test_a_folder_that_is_not_there_is_told_before_any_child_is_started(tmp_path: Path) -> None:
    engine = PaintEngine(find_images(str(tmp_path / "no"), tmp_path, FetchSettings(), half=False), ONCE)
    engine.start()
    with pytest.raises(WeightsMissing, match="no folder of image weights 'no'"):
        await engine.wait_ready(PATIENCE_S)
    await engine.aclose()


@pytest.mark.usefixtures("play")
async def test_who_asks_a_closed_engine_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path) as engine:
        await engine.wait_ready(PATIENCE_S)
    with pytest.raises(NotReady, match="stopped"):
        [event async for event in engine.paint(order("steady"))]


@pytest.mark.usefixtures("play")
async def test_closing_ends_a_drawing_and_its_cancel(tmp_path: Path) -> None:
    async with asyncio.timeout(PATIENCE_S), serving(tmp_path, PaintSettings(threads=1, cancel_s=PATIENCE_S)) as engine:
        task, _ = await begin(engine, "deaf")
        task.cancel()
        await asyncio.wait([task])


async def test_an_order_waits_for_a_child_that_is_loading_but_not_for_ever(
    tmp_path: Path, play: Callable[..., None]
) -> None:
    play("time.sleep(600)")
    async with serving(tmp_path, PaintSettings(threads=1, ready_s=0.01)) as engine:
        with pytest.raises(NotReady, match="still loading"):
            [event async for event in engine.paint(order("steady"))]


READY = '{"event":"ready","pipeline":"P"}'
SCRIPT = f"""
import sys, time
sys.stdin.readline()
out = sys.stdout.buffer
out.write(b'{READY}\\n')
out.flush()
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    "says",
    [
        "b'no json\\n'",
        "b'[]\\n'",
        "b'\\xff\\xfe\\n'",
        'b\'{"event":"picture","id":1,"bytes":99999999999}\\n\'',
        'b\'{"event":"picture","id":1,"bytes":-1}\\n\'',
        'b\'{"event":"picture","id":1,"bytes":10}\\nshort\'',
        "b'{' + b'x' * 1_000_000 + b'\\n'",
    ],
)
async def test_a_child_that_breaks_the_protocol_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    script = tmp_path / "child.py"
    script.write_text(f"{SCRIPT}\nout.write({says})\nout.flush()\n")
    monkeypatch.setattr(image_process, "CHILD_PATH", script)
    async with serving(tmp_path, ONCE) as engine:
        with pytest.raises(NotReady, match="in the middle of a picture"):
            await paint(engine, order("steady"))
        await wait_until(engine, lambda: engine.status().state == "failed")
        assert "did not keep to its protocol" in engine.status().detail


async def test_events_of_other_orders_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "child.py"
    lines = ['{"event":"step","id":9,"done":1,"total":2}', '{"event":"done","id":9}', '{"event":"done","id":1}']
    script.write_text(SCRIPT + "".join(f"out.write(b'{line}\\n')\n" for line in lines) + "out.flush()\ntime.sleep(600)")
    monkeypatch.setattr(image_process, "CHILD_PATH", script)
    async with serving(tmp_path, PaintSettings(stop_s=0.01)) as engine:
        assert await paint(engine, order("steady")) == []


async def test_the_child_ends_with_its_parent_even_while_it_loads(play: Callable[..., None]) -> None:
    play("time.sleep(600)")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", str(CHILD_PATH), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(b'{"op":"load","device":"auto","precision":"auto","threads":1,"folder":"f","variant":""}\n')
    await process.stdin.drain()
    process.stdin.close()
    async with asyncio.timeout(PATIENCE_S):
        assert await process.wait() == 0


@pytest.mark.usefixtures("play")
async def test_the_terminal_and_the_service_manager_leave_the_end_to_the_parent(tmp_path: Path) -> None:
    async with serving(tmp_path) as engine:
        await engine.wait_ready(PATIENCE_S)
        pid = engine.status().pid
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        assert isinstance((await paint(engine, order("steady")))[-1], Painted)
        assert engine.status().pid == pid
