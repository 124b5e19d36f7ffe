"""What the fuzzer finds in documents and answers of a few lines, none of them ours: the causes of two findings.

    .venv/bin/python tests/conformance/causes.py

A server here gives one fixed answer, schemathesis holds it against one small document, and what it finds is compared
with what `docs/conformance.md` says that it finds. With `CONVENE_OPENAI_DOCUMENT` also OpenAI's own example of a reply
with calls, held against OpenAI's document. Exit code 0 if all is as said, 1 if not.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started as a file: its package is not on the path yet

from conformance.documents import event_of, name_kinds, read_document
from conformance.environments import clean_environment, ensure_python
from conformance.suites import DOCUMENT, DOCUMENT_HINT

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON: Final = "application/json"
STREAM: Final = "text/event-stream"
UNNAMED: Final = "Unknown discriminator value"
VIOLATED: Final = "Response violates schema"
VIOLATED_EVENT: Final = "SSE event violates schema"
CHAT: Final = "/chat/completions"
LIMIT_S: Final = 300

_FINDING = re.compile(r"^- ST\d+ (.+)$", re.MULTILINE)
_TESTED = re.compile(r"(\d+) generated")

Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One document, one answer, and what is found."""

    name: str
    document: Json
    kind: str
    answer: bytes
    finds: frozenset[str]


def small_cases() -> Iterator[Case]:
    """Yield the cases of a few lines."""
    kinds = {name: _kind(value) for name, value in (("FunctionCall", "function"), ("CustomCall", "custom"))}
    choice = {"oneOf": [_ref(name) for name in kinds], "discriminator": {"propertyName": "type"}}
    unnamed = _document(JSON, choice, kinds)
    named = copy.deepcopy(unnamed)
    name_kinds(named, named["components"]["schemas"])
    allowed, by_name = b'{"type": "function"}', b'{"type": "FunctionCall"}'
    yield Case("kinds without values, a value that a kind demands", unnamed, JSON, allowed, frozenset({UNNAMED}))
    yield Case("kinds without values, the name of a kind", unnamed, JSON, by_name, frozenset({VIOLATED}))
    yield Case("kinds with their values, a value that a kind demands", named, JSON, allowed, frozenset())
    unheard_of = frozenset({UNNAMED, VIOLATED})
    yield Case("the same, a value that no kind demands", named, JSON, b'{"type": "other"}', unheard_of)
    chunk = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    stream, wrong = (b"data: %s\n\ndata: [DONE]\n\n" % data for data in (b'{"n": 1}', b'{"n": "one"}'))
    as_chunk, as_event = _document(STREAM, chunk), _document(STREAM, event_of(chunk))
    yield Case("a chunk as the schema of a stream", as_chunk, STREAM, stream, frozenset({VIOLATED_EVENT}))
    yield Case("an event as the schema of a stream", as_event, STREAM, stream, frozenset())
    yield Case("the same, with a wrong chunk", as_event, STREAM, wrong, frozenset({VIOLATED_EVENT}))


def openai_cases(document: Json) -> Iterator[Case]:
    """Yield OpenAI's own example of a reply with calls on OpenAI's document, as it is and with kinds that have values.

    The request is left out of it, since the answer does not depend on it.
    """
    post = document["paths"][CHAT]["post"]
    example = next(one["response"] for one in post["x-oaiMeta"]["examples"] if '"tool_calls": [' in one["response"])
    post.pop("requestBody")
    document["paths"] = {CHAT: {"post": post}}
    named = copy.deepcopy(document)
    name_kinds(named, named["components"]["schemas"])
    # what the example lacks of what the document requires is another matter, and the same in both
    reply = json.loads(example)
    reply["choices"][0]["message"] |= {"refusal": None}
    answer = json.dumps(reply).encode()
    yield Case("OpenAI's document, its own example of calls", document, JSON, answer, frozenset({UNNAMED}))
    yield Case("the same, kinds with their values", named, JSON, answer, frozenset())


def main() -> int:
    """Run all cases and return the exit code."""
    python = ensure_python("schemathesis")
    cases = list(small_cases())
    given = os.environ.get(DOCUMENT, "")
    if given:
        cases += openai_cases(read_document(Path(given), python))
    else:
        sys.stdout.write(f"without OpenAI's own example: {DOCUMENT_HINT}\n")
    differ = 0
    for case in cases:
        found = _find(case, python)
        differ += found != case.finds
        verdict = "as said" if found == case.finds else f"NOT AS SAID, which is {_words(case.finds)}"
        sys.stdout.write(f"{case.name}: {_words(found)} ({verdict})\n")
    return 1 if differ else 0


def _words(found: frozenset[str]) -> str:
    return ", ".join(sorted(found)) or "nothing found"


def _find(case: Case, python: Path) -> frozenset[str]:
    """Return the titles of what the fuzzer finds. Raises `ValueError` if it tested nothing."""
    with tempfile.TemporaryDirectory() as folder, _serving(case) as url:
        (Path(folder) / "openapi.json").write_text(json.dumps(case.document), "utf-8")
        command = [str(python.parent / "schemathesis"), "run", "openapi.json", "--url", url, "-n", "3", "--no-color"]
        command += ["--phases", "fuzzing", "-c", "response_schema_conformance", "--mode", "positive"]
        output = subprocess.run(  # noqa: S603 - the fuzzer of the suites
            command,
            cwd=folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        ).stdout
    if _TESTED.search(output) is None:
        raise ValueError(f"{case.name}: nothing was tested:\n{output}")
    return frozenset(_FINDING.findall(output))


@contextmanager
def _serving(case: Case) -> Iterator[str]:
    """Answer every request alike on a free port, and yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(200)
            self.send_header("content-type", case.kind)
            self.send_header("content-length", str(len(case.answer)))
            self.end_headers()
            self.wfile.write(case.answer)

        do_POST = do_GET  # noqa: N815 - the name that the server looks for

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _document(kind: str, schema: Json, schemas: Json | None = None) -> Json:
    answer = {"description": "An answer", "content": {kind: {"schema": schema}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Small", "version": "1"},
        "paths": {"/answer": {"get": {"responses": {"200": answer}}}},
        "components": {"schemas": schemas or {}},
    }


def _kind(value: str) -> Json:
    return {"type": "object", "properties": {"type": {"type": "string", "enum": [value]}}, "required": ["type"]}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


if __name__ == "__main__":
    sys.exit(main())
