"""Pictures through HTTP, with a real image host behind: both routes, both shapes, limits, books, what is refused."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import openai
import pytest
from PIL import Image

from convene.config import Images, Plan, Price, Scripted

if TYPE_CHECKING:
    from pathlib import Path

    from api.conftest import Serve, Served
    from image_hosts import ImageHosts

PROMPT = "a fox in snow"


@pytest.fixture
def draws(serve: Serve, hosts: ImageHosts) -> Any:  # noqa: ANN401 -- a fixture's factory
    """Return a way to serve with an image model `painter`."""

    def start(kind: Any = "openai", **fields: Any) -> Any:  # noqa: ANN401 -- fields of the configuration
        base_url = hosts.url + ("/v1" if kind == "openai" else "")
        settings = {"images": {"painter": Images(kind=kind, base_url=base_url, aliases=("dall-e",))}}
        return serve(**(settings | fields))

    return start


async def post(served: Served, path: str = "/v1/images/generations", **body: Any) -> Any:  # noqa: ANN401 -- JSON
    return await served.http.post(path, json={"prompt": PROMPT} | body, headers=served.auth)


def opened(text: str) -> Image.Image:
    """Open a picture from base64 or from a data URL."""
    return Image.open(io.BytesIO(base64.b64decode(text.rpartition(",")[2])))


@pytest.mark.req("IMAGE-01", "IMAGE-06", "API-04")
async def test_the_official_sdk_gets_pictures_of_the_size_it_asks_for(draws: Any) -> None:  # noqa: ANN401
    async with draws() as served:
        reply = await served.sdk.images.generate(model="painter", prompt=PROMPT, size="512x512", n=2)
    assert len(reply.data) == 2
    assert [opened(one.b64_json).size for one in reply.data] == [(512, 512)] * 2
    assert reply.data[0].revised_prompt == "a better prompt"


@pytest.mark.req("IMAGE-02", "IMAGE-07", "IMAGE-08")
async def test_asi_ones_request_gets_both_shapes_at_once(draws: Any) -> None:  # noqa: ANN401
    async with draws() as served:
        answer = await post(served, "/v1/image/generate", model="asi1-mini", size="1024x1024")
    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert (body["status"], body["message"]) == (1, "Success")
    assert body["created"] > 10**12
    assert body["images"][0]["url"].startswith("data:image/png;base64,")
    assert opened(body["images"][0]["url"]).size == opened(body["data"][0]["b64_json"]).size == (1024, 1024)


async def test_openais_path_counts_seconds_and_gives_a_link_when_asked_for_one(draws: Any) -> None:  # noqa: ANN401
    async with draws(public_url="https://convene.test") as served:
        body = (await post(served, response_format="url", size="256x256")).json()
        link = body["data"][0]["url"]
        assert link == body["images"][0]["url"]
        path = link.removeprefix("https://convene.test")
        shown = await served.http.get(path)
        changed = await served.http.get(path[:-1] + ("0" if path[-1] != "0" else "1"))
    assert 10**9 < body["created"] < 10**11
    assert "b64_json" not in body["data"][0]
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/png")
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert Image.open(io.BytesIO(shown.content)).size == (256, 256)
    assert changed.status_code == 404


@pytest.mark.req("IMAGE-03", "IMAGE-04", "IMAGE-05")
@pytest.mark.parametrize(
    ("size", "found"),
    [
        (None, (1024, 1024)),
        ("", (1024, 1024)),
        ("auto", (1024, 1024)),
        ("256x256", (256, 256)),
        ("1024x1536", (1024, 1536)),
        ("1536x1024", (1536, 1024)),
        ("1792x1024", (1792, 1024)),
        ("1024x1792", (1024, 1792)),
    ],
)
async def test_every_documented_size_is_drawn(draws: Any, size: str | None, found: tuple[int, int]) -> None:  # noqa: ANN401
    async with draws() as served:
        body = (await post(served, model="painter", size=size)).json()
    assert opened(body["data"][0]["b64_json"]).size == found
    assert body["size"] == f"{found[0]}x{found[1]}"


@pytest.mark.req("IMAGE-02")
async def test_asi_ones_path_draws_1024x1024_unless_told_where_the_model_makes_that(draws: Any) -> None:  # noqa: ANN401
    async with draws("automatic1111") as served:
        told = {
            path: [(await post(served, path, **size)).json()["size"] for size in ({}, {"size": "auto"}, {"size": ""})]
            for path in ("/v1/image/generate", "/v1/images/generations")
        }
    assert told == {"/v1/image/generate": ["1024x1024", *["512x512"] * 2], "/v1/images/generations": ["512x512"] * 3}


@pytest.mark.req("IMAGE-02")
async def test_a_size_that_was_not_asked_for_is_never_a_reason_to_refuse(serve: Serve) -> None:
    async with serve(images={"painter": Images(kind="scripted", side_max=512)}) as served:
        assert (await post(served, "/v1/image/generate")).json()["size"] == "512x512"


@pytest.mark.req("IMAGE-05", "IMAGE-10")
@pytest.mark.parametrize("size", ["2048x512", "0x0", "big", "1024X1024"])
async def test_any_other_size_is_a_400_that_names_the_field(draws: Any, hosts: ImageHosts, size: str) -> None:  # noqa: ANN401
    async with draws() as served:
        answer = await post(served, model="painter", size=size)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "size"
    assert not hosts.seen


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"prompt": "  "}, "prompt"), ({"n": 9}, "n"), ({"n": 0}, "n"), ({"background": "transparent"}, "background")],
)
async def test_what_the_model_cannot_do_is_refused_by_name(draws: Any, fields: dict[str, Any], param: str) -> None:  # noqa: ANN401
    async with draws() as served:
        answer = await post(served, model="painter", **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.req("IMAGE-10")
async def test_without_an_image_model_the_answer_names_the_setting(serve: Serve) -> None:
    async with serve() as served:
        answer = await post(served, "/v1/image/generate", model="asi1-mini")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (404, "model_not_found")
    assert "[images.NAME]" in error["message"]


async def test_a_name_that_is_no_model_is_not_drawn_by_another(draws: Any) -> None:  # noqa: ANN401
    async with draws() as served:
        assert (await post(served, model="nobody")).status_code == 404
        assert (await post(served, model="dall-e")).status_code == 200


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
async def test_a_picture_comes_in_the_form_that_is_asked_for_and_says_where_it_is_from(draws: Any, form: str) -> None:  # noqa: ANN401
    async with draws() as served:
        body = (await post(served, model="painter", output_format=form, size="256x256")).json()
    picture = opened(body["data"][0]["b64_json"])
    assert (picture.format or "").lower() == form == body["output_format"]
    origin = str(picture.info.get("Description") or picture.getexif().get(0x010E))
    assert origin.startswith("made by painter")
    assert PROMPT not in origin


async def test_something_that_is_no_picture_never_leaves(draws: Any, hosts: ImageHosts) -> None:  # noqa: ANN401
    broken = base64.b64encode(b"\x89PNG\r\n\x1a\nand then nothing").decode()
    hosts.fails["/v1/images/generations"] = (200, json.dumps({"data": [{"b64_json": broken}]}).encode())
    async with draws() as served:
        answer = await post(served, model="painter")
    assert answer.status_code == 502
    assert "no picture" in answer.json()["error"]["message"]


@pytest.mark.req("LIMIT-05", "USAGE-01")
async def test_pictures_are_limited_priced_and_entered(draws: Any) -> None:  # noqa: ANN401
    plans = {"owner": Plan(images_per_minute=3)}
    async with draws(plans=plans, prices={"painter": Price(image=0.04)}) as served:
        first = await post(served, model="painter", n=2)
        refused = await post(served, model="painter", n=2)
        assert (first.status_code, refused.status_code) == (200, 429)
        assert int(refused.headers["retry-after"]) > 0
        assert served.app.books is not None
        await served.app.books.books.flush()
        [row] = (await served.http.get("/v1/usage/requests", headers=served.auth)).json()["data"]
    assert (row["kind"], row["images"], row["cost"]["micros"]) == ("image", 2, 80_000)


async def test_a_host_that_fails_is_told_in_the_one_shape_and_nothing_is_owed(draws: Any, hosts: ImageHosts) -> None:  # noqa: ANN401
    hosts.fails["/v1/images/generations"] = (500, b"{}")
    async with draws(prices={"painter": Price(image=0.04)}) as served:
        with pytest.raises(openai.InternalServerError):
            await served.sdk.images.generate(model="painter", prompt=PROMPT)
        assert served.app.books is not None
        await served.app.books.books.flush()
        rows = (await served.http.get("/v1/usage/requests", headers=served.auth)).json()["data"]
    assert {(row["status"], row["images"], row["cost"]["micros"]) for row in rows} == {("failed", 0, 0)}


async def test_automatic1111_draws_behind_the_same_routes(draws: Any) -> None:  # noqa: ANN401
    async with draws("automatic1111") as served:
        body = (await post(served, model="painter", size="256x256", n=2, seed=4)).json()
    assert [opened(one["b64_json"]).size for one in body["data"]] == [(256, 256)] * 2


async def test_models_that_draw_are_listed_as_such(draws: Any) -> None:  # noqa: ANN401
    async with draws() as served:
        models = {
            one["id"]: one["kind"] for one in (await served.http.get("/v1/models", headers=served.auth)).json()["data"]
        }
        chat = await served.chat(model="painter")
    assert models["painter"] == models["dall-e"] == "image"
    assert chat.status_code == 404
    assert "makes pictures" in chat.json()["error"]["message"]


async def test_a_repeat_with_the_same_idempotency_key_is_drawn_once(draws: Any, hosts: ImageHosts) -> None:  # noqa: ANN401
    async with draws() as served:
        headers = served.auth | {"idempotency-key": "one"}
        bodies = [
            (await served.http.post("/v1/image/generate", json={"prompt": PROMPT}, headers=headers)).content
            for _ in range(2)
        ]
    assert bodies[0] == bodies[1]
    assert len(hosts.seen["/v1/images/generations"]) == 1


@pytest.fixture
def painted(draws: Any, tmp_path: Path) -> Any:  # noqa: ANN401 -- a fixture's factory
    """Return a way to serve the chat model `artist`, which has a picture drawn and then shows it."""
    line = "![a fox in snow]"
    script = [
        [{"call": {"name": "generate_image", "args": {"prompt": PROMPT, "size": "256x256"}}}],
        [{"text": f"Here it is: {line}"}],
    ]
    file = tmp_path / "artist.json"
    file.write_text(json.dumps({"models": [{"name": "artist", "turns": [{"steps": steps} for steps in script]}]}))
    return lambda kind="openai", **fields: draws(
        kind, scripted=Scripted(enabled=True, file=str(file)), public_url="https://convene.test", **fields
    )


@pytest.mark.parametrize("kind", ["openai", "automatic1111"])
async def test_in_a_chat_a_picture_is_drawn_by_the_servers_own_tool_and_booked_by_itself(
    painted: Any,  # noqa: ANN401 -- a fixture
    kind: str,
) -> None:
    async with painted(kind, prices={"painter": Price(image=0.04)}) as served:
        reply = (await served.chat(model="artist", messages=[{"role": "user", "content": "Draw a fox."}])).json()
        [ran] = reply["executable_data"]
        assert (ran["tool_name"], ran["status"]) == ("generate_image", "done")
        assert (ran["result"]["width"], ran["result"]["height"]) == (256, 256)
        link = ran["result"]["link"]
        assert reply["choices"][0]["message"]["content"].endswith(f"\n\n![{PROMPT}]({link})")
        shown = await served.http.get(link.removeprefix("https://convene.test"))
        assert Image.open(io.BytesIO(shown.content)).size == (256, 256)
        assert served.app.books is not None
        await served.app.books.books.flush()
        rows = (await served.http.get("/v1/usage/requests", headers=served.auth)).json()["data"]
    drawn = next(row for row in rows if row["kind"] == "image")
    assert (drawn["images"], drawn["cost"]["micros"], drawn["request_id"]) == (1, 40_000, reply["metadata"]["run_id"])


async def test_the_tool_is_there_where_something_draws(draws: Any) -> None:  # noqa: ANN401
    async with draws() as served:
        assert "generate_image" in await _tools(served)


async def test_where_nothing_draws_there_is_no_tool_for_it(served: Served) -> None:
    assert "generate_image" not in await _tools(served)


async def _tools(served: Served) -> set[str]:
    """Return the names of the server's own tools."""
    return {tool["name"] for tool in (await served.http.get("/v1/tools", headers=served.auth)).json()["data"]}


async def test_a_picture_that_cannot_be_drawn_fails_the_call_and_not_the_turn(painted: Any, hosts: ImageHosts) -> None:  # noqa: ANN401
    hosts.fails["/v1/images/generations"] = (500, b"{}")
    async with painted() as served:
        reply = (await served.chat(model="artist", messages=[{"role": "user", "content": "Draw a fox."}])).json()
    assert reply["choices"][0]["message"]["content"]
    assert reply["executable_data"][0]["status"] == "failed"
