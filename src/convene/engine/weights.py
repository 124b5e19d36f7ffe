"""Weights that are a file of the user's own, or a file of a hub. The embedded ones are in `embedded`.

Made by `files.ModelFolder.weights`, used by `process.Engine`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from convene.engine.base import Offline, Progress, WeightsCorrupt, WeightsMissing
from convene.engine.cache import Cache, StoredModel, write_whole
from convene.engine.gguf import MAGIC
from convene.engine.hub import HubFile, download

if TYPE_CHECKING:
    from pathlib import Path


class PulledWeights:
    """A model of a hub: from the cache, or downloaded."""

    def __init__(self, cache: Cache, name: str, source: HubFile, licence: str) -> None:
        self._cache = cache
        self._name = name
        self._source = source
        self._licence = licence

    @property
    def name(self) -> str:
        """The name it was asked for by."""
        return self._name

    async def obtain(self, report: Progress) -> Path:
        """See `Weights.obtain`. A stored file is checked by length only: hashing gigabytes costs more than loading."""
        path = self._cache.folder / f"{self._source.slug}.gguf"
        if self._is_stored(path):
            return path
        settings = self._cache.settings
        if settings.offline or not settings.fetch:
            raise Offline(
                f"The model '{self._name}' is not here and may not be fetched. Run `convene models pull {self._name}` "
                "where the network may be used, or give the path of a .gguf file, or configure an upstream.",
            )
        async with self._cache.claim(self._source.slug, report):
            if not self._is_stored(path):
                found = await download(self._source, path, settings, report, self._cache.free_bytes)
                note = StoredModel(
                    name=self._name,
                    source=f"hf:{self._source.repo}/{self._source.file}",
                    sha256=found.sha256,
                    size=found.size,
                    licence=self._licence,
                )
                write_whole(path.with_suffix(".json"), msgspec.json.encode(note))
        return path

    def _is_stored(self, path: Path) -> bool:
        try:
            note = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=StoredModel)
            return path.stat().st_size == note.size
        except (OSError, msgspec.DecodeError):
            return False


class LocalWeights:
    """A GGUF file of the user's own, served where it lies."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self._path.stem

    async def obtain(self, report: Progress) -> Path:  # noqa: ARG002 - nothing is fetched, so nothing is reported
        """See `Weights.obtain`. Looks at the first bytes only; whether the engine likes the rest shows at the start."""
        return await asyncio.to_thread(self._look)

    def _look(self) -> Path:
        try:
            with self._path.open("rb") as file:
                head = file.read(len(MAGIC))
        except OSError as error:
            raise WeightsMissing(
                f"The model file {self._path.name} cannot be read. Check the configured path and the file's rights.",
                detail=repr(error),
            ) from error
        if head != MAGIC:
            raise WeightsCorrupt(
                f"{self._path.name} is not a GGUF file. Download it again, or choose another.",
                detail=str(self._path),
            )
        return self._path
