"""Every refusal has OpenAI's one shape, the right status and the right exception class of the official client."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any

import openai
import pytest

from convene import errors
from convene.config import Edge, Model, Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

    from api.conftest import Serve, Served

HELLO: Any = [{"role": "user", "content": "hello"}]


def check_shape(answer: httpx2.Response) -> dict[str, Any]:
    """Return the error object after a check of its form."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert set(body) == {"error", "message"}
    found: dict[str, Any] = body["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert found["message"] == body["message"] != ""
    assert isinstance(found["code"], str)
    assert found["type"] in {
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "rate_limit_error",
        "insufficient_quota",
        "server_error",
    }
    return found


BAD_JSON = {
    "empty": b"",
    "blank": b"   ",
    "NaN": b'{"model": NaN}',
    "Infinity": b'{"temperature": Infinity}',
    "huge exponent": b'{"temperature": 1e999}',
    "lone surrogate": b'{"model": "\\ud800"}',
    "byte order mark": b'\xef\xbb\xbf{"model": "x"}',
    "UTF-16": '{"model": "x"}'.encode("utf-16"),
    "broken UTF-8": b'{"model": "\xff\xfe"}',
    "cut": b'{"model": "x", "messages": [',
    "trailing": b'{"model": "x"} {"model": "y"}',
    "single quotes": b"{'model': 'x'}",
    "comment": b'{"model": "x" /* hm */}',
    "raw control": b'{"model": "a\nb"}',
    "array": b"[]",
    "string": b'"hello"',
    "number": b"1",
    "null": b"null",
    "deep arrays": b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "form": b"model=x&messages=y",
}


@pytest.mark.parametrize("name", BAD_JSON)
@pytest.mark.req("ERR-01", "ERRSHAPE-01", "ERRSHAPE-02", "ERRSHAPE-03", "ERRSHAPE-04", "ERR-08", "DEC-10", "OAI-30")
async def test_a_body_that_is_no_json_object_is_a_400(served: Served, name: str) -> None:
    answer = await served.http.post("/v1/chat/completions", content=BAD_JSON[name], headers=served.auth)
    assert answer.status_code == 400
    assert check_shape(answer)["code"] == "invalid_json"


@pytest.mark.parametrize("depth", [200, 400, 600, 700, 750, 800, 850, 900, 920, 940, 960, 980, 1000, 2000, 5000])
@pytest.mark.parametrize("place", ["extra", "schema", "parameters"])
@pytest.mark.req("OAI-30")
async def test_deep_nesting_anywhere_is_never_a_fault_of_the_server(served: Served, depth: int, place: str) -> None:
    deep = '{"a":' * depth + "1" + "}" * depth
    field = {
        "extra": f'"unknown": {deep}',
        "schema": f'"response_format": {{"type": "json_schema", "json_schema": {{"name": "x", "schema": {deep}}}}}',
        "parameters": f'"tools": [{{"type": "function", "function": {{"name": "f", "parameters": {deep}}}}}]',
    }[place]
    body = f'{{"model": "scripted-tools", "messages": [{{"role": "user", "content": "x"}}], {field}}}'
    answer = await served.http.post("/v1/chat/completions", content=body.encode(), headers=served.auth)
    assert answer.status_code in {200, 400}, answer.text


ODD_BUT_FINE = {
    "duplicate keys": b'{"model": "x", "model": "scripted-echo", "messages": [{"role": "user", "content": "hi"}]}',
    "escaped zero": b'{"model": "scripted-echo", "messages": [{"role": "user", "content": "a\\u0000b"}]}',
    "huge integer elsewhere": b'{"model": "scripted-echo", "messages": [{"role": "user", "content": "x"}], "x": 1'
    + b"0" * 400
    + b"}",
    "white space": b'\r\n\t {"model": "scripted-echo", "messages": [{"role": "user", "content": "x"}]} \n',
}


@pytest.mark.parametrize("name", ODD_BUT_FINE)
@pytest.mark.req("OAI-30")
async def test_odd_but_valid_json_is_answered(served: Served, name: str) -> None:
    answer = await served.http.post("/v1/chat/completions", content=ODD_BUT_FINE[name], headers=served.auth)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "invalid_type"),
        ({"model": 17}, "model", "invalid_type"),
        ({"model": ["secret-model-name"]}, "model", "invalid_type"),
        ({"model": ""}, "model", "invalid_value"),
        ({"model": "x" * 257}, "model", "invalid_value"),
        ({"messages": None}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", None),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type", None),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].image_url",
            None,
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "file:///etc/passwd"}]}]},
            "messages[0].content[0].image_url",
            "invalid_value",
        ),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": "warm"}, "temperature", "invalid_type"),
        ({"top_p": 1.5}, "top_p", "invalid_value"),
        ({"frequency_penalty": -2.5}, "frequency_penalty", "invalid_value"),
        ({"presence_penalty": 3}, "presence_penalty", "invalid_value"),
        ({"max_tokens": -1}, "max_tokens", "invalid_value"),
        ({"max_tokens": "many"}, "max_tokens", "invalid_type"),
        ({"max_completion_tokens": -1}, "max_completion_tokens", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 129}, "n", "invalid_value"),
        ({"seed": 2**70}, "seed", None),
        ({"seed": 1.5}, "seed", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"logit_bias": {"1": 101}}, None, "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
            "missing_required_parameter",
        ),
        ({"reasoning_effort": "extreme"}, "reasoning_effort", "invalid_value"),
        ({"stop": [1]}, "stop[0]", "invalid_type"),
        ({"user": 5}, "user", "invalid_type"),
        ({"messages": [{"role": "user", "content": "x"}] * 2 + [{"role": "tool"}]}, "messages[2].tool_call_id", None),
    ],
)
@pytest.mark.req(
    "ERR-01",
    "ERRSHAPE-03",
    "ERRSHAPE-05",
    "ERRSHAPE-06",
    "OAI-30",
    "CHAT-04",
    "CHAT-09",
    "CHAT-10",
    "CHAT-11",
    "DEC-15",
)
async def test_a_wrong_value_is_a_400_that_names_the_field(
    served: Served, fields: dict[str, Any], param: str | None, code: str | None
) -> None:
    answer = await served.chat(**fields)
    assert answer.status_code == 400, answer.text
    found = check_shape(answer)
    if param is not None:
        assert found["param"] == param
    if code is not None:
        assert found["code"] == code
    assert found["type"] == "invalid_request_error"
    assert "secret-model-name" not in answer.text


@pytest.mark.parametrize("missing", ["model", "messages"])
@pytest.mark.req("ERRSHAPE-05", "ERRSHAPE-06", "CHAT-01", "CHAT-02", "OAI-30")
async def test_an_absent_key_is_a_400_that_names_it(served: Served, missing: str) -> None:
    body = {"model": "scripted-echo", "messages": HELLO}
    del body[missing]
    answer = await served.http.post("/v1/chat/completions", json=body, headers=served.auth)
    found = check_shape(answer)
    assert (answer.status_code, found["param"], found["code"]) == (400, missing, "missing_required_parameter")


@pytest.mark.parametrize("model", ["nope", "asi1-preview", "asi1-turbo", "agent1qabc", "a/b:c", "\u0000"])
@pytest.mark.req("ERR-02", "MODEL-06", "ERRSHAPE-05")
async def test_an_unknown_model_is_a_404_model_not_found(served: Served, model: str) -> None:
    answer = await served.chat(model=model)
    found = check_shape(answer)
    assert (answer.status_code, found["code"], found["param"]) == (404, "model_not_found", "model")


@pytest.mark.parametrize("path", ["/v1/nothing", "/nothing", "/v1", "/v2/chat/completions", "/v1/models/nope/", "/%00"])
@pytest.mark.req("ERR-02", "ERRSHAPE-02", "ERRSHAPE-05")
async def test_an_unknown_path_is_a_404_in_the_error_shape(served: Served, path: str) -> None:
    answer = await served.http.get(path, headers=served.auth)
    if path == "/v1":  # a pointer to the docs may stand here (OAI-32)
        return
    assert answer.status_code == 404
    assert check_shape(answer)["code"] == ("model_not_found" if "models" in path else "unknown_url")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/embeddings", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/models/a/b", "GET, HEAD"),
        ("PUT", "/v1/chat/completions", "POST"),
        ("PATCH", "/embeddings", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("OPTIONS", "/v1/models", "GET, HEAD"),
    ],
)
@pytest.mark.req("ERRSHAPE-02")
async def test_a_wrong_method_is_a_405_with_allow(served: Served, method: str, path: str, allow: str) -> None:
    answer = await served.http.request(method, path, headers=served.auth)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allow
    assert check_shape(answer)["code"] == "method_not_allowed"


@pytest.mark.req("ERR-04", "ERRSHAPE-05", "HDR-01")
async def test_a_missing_or_wrong_key_is_a_401(served: Served) -> None:
    wrong: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer sk_" + "0" * 64},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": served.key},
        {"Authorization": f"Bearer {served.key}x"},
        {"Authorization": "Bearer \xff\xfe"},
    ]
    for headers in wrong:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        answer = await served.http.get("/v1/models", headers=raw)
        assert answer.status_code == 401, headers
        assert check_shape(answer)["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert served.key not in answer.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
@pytest.mark.req("HDR-02")
async def test_the_scheme_word_is_read_in_any_case(served: Served, scheme: str) -> None:
    answer = await served.http.get("/v1/models", headers={"Authorization": f"{scheme} {served.key}"})
    assert answer.status_code == 200


@pytest.mark.req("OAI-29", "ERR-07", "ERRSHAPE-02")
async def test_an_oversized_body_is_a_413_that_states_the_limit(serve: Serve) -> None:
    async with serve(edge=Edge(body_bytes_max=2000)) as one:
        for content, headers in (
            (b" " * 2001, {}),
            (chunked(b" " * 500, 5), {}),
            (gzip.compress(b" " * 10_000_000), {"Content-Encoding": "gzip"}),
        ):
            answer = await one.http.post("/v1/chat/completions", content=content, headers=one.auth | headers)
            found = check_shape(answer)
            assert (answer.status_code, found["code"]) == (413, "request_too_large")
            assert "2000" in found["message"]
        exact = b'{"model": "scripted-echo", "messages": [{"role": "user", "content": "x"}]}'.ljust(2000)
        answer = await one.http.post("/v1/chat/completions", content=exact, headers=one.auth)
        assert answer.status_code == 200


async def chunked(piece: bytes, times: int) -> AsyncIterator[bytes]:
    """Yield a body piece by piece."""
    for _ in range(times):
        yield piece


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("br", b"{}", 415),
        ("zstd", b"{}", 415),
        ("gzip, gzip", b"{}", 415),
        ("gzip", b"no gzip at all", 400),
        ("gzip", gzip.compress(b'{"model": "x"}')[:-9], 400),
        ("gzip", gzip.compress(b'{"model": "x"}') + b"rest", 400),
        ("gzip", b"", 400),
        ("deflate", zlib.compress(b"{}")[:-1], 400),
    ],
)
@pytest.mark.req("ERRSHAPE-02")
async def test_an_encoding_that_is_not_read_is_a_415_and_a_broken_one_a_400(
    served: Served, encoding: str, body: bytes, status: int
) -> None:
    headers = served.auth | {"Content-Encoding": encoding}
    answer = await served.http.post("/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == status
    assert check_shape(answer)["code"] == ("unsupported_media_type" if status == 415 else "invalid_encoding")


class Broken:
    """A use case that fails with whatever it is given."""

    def __init__(self, fault: Exception) -> None:
        self.fault = fault

    def start(self, request: object, principal: object, request_id: str) -> object:
        """Fail."""
        del request, principal, request_id
        raise self.fault


def break_chat(served: Served, fault: Exception) -> None:
    """Make every chat of this application fail."""
    route, _ = served.app.front._router.find("POST", "/v1/chat/completions")
    idempotent: Any = route.endpoint  # a bound method, around another
    idempotent.__self__._endpoint.__self__._turns = Broken(fault)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.req("ERR-03", "ERR-09", "ERRSHAPE-02", "OSDK-07")
async def test_a_fault_of_our_own_is_a_500_that_tells_nothing_but_where_to_look(
    served: Served, caplog: pytest.LogCaptureFixture, *, stream: bool
) -> None:
    break_chat(served, RuntimeError("the password is hunter2"))
    answer = await served.chat(stream=stream)
    found = check_shape(answer)
    assert (answer.status_code, found["code"], found["type"]) == (500, "internal_error", "server_error")
    assert "hunter2" not in answer.text
    assert answer.headers["x-request-id"] in found["message"]
    assert any(record.exc_info and "hunter2" in str(record.exc_info[1]) for record in caplog.records)


CLASSES: list[tuple[Exception, int, type[openai.APIStatusError]]] = [
    (errors.BadRequest("x"), 400, openai.BadRequestError),
    (errors.Unauthorized("x"), 401, openai.AuthenticationError),
    (errors.Forbidden("x"), 403, openai.PermissionDeniedError),
    (errors.NotFound("x"), 404, openai.NotFoundError),
    (errors.Conflict("x"), 409, openai.ConflictError),
    (errors.TooLarge("x"), 413, openai.APIStatusError),
    (errors.RateLimited("x", retry_after_s=1.5), 429, openai.RateLimitError),
    (errors.OverBudget("x"), 429, openai.RateLimitError),
    (errors.Busy("x"), 503, openai.InternalServerError),
    (errors.Unavailable("x"), 503, openai.InternalServerError),
    (errors.TimedOut("x"), 504, openai.InternalServerError),
    (errors.Rejected("x"), 502, openai.InternalServerError),
    (errors.Malformed("x"), 502, openai.InternalServerError),
    (RuntimeError("x"), 500, openai.InternalServerError),
]


@pytest.mark.parametrize(("fault", "status", "kind"), CLASSES)
@pytest.mark.req("ERRSHAPE-08", "OSDK-01", "OSDK-04", "LIMIT-06", "ERR-07")
async def test_each_status_reaches_the_right_class_of_the_official_client(
    served: Served, fault: Exception, status: int, kind: type[openai.APIStatusError]
) -> None:
    break_chat(served, fault)
    with pytest.raises(kind) as caught:
        await served.sdk.chat.completions.create(model="m", messages=HELLO)
    assert caught.value.status_code == status
    assert caught.value.request_id
    assert caught.value.code


@pytest.mark.req("ERR-01", "CHAT-28")
async def test_a_picture_for_a_model_without_sight_is_a_400_that_says_so(serve: Serve) -> None:
    models = {"blind": Model(upstream=("up",), vision=False)}
    async with serve(models=models, upstreams={"up": Upstream(base_url="http://127.0.0.1:9")}) as one:
        content = [{"type": "image_url", "image_url": {"url": "https://a.test/x.png"}}]
        answer = await one.chat(model="blind", messages=[{"role": "user", "content": content}])
    found = check_shape(answer)
    assert (answer.status_code, found["code"]) == (400, "unsupported_content")
    assert found["param"] == "messages[0].content[0]"
    assert "image_url" in found["message"]
