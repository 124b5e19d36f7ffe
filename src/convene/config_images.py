"""The settings of image models: whoever makes pictures. Read through `config.py`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from convene.config_values import About, Secret

IMAGE_SCRIPTS: Final = ("draw", "fail-before", "fail-after", "flaky", "refuse")
"""What a model of kind scripted can do (`providers/images_scripted.py`)."""


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """`[images.NAME]`: one image model, at a host or on this machine.

    The first is what requests get that name a chat model; one of kind scripted only if there is no other.
    """

    kind: Annotated[
        Literal["openai", "automatic1111", "comfyui", "local", "scripted"],
        About("Dialect the host speaks, or this machine; scripted: test pictures by rule"),
    ] = "openai"
    base_url: Annotated[str, About("Root of its API; for openai with /v1")] = ""
    model: Annotated[
        str,
        About(
            "Its name there, or the checkpoint of automatic1111; the same when empty. Of local: owner/name on the hub. "
            "Of scripted: draw, fail-before, fail-after, flaky or refuse"
        ),
    ] = ""
    api_key: Annotated[Secret, About("Key sent as Authorization: Bearer")] = Secret()
    headers: Annotated[dict[str, Secret], About("Further headers sent to it")] = msgspec.field(default_factory=dict)
    aliases: Annotated[tuple[str, ...], About("Further names for it here")] = ()
    steps: Annotated[
        int | None,
        About("Steps of one picture; 25 (automatic1111), its own (local), 4 (scripted)", at_least=1, at_most=500),
    ] = None
    step_s: Annotated[float, About("Time of one step (scripted)", "s", at_least=0, at_most=3600)] = 0.0
    sampler: Annotated[str, About("Sampler (automatic1111); its own when empty")] = ""
    guidance: Annotated[
        float | None, About("How closely it follows the prompt; 7 (automatic1111), its own (local)", at_least=0)
    ] = None
    workflow: Annotated[str, About("Workflow in API form (comfyui)", is_path=True)] = ""
    places: Annotated[
        dict[str, str], About('Where things go in the workflow, as prompt = "6.text"; found when empty (comfyui)')
    ] = msgspec.field(default_factory=dict)
    folder: Annotated[
        str, About("Folder of weights in the form of diffusers, instead of model (local)", is_path=True)
    ] = ""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps", "xpu"], About("Where it computes (local)")] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"],
        About("Of its weights; auto: float32 on the processor, a half on a GPU (local)"),
    ] = "auto"
    threads: Annotated[int, About("On the processor; 0: the cores less one (local)", at_least=0, at_most=1024)] = 0
    python: Annotated[str, About("Interpreter with torch and diffusers; ours when empty (local)", is_path=True)] = ""
    side_max: Annotated[
        int, About("Longest side (local, automatic1111, scripted)", "pixels", at_least=64, at_most=4096)
    ] = 2048
    waiting_max: Annotated[int, About("Requests that may wait for their turn (local)", at_least=0, at_most=1000)] = 8
    tasks: Annotated[tuple[Literal["generate", "edit", "vary"], ...], About("What its host has paths for (openai)")] = (
        "generate",
        "edit",
    )
    seed: Annotated[bool, About("Its host takes a seed (openai)")] = False
    transparent: Annotated[bool, About("It makes transparent backgrounds (openai)")] = False
    count_max: Annotated[int, About("Most pictures of one request", at_least=1, at_most=16)] = 4
    total_s: Annotated[float, About("Longest request", "s", at_least=1)] = 600.0
    price: Annotated[str, About("Entry of [prices] that it costs; the one of its own name when empty")] = ""
    limits: Annotated[str, About("Plan whose limits all its callers share")] = ""
    limits_per_key: Annotated[str, About("Plan whose limits each key has on it, beside its own")] = ""
