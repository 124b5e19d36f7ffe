"""The real engine with the real embedded models: it answers, embeds, dies, comes back, never outlives its parent."""

from __future__ import annotations

import asyncio
import math
import os
import select
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.engine.base import EMBEDDING_SETTINGS, EngineSettings, FetchSettings, Mode, NotReady, StartFailed
from convene.engine.catalogue import CHAT_MODEL, EMBEDDING_MODEL
from convene.engine.files import ModelFolder
from convene.engine.process import CHILD_PATH, Engine
from process.engine_client import ask_aside, chat_aside, open_models, open_request, read_chunks
from process.engines import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from convene.engine.base import ChildAddress

PATIENCE_S = 300.0
"""Long enough for a first fetch of the weights over a slow line."""

PARENT = Path(__file__).with_name("engine_parent.py")


@asynccontextmanager
async def serving(
    model: str = CHAT_MODEL.name, mode: Mode = "chat", settings: EngineSettings | None = None
) -> AsyncIterator[Engine]:
    engine = Engine(open_models().weights(model), mode, settings or EngineSettings(), token=os.urandom)
    async with running(engine):
        yield engine


async def wait_gone(pid_fd: int) -> None:
    """Wait until the process behind the descriptor has ended; its number cannot mean another one meanwhile."""
    poll = select.poll()
    poll.register(pid_fd, select.POLLIN)
    assert await asyncio.to_thread(poll.poll, PATIENCE_S * 1000), "the process is still there"


async def wait_restarted(engine: Engine, old: ChildAddress) -> ChildAddress:
    """Wait for another child than the one at the old address."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            address = await engine.wait_ready()
            if address != old:
                return address
            await engine._changed.wait()


async def test_a_chat_completion_streams_with_usage_and_our_name() -> None:
    async with serving() as engine:
        address = await engine.wait_ready(PATIENCE_S)
        assert engine.status().state == "ready"
        text, last = await chat_aside(address, "Say hello.")
    assert text.strip()
    assert last["model"] == CHAT_MODEL.name
    assert last["usage"]["completion_tokens"] > 0
    assert last["usage"]["prompt_tokens"] > 0


async def test_the_child_wants_its_key_and_hides_its_slots() -> None:
    async with serving() as engine:
        address = await engine.wait_ready(PATIENCE_S)
        stranger = msgspec.structs.replace(address, api_key="guess")
        assert (await ask_aside(stranger, "/v1/chat/completions", {"messages": []}))[0] == 401
        assert (await ask_aside(address, "/slots"))[0] == 501
        assert address.base_url.startswith("http://127.0.0.1:")


async def test_the_key_is_not_on_the_command_line() -> None:
    async with serving() as engine:
        address = await engine.wait_ready(PATIENCE_S)
        command = await asyncio.to_thread(Path(f"/proc/{engine.status().pid}/cmdline").read_bytes)
    assert str(CHILD_PATH).encode() in command
    assert address.api_key.encode() not in command


EXPECTED = {
    "Hello world": (-0.03448, 0.03102, 0.00674, 0.02611, -0.03936, -0.16030),
    "What is the weather in Paris?": (0.04638, 0.02954, 0.07556, 0.01663, 0.01734, -0.02385),
    "The quick brown fox jumps over the lazy dog.": (0.04393, 0.05893, 0.04818, 0.07755, 0.02674, -0.03763),
    "東京の天気は？": (0.10564, 0.13582, 0.08374, -0.00428, -0.07408, 0.05439),  # noqa: RUF001 - Japanese writes so
    "def add(a, b):\n    return a + b": (-0.02379, -0.00601, -0.06713, 0.02349, -0.09138, 0.01853),
    " ": (-0.11884, 0.04830, -0.00255, -0.01101, 0.05195, 0.01029),
}
"""First components by sentence-transformers, normalised float32; the blank stands for its empty text."""

COSINES = ((0, 1, 0.1427), (0, 2, 0.1086), (1, 2, 0.0734), (1, 3, 0.3149), (0, 5, 0.3338), (1, 4, 0.0355))


def multiply(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


async def test_embeddings_equal_the_reference_implementation() -> None:
    async with serving(EMBEDDING_MODEL.name, "embedding", EMBEDDING_SETTINGS) as engine:
        address = await engine.wait_ready(PATIENCE_S)
        status, answer = await ask_aside(address, "/v1/embeddings", {"input": list(EXPECTED)})
        _, tokens = await ask_aside(address, "/tokenize", {"content": "Hello world", "add_special": True})
    assert status == 200
    vectors = [entry["embedding"] for entry in answer["data"]]
    for vector, expected in zip(vectors, EXPECTED.values(), strict=True):
        assert len(vector) == 384
        assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-3)
        assert vector[:6] == pytest.approx(expected, abs=1e-3)
    for left, right, cosine in COSINES:
        assert multiply(vectors[left], vectors[right]) == pytest.approx(cosine, abs=5e-3)
    assert tokens["tokens"] == [101, 7592, 2088, 102]


async def test_an_embedding_input_of_512_tokens_is_served() -> None:
    async with serving(EMBEDDING_MODEL.name, "embedding", EMBEDDING_SETTINGS) as engine:
        address = await engine.wait_ready(PATIENCE_S)
        status, answer = await ask_aside(address, "/v1/embeddings", {"input": "hello " * 510})
    assert status == 200
    assert answer["usage"]["prompt_tokens"] == 512


async def test_a_killed_child_is_replaced_and_answers_again() -> None:
    async with serving() as engine:
        address = await engine.wait_ready(PATIENCE_S)
        pid = engine.status().pid
        os.kill(pid, signal.SIGKILL)
        fresh = await wait_restarted(engine, address)
        assert engine.status().restarts == 1
        assert engine.status().pid != pid
        assert fresh.api_key != address.api_key
        text, _ = await chat_aside(fresh, "Say hello.", max_tokens=4)
        assert text


async def test_between_two_children_there_is_no_address() -> None:
    async with serving(settings=EngineSettings(backoff_first_s=PATIENCE_S, backoff_max_s=PATIENCE_S)) as engine:
        await engine.wait_ready(PATIENCE_S)
        os.kill(engine.status().pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            while engine.status().state == "ready":
                await engine._changed.wait()
        assert engine.status().state == "loading"
        with pytest.raises(NotReady, match="try again"):
            engine.address()
        await engine.restart("enough waiting")
        await engine.wait_ready(PATIENCE_S)


async def test_a_restart_returns_when_the_old_child_is_gone() -> None:
    async with serving() as engine:
        address = await engine.wait_ready(PATIENCE_S)
        pid_fd = os.pidfd_open(engine.status().pid)
        try:
            await engine.restart("a stuck prompt")
            assert select.select([pid_fd], [], [], 0)[0]
        finally:
            os.close(pid_fd)
        fresh = await engine.wait_ready(PATIENCE_S)
        assert fresh != address
        assert (await ask_aside(fresh, "/health"))[0] == 200


async def test_closing_ends_the_child() -> None:
    async with serving() as engine:
        await engine.wait_ready(PATIENCE_S)
        pid_fd = os.pidfd_open(engine.status().pid)
    try:
        await wait_gone(pid_fd)
    finally:
        os.close(pid_fd)


async def test_a_child_does_not_outlive_a_killed_parent() -> None:
    cache_dir = open_models().path.parent
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PARENT),
        str(cache_dir),
        CHAT_MODEL.name,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        pid_fd = os.pidfd_open(int(await parent.stdout.readline()))
        try:
            parent.kill()
            await parent.communicate()
            await wait_gone(pid_fd)
        finally:
            os.close(pid_fd)


@pytest.mark.parametrize(
    ("prompt", "awaited"),
    [("Tell me a story.", "content"), ("The sea is wide. " * 1500, "")],
    ids=["writing", "reading"],
)
async def test_a_client_that_leaves_frees_its_slot(prompt: str, awaited: str) -> None:
    """While the answer is written, and while the prompt is still being read (architecture's invariant 5)."""
    endless = {
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "return_progress": True,
        "ignore_eos": True,
        "max_tokens": 8000,
    }
    one_slot = EngineSettings(slots=1, context_per_slot=8192, expose_slots=True)

    def leave_early(address: ChildAddress) -> None:
        with open_request(address, "/v1/chat/completions", endless) as response:
            assert response.status == 200, response.read()
            for chunk in read_chunks(response):
                if not awaited or (chunk["choices"] and chunk["choices"][0]["delta"].get(awaited)):
                    return
        pytest.fail("the answer ended by itself")

    async with serving(settings=one_slot) as engine:
        address = await engine.wait_ready(PATIENCE_S)
        await asyncio.to_thread(leave_early, address)
        # The only slot: an answer means that the other one, most of a minute long, was given up.
        async with asyncio.timeout(25.0):
            _, last = await chat_aside(address, "Say hello.", max_tokens=2)
        _, slots = await ask_aside(address, "/slots")
    # Not its text: the tiny model's first token may be the end, or half a letter. That it was computed is what counts.
    assert last["usage"]["completion_tokens"] > 0
    assert len(slots) == 1


@pytest.mark.parametrize("size", [100, 50_000_000])
async def test_a_truncated_model_is_a_clear_fault(tmp_path: Path, size: int) -> None:
    whole = await open_models().pull(CHAT_MODEL.name, lambda _: None)
    path = tmp_path / "cut.gguf"
    with whole.open("rb") as source:
        path.write_bytes(source.read(size))
    async with serving(str(path), settings=EngineSettings(backoff_first_s=PATIENCE_S)) as engine:
        with pytest.raises(StartFailed, match="damaged") as caught:
            await engine.wait_ready(PATIENCE_S)
        assert "failed to load model" in caught.value.detail
        assert str(tmp_path) not in caught.value.message
        assert engine.status().state == "failed"


async def test_a_start_that_takes_too_long_is_given_up() -> None:
    async with serving(settings=EngineSettings(startup_s=0.01, backoff_first_s=PATIENCE_S)) as engine:
        with pytest.raises(StartFailed, match=r"within 0\.01 s"):
            await engine.wait_ready(PATIENCE_S)
        assert engine.status().pid == 0


async def test_the_installer_fetches_the_real_models_and_they_are_what_was_measured(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path, FetchSettings())
    for model in (CHAT_MODEL, EMBEDDING_MODEL):
        path = await folder.pull(model.name, lambda _: None)
        assert path.stat().st_size == model.size
    assert [entry.name for entry in folder.list()] == [EMBEDDING_MODEL.name, CHAT_MODEL.name]
    assert folder.remove(CHAT_MODEL.name) == CHAT_MODEL.size
    assert [entry.name for entry in folder.list()] == [EMBEDDING_MODEL.name]
