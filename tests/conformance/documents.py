"""API descriptions made sharp for fuzzing: model names that exist, so that answers are looked at and not only refusals.

A fuzzer fills a free string with anything, and then nearly every answer is 404; and it asks for a stream so rarely that
none comes about. So each document gets the streamed chat as an operation of its own, under the path without `/v1`,
which the server has too (OAI-31). Nothing else is changed, apart from what is said at each function. Called by
`suites.py`.
"""

from __future__ import annotations

import copy
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
STREAMED: Final = "/chat/completions"
CHAT_MODEL: Final = {"type": "string", "enum": ["asi1"]}
ROLES: Final = ["system", "developer", "user", "assistant", "tool"]


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
    for part in schemas["CreateChatCompletionRequest"]["allOf"]:
        if "model" in part.get("properties", {}):
            part["properties"]["model"] = CHAT_MODEL
    schemas["CreateEmbeddingRequest"]["properties"]["model"] = {"type": "string", "enum": [server.embedder]}
    vector = schemas["Embedding"]["properties"]["embedding"]
    schemas["Embedding"]["properties"]["embedding"] = {"anyOf": [vector, {"type": "string"}]}
    paths = document["paths"]
    document["paths"] = {f"/v1{path}": {one: paths[path][one] for one in methods} for path, methods in SERVED.items()}
    shown = document["paths"]["/v1/models/{model}"]["get"]["parameters"][0]
    shown["schema"] = {"type": "string", "enum": ["asi1", "no-such-model"]}
    _add_streamed(document, "CreateChatCompletionRequest")
    return document


def sharpen_own(document: dict[str, Any], server: Server) -> dict[str, Any]:
    """Return our own document; the roles, which it names in words, are an enumeration too."""
    schemas = document["components"]["schemas"]
    schemas["ChatBody"]["properties"]["model"] = CHAT_MODEL
    schemas["EmbeddingBody"]["properties"]["model"] = {"type": "string", "enum": [server.embedder]}
    schemas["WireMessage"]["properties"]["role"] = {"type": "string", "enum": ROLES}
    _add_streamed(document, "ChatBody")
    return document


def _add_streamed(document: dict[str, Any], request: str) -> None:
    """Add the streamed chat: `stream` is true and the messages are plain, so that most requests get a stream."""
    schemas = document["components"]["schemas"]
    body = copy.deepcopy(schemas[request])
    part = next(part for part in body.get("allOf", [body]) if "messages" in part.get("properties", {}))
    message = {
        "type": "object",
        "properties": {"role": {"enum": ["system", "user"]}, "content": {"type": "string", "minLength": 1}},
        "required": ["role", "content"],
        "additionalProperties": False,
    }
    part["properties"]["messages"] = {"type": "array", "items": message, "minItems": 1, "maxItems": 3}
    part["properties"]["stream"] = {"enum": [True]}
    part["required"] = sorted({*part.get("required", []), "messages", "stream"})
    schemas["StreamedRequest"] = body
    post = copy.deepcopy(document["paths"][CHAT]["post"])
    post["operationId"] = "streamed"
    post["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/StreamedRequest"}}},
    }
    document["paths"][STREAMED] = {"post": post}
