"""How each kind of suite is run against a server and what it reports. What is expected of it stands in `run.py`.

Every function sets up its environment, runs other people's code (or our programs on their SDKs) as a process with a
time limit, leaves all it printed in `out/conformance/results/NAME/output.txt`, and returns the outcome. They raise
`Absent` where something is not installed and cannot be got, and `Skipped` where an input was not given.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

from conformance.documents import keep_streams, read_document, sharpen_openai, sharpen_own
from conformance.environments import HERE, OUT, Absent, clean_environment, ensure_node, ensure_python, ensure_sdist
from conformance.reports import Outcome, read_lines, read_pytest, read_schemathesis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from conformance.servers import Server

LIMIT_S: Final = 1800.0
"""The longest any suite may take: a tiny model on a busy machine is slow."""
FUZZ_S: Final = 60
FUZZ_OWN_S: Final = 180
"""The fuzzer shares its time out evenly among operations, and with a minute the chat's share ends among its bodies."""
SEED: Final = 1
DOCUMENT: Final = "CONVENE_OPENAI_DOCUMENT"
DOCUMENT_HINT: Final = (
    f"set {DOCUMENT} to the path of OpenAI's API description, which is published in the GitHub repository "
    "openai/openai-openapi (JSON or YAML)"
)
CHECKS_OF_OPENAI: Final = (
    "not_a_server_error",
    "content_type_conformance",
    "response_schema_conformance",
    "ignored_auth",
)
"""Without the statuses: OpenAI's document describes only 200 and 429."""
CHECKS_OF_OURS: Final = (
    *CHECKS_OF_OPENAI,
    "status_code_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)
"""Without `positive_data_acceptance`: no schema can say that a tool's result must follow its call."""
PYTEST: Final = ("-q", "-p", "no:cacheprovider", "--tb=short", "-rsf", "--junitxml=report.xml")


class Skipped(Exception):
    """A suite was left out on purpose; the text says what to give to run it."""


def run_langchain(name: str, server: Server) -> Outcome:
    """LangChain's standard tests; the embedded model answers without chance and in at most 200 tokens."""
    python = ensure_python("langchain")
    folder = _folder(name)
    shutil.copy(HERE / "langchain_standard.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\n", "utf-8")  # else ours would be found above
    embedded = server.name == "embedded"
    extra = {"CHECK_MODEL": "asi1", "CHECK_OTHER_MODEL": "smollm2-135m", "CHECK_MAX_TOKENS": "200"}
    if not embedded:
        extra = {"CHECK_MODEL": "standard", "CHECK_OTHER_MODEL": "scripted-echo", "CHECK_MAX_TOKENS": "0"}
    scopes = [f"asyncio_default_{kind}_loop_scope=session" for kind in ("test", "fixture")]  # else "loop is closed"
    options = [*PYTEST, "-c", "pytest.ini", "--asyncio-mode=auto", *(part for one in scopes for part in ("-o", one))]
    _start([str(python), "-m", "pytest", *options, "langchain_standard.py"], folder, server, extra)
    return read_pytest(folder / "report.xml")


def run_openai_tests(name: str, server: Server) -> Outcome:
    """The chat and models tests that come with OpenAI's SDK; made for a mock server, hence the choice."""
    python = ensure_python("openai-3")
    sources = ensure_sdist(python, "openai-3", "openai")
    folder = _folder(name)
    report = f"--junitxml={folder / 'report.xml'}"
    chosen = "(create or (TestModels and list)) and not aiohttp and not Async"
    files = ["tests/api_resources/chat/test_completions.py", "tests/api_resources/test_models.py"]
    command = [str(python), "-m", "pytest", *PYTEST, report, "-n", "0", *files, "-k", chosen]
    _start(command, folder, server, {"TEST_API_BASE_URL": server.base}, at=sources)
    return read_pytest(folder / "report.xml")


def run_openai_2(name: str, server: Server) -> Outcome:
    """Our program on major 2 of OpenAI's SDK."""
    return _run_openai(name, server, "openai-2")


def run_openai_3(name: str, server: Server) -> Outcome:
    """Our program on major 3 of OpenAI's SDK."""
    return _run_openai(name, server, "openai-3")


def _run_openai(name: str, server: Server, family: str, program: str = "openai_sdk.py") -> Outcome:
    return read_lines(_start([str(ensure_python(family)), str(HERE / program)], _folder(name), server))


def run_node_current(name: str, server: Server) -> Outcome:
    """Our program on openai 7 and ai 7 for Node, with zod 4."""
    return _run_node(name, server, "current")


def run_node_previous(name: str, server: Server) -> Outcome:
    """Our program on openai 6 and ai 6 for Node, with zod 3."""
    return _run_node(name, server, "previous")


def search_openai_3(name: str, server: Server) -> Outcome:
    """Turns in which the server searches, plans, tutors and calls tools, on major 3 of OpenAI's SDK, strictly read."""
    return _run_openai(name, server, "openai-3", "searching_openai.py")


def search_openai_2(name: str, server: Server) -> Outcome:
    """The same on major 2."""
    return _run_openai(name, server, "openai-2", "searching_openai.py")


def search_node_current(name: str, server: Server) -> Outcome:
    """Answers from the web, on the same."""
    return _run_node(name, server, "current", "searching.mjs")


def search_node_previous(name: str, server: Server) -> Outcome:
    """Answers from the web, on the same of the major before."""
    return _run_node(name, server, "previous", "searching.mjs")


def search_langchain(name: str, server: Server) -> Outcome:
    """Answers from the web, on LangChain's `ChatOpenAI`."""
    program = str(HERE / "searching_langchain.py")
    return read_lines(_start([str(ensure_python("langchain")), program], _folder(name), server))


def _run_node(name: str, server: Server, family: str, program: str = "clients.mjs") -> Outcome:
    packages = ensure_node(family)
    shutil.copy(HERE / program, packages)  # its imports are looked for beside it
    return read_lines(_start(["node", str(packages / program)], _folder(name), server))


def fuzz_openai(name: str, server: Server) -> Outcome:
    """Schemathesis on OpenAI's document. Raises `Skipped` unless its path was given."""
    return _fuzz(name, server, _openai_document(server), CHECKS_OF_OPENAI)


def fuzz_openai_streams(name: str, server: Server) -> Outcome:
    """Schemathesis on the streams of OpenAI's document. Raises `Skipped` unless its path was given."""
    return _fuzz(name, server, keep_streams(_openai_document(server)), CHECKS_OF_OPENAI)


def fuzz_own(name: str, server: Server) -> Outcome:
    """Schemathesis on the server's own `/openapi.json`."""
    return _fuzz(name, server, _own_document(server), CHECKS_OF_OURS, FUZZ_OWN_S)


def fuzz_own_streams(name: str, server: Server) -> Outcome:
    """Schemathesis on the streams of the server's own `/openapi.json`: a chat, and a run that has ended."""
    return _fuzz(name, server, keep_streams(_own_document(server)), CHECKS_OF_OPENAI)


def _openai_document(server: Server) -> dict[str, Any]:
    given = os.environ.get(DOCUMENT, "")
    if not given:
        raise Skipped(DOCUMENT_HINT)
    python = ensure_python("schemathesis")
    try:
        return sharpen_openai(read_document(Path(given), python), server)
    except (OSError, ValueError, LookupError, subprocess.CalledProcessError) as fault:
        raise Absent(f"{DOCUMENT}={given} cannot be used: {type(fault).__name__}: {fault}") from None


def _own_document(server: Server) -> dict[str, Any]:
    """Return our document with names that exist: of a run that was asked for here and a key that was made here."""
    search = {"model": "asi1", "messages": [{"role": "user", "content": "hello"}], "web_search_options": {}}
    run = _ask(server, "/v1/chat/completions", search)["metadata"]["run_id"]
    key = _ask(server, "/v1/admin/keys", {"name": "spare"})["id"]
    return sharpen_own(_ask(server, "/openapi.json"), server, run, key)


def _ask(server: Server, path: str, body: object = None) -> dict[str, Any]:
    """Return what the server answers to a GET, or to a POST of a body."""
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.root}{path}", data, headers)  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
        found: dict[str, Any] = json.load(answer)
    return found


def _fuzz(name: str, server: Server, document: dict[str, Any], checks: Sequence[str], seconds: int = FUZZ_S) -> Outcome:
    python = ensure_python("schemathesis")
    folder = _folder(name)
    (folder / "openapi.json").write_text(json.dumps(document), "utf-8")
    command = [str(python.parent / "schemathesis"), "run", "openapi.json", "--url", server.root]
    command += ["-H", f"Authorization: Bearer {server.key}", "-n", "30", "--phases", "examples,coverage,fuzzing"]
    command += ["-c", ",".join(checks), "--continue-on-failure", "--suppress-health-check", "all", "--no-color"]
    command += ["--max-time", str(seconds), "--seed", str(SEED), "--report", "junit,har"]
    command += ["--report-junit-path", "report.xml", "--report-har-path", "traffic.har"]
    output = _start(command, folder, server)
    return read_schemathesis(folder / "report.xml", output)


def _folder(name: str) -> Path:
    """Return the empty folder for what a suite leaves behind."""
    folder = OUT / "results" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _start(
    command: Sequence[str],
    folder: Path,
    server: Server,
    extra: Mapping[str, str] | None = None,
    at: Path | None = None,
) -> str:
    """Run a suite's process and return what it printed, which also stands in its folder.

    Its exit code says no more than its report does. Raises `subprocess.TimeoutExpired`.
    """
    told = {"CHECK_BASE_URL": server.base, "CHECK_API_KEY": server.key, "CHECK_EMBEDDING_MODEL": server.embedder}
    output = folder / "output.txt"
    with output.open("wb") as sink:
        subprocess.run(  # noqa: S603 - the suites of the table
            command,
            cwd=at or folder,
            env=clean_environment({**told, **(extra or {})}),
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=LIMIT_S,
            check=False,
        )
    return output.read_text("utf-8", "replace")
