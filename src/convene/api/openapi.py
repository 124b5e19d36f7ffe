"""The OpenAPI 3.1 description of the API, from the route table and the wire shapes. Pure: a table in, a document out.

Shapes come from msgspec, meanings from `openapi_words.py`. `docs.py` serves the document, `convene openapi` prints it,
and a test keeps the checked-in copy, `docs/openapi.json`, equal to it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

import convene
from convene.api import (
    shapes,
    shapes_accounts,
    shapes_agents,
    shapes_described,
    shapes_images,
    shapes_runs,
    shapes_tools,
    shapes_usage,
)
from convene.api.openapi_words import ABOUT, FIELDS, HEADERS, IDEMPOTENCY_HEADER, SESSION_HEADER, STATUSES, TAGS
from convene.api.shapes import ChatReply, ErrorReply
from convene.api.table import Endpoints, route_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from convene.api.call import Call
    from convene.api.query import Parameter
    from convene.api.routes import Route

Json = dict[str, Any]
SCHEMAS: Final = "#/components/schemas/"
REQUIREMENTS: Final = re.compile(r"\s*\((?:[A-Z]+-\d+|decisions|MODEL)[^)]*\)")
"""Our own references in docstrings say nothing to readers of the description."""

ANYTHING: Final = {"$comment": "any JSON value"}
"""msgspec takes no empty schema for a type, so this stands for one until `_plain` empties it."""

FRAMES: Final = (
    "One event: `data: ` and a ChatChunk, then an empty line; the last one is `data: [DONE]`. A fault in mid-stream is "
    "a StreamFault. Lines that begin with a colon keep the connection alive."
)
PICTURES: Final = (
    "One event: `event: ` and `data: `, then an empty line; one for each picture when it is finished, or one "
    "PictureFault. Lines that begin with a colon are comments; `: progress 3/20` says how far the work is."
)
DONE: Final[Json] = {"const": "[DONE]"}
EVENT_ID: Final[Json] = {
    "type": "string",
    "pattern": "^[0-9]+$",
    "description": "Where a reader may go on who comes back: `after` or `Last-Event-ID`. Only some events have one.",
}
EVENT_NAME: Final[Json] = {"type": "string", "description": "The `type` of what is in `data`."}
EVERYWHERE: Final = (405, 408, 414, 431, 500)
WITH_KEY: Final = (401, 403)
WITH_BODY: Final = (400, 413, 415)
WITH_QUERY: Final = (400, 503)
SHAPES: Final = (
    *(shapes_images, shapes_described, shapes_accounts, shapes_usage, shapes_tools, shapes_runs, shapes_agents),
    shapes,
)
"""Where the types of replies are, the descriptions of frames before what they are made of."""
MODEL_TAGS: Final = frozenset({"Chat", "Embeddings", "Images"})
OF_MODELS: Final = (404, 429, 502, 503, 504)


def describe(routes: Sequence[Route], version: str) -> Json:
    """Return the OpenAPI document of every described route.

    Args:
        routes: the route table; rows with `described=False` are left out.
        version: of the server, for `info.version`.
    """
    described = [route for route in routes if route.described]
    paths: dict[str, Json] = {}
    for route in described:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    tags = dict.fromkeys(route.tag for route in described)
    words = dict(TAGS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Convene",
            "version": version,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This server"}],
        "security": [{"key": []}],
        "tags": [{"name": tag, "description": words.get(tag, tag)} for tag in tags],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}},
            "headers": {name: _header(text) for name, text in HEADERS},
            "parameters": {"session": _session(), "idempotency": _idempotency()},
            "responses": {str(status): _error(status, text) for status, text in STATUSES},
            "schemas": _schemas(described),
        },
    }


def encode(document: Json) -> bytes:
    """Return a document as JSON, indented, with a newline at its end: the same bytes for the same document."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def document() -> bytes:
    """Return the description of this version's API, for `convene openapi`; needs no running server."""
    endpoints = Endpoints(**dict.fromkeys(Endpoints.__struct_fields__, _nobody))
    return encode(describe(route_table(endpoints), convene.__version__))


async def _nobody(call: Call) -> None:
    """Stand where an endpoint would: a description calls none."""
    raise AssertionError(f"{call.path} was only to be described")


def operation_id(route: Route) -> str:
    """Return a name for generated clients: `post_chat_completions`."""
    words = re.findall(r"[a-z0-9]+", route.path.removeprefix("/v1").lower())
    return "_".join([route.method.lower(), *words])


def _operation(route: Route) -> Json:
    told: Json = {"operationId": operation_id(route), "tags": [route.tag], "summary": route.summary}
    parameters = [_path_parameter(name, route.path) for name in re.findall(r"{(\w+)}", route.path)]
    parameters += [_query_parameter(one) for one in route.query]
    if route.streams and route.takes is not None:
        parameters.append({"$ref": "#/components/parameters/session"})
    if route.repeatable:
        parameters.append({"$ref": "#/components/parameters/idempotency"})
    if parameters:
        told["parameters"] = parameters
    if route.takes is not None:
        told["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(route.takes.__name__)}}
            | (_form(route) if route.form else {}),
        }
    if route.open:
        told["security"] = []
    told["responses"] = _responses(route)
    return told


def _form(route: Route) -> Json:
    """Return the body as a form: the same fields, and pictures as files."""
    file = {"type": "string", "contentMediaType": "image/png"}
    files: Json = {"image": {"oneOf": [file, {"type": "array", "items": file}]}, "mask": file}
    schema = {"allOf": [_ref("" if route.takes is None else route.takes.__name__)], "properties": files}
    return {"multipart/form-data": {"schema": schema}}


def _responses(route: Route) -> Json:
    gives = "Status" if route.gives is None else route.gives.__name__
    schema = _ref(gives)
    if route.or_gives is not None:
        schema = {"oneOf": [schema, _ref(route.or_gives.__name__)]}
    content: Json = {"application/json": {"schema": schema}} | _frames(route)
    answers: Json = {"200": {"description": "Success", "headers": _headers("x-request-id"), "content": content}}
    statuses = set(EVERYWHERE)
    if not route.open:
        statuses |= set(WITH_KEY)
    if route.takes is not None:
        statuses |= {*WITH_BODY, *(OF_MODELS if route.tag in MODEL_TAGS else ())}
    if route.query:
        statuses |= set(WITH_QUERY)
    if not route.open:
        statuses.add(503)
    if route.may_miss:
        statuses.add(404)
    if route.refuses:
        statuses.add(400)
    for status in sorted(statuses):
        answers[str(status)] = {"$ref": f"#/components/responses/{status}"}
    if route.gives is None and route.path.endswith("readyz"):
        answers["503"] = {"description": "Not ready", "headers": _headers("x-request-id"), "content": content}
    return answers


def _frames(route: Route) -> Json:
    """Return what one event of an answer that streams is, where the route can stream.

    OpenAPI 3.1 does not say how a schema is held against a stream of events. This follows what 3.2 says of each item:
    an event is an object of its fields, `data` a text, and what that text is as JSON stands in its `contentSchema`.
    """
    if route.frames is not None:
        schema = _event(PICTURES, _json_text(route.frames.__name__, "PictureFault"), event=EVENT_NAME)
    elif route.streams:
        numbered = {"id": EVENT_ID} if route.takes is None else {}  # a stream that was asked for before: a run's
        schema = _event(FRAMES, {"anyOf": [_json_text("ChatChunk", "StreamFault"), DONE]}, **numbered)
    else:
        return {}
    return {"text/event-stream": {"schema": schema}}


def _event(text: str, data: Json, **more: Json) -> Json:
    return {"description": text, "type": "object", "properties": {"data": data, **more}, "required": ["data"]}


def _json_text(*names: str) -> Json:
    """Return the schema of a text that is JSON of one of these shapes."""
    content = {"oneOf": [_ref(name) for name in names]}
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": content}


def _error(status: int, text: str) -> Json:
    names = ["x-request-id"]
    if status in {429, 503}:
        names.append("retry-after")
    if status == 405:  # noqa: PLR2004 -- the status that names the methods
        names.append("allow")
    return {
        "description": text,
        "headers": _headers(*names),
        "content": {"application/json": {"schema": _ref("ErrorReply")}},
    }


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _header(text: str) -> Json:
    return {"description": text, "schema": {"type": "string"}}


def _session() -> Json:
    return {"name": "x-session-id", "in": "header", "description": SESSION_HEADER, "schema": {"type": "string"}}


def _idempotency() -> Json:
    shape = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
    return {"name": "Idempotency-Key", "in": "header", "description": IDEMPOTENCY_HEADER, "schema": shape}


def _path_parameter(name: str, path: str) -> Json:
    more = "; slashes and colons may stand in it as they are" if path.endswith(f"{{{name}}}") else ""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": f"The {name}'s id{more}.",
        "schema": {"type": "string"},
    }


def _query_parameter(parameter: Parameter) -> Json:
    schema: Json = {"type": "string"}
    if parameter.enum:
        schema["enum"] = list(parameter.enum)
    if parameter.is_list:
        schema = {"type": "array", "items": schema}
    elif parameter.least is not None:
        schema = {"type": "integer", "minimum": parameter.least, "maximum": parameter.most}
    told: Json = {"name": parameter.name, "in": "query", "description": parameter.about, "schema": schema}
    return told | ({"style": "form", "explode": False} if parameter.is_list else {})


def _ref(name: str) -> Json:
    return {"$ref": f"{SCHEMAS}{name}"}


def _schemas(routes: Sequence[Route]) -> dict[str, Json]:
    """Return every shape that the routes name, and what those are made of, with the words for their fields."""
    takes = [route.takes for route in routes if route.takes is not None]
    gives: list[type] = [ErrorReply]
    for route in routes:
        gives.append(shapes_described.Status if route.gives is None else route.gives)
        if route.or_gives is not None:
            gives.append(route.or_gives)
        if route.streams:
            gives += [shapes_described.ChatChunk, shapes_described.StreamFault]
        if route.frames is not None:
            gives += [route.frames, shapes_images.PictureFault]
        if route.gives is ChatReply:
            gives += [shapes_described.ExecutedTool, shapes_described.Step]
    requests = _components(takes)
    schemas = _components([*takes, *gives])
    for name, schema in schemas.items():
        _tell(name, schema, always=() if name in requests else _always(name))
    if "ChatReply" in schemas:
        extras = schemas["ChatReply"]["properties"]
        extras["executable_data"]["items"] = _ref("ExecutedTool")
        extras["intermediate_steps"]["items"] = _ref("Step")
    if "EmbeddingBody" in schemas:
        given = schemas["EmbeddingBody"]["properties"]["input"]
        one, many = given["anyOf"]
        # the server refuses mixtures, which the shape's one list type cannot say
        given["anyOf"] = [one, *(dict(many, items=kind) for kind in many["items"]["anyOf"])]
    return dict(sorted(schemas.items()))


def _components(kinds: Iterable[type]) -> dict[str, Json]:
    template = SCHEMAS + "{name}"
    unique = tuple(dict.fromkeys(kinds))
    _, schemas = msgspec.json.schema_components(unique, schema_hook=_anything, ref_template=template)
    plain: dict[str, Json] = _plain(schemas)
    return plain


def _always(name: str) -> tuple[str, ...]:
    """Return the fields of a reply's shape that are always sent: all that cannot be unset, defaults or not."""
    shape = next(found for module in SHAPES if (found := getattr(module, name, None)) is not None)
    return tuple(field.encode_name for field in msgspec.structs.fields(shape) if field.default is not msgspec.UNSET)


def _anything(kind: type) -> Json:
    """Return the schema of `object`: any JSON value. Raises `TypeError` for every other unknown type."""
    if kind is object:
        return dict(ANYTHING)
    raise TypeError(kind)


def _plain(value: Any) -> Any:  # noqa: ANN401 -- any JSON value in, the same out
    """Return a schema with `ANYTHING` as the empty schema, which says the same in fewer words."""
    if isinstance(value, dict):
        return {} if value == ANYTHING else {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _tell(name: str, schema: Json, always: tuple[str, ...]) -> None:
    """Add our words to a schema and take out what only we understand."""
    schema.pop("title", None)
    if always:
        schema["required"] = list(always)
    if "description" in schema:
        schema["description"] = " ".join(REQUIREMENTS.sub("", schema["description"]).split())
    for field, inner in schema.get("properties", {}).items():
        if always or inner.get("default", ...) is None:
            inner.pop("default", None)  # null is the same as absent in a request, and replies leave nothing out
        text = FIELDS.get(f"{name}.{field}")
        if text is not None:
            inner["description"] = text
