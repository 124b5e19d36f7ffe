"""Pictures on the disk: by the hash of their bytes, for their owner only, never half there."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest

from convene.errors import StoreFault
from convene.store.picture_files import NAME, SECRET_BYTES, PictureFiles
from fakes import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_picture_comes_back_by_the_name_that_its_bytes_give_it(tmp_path: Path, clock: FakeClock) -> None:
    files = PictureFiles(tmp_path / "images", clock)
    name = await files.put(b"picture", "png")
    assert name == f"{hashlib.sha256(b'picture').hexdigest()}.png"
    assert NAME.fullmatch(name)
    assert await files.get(name) == b"picture"
    assert await files.put(b"picture", "png") == name
    assert len(list((tmp_path / "images").rglob("*.png"))) == 1


@pytest.mark.parametrize("name", ["", "x.png", "../secret", "0" * 64, f"{'0' * 64}.exe", f"{'0' * 63}/.png", "secret"])
async def test_no_other_name_leads_anywhere(tmp_path: Path, clock: FakeClock, name: str) -> None:
    files = PictureFiles(tmp_path, clock)
    await files.secret()
    assert await files.get(name) is None


async def test_files_are_for_their_owner_only(tmp_path: Path, clock: FakeClock) -> None:
    files = PictureFiles(tmp_path / "images", clock)
    await files.put(b"picture", "webp")
    await files.secret()
    for path in (tmp_path / "images").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


async def test_what_was_kept_before_a_time_is_deleted_and_one_kept_again_lives_on(
    tmp_path: Path, clock: FakeClock
) -> None:
    files = PictureFiles(tmp_path, clock)
    old, both = await files.put(b"old", "png"), await files.put(b"both", "png")
    clock.move(100.0)
    await files.put(b"both", "png")
    assert await files.forget(clock.now() - 50) == 1
    assert await files.get(old) is None
    assert await files.get(both) == b"both"
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
        await PictureFiles(tmp_path / "images", clock).put(b"x", "png")
