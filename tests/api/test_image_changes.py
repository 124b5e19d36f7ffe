"""Pictures that are changed or varied, and pictures as a stream, through HTTP and the official SDK."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import openai
import pytest
from PIL import Image

from convene.config import Images, Plan, Price
from image_hosts import ImageHosts, png

if TYPE_CHECKING:
    from api.conftest import Serve, Served

PROMPT = "the same fox at night"


def clear(size: tuple[int, int] = (256, 256)) -> bytes:
    """Return a PNG file whose left half is transparent."""
    mask = Image.new("RGBA", size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1]))
    out = io.BytesIO()
    mask.save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def draws(serve: Serve, hosts: ImageHosts) -> Any:  # noqa: ANN401 -- a fixture's factory
    """Return a way to serve with an image model `painter` that can do everything."""

    def start(kind: Any = "openai", tasks: Any = ("generate", "edit", "vary"), **fields: Any) -> Any:  # noqa: ANN401
        base_url = hosts.url + ("/v1" if kind == "openai" else "")
        return serve(**({"images": {"painter": Images(kind=kind, base_url=base_url, tasks=tasks)}} | fields))

    return start


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


async def post(served: Served, path: str, **body: Any) -> Any:  # noqa: ANN401 -- JSON
    return await served.http.post(path, json=body, headers=served.auth)


@pytest.mark.req("API-04")
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
async def test_the_official_sdk_changes_and_varies_pictures(draws: Any, hosts: ImageHosts) -> None:  # noqa: ANN401
    source = png(256, 256, 9)
    async with draws() as served:
        changed = await served.sdk.images.edit(
            model="painter", image=source, mask=clear(), prompt=PROMPT, size="512x512", extra_body={"seed_mode": "x"}
        )
        several = await served.sdk.images.edit(model="painter", image=[source, source], prompt=PROMPT)
        varied = await served.sdk.images.create_variation(model="painter", image=source)
    sizes = [Image.open(io.BytesIO(base64.b64decode(one.data[0].b64_json))).size for one in (changed, several, varied)]
    assert sizes == [(512, 512), (256, 256), (256, 256)]
    first, second = hosts.seen["/v1/images/edits"]
    assert source in first
    assert clear() in first
    assert f'name="prompt"\r\n\r\n{PROMPT}\r\n'.encode() in first
    assert b'name="seed_mode"\r\n\r\nx\r\n' in first
    assert second.count(b'name="image[]"') == 2
    assert b'name="prompt"' not in hosts.seen["/v1/images/variations"][0]


async def test_pictures_may_come_as_data_urls_in_json_and_never_as_addresses(draws: Any, hosts: ImageHosts) -> None:  # noqa: ANN401
    async with draws() as served:
        body = {"model": "painter", "prompt": PROMPT, "images": [{"image_url": data_url(png(64, 48))}]}
        answer = await post(served, "/v1/images/edits", **body)
        for address in ("http://127.0.0.1/a.png", "file:///etc/passwd", "data:image/png,x", "data:image/png;base64,?"):
            refused = await post(served, "/v1/images/edits", **body | {"images": [{"image_url": address}]})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "images")
    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == "64x48"
    assert len(hosts.seen["/v1/images/edits"]) == 1


@pytest.mark.parametrize("images", [[], None, [{"image_url": data_url(b"no picture")}], [{"image_url": "data:,"}]])
async def test_what_is_wrong_with_pictures_in_json_names_the_field_they_came_in(draws: Any, images: Any) -> None:  # noqa: ANN401
    async with draws() as served:
        answer = await post(served, "/v1/images/edits", model="painter", prompt=PROMPT, images=images)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "images"), answer.text
    assert "'images'" in error["message"]


async def test_hosts_do_not_learn_where_a_picture_was_taken(draws: Any, hosts: ImageHosts) -> None:  # noqa: ANN401
    exif = Image.Exif()
    exif[0x010F] = "Ann's camera"
    told = io.BytesIO()
    Image.open(io.BytesIO(png(64, 64))).save(told, "jpeg", exif=exif, comment=b"at home")
    async with draws() as served:
        await served.sdk.images.edit(model="painter", image=("home.jpg", told.getvalue()), prompt=PROMPT)
    [form] = hosts.seen["/v1/images/edits"]
    assert b"Content-Type: image/jpeg" in form or b"content-type: image/jpeg" in form
    assert [word for word in (b"Ann's camera", b"at home", b"home.jpg") if word in form] == []


BOMB = png(1, 1)[:16] + b"\x00\x00\xff\xff\x00\x00\xff\xff" + png(1, 1)[24:]


@pytest.mark.parametrize(
    ("files", "texts", "param", "code"),
    [
        ([], {"prompt": "x"}, "image", "invalid_value"),
        ([("image", b"no picture")], {"prompt": "x"}, "image", "invalid_image"),
        ([("image", b"GIF89a" + bytes(40))], {"prompt": "x"}, "image", "invalid_image"),
        ([("image", BOMB)], {"prompt": "x"}, "image", "invalid_image"),
        ([("image", png(8, 8))], {}, "prompt", "missing_required_parameter"),
        ([("image", png(8, 8))], {"prompt": "x", "n": "many"}, "n", "invalid_type"),
        ([("image", png(8, 8))], {"prompt": "x", "size": "9x9"}, "size", "invalid_value"),
        ([("image", png(8, 8)), ("mask", clear())], {"prompt": "x"}, "mask", "invalid_value"),
        ([("image", png(8, 8)), ("mask", png(8, 8))], {"prompt": "x"}, "mask", "invalid_value"),
        ([("image", png(8, 8)), ("notes", b"x")], {"prompt": "x"}, "notes", "invalid_value"),
        ([("other", b"x")], {"prompt": "x", "image": "a text"}, "image", "invalid_value"),
        ([("image", png(8, 8))] * 17, {"prompt": "x"}, "image", "invalid_value"),
    ],
)
async def test_what_cannot_be_changed_is_refused_by_its_fields_name(
    draws: Any,  # noqa: ANN401
    hosts: ImageHosts,
    files: list[tuple[str, bytes]],
    texts: dict[str, str],
    param: str,
    code: str,
) -> None:
    sent: list[Any] = [(name, ("a.png", data, "image/png")) for name, data in files] or [("none", (None, b""))]
    async with draws() as served:
        answer = await served.http.post(
            "/v1/images/edits", data={"model": "painter"} | texts, files=sent, headers=served.auth
        )
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code), answer.text
    assert not hosts.seen


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
async def test_a_model_without_a_path_for_it_says_so(draws: Any, hosts: ImageHosts) -> None:  # noqa: ANN401
    async with draws(tasks=("generate",)) as served:
        with pytest.raises(openai.BadRequestError, match="changes no pictures"):
            await served.sdk.images.edit(model="painter", image=png(8, 8), prompt=PROMPT)
        with pytest.raises(openai.BadRequestError, match="varies no pictures"):
            await served.sdk.images.create_variation(model="painter", image=png(8, 8))
    assert not hosts.seen


async def test_without_an_image_model_changes_name_the_setting_too(serve: Serve) -> None:
    async with serve() as served:
        with pytest.raises(openai.NotFoundError, match=r"\[images\.NAME\]"):
            await served.sdk.images.edit(image=png(8, 8), prompt=PROMPT)


async def test_a_form_that_is_broken_or_comes_to_a_path_without_forms_is_a_400(draws: Any) -> None:  # noqa: ANN401
    async with draws() as served:
        for kind in ("multipart/form-data; boundary=x", "multipart/form-data"):
            headers = served.auth | {"content-type": kind}
            answer = await served.http.post("/v1/images/edits", content=b"--x\r\nbroken", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_form")
        answer = await served.http.post("/v1/images/generations", files={"image": b"x"}, headers=served.auth)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


async def test_a_repeated_form_with_the_same_key_is_drawn_once(draws: Any, hosts: ImageHosts) -> None:  # noqa: ANN401
    async with draws() as served:
        headers = served.auth | {"idempotency-key": "one", "content-type": "multipart/form-data; boundary=x"}
        body = b'--x\r\ncontent-disposition: form-data; name="prompt"\r\n\r\na fox\r\n'
        body += (
            b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n' + png(8, 8) + b"\r\n--x--\r\n"
        )
        answers = [await served.http.post("/v1/images/edits", content=body, headers=headers) for _ in range(2)]
    assert [one.status_code for one in answers] == [200, 200], answers[0].text
    assert answers[0].content == answers[1].content
    assert len(hosts.seen["/v1/images/edits"]) == 1


async def test_automatic1111_gets_a_mask_that_is_white_where_to_draw(draws: Any, hosts: ImageHosts) -> None:  # noqa: ANN401
    async with draws("automatic1111") as served:
        await served.sdk.images.edit(model="painter", image=png(256, 256), mask=clear(), prompt=PROMPT)
    [body] = hosts.seen["/sdapi/v1/img2img"]
    mask = Image.open(io.BytesIO(base64.b64decode(body["mask"])))
    assert (mask.mode, mask.size) == ("L", (256, 256))
    assert (mask.getpixel((10, 10)), mask.getpixel((200, 10))) == (255, 0)
    assert (body["width"], body["height"]) == (256, 256)


async def test_the_official_sdk_reads_pictures_as_a_stream(draws: Any) -> None:  # noqa: ANN401
    async with draws() as served:
        stream = await served.sdk.images.generate(model="painter", prompt=PROMPT, n=2, size="256x256", stream=True)
        events = [event async for event in stream]
        changed = await served.sdk.images.edit(model="painter", image=png(64, 64), prompt=PROMPT, stream=True)
        changes = [event async for event in changed]
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert [event.type for event in changes] == ["image_edit.completed"]
    assert (events[0].size, events[0].output_format, events[0].usage.total_tokens) == ("256x256", "png", 0)
    assert Image.open(io.BytesIO(base64.b64decode(events[1].b64_json))).size == (256, 256)


async def test_progress_is_a_comment_and_a_picture_may_be_a_link(draws: Any, hosts: ImageHosts) -> None:  # noqa: ANN401
    hosts.hold.clear()
    async with (
        draws("automatic1111", public_url="http://convene.test") as served,
        served.http.stream(
            "POST",
            "/v1/images/generations",
            json={"model": "painter", "prompt": PROMPT, "stream": True, "response_format": "url"},
            headers=served.auth,
        ) as response,
    ):
        lines = []
        async for line in response.aiter_lines():
            lines.append(line)
            hosts.hold.set()
        frame = json.loads(lines[-2].removeprefix("data: "))
        shown = await served.http.get(frame["url"])
    assert lines[0] == ": progress 25/40"
    assert lines[-3:-1] == ["event: image_generation.completed", lines[-2]]
    assert "b64_json" not in frame
    assert shown.headers["content-type"] == "image/png"


async def test_a_stream_that_is_refused_has_its_status_and_one_that_breaks_off_an_error_event(
    draws: Any,  # noqa: ANN401
    hosts: ImageHosts,
) -> None:
    body = {"model": "painter", "prompt": PROMPT, "stream": True, "size": "256x256"}
    plans = {"owner": Plan(images_per_minute=4)}
    async with draws(plans=plans, prices={"painter": Price(image=1.0)}) as served:
        hosts.fails["/v1/images/generations"] = (500, b"{}")
        assert (await post(served, "/v1/images/generations", **body)).status_code == 503
        two = {"data": [{"b64_json": base64.b64encode(png(8, 8)).decode()}, {"b64_json": "broken!"}]}
        hosts.fails["/v1/images/generations"] = (200, json.dumps(two).encode())
        answer = await post(served, "/v1/images/generations", n=2, **body)
        stream = await served.sdk.images.generate(model="painter", prompt=PROMPT, n=2, stream=True)
        assert (await anext(stream)).type == "image_generation.completed"
        with pytest.raises(openai.APIError, match="no picture"):
            await anext(stream)
        refused = await post(served, "/v1/images/generations", n=3, **body)
        assert (refused.status_code, "images" in refused.json()["error"]["message"]) == (429, True)
        await served.app.books.books.flush()
        rows = (await served.http.get("/v1/usage/requests", headers=served.auth)).json()["data"]
    assert answer.status_code == 200
    assert "\n\nevent: error\ndata: {" in answer.text
    assert json.loads(answer.text.splitlines()[-2].removeprefix("data: "))["error"]["code"] == "upstream_malformed"
    assert [(row["status"], row["images"], row["cost"]["micros"]) for row in rows] == [
        ("failed", 1, 1_000_000),
        ("failed", 1, 1_000_000),
        ("failed", 0, 0),
    ]


@pytest.mark.req("DEC-13")
@pytest.mark.parametrize(
    ("shape", "has", "lacks"),
    [
        ("both", {"data", "images", "status"}, set()),
        ("openai", {"data"}, {"images", "status", "message"}),
        ("asi1", {"images", "status", "message"}, {"data"}),
    ],
)
async def test_the_operator_may_drop_one_of_the_two_shapes(
    draws: Any,  # noqa: ANN401
    shape: str,
    has: set[str],
    lacks: set[str],
) -> None:
    async with draws(image_reply=shape) as served:
        body = (await post(served, "/v1/image/generate", model="asi1-mini", prompt=PROMPT, size="256x256")).json()
    assert has <= body.keys()
    assert not lacks & body.keys()


@pytest.mark.req("IMAGE-09")
async def test_nothing_at_the_top_is_called_like_a_picture_without_holding_one(draws: Any) -> None:  # noqa: ANN401
    async with draws() as served:
        for fields in ({}, {"response_format": "url"}):
            body = (await post(served, "/v1/image/generate", prompt=PROMPT, size="256x256", **fields)).json()
            assert not {"image_url", "url"} & body.keys()
            assert body["data"][0]
