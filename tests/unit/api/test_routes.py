"""The route table: spellings of a path, parameters that take the rest, and 404 against 405."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.api.problems import MethodNotAllowed
from convene.api.routes import Route, Router
from convene.errors import NotFound

if TYPE_CHECKING:
    from convene.api.call import Call


async def endpoint(call: Call) -> None:
    """Do nothing."""
    del call


def route(method: str, path: str) -> Route:
    """Return a route."""
    return Route(method=method, path=path, endpoint=endpoint, summary="x")


ROUTER = Router(
    [
        route("GET", "/"),
        route("GET", "/v1/models"),
        route("GET", "/v1/models/{model}"),
        route("DELETE", "/v1/models/{model}"),
        route("POST", "/v1/chat/completions"),
        route("GET", "/health"),
    ]
)


@pytest.mark.req("OAI-31", "OAI-61")
@pytest.mark.parametrize(
    ("method", "path", "found", "params"),
    [
        ("GET", "/v1/models", "/v1/models", {}),
        ("GET", "/models", "/v1/models", {}),
        ("HEAD", "/v1/models", "/v1/models", {}),
        ("GET", "/v1/models/", "/v1/models", {}),
        ("GET", "//v1///models//", "/v1/models", {}),
        ("GET", "//", "/", {}),
        ("HEAD", "/", "/", {}),
        ("GET", "/v1/models/a", "/v1/models/{model}", {"model": "a"}),
        ("GET", "/v1/models/org/name:7b", "/v1/models/{model}", {"model": "org/name:7b"}),
        ("GET", "/models/org/name", "/v1/models/{model}", {"model": "org/name"}),
        ("DELETE", "/v1//models/a/", "/v1/models/{model}", {"model": "a"}),
        ("POST", "/chat/completions", "/v1/chat/completions", {}),
    ],
)
def test_a_path_is_found_in_each_of_its_spellings(method: str, path: str, found: str, params: dict[str, str]) -> None:
    route_found, route_params = ROUTER.find(method, path)
    assert (route_found.path, route_params) == (found, params)
    assert route_found.method == ("GET" if method == "HEAD" else method)


@pytest.mark.req("ERR-02", "ERRSHAPE-05")
@pytest.mark.parametrize("path", ["", "/v", "/v1", "/v2/models", "/v1/model", "/v1/healthy", "/V1/models", "/v1/chat"])
def test_an_unknown_path_is_unknown(path: str) -> None:
    with pytest.raises(NotFound) as caught:
        ROUTER.find("GET", path)
    assert caught.value.code == "unknown_url"


@pytest.mark.req("ERRSHAPE-02")
@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v1/models", ("GET", "HEAD")),
        ("PUT", "/models/a/b", ("DELETE", "GET", "HEAD")),
        ("GET", "/v1/chat/completions", ("POST",)),
        ("HEAD", "/v1//chat/completions/", ("POST",)),
        ("get", "/v1/models", ("GET", "HEAD")),
    ],
)
def test_a_wrong_method_names_the_right_ones(method: str, path: str, allow: tuple[str, ...]) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        ROUTER.find(method, path)
    assert caught.value.allow == allow


def test_a_route_needs_a_key_unless_it_says_otherwise() -> None:
    assert not any(found.open for found in ROUTER.routes)
