"""Pictures behind links: whose they are, how they go, and what happens where they cannot be kept."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from convene.config import Images, Price

if TYPE_CHECKING:
    from pathlib import Path

    from api.conftest import Serve, Served

DEMO = {"demo": Images(kind="scripted", model="draw")}
BASE = "https://convene.test"


async def drawn(served: Served, **body: Any) -> Any:  # noqa: ANN401 -- an answer
    asked = {"model": "demo", "prompt": "a fox", "size": "256x256", "response_format": "url"} | body
    return await served.http.post("/v1/images/generations", json=asked, headers=served.auth)


async def link_of(served: Served, **body: Any) -> str:  # noqa: ANN401 -- fields
    link = (await drawn(served, **body)).json()["data"][0]["url"]
    assert link.startswith(f"{BASE}/v1/images/files/")
    return str(link.removeprefix(BASE))


async def stranger(served: Served) -> dict[str, str]:
    """Return the header of a key of another owner."""
    key, _ = await served.app.accounts.ring.create("stranger", owner="somebody else")
    return {"Authorization": f"Bearer {key}"}


async def rows(served: Served) -> list[Any]:
    assert served.app.books is not None
    await served.app.books.books.flush()
    found = (await served.http.get("/v1/usage/requests", headers=served.auth)).json()["data"]
    return [(one["status"], one["images"], one["cost"]["micros"]) for one in found]


async def test_an_owner_deletes_a_picture_and_its_link_ends(serve: Serve) -> None:
    async with serve(images=DEMO, public_url=BASE) as served:
        link = await link_of(served)
        shown = await served.http.get(link)
        assert Image.open(io.BytesIO(shown.content)).size == (256, 256)
        path = link.partition("?")[0]
        gone = await served.http.delete(path, headers=served.auth)
        assert (gone.status_code, gone.json()) == (
            200,
            {"id": path.rpartition("/")[2], "object": "image", "deleted": True},
        )
        assert (await served.http.get(link)).status_code == 404
        assert (await served.http.delete(path, headers=served.auth)).status_code == 404
        assert (await served.http.get(await link_of(served))).status_code == 200


async def test_a_foreign_picture_answers_like_a_missing_one_and_without_a_key_nothing_goes(serve: Serve) -> None:
    async with serve(images=DEMO, public_url=BASE) as served:
        link, other = await link_of(served), await stranger(served)
        path = link.partition("?")[0]
        name = path.rpartition("/")[2]
        missing = path.replace(name, f"{'0' * 32}-{name.partition('-')[2]}")
        foreign = await served.http.delete(path, headers=other)
        absent = await served.http.delete(missing, headers=other)
        assert (await served.http.delete(link)).status_code == 401
        assert (await served.http.get(link)).status_code == 200
    assert foreign.status_code == absent.status_code == 404
    assert foreign.json() == absent.json()


@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_kept_is_an_error_that_costs_nothing_and_says_the_way_out(
    serve: Serve,
    tmp_path: Path,
    stream: bool,  # noqa: FBT001 -- a parameter
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").write_text("in the way")
    async with serve(images=DEMO, prices={"demo": Price(image=0.04)}) as served:
        answer = await drawn(served, n=2, stream=stream)
        if stream:
            assert "image_generation.completed" not in answer.text
            assert "b64_json" in answer.text
            assert "store_unavailable" in answer.text
        else:
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
            assert "b64_json" in answer.json()["error"]["message"]
        assert (await drawn(served, n=2, response_format="b64_json")).status_code == 200
        assert sorted(await rows(served)) == [("failed", 0, 0), ("ok", 2, 80_000)]


async def test_the_folder_never_takes_more_than_it_may(serve: Serve, tmp_path: Path) -> None:
    async with serve(images=DEMO, public_url=BASE, image_bytes_max=100_000) as served:
        links = [await link_of(served, seed=seed, size="1024x1024") for seed in range(12)]
        answers = [(await served.http.get(link)).status_code for link in links]
    held = sum(path.stat().st_size for path in (tmp_path / "data" / "images").glob("*/*"))
    assert 0 < held <= 100_000
    assert answers[0] == 404
    assert answers[-1] == 200
