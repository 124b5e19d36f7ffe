"""API descriptions made sharp for fuzzing, so that answers are looked at and not only refusals.

A fuzzer fills a free string with anything: nearly every model name is then unknown, and a stream so rarely asked for
that none comes about. So the documents get names that exist, and each has a variant that holds the streams alone.
Nothing else is changed, apart from what is said at each function. Called by `suites.py`.
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
RUN: Final = "/v1/runs/{run}"
STREAM: Final = "text/event-stream"
IDEMPOTENCY: Final = {"$ref": "#/components/parameters/idempotency"}
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

    Three things in it contradict what it says itself, each proved in `docs/conformance.md`. Its embeddings are arrays
    only, though its own `encoding_format` promises base64: a string is allowed too. What tells the kinds of an object
    apart gets the values that the kinds themselves demand (`name_kinds`). And what it says of a chunk is said of what
    the events of a stream hold, not of the events (`event_of`).
    """
    schemas = document["components"]["schemas"]
    _part_with_messages(document)["properties"]["model"] = CHAT_MODEL
    schemas["CreateEmbeddingRequest"]["properties"]["model"] = {"type": "string", "enum": [server.embedder]}
    vector = schemas["Embedding"]["properties"]["embedding"]
    schemas["Embedding"]["properties"]["embedding"] = {"anyOf": [vector, {"type": "string"}]}
    paths = document["paths"]
    document["paths"] = {f"/v1{path}": {one: paths[path][one] for one in methods} for path, methods in SERVED.items()}
    _allow(document["paths"]["/v1/models/{model}"]["get"], "model", "asi1", "no-such-model")
    stream = document["paths"][CHAT]["post"]["responses"]["200"]["content"][STREAM]
    stream["schema"] = event_of(stream["schema"])
    name_kinds(document, schemas)
    return document


def sharpen_own(document: dict[str, Any], server: Server, run: str, spare_key: str) -> dict[str, Any]:
    """Return our own document with a `run` that has ended and a `spare_key`, the ids of both.

    Without `Idempotency-Key`: the fuzzer sends the same one with ever other bodies, and all but the first are refused.
    And with no other key to change than the spare one, or it revokes its own and is refused from then on.
    """
    schemas = document["components"]["schemas"]
    schemas["ChatBody"]["properties"]["model"] = CHAT_MODEL
    schemas["EmbeddingBody"]["properties"]["model"] = {"type": "string", "enum": [server.embedder]}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            parameters = operation.get("parameters", [])
            operation["parameters"] = [one for one in parameters if one != IDEMPOTENCY]
            if path.startswith(RUN):
                _allow(operation, "run", run, "no-such-run")
            if path.startswith("/v1/keys/{key}"):
                _allow(operation, "key", spare_key, "no-such-key")
    return document


def keep_streams(document: dict[str, Any]) -> dict[str, Any]:
    """Return the streams alone: the chat with plain messages, and in our own document also that of a run."""
    part = _part_with_messages(document)
    part["properties"] |= {"stream": {"enum": [True]}, "messages": PLAIN_MESSAGES}
    part["required"] = sorted({*part.get("required", []), "stream"})
    kept = {CHAT: {"post": document["paths"][CHAT]["post"]}}
    if RUN in document["paths"]:
        show = document["paths"][RUN]["get"]
        _allow(show, "stream", "true")["required"] = True
        kept[RUN] = {"get": show}
    document["paths"] = kept
    return document


def _allow(operation: dict[str, Any], name: str, *values: str) -> dict[str, Any]:
    """Let a parameter of an operation have these values only, and return it."""
    parameter: dict[str, Any] = next(one for one in operation["parameters"] if one.get("name") == name)
    parameter["schema"] = {"type": "string", "enum": list(values)}
    return parameter


def event_of(chunk: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one event of a stream whose data is a chunk as JSON, and at the end `[DONE]`."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": chunk}
    return {
        "type": "object",
        "properties": {"data": {"anyOf": [data, {"const": "[DONE]"}]}},
        "required": ["data"],
    }


def name_kinds(node: object, schemas: dict[str, Any]) -> None:
    """Give every discriminator without a mapping the values that the schemas it chooses from demand themselves.

    OpenAPI reads one without a mapping as the schemas' names, so that `"type": "function"` would name none of
    `ChatCompletionMessageToolCall` and `ChatCompletionMessageCustomToolCall`, though the first allows nothing else.
    """
    if isinstance(node, list):
        for inner in node:
            name_kinds(inner, schemas)
    if not isinstance(node, dict):
        return
    for inner in node.values():
        name_kinds(inner, schemas)
    told = node.get("discriminator")
    if not isinstance(told, dict) or "propertyName" not in told or "mapping" in told:
        return
    mapping: dict[str, str] = {}
    for reference in (one.get("$ref", "") for one in (*node.get("oneOf", ()), *node.get("anyOf", ()))):
        kind = schemas.get(reference.rpartition("/")[2], {})
        values = kind.get("properties", {}).get(told["propertyName"], {}).get("enum", ())
        mapping |= dict.fromkeys(values, reference)
    if mapping:
        told["mapping"] = mapping


def _part_with_messages(document: dict[str, Any]) -> dict[str, Any]:
    """Return the schema, or the part of one put together, that declares a chat request's own properties."""
    schemas = document["components"]["schemas"]
    body: dict[str, Any] = schemas["ChatBody" if "ChatBody" in schemas else "CreateChatCompletionRequest"]
    parts: list[dict[str, Any]] = body.get("allOf", [body])
    return next(part for part in parts if "messages" in part.get("properties", {}))
