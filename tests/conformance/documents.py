"""API descriptions made sharp for fuzzing, so that answers are looked at and not only refusals.

A fuzzer fills a free string with anything: nearly every model name is then unknown, and a stream so rarely asked for
that none comes about. So the documents get model names that exist, and each has a variant that holds the streamed chat
alone. Nothing else is changed, apart from what is said at each function. Called by `suites.py`.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

    from conformance.servers import Server

SERVED: Final = {
    "/chat/completions": ("post",),
    "/embeddings": ("post",),
    "/models": ("get",),
    "/models/{model}": ("get",),
}
"""What this server has of OpenAI's paths. Completions and models cannot be listed or deleted here."""
CHAT: Final = "/v1/chat/completions"
CHAT_MODEL: Final = {"type": "string", "enum": ["asi1"]}
PLAIN_MESSAGES: Final = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"role": {"enum": ["system", "user"]}, "content": {"type": "string"}},
        "required": ["role", "content"],
    },
    "minItems": 1,
    "maxItems": 3,
}


def read_document(path: Path, python: Path) -> dict[str, Any]:
    """Return a document in JSON or YAML; `python` is an interpreter that has PyYAML. Raises `ValueError`, `OSError`."""
    text = path.read_text("utf-8")
    if path.suffix in {".yaml", ".yml"}:
        program = "import json,sys,yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout, default=str)"
        command = [str(python), "-c", program]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout  # noqa: S603 - ours
    document = json.loads(text)
    if not isinstance(document, dict) or "paths" not in document:
        raise ValueError(f"{path} is no OpenAPI document")
    return document


def sharpen_openai(document: dict[str, Any], server: Server) -> dict[str, Any]:
    """Return OpenAI's document with the paths that are served, under `/v1`.

    Its embeddings are arrays only, though its own `encoding_format` promises base64: a string is allowed too.
    """
    schemas = document["components"]["schemas"]
    _part_with_messages(document)["properties"]["model"] = CHAT_MODEL
    schemas["CreateEmbeddingRequest"]["properties"]["model"] = {"type": "string", "enum": [server.embedder]}
    vector = schemas["Embedding"]["properties"]["embedding"]
    schemas["Embedding"]["properties"]["embedding"] = {"anyOf": [vector, {"type": "string"}]}
    paths = document["paths"]
    document["paths"] = {f"/v1{path}": {one: paths[path][one] for one in methods} for path, methods in SERVED.items()}
    shown = document["paths"]["/v1/models/{model}"]["get"]["parameters"][0]
    shown["schema"] = {"type": "string", "enum": ["asi1", "no-such-model"]}
    return document


def sharpen_own(document: dict[str, Any], server: Server) -> dict[str, Any]:
    """Return our own document."""
    schemas = document["components"]["schemas"]
    schemas["ChatBody"]["properties"]["model"] = CHAT_MODEL
    schemas["EmbeddingBody"]["properties"]["model"] = {"type": "string", "enum": [server.embedder]}
    return document


def keep_streams(document: dict[str, Any]) -> dict[str, Any]:
    """Return the streamed chat alone, with plain messages; each event is JSON in `data`, the last is `[DONE]`."""
    part = _part_with_messages(document)
    part["properties"] |= {"stream": {"enum": [True]}, "messages": PLAIN_MESSAGES}
    part["required"] = sorted({*part.get("required", []), "stream"})
    post = document["paths"][CHAT]["post"]
    content = post["responses"]["200"]["content"]
    chunk = {"contentMediaType": "application/json", "contentSchema": content["text/event-stream"]["schema"]}
    event = {
        "type": "object",
        "properties": {"data": {"anyOf": [{"const": "[DONE]"}, chunk]}},
        "required": ["data"],
    }
    content["text/event-stream"]["schema"] = event
    document["paths"] = {CHAT: {"post": post}}
    return document


def _part_with_messages(document: dict[str, Any]) -> dict[str, Any]:
    """Return the schema, or the part of one put together, that declares a chat request's own properties."""
    schemas = document["components"]["schemas"]
    body: dict[str, Any] = schemas["ChatBody" if "ChatBody" in schemas else "CreateChatCompletionRequest"]
    parts: list[dict[str, Any]] = body.get("allOf", [body])
    return next(part for part in parts if "messages" in part.get("properties", {}))
