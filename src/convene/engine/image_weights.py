"""Where a pipeline's folder comes from: one of the user's own, or one of a hub, kept in the cache.

Made by `find_images`, used by `image_process.PaintEngine`. Nothing here imports torch: a folder is looked through
before the child is started, so what is missing or unsafe is said in words and at once.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from convene.engine.base import Offline, WeightsCorrupt, WeightsMissing
from convene.engine.base_images import ImageFolder
from convene.engine.cache import Cache, measure_free, write_whole
from convene.engine.hub import over_the_loop, run_fetch
from convene.engine.image_files import INDEX, INDEX_BYTES_MAX, choose_files, read_index
from convene.engine.image_hub import HubRepo, RepoFetch, Snapshot, parse_repo

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.engine.base import FetchSettings, Progress
    from convene.engine.base_images import Pictorial

FILES_MAX: Final = 10_000
"""Files in a folder that are looked at; a pipeline has fewer than a hundred."""


def find_images(
    model: str,
    cache_dir: Path,
    settings: FetchSettings,
    *,
    half: bool,
    free_bytes: Callable[[Path], int] = measure_free,
) -> Pictorial:
    """Give the way to a pipeline's folder. Reads no network yet.

    Args:
        model: the path of a folder, or `owner/name` on the hub, with `hf:` before and `@revision` behind it.
        cache_dir: the user's cache folder.
        settings: where files may come from.
        half: weights of half the size will do, where they are there.
        free_bytes: how free space is measured.
    """
    path = Path(model).expanduser()
    source = parse_repo(model)
    if source is None or path.is_dir():
        return FolderImages(path, half=half)
    return HubImages(Cache(cache_dir / "images", settings, free_bytes), model, source, half=half)


class FolderImages:
    """A folder of the user's own, used where it lies."""

    def __init__(self, path: Path, *, half: bool) -> None:
        self._path = path
        self._half = half

    @property
    def name(self) -> str:
        """The folder's name."""
        return self._path.name

    async def obtain(self, report: Progress) -> ImageFolder:  # noqa: ARG002 - nothing is fetched
        """See `Pictorial.obtain`."""
        return await asyncio.to_thread(self._look)

    def _look(self) -> ImageFolder:
        path = self._path
        if not path.is_dir():
            hint = " It is a file: give a folder in the form of diffusers." if path.is_file() else ""
            raise WeightsMissing(
                f"There is no folder of image weights '{path.name}'.{hint} Check the configured path, or give a name "
                "on the hub as owner/name.",
                detail=str(path),
            )
        try:
            with (path / INDEX).open("rb") as file:
                raw = file.read(INDEX_BYTES_MAX)
        except FileNotFoundError:
            raw = b""
        except OSError as error:
            raise WeightsMissing(
                f"The folder of image weights '{path.name}' cannot be read. Check its rights.", detail=repr(error)
            ) from error
        components = read_index(self.name, raw)
        names = [
            f"{component}/{file.name}"
            for component in components
            if (path / component).is_dir()
            for file, _ in zip((path / component).iterdir(), range(FILES_MAX), strict=False)
        ]
        return ImageFolder(path, choose_files(self.name, components, names, half=self._half).variant)


class HubImages:
    """A repository of a hub: from the cache, or downloaded."""

    def __init__(self, cache: Cache, name: str, source: HubRepo, *, half: bool) -> None:
        self._cache = cache
        self._name = name
        self._source = source
        self._half = half
        self._folder = cache.folder / source.slug

    @property
    def name(self) -> str:
        """The name it was asked for by."""
        return self._name

    async def obtain(self, report: Progress) -> ImageFolder:
        """See `Pictorial.obtain`. A stored folder is checked by the lengths of its files."""
        found = self._stored()
        if found is not None:
            return found
        settings = self._cache.settings
        if settings.offline or not settings.fetch:
            raise Offline(
                f"The image model '{self._name}' is not here and may not be fetched. Allow it (engine.fetch, "
                "engine.offline), or download the folder elsewhere and give its path.",
            )
        async with self._cache.claim(self._source.slug, report):
            found = self._stored()
            if found is None:
                await self._fetch(report)
                found = self._stored()
        if found is None:
            raise WeightsCorrupt(f"The folder of image weights '{self._name}' changed while it was fetched; try again.")
        return found

    async def _fetch(self, report: Progress) -> None:
        cache = self._cache
        self._folder.mkdir(parents=True, exist_ok=True)
        fetch = RepoFetch(
            cache.settings, report=over_the_loop(report), free_bytes=cache.free_bytes, stopped=threading.Event()
        )
        note = await run_fetch(fetch.fetch, lambda: fetch.run(self._name, self._source, self._folder, half=self._half))
        write_whole(self._note, msgspec.json.encode(note))

    @property
    def _note(self) -> Path:
        return self._folder.with_name(f"{self._source.slug}.json")

    def _stored(self) -> ImageFolder | None:
        try:
            note = msgspec.json.decode(self._note.read_bytes(), type=Snapshot)
            whole = all((self._folder / path).stat().st_size == size for path, size in note.sizes.items())
        except (OSError, msgspec.DecodeError):
            return None
        return ImageFolder(self._folder, note.variant) if whole else None

    def remove(self) -> None:
        """Remove what was fetched, whole or not."""
        self._note.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)
