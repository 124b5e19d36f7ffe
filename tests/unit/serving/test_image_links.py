"""Links to pictures: signed, ended by time, and the same answer for whatever is wrong with one."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from convene.errors import NotFound
from convene.serving.base_images import Picture
from convene.serving.image_links import PATH, ImageLinks
from convene.store.picture_files import PictureFiles
from fakes import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

PICTURE = Picture(data=b"picture", format="webp", width=1, height=1)


def parts_of(link: str) -> tuple[str, int, str]:
    """Return name, expiry and signature of a link."""
    found = urlsplit(link)
    query = parse_qs(found.query)
    return found.path.removeprefix(PATH), int(query["expires"][0]), query["signature"][0]


@pytest.fixture
def links(tmp_path: Path, clock: FakeClock) -> ImageLinks:
    return ImageLinks(PictureFiles(tmp_path, clock), clock, "https://convene.test", keep_s=60)


async def test_a_link_leads_to_its_picture_until_its_time_is_up(links: ImageLinks, clock: FakeClock) -> None:
    link = await links.shelve(PICTURE, "ann")
    assert link.startswith(f"https://convene.test{PATH}")
    name, expires, signature = parts_of(link)
    assert expires == int(clock.now()) + 60
    assert await links.fetch(name, expires, signature) == (b"picture", "image/webp")
    clock.move(59)
    assert (await links.fetch(name, expires, signature.upper()))[0] == b"picture"
    clock.move(2)
    with pytest.raises(NotFound):
        await links.fetch(name, expires, signature)


async def test_nothing_of_a_link_can_be_changed(links: ImageLinks) -> None:
    name, expires, signature = parts_of(await links.shelve(PICTURE, "ann"))
    other = parts_of(await links.shelve(Picture(data=b"other", format="png", width=1, height=1), "ann"))[0]
    wrong = "0" if signature[-1] != "0" else "1"
    for tried in (
        (other, expires, signature),
        (name, expires + 1, signature),
        (name, expires, signature[:-1] + wrong),
        (name, expires, ""),
        (name, expires, "é" * 64),
        ("../secret", expires, signature),
        ("\ud800", expires, signature),
    ):
        with pytest.raises(NotFound):
            await links.fetch(*tried)


async def test_another_server_over_the_same_folder_knows_the_link(tmp_path: Path, links: ImageLinks) -> None:
    clock = FakeClock(seed=5)
    another = ImageLinks(PictureFiles(tmp_path, clock), clock, "https://other.test", keep_s=60)
    assert (await another.fetch(*parts_of(await links.shelve(PICTURE, "ann"))))[0] == b"picture"


async def test_another_folder_signs_otherwise(tmp_path: Path, links: ImageLinks) -> None:
    clock = FakeClock(seed=5)
    another = ImageLinks(PictureFiles(tmp_path / "other", clock), clock, "https://other.test", keep_s=60)
    await another.shelve(PICTURE, "ann")
    with pytest.raises(NotFound):
        await another.fetch(*parts_of(await links.shelve(PICTURE, "ann")))


async def test_an_owner_deletes_a_picture_and_every_link_to_it_ends(links: ImageLinks) -> None:
    first, second = [parts_of(await links.shelve(PICTURE, "ann")) for _ in range(2)]
    await links.delete(first[0], "ann")
    for parts in (first, second):
        with pytest.raises(NotFound):
            await links.fetch(*parts)
    with pytest.raises(NotFound):
        await links.delete(first[0], "ann")


async def test_a_foreign_picture_answers_like_a_missing_one_and_stays(links: ImageLinks) -> None:
    parts = parts_of(await links.shelve(PICTURE, "ann"))
    said = set()
    for file in (parts[0], f"{'0' * 32}-{parts[0][33:]}", parts[0][33:], "", "é", "\ud800", "../secret"):
        with pytest.raises(NotFound) as caught:
            await links.delete(file, "bob")
        said.add(caught.value.message)
    assert len(said) == 1
    assert (await links.fetch(*parts))[0] == b"picture"


async def test_the_same_picture_of_two_owners_is_two_and_the_link_does_not_name_them(links: ImageLinks) -> None:
    ann, bob = [parts_of(await links.shelve(PICTURE, owner)) for owner in ("ann", "bob")]
    assert ann[0] != bob[0]
    assert ann[0][33:] == bob[0][33:]
    assert hashlib.sha256(b"ann").hexdigest()[:32] not in ann[0]
    await links.delete(ann[0], "ann")
    assert (await links.fetch(*bob))[0] == b"picture"
