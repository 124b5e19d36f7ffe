"""What clients learn of image models, several at once, test pictures by rule, and pictures inside a chat."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from convene.config import Images, Model, Scripted, Upstream

if TYPE_CHECKING:
    from pathlib import Path

    from api.conftest import Serve, Served
    from image_hosts import ImageHosts

PROMPT = "a fox in snow"
DEMO = {"demo": Images(kind="scripted")}


async def post(served: Served, path: str = "/v1/images/generations", **body: Any) -> Any:  # noqa: ANN401 -- JSON
    return await served.http.post(path, json={"prompt": PROMPT} | body, headers=served.auth)


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text.rpartition(",")[2])))


async def shown(served: Served, name: str) -> Any:  # noqa: ANN401 -- JSON
    return (await served.http.get(f"/v1/models/{name}", headers=served.auth)).json()


async def test_a_models_entry_says_what_it_draws(serve: Serve, hosts: ImageHosts) -> None:
    images = {
        "painter": Images(base_url=f"{hosts.url}/v1", aliases=("brush",), tasks=("generate", "edit", "vary")),
        "webui": Images(kind="automatic1111", base_url=hosts.url, side_max=1024, count_max=2),
    } | DEMO
    async with serve(images=images) as served:
        listed = (await served.http.get("/v1/models", headers=served.auth)).json()["data"]
        painter, brush, webui, demo = [await shown(served, name) for name in ("painter", "brush", "webui", "demo")]
        by_sdk = {one.id: one.to_dict() for one in (await served.sdk.models.list()).data}
    assert painter["image"] == {
        "tasks": ["generate", "edit", "vary"],
        "sizes": ["256x256", "512x512", "1024x1024", "1024x1536", "1536x1024", "1024x1792", "1792x1024"],
        "default_size": "1024x1024",
        "formats": ["png", "jpeg", "webp"],
        "count_max": 4,
        "sources_max": 16,
        "seed": False,
        "transparent_background": False,
        "progress": False,
    }
    assert brush["image"] == painter["image"]
    assert brush["alias_of"] == "painter"
    assert webui["image"]["sizes"] == ["256x256", "512x512", "1024x1024"]
    assert (webui["image"]["count_max"], webui["image"]["default_size"]) == (2, "512x512")
    assert webui["image"]["progress"]
    assert demo["image"]["scripted"]
    assert "Test pictures" in demo["description"]
    assert {one["id"]: one for one in listed}["webui"] == webui == by_sdk["webui"]
    assert not any("image" in one for one in listed if one["kind"] != "image")


async def test_whatever_an_entry_says_can_be_asked_for(serve: Serve) -> None:
    async with serve(images=DEMO) as served:
        can = (await shown(served, "demo"))["image"]
        for size in can["sizes"]:
            body = (await post(served, model="demo", size=size)).json()
            assert body["size"] == size
        for form in can["formats"]:
            body = (await post(served, model="demo", size="256x256", output_format=form)).json()
            assert (opened(body["data"][0]["b64_json"]).format or "").lower() == form
        assert (await post(served, model="demo", size="auto")).json()["size"] == can["default_size"]
        assert (await post(served, model="demo", n=can["count_max"], size="256x256")).status_code == 200
        assert (await post(served, model="demo", n=can["count_max"] + 1)).status_code == 400


@pytest.mark.req("IMAGE-11")
async def test_several_pictures_are_had_by_several_requests_at_once(serve: Serve) -> None:
    images = {"demo": Images(kind="scripted", steps=2, step_s=0.05)}
    async with serve(images=images) as served:
        answers = await asyncio.gather(
            *(post(served, "/v1/image/generate", model="demo", size="256x256", seed=seed) for seed in range(8))
        )
        assert served.app.books is not None
        await served.app.books.books.flush()
        rows = (await served.http.get("/v1/usage/requests", headers=served.auth)).json()["data"]
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len({answer.json()["images"][0]["url"] for answer in answers}) == 8
    assert [(row["kind"], row["images"], row["status"]) for row in rows] == [("image", 1, "ok")] * 8


async def test_test_pictures_are_never_taken_for_drawings(serve: Serve, hosts: ImageHosts) -> None:
    """A real model draws for whoever names none, wherever it stands; by its name the scripted one answers."""
    real = {"painter": Images(base_url=f"{hosts.url}/v1")}
    async with serve(images=DEMO | real) as served:
        assert (await post(served, size="256x256")).status_code == 200
        assert len(hosts.seen["/v1/images/generations"]) == 1
        body = (await post(served, model="demo", size="256x256")).json()
        assert len(hosts.seen["/v1/images/generations"]) == 1
    origin = str(opened(body["data"][0]["b64_json"]).info["Description"])
    assert origin.startswith("made by demo")


async def test_nothing_is_scripted_unless_it_is_configured(served: Served) -> None:
    answer = await post(served, model="demo")
    assert answer.status_code == 404
    assert not any("image" in one for one in (await served.http.get("/v1/models", headers=served.auth)).json()["data"])


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ("fail-before", 503, "model_unavailable"),
        ("fail-after", 503, "model_unavailable"),
        ("flaky", 503, "model_unavailable"),
        ("refuse", 400, "content_policy_violation"),
    ],
)
async def test_a_script_that_fails_fails_like_a_real_model(serve: Serve, script: str, status: int, code: str) -> None:
    async with serve(images={"demo": Images(kind="scripted", model=script)}) as served:
        answer = await post(served, model="demo")
        assert served.app.books is not None
        await served.app.books.books.flush()
        [row] = (await served.http.get("/v1/usage/requests", headers=served.auth)).json()["data"]
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert (row["images"], row["status"]) == (0, "failed")


async def test_a_stream_tells_the_steps_and_ends_in_a_fault_after_what_was_finished(serve: Serve) -> None:
    async with serve(images={"demo": Images(kind="scripted", model="fail-after", steps=2)}) as served:
        answer = await post(served, model="demo", n=2, stream=True, size="256x256")
        assert served.app.books is not None
        await served.app.books.books.flush()
        [row] = (await served.http.get("/v1/usage/requests", headers=served.auth)).json()["data"]
    blocks = answer.text.strip().split("\n\n")
    assert blocks[:2] == [": progress 1/4", ": progress 2/4"]
    assert blocks[2].startswith("event: image_generation.completed\n")
    assert blocks[-1].startswith("event: error\n")
    assert row["images"] == 1


@pytest.mark.req("IMAGE-12")
@pytest.mark.parametrize("stream", [False, True])
async def test_an_agentic_model_has_a_picture_drawn_and_its_text_shows_the_link(
    serve: Serve,
    hosts: ImageHosts,
    stream: bool,  # noqa: FBT001 -- a parameter
) -> None:
    upstreams = {"up": Upstream(base_url=f"{hosts.url}/v1")}
    models = {"artist": Model(upstream=("up",))}
    asked: dict[str, Any] = {"model": "artist", "messages": [{"role": "user", "content": "Draw a fox in snow."}]}
    async with serve(upstreams=upstreams, models=models, images=DEMO, public_url="https://convene.test") as served:
        if stream:
            frames = [one for one in await served.frames(**asked) if one != "[DONE]"]
            text = "".join(c["delta"].get("content") or "" for one in frames for c in one.get("choices", ()))
            ran = [item for one in frames for item in one.get("executable_data") or ()]
            told = [step["summary"] for one in frames for step in one.get("intermediate_steps") or ()]
            assert "Drawing: step 1 of 4" in told
            assert told.index("Drawing") < told.index("Drawing: step 1 of 4")
        else:
            reply = (await served.chat(**asked)).json()
            text, ran = reply["choices"][0]["message"]["content"], reply["executable_data"]
        found = re.fullmatch(
            r"Here it is:\n\n!\[a fox in snow\]\(https://convene\.test(/v1/images/files/[^)]+)\)", text
        )
        assert found is not None, text
        picture = await served.http.get(found[1])
    assert Image.open(io.BytesIO(picture.content)).size == (256, 256)
    assert [(one["tool_name"], one["status"]) for one in ran] == [("generate_image", "done")]
    assert (ran[0]["result"]["model"], ran[0]["result"]["width"]) == ("demo", 256)


@pytest.mark.req("DEC-07")
async def test_created_counts_seconds_in_a_chat_and_milliseconds_around_asi_ones_images(serve: Serve) -> None:
    seconds, milliseconds = range(10**9, 10**11), range(10**12, 10**14)
    async with serve(images=DEMO) as served:
        assert (await served.chat()).json()["created"] in seconds
        assert all(one["created"] in seconds for one in await served.frames() if one != "[DONE]")
        assert (await post(served, model="demo", size="256x256")).json()["created"] in seconds
        assert (await post(served, "/v1/image/generate", size="256x256")).json()["created"] in milliseconds


async def test_a_plan_may_have_pictures_drawn_side_by_side(serve: Serve, tmp_path: Path) -> None:
    steps = [
        {"id": name, "task": f"draw {what}", "tool": "generate_image", "input": what, "depends_on": []}
        for name, what in (("fox", "a fox in snow"), ("owl", "an owl at night"))
    ]
    turns = [
        {"when": "Make a plan for the last request", "steps": [{"text": json.dumps({"steps": steps})}]},
        {"when": "The plan was carried out", "steps": [{"text": "Both are drawn."}]},
    ]
    file = tmp_path / "planner.json"
    file.write_text(json.dumps({"models": [{"name": "planner", "turns": turns}]}))
    scripted = Scripted(enabled=True, file=str(file))
    asked = {
        "model": "planner",
        "planner_mode": True,
        "messages": [{"role": "user", "content": "Draw a fox, and an owl."}],
    }
    async with serve(images=DEMO, scripted=scripted, public_url="https://convene.test") as served:
        reply = (await served.chat(**asked)).json()
        ran = reply["executable_data"]
        assert [(one["tool_name"], one["status"]) for one in ran] == [("generate_image", "done")] * 2, reply
        assert sorted(one["args"]["prompt"] for one in ran) == ["a fox in snow", "an owl at night"]
        for one in ran:
            shown = await served.http.get(one["result"]["link"].removeprefix("https://convene.test"))
            assert Image.open(io.BytesIO(shown.content)).size == (one["result"]["width"], one["result"]["height"])
    lines = [f"![{one['args']['prompt']}]({one['result']['link']})" for one in ran]
    assert reply["choices"][0]["message"]["content"] == "\n\n".join(("Both are drawn.", *lines))
