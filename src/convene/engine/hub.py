"""Downloading one file from a Hugging Face-compatible hub: resumed, checked, cancellable.

Blocking code for a thread, over urllib; `download` is its face for the event loop. The hub's `x-linked-etag` is the
file's SHA-256 and is believed only as far as the connection to the hub is; a file without one is refused. Nothing else
is asked of the hub and nothing is told to it (OPS-28). Called by `files`.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

import msgspec

from convene.engine.base import (
    EngineFault,
    FetchFailed,
    FetchSettings,
    FetchStep,
    NoSpace,
    Progress,
    WeightsCorrupt,
    WeightsMissing,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message
    from pathlib import Path

Done = TypeVar("Done")

READ_BYTES = 1 << 18
REPORT_BYTES_MIN = 1 << 20
SPACE_BYTES_SPARE = 64 << 20
ATTEMPTS_WITHOUT_PROGRESS = 5
REDIRECTS_MAX = 5
USER_AGENT = "convene"
SHA256 = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")
HF_ADDRESS = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>(?:[\w.-]+/)*[\w.-]+\.gguf)")


class HubFile(msgspec.Struct, frozen=True):
    """A file on a hub: `owner/name` and the path inside."""

    repo: str
    file: str

    @property
    def slug(self) -> str:
        """A file name of its own for every file on the hub, without the ending."""
        return f"{self.repo}/{self.file}".removesuffix(".gguf").replace("/", "--")


class Found(msgspec.Struct, frozen=True):
    """What the hub says of a file: where, how long in bytes, its SHA-256."""

    url: str
    size: int
    sha256: str


class _Cut(Exception):
    """The connection broke; what has arrived is good."""


class _Stopped(Exception):
    """The caller does not want it any more."""


def parse_address(text: str) -> HubFile | None:
    """Read `hf:owner/repo/path/file.gguf`; `None` if it is something else. Dots alone are no folder."""
    match = HF_ADDRESS.fullmatch(text)
    if match is None or any(set(part) == {"."} for part in text[3:].split("/")):
        return None
    return HubFile(match["repo"], match["file"])


async def download(
    source: HubFile, path: Path, settings: FetchSettings, report: Progress, free_bytes: Callable[[Path], int]
) -> Found:
    """Fetch the file to `path`, resuming what an earlier attempt left in `path` + `.DIGEST.part`.

    `report` is called in the event loop. A cancel takes effect at the next bytes, or after `settings.timeout_s` of
    silence; what has arrived stays for the next attempt.

    Raises:
        EngineFault: `WeightsMissing`, `WeightsCorrupt`, `FetchFailed` or `NoSpace`.
    """
    hand_over = over_the_loop(report)
    fetch = Fetch(settings, report=hand_over, free_bytes=free_bytes, stopped=threading.Event())
    return await run_fetch(fetch, lambda: fetch.run(source, path))


def over_the_loop(report: Progress) -> Progress:
    """Return a `report` for threads, which calls the given one in the running loop."""
    loop = asyncio.get_running_loop()

    def hand_over(step: FetchStep) -> None:
        loop.call_soon_threadsafe(report, step)

    return hand_over


async def run_fetch(fetch: Fetch, work: Callable[[], Done]) -> Done:
    """Do the blocking work of a fetch in a thread; a cancel stops it and waits until it has stopped."""
    working = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        fetch.stopped.set()
        await asyncio.wait([working])
        working.exception()  # seen, so that nobody reports it as forgotten
        raise


class Fetch:
    """One download, in one thread."""

    def __init__(
        self,
        settings: FetchSettings,
        *,
        report: Progress,
        free_bytes: Callable[[Path], int],
        stopped: threading.Event,
    ) -> None:
        self._settings = settings
        self._report = report
        self._free_bytes = free_bytes
        self.stopped = stopped

    def run(self, source: HubFile, path: Path) -> Found:
        """Look the file up, fetch it in as many pieces as it takes, check it, put it in place."""
        self._report(FetchStep(status="looking up the file"))
        found = self._look_up(source)
        self.fetch(found, source.file, path)
        return found

    def fetch(self, found: Found, name: str, path: Path) -> None:
        """Fetch what has been found to `path`; `name` is for messages. Raises as `download`."""
        part = path.with_name(f"{path.name}.{found.sha256[:12]}.part")
        have = part.stat().st_size if part.exists() else 0
        if self._free_bytes(path.parent) < found.size - have + SPACE_BYTES_SPARE:
            raise NoSpace(
                f"There is no room for {name}: it takes {found.size / 1e9:.2f} GB. Free some space on the disk "
                "of the cache folder, or point the cache folder to another disk.",
            )
        digest = self._fetch_all(found, part)
        if digest != found.sha256:
            part.unlink()
            raise WeightsCorrupt(
                f"The download of {name} does not match the hub's SHA-256; it was thrown away. Try again; if it "
                "happens twice, something between you and the hub changes files.",
                detail=f"expected {found.sha256}, got {digest}",
            )
        part.replace(path)

    def read(self, source: HubFile, url: str, bytes_max: int) -> bytes:
        """Return the body of a small answer of the hub. Raises as `download`."""
        attempts = 0
        while True:
            self._check_stopped()
            try:
                with self._open(self._build_request(url)) as response:
                    body = response.read(bytes_max + 1)
                    if response.length and len(body) <= bytes_max:
                        raise _Cut("the connection ended early")  # noqa: TRY301 - tried again like every other cut
                break
            except (_Cut, OSError, http.client.HTTPException) as error:
                cause = error.__cause__
                if isinstance(cause, urllib.error.HTTPError):
                    raise _explain_refusal(cause.code, source) from error
                attempts += 1
                if attempts >= ATTEMPTS_WITHOUT_PROGRESS:
                    raise _explain_silence(self._settings.hub_url, error) from error
                self.stopped.wait(self._settings.retry_first_s * 2**attempts)
        if len(body) > bytes_max:
            raise FetchFailed(f"The hub's answer about {source.repo} is too long.", detail=url)
        return body

    def _look_up(self, source: HubFile) -> Found:
        url = self.join(source, "main")
        for _ in range(REDIRECTS_MAX):
            headers, moved = self._head(url, source)
            digest = (headers.get("x-linked-etag") or headers.get("etag") or "").removeprefix("W/").strip('"').lower()
            size = headers.get("x-linked-size") or headers.get("content-length") or ""
            if SHA256.fullmatch(digest) and size.isdigit():
                commit = headers.get("x-repo-commit") or ""
                # Pinned to the commit: a file that changes while it is fetched in pieces would never match.
                return Found(self.join(source, commit) if COMMIT.fullmatch(commit) else url, int(size), digest)
            if not moved or urllib.parse.urlsplit(moved).netloc != urllib.parse.urlsplit(url).netloc:
                break
            url = moved  # a renamed repository
        raise WeightsCorrupt(
            f"The hub gives no SHA-256 for {source.file}, so it cannot be checked. Use another hub, or download the "
            "file yourself and give its path.",
        )

    def _head(self, url: str, source: HubFile) -> tuple[Message, str]:
        """Ask without following: only the hub's own answer, not the store's behind it, has the linked headers."""
        request = self._build_request(url, method="HEAD")
        try:
            with _build_opener(follow=False).open(request, timeout=self._settings.timeout_s) as response:
                return response.headers, ""
        except urllib.error.HTTPError as error:
            with error:
                location = error.headers.get("location") or ""
                if 300 <= error.code < 400 and location:  # noqa: PLR2004 - the redirects
                    return error.headers, urllib.parse.urljoin(url, location)
                raise _explain_refusal(error.code, source) from error
        except (OSError, http.client.HTTPException) as error:
            raise _explain_silence(self._settings.hub_url, error) from error

    def _fetch_all(self, found: Found, part: Path) -> str:
        attempts = 0
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                self._fetch_rest(found, part)
                self._report(FetchStep(status="verifying", digest=found.sha256, total=found.size, completed=found.size))
                return digest_file(part, self._check_stopped)
            except _Stopped:
                raise FetchFailed("The download was stopped; the next one goes on where it ended.") from None
            except _Cut as cut:
                grown = part.exists() and part.stat().st_size > before
                attempts = 0 if grown else attempts + 1
                if attempts >= ATTEMPTS_WITHOUT_PROGRESS:
                    raise _explain_silence(self._settings.hub_url, cut) from cut
                self.stopped.wait(self._settings.retry_first_s * 2**attempts)

    def _fetch_rest(self, found: Found, part: Path) -> None:
        """Append what is missing; raise `_Cut` if the connection ends before that."""
        try:
            with part.open("ab") as file:
                while (have := file.tell()) < found.size:
                    self._check_stopped()
                    self._append(found, file, have)
                if file.tell() > found.size:
                    file.truncate(0)
                    raise _Cut("more bytes than announced")
        except OSError as error:
            raise FetchFailed(
                "The cache folder cannot be written; see that its disk has room and belongs to this user.",
                detail=repr(error),
            ) from error

    def _append(self, found: Found, file: BinaryIO, have: int) -> None:
        request = self._build_request(found.url)
        if have:
            request.add_header("Range", f"bytes={have}-")
        with self._open(request) as response:
            if response.status == HTTPStatus.PARTIAL_CONTENT:
                if not (response.headers.get("content-range") or "").startswith(f"bytes {have}-"):
                    raise _Cut("not the range that was asked for")
            elif have:
                # It knows no ranges, so it starts over and so do we.
                file.seek(0)
                file.truncate()
            reported = have = file.tell()
            while block := self._read(response):
                file.write(block)
                have += len(block)
                if have - reported >= max(REPORT_BYTES_MIN, found.size // 200):
                    self._report(_show_progress(found, have))
                    reported = have
                if have > found.size:
                    break
        self._report(_show_progress(found, have))
        if have < found.size:
            file.flush()
            raise _Cut("the connection ended early")

    def _open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        try:
            response = _build_opener(follow=True).open(request, timeout=self._settings.timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            raise _Cut(f"status {error.code}") from error
        except (OSError, http.client.HTTPException) as error:
            raise _Cut(repr(error)) from error
        return cast("http.client.HTTPResponse", response)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        self._check_stopped()
        try:
            return response.read1(READ_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _Cut(repr(error)) from error

    def _check_stopped(self) -> None:
        if self.stopped.is_set():
            raise _Stopped

    def join(self, source: HubFile, revision: str) -> str:
        """Return the address of a file at a revision."""
        return f"{self.base()}/{source.repo}/resolve/{revision}/{source.file}"

    def base(self) -> str:
        """Return the hub's address. Raises `FetchFailed` if it is none."""
        base = self._settings.hub_url.rstrip("/")
        if urllib.parse.urlsplit(base).scheme not in {"http", "https"}:
            raise FetchFailed("The model hub's address must begin with http:// or https://.", detail=base)
        return base

    def _build_request(self, url: str, method: str = "GET") -> urllib.request.Request:
        request = urllib.request.Request(url, method=method)  # noqa: S310 - `base` allows http and https only
        request.add_header("User-Agent", USER_AGENT)
        request.add_header("Accept-Encoding", "identity")
        if self._settings.hub_token:
            # Unredirected: the store behind the hub has no business with the token.
            request.add_unredirected_header("Authorization", f"Bearer {self._settings.hub_token}")
        return request


def digest_file(path: Path, check: Callable[[], None] = lambda: None) -> str:
    """Give the SHA-256 of a file in hexadecimal; `check` runs between blocks and may raise to stop."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES * 4):
            check()
            sha256.update(block)
    return sha256.hexdigest()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leave a redirect to the caller, as an `HTTPError`."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Make no new request."""


def _build_opener(*, follow: bool) -> urllib.request.OpenerDirector:
    """Give an opener for http and https through the user's proxy, and for nothing else (no `file:`, no `ftp:`)."""
    opener = urllib.request.OpenerDirector()
    for part in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPRedirectHandler() if follow else _NoRedirect(),
    ):
        opener.add_handler(part)
    return opener


def _show_progress(found: Found, completed: int) -> FetchStep:
    return FetchStep(status="downloading", digest=found.sha256, total=found.size, completed=completed)


def _explain_refusal(status: int, source: HubFile) -> EngineFault:
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return WeightsMissing(
            f"The hub will not give {source.repo} to just anyone, or does not have it. Check the name; if the model is "
            "gated, accept its licence on its page and configure a hub token.",
        )
    if status == HTTPStatus.NOT_FOUND:
        return WeightsMissing(f"The hub has no file {source.file} in {source.repo}. Check both names on its page.")
    return FetchFailed(f"The model hub answered with status {status}; try again later.")


def _explain_silence(hub_url: str, error: Exception) -> FetchFailed:
    return FetchFailed(
        "The model hub cannot be reached, or the connection keeps breaking. Check the network and the hub's address "
        "and try again (the download goes on where it ended), or download the file yourself and give its path.",
        detail=f"{hub_url}: {error!r}",
    )
