"""A pipeline's folder from a Hugging Face-compatible hub: listed once, pinned to that commit, every file checked.

Blocking code for a thread, over `hub.Fetch`. Large files are checked by the SHA-256 that the listing gives (LFS), small
ones by their git object id, a SHA-1 of the content: both are believed as far as the connection to the hub is, and what
could do harm, the weights, is large. Called by `image_weights`.
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

import msgspec

from convene.engine.base import FetchFailed, FetchStep, WeightsCorrupt
from convene.engine.hub import Fetch, Found, HubFile
from convene.engine.image_files import INDEX, INDEX_BYTES_MAX, FilePlan, choose_files, read_index

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from convene.engine.base import FetchSettings, Progress

LISTING_BYTES_MAX: Final = 16 * 1024 * 1024
SMALL_BYTES_MAX: Final = 64 * 1024 * 1024
REPO = re.compile(r"(?:hf:)?(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w.-]+))?")


class HubRepo(msgspec.Struct, frozen=True):
    """A repository on a hub, and a branch, tag or commit of it."""

    repo: str
    revision: str = "main"

    @property
    def slug(self) -> str:
        """A folder name of its own for every repository and revision."""
        return f"{self.repo}@{self.revision}".replace("/", "--")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The note beside a folder that has been fetched whole: what it is, and how long its files are."""

    source: str
    commit: str
    variant: str
    sizes: dict[str, int]


class _Lfs(msgspec.Struct):
    sha256: str
    size: int


class _Sibling(msgspec.Struct):
    name: str = msgspec.field(name="rfilename")
    size: int = 0
    blob: str = msgspec.field(name="blobId", default="")
    lfs: _Lfs | None = None


class _Listing(msgspec.Struct):
    siblings: list[_Sibling]
    sha: str


def parse_repo(text: str) -> HubRepo | None:
    """Read `owner/name`, with `hf:` before and `@revision` behind it; `None` if it is something else."""
    match = REPO.fullmatch(text)
    return HubRepo(match["repo"], match["revision"] or "main") if match is not None else None


class RepoFetch:
    """One repository on its way into a folder."""

    def __init__(
        self,
        settings: FetchSettings,
        *,
        report: Progress,
        free_bytes: Callable[[Path], int],
        stopped: threading.Event,
    ) -> None:
        self._report = report
        self._before = self._total = 0
        self.fetch = Fetch(settings, report=self._add_up, free_bytes=free_bytes, stopped=stopped)

    def run(self, name: str, source: HubRepo, folder: Path, *, half: bool) -> Snapshot:
        """Fetch what is needed and not there yet. `name` is for messages; `half` as in `choose_files`.

        Raises:
            EngineFault: `WeightsMissing`, `WeightsCorrupt`, `FetchFailed` or `NoSpace`.
        """
        self._report(FetchStep(status="looking up the files"))
        listing = self._list(source)
        there = {sibling.name: sibling for sibling in listing.siblings}
        index = there.get(INDEX)
        raw = self._read(source, listing.sha, index, INDEX_BYTES_MAX) if index is not None else b""
        plan = choose_files(name, read_index(name, raw), there, half=half)
        wanted = [there[path] for path in plan.files]
        self._total = sum(sibling.size for sibling in wanted)
        for sibling in wanted:
            self._obtain(source, listing.sha, sibling, folder)
            self._before += sibling.size
        return _note(source, listing.sha, plan, there)

    def _list(self, source: HubRepo) -> _Listing:
        revision = urllib.parse.quote(source.revision, safe="")
        url = f"{self.fetch.base()}/api/models/{source.repo}/revision/{revision}?blobs=true"
        body = self.fetch.read(HubFile(source.repo, INDEX), url, LISTING_BYTES_MAX)
        try:
            return msgspec.json.decode(body, type=_Listing)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FetchFailed(
                f"The hub did not list the files of {source.repo}. Check the hub's address, or download the folder "
                "yourself and give its path.",
                detail=repr(error),
            ) from error

    def _obtain(self, source: HubRepo, commit: str, sibling: _Sibling, folder: Path) -> None:
        path = folder.joinpath(*PurePosixPath(sibling.name).parts)
        lfs = sibling.lfs
        # Each is moved into place only when it has been checked, so what is there of this length is it.
        if path.is_file() and path.stat().st_size == sibling.size:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if lfs is not None:
            url = self.fetch.join(HubFile(source.repo, sibling.name), commit)
            self.fetch.fetch(Found(url, lfs.size, lfs.sha256), sibling.name, path)
            return
        if sibling.name.endswith(".safetensors"):
            raise WeightsCorrupt(
                f"The hub gives no SHA-256 for {sibling.name}, so it cannot be checked. Use another hub."
            )
        fresh = path.with_name(f"{path.name}.new")
        fresh.write_bytes(self._read(source, commit, sibling, SMALL_BYTES_MAX))
        fresh.replace(path)

    def _read(self, source: HubRepo, commit: str, sibling: _Sibling, bytes_max: int) -> bytes:
        file = HubFile(source.repo, sibling.name)
        body = self.fetch.read(file, self.fetch.join(file, commit), bytes_max)
        if sibling.lfs is not None:
            right = hashlib.sha256(body).hexdigest() == sibling.lfs.sha256
        else:
            head = f"blob {len(body)}\0".encode()
            right = hashlib.sha1(head + body, usedforsecurity=False).hexdigest() == sibling.blob
        if not right:
            raise WeightsCorrupt(
                f"The download of {sibling.name} does not match what the hub lists; it was thrown away. Try again; if "
                "it happens twice, something between you and the hub changes files.",
                detail=f"{source.repo}@{commit}: {len(body)} bytes",
            )
        return body

    def _add_up(self, step: FetchStep) -> None:
        done = min(self._before + step.completed, self._total)
        self._report(FetchStep(status=step.status, digest=step.digest, total=self._total, completed=done))


def _note(source: HubRepo, commit: str, plan: FilePlan, there: dict[str, _Sibling]) -> Snapshot:
    sizes = {path: there[path].size for path in plan.files}
    return Snapshot(source=f"hf:{source.repo}@{source.revision}", commit=commit, variant=plan.variant, sizes=sizes)
