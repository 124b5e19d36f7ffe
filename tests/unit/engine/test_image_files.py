"""Which files of a pipeline's folder are loaded, and which folders are refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.engine.base import EngineFault, WeightsCorrupt, WeightsMissing
from convene.engine.image_files import INDEX, FilePlan, choose_files, read_index

PARTS = {"unet": "diffusers", "text_encoder": "transformers", "scheduler": "diffusers"}
UNET = "unet/diffusion_pytorch_model"
TEXT = "text_encoder/model"
CONFIGS = ["scheduler/scheduler_config.json", "text_encoder/config.json", "unet/config.json"]


def index(**fields: object) -> bytes:
    return json.dumps({"_class_name": "SomePipeline", "_diffusers_version": "0.42.1"} | fields).encode()


def choose(*names: str, half: bool = False) -> FilePlan:
    return choose_files("m", PARTS, [*CONFIGS, *names], half=half)


def test_the_index_names_components_and_their_libraries() -> None:
    raw = index(
        unet=["diffusers", "UNet2DConditionModel"],
        text_encoder=["transformers", "CLIPTextModel"],
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=[None, None],
        requires_safety_checker=False,
        force_zeros=True,
    )
    assert read_index("m", raw) == {
        "unet": "diffusers",
        "text_encoder": "transformers",
        "safety_checker": "stable_diffusion",
    }


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        index(_class_name=["my_pipeline", "MyPipeline"]),
        index(unet=["diffusers"]),
        json.dumps({"_class_name": "P", "../unet": ["diffusers", "X"]}).encode(),
        json.dumps({"_class_name": "P", "a/b": ["diffusers", "X"]}).encode(),
    ],
)
def test_what_is_no_index_is_refused_with_what_is_wanted(raw: bytes) -> None:
    with pytest.raises(WeightsCorrupt, match=r"no usable model_index.json.*save_pretrained"):
        read_index("m", raw)


@pytest.mark.parametrize("library", ["my.module", "../module", "", "a b", 7, ["diffusers"], "_hidden"])
def test_a_library_that_is_no_plain_name_is_code_of_its_own(library: object) -> None:
    with pytest.raises(WeightsCorrupt, match="never run"):
        read_index("m", index(unet=[library, "Class"]))


def test_code_beside_a_component_is_refused() -> None:
    with pytest.raises(WeightsCorrupt, match="never run"):
        choose_files("m", {"unet": "custom_unet"}, ["unet/custom_unet.py", f"{UNET}.safetensors"], half=False)


def test_whole_weights_are_chosen_and_nothing_that_is_not_needed() -> None:
    plan = choose(
        f"{UNET}.safetensors",
        f"{UNET}.fp16.safetensors",
        f"{UNET}.non_ema.safetensors",
        f"{UNET}.bin",
        f"{TEXT}.safetensors",
        "text_encoder/pytorch_model.bin",
        "text_encoder/model.onnx",
        "text_encoder/flax_model.msgpack",
        "vae/diffusion_pytorch_model.safetensors",
        "unet/deeper/diffusion_pytorch_model.safetensors",
        "unet/helper.py",
        "v1-5-pruned.safetensors",
        "README.md",
    )
    assert plan == FilePlan((INDEX, *sorted([*CONFIGS, f"{TEXT}.safetensors", f"{UNET}.safetensors"])))


def test_halves_are_chosen_where_they_are_enough_and_whole_weights_for_the_rest() -> None:
    names = (f"{UNET}.safetensors", f"{UNET}.fp16.safetensors", f"{TEXT}.safetensors")
    plan = choose(*names, half=True)
    assert plan.variant == "fp16"
    assert set(plan.files) == {INDEX, *CONFIGS, f"{UNET}.fp16.safetensors", f"{TEXT}.safetensors"}
    assert choose(*names, half=False).variant == ""


def test_halves_are_taken_where_there_is_nothing_else() -> None:
    plan = choose(f"{UNET}.fp16.safetensors", f"{TEXT}.fp16.safetensors")
    assert plan.variant == "fp16"
    assert f"{UNET}.fp16.safetensors" in plan.files


def test_a_wish_for_halves_is_none_where_there_are_only_whole_weights() -> None:
    plan = choose(f"{UNET}.safetensors", f"{TEXT}.safetensors", half=True)
    assert plan.variant == ""
    assert f"{UNET}.safetensors" in plan.files


def test_weights_in_pieces_come_with_their_index() -> None:
    plain = [f"{TEXT}-0000{at}-of-00002.safetensors" for at in (1, 2)]
    plain += [f"{TEXT}.safetensors.index.json"]
    halves = [f"{TEXT}.fp16-0000{at}-of-00002.safetensors" for at in (1, 2)]
    halves += [f"{TEXT}.safetensors.index.fp16.json"]
    plan = choose(f"{UNET}.safetensors", *plain, *halves)
    assert set(plain) < set(plan.files)
    assert not set(halves) & set(plan.files)
    plan = choose(f"{UNET}.safetensors", *plain, *halves, half=True)
    assert set(halves) < set(plan.files)
    assert not set(plain) & set(plan.files)


@pytest.mark.parametrize("ending", ["bin", "ckpt", "pt", "pth", "pkl"])
def test_weights_as_a_pickle_are_refused_and_named(ending: str) -> None:
    with pytest.raises(WeightsMissing, match=r"not safetensors \(text_encoder\).*can run code"):
        choose(f"{UNET}.safetensors", f"text_encoder/pytorch_model.{ending}")


def test_a_folder_without_weights_is_refused() -> None:
    with pytest.raises(WeightsMissing, match="no weights as safetensors"):
        choose()


def test_tokenizers_of_every_kind_are_taken_along() -> None:
    names = [f"scheduler/{file}" for file in ("vocab.json", "merges.txt", "spiece.model", "chat_template.jinja")]
    assert set(names) < set(choose(f"{UNET}.safetensors", *names).files)


@given(st.lists(st.text(max_size=30), max_size=8), st.booleans())
def test_nothing_outside_of_components_is_ever_chosen(names: list[str], half: bool) -> None:  # noqa: FBT001
    names = [*names, *(f"unet/{name}" for name in names), *(f"../{name}" for name in names)]
    try:
        plan = choose_files("m", PARTS, names, half=half)
    except EngineFault:
        return
    assert all(path == INDEX or path.split("/")[0] in PARTS for path in plan.files)
    assert all(path.count("/") < 2 and ".." not in path.split("/") for path in plan.files)
