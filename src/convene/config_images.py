"""The settings of image models: whoever makes pictures. Read through `config.py`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from convene.config_values import About, Secret


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """`[images.NAME]`: one image model at one host; the first is what requests get that name a chat model."""

    kind: Annotated[Literal["openai", "automatic1111", "comfyui"], About("Dialect the host speaks")] = "openai"
    base_url: Annotated[str, About("Root of its API; for openai with /v1")] = ""
    model: Annotated[str, About("Its name there, or the checkpoint of automatic1111; the same when empty")] = ""
    api_key: Annotated[Secret, About("Key sent as Authorization: Bearer")] = Secret()
    headers: Annotated[dict[str, Secret], About("Further headers sent to it")] = msgspec.field(default_factory=dict)
    aliases: Annotated[tuple[str, ...], About("Further names for it here")] = ()
    steps: Annotated[int, About("Steps of one picture (automatic1111)", at_least=1, at_most=500)] = 25
    sampler: Annotated[str, About("Sampler (automatic1111); its own when empty")] = ""
    guidance: Annotated[float, About("How closely it follows the prompt (automatic1111)", at_least=0)] = 7.0
    workflow: Annotated[str, About("Workflow in API form (comfyui)", is_path=True)] = ""
    places: Annotated[
        dict[str, str], About('Where things go in the workflow, as prompt = "6.text"; found when empty (comfyui)')
    ] = msgspec.field(default_factory=dict)
    count_max: Annotated[int, About("Most pictures of one request", at_least=1, at_most=16)] = 4
    total_s: Annotated[float, About("Longest request", "s", at_least=1)] = 600.0
    price: Annotated[str, About("Entry of [prices] that it costs; the one of its own name when empty")] = ""
    limits: Annotated[str, About("Plan whose limits all its callers share")] = ""
    limits_per_key: Annotated[str, About("Plan whose limits each key has on it, beside its own")] = ""
