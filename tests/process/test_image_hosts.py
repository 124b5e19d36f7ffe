"""Providers of pictures against doubles of the real hosts, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from convene.clock import SystemClock
from convene.errors import BadRequest, Malformed, RateLimited, Rejected, Unavailable
from convene.http.base import Timeouts
from convene.http.client import ClientOptions, HttpClient
from convene.providers import images_a1111, images_comfy
from convene.providers.base_images import ImageAsk, ImageCapabilities, ImageMade, ImageProgress, SourceImage
from convene.providers.images_a1111 import A1111Images, A1111Settings
from convene.providers.images_comfy import ComfyImages, WorkflowUnfit
from convene.providers.images_host import ImageHostSettings
from convene.providers.images_openai import OpenAIImages
from image_hosts import png, serving_images, size_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from convene.providers.base_images import ImageEvent, ImageModel
    from image_hosts import ImageHosts

WAIT_S = 30.0
WORKFLOW: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 1,
            "steps": 20,
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 384, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a sample", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
}
"""The default workflow of ComfyUI, as "Export (API)" saves it."""


@pytest.fixture
def hosts() -> Iterator[ImageHosts]:
    with serving_images() as serving:
        yield serving


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    opened = HttpClient(ClientOptions())
    yield opened
    await opened.aclose()


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_a1111, "LOOK_S", 0.01)
    monkeypatch.setattr(images_comfy, "LOOK_S", 0.01)


def settings(url: str, model: str = "sdxl", **more: Any) -> ImageHostSettings:  # noqa: ANN401 -- fields by name
    return ImageHostSettings(upstream="pictures", model=model, base_url=url, **more)


def openai_at(client: HttpClient, hosts: ImageHosts, model: str = "sdxl", **more: Any) -> OpenAIImages:  # noqa: ANN401
    return OpenAIImages(client, settings(f"{hosts.url}/v1", model), SystemClock(), **more)


def a1111_at(client: HttpClient, hosts: ImageHosts, how: A1111Settings | None = None) -> A1111Images:
    return A1111Images(client, settings(hosts.url), how or A1111Settings(), SystemClock())


def comfy_at(client: HttpClient, hosts: ImageHosts, workflow: dict[str, Any] | None = None) -> ComfyImages:
    return ComfyImages(client, settings(hosts.url), workflow or WORKFLOW, SystemClock())


KINDS: dict[str, Callable[[HttpClient, ImageHosts], ImageModel]] = {
    "openai": openai_at,
    "automatic1111": a1111_at,
    "comfyui": comfy_at,
}


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, client: HttpClient, hosts: ImageHosts) -> ImageModel:
    """One model of each kind."""
    make: Callable[[HttpClient, ImageHosts], ImageModel] = KINDS[request.param]
    return make(client, hosts)


def ask(**fields: Any) -> ImageAsk:  # noqa: ANN401 -- fields by name
    return ImageAsk(**({"prompt": "a fox in snow", "size": (256, 128)} | fields))


async def drawn(model: ImageModel, asked: ImageAsk) -> list[ImageEvent]:
    async with asyncio.timeout(WAIT_S):
        return [event async for event in model.generate(asked)]


async def pictures(model: ImageModel, asked: ImageAsk) -> list[ImageMade]:
    return [event for event in await drawn(model, asked) if isinstance(event, ImageMade)]


async def test_as_many_pictures_come_as_were_asked_for_each_of_the_size_asked_for(model: ImageModel) -> None:
    made = await pictures(model, ask(count=3))
    assert [one.index for one in made] == [0, 1, 2]
    assert [size_of(one.data) for one in made] == [(256, 128)] * 3
    assert len({one.data for one in made}) == 3
    assert model.upstream == "pictures"
    assert model.ready() is None


@pytest.mark.parametrize("status", [404, 405])
@pytest.mark.parametrize("body", [b"", b'{"detail": "Not Found"}', b"<h1>404</h1>"])
async def test_a_host_without_the_path_is_not_told_as_one_without_the_model(
    client: HttpClient, hosts: ImageHosts, status: int, body: bytes
) -> None:
    hosts.fails = dict.fromkeys(("/v1/images/generations", "/v1/images/edits"), (status, body))
    model = openai_at(client, hosts, can=ImageCapabilities(tasks=frozenset({"generate", "edit"})))
    with pytest.raises(Unavailable, match=r"has no /images/generations; .* base_url"):
        await drawn(model, ask())
    source = SourceImage(png(8, 8), "image/png")
    with pytest.raises(BadRequest, match="changes no pictures: its host has no /images/edits") as caught:
        await drawn(model, ask(task="edit", images=(source,)))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "model")


async def test_a_host_without_the_model_is_told_as_such(client: HttpClient, hosts: ImageHosts) -> None:
    body = b'{"error": {"message": "The model `sdxl` does not exist", "code": "model_not_found"}}'
    hosts.fails["/v1/images/generations"] = (404, body)
    with pytest.raises(Unavailable, match="does not know the model"):
        await drawn(openai_at(client, hosts), ask())


async def test_what_a_host_says_of_a_bad_prompt_reaches_the_caller(model: ImageModel, hosts: ImageHosts) -> None:
    body = json.dumps({"error": {"message": "Your prompt was refused", "code": "content_policy_violation"}}).encode()
    hosts.fails = dict.fromkeys(("/v1/images/generations", "/sdapi/v1/txt2img", "/prompt"), (400, body))
    with pytest.raises(BadRequest, match="Your prompt was refused") as caught:
        await drawn(model, ask())
    assert caught.value.code == "content_policy_violation"


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Rejected), (404, Unavailable), (429, RateLimited), (500, Unavailable)]
)
async def test_what_goes_wrong_at_a_host_is_told_as_its_fault_and_not_tried_again(
    model: ImageModel, hosts: ImageHosts, status: int, kind: type[Exception]
) -> None:
    paths = ("/v1/images/generations", "/sdapi/v1/txt2img", "/prompt")
    hosts.fails = dict.fromkeys(paths, (status, b"{}"))
    with pytest.raises(kind):
        await drawn(model, ask())
    assert sum(len(hosts.seen[path]) for path in paths) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"no JSON",
        b"[]",
        b'{"data": [], "images": []}',
        b'{"data": [{"b64_json": "!!"}], "images": ["!!"]}',
        b'{"data": [{"b64_json": "aGVsbG8="}], "images": ["aGVsbG8="]}',
        b'{"data": [7], "images": [7]}',
        b'{"data": [{}], "images": [null], "prompt_id": 4}',
    ],
)
async def test_a_reply_without_a_picture_is_a_fault_of_the_host(
    model: ImageModel, hosts: ImageHosts, body: bytes
) -> None:
    paths = ("/v1/images/generations", "/sdapi/v1/txt2img", "/prompt")
    hosts.fails = dict.fromkeys(paths, (200, body))
    with pytest.raises(Malformed, match="gave no picture"):
        await drawn(model, ask())


async def test_a_host_that_is_not_there_is_told_by_its_name(client: HttpClient, hosts: ImageHosts) -> None:
    gone = ImageHostSettings(
        upstream="pictures", model="m", base_url="http://127.0.0.1:9", timeouts=Timeouts(connect_s=1.0)
    )
    del hosts
    with pytest.raises(Unavailable, match="'pictures' cannot be reached"):
        await drawn(OpenAIImages(client, gone, SystemClock()), ask())


async def test_openais_fields_go_out_and_the_revised_prompt_comes_back(client: HttpClient, hosts: ImageHosts) -> None:
    model = openai_at(client, hosts, can=ImageCapabilities(seed=True))
    [made] = await pictures(
        model,
        ask(seed=5, quality="high", style="vivid", background="transparent", user="u", extra={"moderation": "low"}),
    )
    assert made.revised_prompt == "a better prompt"
    assert made.seed == 5
    assert hosts.seen["/v1/images/generations"] == [
        {
            "model": "sdxl",
            "prompt": "a fox in snow",
            "n": 1,
            "size": "256x128",
            "response_format": "b64_json",
            "seed": 5,
            "quality": "high",
            "style": "vivid",
            "background": "transparent",
            "user": "u",
            "moderation": "low",
        }
    ]


async def test_models_that_know_no_response_format_are_not_asked_for_one(client: HttpClient, hosts: ImageHosts) -> None:
    await drawn(openai_at(client, hosts, "gpt-image-1"), ask(seed=5))
    [body] = hosts.seen["/v1/images/generations"]
    assert not {"response_format", "seed"} & body.keys()


async def test_the_key_goes_out_and_shows_nowhere(client: HttpClient, hosts: ImageHosts) -> None:
    secret = "sk-very-secret-123456"
    given = settings(f"{hosts.url}/v1", headers=(("authorization", f"Bearer {secret}"),), api_key=secret)
    assert secret not in repr(given)
    model = OpenAIImages(client, given, SystemClock())
    await drawn(model, ask())
    assert hosts.headers["authorization"] == f"Bearer {secret}"
    hosts.fails["/v1/images/generations"] = (400, json.dumps({"error": {"message": f"bad key {secret}"}}).encode())
    with pytest.raises(BadRequest) as caught:
        await drawn(model, ask())
    assert secret not in caught.value.message + caught.value.detail


async def test_an_address_is_fetched_from_the_host_itself_and_from_nowhere_else(
    client: HttpClient, hosts: ImageHosts
) -> None:
    model = openai_at(client, hosts)
    hosts.as_address = f"{hosts.url}/v1/files/1.png"
    [made] = await pictures(model, ask())
    assert size_of(made.data) == (8, 8)
    for elsewhere in ("http://127.0.0.1:1/v1/files/1.png", f"{hosts.url}/admin/1.png", "file:///etc/passwd"):
        hosts.as_address = elsewhere
        with pytest.raises(Malformed):
            await drawn(model, ask())
    assert set(hosts.seen) == {"/v1/images/generations", "/v1/files/1.png"}


async def test_pictures_to_change_go_out_as_a_form(client: HttpClient, hosts: ImageHosts) -> None:
    source, mask = SourceImage(png(8, 8, 1), "image/png"), SourceImage(png(8, 8, 2), "image/png")
    await drawn(openai_at(client, hosts), ask(task="edit", images=(source,), mask=mask))
    await drawn(openai_at(client, hosts), ask(task="vary", images=(source,)))
    [form] = hosts.seen["/v1/images/edits"]
    assert b'name="image"; filename="0.png"\r\ncontent-type: image/png\r\n\r\n' + source.data in form
    assert b'name="mask"; filename="1.png"' in form
    assert mask.data in form
    assert b'name="prompt"\r\n\r\na fox in snow\r\n' in form
    [form] = hosts.seen["/v1/images/variations"]
    assert b'name="prompt"' not in form


async def test_automatic1111_tells_its_progress_and_its_seeds(client: HttpClient, hosts: ImageHosts) -> None:
    hosts.hold.clear()
    model = a1111_at(client, hosts)
    events: list[ImageEvent] = []
    async with asyncio.timeout(WAIT_S):
        async for event in model.generate(ask(count=2)):
            events.append(event)
            hosts.hold.set()
    assert events[0] == ImageProgress(25, 40)
    assert [one.seed for one in events if isinstance(one, ImageMade)] == [7, 8]


async def test_automatic1111_is_told_how_to_draw(client: HttpClient, hosts: ImageHosts) -> None:
    how = A1111Settings(steps=8, sampler="Euler a", guidance=3.5, checkpoint="sd15.safetensors", strength=0.4)
    source = SourceImage(png(8, 8), "image/png")
    await drawn(a1111_at(client, hosts, how), ask(seed=3, negative_prompt="blurry"))
    await drawn(a1111_at(client, hosts, how), ask(task="edit", images=(source,), mask=source))
    [body] = hosts.seen["/sdapi/v1/txt2img"]
    assert (body["steps"], body["sampler_name"], body["cfg_scale"], body["seed"]) == (8, "Euler a", 3.5, 3)
    assert body["negative_prompt"] == "blurry"
    assert body["override_settings"] == {"sd_model_checkpoint": "sd15.safetensors"}
    [body] = hosts.seen["/sdapi/v1/img2img"]
    assert len(body["init_images"]) == 1
    assert body["denoising_strength"] == 0.4
    mask = Image.open(io.BytesIO(base64.b64decode(body["mask"])))
    assert (mask.mode, mask.getextrema()) == ("L", (0, 0))  # nothing of it is transparent: nothing is drawn anew


async def test_a_mask_that_cannot_be_read_is_the_callers_fault(client: HttpClient, hosts: ImageHosts) -> None:
    source, broken = SourceImage(png(8, 8), "image/png"), SourceImage(png(8, 8)[:45], "image/png")
    with pytest.raises(BadRequest) as caught:
        await drawn(a1111_at(client, hosts), ask(task="edit", images=(source,), mask=broken))
    assert caught.value.param == "mask"
    assert not hosts.seen


async def test_a_caller_that_leaves_interrupts_automatic1111_and_the_next_one_waits_for_its_turn(
    client: HttpClient, hosts: ImageHosts
) -> None:
    hosts.hold.clear()
    model = a1111_at(client, hosts)
    leaving = asyncio.create_task(drawn(model, ask()))
    await asyncio.to_thread(hosts.working.wait, WAIT_S)
    waiting = asyncio.create_task(pictures(model, ask()))
    leaving.cancel()
    await asyncio.wait([leaving], timeout=WAIT_S)
    assert hosts.seen["/sdapi/v1/interrupt"] == [{}]
    async with asyncio.timeout(WAIT_S):
        assert len(await waiting) == 1


async def test_comfyuis_workflow_is_filled_in_where_its_links_lead(client: HttpClient, hosts: ImageHosts) -> None:
    model = comfy_at(client, hosts)
    assert model.capabilities == ImageCapabilities(default_size=(512, 384), count_max=4, seed=True)
    made = await pictures(model, ask(count=2, seed=11))
    assert [one.seed for one in made] == [11, 11]
    filled = hosts.seen["/prompt"][0]["prompt"]
    assert filled["6"]["inputs"]["text"] == "a fox in snow"
    assert filled["7"]["inputs"]["text"] == "blurry", "what the operator wrote stays"
    assert filled["3"]["inputs"]["seed"] == 11
    assert filled["5"]["inputs"] == {"width": 256, "height": 128, "batch_size": 2}
    assert WORKFLOW["6"]["inputs"]["text"] == "a sample", "the template is not touched"
    await drawn(model, ask(negative_prompt="hands"))
    assert hosts.seen["/prompt"][1]["prompt"]["7"]["inputs"]["text"] == "hands"


async def test_a_failed_workflow_is_the_operators_to_mend(client: HttpClient, hosts: ImageHosts) -> None:
    hosts.comfy_error = True
    with pytest.raises(Rejected, match="workflow of the upstream 'pictures' failed") as caught:
        await drawn(comfy_at(client, hosts), ask())
    assert "execution_error" in caught.value.detail


async def test_a_caller_that_leaves_takes_its_work_off_comfyuis_queue(client: HttpClient, hosts: ImageHosts) -> None:
    hosts.hold.clear()
    leaving = asyncio.create_task(drawn(comfy_at(client, hosts), ask()))
    assert await asyncio.to_thread(hosts.looked.wait, WAIT_S)
    leaving.cancel()
    await asyncio.wait([leaving], timeout=WAIT_S)
    assert {"delete": ["p0"]} in hosts.seen["/queue"]
    assert hosts.seen["/interrupt"] == [{"prompt_id": "p0"}]


@pytest.mark.parametrize(
    ("workflow", "places", "words"),
    [
        ({"nodes": [], "links": []}, {}, "API form"),
        ({"1": {"class_type": "X", "inputs": {"text": "a"}}}, {}, "not clear where the prompt goes"),
        (WORKFLOW, {"prompt": "99.text"}, "no input '99.text'"),
        (WORKFLOW, {"colour": "6.text"}, "'colour' cannot be filled in"),
    ],
)
def test_a_workflow_that_does_not_fit_is_refused_in_words_for_the_operator(
    workflow: dict[str, Any], places: dict[str, str], words: str, hosts: ImageHosts
) -> None:
    client: Any = None  # nothing is asked
    with pytest.raises(WorkflowUnfit, match=words):
        ComfyImages(client, settings(hosts.url), workflow, SystemClock(), places)


def test_places_that_the_operator_names_go_before_those_that_are_found(hosts: ImageHosts) -> None:
    client: Any = None  # nothing is asked
    found = images_comfy.find_slots(WORKFLOW, {"prompt": "7.text"})
    assert found["prompt"] == images_comfy.Slot("7", "text")
    assert "negative_prompt" not in found
    without_latent = {name: node for name, node in WORKFLOW.items() if name != "5"}
    model = ComfyImages(client, settings(hosts.url), without_latent, SystemClock())
    assert model.capabilities.sizes == ((1024, 1024),)
    assert model.capabilities.count_max == 1
