"""Engines that cannot start or do not last, played by a module that takes the place of the real one in the child."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop

from convene.engine.base import EngineSettings, FetchSettings, StartFailed
from convene.engine.files import ModelFolder
from convene.engine.process import CHILD_PATH, Engine, build_order
from convene.engine.supervisor import FAILURES_UNTIL_FAILED
from process.engines import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PATIENCE_S = 60.0
ONCE = EngineSettings(backoff_first_s=PATIENCE_S, backoff_max_s=PATIENCE_S)
QUICK = EngineSettings(backoff_first_s=0.001, backoff_max_s=0.001)

PARAMS = """
import os, signal, sys, threading, time
from types import SimpleNamespace

def CommonParams():
    return SimpleNamespace(
        model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace(), embedding=False
    )

class Server:
    listening_address = "http://127.0.0.1:9"

    def __init__(self, params):
        self.begin()
"""


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Give the child an engine whose start does as told."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def write(begin: str, head: str = "") -> Path:
        body = textwrap.indent(textwrap.dedent(begin).strip(), "        ")
        (folder / "xllamacpp.py").write_text(f"{head}\n{PARAMS}\n    def begin(self):\n{body}\n")
        return folder

    return write


@asynccontextmanager
async def serving(tmp_path: Path, settings: EngineSettings) -> AsyncIterator[Engine]:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF and nothing more")
    weights = ModelFolder(tmp_path, FetchSettings(offline=True)).weights(str(path))
    engine = Engine(weights, "chat", settings, token=os.urandom)
    async with running(engine):
        yield engine


async def wait_state(engine: Engine, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await engine._changed.wait()


async def test_the_double_itself_starts(tmp_path: Path, play: Callable[[str], Path]) -> None:
    play("pass")
    async with serving(tmp_path, ONCE) as engine:
        address = await engine.wait_ready(PATIENCE_S)
        assert address.base_url == "http://127.0.0.1:9"


async def test_a_processor_without_avx2_is_named(tmp_path: Path, play: Callable[[str], Path]) -> None:
    play("os.kill(os.getpid(), signal.SIGILL)")
    async with serving(tmp_path, ONCE) as engine:
        with pytest.raises(StartFailed, match="lacks AVX2"):
            await engine.wait_ready(PATIENCE_S)


async def test_a_kill_during_the_start_points_to_memory(tmp_path: Path, play: Callable[[str], Path]) -> None:
    play("os.kill(os.getpid(), signal.SIGKILL)")
    async with serving(tmp_path, ONCE) as engine:
        with pytest.raises(StartFailed, match="lack of memory"):
            await engine.wait_ready(PATIENCE_S)


async def test_an_engine_that_is_not_installed_is_named(tmp_path: Path, play: Callable[[str], Path]) -> None:
    (play("pass") / "xllamacpp.py").write_text("raise ImportError('no build for this platform')")
    async with serving(tmp_path, ONCE) as engine:
        with pytest.raises(StartFailed, match="not installed") as caught:
            await engine.wait_ready(PATIENCE_S)
    assert "no build for this platform" in caught.value.detail


async def test_the_last_words_of_a_talkative_engine_are_kept(tmp_path: Path, play: Callable[[str], Path]) -> None:
    play("""
        for number in range(100_000):
            print("line", number, file=sys.stderr)
        print("x" * 200_000, file=sys.stderr)
        raise RuntimeError("the reason")
    """)
    async with serving(tmp_path, ONCE) as engine:
        with pytest.raises(StartFailed) as caught:
            await engine.wait_ready(PATIENCE_S)
    assert "the reason" in caught.value.detail
    assert "line 99999" in caught.value.detail
    assert "line 0 " not in caught.value.detail
    assert len(caught.value.detail) < 20_000


async def test_what_the_engine_prints_is_not_taken_for_its_answer(tmp_path: Path, play: Callable[[str], Path]) -> None:
    play("""
        print("hello")
        os.write(1, b"from C\\n")
    """)
    async with serving(tmp_path, ONCE) as engine:
        assert (await engine.wait_ready(PATIENCE_S)).base_url.endswith(":9")


async def test_an_engine_that_hangs_while_it_starts_is_killed(tmp_path: Path, play: Callable[[str], Path]) -> None:
    play("time.sleep(600)")
    async with serving(tmp_path, EngineSettings(startup_s=0.5, backoff_first_s=PATIENCE_S)) as engine:
        with pytest.raises(StartFailed, match="not loaded within"):
            await engine.wait_ready(PATIENCE_S)


async def test_closing_does_not_wait_for_a_slow_start(tmp_path: Path, play: Callable[[str], Path]) -> None:
    play("time.sleep(600)")
    async with asyncio.timeout(PATIENCE_S), serving(tmp_path, ONCE) as engine:
        await wait_state(engine, lambda: engine.status().detail == "loading the model")


async def test_an_engine_that_ignores_the_end_of_stdin_is_killed(tmp_path: Path, play: Callable[[str], Path]) -> None:
    play("threading.Thread(target=time.sleep, args=(600,)).start()")
    async with serving(tmp_path, EngineSettings(stop_s=0.1)) as engine:
        await engine.wait_ready(PATIENCE_S)
        pid = engine.status().pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_signals_to_the_whole_group_leave_the_child_to_its_parent(
    tmp_path: Path, play: Callable[[str], Path]
) -> None:
    play("pass")
    async with serving(tmp_path, ONCE) as engine:
        address = await engine.wait_ready(PATIENCE_S)
        pid = engine.status().pid
        status = await asyncio.to_thread(Path(f"/proc/{pid}/status").read_text)
        [ignored] = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn:")]
        for number in (signal.SIGINT, signal.SIGTERM):
            assert ignored >> (number - 1) & 1
            os.kill(pid, number)
        assert engine.address() == address
        os.kill(pid, signal.SIGKILL)
        await wait_state(engine, lambda: engine.status().state != "ready")
        assert engine._fault is None or "-9" in engine._fault.detail


async def test_a_child_whose_parent_dies_while_it_loads_ends(tmp_path: Path, play: Callable[[str], Path]) -> None:
    play("print('loading', file=sys.stderr, flush=True); time.sleep(600)")
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        str(CHILD_PATH),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stderr is not None
    async with asyncio.timeout(PATIENCE_S):
        child.stdin.write(build_order(tmp_path, "m", "chat", ONCE, "key"))
        await child.stderr.readline()
        child.stdin.close()
        assert await child.wait() == 0
        assert await child.stdout.read() == b""  # type: ignore[union-attr]


async def test_a_server_that_does_not_stop_does_not_keep_the_child(tmp_path: Path, play: Callable[[str], Path]) -> None:
    play("type(self).__del__ = lambda self: threading.Event().wait()")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", str(CHILD_PATH), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            child.stdin.write(build_order(tmp_path, "m", "chat", ONCE, "key"))
            assert b'"port": 9' in await child.stdout.readline()
            child.stdin.close()
            assert await child.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            child.kill()


def test_it_works_the_same_on_uvloop(tmp_path: Path, play: Callable[[str], Path]) -> None:
    play("pass")

    async def live() -> None:
        async with serving(tmp_path, QUICK) as engine:
            first = await engine.wait_ready(PATIENCE_S)
            os.kill(engine.status().pid, signal.SIGKILL)
            await wait_state(engine, lambda: engine.status().restarts == 1 and engine.status().state == "ready")
            assert engine.address() != first
            await engine.restart("again")
            await engine.wait_ready(PATIENCE_S)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live())


async def test_an_engine_that_keeps_dying_ends_up_failed_and_is_still_tried(
    tmp_path: Path, play: Callable[[str], Path]
) -> None:
    play("threading.Timer(0.05, os._exit, (5,)).start()")
    states = []
    async with serving(tmp_path, QUICK) as engine:
        async with asyncio.timeout(PATIENCE_S):
            while engine.status().restarts <= FAILURES_UNTIL_FAILED:
                states.append((engine.status().restarts, engine.status().state))
                await engine._changed.wait()
    assert (1, "failed") not in states
    assert (FAILURES_UNTIL_FAILED, "failed") in states


async def test_a_death_is_logged_with_the_last_words(
    tmp_path: Path, play: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    play("""
        print("GGML_ASSERT failed", file=sys.stderr)
        threading.Timer(0.05, os._exit, (5,)).start()
    """)
    async with serving(tmp_path, ONCE) as engine:
        await engine.wait_ready(PATIENCE_S)
        await wait_state(engine, lambda: engine.status().restarts == 1)
    assert "GGML_ASSERT failed" in caplog.text
    assert "exit code 5" in caplog.text
