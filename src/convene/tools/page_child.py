"""The child process that reads pages: one order after the other on stdin, one answer each on stdout. Run with `-m`.

Its contract with `page_pool.PagePool`:

    stdin    one JSON line {"kind", "charset", "url", "start", "chars", "bytes"}, then so many bytes of the page; when
             it ends, so does the child, also when the parent was killed
    stdout   one JSON line {"title", "text", "total", "whole", "links"} or {"error"}, fit for a model

A process and not a thread: parsers of hostile input may run for ever, take all memory or crash, and hold the
interpreter's lock meanwhile. It has no secrets (an empty environment), writes no file, and is killed when it is late.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import sys
from typing import Any, BinaryIO, Final

from convene.tools.page_text import Page, Unreadable, read_html, read_pdf, read_text

MEMORY_BYTES_MAX: Final = 2 << 30
"""Address space, of which the libraries alone map some hundred megabytes."""
LINKS_MAX: Final = 200


def main() -> int:
    """Serve until stdin ends."""
    # Ctrl-C and systemd reach the whole group; the parent decides when its child goes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for limit, most in ((resource.RLIMIT_AS, MEMORY_BYTES_MAX), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # not on every system
            resource.setrlimit(limit, (most, most))
    serve(sys.stdin.buffer, sys.stdout.buffer)
    return 0


def serve(orders: BinaryIO, answers: BinaryIO) -> None:
    """Answer each order until there are no more."""
    while line := orders.readline():
        order = json.loads(line)
        body = orders.read(order["bytes"])
        answers.write(json.dumps(answer(order, body)).encode() + b"\n")
        answers.flush()


def answer(order: dict[str, Any], body: bytes) -> dict[str, object]:
    """Return what the page says, from the character asked for."""
    start, chars = order["start"], order["chars"]
    try:
        page = _read(order, body)
    except Unreadable as error:
        return {"error": str(error)}
    except (MemoryError, RecursionError):
        return {"error": "The page is too large or too deep to be read."}
    shown = _cut(page.text[start:], chars)
    links = [link for link in page.links if link in shown][:LINKS_MAX]
    return {"title": page.title, "text": shown, "total": len(page.text), "whole": page.whole, "links": links}


def _read(order: dict[str, Any], body: bytes) -> Page:
    match order["kind"]:
        case "html":
            return read_html(body, order["charset"], order["url"])
        case "pdf":
            return read_pdf(body, order["start"] + order["chars"])
        case _:
            return read_text(body, order["charset"])


def _cut(text: str, chars: int) -> str:
    """Return at most `chars` characters, cut at a space if one is near, so that no link is cut in two."""
    if len(text) <= chars:
        return text
    shown = text[:chars]
    space = max(shown.rfind(" "), shown.rfind("\n"))
    return shown[:space] if space > chars * 3 // 4 else shown


if __name__ == "__main__":
    sys.exit(main())
