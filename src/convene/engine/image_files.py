"""Which files of a pipeline's folder are needed, and whether it may be loaded at all. Pure: lists of names in and out.

A folder in the form of diffusers has a `model_index.json` that names its components and, for each, a folder with its
configuration and weights. Only components of diffusers and transformers are loaded, no code of the folder's, and
weights only as safetensors: a pickle can do anything. The same rules hold for a user's own folder and for a
hub's. Called by `image_weights`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from convene.engine.base import EngineFault, WeightsCorrupt, WeightsMissing

if TYPE_CHECKING:
    from collections.abc import Iterable

INDEX: Final = "model_index.json"
INDEX_BYTES_MAX: Final = 256 * 1024
HALF: Final = "fp16"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
WEIGHTS: Final = re.compile(
    r"(?:model|diffusion_pytorch_model)(?:\.(?P<variant>\w+))?(?:-\d{5}-of-\d{5})?(?:\.(?P<late>\w+))?\.safetensors"
    r"(?:(?:\.(?P<old>\w+))?\.index(?:\.(?P<indexed>\w+))?\.json)?"
)
"""As diffusers and transformers name weights: `model.fp16.safetensors`, `model.fp16-00001-of-00002.safetensors`,
`model.safetensors.index.fp16.json`."""
PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".msgpack", ".h5")
SMALL: Final = (".json", ".txt", ".model", ".jinja", ".tiktoken")


class FilePlan(msgspec.Struct, frozen=True):
    """What to load: the files by their path in the folder, and the ending of the weights among them."""

    files: tuple[str, ...]
    variant: str = ""


def read_index(name: str, raw: bytes) -> dict[str, str]:
    """Return the components that a `model_index.json` names, each with its library.

    Raises:
        WeightsCorrupt: if it is none, or wants code of its own.
    """
    try:
        found = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_pipeline(name, repr(error)) from error
    if not isinstance(found, dict) or not isinstance(found.get("_class_name"), str):
        # A list there names a module of the folder's own.
        raise _no_pipeline(name, f"_class_name is {type(found).__name__}")
    components: dict[str, str] = {}
    for component, value in found.items():
        if component.startswith("_") or not isinstance(value, list):
            continue
        if len(value) != 2 or not NAME.fullmatch(component):  # noqa: PLR2004 - library and class
            raise _no_pipeline(name, f"the component {component!r}")
        library = value[0]
        if library is None:
            continue
        if not isinstance(library, str) or not NAME.fullmatch(library):
            raise _own_code(name, component, str(library))
        components[component] = library
    return components


def choose_files(name: str, components: dict[str, str], names: Iterable[str], *, half: bool) -> FilePlan:
    """Choose what to load of the files that are there.

    Args:
        name: the model's name, for messages.
        components: as `read_index` gives them.
        names: every file's path inside the folder, with `/`.
        half: weights of half the size will do, where they are there.

    Raises:
        WeightsMissing: if there are no safe weights.
        WeightsCorrupt: if code lies where diffusers would look for a component.
    """
    inside = sorted(path for path in names if path.count("/") == 1 and path.split("/")[0] in components)
    for component, library in components.items():
        if f"{component}/{library}.py" in inside:
            raise _own_code(name, component, library)
    plain, halves, small, pickled = _sort(inside)
    weighted = plain.keys() | halves.keys()
    unsafe = sorted(pickled - weighted)
    if unsafe or not weighted:
        raise _no_weights(name, unsafe)
    # diffusers takes the plain weights of a component that has no halves, and not the other way round.
    lacking = sorted(weighted - plain.keys())
    variant = HALF if halves and (half or lacking) else ""
    chosen = plain | halves if variant else plain
    return FilePlan((INDEX, *sorted(small + [path for paths in chosen.values() for path in paths])), variant)


Weights = dict[str, list[str]]
"""Paths by component."""


def _sort(inside: list[str]) -> tuple[Weights, Weights, list[str], set[str]]:
    """Return whole weights, half weights, the small files beside them, and the components that have pickles."""
    plain: Weights = {}
    halves: Weights = {}
    small: list[str] = []
    pickled: set[str] = set()
    for path in inside:
        component, file = path.split("/")
        match = WEIGHTS.fullmatch(file)
        if match is not None:
            variant = next(filter(None, match.groups()), "")
            if variant in {"", HALF}:
                (halves if variant else plain).setdefault(component, []).append(path)
        elif file.endswith(SMALL):
            small.append(path)
        elif file.endswith(PICKLES):
            pickled.add(component)
    return plain, halves, small, pickled


def _no_pipeline(name: str, detail: str) -> EngineFault:
    return WeightsCorrupt(
        f"The folder of the image model '{name}' has no usable {INDEX}. Give a folder in the form of diffusers (made "
        "with `save_pretrained`), or download it again; a single .safetensors or .ckpt file is not one.",
        detail=detail,
    )


def _own_code(name: str, component: str, library: str) -> EngineFault:
    return WeightsCorrupt(
        f"The image model '{name}' wants code of its own for '{component}'. Code that comes with weights is never run; "
        "choose a model that diffusers itself knows.",
        detail=f"{component}: {library}"[:400],
    )


def _no_weights(name: str, unsafe: list[str]) -> EngineFault:
    if unsafe:
        return WeightsMissing(
            f"The image model '{name}' has weights that are not safetensors ({', '.join(unsafe)[:200]}). A pickle can "
            "run code, so it is not loaded: choose a model with safetensors, or convert this one.",
        )
    return WeightsMissing(f"The image model '{name}' has no weights as safetensors. Download the whole folder again.")
