"""The documentation is complete and true as far as a program can tell: tables, samples, names, links.

A failing test prints the row or name that is missing. The rows come from `pages.py`.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import MagicMock

import click
import msgspec
import pytest

from convene import errors
from convene.api.chat_reply import ESTIMATED
from convene.api.chat_request import read_chat
from convene.api.docs import PAGES, Docs
from convene.api.docs_html import sections_of
from convene.api.embeddings import read_inputs
from convene.api.json_body import read_shape
from convene.api.metrics import Metrics, MetricsPage
from convene.api.openapi import document
from convene.api.openapi_words import STATUSES
from convene.api.problems import STATUSES as ERROR_CLASSES
from convene.api.problems import MethodNotAllowed, UnsupportedMedia
from convene.api.routes import Router
from convene.api.shapes import ChatBody, EmbeddingBody, ErrorReply, ReplyToolCall
from convene.api.shapes_described import ExecutedTool, Step
from convene.api.shapes_tools import ServerTool
from convene.api.shapes_usage import LimitLevels, UsageTotal
from convene.api.table import Endpoints, route_table
from convene.api.table_market import market_routes
from convene.app_models import DEFAULT_NAMES, EMBEDDING_NAME
from convene.cli import main
from convene.config import load
from repo import pages
from repo.modules import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from convene.api.call import Call

SDK_ONLY: Final = frozenset({"extra_body", "extra_headers"})
"""Arguments of the SDK's `create` that are no fields of the request."""

CLIENT_VARIABLES: Final = frozenset({"CONVENE_API_KEY", "CONVENE_BASE_URL", "CONVENE_MODEL", "CONVENE_CONFIG"})


async def nobody(call: Call) -> None:
    raise AssertionError(call.path)


@pytest.fixture(scope="module")
def router() -> Router:
    routes = route_table(Endpoints(**dict.fromkeys(Endpoints.__struct_fields__, nobody)))
    market = market_routes(MagicMock())
    return Router(
        (*routes, *Docs(routes, listed=True).routes(), *MetricsPage(Metrics(info={}), "open").routes(), *market)
    )


def missing(page: str, wanted: list[tuple[str, ...]]) -> str:
    """Return the rows that a page lacks, ready to paste; a page may have more columns than the code knows."""
    there = pages.table_rows(pages.pages()[page])
    return pages.written(row for row in wanted if not any(found[: len(row)] == row for found in there))


@pytest.mark.req("API-07")
def test_the_checked_in_description_is_the_generated_one() -> None:
    kept = (ROOT / "docs/openapi.json").read_bytes()

    assert kept == document(), "the API has changed: run `convene openapi > docs/openapi.json`"


def test_every_page_of_the_list_has_its_file_and_every_file_is_listed() -> None:
    listed = {page.name for page in PAGES} - {"reference"}

    assert {file.stem for file in (ROOT / "src/convene/pages").glob("*.md")} == listed
    assert (ROOT / "README.md").is_file()
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert [name for name in sorted(listed) if f"pages/{name}.md)" not in index] == []


@pytest.mark.req("DOCS-02")
def test_there_are_the_pages_that_a_user_of_the_api_expects() -> None:
    assert {"quickstart", "compatibility", "chat", "agentic", "tools", "models"} <= pages.pages().keys()


@pytest.mark.req("DOCS-02")
@pytest.mark.parametrize(
    ("page", "shape"), [("chat", "ChatBody"), ("chat", "WireMessage"), ("embeddings", "EmbeddingBody")]
)
def test_every_parameter_is_on_its_page_with_its_type_and_meaning(page: str, shape: str) -> None:
    assert missing(page, [*pages.field_rows(shape)]) == ""


@pytest.mark.parametrize("section", pages.SECTIONS)
def test_every_setting_is_on_its_page_with_its_type_default_and_meaning(section: str) -> None:
    text = pages.pages()["configuration"]
    heading = f"\n## {section or 'General'}\n"
    assert heading in text
    part = text.partition(heading)[2].partition("\n## ")[0]
    rows = [row for row in pages.table_rows(part) if row[0].startswith("`")]

    wanted = pages.setting_rows(section)
    assert rows == wanted, f"the rows must be:\n{pages.written(wanted)}"


def test_every_verb_is_on_its_page_and_every_verb_of_the_page_exists() -> None:
    rows = [row for row in pages.table_rows(pages.pages()["command-line"]) if row[0].startswith("`")]

    wanted = pages.verb_rows()
    assert sorted(rows) == sorted(wanted), f"the rows must be:\n{pages.written(wanted)}"


def test_every_model_that_can_be_pulled_is_on_its_page_and_so_are_all_default_names() -> None:
    text = pages.pages()["models"]

    assert missing("models", [*pages.model_rows()]) == ""
    names = [name for main_name, aliases in DEFAULT_NAMES for name in (main_name, *aliases)]
    assert [name for name in (*names, EMBEDDING_NAME) if f"`{name}`" not in text] == []


def test_every_route_that_is_served_is_on_a_page(router: Router) -> None:
    text = "\n".join(pages.pages().values())
    shown = {"/docs/{page}": "/docs/chat", "/v1/openapi.json": "/openapi.json"}
    served = [route for route in router.routes if route.described or route.tag in {"Docs", "Health"}]

    lacking = [r.path for r in served if f"`{r.method} {shown.get(r.path, r.path)}`" not in text]
    assert lacking == []


def test_every_route_that_a_page_names_is_served(router: Router) -> None:
    for name, text in pages.pages().items():
        for method, path in re.findall(r"\b(GET|POST|DELETE|HEAD) (/[\w./{}-]*)", text):
            if path == "/v1/responses":  # named as not there yet
                continue
            route, _ = router.find(method, path)
            assert route.method, f"{name}: {method} {path}"


def test_every_error_code_and_status_is_on_its_page() -> None:
    def codes(kind: type[errors.ConveneError]) -> set[str]:
        return {kind.code}.union(*(codes(inner) for inner in kind.__subclasses__() if "convene" in inner.__module__))

    text = pages.pages()["errors"]
    own = codes(errors.ConveneError) | {MethodNotAllowed.code, UnsupportedMedia.code}
    own.discard("invalid_configuration")  # speaks to operators: no client meets it
    said = {found for row in pages.table_rows(text) for found in re.findall(r"^`(\w+)`$", row[0])}

    statuses = {row[0] for row in pages.table_rows(text)}
    assert {str(status) for _, status, _ in ERROR_CLASSES} | {str(status) for status, _ in STATUSES} <= statuses
    assert sorted(code for code in own if code not in said) == []


def test_every_code_that_the_api_writes_is_on_the_page_of_errors() -> None:
    text = pages.pages()["errors"]
    written: set[str] = set()
    for folder in ("api", "serving", "providers", "registry"):
        for file in (ROOT / "src/convene" / folder).glob("*.py"):
            written.update(re.findall(r"\bcode=\"(\w+)\"", file.read_text(encoding="utf-8")))

    assert sorted(code for code in written if f"`{code}`" not in text) == []


@pytest.mark.req("ERRSHAPE-07")
def test_the_page_of_errors_puts_our_types_into_the_words_of_open_responses() -> None:
    rows = pages.table_rows(pages.pages()["errors"].partition("Open Responses")[2])
    mapped = {word: cells[1] for cells in rows for word in re.findall(r"`(\w+)`", cells[0])}

    types = msgspec.json.schema(ErrorReply)["$defs"]["ErrorDetail"]["properties"]["type"]["enum"]
    assert set(types) <= mapped.keys()
    assert set(mapped.values()) == {
        "`server_error`",
        "`invalid_request`",
        "`not_found`",
        "`model_error`",
        "`too_many_requests`",
    }


@pytest.mark.req("MODEL-03")
def test_the_page_of_models_gives_the_rule_of_choice() -> None:
    rows = {cells[1]: cells[0] for cells in pages.table_rows(pages.pages()["models"]) if len(cells) == 2}

    assert "quickest" in rows["`asi1-mini`"]
    assert "long agentic or research work" in rows["`asi1-ultra`"]
    assert rows["`asi1`"] == "anything else"


@pytest.mark.req("OAI-49", "OAI-50")
def test_the_page_of_compatibility_says_what_surprises() -> None:
    text = " ".join(pages.pages()["compatibility"].split())

    assert "`model` in the reply is the name you asked for" in text
    assert "LangChain's own policy it shows reasoning only through the Responses API" in text


@pytest.mark.req("OPS-21")
def test_the_page_of_compatibility_has_settings_to_copy_for_each_client() -> None:
    text = pages.pages()["compatibility"]
    headings = {words for words, _ in sections_of(text)}

    assert {"SDKs", "LangChain", "AI SDK", "OpenCode", "Open WebUI", "LiteLLM", "Codex"} <= headings
    assert 'wire_api = "responses"' in text
    assert "@ai-sdk/openai-compatible" in text


@pytest.mark.req("SESSION-07")
def test_the_page_of_runs_advises_one_uuid_a_conversation_a_stored_mapping_and_a_default_header() -> None:
    text = " ".join(pages.pages()["runs"].split())

    assert "one UUID for each conversation" in text
    assert "in your own store (Redis, a database)" in text
    assert "LangChain's `ChatOpenAI` takes the same `default_headers`" in text
    assert any("uuid.uuid4()" in sample.code for sample in pages.samples("python") if sample.page == "runs")


@pytest.mark.req("DOCS-03")
def test_both_sdks_are_shown_with_the_request_the_reply_and_its_extra_fields() -> None:
    for language in ("python", "js"):
        [sample] = [
            one.code
            for one in pages.samples(language)
            if one.page == "compatibility" and "web_search" in one.code and "openai" in one.code
        ]
        for named in ("choices[0].message.content", "executable_data", "intermediate_steps", "thought", "x-session-id"):
            assert named in sample


@pytest.mark.parametrize("sample", pages.samples("python"), ids=lambda one: one.page)
def test_every_sample_in_python_compiles_and_names_fields_that_exist(sample: pages.Sample) -> None:
    tree = ast.parse(sample.code)
    fields = {"chat": set(ChatBody.__struct_fields__), "embeddings": set(EmbeddingBody.__struct_fields__)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        words = ast.unparse(call.func).split(".")
        if words[-1] not in {"create", "parse"}:
            continue
        known = fields["chat" if "chat" in words else "embeddings"] | SDK_ONLY
        assert {one.arg for one in call.keywords} <= known
        for one in call.keywords:
            if one.arg == "extra_body":
                assert set(ast.literal_eval(one.value)) <= known


@pytest.mark.parametrize("sample", pages.samples("js"), ids=lambda one: one.page)
def test_every_sample_in_javascript_parses(sample: pages.Sample, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    file = tmp_path / "sample.mjs"
    file.write_text(sample.code, encoding="utf-8")

    done = subprocess.run([node, "--check", str(file)], capture_output=True, text=True, check=False)  # noqa: S603 -- our own page
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("sample", pages.samples("json"), ids=lambda one: one.page)
def test_every_sample_in_json_is_what_it_shows(sample: pages.Sample) -> None:
    value: dict[str, Any] = json.loads(sample.code)
    match value:
        case {"messages": _}:
            assert set(value) <= set(ChatBody.__struct_fields__)
            read_chat(sample.code.encode(), None)
        case {"input": _}:
            assert set(value) <= set(EmbeddingBody.__struct_fields__)
            read_inputs(read_shape(value, EmbeddingBody).input)
        case {"error": _}:
            read_shape(value, ErrorReply)
        case {"object": "usage"}:
            msgspec.convert(value, UsageTotal, strict=True)
        case {"object": "list", "plan": _}:
            msgspec.convert(value, LimitLevels, strict=True)
        case {"function": _, "tool_name": _}:
            read_shape(value, ReplyToolCall)
        case {"tool_name": _}:
            read_shape(value, ExecutedTool)
        case {"depends_on": _}:
            read_shape(value, Step)
        case {"object": "tool"}:
            msgspec.convert(value, ServerTool, strict=True)
        case {"choices": _} | {"notices": _} | {"event": _} | {"provider": _}:
            pass  # replies are held to their shapes in tests/unit/api; the others are not ours to judge
        case _:
            pytest.fail(f"a sample that no test knows: {sample.code[:80]}")


@pytest.mark.parametrize("sample", pages.samples("toml"), ids=lambda one: one.page)
def test_every_sample_of_settings_loads(sample: pages.Sample, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret", encoding="utf-8")
    code = re.sub(r'"file:[^"]*"', json.dumps(f"file:{secret}"), sample.code)
    (tmp_path / "convene.toml").write_text(code, encoding="utf-8")

    config = load({}, {"HOME": str(tmp_path), "GPU_KEY": "s3cret", "DOCS_KEY": "s3cret"}, tmp_path)
    assert config.sources
    assert tomllib.loads(code).keys() <= {*config.__struct_fields__}


@pytest.mark.parametrize("sample", pages.samples("sh"), ids=lambda one: one.page)
def test_every_sample_for_the_shell_parses_and_names_verbs_and_flags_that_exist(sample: pages.Sample) -> None:
    shell = shutil.which("bash") or shutil.which("sh")
    assert shell is not None
    done = subprocess.run([shell, "-n"], input=sample.code, capture_output=True, text=True, check=False)  # noqa: S603 -- our own page
    assert done.returncode == 0, done.stderr

    for line in re.findall(r"(?:^|[ /(])(convene(?: [^|>)\n]*))", sample.code, re.MULTILINE):
        check_command(shlex.split(line.strip().rstrip('"') if line.count('"') % 2 else line))
    for body in re.findall(r"-d '([^']*)'", sample.code):
        read_chat(body.encode(), None)


def check_command(words: list[str]) -> None:
    """Fail unless the words are a verb of ours with flags that it has."""
    command: click.Command = main
    rest = words[1:]
    while isinstance(command, click.Group):
        command = command.commands[rest.pop(0)]
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= flags, " ".join(words)


def test_every_variable_that_a_page_names_is_a_setting_or_a_clients() -> None:
    settings = {f"CONVENE_{name.upper()}" for name in names_of("")}
    entries = {"UPSTREAMS_GPU": "upstreams", "MODELS_ASI1": "models"}
    entries |= {section.upper(): section for section in ("edge", "engine", "scripted", "tools", "search")}
    entries["SEARCH_BRAVE"] = "search.brave"
    settings |= {f"CONVENE_{entry}_{name.upper()}" for entry, section in entries.items() for name in names_of(section)}

    for name, text in pages.pages().items():
        for variable in re.findall(r"\bCONVENE_[A-Z0-9_]*[A-Z0-9]\b", text):
            known = settings | CLIENT_VARIABLES
            assert variable in known or variable.removesuffix("_FILE") in known, f"{name}: {variable}"


def test_every_setting_that_the_prose_names_exists() -> None:
    for name, text in pages.pages().items():
        for section, setting in re.findall(r"`(edge|engine|scripted|tools|search)\.(\w+)", text):
            if f"{section}.{setting}" == "tools.md":
                continue
            assert setting in names_of(section), f"{name}: {section}.{setting}"


def names_of(section: str) -> list[str]:
    return [row[0].strip("`") for row in pages.setting_rows(section)]


def test_every_notice_is_on_the_page_of_extras() -> None:
    rows = {row[0] for row in pages.table_rows(pages.pages()["agentic"])}
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "src/convene").rglob("*.py")]
    codes = {ESTIMATED.code, *(code for text in sources for code in re.findall(r"Noticed\(\s*\"(\w+)\"", text))}
    assert "search_unavailable" in codes

    assert {f"`{code}`" for code in codes} <= rows


@pytest.mark.parametrize("file", pages.markdown_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_link_is_dead(file: Path, router: Router) -> None:
    text = pages.prose(file.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        if path.startswith("/"):
            assert router.find("GET", path), target
            continue
        if path == "reference.md" and file.parent.name == "pages":
            continue  # generated
        aim = (file.parent / path) if path else file
        assert aim.exists(), f"{file.name}: {target}"
        if anchor:
            anchors = {one for _, one in sections_of(aim.read_text(encoding="utf-8"))}
            assert anchor in anchors, f"{file.name}: {target}"
