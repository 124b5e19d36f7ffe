"""Which image models a configuration makes, and what of it is refused."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from convene.app_images import image_models, studios
from convene.app_models import Deployments
from convene.config import Config, ConfigError, Engine, Images, Secret, load
from convene.engine.base import FetchSettings
from convene.errors import NotFound
from convene.providers.images_a1111 import A1111Images
from convene.providers.images_comfy import ComfyImages
from convene.providers.images_local import LocalImages
from convene.providers.images_openai import OpenAIImages
from convene.providers.images_scripted import ScriptedImages, ScriptedImagesSettings
from convene.serving.base import Principal
from convene.serving.catalog import Catalog
from fakes import FakeClock
from process.test_image_hosts import WORKFLOW

if TYPE_CHECKING:
    from pathlib import Path

WHO = Principal(key_id="k", owner="o")
URL = "http://images.test:7860"


def models(**images: Images) -> list[Any]:
    nobody: Any = None  # nothing is asked
    return image_models(Config(images=images), FakeClock(), lambda _: nobody, FetchSettings(offline=True))


def test_each_kind_is_made_by_its_own_class(tmp_path: Path) -> None:
    workflow = tmp_path / "workflow.json"
    workflow.write_text(json.dumps(WORKFLOW))
    found = models(
        a=Images(base_url=f"{URL}/v1"),
        b=Images(kind="automatic1111", base_url=URL),
        c=Images(kind="comfyui", base_url=URL, workflow=str(workflow)),
    )
    assert [type(one.image) for one in found] == [OpenAIImages, A1111Images, ComfyImages]
    assert [(one.card.id, one.card.kind) for one in found] == [("a", "image"), ("b", "image"), ("c", "image")]


def test_a_key_does_not_show() -> None:
    [found] = models(a=Images(base_url=URL, api_key=Secret("sk-hidden-123")))
    assert "sk-hidden-123" not in repr(found)


@pytest.mark.parametrize("text", ["", "no JSON", '{"nodes": []}'])
def test_a_workflow_that_does_not_fit_names_the_setting(tmp_path: Path, text: str) -> None:
    workflow = tmp_path / "workflow.json"
    if text:
        workflow.write_text(text)
    with pytest.raises(ConfigError, match=r"images\.c\.workflow"):
        models(c=Images(kind="comfyui", base_url=URL, workflow=str(workflow)))


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({"colour": "6.text"}, "'colour' cannot be filled in"),
        ({"prompt": "66.text"}, "there is no input '66.text'"),
        ({"prompt": "6.words"}, "there is no input '6.words'"),
        ({"prompt": "3.positive"}, "'3.positive' is linked to the node '6'"),
        ({"prompt": "3.seed"}, "'3.seed' holds no text"),
        ({"seed": "6.text"}, "'6.text' holds no whole number"),
        ({"width": "5.width", "height": "5.width"}, "'5.width' is the place of two things"),
    ],
)
def test_places_that_the_workflow_has_not_are_refused_at_the_start(
    tmp_path: Path, places: dict[str, str], words: str
) -> None:
    workflow = tmp_path / "workflow.json"
    workflow.write_text(json.dumps(WORKFLOW))
    with pytest.raises(ConfigError, match=r"images\.c\.places") as caught:
        models(c=Images(kind="comfyui", base_url=URL, workflow=str(workflow), places=places))
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("base_url = 'nowhere'", "images.a.base_url must be an absolute"),
        (f"base_url = '{URL}'\nkind = 'comfyui'", "images.a.workflow is for kind comfyui"),
        (f"base_url = '{URL}'\nworkflow = 'w.json'", "images.a.workflow is for kind comfyui"),
        (f"base_url = '{URL}'\nlimits = 'nobody'", "images.a.limits names 'nobody'"),
        (f"base_url = '{URL}'\nprice = 'dear'", "images.a.price names 'dear'"),
        (f"base_url = '{URL}'\nkind = 'crayons'", "images.a.kind"),
        ("kind = 'local'", "images.a.folder or model, one of them"),
        ("kind = 'local'\nfolder = 'sd'\nmodel = 'owner/name'", "images.a.folder or model, one of them"),
        ("kind = 'local'\nfolder = 'sd'\nworkflow = 'w.json'", "images.a.workflow is for kind comfyui"),
        ("kind = 'local'\nfolder = 'sd'\nprecision = 'int4'", "images.a.precision"),
        ("kind = 'scripted'\nmodel = 'monet'", "images.a.model is 'monet'; of kind scripted it is one of draw, fail-"),
        ("kind = 'scripted'\nstep_s = -1", "images.a.step_s"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, lines: str, words: str) -> None:
    (tmp_path / "convene.toml").write_text(f"[images.a]\n{lines}\n")
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        load({}, {"HOME": str(tmp_path)}, tmp_path)


def test_the_first_image_model_draws_for_names_of_asi_one_and_only_for_whom_it_may() -> None:
    catalog = Catalog(models(a=Images(base_url=URL, aliases=("brush",)), b=Images(base_url=URL)))
    assert catalog.image("asi1-mini", WHO).card.id == "a"
    assert catalog.image("brush", WHO).card.id == "a"
    assert catalog.image("b", WHO).card.id == "b"
    only_b = Principal(key_id="k", owner="o", models=("b",))
    assert catalog.image("asi1", only_b).card.id == "b"
    for name, who in (("a", only_b), ("brush", only_b), ("nobody", WHO)):
        with pytest.raises(NotFound):
            catalog.image(name, who)


def test_a_scripted_model_stands_behind_every_other_and_draws_as_it_is_told() -> None:
    scripted = Images(kind="scripted", model="fail-after", steps=3, step_s=0.5, side_max=512, count_max=2)
    found = models(demo=scripted, real=Images(base_url=URL))
    catalog = Catalog(found)
    assert catalog.image("asi1", WHO).card.id == "real"
    assert catalog.image("demo", WHO).card.id == "demo"
    assert Catalog(found[:1]).image("asi1", WHO).card.id == "demo"
    only = Principal(key_id="k", owner="o", models=("demo",))
    assert catalog.image("asi1", only).card.id == "demo"
    model: Any = found[0].image
    assert isinstance(model, ScriptedImages)
    assert model._settings == ScriptedImagesSettings(
        upstream="demo", script="fail-after", steps=3, step_s=0.5, side_max=512, count_max=2
    )
    assert "Test pictures" in found[0].card.notes


def test_where_nothing_draws_the_setting_is_named() -> None:
    with pytest.raises(NotFound, match=r"\[images\.NAME\]"):
        Catalog(()).image("asi1", WHO)


def test_a_model_of_this_machine_is_made_as_its_settings_say(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    [found] = models(
        studio=Images(
            kind="local",
            folder=str(tmp_path / "sd-turbo"),
            steps=2,
            guidance=0.0,
            precision="bfloat16",
            python=str(python),
            count_max=3,
            side_max=512,
        )
    )
    model = found.image
    assert isinstance(model, LocalImages)
    assert studios([found]) == [model]
    assert (found.card.id, found.card.target, model.name) == ("studio", "sd-turbo", "sd-turbo")
    assert (model.capabilities.count_max, model.capabilities.side_max) == (3, 512)
    assert model.upstream == "studio"
    painter: Any = model._painter
    settings = painter._settings
    assert (settings.steps, settings.guidance, settings.precision) == (2, 0.0, "bfloat16")
    assert settings.python == str(python)
    assert model.status().state == "absent"


def test_a_model_of_this_machine_runs_on_our_interpreter_and_by_the_pipelines_numbers_unless_told() -> None:
    [found] = models(studio=Images(kind="local", model="owner/name"))
    settings = found.image._painter._settings
    assert (settings.steps, settings.guidance, settings.python) == (0, None, sys.executable)
    assert found.card.target == "owner/name"


def test_weights_of_this_machine_are_not_loaded_once_for_each_worker(tmp_path: Path) -> None:
    (tmp_path / "convene.toml").write_text("workers = 2\n[images.a]\nkind = 'local'\nmodel = 'owner/name'\n")
    with pytest.raises(ConfigError, match=r"images\.a\.kind local needs workers = 1"):
        load({}, {"HOME": str(tmp_path)}, tmp_path)


async def test_the_models_of_this_machine_start_and_end_with_the_deployments(tmp_path: Path) -> None:
    images = {"studio": Images(kind="local", folder=str(tmp_path / "none"))}
    config = Config(images=images, engine=Engine(enabled=False), cache_dir=tmp_path)
    deployments = Deployments(config, FakeClock())
    [studio] = deployments.studios
    deployments.start()
    assert studio.status().state == "loading"
    await deployments.aclose()
    assert studio.status().state == "absent"
