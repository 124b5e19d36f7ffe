"""A model hub on loopback with whole repositories: the listing with sizes and digests, and the files at a commit.

The listing has the form of `GET /api/models/{repo}/revision/{revision}?blobs=true` as the official client reads it
(huggingface_hub 2.4, `HfApi.model_info(files_metadata=True)`): `sha`, and `siblings` with `rfilename`, `size`, `blobId`
and, for large files, `lfs` with `sha256` and `size`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMIT = "fedcba9876543210fedcba9876543210fedcba98"


class Repo:
    """What the double serves and how. Tests set the fields before they fetch."""

    def __init__(self, url: str, files: dict[str, bytes]) -> None:
        self.url = url
        self.files = files
        self.seen: list[str] = []
        self.tokens: set[str] = set()
        self.large = (".safetensors", ".bin")
        self.status = 0
        self.listing: bytes | None = None
        self.wrong: set[str] = set()
        """Files that are not what the listing says."""
        self.cut: dict[str, int] = {}
        """Bytes after which one answer each breaks off."""

    def list(self) -> bytes:
        """Return the listing."""
        if self.listing is not None:
            return self.listing
        siblings = []
        for name, content in self.files.items():
            blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
            entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": blob}
            if name.endswith(self.large):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        return json.dumps({"id": "owner/repo", "sha": COMMIT, "private": False, "siblings": siblings}).encode()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repo: ClassVar[Repo]

    def do_GET(self) -> None:
        repo = self.repo
        repo.seen.append(self.path)
        repo.tokens.add(self.headers.get("Authorization", ""))
        if repo.status:
            self._end(repo.status, b"")
        elif self.path.startswith("/api/models/"):
            self._end(200, repo.list())
        else:
            name = self.path.partition(f"/resolve/{COMMIT}/")[2]
            content = repo.files.get(name)
            if content is None:
                self._end(404, b"")
                return
            self._send(name, bytes(len(content)) if name in repo.wrong else content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""

    def _send(self, name: str, content: bytes) -> None:
        wanted = self.headers.get("Range", "")
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        body = content[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body)))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        cut = self.repo.cut.pop(name, None)
        if cut is not None:
            self.close_connection = True
        self.wfile.write(body[:cut])

    def _end(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def open_repo(files: dict[str, bytes]) -> Iterator[Repo]:
    """Serve `files` as every repository."""

    class Answer(_Answer):
        """Bound to one repository."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        repo = Answer.repo = Repo(f"http://127.0.0.1:{server.server_port}", files)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield repo
        finally:
            server.shutdown()
            thread.join()
