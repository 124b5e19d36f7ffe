"""Where a pipeline's folder comes from: the user's own, and one of a hub, with all that can go wrong on the way."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from convene.engine.base import (
    EngineFault,
    FetchFailed,
    FetchSettings,
    FetchStep,
    NoSpace,
    Offline,
    WeightsCorrupt,
    WeightsMissing,
)
from convene.engine.base_images import ImageFolder
from convene.engine.image_hub import HubRepo, parse_repo
from convene.engine.image_weights import FolderImages, HubImages, find_images
from process.image_libraries import write_pipeline
from process.repo_double import COMMIT, Repo, open_repo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from convene.engine.base_images import Pictorial

PATIENCE_S = 60.0
INDEX = {"_class_name": "P", "unet": ["diffusers", "U"], "tokenizer": ["transformers", "T"], "gone": [None, None]}
UNET = "unet/diffusion_pytorch_model"
FILES = {
    ".gitattributes": b"*",
    "README.md": b"words",
    "model_index.json": json.dumps(INDEX).encode(),
    "unet/config.json": b"{}",
    f"{UNET}.safetensors": b"whole" * 400_000,
    f"{UNET}.fp16.safetensors": b"half" * 1000,
    f"{UNET}.bin": b"pickle",
    "tokenizer/vocab.json": b'{"a": 1}',
    "tokenizer/merges.txt": b"",
    "whole-model.safetensors": b"everything",
}
WANTED = ["model_index.json", "tokenizer/merges.txt", "tokenizer/vocab.json", "unet/config.json"]


@pytest.fixture
def repo() -> Iterator[Repo]:
    with open_repo(dict(FILES)) as running:
        yield running


def find(
    model: str, cache_dir: Path, url: str = "http://127.0.0.1:1", *, half: bool = False, **settings: object
) -> Pictorial:
    free = settings.pop("free", 10**12)
    assert isinstance(free, int)
    fetch = FetchSettings(**{"hub_url": url, "timeout_s": 5.0, "retry_first_s": 0.001} | settings)  # type: ignore[arg-type]
    return find_images(model, cache_dir, fetch, half=half, free_bytes=lambda _: free)


async def obtain(weights: Pictorial) -> tuple[ImageFolder, list[FetchStep]]:
    steps: list[FetchStep] = []
    async with asyncio.timeout(PATIENCE_S):
        folder = await weights.obtain(steps.append)
        # The last reports are still on their way from the thread.
        await asyncio.sleep(0)
    return folder, steps


def inside(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("owner/name", HubRepo("owner/name")),
        ("hf:owner/na.me-1_2", HubRepo("owner/na.me-1_2")),
        ("owner/name@v1.0", HubRepo("owner/name", "v1.0")),
        (f"hf:owner/name@{COMMIT}", HubRepo("owner/name", COMMIT)),
        ("name", None),
        ("/folder/name", None),
        ("./name", None),
        ("../name", None),
        ("owner/..", None),
        ("owner/name/deeper", None),
        ("~/name", None),
        ("owner/name@../x", None),
        ("owner/name@", None),
        ("", None),
    ],
)
def test_a_name_on_the_hub_is_told_from_a_path(text: str, found: HubRepo | None) -> None:
    assert parse_repo(text) == found


def test_a_folder_of_that_name_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(find("models/tiny", tmp_path), HubImages)
    write_pipeline(tmp_path / "models" / "tiny")
    assert isinstance(find("models/tiny", tmp_path), FolderImages)
    assert isinstance(find("hf:models/tiny", tmp_path), HubImages)


async def test_a_folder_of_the_users_own_is_used_where_it_lies(tmp_path: Path) -> None:
    path = write_pipeline(tmp_path / "tiny")
    weights = find(str(path), tmp_path)
    assert weights.name == "tiny"
    assert await obtain(weights) == (ImageFolder(path), [])
    (path / f"{UNET}.fp16.safetensors").touch()
    assert (await obtain(find(str(path), tmp_path, half=True)))[0] == ImageFolder(path, "fp16")


async def test_a_folder_that_is_none_is_told_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="Check the configured path, or give a name on the hub"):
        await obtain(find(str(tmp_path / "nothing"), tmp_path))
    single = tmp_path / "model.safetensors"
    single.touch()
    with pytest.raises(WeightsMissing, match="It is a file: give a folder in the form of diffusers"):
        await obtain(find(str(single), tmp_path))
    with pytest.raises(WeightsCorrupt, match=r"no usable model_index.json"):
        await obtain(find(str(tmp_path), tmp_path))


async def test_a_folder_with_pickles_or_code_is_refused(tmp_path: Path) -> None:
    path = write_pipeline(tmp_path / "tiny")
    (path / f"{UNET}.safetensors").rename(path / f"{UNET}.bin")
    with pytest.raises(WeightsMissing, match="A pickle can run code"):
        await obtain(find(str(path), tmp_path))
    coded = write_pipeline(tmp_path / "coded", unet="mine")
    (coded / "unet" / "mine.py").touch()
    with pytest.raises(WeightsCorrupt, match="never run"):
        await obtain(find(str(coded), tmp_path))


async def test_an_index_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = write_pipeline(tmp_path / "tiny")
    (path / "model_index.json").unlink()
    (path / "model_index.json").mkdir()
    with pytest.raises(WeightsMissing, match="cannot be read"):
        await obtain(find(str(path), tmp_path))


@pytest.mark.req("OPS-27")
async def test_what_is_needed_is_fetched_checked_and_reported_as_one_whole(repo: Repo, tmp_path: Path) -> None:
    folder, steps = await obtain(find("owner/repo", tmp_path, repo.url))
    assert folder == ImageFolder(tmp_path / "images" / "owner--repo@main")
    assert inside(folder.path) == sorted([*WANTED, f"{UNET}.safetensors"])
    assert (folder.path / f"{UNET}.safetensors").read_bytes() == FILES[f"{UNET}.safetensors"]
    total = sum(len(FILES[name]) for name in inside(folder.path))
    assert {step.total for step in steps[1:]} == {total}
    done = [step.completed for step in steps if step.status == "downloading"]
    assert done == sorted(done)
    assert repo.seen[0] == "/api/models/owner/repo/revision/main?blobs=true"
    assert all(path.startswith(f"/owner/repo/resolve/{COMMIT}/") for path in repo.seen[1:])


async def test_what_has_been_fetched_is_used_without_the_network(repo: Repo, tmp_path: Path) -> None:
    first, _ = await obtain(find("owner/repo", tmp_path, repo.url))
    seen = len(repo.seen)
    assert await obtain(find("owner/repo", tmp_path, repo.url, offline=True)) == (first, [])
    assert len(repo.seen) == seen


async def test_halves_are_fetched_where_they_will_do(repo: Repo, tmp_path: Path) -> None:
    folder, _ = await obtain(find("owner/repo@v2", tmp_path, repo.url, half=True))
    assert folder == ImageFolder(tmp_path / "images" / "owner--repo@v2", "fp16")
    assert inside(folder.path) == sorted([*WANTED, f"{UNET}.fp16.safetensors"])
    assert repo.seen[0] == "/api/models/owner/repo/revision/v2?blobs=true"


async def test_a_token_goes_to_the_hub(repo: Repo, tmp_path: Path) -> None:
    await obtain(find("owner/repo", tmp_path, repo.url, hub_token="secret"))
    assert repo.tokens == {"Bearer secret"}


async def test_a_download_that_breaks_off_goes_on_where_it_was(repo: Repo, tmp_path: Path) -> None:
    repo.cut = {f"{UNET}.safetensors": 1_000_000, "tokenizer/vocab.json": 3}
    folder, _ = await obtain(find("owner/repo", tmp_path, repo.url))
    assert (folder.path / f"{UNET}.safetensors").read_bytes() == FILES[f"{UNET}.safetensors"]
    assert (folder.path / "tokenizer/vocab.json").read_bytes() == FILES["tokenizer/vocab.json"]


async def test_a_file_that_was_lost_is_fetched_again_and_the_others_are_not(repo: Repo, tmp_path: Path) -> None:
    folder, _ = await obtain(find("owner/repo", tmp_path, repo.url))
    (folder.path / "unet" / "config.json").unlink()
    repo.seen.clear()
    again, _ = await obtain(find("owner/repo", tmp_path, repo.url))
    assert again == folder
    fetched = [path.rpartition("/resolve/")[2].partition("/")[2] for path in repo.seen[1:]]
    assert fetched == ["model_index.json", "unet/config.json"]


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", f"{UNET}.safetensors"])
async def test_what_is_not_what_the_hub_lists_is_thrown_away(repo: Repo, tmp_path: Path, name: str) -> None:
    repo.wrong = {name}
    with pytest.raises(WeightsCorrupt, match="does not match"):
        await obtain(find("owner/repo", tmp_path, repo.url))
    assert name not in inside(tmp_path / "images" / "owner--repo@main")
    repo.wrong = set()
    await obtain(find("owner/repo", tmp_path, repo.url))


async def test_weights_without_a_sha256_are_refused(repo: Repo, tmp_path: Path) -> None:
    repo.large = (".nothing", ".never")
    with pytest.raises(WeightsCorrupt, match="gives no SHA-256"):
        await obtain(find("owner/repo", tmp_path, repo.url))


@pytest.mark.parametrize("listing", [b"no json", b"{}", b'{"sha": 1, "siblings": []}', b"\xff"])
async def test_a_hub_that_lists_nothing_is_told(repo: Repo, tmp_path: Path, listing: bytes) -> None:
    repo.listing = listing
    with pytest.raises(FetchFailed, match="did not list the files"):
        await obtain(find("owner/repo", tmp_path, repo.url))


async def test_a_listing_without_bounds_is_cut_off(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convene.engine.image_hub.LISTING_BYTES_MAX", 100)
    with pytest.raises(FetchFailed, match="too long"):
        await obtain(find("owner/repo", tmp_path, repo.url))


async def test_names_that_lead_out_of_the_folder_are_never_written(repo: Repo, tmp_path: Path) -> None:
    repo.files |= {"../evil.json": b"1", "unet/../../evil.json": b"2", "/evil.json": b"3", "unet/..": b"4"}
    folder, _ = await obtain(find("owner/repo", tmp_path, repo.url))
    assert inside(folder.path) == sorted([*WANTED, f"{UNET}.safetensors"])
    assert not [name for name in inside(tmp_path) if "evil" in name]


async def test_a_repository_without_an_index_is_refused(repo: Repo, tmp_path: Path) -> None:
    del repo.files["model_index.json"]
    with pytest.raises(WeightsCorrupt, match=r"no usable model_index.json"):
        await obtain(find("owner/repo", tmp_path, repo.url))


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, WeightsMissing, "configure a hub token"),
        (403, WeightsMissing, "configure a hub token"),
        (404, WeightsMissing, "Check both names"),
        (500, FetchFailed, "answered with status 500"),
    ],
)
async def test_a_hub_that_refuses_is_explained(
    repo: Repo, tmp_path: Path, status: int, kind: type[EngineFault], words: str
) -> None:
    repo.status = status
    with pytest.raises(kind, match=words):
        await obtain(find("owner/repo", tmp_path, repo.url))


async def test_a_hub_that_is_silent_is_explained(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="cannot be reached"):
        await obtain(find("owner/repo", tmp_path))
    with pytest.raises(FetchFailed, match="must begin with http"):
        await obtain(find("owner/repo", tmp_path, "file:///etc"))


async def test_a_disk_without_room_is_told(repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="no room"):
        await obtain(find("owner/repo", tmp_path, repo.url, free=1000))


@pytest.mark.req("OPS-28")
@pytest.mark.parametrize("settings", [{"offline": True}, {"fetch": False}])
async def test_nothing_is_asked_where_fetching_is_off(repo: Repo, tmp_path: Path, settings: dict[str, bool]) -> None:
    with pytest.raises(Offline, match="download the folder elsewhere and give its path"):
        await obtain(find("owner/repo", tmp_path, repo.url, **settings))
    assert repo.seen == []


async def test_two_that_want_the_same_fetch_it_once(repo: Repo, tmp_path: Path) -> None:
    first, second = await asyncio.gather(
        obtain(find("owner/repo", tmp_path, repo.url)), obtain(find("owner/repo", tmp_path, repo.url))
    )
    assert first[0] == second[0]
    assert sum(path.endswith(".safetensors") for path in repo.seen) == 1


async def test_a_fetch_that_is_cancelled_stops_and_keeps_what_it_has(repo: Repo, tmp_path: Path) -> None:
    begun = asyncio.Event()
    weights = find("owner/repo", tmp_path, repo.url, timeout_s=1.0)
    task = asyncio.create_task(weights.obtain(lambda _: begun.set()))
    async with asyncio.timeout(PATIENCE_S):
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    folder, _ = await obtain(find("owner/repo", tmp_path, repo.url))
    assert inside(folder.path) == sorted([*WANTED, f"{UNET}.safetensors"])
