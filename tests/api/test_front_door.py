"""What every request meets: ids, keys, paths, browsers, the guard of a server without keys, probes and models."""

from __future__ import annotations

import asyncio
import base64
import re
import struct
from typing import TYPE_CHECKING, Any

import pytest

from convene.config import Model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from api.conftest import Serve, Served

HELLO: Any = [{"role": "user", "content": "hello"}]
PAGE = "https://page.test"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/models"), ("GET", "/nothing"), ("GET", "/health"), ("PUT", "/v1/models"), ("POST", "/v1/embeddings")],
)
@pytest.mark.req("OSDK-07")
async def test_every_answer_carries_a_request_id_of_its_own(served: Served, method: str, path: str) -> None:
    ids = {(await served.http.request(method, path, headers=served.auth)).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch(r"req_[0-9a-f]{24}", request_id) for request_id in ids)


@pytest.mark.parametrize("given", ["abc-123", "01HZX:a/b+c=@d_.", "x" * 128])
@pytest.mark.req("OSDK-07")
async def test_a_sane_request_id_is_kept(served: Served, given: str) -> None:
    answer = await served.http.get("/health", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", " ", "x" * 129, "a b", 'a"b', "<script>", "\xe9", "a{b}"])
@pytest.mark.req("OSDK-07")
async def test_an_odd_request_id_is_replaced(served: Served, given: str) -> None:
    answer = await served.http.get("/health", headers=[(b"x-request-id", given.encode("latin-1"))])
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.req("ERR-04")
async def test_the_key_is_checked_before_the_body_is_read(served: Served) -> None:
    asked = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        asked.set()
        await asyncio.Event().wait()
        yield b""

    async with asyncio.timeout(60):
        answer = await served.http.post(
            "/v1/chat/completions", content=endless(), headers={"Authorization": "Bearer x"}
        )
    assert answer.status_code == 401
    assert not asked.is_set()


@pytest.mark.parametrize(
    "path", ["/models", "/v1/models/", "//v1//models", "/v1/models//", "//models", "/v1//models/scripted-echo"]
)
@pytest.mark.req("OAI-31")
async def test_paths_work_without_v1_and_with_doubled_slashes(served: Served, path: str) -> None:
    assert (await served.http.get(f"http://convene.test{path}", headers=served.auth)).status_code == 200


@pytest.mark.req("OAI-31", "CLIENT-06")
async def test_chat_works_at_each_spelling_of_its_path(served: Served) -> None:
    body = {"model": "scripted-echo", "messages": HELLO}
    for path in ("/chat/completions", "/v1//chat/completions", "/v1/chat/completions/"):
        answer = await served.http.post(f"http://convene.test{path}", json=body, headers=served.auth)
        assert answer.status_code == 200, path


@pytest.mark.req("OPS-01")
async def test_head_is_get_without_a_body(served: Served) -> None:
    for path in ("/health", "/v1/models"):
        answer = await served.http.head(path, headers=served.auth)
        assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
@pytest.mark.req("OPS-01")
async def test_probes_need_no_key_and_call_no_model(served: Served, path: str) -> None:
    answer = await served.http.get(path)
    assert answer.status_code == 200


@pytest.mark.req("OPS-02", "ERR-07")
async def test_readiness_says_why_and_ends_with_shutdown(served: Served) -> None:
    verbose = (await served.http.get("/readyz?verbose")).json()
    assert verbose["status"] == "ready"
    assert verbose["models"]["scripted-echo"] == "ready"
    served.app.drain()
    draining = await served.http.get("/readyz")
    assert (draining.status_code, draining.json()) == (503, {"status": "shutting down"})
    assert (await served.http.get("/livez")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/chat/completions"),
        ("GET", "/v1/chat/completions/chatcmpl-1"),
        ("POST", "/v1/chat/completions/chatcmpl-1"),
        ("DELETE", "/v1/chat/completions/chatcmpl-1"),
        ("GET", "/v1/chat/completions/chatcmpl-1/messages"),
        ("POST", "/v1/audio/speech"),
        ("POST", "/v1/audio/transcriptions"),
        ("POST", "/v1/completions"),
    ],
)
@pytest.mark.req("OAI-25", "API-06")
async def test_paths_that_are_not_served_fail_in_the_error_form(served: Served, method: str, path: str) -> None:
    answer = await served.http.request(method, path, headers=served.auth)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"
    assert (await served.http.request(method, path)).status_code == 401


# --- browsers ---------------------------------------------------------------------------------------------------------


@pytest.mark.req("OSDK-13")
async def test_a_preflight_of_an_allowed_origin_admits_what_it_asks_for(serve: Serve) -> None:
    async with serve(cors_origins=(PAGE,)) as one:
        asked = "authorization,content-type,x-session-id,x-stainless-lang"
        answer = await one.http.options(
            "/v1/chat/completions",
            headers={"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked},
        )
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["access-control-allow-headers"] == asked
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert answer.headers["vary"] == "origin"
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.req("OSDK-13")
async def test_a_browser_may_read_the_request_id_and_the_limits_also_of_errors(serve: Serve, *, stream: bool) -> None:
    async with serve(cors_origins=(PAGE,)) as one:
        body = {"model": "scripted-echo", "messages": HELLO, "stream": stream}
        for headers in ({"Origin": PAGE} | one.auth, {"Origin": PAGE}):
            answer = await one.http.post("/v1/chat/completions", json=body, headers=headers)
            exposed = answer.headers["access-control-expose-headers"]
            assert answer.headers["access-control-allow-origin"] == PAGE
            for name in ("x-request-id", "retry-after", "x-ratelimit-remaining-requests", "x-ratelimit-reset-tokens"):
                assert name in exposed


@pytest.mark.req("OSDK-13")
async def test_any_origin_may_be_allowed_and_others_get_nothing(serve: Serve) -> None:
    async with serve(cors_origins=("*",)) as one:
        answer = await one.http.get("/health", headers={"Origin": "https://else.test"})
        assert answer.headers["access-control-allow-origin"] == "*"
    async with serve(cors_origins=(PAGE,)) as one:
        for origin in ("https://else.test", "null", PAGE + ".evil.test", "http://page.test"):
            answer = await one.http.get("/health", headers={"Origin": origin})
            assert "access-control-allow-origin" not in answer.headers
            preflight = await one.http.options(
                "/v1/models", headers={"Origin": origin, "Access-Control-Request-Method": "GET"}
            )
            assert preflight.status_code == 405


# --- a server without keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:8000", None, 200),
        ("localhost", None, 200),
        ("LOCALHOST:8000", None, 200),
        ("[::1]:8000", None, 200),
        ("127.8.8.8:80", None, 200),
        ("localhost:8000", "http://localhost:8000", 200),
        ("127.0.0.1:8000", "https://evil.test", 403),
        ("127.0.0.1:8000", "http://127.0.0.1:9999", 403),
        ("127.0.0.1:8000", "null", 403),
        ("evil.test:8000", "http://evil.test:8000", 403),
        ("evil.test", None, 403),
        ("localhost.evil.test", None, 403),
        ("127.0.0.1.evil.test", None, 403),
        ("127.evil.test", None, 403),
        ("10.0.0.1", None, 403),
        ("[::1].evil.test", None, 403),
        ("localhost:8000:9", None, 403),
        ("", None, 403),
    ],
)
@pytest.mark.req("ERR-07")
async def test_without_keys_only_loopback_hosts_and_own_pages_are_answered(
    serve: Serve, host: str, origin: str | None, status: int
) -> None:
    async with serve(auth="none") as one:
        headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
        answer = await one.http.get("/v1/models", headers=headers)
        assert answer.status_code == status, answer.text


async def test_without_keys_an_origin_may_be_allowed_by_name(serve: Serve) -> None:
    async with serve(auth="none", cors_origins=(PAGE,)) as one:
        headers = {"Host": "127.0.0.1:8000", "Origin": PAGE}
        assert (await one.http.get("/v1/models", headers=headers)).status_code == 200


# --- models and embeddings --------------------------------------------------------------------------------------------


@pytest.mark.req("OAI-60", "API-05")
async def test_models_are_listed_in_the_official_form(served: Served) -> None:
    listed = (await served.http.get("/v1/models", headers=served.auth)).json()
    assert listed["object"] == "list"
    for model in listed["data"]:
        assert model["object"] == "model"
        assert {"id", "created", "owned_by"} <= set(model)
    names = [model.id async for model in served.sdk.models.list()]
    assert "scripted-echo" in names


@pytest.mark.req("OAI-61", "API-05", "MODEL-05")
async def test_one_model_is_shown_also_by_ids_with_slashes_and_colons(serve: Serve) -> None:
    name = "org/family:7b-q4"
    models = {name: Model(upstream=("scripted",), model="scripted-echo", aliases=("a/b",))}
    async with serve(models=models) as one:
        for asked in (name, "a/b"):
            shown = await one.http.get(f"/v1/models/{asked}", headers=one.auth)
            assert shown.status_code == 200, shown.text
            assert shown.json()["id"] == asked
        assert shown.json()["alias_of"] == name
        assert (await one.sdk.models.retrieve(name)).id == name
        missing = await one.http.get("/v1/models/org/none:1", headers=one.auth)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


EMBEDDER = {"vectors": Model(upstream=("scripted",), embeddings=True, dimensions=8)}


@pytest.mark.req("OAI-63")
async def test_embeddings_come_as_floats_or_as_little_endian_float32(serve: Serve) -> None:
    async with serve(models=EMBEDDER) as one:
        body = {"model": "vectors", "input": ["one", "two"]}
        floats = (await one.http.post("/v1/embeddings", json=body, headers=one.auth)).json()
        packed = (
            await one.http.post("/v1/embeddings", json=body | {"encoding_format": "base64"}, headers=one.auth)
        ).json()
        by_sdk = await one.sdk.embeddings.create(model="vectors", input=["one", "two"])
    assert floats["object"] == "list"
    assert floats["model"] == "vectors"
    assert floats["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    for index, item in enumerate(floats["data"]):
        assert (item["index"], item["object"], len(item["embedding"])) == (index, "embedding", 8)
        unpacked = struct.unpack("<8f", base64.b64decode(packed["data"][index]["embedding"]))
        assert list(unpacked) == pytest.approx(item["embedding"], abs=1e-6)
        assert by_sdk.data[index].embedding == pytest.approx(item["embedding"], abs=1e-6)


@pytest.mark.parametrize(
    ("given", "count"), [("text", 1), (["a", "b", "c"], 3), ([1, 2, 3], 1), ([[1, 2], [3]], 2), (["", " "], 2)]
)
@pytest.mark.req("OAI-63")
async def test_texts_and_token_ids_are_embedded_in_the_length_asked_for(
    serve: Serve, given: object, count: int
) -> None:
    async with serve(models=EMBEDDER) as one:
        body = {"model": "vectors", "input": given, "dimensions": 5, "user": "u"}
        answer = await one.http.post("/embeddings", json=body, headers=one.auth)
        assert [len(item["embedding"]) for item in answer.json()["data"]] == [5] * count


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"input": []}, 400, "input"),
        ({"input": ["a", 1]}, 400, "input"),
        ({"input": [[1], "a"]}, 400, "input"),
        ({"input": {"text": "a"}}, 400, "input"),
        ({"input": None}, 400, "input"),
        ({"encoding_format": "hex"}, 400, "encoding_format"),
        ({"dimensions": 0}, 400, "dimensions"),
        ({"dimensions": 10**9}, 400, "dimensions"),
        ({"model": "scripted-echo"}, 404, "model"),
        ({"model": "nobody"}, 404, "model"),
    ],
)
@pytest.mark.req("OAI-30", "ERRSHAPE-06")
async def test_what_cannot_be_embedded_is_refused_by_name(
    serve: Serve, fields: dict[str, Any], status: int, param: str
) -> None:
    async with serve(models=EMBEDDER) as one:
        body = {"model": "vectors", "input": "x"} | fields
        answer = await one.http.post("/v1/embeddings", json=body, headers=one.auth)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
        chat = await one.chat(model="vectors")
        assert (chat.status_code, chat.json()["error"]["code"]) == (404, "model_not_found")
