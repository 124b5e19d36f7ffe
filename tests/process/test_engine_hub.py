"""Pulling a model from a hub: whole, in pieces, cut, wrong, without room, cancelled, forbidden."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.engine.base import (
    FetchFailed,
    FetchSettings,
    FetchStep,
    NoSpace,
    Offline,
    WeightsCorrupt,
    WeightsMissing,
)
from convene.engine.files import ModelFolder
from process.hub_double import COMMIT, Hub, open_hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = b"GGUF" + hashlib.sha512(b"seed").digest() * (3 * 2**20 // 64)
MODEL = "hf:owner/repo/model-Q4.gguf"
FILE = "owner--repo--model-Q4.gguf"
PATIENCE_S = 60.0


@pytest.fixture
def hub() -> Iterator[Hub]:
    with open_hub(CONTENT) as running:
        yield running


def build(hub: Hub, cache_dir: Path, *, token: str = "", offline: bool = False, free: int = 10**12) -> ModelFolder:
    settings = FetchSettings(hub_url=hub.url, hub_token=token, offline=offline, timeout_s=5.0, retry_first_s=0.001)
    return ModelFolder(cache_dir, settings, free_bytes=lambda _: free)


async def pull(folder: ModelFolder, model: str = MODEL) -> tuple[Path, list[FetchStep]]:
    steps: list[FetchStep] = []
    async with asyncio.timeout(PATIENCE_S):
        path = await folder.pull(model, steps.append)
    return path, steps


def leftovers(folder: ModelFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.req("OPS-27")
async def test_a_pulled_file_is_checked_and_lies_in_the_cache(hub: Hub, tmp_path: Path) -> None:
    folder = build(hub, tmp_path)
    path, steps = await pull(folder)
    assert path == tmp_path / "models" / FILE
    assert path.read_bytes() == CONTENT
    assert leftovers(folder) == [FILE, FILE.replace(".gguf", ".json")]
    assert steps[-1].status == "success"


@pytest.mark.req("OPS-27")
async def test_progress_is_reported_as_status_digest_total_completed(hub: Hub, tmp_path: Path) -> None:
    _, steps = await pull(build(hub, tmp_path))
    loading = [step for step in steps if step.status == "downloading"]
    counts = [step.completed for step in loading]
    assert len(counts) >= 3
    assert counts == sorted(counts)
    assert counts[-1] == len(CONTENT)
    assert {(step.digest, step.total) for step in loading} == {(hub.digest, len(CONTENT))}
    assert set(msgspec.json.decode(msgspec.json.encode(loading[0]))) == {"status", "digest", "total", "completed"}


async def test_a_stored_file_is_not_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    folder = build(hub, tmp_path)
    await pull(folder)
    asked = len(hub.seen)
    await pull(folder)
    await pull(build(hub, tmp_path, offline=True))
    assert len(hub.seen) == asked


@pytest.mark.req("OPS-27")
async def test_a_cut_download_goes_on_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = [1_000_000, 500_000]
    path, _ = await pull(build(hub, tmp_path))
    assert path.read_bytes() == CONTENT
    assert [seen.range for seen in hub.downloads] == ["", "bytes=1000000-", "bytes=1500000-"]


async def test_the_pieces_come_from_one_commit(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = [1_000_000]
    await pull(build(hub, tmp_path))
    pieces = [seen.path for seen in hub.seen if seen.method == "GET" and "/resolve/" in seen.path]
    assert pieces == [f"/owner/repo/resolve/{COMMIT}/model-Q4.gguf"] * 2


async def test_a_store_without_ranges_starts_over(hub: Hub, tmp_path: Path) -> None:
    hub.cuts, hub.ranges = [1_000_000], False
    path, _ = await pull(build(hub, tmp_path))
    assert path.read_bytes() == CONTENT


async def test_another_range_than_asked_for_is_not_written(hub: Hub, tmp_path: Path) -> None:
    hub.cuts, hub.wrong_ranges = [1_000_000], True
    folder = build(hub, tmp_path)
    with pytest.raises(FetchFailed):
        await pull(folder)
    (part,) = leftovers(folder)
    assert (folder.path / part).read_bytes() == CONTENT[:1_000_000]


@pytest.mark.req("OPS-27")
async def test_wrong_bytes_are_thrown_away(hub: Hub, tmp_path: Path) -> None:
    hub.digest = "0" * 64
    folder = build(hub, tmp_path)
    with pytest.raises(WeightsCorrupt, match="SHA-256"):
        await pull(folder)
    assert leftovers(folder) == []


async def test_more_bytes_than_announced_are_thrown_away(hub: Hub, tmp_path: Path) -> None:
    hub.surplus = b"more"
    folder = build(hub, tmp_path)
    with pytest.raises(FetchFailed):
        await pull(folder)
    assert not (folder.path / FILE).exists()


@pytest.mark.req("OPS-27")
async def test_without_room_nothing_is_fetched(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="no room"):
        await pull(build(hub, tmp_path, free=len(CONTENT)))
    assert hub.downloads == []


@pytest.mark.req("OPS-28")
async def test_offline_asks_nobody_and_names_the_ways_out(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(Offline, match="models pull"):
        await pull(build(hub, tmp_path, offline=True))
    assert hub.seen == []


@pytest.mark.req("OPS-27")
async def test_a_cancelled_download_keeps_what_has_arrived(hub: Hub, tmp_path: Path) -> None:
    hub.stall_after = 2_000_000
    folder = build(hub, tmp_path)
    arrived = asyncio.Event()

    def watch(step: FetchStep) -> None:
        if step.completed > 1_000_000:
            arrived.set()

    task = asyncio.create_task(folder.pull(MODEL, watch))
    async with asyncio.timeout(PATIENCE_S):
        await arrived.wait()
        task.cancel()
        hub.released.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    (part,) = leftovers(folder)
    kept = (folder.path / part).stat().st_size
    assert part.endswith(".part")
    assert 1_000_000 < kept <= 2_000_000
    hub.stall_after = -1
    path, _ = await pull(folder)
    assert path.read_bytes() == CONTENT
    assert hub.downloads[-1].range == f"bytes={kept}-"


async def test_the_token_goes_to_the_hub_and_not_to_the_store(hub: Hub, tmp_path: Path) -> None:
    await pull(build(hub, tmp_path, token="hf_secret"))
    asked = [seen for seen in hub.seen if "/resolve/" in seen.path]
    assert {seen.authorization for seen in asked} == {"Bearer hf_secret"}
    assert {seen.authorization for seen in hub.downloads} == {""}


async def test_a_renamed_repository_is_followed(hub: Hub, tmp_path: Path) -> None:
    hub.renamed_from = "owner/repo"
    path, _ = await pull(build(hub, tmp_path))
    assert path.read_bytes() == CONTENT


async def test_a_hub_without_digests_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.links = False
    with pytest.raises(WeightsCorrupt, match="no SHA-256"):
        await pull(build(hub, tmp_path))
    assert {seen.method for seen in hub.seen} == {"HEAD"}


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (404, WeightsMissing, "has no file"),
        (401, WeightsMissing, "licence"),
        (403, WeightsMissing, "licence"),
        (500, FetchFailed, "status 500"),
    ],
)
async def test_a_refusal_of_the_hub_says_what_to_do(
    hub: Hub, tmp_path: Path, status: int, kind: type[Exception], words: str
) -> None:
    hub.status = status
    with pytest.raises(kind, match=words):
        await pull(build(hub, tmp_path))


async def test_a_store_that_keeps_failing_is_given_up(hub: Hub, tmp_path: Path) -> None:
    hub.store_status = 503
    with pytest.raises(FetchFailed, match="cannot be reached"):
        await pull(build(hub, tmp_path))
    assert len(hub.downloads) == 5


async def test_a_hub_that_is_not_there_is_told(tmp_path: Path) -> None:
    with open_hub(CONTENT) as hub:
        folder = build(hub, tmp_path)
    with pytest.raises(FetchFailed, match="cannot be reached"):
        await pull(folder)


@pytest.mark.parametrize("url", ["file:///etc", "ftp://host", "hub"])
async def test_only_http_addresses_are_hubs(tmp_path: Path, url: str) -> None:
    folder = ModelFolder(tmp_path, FetchSettings(hub_url=url))
    with pytest.raises(FetchFailed, match="http"):
        await pull(folder)


async def test_a_catalogue_name_is_listed_and_removed_under_that_name(hub: Hub, tmp_path: Path) -> None:
    folder = build(hub, tmp_path)
    path, _ = await pull(folder, "qwen3-0.6b")
    assert path.name == "Qwen--Qwen3-0.6B-GGUF--Qwen3-0.6B-Q8_0.gguf"
    (entry,) = folder.list()
    assert (entry.name, entry.licence, entry.size) == ("qwen3-0.6b", "Apache-2.0", len(CONTENT))
    assert entry.sha256 == hub.digest
    assert folder.remove("qwen3-0.6b") >= len(CONTENT)
    assert folder.list() == []
    assert leftovers(folder) == []
    with pytest.raises(WeightsMissing, match="not in the cache"):
        folder.remove("qwen3-0.6b")


async def test_a_broken_download_can_be_removed(hub: Hub, tmp_path: Path) -> None:
    hub.cuts, hub.store_status = [1_000_000], 0
    folder = build(hub, tmp_path)
    hub.wrong_ranges = True
    with pytest.raises(FetchFailed):
        await pull(folder)
    assert folder.remove(MODEL) == 1_000_000
    assert leftovers(folder) == []


async def test_two_at_once_download_once(hub: Hub, tmp_path: Path) -> None:
    folders = [build(hub, tmp_path), build(hub, tmp_path)]
    results = await asyncio.gather(*(pull(folder) for folder in folders))
    assert {path for path, _ in results} == {tmp_path / "models" / FILE}
    assert len(hub.downloads) == 1
    assert any("waiting" in step.status for _, steps in results for step in steps)
