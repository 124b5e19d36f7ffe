"""A model hub on loopback: linked headers, a redirect to a store, ranges, and every way a download goes wrong."""

from __future__ import annotations

import hashlib
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMIT = "0123456789abcdef0123456789abcdef01234567"
STALL_S_MAX = 10.0


class Seen(NamedTuple):
    """One request as it came in."""

    method: str
    path: str
    range: str
    authorization: str


class Hub:
    """What the double serves and how. Tests set the fields before they download."""

    def __init__(self, url: str, content: bytes) -> None:
        self.url = url
        self.content = content
        self.digest = hashlib.sha256(content).hexdigest()
        self.seen: list[Seen] = []
        self.cuts: list[int] = []
        """Bytes after which one answer each breaks off."""
        self.stall_after = -1
        """Bytes after which an answer says nothing more, until `released`."""
        self.released = threading.Event()
        self.ranges = True
        self.wrong_ranges = False
        self.surplus = b""
        self.links = True
        self.status = 0
        self.renamed_from = ""
        self.store_status = 0

    @property
    def downloads(self) -> list[Seen]:
        """The requests that reached the store."""
        return [seen for seen in self.seen if seen.path.startswith("/store/")]


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ClassVar[Hub]

    def do_HEAD(self) -> None:
        self._note()
        self._resolve()

    def do_GET(self) -> None:
        self._note()
        if self.path.startswith("/store/"):
            self._store()
        else:
            self._resolve()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""

    def _note(self) -> None:
        headers = self.headers
        self.hub.seen.append(
            Seen(self.command, self.path, headers.get("Range", ""), headers.get("Authorization", "")),
        )

    def _resolve(self) -> None:
        hub = self.hub
        if hub.status:
            self._end(hub.status, {})
        elif hub.renamed_from and self.path.startswith(f"/{hub.renamed_from}/"):
            self._end(307, {"Location": self.path.replace(hub.renamed_from, "new/name")})
        else:
            headers = {"Location": "/store/blob", "X-Repo-Commit": COMMIT}
            if hub.links:
                headers |= {"X-Linked-Etag": f'"{hub.digest}"', "X-Linked-Size": str(len(hub.content))}
            self._end(302, headers)

    def _store(self) -> None:
        hub = self.hub
        if hub.store_status:
            self._end(hub.store_status, {})
            return
        wanted = self.headers.get("Range", "")
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and hub.ranges else 0
        body = hub.content[begin:] + hub.surplus
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body)))
        if begin:
            shown = 0 if hub.wrong_ranges else begin
            self.send_header("Content-Range", f"bytes {shown}-{len(hub.content) - 1}/{len(hub.content)}")
        self.end_headers()
        try:
            self._send(body)
        except ConnectionError:
            self.close_connection = True

    def _send(self, body: bytes) -> None:
        hub = self.hub
        if hub.cuts:
            self.wfile.write(body[: hub.cuts.pop(0)])
            self.close_connection = True
        elif 0 <= hub.stall_after < len(body):
            self.wfile.write(body[: hub.stall_after])
            self.wfile.flush()
            hub.released.wait(STALL_S_MAX)
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _end(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def open_hub(content: bytes) -> Iterator[Hub]:
    """Serve `content` as every file of every repository."""

    class Answer(_Answer):
        """Bound to one hub."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        hub = Answer.hub = Hub(f"http://127.0.0.1:{server.server_port}", content)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.released.set()
            server.shutdown()
            thread.join()
