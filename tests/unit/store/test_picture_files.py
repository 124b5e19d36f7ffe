"""Pictures on the disk: by shelf and hash, for their owner only, never half there, never too many."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from convene.errors import StoreFault
from convene.store.picture_files import NAME, SECRET_BYTES, PictureFiles
from fakes import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


A, B, C = "a" * 32, "b" * 32, "c" * 32


async def test_a_picture_comes_back_by_the_name_that_its_bytes_give_it(tmp_path: Path, clock: FakeClock) -> None:
    files = PictureFiles(tmp_path / "images", clock)
    name = await files.put(A, b"picture", "png")
    assert name == f"{hashlib.sha256(b'picture').hexdigest()}.png"
    assert NAME.fullmatch(name)
    assert await files.get(A, name) == b"picture"
    assert await files.put(A, b"picture", "png") == name
    assert len(list((tmp_path / "images").rglob("*.png"))) == 1


async def test_the_same_picture_on_two_shelves_is_two_of_which_one_can_go(tmp_path: Path, clock: FakeClock) -> None:
    files = PictureFiles(tmp_path, clock)
    name = await files.put(A, b"picture", "png")
    assert await files.get(B, name) is None
    assert await files.put(B, b"picture", "png") == name
    assert await files.delete(A, name)
    assert await files.get(A, name) is None
    assert await files.get(B, name) == b"picture"
    assert not await files.delete(A, name)


@pytest.mark.parametrize("shelf", ["", "..", "A" * 32, "a" * 31, f"../{'a' * 29}", "a" * 33])
async def test_no_other_shelf_is_one(tmp_path: Path, clock: FakeClock, shelf: str) -> None:
    files = PictureFiles(tmp_path, clock)
    name = await files.put(A, b"picture", "png")
    assert await files.get(shelf, name) is None
    assert not await files.delete(shelf, name)
    with pytest.raises(StoreFault):
        await files.put(shelf, b"picture", "png")


@pytest.mark.parametrize("name", ["", "x.png", "../secret", "0" * 64, f"{'0' * 64}.exe", f"{'0' * 63}/.png", "secret"])
async def test_no_other_name_leads_anywhere(tmp_path: Path, clock: FakeClock, name: str) -> None:
    files = PictureFiles(tmp_path, clock)
    await files.secret()
    assert await files.get(A, name) is None
    assert not await files.delete(A, name)
    assert len(await files.secret()) == SECRET_BYTES


async def test_files_are_for_their_owner_only(tmp_path: Path, clock: FakeClock) -> None:
    files = PictureFiles(tmp_path / "images", clock)
    await files.put(A, b"picture", "webp")
    await files.secret()
    for path in (tmp_path / "images").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


async def test_what_was_kept_before_a_time_is_deleted_and_one_kept_again_lives_on(
    tmp_path: Path, clock: FakeClock
) -> None:
    files = PictureFiles(tmp_path, clock)
    old, both = await files.put(A, b"old", "png"), await files.put(A, b"both", "png")
    clock.move(100.0)
    await files.put(A, b"both", "png")
    assert await files.forget(clock.now() - 50) == 1
    assert await files.get(A, old) is None
    assert await files.get(A, both) == b"both"
    assert len(await files.secret()) == SECRET_BYTES


async def test_all_who_share_a_folder_have_one_secret(tmp_path: Path) -> None:
    several = [PictureFiles(tmp_path, FakeClock(seed=seed)) for seed in range(8)]
    secrets = await asyncio.gather(*(files.secret() for files in several))
    assert len(set(secrets)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]  # noqa: ASYNC240 -- a test waits for nobody


@pytest.mark.parametrize("damaged", [b"", b"short"])
async def test_a_secret_that_is_too_short_is_never_used(tmp_path: Path, clock: FakeClock, damaged: bytes) -> None:
    (tmp_path / "secret").write_bytes(damaged)
    with pytest.raises(StoreFault) as caught:
        await PictureFiles(tmp_path, clock).secret()
    assert "is damaged" in caught.value.detail


async def test_a_folder_that_cannot_be_used_is_a_fault_of_the_store(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "images").write_text("in the way")
    with pytest.raises(StoreFault, match="cannot be kept"):
        await PictureFiles(tmp_path / "images", clock).put(A, b"x", "png")


def kept(folder: Path) -> dict[str, int]:
    """Return how many pictures are on each shelf, by its first letter."""
    return {shelf.name[0]: len(list(shelf.iterdir())) for shelf in folder.iterdir() if shelf.is_dir()}


async def test_whoever_has_most_loses_the_oldest_once_the_folder_is_full(tmp_path: Path, clock: FakeClock) -> None:
    files = PictureFiles(tmp_path, clock, bytes_max=100)
    few = await files.put(B, bytes(10), "png")
    many = []
    for shade in range(9):
        clock.move(1.0)
        many.append(await files.put(A, bytes([shade]) * 10, "png"))
    assert kept(tmp_path) == {"a": 9, "b": 1}
    newest = await files.put(C, b"c" * 10, "png")
    assert kept(tmp_path) == {"a": 7, "b": 1, "c": 1}
    assert [await files.get(A, name) is not None for name in many] == [False] * 2 + [True] * 7
    assert await files.get(B, few) is not None
    assert await files.get(C, newest) is not None


async def test_a_full_folder_is_found_full_by_the_next_process(tmp_path: Path, clock: FakeClock) -> None:
    for shade in range(10):
        clock.move(1.0)
        await PictureFiles(tmp_path, clock, bytes_max=1000).put(A, bytes([shade]) * 10, "png")
    await PictureFiles(tmp_path, clock, bytes_max=50).put(A, b"x" * 10, "png")
    assert kept(tmp_path) == {"a": 4}


async def test_a_sweep_takes_away_what_others_have_put_there_too_much(tmp_path: Path) -> None:
    ours, theirs = (PictureFiles(tmp_path, FakeClock(seed=seed), bytes_max=100) for seed in range(2))
    for shade in range(8):
        await ours.put(A, bytes([shade]) * 10, "png")
        await theirs.put(B, bytes([shade]) * 10, "png")
    assert sum(kept(tmp_path).values()) > 10
    assert await ours.forget(0.0) == 0
    assert sum(kept(tmp_path).values()) == 9
    assert min(kept(tmp_path).values()) >= 4


async def test_a_picture_that_never_fits_is_refused_and_takes_nothing_away(tmp_path: Path, clock: FakeClock) -> None:
    files = PictureFiles(tmp_path, clock, bytes_max=100)
    name = await files.put(A, b"small", "png")
    with pytest.raises(StoreFault, match="b64_json"):
        await files.put(A, bytes(101), "png")
    assert await files.get(A, name) == b"small"


async def test_what_a_killed_process_has_left_half_written_goes_with_the_rest(tmp_path: Path, clock: FakeClock) -> None:
    files = PictureFiles(tmp_path, clock)
    await files.put(A, b"picture", "png")
    half = tmp_path / A / ".0123"
    half.write_bytes(b"pict")
    os.utime(half, (clock.now(), clock.now()))
    clock.move(100.0)
    assert await files.forget(clock.now() - 50) == 2
    assert kept(tmp_path) == {"a": 0}
